"""How far a start is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nsactors.session.engine_start import StartProgress


@pytest.mark.parametrize(("engines", "label"), [(1, "starting 1 engine"), (4, "starting 4 engines")])
def test_a_start_says_what_it_waits_for_and_then_counts_the_engines(engines: int, label: str) -> None:
    progress = StartProgress(engines)
    progress.awaits("Ray")
    assert progress.read()[:2] == (label, 0)
    assert progress.read().amount == "waiting for Ray"
    roster = SimpleNamespace(ids=[0])
    progress.counts(SimpleNamespace(directory=roster))  # type: ignore[arg-type]
    assert progress.read().amount == f"1/{engines} engines"


def test_more_engines_than_are_waited_for_are_not_counted() -> None:
    progress = StartProgress(4)
    progress.counts(SimpleNamespace(directory=SimpleNamespace(ids=[0, 1, 2])), 2)  # type: ignore[arg-type]
    assert progress.read().amount == "2/2 engines"
