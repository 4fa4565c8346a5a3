"""Amounts of memory in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import bytes_from_words, bytes_in_words


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
