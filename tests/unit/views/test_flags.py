"""The flags of views: each is declared with its check."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from nsactors._frozen import frozen
from nsactors.errors import InvalidArgument, UnknownFlag
from nsactors.views.flags import Flags, TaskFlags, _FlagSet


@pytest.mark.parametrize(
    ("flags", "left_to_the_view"),
    [(Flags, {"targets"}), (TaskFlags, {"targets", "labels", "resources", "after", "follow"})],
)
def test_the_view_checks_only_flags_whose_value_alone_does_not_tell(flags: Any, left_to_the_view: set[str]) -> None:
    assert {flag.name for flag in fields(flags) if flag.metadata["check"] is None} == left_to_the_view


def test_a_flag_that_is_declared_without_a_check_is_not_accepted_unchecked() -> None:
    @frozen
    class Unfinished(_FlagSet):
        speed: int = 1

    with pytest.raises(KeyError):
        Unfinished().replaced(speed="fast")


def test_replacing_flags_leaves_the_others_alone() -> None:
    flags = TaskFlags(retries=3)
    assert flags.replaced(label="a") == TaskFlags(retries=3, label="a")
    assert flags == TaskFlags(retries=3)


def test_flags_that_do_not_exist_and_wrong_values_are_refused() -> None:
    with pytest.raises(UnknownFlag, match="blok"):
        Flags().replaced(blok=True)
    with pytest.raises(InvalidArgument, match="set_flags"):
        Flags().replaced(block="yes")
