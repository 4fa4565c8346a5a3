"""A short chaos run; ``make chaos`` goes on for minutes."""

from __future__ import annotations

import pytest

from tests.chaos import debuggers
from tests.chaos.run import Plan, carry_out

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(600)]


def test_nothing_is_lost_and_nothing_happens_twice_when_engines_die_under_load() -> None:
    figures = carry_out(Plan(seed=5, engines=2, authors=2, kills=12, pause_s=1.5))
    assert figures.tally.complaints == []
    assert figures.faults.total() == 12
    assert len(figures.recoveries) >= 5
    assert figures.tally.audits >= 2


def test_no_debugger_holds_anything_up_when_clients_and_engines_die() -> None:
    plan = debuggers.DebuggerPlan(seed=3, engines=2, users=2, seconds=300.0, rounds=40, pause_s=1.0)
    figures = debuggers.carry_out(plan)
    assert figures.complaints == []
    assert figures.rounds.total() >= 40
    assert figures.faults.total() >= 4
