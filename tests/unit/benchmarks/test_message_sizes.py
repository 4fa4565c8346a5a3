"""The floor that nsactors is held against exchanges as many bytes as nsactors does."""

import pytest

from benchmarks.systems.bare_ray import message_sizes

SMALL = ("apply", "push", "pull", "execute")


@pytest.mark.parametrize("operation", SMALL)
def test_every_message_has_its_size_and_fits_a_small_packet(operation: str) -> None:
    assert all(50 < size < 2_000 for size in message_sizes(operation))


def test_a_function_sent_by_value_is_the_largest_request() -> None:
    assert max(SMALL, key=lambda operation: message_sizes(operation)[0]) == "apply"


def test_a_value_that_comes_back_makes_the_reply_larger() -> None:
    assert message_sizes("pull")[1] > message_sizes("push")[1]
