"""Repeatable entropy for NumPy, so that a replay draws the same numbers, and hooks on imports.

``default_rng()``, ``SeedSequence()``, ``RandomState()`` and ``np.random.seed()`` without a seed all call one function,
``numpy.random.bit_generator.randbits``, which is looked up at each call. An engine that keeps a journal replaces this
function by a pseudo-random function of a secret, the request's id and a counter (a key stream in counter mode).
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from nsactors.protocol.messages import RequestId
from nsactors.protocol.process import remove_finder


class ImportWatch:
    """Act on the import of modules. While this waits for a module, it is the first of all finders.

    The modules are not changed: the loader that the other finders return gets its own ``exec_module`` for one import.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, list[Callable[[], AbstractContextManager[object]]]] = {}
        self._being_found: set[str] = set()

    def when_imported(self, module: str, action: Callable[[], object]) -> None:
        """Call ``action`` now if the module has been imported, and otherwise as the last step of its import."""
        if sys.modules.get(module) is not None:
            action()
            return
        self.import_within(module, lambda: _followed_by(action))

    def import_within(self, module: str, context: Callable[[], AbstractContextManager[object]]) -> None:
        """Let a module run within ``context()`` when it is imported for the first time."""
        self._contexts.setdefault(module, []).append(context)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def close(self) -> None:
        """Wait for no more modules."""
        self._contexts.clear()
        remove_finder(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module with the other finders, and act on its import; see ``importlib.abc.MetaPathFinder``."""
        if name not in self._contexts or name in self._being_found:
            return None
        self._being_found.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._being_found.discard(name)
        if spec is not None and spec.loader is not None and not isinstance(spec.loader, type):
            self._act_after(spec, spec.loader)
        return spec

    def _act_after(self, spec: ModuleSpec, loader: Loader) -> None:
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if module.__spec__ is not spec:  # the loader of a zip file is shared by all modules in it
                return load(module)
            del vars(loader)["exec_module"]  # the class's own method is visible again
            with ExitStack() as stack:
                for context in self._contexts.get(spec.name, []):
                    stack.enter_context(context())
                load(module)
                self._contexts.pop(spec.name, None)
                if not self._contexts:
                    self.close()

        vars(loader)["exec_module"] = exec_module


@contextmanager
def _followed_by(action: Callable[[], object]) -> Iterator[None]:
    yield
    action()


_SOURCE = "numpy.random.bit_generator"
_SECRET_BYTES = 32
_IMPORT = "import"  # no client has this name


class SeedEntropy:
    """The entropy from which NumPy seeds generators.

    Outside of requests, in child processes and without NumPy nothing changes. NumPy is not imported for this; when user
    code imports it, its global generator is also seeded from the secret.

    Attributes:
        secret: shared by this engine and its later incarnations. Requests are unique, so no number is ever drawn twice.
    """

    def __init__(self, watch: ImportWatch) -> None:
        self.secret = os.urandom(_SECRET_BYTES)
        self._process = os.getpid()
        self._key: bytes | None = None
        self._counter = itertools.count()
        self._counter_of_import = itertools.count()
        self._usual = secrets.randbits
        watch.when_imported(_SOURCE, self._install)

    def begin(self, request: RequestId) -> None:
        """Begin a request, or its replay: from now on, its id determines the entropy."""
        self._counter = itertools.count()
        self._key = f"{request.client} {request.seq}".encode()

    def end(self) -> None:
        """End the request: from now on, entropy comes from the system again."""
        self._key = None

    def close(self) -> None:
        """Restore NumPy's own source."""
        source = sys.modules.get(_SOURCE)
        if source is not None and vars(source).get("randbits") == self.randbits:
            vars(source)["randbits"] = self._usual

    def randbits(self, k: int) -> int:
        """Return an integer of ``k`` random bits; see ``secrets.randbits``."""
        # A child process would draw the same numbers as its siblings, because each has the counter's value at the fork.
        if os.getpid() != self._process:
            return self._usual(k)
        if _is_being_imported():
            return self._bits(_IMPORT.encode(), next(self._counter_of_import), k)
        key = self._key
        return self._usual(k) if key is None else self._bits(key, next(self._counter), k)

    def _bits(self, key: bytes, count: int, k: int) -> int:
        stream = hashlib.shake_256(b"%b %b %d" % (self.secret, key, count)).digest(-(-k // 8))
        return int.from_bytes(stream, "little") >> (-k % 8)

    def _install(self) -> None:
        source: dict[str, Any] = vars(sys.modules[_SOURCE])
        if "randbits" in source:  # otherwise this NumPy has another source, and replays draw new numbers
            self._usual = source["randbits"]
            source["randbits"] = self.randbits


def _is_being_imported() -> bool:
    """Return whether NumPy is just making its global generator, which asks for a seed."""
    return getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None) is None
