"""Settings of Python, the system and libraries, for snapshots.

A replay sets them again by itself, so only snapshots contain them. Each setting is read with functions of its library.
If that fails, or the value cannot be pickled, the user gets a message that the setting is not kept.
"""

from __future__ import annotations

import gc
import locale
import logging
import os
import pickle
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

from nsactors._frozen import frozen
from nsactors.namespace.interrupts import is_user_frame


@frozen
class Setting:
    """A part of the state of a process that only snapshots contain; see :class:`process_state.StatePart`.

    Attributes:
        name: its name, for people.
        library: the module that must be imported.
        read: returns the value.
        write: sets the value.
    """

    name: str
    library: str
    read: Callable[[], Any]
    write: Callable[[Any], object]

    def changed(self) -> Any:
        """Return None: settings are not followed from request to request."""

    def value(self) -> bytes:
        """Return the value as a pickle, since settings hold classes and functions."""
        return pickle.dumps(self.read())

    def set(self, value: bytes) -> None:
        """See :class:`process_state.StatePart`."""
        self.write(pickle.loads(value))


def settings() -> list[Setting]:
    """Return all known settings; their present values count as those at the start."""
    return [
        Setting("the umask", "", _umask, os.umask),
        Setting("limits of the interpreter", "", _limits, _set_limits),
        *_Resources().settings(),
        Setting(
            "the locale", "", lambda: locale.setlocale(locale.LC_ALL), lambda v: locale.setlocale(locale.LC_ALL, v)
        ),
        Setting("warning filters", "", lambda: [*warnings.filters], _set_filters),
        Setting("levels and handlers of loggers", "", _loggers, _set_loggers),
        Setting(
            "the decimal context",
            "decimal",
            lambda: _of("decimal").getcontext(),
            lambda v: _of("decimal").setcontext(v),
        ),
        Setting(
            "NumPy's print options",
            "numpy",
            lambda: _of("numpy").get_printoptions(),
            lambda options: _of("numpy").set_printoptions(**_but(options, "override_repr")),
        ),
        Setting(
            "NumPy's handling of errors", "numpy", lambda: _of("numpy").geterr(), lambda e: _of("numpy").seterr(**e)
        ),
        Setting("pandas' options", "pandas", _pandas, _set_pandas),
        Setting("Matplotlib's settings", "matplotlib", _matplotlib, _set_matplotlib),
        _Handlers().setting(),
        Setting("threads that run your code", "", _no_threads, lambda nothing: None),
    ]


def _of(module: str) -> Any:
    return sys.modules[module]


def _but(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name or value is not None}


def _umask() -> int:
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))
    except (FileNotFoundError, StopIteration):
        # The last resort: between the two calls, files that other threads make can be read by their owner only.
        umask = os.umask(0o077)
        os.umask(umask)
        return umask


def _limits() -> tuple[Any, ...]:
    digits = sys.get_int_max_str_digits()
    return sys.getrecursionlimit(), sys.getswitchinterval(), digits, gc.isenabled(), gc.get_threshold()


def _set_limits(limits: tuple[Any, ...]) -> None:
    recursion, interval, digits, collects, threshold = limits
    sys.setrecursionlimit(recursion)
    sys.setswitchinterval(interval)
    sys.set_int_max_str_digits(digits)
    gc.set_threshold(*threshold)
    (gc.enable if collects else gc.disable)()


class _Resources:
    """Resource limits of the system, as differences from those at the start."""

    def __init__(self) -> None:
        self._start = self._now()

    def settings(self) -> list[Setting]:
        return [Setting("limits of resources", "", self._read, self._write)]

    def _read(self) -> dict[str, tuple[int, int]]:
        return {name: limits for name, limits in self._now().items() if self._start[name] != limits}

    def _write(self, changed: dict[str, tuple[int, int]]) -> None:
        for name, limits in {**self._start, **changed}.items():
            if self._now()[name] != limits:
                resource.setrlimit(getattr(resource, name), limits)

    def _now(self) -> dict[str, tuple[int, int]]:
        names = [name for name in vars(resource) if name.startswith("RLIMIT_")]
        return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _set_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()
    for each in filters:
        warnings.filters.append(each)  # type: ignore[attr-defined]  # typeshed says it is a sequence


def _all_loggers() -> dict[str, logging.Logger]:
    made = {name: each for name, each in logging.root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    return {"": logging.getLogger(), **made}


def _loggers() -> tuple[int, dict[str, Any]]:
    said = {}
    for name, logger in _all_loggers().items():
        handlers = sorted(type(handler).__qualname__ for handler in logger.handlers)
        if logger.level or not logger.propagate or logger.disabled or handlers:
            said[name] = logger.level, logger.propagate, logger.disabled, handlers
    return logging.root.manager.disable, said


def _set_loggers(value: tuple[int, dict[str, Any]]) -> None:
    disabled, said = value
    logging.disable(disabled)
    missing = []
    for name, (level, propagate, is_disabled, handlers) in said.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, is_disabled
        here = [type(handler).__qualname__ for handler in logger.handlers]
        missing += [f"{handler} of {name or 'the root'}" for handler in handlers if handler not in here]
    if missing:
        raise LookupError(f"levels were restored, handlers were not: add them again: {', '.join(missing)}")


def _pandas() -> dict[str, Any]:
    config = _of("pandas._config.config")  # pandas has no public list of its options
    # Reading a deprecated option issues a warning.
    known = {n: option for n, option in config._registered_options.items() if n not in config._deprecated_options}
    values = {name: _of("pandas").get_option(name) for name in known}
    return {name: value for name, value in values.items() if value != known[name].defval}


def _set_pandas(changed: dict[str, Any]) -> None:
    pandas = _of("pandas")
    for name in _pandas().keys() - changed.keys():
        pandas.reset_option(name)
    for name, value in changed.items():
        pandas.set_option(name, value)


def _matplotlib() -> dict[str, Any]:
    module = _of("matplotlib")
    own = {"backend", "interactive"}  # the shell's; reading the backend may also import and choose one
    values = {name: module.rcParams[name] for name in module.rcParams if name not in own}
    return {name: value for name, value in values.items() if module.rcParamsOrig.get(name) != value}


def _set_matplotlib(changed: dict[str, Any]) -> None:
    module = _of("matplotlib")
    reset = {name: module.rcParamsOrig[name] for name in _matplotlib() if name in module.rcParamsOrig}
    module.rcParams.update({**reset, **changed})


class _Handlers:
    """Handlers of signals. They are functions of this process, so no other process can restore them."""

    def __init__(self) -> None:
        self._start = self._now()

    def setting(self) -> Setting:
        return Setting("handlers of signals", "", self._read, lambda nothing: None)

    def _read(self) -> None:
        changed = [number for number, handler in self._now().items() if self._start.get(number) is not handler]
        if changed:
            raise RuntimeError(f"set them again: {', '.join(signal.Signals(number).name for number in changed)}")

    def _now(self) -> dict[int, Any]:
        return {number: signal.getsignal(number) for number in signal.valid_signals() if _has_name(number)}


def _has_name(number: int) -> bool:
    return number in signal.Signals._value2member_map_


def _no_threads() -> None:
    frames = sys._current_frames()
    del frames[threading.get_ident()]  # this frame would hold a reference to itself, and the variables of its callers
    users = [thread.name for thread in threading.enumerate() if _runs_users_code(frames.get(thread.ident or 0))]
    if users:
        raise RuntimeError(f"they end with the process: {', '.join(users)}")


def _runs_users_code(frame: FrameType | None) -> bool:
    while frame is not None:
        if is_user_frame(frame):
            return True
        frame = frame.f_back
    return False
