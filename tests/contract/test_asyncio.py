"""Results in coroutines."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import nsactors
from nsactors import Client, CompositeError, DirectView
from nsactors.errors import RemoteError
from nsactors.testing import TIMEOUT_S, Gate
from tests.contract.conftest import ENGINES


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, TIMEOUT_S))


async def collect(values: AsyncIterator[Any]) -> list[Any]:
    return [value async for value in values]


async def other_work(gate: Gate) -> str:
    """Open the gate for which the engines wait; this runs only if the event loop is not blocked."""
    await asyncio.sleep(0)
    gate.open()
    return "done"


def raise_stop(kind: str) -> None:
    raise {"iteration": StopIteration, "async": StopAsyncIteration, "exit": SystemExit}[kind]("here")


# Single values.


def test_a_result_can_be_awaited(dv: DirectView, rc: Client) -> None:
    async def main() -> Any:
        return await dv.apply_async(pow, 2, 3), await rc[0].apply_async(abs, -1)

    assert run(main()) == ([8] * ENGINES, 1)


def test_the_loop_goes_on_while_results_are_awaited(rc: Client, gate: Gate) -> None:
    async def main() -> Any:
        return await asyncio.gather(rc.load_balanced_view().apply_async(gate.pass_through), other_work(gate))

    assert run(main()) == ["passed", "done"]


def test_awaiting_raises_what_was_raised(rc: Client, dv: DirectView) -> None:
    async def main(result: Any) -> None:
        await result

    with pytest.raises(ZeroDivisionError):
        run(main(rc.load_balanced_view().apply_async(divmod, 1, 0)))
    with pytest.raises(CompositeError):
        run(main(dv.apply_async(divmod, 1, 0)))


@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["iteration", "async", "exit"])
@pytest.mark.parametrize("balanced", [False, True])
def test_control_flow_of_an_engine_does_not_act_here(rc: Client, kind: str, balanced: bool) -> None:
    view = rc.load_balanced_view() if balanced else rc[0]

    async def generator() -> AsyncIterator[Any]:
        yield 1
        yield await view.apply_async(raise_stop, kind)

    with pytest.raises(RemoteError, match="here"):
        run(collect(generator()))


@pytest.mark.once
def test_a_result_can_be_waited_for_with_a_limit(rc: Client, gate: Gate) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(result)), 0.01)
        gate.open()
        assert await result == "passed"

    result = rc.load_balanced_view().apply_async(gate.pass_through)
    run(main())


# Many.


@pytest.mark.once
def test_values_come_one_after_the_other(dv: DirectView, rc: Client) -> None:
    lview = rc.load_balanced_view()
    expected = [abs(n) for n in range(-500, 500)]
    assert run(collect(aiter(dv.apply_async(abs, -1)))) == [1] * ENGINES
    assert run(collect(aiter(dv.map_async(abs, range(-500, 500))))) == expected
    assert run(collect(aiter(dv.map_async(abs, range(-500, 500), dist="r")))) == expected
    assert run(collect(aiter(lview.map_async(abs, range(-500, 500))))) == expected
    assert run(collect(aiter(lview.map_async(abs, [])))) == []


def test_values_come_as_they_are_there(rc: Client, gates: Callable[[], Gate]) -> None:
    first, last = gates(), gates()

    def wait(number: int) -> int:
        if number == 0:
            first.pass_through()
        if number == 3:
            last.pass_through()
        return number

    async def main(result: Any) -> list[int]:
        values = aiter(result)
        early = [await anext(values), await anext(values)]
        first.open()
        third = await anext(values)
        last.open()
        return [*sorted(early), third, await anext(values)]

    result = rc.load_balanced_view().map_async(wait, range(4), ordered=False, chunksize=1)
    assert run(main(result)) == [1, 2, 0, 3]


def test_values_of_a_map_by_engine_come_as_they_are_there(dv: DirectView, gate: Gate) -> None:
    def wait(number: int) -> int:
        return (gate.pass_through(), number)[1] if number == 0 else number

    async def main(result: Any) -> list[int]:
        values = aiter(result)
        early = [await anext(values) for _ in range(ENGINES - 1)]
        gate.open()
        return [*sorted(early), await anext(values)]

    assert run(main(dv.map_async(wait, range(ENGINES), ordered=False))) == [1, 2, 3, 0]


@pytest.mark.once
def test_a_failure_comes_in_its_place(rc: Client) -> None:
    async def main() -> list[Any]:
        values = aiter(rc.load_balanced_view().map_async(divmod, [1, 1, 1], [2, 0, 3]))
        first = await anext(values)
        with pytest.raises(ZeroDivisionError):
            await anext(values)
        return [first]

    assert run(main()) == [(0, 1)]


@pytest.mark.once
def test_a_single_value_is_not_iterated_over(rc: Client) -> None:
    with pytest.raises(TypeError, match="await"):
        aiter(rc[0].apply_async(abs, -1))


@pytest.mark.once
def test_results_come_in_the_order_of_their_ends(rc: Client, gate: Gate) -> None:
    lview = rc.load_balanced_view()
    slow = lview.apply_async(gate.pass_through)
    quick = lview.apply_async(abs, -1)

    async def main() -> list[Any]:
        ended = []
        async for result in nsactors.as_completed([slow, quick, quick]):
            gate.open()
            ended.append(result)
        return ended

    assert run(main()) == [quick, slow]
    assert set(nsactors.as_completed([slow, quick])) == {quick, slow}


@pytest.mark.once
def test_what_is_not_complete_in_time_is_an_error(rc: Client, gate: Gate) -> None:
    slow = rc.load_balanced_view().apply_async(gate.pass_through)

    async def main() -> None:
        async for _ in nsactors.as_completed([slow], timeout=0.01):
            pass

    with pytest.raises(TimeoutError):
        run(main())
    with pytest.raises(TimeoutError):
        list(nsactors.as_completed([slow], timeout=0.01))
    gate.open()
    assert slow.get(TIMEOUT_S) == "passed"


@pytest.mark.once
def test_asyncios_own_functions_take_results(rc: Client) -> None:
    lview = rc.load_balanced_view()

    async def main() -> Any:
        gathered = await asyncio.gather(*(lview.apply_async(pow, 2, n) for n in range(4)))
        ended = [await one for one in asyncio.as_completed([lview.apply_async(pow, 2, n) for n in range(4)])]
        return gathered, sorted(ended)

    assert run(main()) == ([1, 2, 4, 8], [1, 2, 4, 8])


@pytest.mark.once
def test_futures_of_other_executors_may_be_among_them(rc: Client) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        futures: list[concurrent.futures.Future[int]] = [threads.submit(abs, -1), rc.executor().submit(abs, -1)]
        assert [future.result() for future in nsactors.as_completed(futures)] == [1, 1]
