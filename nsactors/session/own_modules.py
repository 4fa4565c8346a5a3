"""The modules that this program has imported from its own files, and their description for engines.

A call reads only the files of modules that have been imported or reloaded since the last call. A finder that never
finds anything collects their names. Edits that have not been loaded are looked for between the cells of a prompt.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import struct
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, NamedTuple

from nsactors.errors.formatting import bytes_in_words
from nsactors.protocol.client_modules import (
    MAX_SENT_BYTES,
    ClientModules,
    OwnModule,
    digest_of,
    imported_modules,
    is_installed,
    is_reserved,
    load_order,
)
from nsactors.protocol.process import current_shell, remove_finder

LOOKS = 4  # tries to find a missing module: another thread may have just begun its import, or the import has failed
_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "pytest.ini", "tox.ini", ".git")
_PYC_HEADER = struct.Struct("<4sIII")  # magic, flags, the source's time of change and size


class _Version(NamedTuple):
    """The version of a module's source that was loaded.

    Attributes:
        source: the source.
        stat: the time of the file's last change, in ns, and its size; both from the moment when the file was read.
        is_exact: whether this source was loaded. If not, the file was edited after its import and before it was read.
    """

    source: bytes
    stat: tuple[int, int]
    is_exact: bool


class _ImportNotes:
    """The first of all finders: it collects the names of imported modules and leaves finding to the other finders."""

    def __init__(self) -> None:
        self.names: deque[str] = deque()

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        self.names.append(name)
        return None


class OwnModules:
    """Follows the imports of this process.

    Args:
        owner: the client whose program this is.
    """

    def __init__(self, owner: str = "") -> None:
        self._owner = owner
        self._modules = sys.modules
        self._lock = threading.RLock()
        self._serials = itertools.count(1)
        self._own: dict[str, OwnModule] = {}
        self._versions: dict[str, _Version] = {}
        self._unfound: dict[str, int] = {}
        self._edited: dict[str, tuple[int, int]] = {}
        self._told_edits: dict[str, tuple[int, int]] = {}
        self._roots = _roots()
        self._editable: tuple[list[str], list[str]] = [], []  # the search path, and the roots that were found on it
        self._sent_bytes = 0
        self._too_large: dict[str, bool] = {}  # by the module's name: whether the user has been warned
        self._path: list[str] = []
        self._folder = ""
        self._is_relative = False
        self._moves_in_calls = True
        self._current: ClientModules | None = None
        self._imports = _ImportNotes()
        sys.meta_path.insert(0, self._imports)
        self._imports.names += self._modules
        self.now()

    def close(self) -> None:
        """Stop following imports."""
        remove_finder(self._imports)

    def now(self) -> ClientModules | None:
        """Return the description of the modules; None if there are none. When it has changed, it is a new object."""
        # Every request calls this. It takes less than a microsecond unless something has changed.
        known = not (self._imports.names or self._unfound) and sys.path == self._path
        if known and not (self._is_relative and self._moves_in_calls and _folder() != self._folder):
            return self._current
        with self._lock:
            self._look()
            return self._current

    def sources(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return by digest those sources that may be sent."""
        wanted = set(digests)
        with self._lock:
            return {
                self._own[name].digest: version.source
                for name, version in self._versions.items()
                if self._own[name].is_sent and self._own[name].digest in wanted
            }

    def tell_too_large(self) -> str:
        """Return a message about modules that are too large to be sent; empty if earlier messages named all of them."""
        with self._lock:
            names = [name for name, told in self._too_large.items() if not told]
            self._too_large.update(dict.fromkeys(names, True))
        if not names:
            return ""
        limit = bytes_in_words(MAX_SENT_BYTES)
        return (
            f"the modules of this program take more than {limit}: {', '.join(names)} "
            f"{'is' if len(names) == 1 else 'are'} not sent to engines on other hosts. Install large modules there"
        )

    def look_for_edits(self) -> None:
        """Compare the files with the sources that were loaded; call this between the cells of a prompt."""
        reloader = _autoreloader()
        with self._lock:
            self._moves_in_calls = False  # from now on, only this method looks at the working folder, which takes 1 us
            self._look()
            for name, version in list(self._versions.items()):
                found = _stat_of(self._own[name].origin)
                if found is None or (found == version.stat and version.is_exact):
                    self._edited.pop(name, None)
                elif _has_been_reloaded(reloader, name, self._own[name].origin):
                    self._take_in(name)  # IPython has reloaded the module, by replacing its functions one by one
                    self._renew()
                else:
                    self._note_edit(name, version, found)

    def tell_edits(self) -> str:
        """Return a line about edits that have not been loaded here; empty if earlier lines have named all of them."""
        with self._lock:
            news = [name for name, found in self._edited.items() if self._told_edits.get(name) != found]
            self._told_edits.update({name: self._edited[name] for name in news})
            if not news:
                return ""
            names = ", ".join(news)
            magics = "" if current_shell() is None else ", %autoreload 2 or %pxreload"
            first = self._versions[news[0]].is_exact
            run = "engines run what was imported" if first else "engines run what the file says now"
            return (
                f"{names}: edited since imported here, and {run}; importlib.reload({news[0]}){magics} loads the edit, "
                "here and there"
            )

    def edited(self) -> list[ModuleType]:
        """Return the modules whose files have changed since they were loaded, in the order in which to load them."""
        self.look_for_edits()
        with self._lock:
            needs = {
                name: imported_modules(version.source, name, is_package=self._own[name].search is not None)
                for name, version in self._versions.items()
                if name in self._edited
            }
        return [module for name in load_order(set(needs), needs) if (module := self._modules.get(name)) is not None]

    def _look(self) -> None:
        names = dict.fromkeys(self._unfound)
        while self._imports.names:  # one by one, because another thread may import a module at the same time
            names[self._imports.names.popleft()] = None
        changed = False
        for name in names:
            changed |= self._take_in(name)
        if sys.path != self._path or (self._is_relative and _folder() != self._folder):
            self._path = list(sys.path)
            self._folder = _folder()
            self._is_relative = any(not os.path.isabs(entry) for entry in self._path)
            changed = True
        if changed:
            self._renew()

    def _renew(self) -> None:
        modules = tuple(sorted(self._own.values(), key=lambda module: module.serial))
        told = ClientModules(self._owner, _search_paths(self._path, self._folder), modules)
        if told != self._current:
            self._current = told if told.paths or told.modules else None

    def _take_in(self, name: str) -> bool:
        """Read a module that has been loaded; return whether it belongs to the program and has been read."""
        if is_reserved(name):
            return False
        module = self._modules.get(name)
        if module is None:
            looks = self._unfound.get(name, 0) + 1
            if looks < LOOKS:
                self._unfound[name] = looks
            else:
                self._unfound.pop(name, None)
            return False
        self._unfound.pop(name, None)
        origin = _origin_of(module)
        if origin is None or is_installed(origin):
            return False
        version = _version_of(module, origin)
        if version is None:
            return False
        if name in self._own and not _compiles(version.source, origin):
            # The file has a syntax error, so a reload has failed and has not changed the module.
            self._edited[name] = version.stat
            return False
        self._take_in_parents(name)
        search = vars(module).get("__path__")
        search = None if search is None else tuple(map(str, search))
        digest = digest_of(version.source)
        sent = self._may_be_sent(name, origin, len(version.source))
        self._own[name] = OwnModule(name, origin, digest, search, next(self._serials), sent)
        self._versions[name] = version
        self._edited.pop(name, None)
        return True

    def _take_in_parents(self, name: str) -> None:
        """Take in the packages without a file that contain a module, because engines need them to find the module."""
        parent = name.rpartition(".")[0]
        if not parent or parent in self._own:
            return
        module = self._modules.get(parent)
        if module is not None and _origin_of(module) is None:
            self._take_in_parents(parent)
            search = tuple(map(str, vars(module).get("__path__") or ()))
            self._own[parent] = OwnModule(parent, "", "", search, next(self._serials), True)

    def _note_edit(self, name: str, version: _Version, found: tuple[int, int]) -> None:
        source = _read(self._modules.get(name), self._own[name].origin)
        if source is None or (source == version.source and version.is_exact):
            self._versions[name] = version._replace(stat=found)  # the file has a new time, but the same text
            self._edited.pop(name, None)
        else:
            self._edited[name] = found

    # The choice of sources that may be sent to other hosts.

    def _may_be_sent(self, name: str, origin: str, nbytes: int) -> bool:
        before = self._own.get(name)
        if before is not None and before.is_sent:
            self._sent_bytes -= len(self._versions[name].source)
        if not (_is_under(origin, self._roots) or _is_under(origin, self._editable_roots())):
            return False
        if self._sent_bytes + nbytes > MAX_SENT_BYTES:
            self._too_large.setdefault(name, False)
            return False
        self._sent_bytes += nbytes
        return True

    def _editable_roots(self) -> list[str]:
        if self._editable[0] != sys.path:
            self._editable = list(sys.path), _editable_roots()
        return self._editable[1]


def _roots() -> tuple[str, ...]:
    """Return the folder of the script (or the script, if it is an archive) and the root of its project."""
    main = str(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    is_own = main != "" and not is_installed(main) and not _is_program(main)
    folders = [os.path.realpath(os.path.dirname(os.path.abspath(main)) if is_own else os.getcwd())]
    barred = {os.path.realpath(path) for path in (os.sep, os.path.expanduser("~"), tempfile.gettempdir())}
    for start in (os.path.realpath(os.getcwd()), folders[0]):
        above = itertools.accumulate(itertools.repeat(start), lambda folder, _: os.path.dirname(folder))
        for root in itertools.takewhile(lambda folder: folder not in barred, above):
            if any(os.path.exists(os.path.join(root, file)) for file in _PROJECT_FILES):
                folders.append(root)
                break
    return tuple(dict.fromkeys(folders))


def _is_program(path: str) -> bool:
    """Return whether a script is a command such as ``pytest`` or ``ipython``, and not a script of the user."""
    return os.path.dirname(os.path.abspath(path)) == os.path.dirname(sys.executable)


def _is_under(path: str, roots: Iterable[str]) -> bool:
    real = os.path.realpath(path)
    return any(real.startswith(os.path.join(root, "")) for root in roots)


def _editable_roots() -> list[str]:
    """Return the folders of packages in editable installs.

    Some folders are named in ``.pth`` files. For others, the installer has written a finder with a table of them.
    """
    roots = []
    for folder in [entry for entry in sys.path if is_installed(entry) and os.path.isdir(entry)]:
        for file in (file for file in os.listdir(folder) if file.endswith(".pth")):
            with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as lines:
                roots += [os.path.realpath(line.strip()) for line in lines if os.path.isabs(line.strip())]
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            table = getattr(module, "MAPPING", {})
            roots += [os.path.dirname(os.path.realpath(path)) for path in table.values() if isinstance(path, str)]
    return [root for root in dict.fromkeys(roots) if not is_installed(root)]


def _search_paths(path: Sequence[str], folder: str) -> tuple[str, ...]:
    entries = (os.path.join(folder, entry) if entry else folder for entry in path)
    paths = (os.path.normpath(entry) for entry in entries if entry)
    # The path of `nsactors` and of `ipython` begins with the folder of these commands.
    barred = os.path.dirname(sys.executable)
    return tuple(dict.fromkeys(entry for entry in paths if not is_installed(entry) and entry != barred))


def _version_of(module: ModuleType, origin: str) -> _Version | None:
    stat = _stat_of(origin)
    source = _read(module, origin)
    if source is None:
        return None
    return _Version(source, stat or (0, len(source)), _is_what_was_compiled(module, stat))


def _is_what_was_compiled(module: ModuleType, stat: tuple[int, int] | None) -> bool:
    """Return whether a file is unchanged since Python last compiled it; True if this cannot be known."""
    spec: Any = vars(module).get("__spec__")
    cached = getattr(spec, "cached", None)
    if stat is None or type(getattr(spec, "loader", None)) is not SourceFileLoader or not cached:
        return True
    if sys.dont_write_bytecode:  # the cached file may be from an earlier import and an older source
        return True
    try:
        with open(cached, "rb") as file:
            magic, flags, changed, size = _PYC_HEADER.unpack(file.read(_PYC_HEADER.size))
    except (OSError, struct.error):  # perhaps Python has no permission to write there
        return True
    is_known = magic == importlib.util.MAGIC_NUMBER and flags == 0
    return not is_known or (changed, size) == (stat[0] // 1_000_000_000 & 0xFFFFFFFF, stat[1] & 0xFFFFFFFF)


def _compiles(source: bytes, origin: str) -> bool:
    try:
        compile(source, origin, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _read(module: ModuleType | None, origin: str) -> bytes | None:
    try:  # first with the loader: the module may be in an archive, or the path may name another file on this host
        spec = vars(module)["__spec__"]
        data: Any = spec.loader.get_data(spec.origin)
    except Exception:  # the loader may belong to another library, and may raise anything
        data = None
    if isinstance(data, bytes):
        return data
    try:
        with open(origin, "rb") as file:
            return file.read()
    except OSError:
        return None


def _stat_of(origin: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(origin)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _origin_of(module: Any) -> str | None:
    """Return the file of a module, without running code of a module whose import waits for its first use."""
    try:
        names = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return None
    if type(module).__module__ == "importlib.util":
        return None
    origin = getattr(names.get("__spec__"), "origin", None) or names.get("__file__")
    # The path is relative if the program is an archive that was given by a relative path.
    return os.path.abspath(origin) if isinstance(origin, str) and origin.endswith(".py") else None


def _folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the working folder has been removed
        return ""


def _autoreloader() -> Any:
    """Return IPython's reloader of modules, if ``%autoreload`` is on."""
    shell = current_shell()
    magics = None if shell is None else shell.magics_manager.registry.get("AutoreloadMagics")
    reloader = getattr(magics, "_reloader", None)
    return reloader if getattr(reloader, "enabled", False) else None


def _has_been_reloaded(reloader: Any, name: str, origin: str) -> bool:
    if reloader is None or origin in getattr(reloader, "failed", ()):
        return False
    try:
        return bool(reloader.modules_mtimes[name] == os.stat(origin).st_mtime)
    except (AttributeError, KeyError, OSError):
        return False
