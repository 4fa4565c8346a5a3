"""Uses in code that a replay or a snapshot cannot repeat: clocks, files, attributes of modules.

A recovery reports requests that read the clock, files and the like, since a replay finds them changed. A
snapshot reports the attributes that code has set on modules, since it does not contain them. The reports are hints for
people, because code is only looked at, not run. The user's own functions are searched, in cells and in modules; library
functions are judged by their names.
"""

from __future__ import annotations

import dis
import functools
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, ParamSpec

from nsactors.namespace.mentions import (
    UNKNOWN,
    Mention,
    cell_content,
    closure_of,
    code_of_cell,
    is_definition,
    is_library_module,
    is_users_definition,
    mentions_in,
    own_attribute,
)

_CLOCK = "the clock"
_BITS = "random bits of the system"
_FILES = "files"
_NETWORK = "the network"
_PROGRAMS = "other programs"
_PROCESS = "the process"
_HASHES = "hashes"
_GPU = "generators of a GPU"
_HIDDEN = "objects that cannot be inspected"

_P = ParamSpec("_P")


def _by_name(table: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for kind, names in table.items() for name in names.split()}


# Functions, by the module to which they belong; it does not matter how they were imported.
_FUNCTIONS = _by_name(
    {
        _CLOCK: """time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns
            time.process_time time.process_time_ns time.thread_time time.thread_time_ns time.clock_gettime
            time.clock_gettime_ns time.localtime time.gmtime time.ctime time.asctime time.strftime""",
        _BITS: """os.urandom os.getrandom uuid.uuid1 uuid.uuid4 random.SystemRandom random.Random random.seed
            random.Random.seed torch.seed""",
        _FILES: """builtins.open io.open io.FileIO codecs.open os.listdir os.scandir os.walk os.fwalk os.stat os.lstat
            os.access os.readlink posixpath.exists posixpath.lexists posixpath.isfile posixpath.isdir posixpath.getmtime
            posixpath.getsize genericpath.exists genericpath.isfile genericpath.isdir genericpath.getmtime
            genericpath.getctime genericpath.getatime genericpath.getsize""",
        _PROGRAMS: "os.system os.popen os.spawnl os.spawnv os.posix_spawn",
        _PROCESS: "builtins.id os.getpid os.getppid os.times os.getloadavg",
        _HASHES: "builtins.hash",
        _GPU: "torch.cuda",
    }
)
# With arguments these give the same numbers again.
_WITHOUT_ARGUMENTS = frozenset({"random.Random", "random.seed", "random.Random.seed"})
_MODULES = _by_name(
    {
        _BITS: "secrets",
        _PROGRAMS: "subprocess",
        _PROCESS: "psutil",
        _FILES: "glob fileinput sqlite3",
        _NETWORK: """socket ssl requests httpx aiohttp urllib3 urllib.request http.client ftplib imaplib poplib
            telnetlib paramiko boto3 botocore psycopg2 pymysql pymongo redis websockets""",
    }
)
_ALIASES = {"posix": "os", "_io": "io", "_random": "random", "_socket": "socket", "_sqlite3": "sqlite3"}
# Methods of any class or object.
_METHODS = _by_name(
    {_CLOCK: "now utcnow today", _FILES: "read_text read_bytes iterdir rglob", _NETWORK: "urlopen urlretrieve"}
)
# Library functions that read data.
_READERS = _by_name(
    {
        _FILES: """load loadtxt genfromtxt fromfile memmap imread open open_dataset open_mfdataset open_zarr loadmat
            load_workbook load_npz ParquetFile HDFStore ExcelFile"""
    }
)
_READ_PREFIX = "read_"
_FETCH_PREFIX = "fetch_"
_MODES_OF_WRITING = frozenset({"w", "wb", "a", "ab", "x", "xb", "wt", "at", "xt"})
_OPENS = frozenset({"builtins.open", "io.open", "codecs.open"})

_SHELL_COMMAND = re.compile(
    r"^[ \t]*(?:[\w, \t]+=[ \t]*)?(?:!|%%?(?:sx|system|bash|sh|script|perl|ruby)\b)", re.MULTILINE
)
_READING_MAGIC = re.compile(r"^[ \t]*(?:[\w, \t]+=[ \t]*)?%(?:run|load|loadpy|store)\b", re.MULTILINE)
_WORD = re.compile(r"[^\W\d]\w*")

_WORDS = frozenset(
    word for table in (_FUNCTIONS, _MODULES, _METHODS, _READERS) for name in table for word in name.split(".")
)
_SETS_ATTRIBUTE = re.compile(
    r"\.\s*\w+\s*(?:\[[^\n]*\]\s*)?(?:[-+*/%&|^@<>]{0,2}|:\s*[\w.\[\], ]+)=(?!=)|\b(?:set|del)attr\b|\bdel\s"
)
_SETTERS = frozenset({"builtins.setattr", "builtins.delattr"})
_IN_SNAPSHOTS = ("os.environ", "sys.path", "pandas.options", "warnings.filters")  # a snapshot has them
_RC_PARAMS = ("rcParams", "rcParams[...]")
_STORE_ATTR = dis.opmap["STORE_ATTR"]
_STORE_SUBSCR = dis.opmap["STORE_SUBSCR"]
_LOOKED_AT = 100  # items of a container that are searched for functions
_MOST_VALUES = 10_000  # values searched for functions, for one request

_INLINE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>")


def _never_raises(look: Callable[_P, tuple[str, ...]]) -> Callable[_P, tuple[str, ...]]:
    """Let a function return ``_HIDDEN`` where it fails.

    Such a function reads attributes without running code of the user's classes. It may still raise an exception, for
    example for a module that is an instance of a user's class. The exception must not end a recovery or a journal:
    nothing in them depends on the report.
    """

    @functools.wraps(look)
    def looked(*args: _P.args, **kwargs: _P.kwargs) -> tuple[str, ...]:
        try:
            return look(*args, **kwargs)
        except (Exception, SystemExit):
            return (_HIDDEN,)

    return looked


@_never_raises
def inputs_of_cell(source: str, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the inputs of a cell that differ each time it runs.

    Args:
        source: the cell.
        names: the namespace, after the cell has run.
    """
    found = {_input_of(mention) for mention in _CodeReach(names).of_cell(source)}
    if _SHELL_COMMAND.search(source):
        found.add(_PROGRAMS)
    if _READING_MAGIC.search(source):
        found.add(_FILES)
    return tuple(sorted(filter(None, found)))


@_never_raises
def inputs_of_call(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], names: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the inputs of a call that differ each time; empty if the call cannot have changed the namespace.

    Args:
        function: the function. Its return value has gone to the client, so it is not in the namespace.
        args: its arguments.
        kwargs: its arguments by name.
        names: the namespace.
    """
    mentions = [*_CodeReach(names).of_call(function, args, kwargs)]
    found = tuple(sorted(set(filter(None, map(_input_of, mentions)))))
    if not found:
        return ()
    values = {id(value) for value in names.values() if not is_definition(value)}
    leaves_nothing = not any(mention.is_of_data or mention.is_stored for mention in mentions)
    return () if leaves_nothing and values.isdisjoint(map(id, (*args, *kwargs.values()))) else found


@_never_raises
def attributes_set_by_cell(source: str, names: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the attributes of modules and library classes that a cell sets, functions in it included.

    Args:
        source: the cell.
        names: the namespace, after the cell has run.
    """
    if not _SETS_ATTRIBUTE.search(source) or (code := code_of_cell(source)) is None:
        return ()
    return tuple(dict.fromkeys(_attributes_set(code, names, {})))


@_never_raises
def attributes_set_by_call(function: Any) -> tuple[str, ...]:
    """Return the attributes of modules and library classes that a user's function sets."""
    if type(function) is not FunctionType or not is_users_definition(function):
        return ()
    code = function.__code__
    if _STORE_ATTR not in code.co_code and "setattr" not in code.co_names and _STORE_SUBSCR not in code.co_code:
        return ()  # a quick search: a byte that is found may also be an instruction's argument
    return tuple(dict.fromkeys(_attributes_set(code, function.__globals__, closure_of(function))))


def _attributes_set(code: CodeType, scope: Mapping[str, Any], closure: Mapping[str, Any]) -> Iterator[str]:
    before = ""
    for mention in mentions_in(code, scope, closure):
        if mention.path.startswith(_IN_SNAPSHOTS) or mention.path.endswith(_RC_PARAMS):
            pass
        elif mention.is_stored and not mention.is_of_data:
            yield mention.path
        elif before in _SETTERS and type(mention.value) is ModuleType:
            yield f"{mention.path}.?"
        before = mention.path
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _attributes_set(inner, scope, closure)


@dataclass(slots=True)
class _CodeReach:
    """The mentions in code, and in the user's functions that the code leads to; each function is searched once.

    The search keeps a queue instead of calling itself: data may be nested more deeply than Python's stack.
    """

    names: Mapping[str, Any]
    _ahead: deque[tuple[Any, int]] = field(default_factory=deque)  # values, and how many levels below them to search
    _seen: set[int] = field(default_factory=set)
    _kept: list[object] = field(default_factory=list)  # objects are kept, so that no id is reused

    def of_cell(self, source: str) -> Iterator[Mention]:
        """Yield the mentions in a cell that has run, without those in functions that it only defines."""
        if not self._may_matter(set(_WORD.findall(source)), self.names):
            return
        if (code := code_of_cell(source)) is not None:
            yield from self._of_code(code, self.names, {}, is_cell=True)
            yield from self._behind_all()

    def of_call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Mention]:
        """Yield the mentions in the user's functions behind a call."""
        self._look_into((function, *args, *kwargs.values()), depth=3)
        return self._behind_all()

    def _may_matter(self, words: AbstractSet[str], scope: Mapping[str, Any]) -> bool:
        """Return whether these names may lead to an input or to code.

        For most cells it returns False, and nothing else is searched.
        """
        if not words.isdisjoint(_WORDS) or any(word.startswith((_READ_PREFIX, _FETCH_PREFIX)) for word in words):
            return True
        return any(word in scope and _has_code(scope[word]) for word in words)

    def _of_code(
        self, code: CodeType, scope: Mapping[str, Any], closure: Mapping[str, Any], *, is_cell: bool = False
    ) -> Iterator[Mention]:
        # Disassembly costs 5 us an instruction.
        if code.co_freevars or not is_cell or self._may_matter({*code.co_names}, scope):
            for mention in mentions_in(code, scope, closure):
                yield mention
                self._look_into([mention.value], depth=1)
        for inner in code.co_consts:
            # A cell need not call a function it defines. If it does, it mentions the name. Class bodies always run.
            if isinstance(inner, CodeType) and (not is_cell or _is_run_in_place(inner)):
                yield from self._of_code(inner, scope, closure)

    def _behind_all(self) -> Iterator[Mention]:
        """Yield the mentions in the queued functions of the user, and in the functions that these lead to."""
        while self._ahead:
            yield from self._behind(*self._ahead.popleft())

    def _behind(self, value: Any, depth: int) -> Iterator[Mention]:
        if id(value) in self._seen or len(self._seen) >= _MOST_VALUES:
            return
        self._seen.add(id(value))
        self._kept.append(value)
        kind = type(value)
        if kind is FunctionType:
            if is_users_definition(value):
                yield from self._of_code(value.__code__, value.__globals__, closure_of(value))
            elif depth:  # a wrapper of some library
                self._look_into(map(cell_content, value.__closure__ or ()), depth - 1)
        elif kind is MethodType:
            self._look_into((value.__func__, value.__self__), depth)
        elif kind is functools.partial:
            self._look_into((value.func, *value.args, *value.keywords.values()), depth)
        elif kind in (list, tuple, set, frozenset):
            self._look_into(itertools.islice(value, _LOOKED_AT), depth)
        elif kind is dict:
            self._look_into(itertools.islice(value.values(), _LOOKED_AT), depth)
        elif issubclass(kind, type):
            if is_users_definition(value):
                self._look_into(map(_plain_function, own_attribute(value, "__dict__").values()), depth)
                self._look_into(own_attribute(value, "__mro__")[1:], depth)
        else:
            wrapped = _static_attribute(value, "__wrapped__")
            self._look_into((kind, wrapped), depth)
            if depth:
                self._look_into(_attributes(value), depth - 1)

    def _look_into(self, values: Iterable[Any], depth: int) -> None:
        self._ahead.extend(
            (value, depth)
            for value in values
            if value is not UNKNOWN and type(value) is not ModuleType and _has_code(value)
        )


def _input_of(mention: Mention) -> str | None:
    """Return the kind of input that a mention leads to, such as ``_CLOCK``; None if it leads to none."""
    module, _, name = mention.path.rpartition(".")
    module = _ALIASES.get(module, module)
    path = f"{module}.{name}"
    if path in _WITHOUT_ARGUMENTS and mention.arguments != 0:
        return None
    if path in _OPENS:
        return None if mention.modes & _MODES_OF_WRITING else _FILES
    if (kind := _FUNCTIONS.get(path)) is not None:
        return kind
    if type(mention.value) is ModuleType:
        return None  # an import, or a step of a longer path
    for whole in (path, module, module.partition(".")[0]):
        if whole in _MODULES:
            return _MODULES[whole]
    if type(mention.value) in (FunctionType, type) and is_users_definition(mention.value):
        return None  # its own code is searched
    if name in _METHODS:
        return _METHODS[name]
    if mention.root is not None or callable(mention.value):
        if name in _READERS or name.startswith(_READ_PREFIX):
            return _FILES
        if name.startswith(_FETCH_PREFIX):
            return _NETWORK
    return None


def _static_attribute(value: Any, name: str) -> Any:
    try:
        return object.__getattribute__(value, "__dict__").get(name, UNKNOWN)
    except (AttributeError, TypeError):
        return UNKNOWN


def _attributes(value: Any) -> list[Any]:
    """Return the attributes of an object of nsactors, which may wrap a call. For other objects, the list is empty."""
    if not str(own_attribute(type(value), "__module__")).startswith("nsactors."):
        return []
    slots = getattr(type(value), "__slots__", ())
    return [getattr(value, slot, None) for slot in slots] or [*getattr(value, "__dict__", {}).values()]


def _has_code(value: Any) -> bool:
    """Return whether a value may lead to functions of the user; plain data does not."""
    kind = type(value)
    if kind in (FunctionType, MethodType, functools.partial, list, tuple, set, frozenset, dict):
        return True
    if kind is ModuleType:
        return not is_library_module(value)
    if issubclass(kind, type):
        return is_users_definition(value)
    return (
        is_users_definition(kind) or str(own_attribute(kind, "__module__")).startswith("nsactors.") or callable(value)
    )


def _plain_function(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _is_run_in_place(code: CodeType) -> bool:
    return code.co_name in _INLINE or {"__module__", "__qualname__"} <= set(code.co_names)
