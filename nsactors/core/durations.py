"""How lengths of time are written for people, and how long something will take."""

from __future__ import annotations

from collections import deque

__all__ = ["Speedometer", "seconds_in_words"]

_MINUTE_S, _HOUR_S = 60, 3600


def seconds_in_words(seconds: float) -> str:
    """``4.207`` gives ``"4.21 s"``, ``0.0384`` ``"38.4 ms"``, ``125`` ``"2 min 05 s"``, ``7380`` ``"2 h 03 min"``."""
    if seconds >= _HOUR_S:
        minutes = round(seconds / _MINUTE_S)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if round(seconds) >= 2 * _MINUTE_S:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60:02d} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs" if seconds > 0 else "0 s"


def _three_digits(number: float) -> str:
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


class Speedometer:
    """How fast work goes on, by what was done lately: the beginning of a map says little of its end.

    Args:
        total: how much there is to do.
        window_s: how far back to look, in seconds.
    """

    def __init__(self, total: int, window_s: float = 30.0) -> None:
        self._total = total
        self._window_s = window_s
        self._readings: deque[tuple[float, int]] = deque()

    def note(self, done: int, at: float) -> None:
        """So much has been done at this time, in seconds on a clock that does not go backwards."""
        readings = self._readings
        readings.append((at, done))
        # The oldest reading is to lie at the window's edge or before it.
        while len(readings) > 2 and readings[1][0] <= at - self._window_s:
            readings.popleft()

    @property
    def rate(self) -> float | None:
        """How much is done in a second; None while that is not known."""
        if len(self._readings) < 2:
            return None
        (began, before), (now, done) = self._readings[0], self._readings[-1]
        return (done - before) / (now - began) if done > before and now > began else None

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done, if it goes on like that; None while that is not known."""
        rate = self.rate
        return None if rate is None else (self._total - self._readings[-1][1]) / rate
