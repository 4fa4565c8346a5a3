"""Lengths of time in words, and estimates."""

import pytest

from nsactors.core.durations import Speedometer, seconds_in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0000042, "4.20 µs"),
        (0.0384, "38.4 ms"),
        (4.207, "4.21 s"),
        (9.999, "10.0 s"),
        (59.96, "60.0 s"),
        (119.4, "119 s"),
        (119.6, "2 min 00 s"),
        (125, "2 min 05 s"),
        (3599.9, "60 min 00 s"),
        (7380, "2 h 03 min"),
    ],
)
def test_times_are_written_with_three_digits_and_as_clocks_show_them(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words


def test_nothing_is_estimated_before_something_has_been_done() -> None:
    speed = Speedometer(10)
    speed.note(0, 0.0)
    speed.note(0, 5.0)
    assert (speed.rate, speed.left_s) == (None, None)


def test_the_estimate_follows_what_was_done_lately() -> None:
    speed = Speedometer(1_000, window_s=10.0)
    for second in range(21):  # fast at first
        speed.note(20 * second, float(second))
    for second in range(1, 31):
        speed.note(400 + 2 * second, 20.0 + second)
    assert speed.rate == 2.0
    assert speed.left_s == (1_000 - 460) / 2
