"""Making engines one MPI world, and ending what they do when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION
from typing import Any

from nsactors.client.session import Session
from nsactors.core.messages import Apply
from nsactors.core.payload import pack_call
from nsactors.errors import MpiError, MpiInUse, MpiUnavailable, WorldBroken, WorldNotFormed
from nsactors.mpi import joining
from nsactors.mpi.server import PmiServer
from nsactors.mpi.spawning import LOOPBACK, ONE_MACHINE, new_exchange, start_children
from nsactors.results import AsyncResult, Terms

__all__ = ["call", "check", "connect", "take_down"]

GRACE_S = 1.0  # engines that do not answer for so long after an interrupt are blocked in MPI


def call(session: Session, engine_ids: Sequence[int], function: Callable[..., Any], *args: Any) -> AsyncResult:
    """Call a function of :mod:`nsactors.mpi.joining` on engines; it is not repeated if they die."""
    label = f"mpi: {function.__name__}"
    payload = pack_call(function, args, {}, what=label, ref_types=session.transport.ref_types)
    calls = session.submit(engine_ids, Apply(label), payload, Terms(journalled=False))
    result = AsyncResult(session, calls, label=label)
    result.add_done_callback(lambda done: session.asked(calls))  # how it ends is nobody's concern but ours
    return result


def check(session: Session, engine_ids: Sequence[int], timeout_s: float) -> list[joining.Place]:
    """See that engines can join a world, and load MPI there; where they are.

    Raises:
        MpiUnavailable: if some have no MPI that can be used.
        MpiInUse: if some have initialised it.
        TimeoutError: if they are busy for so long.
    """
    found: dict[int, joining.Standing] = _ask(session, engine_ids, joining.standing, timeout_s)
    _refuse({engine_id: standing.obstacle for engine_id, standing in found.items()})
    if used := [i for i, standing in found.items() if standing.is_initialised]:
        raise MpiInUse(used)
    obstacles: dict[int, str] = _ask(session, engine_ids, joining.load, timeout_s)
    try:
        _refuse(obstacles)
    except MpiUnavailable as error:
        call(session, engine_ids, joining.bar, error)  # used before it is initialised, MPI would end the process
        raise
    return [found[engine_id].place for engine_id in engine_ids]


def _ask(session: Session, engine_ids: Sequence[int], function: Callable[[], Any], timeout_s: float) -> dict[int, Any]:
    asked = call(session, engine_ids, function)
    try:
        return asked.get_dict(timeout_s)
    except TimeoutError:
        session.abort(asked.calls, interrupt=False)
        raise


def _refuse(obstacles: Mapping[int, str]) -> None:
    if obstacle := next(filter(None, obstacles.values()), ""):
        raise MpiUnavailable((i for i, found in obstacles.items() if found == obstacle), obstacle)


def connect(
    session: Session, engine_ids: Sequence[int], places: Sequence[joining.Place], timeout_s: float
) -> PmiServer:
    """Let engines initialise MPI together; the server that they met at.

    Raises:
        WorldNotFormed: if one of them fails or dies, or they take too long. They have new processes then.
    """
    deadline = time.monotonic() + timeout_s
    together = {joining.place(), *places} == {places[0]}
    exchange = new_exchange(places)
    server = PmiServer(
        exchange,
        LOOPBACK if together else session.transport.address,
        start_children if together else None,
    )
    common = {"PMI_PORT": server.address, **(ONE_MACHINE if together else {})}
    joins = []
    try:
        for engine_id, number in zip(engine_ids, exchange.ids, strict=True):
            environment = {**common, "PMI_ID": str(number)}
            joins.append(call(session, [engine_id], joining.join, environment, len(places), timeout_s))
        joined = AsyncResult.join(*joins).get(max(deadline - time.monotonic(), 0), return_when=FIRST_EXCEPTION)
        if obstacle := next((obstacle for _, obstacle in joined if obstacle), ""):
            raise MpiUnavailable([i for i, (_, wrong) in zip(engine_ids, joined, strict=True) if wrong], obstacle)
        call(session, engine_ids, joining.release_memory)
    except BaseException as error:
        server.close()
        _give_up(session, joins)
        session.restart(engine_ids)
        if isinstance(error, MpiError) or not isinstance(error, Exception):
            raise
        raise WorldNotFormed(str(error)) from error
    return server


def take_down(session: Session, engine_ids: Sequence[int], broken: WorldBroken) -> None:
    """End what engines do for a world that is broken: their calls, queued ones too, fail with ``broken``.

    They are interrupted. Those that do not hear of it are blocked in MPI, and get new processes. Where that is not
    needed, MPI raises ``broken`` from then on.
    """
    running = session.open_calls(engine_ids)
    barred = call(session, engine_ids, joining.bar, broken)  # first: what is sent from now on comes after it
    session.fail(running, lambda failed: broken.on(failed.engine_id))
    if not barred.wait(GRACE_S):
        stuck = [part.engine_id for part in barred.calls if not part.done]
        _give_up(session, [barred])
        session.fail(session.open_calls(stuck), lambda failed: broken.on(failed.engine_id))
        session.restart(stuck)


def _give_up(session: Session, results: Sequence[AsyncResult]) -> None:
    """End calls that are nobody's but ours."""
    calls = [part for result in results for part in result.calls]
    session.fail(calls, lambda failed: WorldNotFormed("its engine did not answer"))
