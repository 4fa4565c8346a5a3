"""The engine's threads go on: beside a controller that is silent for a while, and after errors."""

from __future__ import annotations

import threading

import pytest

from nsactors import Cluster
from nsactors.errors import ClusterUnreachable
from nsactors.namespace.host import ThreadHost
from nsactors.namespace.interrupts import TimeLimit
from nsactors.protocol.control import EngineReport, Receipt
from nsactors.testing import wait_until
from nsactors.transport.base import ControllerClient


def test_a_report_that_met_a_silent_controller_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ControllerClient.report
    lost: list[EngineReport] = []

    def report_or_not(self: ControllerClient, engine_id: int, incarnation: int, items: EngineReport) -> Receipt:
        if not lost and any(entry.completed for entry in items.history):
            lost.append(items)
            raise ClusterUnreachable("the controller", "no answer to report in 30 s")
        return report(self, engine_id, incarnation, items)

    with Cluster(n=1, backend="local") as rc:
        monkeypatch.setattr(ControllerClient, "report", report_or_not)
        rc[0].execute("print(1)", block=True)
        wait_until(lambda: bool(lost))
        wait_until(lambda: [entry.outcome for entry in rc.history()] == ["ok"])


def test_an_engine_whose_preparations_fail_follows_its_controller(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(self: ThreadHost) -> None:
        raise ImportError("cannot import IPython")

    monkeypatch.setattr(ThreadHost, "warm_up", fail)
    with Cluster(n=1, backend="local") as rc:
        assert rc[0].peek("1 + 1") == 2  # a command of the controller
    assert "cannot import IPython" in capfd.readouterr().err


def test_an_engine_that_cannot_look_at_its_limits_still_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster(n=1, backend="local") as rc:
        failed = threading.Event()

        def fail(self: TimeLimit) -> None:
            failed.set()
            raise RuntimeError("no clock")

        monkeypatch.setattr(TimeLimit, "look", fail)
        assert failed.wait(60)
        rc[0].execute("print(1)", block=True)
        wait_until(lambda: [entry.outcome for entry in rc.history()] == ["ok"])
