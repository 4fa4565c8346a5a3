"""Engines that are asked to end close what they have opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster, DirectView
from nsactors.errors import EngineLost
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until

# What Python says of files that nobody has closed, where it is asked to.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def write_a_line(view: Any, path: Path) -> None:
    """Leave a line in the buffer of a file."""
    view["path"] = str(path)
    view.execute("log = open(path, 'w'); count = log.write('line')", block=True)
    assert path.read_text() == "", "it was not buffered"


def test_files_are_whole_when_an_engine_has_been_ended(rc: Client, victim: DirectView, tmp_path: Path) -> None:
    write_a_line(victim, tmp_path / "log")
    rc.shutdown(targets=victim.targets)
    assert (tmp_path / "log").read_text() == "line"


@pytest.mark.usefixtures("nothing_on_its_way")
def test_files_are_whole_when_engines_have_finished_and_gone(
    cluster: Cluster, rc: Client, victim: DirectView, tmp_path: Path
) -> None:
    write_a_line(victim, tmp_path / "log")
    cluster.stop_engines(victim.targets)
    assert (tmp_path / "log").read_text() == "line"


def test_files_are_whole_when_a_new_process_takes_an_engines_place(
    rc: Client, victim: DirectView, tmp_path: Path
) -> None:
    write_a_line(victim, tmp_path / "log")
    rc.shutdown(targets=victim.targets, restart=True)
    victim["path"] = str(tmp_path / "log")
    victim.execute("found = open(path).read()", block=True)
    assert victim["found"] == "line"


def test_files_are_whole_when_a_cluster_has_stopped(own_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = own_cluster(2)
    rc = cluster.start_and_connect_sync()
    for engine_id in rc.ids:
        write_a_line(rc[engine_id], tmp_path / f"log-{engine_id}")
    cluster.stop_cluster_sync()
    assert [path.read_text() for path in sorted(tmp_path.glob("log-*"))] == ["line", "line"]


def test_a_compressed_file_has_its_end(rc: Client, victim: DirectView, tmp_path: Path) -> None:
    import gzip

    victim["path"] = str(tmp_path / "log.gz")
    victim.execute("import gzip; kept = [gzip.open(path, 'wt')]; count = kept[0].write('line')", block=True)
    rc.shutdown(targets=victim.targets)
    with gzip.open(tmp_path / "log.gz", "rt") as log:
        assert log.read() == "line"


def test_destructors_find_the_functions_and_modules_that_they_use(
    rc: Client, victim: DirectView, tmp_path: Path
) -> None:
    victim["path"] = str(tmp_path / "deleted")
    victim.execute(
        """
import pathlib
def note(path): pathlib.Path(path).write_text("deleted")
class Noted:
    def __init__(self, path): self.path = path
    def __del__(self): note(self.path)
noted = Noted(path)
""",
        block=True,
    )
    rc.shutdown(targets=victim.targets)
    assert (tmp_path / "deleted").read_text() == "deleted"


@pytest.mark.needs(Capability.PROCESS)
def test_threads_are_joined_then_handlers_run_on_the_main_thread(
    rc: Client, victim: DirectView, tmp_path: Path
) -> None:
    victim["path"] = str(tmp_path / "order")
    victim.execute(
        """
import atexit, threading
order, told = [], threading.Event()
threading._register_atexit(told.set)
def work():
    told.wait()
    order.append("thread")
threading.Thread(target=work).start()
@atexit.register
def leave():
    order.append("handler")
    order.append(threading.current_thread() is threading.main_thread())
    with open(path, "w") as file:
        file.write(repr(order))
""",
        block=True,
    )
    rc.shutdown(targets=victim.targets)
    assert (tmp_path / "order").read_text() == "['thread', 'handler', True]"


@pytest.mark.needs(Capability.PROCESS)
def test_what_handlers_print_is_in_the_engines_output_and_keeps_the_others_from_nothing(
    rc: Client, victim: DirectView, tmp_path: Path
) -> None:
    victim["path"] = str(tmp_path / "log")
    victim.execute(
        """
import atexit, sys
atexit.register(lambda: open(path, "w").write("first"))
atexit.register(sys.exit, 3)
@atexit.register
def fail(): raise ValueError("a handler has failed")
""",
        block=True,
    )
    engine = rc.session.directory.get(rc.session.directory.ids[-1])
    assert engine is not None
    rc.shutdown(targets=victim.targets)
    assert (tmp_path / "log").read_text() == "first"
    assert "a handler has failed" in Path(f"{engine.output_path}.stderr").read_text()


@pytest.mark.needs(Capability.PROCESS)
def test_children_that_multiprocessing_knows_end_with_their_engine(rc: Client, victim: DirectView) -> None:
    import os

    victim.execute(
        """
import multiprocessing, time
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,), daemon=True)
child.start()
pid = child.pid
""",
        block=True,
    )
    pid = victim["pid"]
    rc.shutdown(targets=victim.targets)
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.needs(Capability.SIGNALS)
def test_a_busy_engine_is_interrupted_and_what_waits_there_never_runs(
    rc: Client, victim: DirectView, gate: Gate, tmp_path: Path
) -> None:
    victim["path"] = str(tmp_path / "cleaned")

    def busy(pause: Callable[[], None]) -> None:
        import __main__

        try:
            pause()
        finally:
            with open(__main__.path, "w") as file:
                file.write("cleaned up")

    running = victim.apply_async(busy, gate.pass_through)
    waiting = victim.apply_async(Path.touch, tmp_path / "ran")
    gate.wait_arrived()
    rc.shutdown(targets=victim.targets)
    assert ((tmp_path / "cleaned").read_text(), (tmp_path / "ran").exists()) == ("cleaned up", False)
    for call in (running, waiting):
        with pytest.raises(EngineLost, match=r"^engine \d+ ended.*: a shutdown was requested"):
            call.get(TIMEOUT_S)


@pytest.mark.needs(Capability.SIGNALS)
def test_no_task_of_a_batch_begins_on_an_engine_that_is_asked_to_end(
    rc: Client, victim: DirectView, gate: Gate, tmp_path: Path
) -> None:
    def begin(number: int) -> None:
        (tmp_path / f"began-{number}").touch()
        gate.pass_through()

    tasks = rc.load_balanced_view(victim.targets).map(begin, range(50), chunksize=50, block=False)
    gate.wait_arrived()
    rc.shutdown(targets=victim.targets)
    assert [path.name for path in tmp_path.glob("began-*")] == ["began-0"]
    assert tasks.wait(TIMEOUT_S)


@pytest.mark.needs(Capability.PROCESS)
def test_what_does_not_end_in_time_is_killed_and_named_with_what_it_did(
    own_cluster: Callable[..., Cluster], gate: Gate
) -> None:
    cluster = own_cluster(3, stop_grace=3.0)
    rc = cluster.start_and_connect_sync()
    # On a busy machine a third of a second may be too short for the report of what an engine does.
    rc.execute_all("import nsactors.engine_actor; nsactors.engine_actor.TELL_BEFORE_S = 2.0").get(TIMEOUT_S)

    def swallow(pause: Callable[[], None]) -> None:
        while True:
            try:
                pause()
            except KeyboardInterrupt:
                continue

    rc[0].apply_async(swallow, gate.pass_through)
    gate.wait_arrived()
    rc[1].execute(
        "import threading; threading.Thread(target=threading.Event().wait, name='helper').start()", block=True
    )
    notices: list[str] = []
    cluster.stop_cluster_sync(report=notices.append)
    assert sorted(notices) == [
        "nsactors: engine 0 did not end within 3 s and was killed; it ran apply(swallow)",
        "nsactors: engine 1 did not end within 3 s and was killed; it waited for the thread helper",
    ]


@pytest.mark.needs(Capability.PROCESS)
def test_an_engine_whose_gil_is_held_past_its_time_is_killed_and_other_clients_hear_of_it(
    own_cluster: Callable[..., Cluster], gate: Gate
) -> None:
    cluster = own_cluster(1, stop_grace=0.2)
    rc = cluster.start_and_connect_sync()
    told: list[str] = []
    with cluster.connect_client_sync(report=told.append) as other:
        rc[0].apply_async(gate.pass_holding_gil)
        gate.wait_arrived()
        cluster.stop_engines(0, finish=False)
        wait_until(lambda: other.ids == [])
    assert "engine 0 did not end within 0.2 s and was killed; " in "".join(told)


def test_a_grace_period_that_cannot_be_is_refused(backend: str) -> None:
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="stop_grace"):
            Cluster(n=1, backend=backend, stop_grace=wrong)
    with pytest.raises(TypeError, match="stop_grace"):
        Cluster(n=1, backend=backend, stop_grace="5")  # type: ignore[arg-type]
