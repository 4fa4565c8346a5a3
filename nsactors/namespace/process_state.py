"""The state of a process beside its names: random generators, environment, folder and search path.

Each :class:`StatePart` is read as a value of plain types, and set from such a value in this process or in that of the
next incarnation. The parts in this module are cheap enough to be compared before every request; those in
:mod:`process_settings` are only in snapshots. A part of a library that has not been imported yet is set when user code
imports the library.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import random
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nsactors.namespace.components import reason_of
from nsactors.namespace.entropy import ImportWatch, SeedEntropy
from nsactors.protocol.messages import RequestId
from nsactors.protocol.process import set_search_path
from nsactors.recovery.journal import ProcessState

_OF_THE_ENGINE = frozenset({"IPYTHONDIR", "MPLBACKEND", "PLOTLY_RENDERER"})  # each incarnation sets these: IPythonShell
_MT19937_BYTES = 625 * 4  # the key of the generator, and the position in the key


class StatePart(Protocol):
    """One part of the state of a process."""

    @property
    def name(self) -> str:
        """Return its name, in records and for people."""
        ...

    @property
    def library(self) -> str:
        """Return the module that must be imported before it can be read or set; empty for Python's own."""
        ...

    def changed(self) -> Any:
        """Return the value if it differs from the last value that was returned or set; otherwise None."""
        ...

    def value(self) -> Any:
        """Return the value, of plain types; None if there is none. :meth:`changed` then compares with this value."""
        ...

    def set(self, value: Any) -> None:
        """Set the value; errors are raised."""
        ...


class PythonGenerator:
    """The generator behind the functions of ``random``."""

    name = "random"
    library = ""

    def __init__(self) -> None:
        self._generator: Any = vars(random)["_inst"]
        self._address = id(self._generator) + object.__basicsize__
        self._given: Any = None
        self._memory: tuple[bytes, float | None] | None = None

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        # Reading the state takes 10 us and comparing it 7; comparing its memory takes 1.
        if self._memory is not None and self._look() == self._memory:
            return None
        before = self._given
        value = self.value()
        return None if value == before else value

    def value(self) -> Any:
        """See :class:`StatePart`."""
        version, (*words, position), gauss = self._generator.getstate()
        memory = self._look()
        # CPython does not promise where the state lies in memory, so the place is checked. For an interpreter with
        # another place, the slow comparison is used.
        is_there = memory == (array("I", [position, *words]).tobytes(), gauss)
        self._memory = memory if is_there else None
        self._given = version, array("I", [*words, position]).tobytes(), gauss
        return self._given

    def set(self, value: Any) -> None:
        """See :class:`StatePart`."""
        version, words, gauss = value
        self._generator.setstate((version, tuple(array("I", words)), gauss))
        self.value()

    def _look(self) -> tuple[bytes, float | None]:
        return ctypes.string_at(self._address, _MT19937_BYTES), self._generator.gauss_next


class NumpyGenerator:
    """NumPy's global generator, behind ``np.random.rand`` and the like."""

    name = "numpy.random"
    library = "numpy.random.mtrand"

    def __init__(self) -> None:
        self._given: Any = None
        self._memory: tuple[object, int, bytes] | None = None

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        # Reading the state takes 60 us, comparing its memory 1 us. Normal numbers are drawn in pairs, and that memory
        # does not contain the second one. So the state must be read until the second one has been used.
        if self._given is not None and self._memory is not None and not self._given[3]:
            generator, address, data = self._memory
            if generator is _numpy_bit_generator() and ctypes.string_at(address, _MT19937_BYTES) == data:
                return None
        before = self._given
        value = self.value()
        return None if value == before else value

    def value(self) -> Any:
        """See :class:`StatePart`."""
        generator = _numpy_bit_generator()
        if generator is None:
            return None
        state = sys.modules[self.library].get_state(legacy=False)
        if state["bit_generator"] == "MT19937":
            address = generator.ctypes.state_address
            self._memory = generator, address, ctypes.string_at(address, _MT19937_BYTES)
            inner = state["state"]
            self._given = "MT19937", inner["key"].tobytes(), inner["pos"], state["has_gauss"], state["gauss"]
        else:  # the user's choice, by set_bit_generator
            self._memory = None
            self._given = "other", pickle.dumps(generator), 0, state["has_gauss"], state["gauss"]
        return self._given

    def set(self, value: Any) -> None:
        """See :class:`StatePart`."""
        kind, data, position, has_gauss, gauss = value
        functions = sys.modules[self.library]  # the import of numpy.random itself may not be complete
        if kind != "MT19937":
            functions.set_bit_generator(pickle.loads(data))
        else:
            if type(_numpy_bit_generator()).__name__ != kind:
                functions.set_bit_generator(sys.modules["numpy.random._mt19937"].MT19937())
            functions.set_state((kind, array("I", data), position, has_gauss, gauss))
        self.value()


def _numpy_bit_generator() -> Any:
    mtrand = sys.modules.get("numpy.random.mtrand")
    # The module exists from the start of its import, its contents do not.
    return getattr(getattr(mtrand, "_rand", None), "_bit_generator", None)


class TorchGenerator:
    """PyTorch's generator on the CPU; those of GPUs are not kept."""

    name = "torch"
    library = "torch"

    def __init__(self) -> None:
        self._given: bytes | None = None

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        before = self._given
        value = self.value()
        return None if value == before else value

    def value(self) -> Any:
        """See :class:`StatePart`."""
        torch = sys.modules.get("torch")
        if not hasattr(torch, "get_rng_state"):
            return None
        assert torch is not None, "it has an attribute"
        self._given = torch.get_rng_state().numpy().tobytes()
        return self._given

    def set(self, value: Any) -> None:
        """See :class:`StatePart`."""
        torch = sys.modules["torch"]
        torch.set_rng_state(torch.frombuffer(bytearray(value), dtype=torch.uint8))
        self._given = value


class Environment:
    """The differences of ``os.environ`` from its value at the start; the rest belongs to the machine."""

    name = "the environment"
    library = ""

    def __init__(self) -> None:
        self._start = dict(os.environ)
        self._given = self._raw().copy()

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        raw = self._raw()
        return None if raw == self._given else self.value()

    def value(self) -> Any:
        """See :class:`StatePart`."""
        self._given = self._raw().copy()
        now = dict(os.environ)
        gone: dict[str, str | None] = dict.fromkeys(self._start.keys() - now.keys())
        changed = {name: text for name, text in now.items() if self._start.get(name) != text}
        return {name: text for name, text in (gone | changed).items() if name not in _OF_THE_ENGINE}

    def set(self, value: Mapping[str, str | None]) -> None:
        """See :class:`StatePart`."""
        wanted: dict[str, str | None] = {**self._start, **value}
        for name in [*os.environ.keys() - wanted.keys(), *wanted]:
            text = wanted.get(name)
            if name in _OF_THE_ENGINE or os.environ.get(name) == text:
                continue
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
        self._given = self._raw().copy()

    def _raw(self) -> dict[Any, Any]:
        # The dictionary behind os.environ, which decodes at every access: 20 us in all. A user may have replaced it.
        environment: Any = os.environ
        raw: dict[Any, Any] = getattr(environment, "_data", environment)
        return raw


class WorkingFolder:
    """The working folder; empty for the one at the start."""

    name = "the working folder"
    library = ""

    def __init__(self) -> None:
        self._start = self._given = working_folder()

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        return None if working_folder() == self._given else self.value()

    def value(self) -> Any:
        """See :class:`StatePart`."""
        self._given = working_folder()
        if not self._given:
            raise FileNotFoundError("the folder has been removed")
        return "" if self._given == self._start else self._given

    def set(self, value: str) -> None:
        """See :class:`StatePart`."""
        if (value or self._start) != working_folder():
            os.chdir(value or self._start)
        self._given = working_folder()


def working_folder() -> str:
    """Return the working folder; empty if it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


class SearchPath:
    """``sys.path``, and its value at the start, which may differ in a process on another machine."""

    name = "sys.path"
    library = ""

    def __init__(self) -> None:
        self._start = tuple(sys.path)
        self._given = self._start

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        return None if tuple(sys.path) == self._given else self.value()

    def value(self) -> Any:
        """See :class:`StatePart`."""
        self._given = tuple(sys.path)
        return self._start, self._given

    def set(self, value: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        """See :class:`StatePart`."""
        start, wanted = value
        set_search_path([*wanted, *(entry for entry in self._start if entry not in start and entry not in wanted)])
        self._given = tuple(sys.path)


class Entropy:
    """The secret from which NumPy's entropy is drawn."""

    name = "NumPy's entropy"
    library = ""

    def __init__(self, source: SeedEntropy) -> None:
        self._source = source
        self._given = b""

    def changed(self) -> Any:
        """See :class:`StatePart`."""
        return None if self._source.secret == self._given else self.value()

    def value(self) -> Any:
        """See :class:`StatePart`."""
        self._given = self._source.secret
        return self._given

    def set(self, value: bytes) -> None:
        """See :class:`StatePart`."""
        self._source.secret = self._given = value


class EngineProcess:
    """The state of this process, for an engine that keeps a journal. Create it before user code runs.

    Args:
        settings: parts in snapshots only, since replayed requests set them again.
        followed: further parts to compare before each request, in front of those defined here.
    """

    def __init__(self, settings: Sequence[StatePart] = (), followed: Sequence[StatePart] = ()) -> None:
        self._watch = ImportWatch()
        self._entropy = SeedEntropy(self._watch)
        self._followed: tuple[StatePart, ...] = (
            *followed,
            Entropy(self._entropy),
            Environment(),
            WorkingFolder(),
            SearchPath(),
            PythonGenerator(),
            NumpyGenerator(),
            TorchGenerator(),
        )
        parts: list[StatePart] = [*self._followed, *settings]
        self._parts = {part.name: part for part in parts}
        self._is_unknown = False
        self._unread: dict[str, str] = {}  # parts that changes() could not read since the last state()
        self._due: dict[str, Any] = {}  # values of parts whose library has not been imported yet

    def begin(self, request: RequestId) -> None:
        """Begin a request, or its replay."""
        self._entropy.begin(request)

    def end(self) -> None:
        """End the request."""
        self._entropy.end()

    def changes(self) -> ProcessState:
        """Return the parts that have changed since they were last returned; settings are left out."""
        changes = {}
        is_unknown, self._is_unknown = self._is_unknown, False
        for part in self._followed:
            if not part.library or part.library in sys.modules:
                try:
                    value = part.value() if is_unknown else part.changed()
                except Exception as error:  # a library in disorder must not fail the request
                    self._unread[part.name] = reason_of(error)
                    continue
                if value is not None:
                    changes[part.name] = value
        return changes

    def not_recorded(self) -> None:
        """Let the next call to :meth:`changes` return all parts, because the last changes were not recorded."""
        self._is_unknown = True

    def state(self) -> tuple[ProcessState, dict[str, str]]:
        """Return all parts that could be read; and for each other part, the reason."""
        state = dict(self._due)
        unread, self._unread = self._unread, {}
        for part in self._parts.values():
            if part.library and part.library not in sys.modules:
                continue
            try:
                value = part.value()
            except Exception as error:
                unread[part.name] = reason_of(error)
            else:
                if value is not None:
                    state[part.name] = value
        return state, unread

    def set(self, state: ProcessState) -> dict[str, str]:
        """Set parts from ``state``; return those that could not be set, with the reason.

        Parts that are not in ``state`` stay as they are.
        """
        failed: dict[str, str] = {}
        for name, value in state.items():
            part = self._parts.get(name)
            if part is None:
                failed[name] = "this version of nsactors does not know it"
            elif part.library and part.library not in sys.modules:
                self._set_when_imported(part, value)
            else:
                try:
                    part.set(value)
                except Exception as error:
                    failed[name] = reason_of(error)
        return failed

    def close(self) -> None:
        """Stop following the process, and leave it as it is."""
        self._watch.close()
        self._entropy.close()

    def _set_when_imported(self, part: StatePart, value: Any) -> None:
        is_waited_for = part.name in self._due
        self._due[part.name] = value
        if not is_waited_for:
            self._watch.when_imported(part.library, lambda: self._set_late(part))

    def _set_late(self, part: StatePart) -> None:
        value = self._due.pop(part.name)
        try:
            part.set(value)
        except Exception as error:  # the user's import must not fail, so the error is printed to the request's stderr
            print(f"[nsactors: {part.name} could not be restored: {reason_of(error)}]", file=sys.stderr)
