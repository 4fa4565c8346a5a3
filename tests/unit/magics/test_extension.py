"""Progress of a cluster that the first ``%px`` starts, while the prompt is the user's."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from IPython.core.error import UsageError

from nsactors.cluster.cluster import Cluster
from nsactors.errors import ClientClosed
from nsactors.magics.extension import ParallelMagics
from nsactors.magics.on_demand import AreaLine, ClusterOnDemand, ToolbarLine
from nsactors.magics.options import CONFIG
from nsactors.results.display.notebook import CellArea
from nsactors.results.display.screen import Progress
from nsactors.testing import TIMEOUT_S, wait_until
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import Registry

RAY = Progress("starting 2 engines", 0, 0, 1.2, doing="waiting for Ray")


class HeldUp(Cluster):
    """A cluster of threads that starts when it may."""

    may_start = threading.Event()

    def start_and_connect_sync(self, n: int | None = None) -> Any:
        self.start_progress.awaits("Ray")
        assert self.may_start.wait(TIMEOUT_S)
        return super().start_and_connect_sync(n)


class PromptSession:
    """A session like that of prompt_toolkit."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.app = SimpleNamespace(invalidate=lambda: self.shown.append(self.bottom_toolbar))
        self.bottom_toolbar: Any = "mine"


def test_the_toolbar_says_how_far_it_is_and_then_what_it_said_before() -> None:
    session = PromptSession()
    line = ToolbarLine(session)
    line.draw(RAY)
    line.remove()
    assert session.shown == [" starting 2 engines: waiting for Ray, 1.2 s", "mine"]


def test_the_place_of_a_cells_output_says_how_far_it_is() -> None:
    published: list[str] = []
    publisher = SimpleNamespace(publish=lambda data, *_, **__: published.append(data["text/plain"]))
    area = CellArea(publisher, "waiting for engines", clock=iter(range(100)).__next__)
    AreaLine(area).draw(RAY)
    assert published == ["waiting for engines", "starting 2 engines: waiting for Ray, 1.2 s"]


def test_of_two_lines_in_the_toolbar_neither_stays() -> None:
    session = PromptSession()
    first = ToolbarLine(session)
    first.draw(RAY)
    second = ToolbarLine(session)
    first.remove()
    second.draw(RAY)
    second.remove()
    assert session.bottom_toolbar == "mine"


def test_a_late_line_does_not_appear_below_output_that_is_complete() -> None:
    published: list[str] = []
    publisher = SimpleNamespace(publish=lambda data, *_, **__: published.append(data["text/plain"]))
    area = CellArea(publisher, "waiting for engines", clock=iter(range(100)).__next__)
    area.notice("NoSuchEngine: there is no engine 7")
    area.close()
    AreaLine(area).draw(RAY)
    area.publish()
    assert published[-1] == "NoSuchEngine: there is no engine 7"


@pytest.fixture(scope="module")
def magics() -> Iterator[ParallelMagics]:
    """The magics of a view of two engines, of which the first has run one cell more."""
    with Cluster(n=2, backend="local") as rc:
        rc[:].execute("a = 1", silent=False, block=True)
        rc[0].execute("a = 2", silent=False, block=True)
        yield ParallelMagics(cast(Any, SimpleNamespace(shell=SimpleNamespace(user_ns={}))), "", rc[:])


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("99", "no cell 99 on engine 0: the cells are 1 to 2; engine 1: the only cell is 1"),
        ("2", "no cell 2 on engine 1: the only cell is 1"),
        ("-1", "no cell -1 on engine 0: the cells are 1 to 2; engine 1: the only cell is 1"),
        ("0", "no cell 0 on engine 0"),
        ("1 2", "takes the number of a cell, not '1 2'"),
        ("1 --out x", "takes the number of a cell, or options, but not both"),
    ],
)
def test_a_cell_that_is_not_there_is_a_mistake_in_the_line(magics: ParallelMagics, number: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^%result:? {re.escape(message)}"):
        magics.result(number)


def test_a_number_is_told_to_be_wrong_where_no_cell_has_run() -> None:
    with Cluster(n=2, backend="local") as rc, pytest.raises(UsageError, match="engines 0-1: no cell has run yet"):
        ParallelMagics(cast(Any, SimpleNamespace(shell=None)), "", rc[:]).result("1")


def test_a_history_that_cannot_be_written_is_a_mistake_in_the_line(magics: ParallelMagics, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"%pxhistory -f cannot write '.*/no/x.py': No such file or directory"):
        magics.pxhistory(f"0 -f {tmp_path}/no/x.py")


def test_values_that_a_written_history_lacks_are_named(
    magics: ParallelMagics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert magics.activated is not None
    magics.activated.push({"numbers": range(3), "table": {1, 2}}, block=True)
    magics.pxhistory(f"1 -f {tmp_path}/x.py")
    assert "long or not plain: table (set)\n" in capsys.readouterr().out
    assert "numbers = range(0, 3)" in (tmp_path / "x.py").read_text()


def test_autopx_takes_no_argument(magics: ParallelMagics) -> None:
    with pytest.raises(UsageError, match="%autopx takes nothing else, not 'off': a second %autopx ends the first"):
        magics.autopx("off")


def test_each_default_is_shown_with_the_name_of_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    described = rows_of_pxconfig("--targets 0", capsys)
    assert described.keys() == {name[2:] for name in CONFIG if name.startswith("--") and not name.startswith("--no")}
    assert rows_of_pxconfig("--no-break --no-journal -t ::2", capsys).items() >= {
        ("targets", "::2"),
        ("break", "False"),
        ("journal", "False"),
    }


def test_the_tutorial_shows_these_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "tutorials" / "interactive.md").read_text(encoding="utf-8")
    told = page.partition("%pxconfig --targets 0\n")[2].partition("%pxconfig\n")[2].partition("```")[0]
    assert dict(line.split(maxsplit=1) for line in told.splitlines()) == rows_of_pxconfig("--targets 0", capsys)


def rows_of_pxconfig(options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    client = SimpleNamespace(session=SimpleNamespace(transport=SimpleNamespace(namespace="")))
    view: Any = SimpleNamespace(targets="all", client=client)
    magics = ParallelMagics(cast(Any, SimpleNamespace(shell=None)), "", view)
    magics.pxconfig(options)
    magics.pxconfig()
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.timeout(60)
def test_queued_work_that_fails_is_told_where_it_belongs_and_the_rest_goes_on() -> None:
    HeldUp.may_start.clear()
    on_demand = ClusterOnDemand(lambda: HeldUp(n=2, backend="local"))
    told: list[str] = []

    def fail_to_tell(reason: str) -> None:
        told.append(reason)
        raise OSError("the screen is gone")

    on_demand.when_ready(lambda client: client[7], fail_to_tell)
    on_demand.when_ready(lambda client: told.append(f"{len(client)} engines"), told.append)
    HeldUp.may_start.set()
    assert on_demand.wait(TIMEOUT_S)
    on_demand.when_ready(lambda client: client[8], told.append)
    on_demand.cluster.stop_cluster_sync()
    reasons = [f"NoSuchEngine: there is no engine {i}; there are engines 0-1: name one of them" for i in (7, 8)]
    assert told == [reasons[0], "2 engines", reasons[1]]


@pytest.mark.timeout(60)
def test_all_that_was_queued_is_told_of_a_start_that_fails() -> None:
    may_fail = threading.Event()

    class Failing(Cluster):
        def start_and_connect_sync(self, n: int | None = None) -> Any:
            assert may_fail.wait(TIMEOUT_S)
            raise OSError("no room")

    on_demand = ClusterOnDemand(lambda: Failing(n=2, backend="local"))
    told: list[str] = []
    told_both = threading.Event()

    def fail_to_tell(reason: str) -> None:
        raise OSError("the screen is gone")

    def tell(reason: str) -> None:
        told.append(reason)
        told_both.set()

    on_demand.when_ready(abs, fail_to_tell)
    on_demand.when_ready(abs, tell)
    may_fail.set()
    assert told_both.wait(TIMEOUT_S)
    on_demand.when_ready(abs, told.append)
    assert told == ["The cluster could not be started: no room"] * 2


@pytest.mark.timeout(60)
def test_a_start_that_the_user_has_left_ends_without_a_reason() -> None:
    may_end, ended = threading.Event(), threading.Event()

    class Left(Cluster):
        def start_and_connect_sync(self, n: int | None = None) -> Any:
            assert may_end.wait(TIMEOUT_S)
            raise ClientClosed

    class LeftOnArrival(Cluster):
        def start_and_connect_sync(self, n: int | None = None) -> Any:
            assert may_end.wait(TIMEOUT_S)

    def work(client: Any) -> None:
        ended.set()
        raise ClientClosed

    told: list[str] = []
    starts = [ClusterOnDemand(partial(kind, n=2, backend="local")) for kind in (Left, LeftOnArrival)]
    for on_demand in starts:
        on_demand.when_ready(work, told.append)
    may_end.set()
    assert ended.wait(TIMEOUT_S)
    wait_until(lambda: all(on_demand.ready for on_demand in starts))
    assert told == []


@pytest.mark.timeout(60)
def test_a_line_is_drawn_until_the_engines_are_there() -> None:
    HeldUp.may_start.clear()
    on_demand = ClusterOnDemand(lambda: HeldUp(n=2, backend="local"))
    session = PromptSession()
    on_demand.show_on(ToolbarLine(session))
    wait_until(lambda: any("starting 2 engines: waiting for Ray" in str(text) for text in session.shown))
    HeldUp.may_start.set()
    assert on_demand.wait(TIMEOUT_S)
    wait_until(lambda: session.shown[-1] == "mine")
    assert on_demand.progress()[:3] == ("starting 2 engines", 2, 2)
    on_demand.cluster.stop_cluster_sync()


def test_the_time_limit_of_the_job_is_shown_with_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 1:30:20\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    registry = Registry()
    for name in ("other", "lab"):
        registry.reserve(
            name, origin=f"Slurm job {len(name)}", connection=ConnectionInfo("10.0.0.1:6379", f"nsactors-{name}")
        )

    def described(namespace: str) -> str:
        client = SimpleNamespace(session=SimpleNamespace(transport=SimpleNamespace(namespace=namespace)))
        view: Any = SimpleNamespace(targets="all", client=client)
        ParallelMagics(cast(Any, SimpleNamespace(shell=None)), "", view).pxconfig()
        return capsys.readouterr().out

    assert "\njob's time limit     in 1 h 30 min\n" in described("nsactors-lab")
    assert "time limit" not in described("nsactors-third")
    assert "time limit" not in described("")
