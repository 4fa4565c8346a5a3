"""Timers around named functions of a running program, and the timeline that the timers record.

``time.perf_counter`` reads one clock for all processes of a machine, so timelines of several processes can be compared.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["Span", "collect", "hot_seconds", "install", "own_seconds", "reset", "uninstall"]

PACKAGE = "nsactors"
SAMPLES = 3
HOT_RUNS, HOT_REPEATS = 500, 7


class Span(NamedTuple):
    """One call to a timed function."""

    name: str
    thread: int
    begin: float
    end: float


_spans: list[Span] = []
_samples: dict[str, list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]] = defaultdict(list)
_replaced: list[tuple[Any, str, Any]] = []


def install(names: Iterable[str]) -> list[str]:
    """Time functions, wherever in the package they are looked up; return the names of those that do not exist.

    Args:
        names: ``module:function`` or ``module:Class.method``.
    """
    missing = []
    for name in names:
        module_name, _, path = name.partition(":")
        *way, attribute = path.split(".")
        try:
            owner = functools.reduce(getattr, way, importlib.import_module(module_name))
            function = vars(owner)[attribute]
        except (ImportError, AttributeError, KeyError):
            missing.append(name)
            continue
        clocked = _clocked(name, function)
        for place, known_as in [(owner, attribute), *_users_of(function)]:
            _replaced.append((place, known_as, function))
            setattr(place, known_as, clocked)
    return missing


def uninstall() -> None:
    """Remove all timers."""
    while _replaced:
        place, known_as, function = _replaced.pop()
        setattr(place, known_as, function)


def reset() -> None:
    """Drop all records."""
    _spans.clear()
    for samples in _samples.values():  # the timers refer to these lists
        samples.clear()


def collect() -> list[Span]:
    """Return the spans recorded since the last reset, in the order of their ends."""
    return list(_spans)


def hot_seconds(names: Iterable[str]) -> dict[str, float]:
    """Return the seconds of functions that are called again and again, with the arguments of an earlier call.

    Give only functions that may be repeated; functions that have not been called are left out.
    """
    found = {}
    for name in names:
        if _samples[name]:
            function, args, kwargs = _samples[name][-1]
            found[name] = statistics.median(_seconds_a_run(function, args, kwargs) for _ in range(HOT_REPEATS))
    return found


def own_seconds(spans: Sequence[Span]) -> Iterator[tuple[Span, float]]:
    """Yield each span with the time that it did not spend in other spans on its thread."""
    open_spans: dict[int, list[tuple[Span, float]]] = defaultdict(list)
    # In order of their end: a span's children come before it.
    for span in sorted(spans, key=lambda span: span.end):
        done = open_spans[span.thread]
        within = 0.0
        while done and done[-1][0].begin >= span.begin:
            child, _ = done.pop()
            within += child.end - child.begin
        own = span.end - span.begin - within
        done.append((span, own))
        yield span, own


def _clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    clock, thread, samples, record = time.perf_counter, threading.get_ident, _samples[name], _spans.append

    @functools.wraps(function)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        if len(samples) < SAMPLES:
            samples.append((function, args, kwargs))
        begin = clock()
        try:
            return function(*args, **kwargs)
        finally:
            record(Span(name, thread(), begin, clock()))

    return clocked


def _users_of(function: object) -> Iterator[tuple[Any, str]]:
    """Yield the modules of the package that have imported a function, and its name there."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == PACKAGE and module is not None:
            yield from ((module, name) for name, value in list(vars(module).items()) if value is function)


def _seconds_a_run(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    began = time.perf_counter()
    for _ in range(HOT_RUNS):
        function(*args, **kwargs)
    return (time.perf_counter() - began) / HOT_RUNS
