"""A process is told apart from every other one that has had its id."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from nsactors.transport.process_identity import ProcessIdentity

SELF = ProcessIdentity.of(os.getpid())


def test_a_process_that_lives_is_not_gone() -> None:
    assert not SELF.is_gone
    assert not ProcessIdentity.of(os.getppid()).is_gone


def test_one_that_has_ended_is_gone_also_before_its_parent_has_asked() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = ProcessIdentity.of(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert identity.is_gone
    assert identity.is_gone


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "an earlier one"}], ids=["its id again", "before a boot"])
def test_another_process_with_its_id_is_not_it(change: dict[str, object]) -> None:
    assert replace(SELF, **change).is_gone  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"pid_namespace": "pid:[1]"}], ids=["host", "container"])
def test_of_one_that_cannot_be_looked_at_from_here_nothing_is_known(change: dict[str, object]) -> None:
    away = replace(SELF, pid=2**22 + 1, **change)  # type: ignore[arg-type]
    assert (away.is_here, away.is_gone) == (False, False)
