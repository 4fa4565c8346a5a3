"""The engine's threads go on: beside a controller that is silent for a while, and after errors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from nsactors import Cluster, engine_actor
from nsactors.engine_actor import EngineActor
from nsactors.errors import ClusterUnreachable
from nsactors.namespace.host import ThreadHost
from nsactors.namespace.interrupts import TimeLimit
from nsactors.protocol.control import EngineReport, Receipt
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.base import ControllerClient


def test_a_report_that_met_a_silent_controller_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ControllerClient.report
    lost: list[EngineReport] = []

    def report_or_not(
        self: ControllerClient, engine_id: int, incarnation: int, items: EngineReport, *limit_s: float
    ) -> Receipt:
        if not lost and any(entry.completed for entry in items.history):
            lost.append(items)
            raise ClusterUnreachable("the controller", "no answer to report in 30 s")
        return report(self, engine_id, incarnation, items, *limit_s)

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


def test_a_request_wakes_an_engine_that_rests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_actor, "RESTS_AFTER_S", 0.0)
    monkeypatch.setattr(engine_actor, "REST_ROUND_S", 2 * TIMEOUT_S)
    rests, pause_s = threading.Event(), EngineActor._pause_s

    def pause_and_tell(engine: EngineActor) -> float:
        pause = pause_s(engine)
        if pause > TIMEOUT_S:
            rests.set()
        return pause

    monkeypatch.setattr(EngineActor, "_pause_s", pause_and_tell)
    with Cluster(n=1, backend="local") as rc:
        assert rests.wait(TIMEOUT_S)
        end = tmp_path / "end"
        result = rc[0].execute(
            "import pathlib, threading\npause = threading.Event()\nprint('now')\n"
            f"while not pathlib.Path({str(end)!r}).exists(): pause.wait(0.01)"
        )
        try:
            wait_until(lambda: "now" in result.stdout)
        finally:
            end.touch()


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


def test_the_end_of_a_request_that_was_announced_is_reported_without_delay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_actor, "LONG_S", 1e6)  # by the clock, no request is long
    monkeypatch.setattr(engine_actor, "ENDINGS_EVERY", 10**9)
    with Cluster(n=1, backend="local") as rc:
        end = tmp_path / "end"
        result = rc[0].execute(
            "import pathlib, threading\npause = threading.Event()\n"
            f"while not pathlib.Path({str(end)!r}).exists(): pause.wait(0.01)"
        )
        try:
            wait_until(lambda: [entry.outcome for entry in rc.history()] == ["running"])
        finally:
            end.touch()
        result.get(TIMEOUT_S)
        wait_until(lambda: [entry.outcome for entry in rc.history()] == ["ok"])
