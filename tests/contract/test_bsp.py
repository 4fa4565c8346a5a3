"""Bulk-synchronous parallel programs: the rules of BSPlib, from the prompt and as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from examples import supersteps
from nsactors import Client, Cluster, CompositeError, DirectView
from nsactors.errors import MeetingFailed, MemberLost, SerializationError
from nsactors.models.bsp import BSP, Process
from nsactors.protocol.messages import Reference
from nsactors.testing import TIMEOUT_S, wait_until

pytestmark = pytest.mark.services


@pytest.fixture
def machine(dv: DirectView) -> Iterator[BSP]:
    """Four processes."""
    machine = dv.bsp()
    yield machine
    machine.close()


@pytest.fixture
def machines(backend: str, rc: Client, own_cluster: Callable[..., Cluster]) -> Iterator[tuple[int, BSP]]:
    """Machines of several sizes, one after the other: 1, 2, 4 and 7 where engines are threads."""
    views = [rc[:1], rc[:4]]
    if backend == "local":
        views += [rc[:2], own_cluster(7).start_and_connect_sync()[:]]
    return ((len(view), view.bsp()) for view in views)


def failures(machine: BSP, program: Callable[..., Any]) -> list[type[BaseException]]:
    """Return the kinds of the errors of a program that fails in all processes."""
    with pytest.raises(CompositeError) as caught:
        machine.run(program)
    kinds = (MeetingFailed, MemberLost, ZeroDivisionError, LookupError)
    return [next(kind for kind in kinds if isinstance(error, kind)) for error in caught.value.exceptions]


@pytest.mark.services(both_ways=True)
def test_a_get_sees_what_was_there_before_any_put(machines: Iterator[tuple[int, BSP]]) -> None:
    for n, machine in machines:
        assert machine.run(supersteps.ring) == [((pid - 1) % n + 100, (pid - 1) % n) for pid in range(n)]


def test_a_put_carries_the_value_of_the_moment_when_it_was_made(machine: BSP, dv: DirectView) -> None:
    machine.step("import numpy as np; a = np.zeros(3); bsp.put((bsp.pid + 1) % 4, 'b', a); a[:] = 9")
    assert [b.tolist() for b in dv["b"]] == [[0, 0, 0]] * 4
    dv.execute("b += 1")
    assert dv.client[0]["b"].tolist() == [1, 1, 1]


def test_nothing_arrives_within_a_superstep(machine: BSP, dv: DirectView) -> None:
    dv.execute("x = 0; bsp.put((bsp.pid + 1) % 4, 'x', 7); bsp.send((bsp.pid + 1) % 4, 'hello')")
    assert dv.pull(["x", "bsp.received"]) == [[0, []]] * 4
    dv.execute("bsp.sync()")
    assert dv["x"] == [7] * 4
    assert dv.pull("[message.value for message in bsp.received]") == [["hello"]] * 4


@pytest.mark.services(both_ways=True)
def test_parts_of_arrays_are_put_and_got(machine: BSP, dv: DirectView) -> None:
    dv.push({"a": np.zeros(4)}, copy=True)
    machine.step("bsp.put(0, 'a', bsp.pid + 1, at=bsp.pid)")
    machine.step("bsp.get(0, 'a', into='part', at=slice(bsp.pid, bsp.pid + 2))")
    assert [part.tolist() for part in dv["part"]] == [[1, 2], [2, 3], [3, 4], [4]]


@pytest.mark.once
def test_messages_last_for_one_superstep_and_are_in_the_order_of_their_senders(machine: BSP) -> None:
    def program(bsp: Process) -> list[Any]:
        for number in range(2):
            bsp.send(0, number, tag=f"tag {bsp.pid}")
        bsp.sync()
        first = [tuple(message) for message in bsp.received]
        bsp.sync()
        return [first, bsp.received]

    expected = [(pid, f"tag {pid}", number) for pid in range(4) for number in range(2)]
    assert machine.run(program)[0] == [expected, []]


@pytest.mark.once
def test_variables_can_be_looked_at_and_changed_between_supersteps(machine: BSP, dv: DirectView) -> None:
    machine.step("x = bsp.pid ** 2; bsp.put((bsp.pid + 1) % bsp.nprocs, 'y', x)")
    assert dv["y"] == [9, 0, 1, 4]
    dv.scatter("y", [100, 200, 300, 400], flatten=True)
    machine.step("bsp.get((bsp.pid + 1) % bsp.nprocs, 'y', into='z')")
    assert dv["z"] == [200, 300, 400, 100]


@pytest.mark.once
def test_a_process_that_ends_early_is_an_error_in_all(machine: BSP) -> None:
    def ends_early(bsp: Process) -> None:
        bsp.sync()
        if bsp.pid != 2:
            bsp.sync()

    assert failures(machine, ends_early) == [MeetingFailed] * 4


def test_a_process_that_fails_is_an_error_in_all_and_is_named(machine: BSP) -> None:
    def fails(bsp: Process) -> None:
        bsp.sync()
        if bsp.pid == 1:
            1 / 0  # noqa: B018
        bsp.sync()

    with pytest.raises(CompositeError) as caught:
        machine.run(fails)
    assert "rank 1: failed with ZeroDivisionError" in str(caught.value.exceptions[0])
    assert failures(machine, fails) == [MeetingFailed, ZeroDivisionError, MeetingFailed, MeetingFailed]


@pytest.mark.once
def test_a_variable_that_is_not_there_is_an_error_in_all(machine: BSP) -> None:
    def asks_for_nothing(bsp: Process) -> None:
        if bsp.pid == 0:
            bsp.get(3, "nowhere", into="x")
        bsp.sync()
        bsp.sync()

    assert failures(machine, asks_for_nothing) == [LookupError, MeetingFailed, MeetingFailed, MeetingFailed]


@pytest.mark.once
def test_after_a_failure_the_next_program_runs(machine: BSP) -> None:
    def fails(bsp: Process) -> None:
        bsp.put(0, "x", "of a superstep that never ends")
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(CompositeError):
            machine.run(fails)
        assert machine.run(supersteps.sum_of_squares, 10) == [385] * 4


@pytest.mark.once
def test_a_failure_that_nobody_met_is_not_part_of_the_next_program(rc: Client) -> None:
    machine = rc[:2].bsp()
    bsp = Reference("bsp")

    def fails(bsp: Process) -> None:
        raise ZeroDivisionError

    def meets(bsp: Process) -> int:
        bsp.sync()
        return bsp.pid

    with pytest.raises(ZeroDivisionError):
        rc[1].apply_sync(Process.run, bsp, fails, round=1)
    first = rc[0].apply_async(Process.run, bsp, meets, round=2)
    wait_until(lambda: first.ready() or rc.queue_status()[0]["waits"])
    second = rc[1].apply_async(Process.run, bsp, meets, round=2)
    assert (first.get(TIMEOUT_S), second.get(TIMEOUT_S)) == (0, 1)
    assert machine.run(meets) == [0, 1]
    machine.close()


@pytest.mark.once
def test_a_step_that_fails_anywhere_is_not_ended(machine: BSP, dv: DirectView) -> None:
    dv["x"] = "old"
    with pytest.raises(CompositeError, match="1 of 4 engines"):
        machine.step("bsp.put(0, 'x', 'new'); 1 / (bsp.pid - 1)")
    machine.step("pass")
    assert dv["x"] == ["old"] * 4


@pytest.mark.services(both_ways=True)
def test_an_engine_that_ends_is_an_error_for_the_others(
    rc: Client, victim: DirectView, end_engine: Callable[[int], None]
) -> None:
    lost: Any = victim.targets
    machine = rc[[0, lost]].bsp()
    machine.step("pass")
    waits = rc[0].execute("bsp.sync()")
    wait_until(lambda: rc.queue_status()[0]["waits"])
    assert rc.queue_status()[0]["waits"][0].startswith("sync with 1 for ")
    end_engine(lost)
    with pytest.raises(MemberLost, match="rank 1 has died"):
        waits.get(TIMEOUT_S)


def test_a_process_does_not_leave_its_engine(machine: BSP, rc: Client) -> None:
    with pytest.raises(SerializationError):
        rc[0].pull("bsp", block=True)


@pytest.mark.once
def test_there_are_no_other_processes(machine: BSP, rc: Client) -> None:
    for call in ("bsp.put(4, 'x', 1)", "bsp.get(-1, 'x', into='x')", "bsp.send(9, 'x')"):
        with pytest.raises(ValueError, match=r"takes pid as the number of one of 4 processes, from 0, not (4|-1|9)\n"):
            rc[0].execute(call, block=True)


@pytest.mark.once
def test_prefix_sums(machines: Iterator[tuple[int, BSP]]) -> None:
    for n, machine in machines:
        assert machine.run(supersteps.prefix_sum, list(range(1, n + 1))) == [k * (k + 1) // 2 for k in range(1, n + 1)]


@pytest.mark.once
def test_the_sum_of_the_first_million_squares(machines: Iterator[tuple[int, BSP]]) -> None:
    for n, machine in machines:
        assert machine.run(supersteps.sum_of_squares, 1_000_000) == [333333833333500000] * n


def test_sorting_by_regular_sampling_is_right_and_balanced(machines: Iterator[tuple[int, BSP]]) -> None:
    keys = np.random.default_rng(5).permutation(1_000_000)
    for n, machine in machines:
        buckets = machine.run(supersteps.sample_sort, keys)
        assert np.array_equal(np.concatenate(buckets), np.arange(1_000_000))
        assert max(map(len, buckets)) <= 2 * 1_000_000 / n


@pytest.mark.once
def test_page_rank(machines: Iterator[tuple[int, BSP]]) -> None:
    known = {"A": 3.3, "B": 38.4, "C": 34.3, "D": 3.9, "E": 8.1, "F": 3.9, **dict.fromkeys("GHIJK", 1.6)}
    # A superstep takes milliseconds on Ray: as many as the first decimal of a percentage needs.
    for _, machine in machines:
        parts = machine.run(supersteps.pagerank, supersteps.LINKS, 0.85, 60)
        ranks = {page: round(100 * rank, 1) for part in parts for page, rank in part.items()}
        assert ranks == known
