"""Modules of clients on an engine, each in the version that its client has imported, and their sources.

An engine has one version of each module at a time. When a request comes from a client that has imported another
version, the module is reloaded as ``importlib.reload`` does. Modules that a client has not imported are found along the
client's search path, after the engine's own search path.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import linecache
import os
import secrets
import sys
import zipimport
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from nsactors.errors.exception_state import module_of, name_of, text_of
from nsactors.namespace.interrupts import run_user_code
from nsactors.protocol.client_modules import (
    ClientModules,
    LoadedModule,
    OwnModule,
    digest_of,
    from_imports,
    imported_modules,
    is_installed,
    is_reserved,
    reload_plan,
)
from nsactors.protocol.process import remove_finder, set_search_path

LIMIT_BYTES = 256_000_000  # clusters run for weeks, and sources are edited all day


def sources_folder(folder: str) -> str:
    """Return the folder of sources in a cluster's folder on this machine."""
    return os.path.join(folder, "sources")


class SourceStore:
    """Store sources by digest; the oldest sources make room for new ones.

    Args:
        folder: the folder, which is made when the first source is stored.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def get(self, digest: str) -> bytes | None:
        """Return a source; None if it is not stored here."""
        try:
            source = (self._folder / digest).read_bytes()
        except OSError:
            return None
        return source if digest_of(source) == digest else None

    def lacking(self, digests: Iterable[str]) -> list[str]:
        """Return the digests whose sources are not stored here."""
        return [digest for digest in digests if not (self._folder / digest).exists()]

    def keep(self, source: bytes) -> None:
        """Store a source. Without room for it, later readers fetch it from the cluster."""
        path = self._folder / digest_of(source)
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True, parents=True)
            # Under another name first, since another process may read the file before it is complete.
            draft = path.with_name(f".{secrets.token_hex(8)}")
            draft.write_bytes(source)
            os.replace(draft, path)
            self._make_room()

    def _make_room(self) -> None:
        entries = [entry.stat() for entry in os.scandir(self._folder)]
        excess = sum(entry.st_size for entry in entries) - LIMIT_BYTES
        if excess <= 0:
            return
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime):
            excess -= path.stat().st_size
            path.unlink(missing_ok=True)
            if excess <= 0:
                return


Fetch = Callable[[Sequence[str]], dict[str, bytes]]
"""Takes digests, and returns by digest those sources that the cluster has."""

MAX_CLIENTS = 1_000  # clients whose modules are remembered


class _Former(NamedTuple):
    """A module that is imported anew, and its names before the import."""

    module: ModuleType
    names: dict[str, Any]


class ModuleVersions:
    """Find modules for the client whose request runs. This is the first of all finders.

    This is also a part of the process's state, for the journal: see ``process_state.StatePart``.

    Args:
        names: the engine's namespace.
        store: sources that processes of this machine have fetched; None for a process without a folder.
        fetch: gets other sources from the cluster.
    """

    name = "modules of clients"
    library = ""

    def __init__(self, names: dict[str, Any], store: SourceStore | None, fetch: Fetch) -> None:
        self._names = names
        self._store = store
        self._fetch = fetch
        self._modules_of: dict[str, ClientModules] = {}
        self._client = ""  # the client of the last request
        self._served: ClientModules | None = None
        self._current: dict[str, OwnModule] = {}
        self._loaded: dict[str, LoadedModule] = {}
        self._unrecorded: list[str] = []  # imports of modules that no client has reported
        self._plan: list[str] = []
        self._former: dict[str, _Former] = {}  # modules that are being imported anew
        self._foreign: set[str] = set()  # modules of other programs; this client finds other modules by these names
        self._same_client = False
        self._has_scanned = False
        self._notes: list[str] = []
        self._noted: set[tuple[str, str]] = set()
        self._absent: set[str] = set()
        self._returned: ClientModules | None = None
        self._added: list[str] = []
        # Entries of the program that started the cluster, and entries of clients, are not the engine's own.
        given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        self._inherited = [entry for entry in sys.path if entry and not (is_installed(entry) or entry in given)]
        sys.meta_path.insert(0, self)

    def close(self) -> None:
        """Stop finding modules."""
        remove_finder(self)

    def select(self, client: str, changed: ClientModules | None) -> None:
        """Use the modules of a client from now on; this runs no user code.

        Args:
            client: the client of the request.
            changed: its modules, if they have changed since its last request.
        """
        if changed is not None and changed == self._modules_of.get(client):
            changed = None  # a client that has received no reply has sent them again
        if changed is None and client == self._client:
            return
        self._client = client
        if changed is not None:
            self._modules_of.pop(client, None)
            self._modules_of[client] = changed
            if len(self._modules_of) > MAX_CLIENTS:
                del self._modules_of[next(iter(self._modules_of))]
        modules = self._modules_of.get(client)
        if modules is not None and modules is not self._served:
            self._serve(modules, is_new=changed is not None)

    def apply(self) -> None:
        """Reload the modules that have changed, before a request runs.

        This runs user code, which may be interrupted.
        """
        if not self._plan:
            return
        plan, self._plan = self._plan, []
        if self._same_client:
            for name in plan:
                self._reload(name)
        else:
            self._import_anew(plan)

    def finish(self) -> str:
        """Record the imports of a request after it has run; return the text for its client."""
        if self._unrecorded:
            self._note_imports()
        if not self._notes:
            return ""
        notes, self._notes = self._notes, []
        return "".join(f"[nsactors: {note}]\n" for note in notes)

    def note_presence(self, client: str, *, connected: bool) -> None:
        """Keep whether a client is connected; callable from any thread."""
        if connected:
            self._absent.discard(client)
        else:
            self._absent.add(client)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the client's own modules; see ``importlib.abc.MetaPathFinder``."""
        module = self._current.get(name)
        if module is None:
            self._unrecorded.append(name)
            return self._reusing_module(name, PathFinder.find_spec(name, path)) if name in self._former else None
        return self._reusing_module(name, self._spec_of(module))

    # The methods of ``process_state.StatePart``.

    def changed(self) -> Any:
        """See ``process_state.StatePart``."""
        return None if self._served is self._returned else self.value()

    def value(self) -> Any:
        """See ``process_state.StatePart``."""
        self._returned = served = self._served
        return None if served is None else (served.owner, served.paths, tuple(map(tuple, served.modules)))

    def set(self, value: Any) -> None:
        """See ``process_state.StatePart``."""
        owner, paths, modules = value
        self.select(owner, ClientModules(owner, tuple(paths), tuple(OwnModule(*module) for module in modules)))
        self.apply()
        self._returned = self._served

    # Serve the modules of a client.

    def _serve(self, modules: ClientModules, *, is_new: bool) -> None:
        client, former, self._served = modules.owner, self._served, modules
        before = self._current if former is not None and former.owner == client else None
        self._same_client = before is not None
        self._current = {}
        self._set_paths(modules.paths)
        own = self._without_hidden(client, modules.modules)
        stale: list[str] = []
        self._foreign.clear()
        if is_new:
            importlib.invalidate_caches()
            if not self._has_scanned:  # modules loaded earlier were not seen by this finder
                self._has_scanned = True
                self._unrecorded += sys.modules
            self._note_imports()
        if before is None:
            stale = self._stale(own)
        self._loaded = {name: each for name, each in self._loaded.items() if name in sys.modules}
        self._current = own
        self._plan = reload_plan(client, before, own, self._loaded, self._imports_of, stale)
        self._report_conflicts(client)

    def _set_paths(self, paths: Iterable[str]) -> None:
        # After the engine's own entries: a client's file called `random.py`, which it may never have imported, would
        # otherwise replace Python's module here.
        ours = {*self._added, *self._inherited}
        own = [entry for entry in sys.path if entry not in ours]
        self._added = list(dict.fromkeys(path for path in [*paths, *self._inherited] if path not in own))
        wanted = [*own, *self._added]
        if wanted != sys.path:
            set_search_path(wanted)

    def _without_hidden(self, client: str, modules: Iterable[OwnModule]) -> dict[str, OwnModule]:
        """Return modules by name, without those that a module of the engine's own packages hides."""
        hidden: dict[str, bool] = {}
        for module in modules:
            top = module.name.partition(".")[0]
            if top not in hidden:
                origin = _origin_of(sys.modules.get(top))
                hidden[top] = is_reserved(top) or (origin is not None and is_installed(origin))
                if hidden[top]:
                    self._note_once(
                        client,
                        top,
                        f"{module.origin or top} is not used here: engines have loaded {top} from "
                        f"{origin or 'Python itself'}. Give your module another name",
                    )
        return {module.name: module for module in modules if not hidden[module.name.partition(".")[0]]}

    def _report_conflicts(self, client: str) -> None:
        for name in self._plan:
            module, loaded = self._current.get(name), self._loaded[name]
            other = loaded.client
            if module is None or loaded.digest == module.digest or not other or other in (client, *self._absent):
                continue
            self._note_once(
                client,
                other,
                f"{name} was loaded in the version of another client, {other}. Whenever a call by one of you follows "
                "a call by the other, it is reloaded, and its variables are lost",
            )

    @property
    def _owner(self) -> str:
        return "" if self._served is None else self._served.owner

    def _note_once(self, client: str, subject: str, note: str) -> None:
        if (client, subject) not in self._noted:
            self._noted.add((client, subject))
            self._notes.append(note)

    # Loaded modules, and their sources.

    def _note_imports(self) -> None:
        names, self._unrecorded = self._unrecorded, []
        for name in names:
            self._note_loaded(name)

    def _note_loaded(self, name: str) -> None:
        """Record the version of a module that was imported without this finder."""
        module = sys.modules.get(name)
        if module is None or name in self._loaded or is_reserved(name):
            return
        origin = _origin_of(module)
        if origin is None or is_installed(origin) or not origin.endswith(".py"):
            return
        source = _read(origin)
        if source is not None:
            self._loaded[name] = LoadedModule(digest_of(source), origin, "", 0)

    def _stale(self, own: Mapping[str, OwnModule]) -> list[str]:
        """Return the modules, imported by engines only, that the client would find in another file or version."""
        found: dict[str, tuple[str, list[str] | None]] = {
            name: (module.origin, None if module.search is None else list(module.search))
            for name, module in own.items()
        }
        stale = []
        for name in sorted(self._loaded):  # packages before their modules
            parent, _, _ = name.rpartition(".")
            if parent in self._foreign:
                self._foreign.add(name)
                stale.append(name)
                continue
            if name in own or (parent and parent not in found):
                continue
            search = found[parent][1] if parent else None
            spec = None if parent and search is None else PathFinder.find_spec(name, search)
            if spec is None or spec.origin is None:
                continue
            found[name] = spec.origin, spec.submodule_search_locations
            source = _read(spec.origin)
            if spec.origin != self._loaded[name].origin:
                self._foreign.add(name)
                stale.append(name)
            elif source is not None and digest_of(source) != self._loaded[name].digest:
                stale.append(name)
        return stale

    def _imports_of(self, name: str) -> AbstractSet[str]:
        source = self._source_to_load(name)
        module = sys.modules.get(name)
        return set() if source is None else imported_modules(source, name, is_package=hasattr(module, "__path__"))

    def _source_to_load(self, name: str) -> bytes | None:
        module = self._current.get(name)
        if module is not None:
            return self._source_of(module)
        origin = _origin_of(sys.modules.get(name))
        return None if origin is None else _read(origin)

    def _source_of(self, module: OwnModule) -> bytes | None:
        """Return the source that the client has: from its file, the store, or the cluster."""
        source = _read(module.origin)
        # By digest, not by the file's time: clocks differ between hosts, and the file may differ from the imported
        # module.
        if source is not None and digest_of(source) == module.digest:
            return source
        source = None if self._store is None else self._store.get(module.digest)
        if source is None and module.is_sent:
            source = self._fetch([module.digest]).get(module.digest)
            if source is not None and self._store is not None:
                self._store.keep(source)
        return source

    def _spec_of(self, module: OwnModule) -> ModuleSpec | None:
        if not module.digest:
            spec = ModuleSpec(module.name, None, is_package=True)
            spec.submodule_search_locations = list(module.search or ())
            return spec
        here = _read(module.origin)
        source = here if here is not None and digest_of(here) == module.digest else self._source_of(module)
        if source is None and here is not None:
            self._note_once(
                self._owner,
                module.name,
                f"{module.name} is used as it is in {module.origin} now: the version that this client imported no "
                "longer exists. Reload the module there",
            )
            source = here
        if source is None:
            return None
        self._loaded[module.name] = LoadedModule(digest_of(source), module.origin, self._owner, module.serial)
        return _spec_here(module) if source is here else _spec_of_sent(module, source)

    # Reload modules.

    def _reload(self, name: str) -> None:
        """Reload a module for its own client, which keeps all other modules."""
        module = sys.modules.get(name)
        if module is None:
            return
        old = dict(vars(module))
        try:
            linecache.checkcache(_origin_of(module))
            run_user_code(importlib.reload, module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._tell_failed(name, error)
            return
        self._rebind_names(module, old)
        self._rebind_in_modules(module, old)

    def _import_anew(self, names: list[str]) -> None:
        """Import modules as a new process does, each when it is needed; the module objects stay the same."""
        for name in names:
            # Remove all of them from sys.modules first. Reloading one after the other failed for packages whose modules
            # import each other: a module imported an old value from its package, or the package an old function from
            # it.
            module = sys.modules.pop(name, None)
            if module is not None and name not in self._foreign:
                self._former[name] = _Former(module, dict(vars(module)))
                self._loaded.pop(name, None)
                linecache.checkcache(_origin_of(module))
        for name in names:
            if name in self._foreign:  # the module belongs to another program; it is imported when it is needed
                self._loaded.pop(name, None)
                continue
            try:
                run_user_code(importlib.import_module, name)
            except KeyboardInterrupt:  # the next request imports the remaining modules
                self._plan = [name for name in names if name in self._former and name not in sys.modules]
                raise
            except BaseException as error:  # the next import of the module raises the error again
                self._tell_failed(name, error)
        self._note_imports()
        for module, names_before in self._former.values():
            self._rebind_names(module, names_before)
        self._former.clear()

    def _reusing_module(self, name: str, spec: ModuleSpec | None) -> ModuleSpec | None:
        """Let a module that is imported anew stay the same object."""
        if spec is not None and spec.loader is not None and (former := self._former.get(name)) is not None:
            module = former.module

            def create_module(spec: ModuleSpec) -> ModuleType:
                for attribute in ("__loader__", "__package__", "__path__", "__file__", "__cached__"):
                    vars(module).pop(attribute, None)  # otherwise the old values stay
                del vars(spec.loader)["create_module"]
                return module

            vars(spec.loader)["create_module"] = create_module  # on this loader alone, which is new
        return spec

    def _tell_failed(self, name: str, error: BaseException) -> None:
        self._notes.append(f"{name} cannot be reloaded: {name_of(type(error))}: {text_of(error)}")

    def _rebind_names(self, module: ModuleType, old: dict[str, Any]) -> None:
        """Rebind names that cells have imported from a module to its new functions and classes."""
        new = vars(module)
        replaced = {
            id(value): new[own] for own, value in old.items() if own in new and _is_defined_in(module.__name__, value)
        }
        for name, value in list(self._names.items()):
            if id(value) in replaced:
                self._names[name] = replaced[id(value)]

    def _rebind_in_modules(self, module: ModuleType, old: dict[str, Any]) -> None:
        """Rebind names that other modules have imported from a module: those modules are not reloaded."""
        new = vars(module)
        for name in self._loaded:
            importer = sys.modules.get(name)
            source = None if importer is None or importer is module else self._source_to_load(name)
            if importer is None or source is None:
                continue
            held = vars(importer)
            for taken in from_imports(source, name, is_package="__path__" in held):
                if taken.module != module.__name__:
                    continue
                for own, bound in ((key, key) for key in old) if taken.name == "*" else ((taken.name, taken.bound),):
                    if own in old and own in new and not own.startswith("__") and held.get(bound) is old[own]:
                        held[bound] = new[own]


class _SentSource(SourceLoader):
    """Load a module from a source whose file is not on this machine, or has changed."""

    def __init__(self, origin: str, source: bytes) -> None:
        self._origin = origin
        self._source = source

    def get_filename(self, fullname: str) -> str:
        """Return the path of the file on the client's machine."""
        return self._origin

    def get_data(self, path: Any) -> bytes:
        """Return the source, or the content of a file beside it that is on this machine."""
        if path == self._origin:
            return self._source
        with open(path, "rb") as file:
            return file.read()


def _spec_of_sent(module: OwnModule, source: bytes) -> ModuleSpec | None:
    # A file of this name may exist on this machine with another content, which tracebacks must not show.
    lines = importlib.util.decode_source(source).splitlines(keepends=True)
    linecache.cache[module.origin] = (len(source), None, lines, module.origin)
    loader = _SentSource(module.origin, source)
    search = None if module.search is None else list(module.search)
    return importlib.util.spec_from_file_location(
        module.name, module.origin, loader=loader, submodule_search_locations=search
    )


def _spec_here(module: OwnModule) -> ModuleSpec | None:
    linecache.cache.pop(module.origin, None)
    if (archive := _archive_of(module.origin)) is not None:
        folder = os.path.dirname(module.origin if module.search is None else os.path.dirname(module.origin))
        importer = zipimport.zipimporter(folder if len(folder) > len(archive) else archive)
        return importer.find_spec(module.name)
    search = None if module.search is None else list(module.search)
    return importlib.util.spec_from_file_location(module.name, module.origin, submodule_search_locations=search)


def _read(origin: str) -> bytes | None:
    """Return the content of a file, or of a member of an archive; None if it is not on this machine."""
    try:
        with open(origin, "rb") as file:
            return file.read()
    except NotADirectoryError:
        archive = _archive_of(origin)
    except OSError:
        return None
    if archive is None:
        return None
    try:
        importer = zipimport.zipimporter(archive)
        importer.invalidate_caches()  # the archive may have been replaced
        return importer.get_data(origin)
    except (OSError, ImportError):
        return None


def _archive_of(origin: str) -> str | None:
    folder = os.path.dirname(origin)
    while folder and not os.path.isdir(folder):
        if os.path.isfile(folder):
            return folder
        folder = os.path.dirname(folder)
    return None


def _is_defined_in(module: str, value: Any) -> bool:
    if type(value) is FunctionType:
        return value.__module__ == module
    return issubclass(type(value), type) and module_of(value) == module


def _origin_of(module: Any) -> str | None:
    """Return the file of a module, without running code of the module."""
    try:
        names = vars(module)
    except TypeError:
        return None
    origin = getattr(names.get("__spec__"), "origin", None) or names.get("__file__")
    return origin if isinstance(origin, str) and os.path.isabs(origin) else None
