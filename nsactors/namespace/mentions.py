"""The names in code, resolved to values without running it.

:func:`mentions_in` disassembles a code object and yields a :class:`Mention` for each name or path of attributes in it,
with the value if that is known. No code of the user's classes runs.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import functools
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from nsactors._frozen import frozen
from nsactors.namespace.interrupts import is_library_file, is_user_code

_SHELL_LINE = re.compile(r"^([ \t]*)(?:[\w, \t]+=[ \t]*)?[%!].*$", re.MULTILINE)
_SKIPPED = frozenset({"PUSH_NULL", "PRECALL", "CACHE", "EXTENDED_ARG", "NOP", "RESUME", "KW_NAMES"})
_CALLS = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX"})
_STORES = frozenset({"STORE_NAME", "STORE_FAST", "STORE_GLOBAL", "STORE_DEREF"})
_LOADS_OF_SCOPE = frozenset({"LOAD_NAME", "LOAD_GLOBAL"})
_LOADS = _LOADS_OF_SCOPE | {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_CLASSDEREF"}
_NEAR = 12  # instructions from a function to its call
_ATTEMPTS = 9


class _Unknown:
    """The type of :data:`UNKNOWN`, which stands for a value that is unknown unless the code runs."""


UNKNOWN: Any = _Unknown()


def parse_code(code: str, filename: str = "<unknown>") -> ast.Module:
    """Return the syntax tree of ``code``; SyntaxError if it has none.

    Python 3.11 counts the depth of the tree for all threads together: ``ast.parse`` raises SystemError if another
    thread parses while this one waits in the middle, as in a callback of the garbage collector.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(SystemError):
            return ast.parse(code, filename)
    return ast.parse(code, filename)


@frozen
class Mention:
    """One place in code that names a value.

    Attributes:
        path: module and names in it; ``?`` and an attribute's name if the object is unknown.
        value: the value, or :data:`UNKNOWN`.
        root: the module at the start of the path in the code, if there is one.
        is_of_data: whether the path starts with a name of the namespace that is neither module, function nor class.
        is_stored: whether the code sets or deletes what the path names.
        modes: constant texts between this place and its call.
        arguments: the number of arguments, if the value is called at this place; None if it is not.
    """

    path: str
    value: Any = UNKNOWN
    root: ModuleType | None = None
    is_of_data: bool = False
    is_stored: bool = False
    modes: frozenset[str] = frozenset()
    arguments: int | None = None

    def attribute(self, name: str) -> Mention:
        """Return a mention of an attribute of this value."""
        value, path = _attribute(self.value, name)
        return Mention(path or f"{self.path if self.root else '?'}.{name}", value, self.root, self.is_of_data)


def code_of_cell(source: str) -> CodeType | None:
    """Compile a cell without the lines that are not Python; None if it cannot be compiled."""
    plain = _SHELL_LINE.sub(r"\1pass", source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the cell's own run has shown them
            code: CodeType = compile(plain, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    return code


def mentions_in(code: CodeType, scope: Mapping[str, Any], closure: Mapping[str, Any]) -> Iterator[Mention]:
    """Yield the mentions in one code object, without those in functions and classes inside it."""
    imported: dict[str, Mention] = {}
    module: Mention | None = None  # the module of the current import statement, and a member imported from it
    member: Mention | None = None
    current: Mention | None = None  # the path that is being read, and the previous path
    ended: Mention | None = None
    copied: Mention | None = None  # a path that is read and then set
    instructions = _instructions(code)
    for index, instruction in enumerate(instructions):
        kind, name = instruction.opname, instruction.argval
        if kind in ("LOAD_ATTR", "LOAD_METHOD"):
            current = current.attribute(name) if current else Mention(f"?.{name}")
            continue
        if kind == "COPY" and (current or ended):
            copied = current or ended
            continue
        if kind in ("STORE_ATTR", "DELETE_ATTR"):
            current, copied = current or copied, None
            if current is not None and (current.root is not None or _is_library_class(current.value)):
                yield replace(current.attribute(name), value=UNKNOWN, is_stored=True)
            current = None
            continue
        if current is not None:
            yield _with_call(current, instructions[index : index + _NEAR])
            current, ended = None, current
        if kind == "IMPORT_NAME":
            names = instructions[index - 1].argval  # without names, the top package is bound
            module, member = _of_module(name if names else name.partition(".")[0]), None
        elif kind == "IMPORT_FROM" and module is not None:
            member = module.attribute(name)
        elif kind in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            ended, copied = ended or copied, None
            if ended is not None and ended.root is not None:
                yield replace(ended, path=f"{ended.path}[...]", value=UNKNOWN, is_stored=True)
            ended = None
        elif kind in _STORES and module is not None:
            imported[name] = member or module
            module, member = (module, None) if member else (None, None)
        elif kind in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            yield Mention(name, is_of_data=True, is_stored=True)
        elif kind == "POP_TOP":
            module = None
        elif kind in _LOADS:
            current = _look_up(name, [imported, closure, *([scope] if kind in _LOADS_OF_SCOPE else [])])
        elif kind != "LOAD_CONST":
            ended = None


@functools.lru_cache(maxsize=512)  # a replay meets the same functions again and again
def _instructions(code: CodeType) -> list[dis.Instruction]:
    return [instruction for instruction in dis.get_instructions(code) if instruction.opname not in _SKIPPED]


def _with_call(mention: Mention, after: list[dis.Instruction]) -> Mention:
    """Return the mention with the constant texts and the arguments of its call, if the call is near."""
    modes: set[str] = set()
    for instruction in after:
        if instruction.opname in _CALLS:
            arguments = instruction.arg if instruction is after[0] else None
            return replace(mention, modes=frozenset(modes), arguments=arguments)
        if instruction.opname == "LOAD_CONST" and isinstance(instruction.argval, str):
            modes.add(instruction.argval)
    return mention


def _look_up(name: str, scopes: list[Mapping[str, Any]]) -> Mention | None:
    for names in scopes:
        if name in names:
            value = names[name]
            if type(value) is Mention:
                return value
            if type(value) is ModuleType:
                return _of_module(value.__name__, value)
            return Mention(_path(value, name), value, is_of_data=not is_definition(value))
    builtin = vars(builtins).get(name, UNKNOWN) if len(scopes) > 2 else UNKNOWN
    return None if builtin is UNKNOWN else Mention(f"builtins.{name}", builtin)


def _of_module(name: str, module: ModuleType | None = None) -> Mention:
    module = module or sys.modules.get(name) or ModuleType(name)
    return Mention(name, module, module)


def _attribute(value: Any, name: str) -> tuple[Any, str]:
    """Return an attribute and its path without running code; (UNKNOWN, "") if it is not known."""
    if value is UNKNOWN:
        return UNKNOWN, ""
    kind = type(value)
    if issubclass(kind, ModuleType):
        found = vars(value).get(name, sys.modules.get(f"{value.__name__}.{name}", UNKNOWN))
        path = f"{value.__name__}.{name}"
        if type(found) is ModuleType:
            return found, found.__name__
        return found, _path(found, path)
    owner = value if issubclass(kind, type) else kind
    for cls in own_attribute(owner, "__mro__"):
        if name in own_attribute(cls, "__dict__"):
            return own_attribute(cls, "__dict__")[
                name
            ], f"{own_attribute(cls, '__module__')}.{own_attribute(cls, '__qualname__')}.{name}"
    return UNKNOWN, ""


def own_attribute(definition: Any, name: str) -> Any:
    """Return an attribute that Python itself gives a function or class, without asking its metaclass."""
    if not issubclass(type(definition), type):
        return getattr(definition, name)
    return type.__dict__[name].__get__(definition)


def is_definition(value: Any) -> bool:
    """Return whether a value is code with a name of its own: a function, class or module."""
    kind = type(value)
    return kind in (FunctionType, BuiltinFunctionType, MethodType, ModuleType) or issubclass(kind, type)


def _path(value: Any, otherwise: str) -> str:
    if is_definition(value) and type(value) not in (ModuleType, MethodType):
        module = own_attribute(value, "__module__")
        return f"{module}.{own_attribute(value, '__qualname__')}" if isinstance(module, str) else otherwise
    return otherwise


def is_library_module(module: ModuleType) -> bool:
    """Return whether a module belongs to Python or to an installed package."""
    file = vars(module).get("__file__")
    return is_library_file(file) if isinstance(file, str) else vars(module).get("__spec__") is not None


def is_users_definition(definition: Any) -> bool:
    """Return whether a function or class is the user's, judged by its module.

    The file cannot be used for this, because functions that a library makes may have none.
    """
    name = own_attribute(definition, "__module__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    if module is not None:
        return not is_library_module(module)
    return type(definition) is not FunctionType or is_user_code(definition.__code__)


def _is_library_class(value: Any) -> bool:
    return issubclass(type(value), type) and not is_users_definition(value)


def closure_of(function: FunctionType) -> dict[str, Any]:
    """Return a function's free variables by name."""
    return dict(zip(function.__code__.co_freevars, map(cell_content, function.__closure__ or ()), strict=True))


def cell_content(cell: Any) -> Any:
    """Return the content of a closure's cell; :data:`UNKNOWN` if it is not bound yet."""
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return UNKNOWN
