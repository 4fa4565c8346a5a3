"""Communicators: message passing between namespaces, with mpi4py's names and meanings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

from examples import life, midpoint, wave
from nsactors import Client, Cluster, CompositeError, DirectView, Reference
from nsactors.errors import MeetingFailed, MemberLost, ServiceClosed
from nsactors.models import communicator as MPI
from nsactors.models.communicator import Communicator
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, wait_until

COMM = Reference("comm")


@contextmanager
def communicating(view: DirectView) -> Iterator[DirectView]:
    """Engines with a communicator. Whoever waits for a message at the end waits no more."""
    service = view.communicator()
    yield view
    service.close()


pytestmark = pytest.mark.services


@pytest.fixture
def world(dv: DirectView) -> Iterator[DirectView]:
    """Four engines with a communicator."""
    with communicating(dv) as view:
        yield view


@pytest.fixture
def worlds(backend: str, rc: Client, own_cluster: Callable[..., Cluster]) -> Iterator[Iterator[DirectView]]:
    """Worlds of several sizes, one after the other: 1, 2, 4 and 7 where engines are threads."""
    views = [rc[:1], rc[:4]]
    if backend == "local":
        views += [rc[:2], own_cluster(7).start_and_connect_sync()[:]]
    with ExitStack() as stack:
        yield (stack.enter_context(communicating(view)) for view in views)


def run(view: DirectView, function: Callable[..., Any], *args: Any) -> list[Any]:
    results: list[Any] = view.apply_async(function, COMM, *args).get(TIMEOUT_S)
    return results


def test_ranks_are_in_the_order_of_the_view(rc: Client) -> None:
    rc[[2, 0, 3]].communicator("world")
    assert rc[[2, 0, 3]].pull(["world.rank", "world.Get_rank()", "world.Get_size()"], block=True) == [
        [0, 0, 3],
        [1, 1, 3],
        [2, 2, 3],
    ]


@pytest.mark.services(both_ways=True)
def test_a_message_arrives_as_a_copy_that_can_be_written_to(world: DirectView) -> None:
    def exchange(comm: Communicator, size: int) -> tuple[float, float]:
        mine = np.full(size, float(comm.rank))
        theirs = comm.sendrecv(mine, (comm.rank + 1) % comm.size, 7, None, (comm.rank - 1) % comm.size, 7)
        theirs += 10
        comm.barrier()
        return float(mine[0]), float(theirs[-1])

    for size in (10, 100_000):
        assert run(world, exchange, size) == [(0, 13), (1, 10), (2, 11), (3, 12)]


@pytest.mark.services(both_ways=True)
def test_receives_before_sends_all_to_all_do_not_deadlock(worlds: Iterator[DirectView]) -> None:
    def all_to_all(comm: Communicator) -> list[Any]:
        requests = [comm.irecv(source=rank, tag=rank) for rank in range(comm.size)]
        for rank in range(comm.size):
            comm.isend((comm.rank, rank), dest=rank, tag=comm.rank)
        return MPI.Request.waitall(requests)

    for view in worlds:
        size = len(view)
        assert run(view, all_to_all) == [[(sender, rank) for sender in range(size)] for rank in range(size)]


@pytest.mark.services(both_ways=True)
def test_messages_of_one_sender_and_tag_do_not_overtake(world: DirectView) -> None:
    def stream(comm: Communicator) -> list[Any]:
        for number in range(50):
            comm.send(number, dest=0, tag=number % 2)
        if comm.rank != 0:
            return []
        return [[comm.recv(source=source, tag=tag) for _ in range(25)] for source in range(comm.size) for tag in (1, 0)]

    assert run(world, stream)[0] == [list(range(1, 50, 2)), list(range(0, 50, 2))] * 4


def test_any_source_and_any_tag_tell_where_the_message_came_from(world: DirectView) -> None:
    def gather(comm: Communicator) -> list[Any]:
        comm.send(f"from {comm.rank}", dest=0, tag=comm.rank + 10)
        found = []
        for _ in range(comm.size if comm.rank == 0 else 0):
            status = MPI.Status()
            text = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
            found.append((text, status.Get_source(), status.Get_tag()))
        return sorted(found)

    assert run(world, gather)[0] == [(f"from {rank}", rank, rank + 10) for rank in range(4)]


@pytest.mark.once
def test_probing_leaves_the_message(world: DirectView) -> None:
    def look(comm: Communicator) -> Any:
        status = MPI.Status()
        before = comm.iprobe(tag=9)
        comm.send("to myself", dest=comm.rank, tag=9)
        comm.probe(tag=9, status=status)
        return before, comm.iprobe(tag=9), status.Get_source() == comm.rank, comm.recv(tag=9), comm.iprobe(tag=9)

    assert run(world, look) == [(False, True, True, "to myself", False)] * 4


@pytest.mark.once
def test_a_request_can_be_tested_and_cancelled(world: DirectView) -> None:
    def ask(comm: Communicator) -> Any:
        first, second = comm.irecv(tag=1), comm.irecv(tag=2)
        early = second.test()
        first.cancel()
        for tag in (1, 2):
            comm.send(tag, dest=comm.rank, tag=tag)
        return early, second.wait(), second.test(), comm.recv(tag=1)

    assert run(world, ask) == [((False, None), 2, (True, 2), 1)] * 4


@pytest.mark.once
def test_nobody_is_a_partner_like_any_other(world: DirectView) -> None:
    def shift(comm: Communicator) -> Any:
        below = comm.rank - 1 if comm.rank else MPI.PROC_NULL
        above = comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL
        return comm.sendrecv(comm.rank, dest=above, source=below), comm.irecv(source=MPI.PROC_NULL).wait()

    assert run(world, shift) == [(None, None), (0, None), (1, None), (2, None)]


@pytest.mark.services(both_ways=True)
def test_collectives_do_what_they_do_in_mpi(worlds: Iterator[DirectView]) -> None:
    def collect(comm: Communicator) -> dict[str, Any]:
        rank, size = comm.rank, comm.size
        comm.barrier()
        return {
            "bcast": comm.bcast({"from": rank}, root=size - 1),
            "scatter": comm.scatter([n * n for n in range(size)] if rank == 0 else None),
            "gather": comm.gather(rank, root=size - 1),
            "allgather": comm.allgather(rank),
            "reduce": comm.reduce(rank + 1, op=MPI.PROD),
            "allreduce": comm.allreduce(rank, op=MPI.MAX),
            "alltoall": comm.alltoall([(rank, other) for other in range(size)]),
            "scan": comm.scan(1),
        }

    for view in worlds:
        size = len(view)
        product = int(np.prod(range(1, size + 1)))
        assert run(view, collect) == [
            {
                "bcast": {"from": size - 1},
                "scatter": rank * rank,
                "gather": list(range(size)) if rank == size - 1 else None,
                "allgather": list(range(size)),
                "reduce": product if rank == 0 else None,
                "allreduce": size - 1,
                "alltoall": [(other, rank) for other in range(size)],
                "scan": rank + 1,
            }
            for rank in range(size)
        ]


def test_an_allreduce_is_the_same_to_the_last_bit_everywhere(world: DirectView) -> None:
    def total(comm: Communicator) -> bytes:
        mine = np.random.default_rng(comm.rank).random(100)
        summed: np.ndarray[Any, Any] = comm.allreduce(mine)
        return summed.tobytes()

    assert len(set(run(world, total))) == 1


@pytest.mark.once
def test_a_group_splits_by_color_in_the_order_of_keys(world: DirectView) -> None:
    def split(comm: Communicator) -> tuple[int, int, list[int]]:
        half = comm.Split(comm.rank % 2, key=-comm.rank)
        return half.rank, half.size, half.allgather(comm.rank)

    assert run(world, split) == [(1, 2, [2, 0]), (1, 2, [3, 1]), (0, 2, [2, 0]), (0, 2, [3, 1])]


@pytest.mark.once
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("comm.send(1, dest=4)", r"send\(\) takes dest as one of the 4 ranks, from 0, not 4"),
        ("comm.recv(source=-7)", r"recv\(\) takes source as one of the 4 ranks, from 0, not -7"),
        (
            "comm.scatter([1], root=comm.rank)",
            r"takes sendobj as a sequence of 4 objects, one for each rank, not \[1\]",
        ),
    ],
)
def test_what_cannot_be_is_said_at_once(world: DirectView, call: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        world.client[1].execute(call, block=True)


@pytest.mark.once
def test_ranks_that_do_not_do_the_same_are_told_so(world: DirectView) -> None:
    with pytest.raises(CompositeError) as caught:
        world.execute("comm.barrier() if comm.rank else comm.allgather(1)").get(TIMEOUT_S)
    assert all(isinstance(error, MeetingFailed) for error in caught.value.exceptions)


@pytest.mark.services(both_ways=True)
def test_an_engine_that_ends_is_an_error_for_who_waits_for_it(
    rc: Client, victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    lost: Any = victim.targets
    group = rc[[0, 1, lost]]
    group.communicator()
    group.execute("comm.barrier()").get(TIMEOUT_S)
    waits = [rc[0].execute("comm.recv(source=2)"), rc[1].execute("comm.barrier()")]
    wait_until(lambda: all(rc.queue_status()[engine]["waits"] for engine in (0, 1)))
    end_engine(lost)
    for wait in waits:
        with pytest.raises(MemberLost, match="rank 2 has died"):
            wait.get(TIMEOUT_S)


def test_who_waits_for_whom_can_be_seen(rc: Client, world: DirectView) -> None:
    service = world.communicator()
    deadlock = world.execute("comm.recv(source=(comm.rank + 1) % comm.size, tag=5)", block=False)
    wait_until(lambda: all(rc.queue_status()[engine]["waits"] for engine in range(4)))
    status = rc.queue_status()
    assert [status[engine]["waits"][0].partition(" for ")[0] for engine in range(4)] == [
        f"recv from {(engine + 1) % 4} tag 5" for engine in range(4)
    ]
    service.close()
    with pytest.raises(CompositeError) as caught:
        deadlock.get(TIMEOUT_S)
    assert all(isinstance(error, ServiceClosed) for error in caught.value.exceptions)


@pytest.mark.services(both_ways=True)
@pytest.mark.needs(Capability.SIGNALS)
def test_a_deadlock_is_interrupted_and_the_communicator_goes_on(rc: Client, world: DirectView) -> None:
    deadlock = world.execute("comm.recv(source=(comm.rank + 1) % comm.size)", block=False)
    wait_until(lambda: all(rc.queue_status()[engine]["waits"] for engine in range(4)))
    rc.interrupt()
    with pytest.raises(CompositeError):
        deadlock.get(TIMEOUT_S)
    assert run(world, lambda comm: comm.sendrecv(comm.rank, (comm.rank + 1) % comm.size)) == [3, 0, 1, 2]


@pytest.mark.needs(Capability.PROCESS)
def test_a_recovery_repeats_no_messages_and_the_communicator_goes_on(own_cluster: Callable[..., Cluster]) -> None:
    rc = own_cluster(2, recovery="replay").start_and_connect_sync()
    with communicating(rc[:]) as group:
        group.execute("before = comm.rank + 10").get(TIMEOUT_S)
        group.execute("got = comm.sendrecv(comm.rank, dest=1 - comm.rank)").get(TIMEOUT_S)
        rc.send_signal("SIGKILL", 1)
        wait_until(lambda: rc.recoveries)
        assert any("it communicated with others" in str(report) for report in rc.recoveries)
        assert rc[1].pull(["before", "'got' in globals()"]).get(TIMEOUT_S) == [11, False]
        assert run(group, lambda comm: comm.sendrecv(comm.rank * 2, dest=1 - comm.rank)) == [2, 0]


def test_namespaces_can_be_used_between_two_messages(world: DirectView) -> None:
    world.execute("comm.send(comm.rank, dest=(comm.rank + 1) % comm.size)")
    world["x"] = 10
    world.execute("x += comm.recv()")
    assert world["x"] == [13, 10, 11, 12]


@pytest.mark.once
def test_the_midpoint_integral_is_the_same_on_all_engines(worlds: Iterator[DirectView]) -> None:
    for view in worlds:
        values = run(view, midpoint.integrate)
        assert len(set(values)) == 1
        assert abs(values[0] - np.pi) == pytest.approx(1e-8 / 12, rel=1e-3)


def test_the_wave_is_the_same_to_the_last_bit_however_it_is_cut(worlds: Iterator[DirectView]) -> None:
    points, steps = 30, 20
    serial = wave.solve(wave.Alone(), 1, 1, points, steps)
    assert serial is not None
    assert np.abs(serial - wave.exact(points, steps)).max() < 1e-12
    for view in worlds:
        px = 2 if len(view) == 4 else 1
        field = run(view, wave.solve, px, len(view) // px, points, steps)[0]
        assert np.array_equal(field, serial)


@pytest.mark.once
def test_a_glider_goes_round_the_torus(worlds: Iterator[DirectView]) -> None:
    for view in worlds:
        board = run(view, life.play, life.GLIDER, 32, 128)[0]
        assert sorted(zip(*np.nonzero(board), strict=True)) == life.GLIDER
