"""Lengths of time in words, and estimates."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import bytes_from_words, bytes_in_words
from nsactors.errors.formatting import Speedometer, item_ranges, reasons_by_engines, seconds_in_words


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


# Amounts of memory in words.


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (1_250_000, "1.2 MB"),
        (80_000_000, "80 MB"),
        (999_999, "1.0 MB"),
        (2_000_000_000_000_000, "2000 TB"),
    ],
)
def test_sizes_are_written_for_people(nbytes: int, words: str) -> None:
    assert bytes_in_words(nbytes) == words


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (200, 200),
        ("200", 200),
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("1.5 G", 1_500_000_000),
        ("512MiB", 512 * 1024**2),
        ("80 kB", 80_000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: int | str, nbytes: int) -> None:
    assert bytes_from_words(text) == nbytes


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 XB", -1, "1e9"])
def test_what_is_no_size_is_refused(text: int | str) -> None:
    with pytest.raises(ValueError, match="is no amount of memory"):
        bytes_from_words(text)


@given(st.integers(0, 10**15))
def test_what_is_written_can_be_read_again_to_two_digits(nbytes: int) -> None:
    back = bytes_from_words(bytes_in_words(nbytes).replace("bytes", "B"))
    assert abs(back - nbytes) <= nbytes * 0.05 + 0.5


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], ""),
        ([17], "item 17"),
        ([3, 1, 2, 9], "items 1-3, 9"),
        (range(1000), "items 0-999"),
        (range(0, 100, 2), "items 0, 2, 4, 6, 8, ..."),
    ],
)
def test_items_are_named_briefly(numbers: Iterable[int], words: str) -> None:
    assert item_ranges(numbers) == words


def test_engines_with_the_same_reason_share_a_line_whatever_the_numbers_of_their_cells() -> None:
    reasons = {
        2: "np.sort(x) (<cell 3>, line 1)",
        0: "np.sort(x) (<cell 12.1>, line 1)",
        1: "np.sort(x) (<cell 3>, line 2)",
    }
    assert reasons_by_engines(reasons) == [
        "engines 0, 2: np.sort(x) (<cell 12.1>, line 1)",
        "engine 1: np.sort(x) (<cell 3>, line 2)",
    ]
