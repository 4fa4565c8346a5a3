"""Screens for output: their interface, the pieces that they have shown, and Ctrl-C between two of their steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from nsactors.errors import bytes_in_words
from nsactors.errors.formatting import seconds_in_words
from nsactors.protocol.messages import ClearOutput, Display, ExecuteResult
from nsactors.results.display.merging import Shown, engine_label


class Progress(NamedTuple):
    """The progress of a call.

    Attributes:
        label: the name of the call.
        done: the number of its parts that have ended.
        total: the number of its parts.
        elapsed_s: seconds since its submission.
        unit: the name of the parts.
        rate: parts that ended per second recently; None if the rate is not known, or has no meaning.
        left_s: seconds that the rest takes at that rate.
        doing: the step under way, in place of an amount, while there is nothing to count; ``total`` is then 0.
        bytes_rate: bytes that are moved per second; None if the rate is not known.
    """

    label: str
    done: int
    total: int
    elapsed_s: float
    unit: str = "engines"
    rate: float | None = None
    left_s: float | None = None
    doing: str = ""
    bytes_rate: float | None = None

    @property
    def amount(self) -> str:
        """``512/1,000 items``, ``96 MB/480 MB``."""
        if self.unit == "bytes":
            return f"{bytes_in_words(self.done)}/{bytes_in_words(self.total)}"
        return self.doing or f"{self.done:,}/{self.total:,} {self.unit}"

    @property
    def times(self) -> str:
        """``12 s``, and the rate and the estimate if they are known: ``12 s, 41.7/s, some 15 s left``."""
        # A text that changes at each redrawing shows that the program is alive.
        parts = [f"{self.elapsed_s:.1f} s" if self.elapsed_s < 9.95 else _seconds(self.elapsed_s)]
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 100 else f"{self.rate:.3g}/s")
        if self.bytes_rate is not None:
            parts.append(f"{bytes_in_words(self.bytes_rate)}/s")
        if self.left_s is not None and self.done < self.total:
            parts.append(f"some {_seconds(self.left_s)} left")
        return ", ".join(parts)


class Screen(Protocol):
    """A place for the output of one call to several engines."""

    def show(self, shown: Sequence[Shown]) -> None:
        """Add output."""
        ...

    def status(self, lines: Mapping[int, str], progress: Progress | None) -> None:
        """Show lines that engines have not finished, and progress, until the next call."""
        ...

    def notice(self, text: str) -> None:
        """Print a remark on the output, such as the number of lines left out."""
        ...

    def close(self) -> None:
        """Remove the status, because no more output follows."""
        ...


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else seconds_in_words(seconds)


def grouped_statuses(lines: Mapping[int, str]) -> list[tuple[str, str]]:
    """Return the label and text of each different unfinished line. A drawing of one engine may have several lines."""
    groups: dict[str, list[int]] = {}
    for engine_id, line in lines.items():
        groups.setdefault(line, []).append(engine_id)
    return [(engine_label(engines), line) for lines, engines in groups.items() for line in lines.split("\n")]


def result_label(engines: Sequence[int], result: ExecuteResult) -> str:
    """Return the label of a value: ``Out[0-3:5]:``."""
    number = f":{result.execution_count}" if result.execution_count else ""
    return f"Out{engine_label(engines)[:-1]}{number}]:"


class HeldInterrupts:
    """Within the block, Ctrl-C raises KeyboardInterrupt only in :meth:`check`, and at the end of the block.

    If KeyboardInterrupt could be raised anywhere, it might be lost: Python ignores errors in callbacks of weak
    references, and drawing runs many of these. One of six was lost in a flood of output.

    Args:
        wake: called when Ctrl-C is pressed, from a signal handler: it ends a wait within the block.
    """

    def __init__(self, wake: Callable[[], object] | None = None) -> None:
        self._wake = wake
        self._pressed = False
        self._holds = False

    def __enter__(self) -> Self:
        on_main_thread = threading.current_thread() is threading.main_thread()
        # Keep another handler, which has been set for a reason.
        self._holds = on_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._holds:
            self._pressed = False
            signal.signal(signal.SIGINT, self._on_sigint)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._holds:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if kind is None:
                self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C has been pressed."""
        pressed, self._pressed = self._pressed, False
        if pressed:
            raise KeyboardInterrupt

    def _on_sigint(self, *_: object) -> None:
        if self._pressed:  # a step hangs, for example because the terminal takes no more text
            raise KeyboardInterrupt
        self._pressed = True
        if self._wake is not None:
            self._wake()


class VisibleOutput:
    """Pieces of output in order, without those that have been cleared or replaced."""

    def __init__(self) -> None:
        self._pieces: list[Shown] = []

    def __iter__(self) -> Iterator[Shown]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, shown: Iterable[Shown]) -> None:
        """Add pieces; remove output that engines clear, and replace a display with its new state."""
        for one in shown:
            match one.piece:
                case ClearOutput():
                    self._pieces = [left for kept in self._pieces if (left := _without(kept, one.engines)).engines]
                case Display(_, _, transient, True) if transient:
                    self._pieces = [one if _updates(one, kept) else kept for kept in self._pieces]
                case _:
                    self._pieces.append(one)

    def take(self) -> list[Shown]:
        """Return all pieces, which will not change any more."""
        pieces, self._pieces = self._pieces, []
        return pieces


class ChangingOutput:
    """Finds output that may still change: all output of an engine that has cleared output once and may clear it again.

    Args:
        named: also count displays that have a name, since no front end updates them in place.
    """

    def __init__(self, *, named: bool = False) -> None:
        self._named = named
        self._clears: set[int] = set()

    def part(self, shown: Iterable[Shown]) -> tuple[list[Shown], list[Shown]]:
        """Divide pieces into those that stay as they are and those that may change."""
        fixed: list[Shown] = []
        changing: list[Shown] = []
        for one in shown:
            if isinstance(one.piece, ClearOutput):
                self._clears.update(one.engines)
            named = self._named and isinstance(one.piece, Display) and bool(one.piece.transient)
            (changing if named or self._clears.intersection(one.engines) else fixed).append(one)
        return fixed, changing


def _without(shown: Shown, engines: Sequence[int]) -> Shown:
    """Return the piece as output of the other engines only, because ``engines`` have cleared it."""
    return shown._replace(engines=tuple(engine_id for engine_id in shown.engines if engine_id not in engines))


def _updates(new: Shown, old: Shown) -> bool:
    return (
        isinstance(old.piece, Display)
        and isinstance(new.piece, Display)
        and old.engines == new.engines
        and old.piece.transient == new.piece.transient
    )
