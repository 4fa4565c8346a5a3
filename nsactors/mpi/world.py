"""MPI worlds of engines: form, break and form again."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from nsactors.errors import (
    ConnectionLost,
    MpiError,
    MpiInUse,
    MpiUnavailable,
    NoSuchEngine,
    NsactorsError,
    WorldBroken,
    WorldNotFormed,
)
from nsactors.mpi import engine_side
from nsactors.mpi.pmi_server import LOOPBACK, PmiServer, new_exchange, start_children
from nsactors.namespace import mpi_guard
from nsactors.namespace.mpi_guard import ONE_MACHINE
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import EngineLeft
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.messages import Apply, Capability
from nsactors.protocol.serialize import pack_call
from nsactors.protocol.targets import resolve
from nsactors.results import AsyncResult, RequestOptions
from nsactors.session.session import Session

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = [
    "World",
    "WorldState",
    "call",
    "check",
    "connect",
    "take_down",
]

GRACE_S = 1.0  # an engine that does not answer within this time after an interrupt is blocked in MPI


def call(session: Session, engine_ids: Sequence[int], function: Callable[..., Any], *args: Any) -> AsyncResult:
    """Call a function of :mod:`nsactors.mpi.engine_side` on engines; it is not repeated if they die."""
    label = f"mpi: {function.__name__}"
    payload = pack_call(function, args, {}, name=function.__name__, ref_types=session.ref_types)
    calls = session.submit(engine_ids, Apply(label), payload, RequestOptions(journalled=False))
    result = AsyncResult(session, calls, label=label)
    result.add_done_callback(lambda done: session.mark_retrieved(calls))  # its errors are handled here, not reported
    return result


def check(session: Session, engine_ids: Sequence[int], timeout_s: float) -> list[engine_side.Place]:
    """Check that engines can join a world, and load MPI there; return their places.

    Raises:
        MpiUnavailable: if engines have no usable MPI.
        MpiInUse: if engines have initialised MPI.
        TimeoutError: if engines are busy for too long.
    """
    found: dict[int, engine_side.Readiness] = _ask(session, engine_ids, engine_side.readiness, timeout_s)
    _refuse({engine_id: ready.obstacle for engine_id, ready in found.items()})
    if used := [i for i, ready in found.items() if ready.is_initialised]:
        raise MpiInUse(used)
    obstacles: dict[int, str] = _ask(session, engine_ids, engine_side.load, timeout_s)
    try:
        _refuse(obstacles)
    except MpiUnavailable as error:
        # MPI would end the process if it were used before it is initialised.
        call(session, engine_ids, engine_side.bar, error)
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
    session: Session, engine_ids: Sequence[int], places: Sequence[engine_side.Place], timeout_s: float
) -> PmiServer:
    """Let engines initialise MPI together; return the server at which they meet.

    Raises:
        WorldNotFormed: if an engine fails or dies, or they take too long; the engines have new processes then.
    """
    deadline = time.monotonic() + timeout_s
    # On one machine no port is opened to others. Rejected: MPI_Comm_connect of worlds of one process. It leaves
    # COMM_WORLD, which libraries use, a world of one process.
    together = {engine_side.place(), *places} == {places[0]}
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
            joins.append(call(session, [engine_id], engine_side.join, environment, len(places), timeout_s))
        joined = AsyncResult.join(*joins).get(max(deadline - time.monotonic(), 0), return_when=FIRST_EXCEPTION)
        if obstacle := next((obstacle for _, obstacle in joined if obstacle), ""):
            raise MpiUnavailable([i for i, (_, wrong) in zip(engine_ids, joined, strict=True) if wrong], obstacle)
        call(session, engine_ids, mpi_guard.release_memory)
    except BaseException as error:
        server.close()
        _give_up(session, joins)
        session.restart(engine_ids)
        if isinstance(error, MpiError) or not isinstance(error, Exception):
            raise
        raise WorldNotFormed(str(error)) from error
    return server


def take_down(session: Session, engine_ids: Sequence[int], broken: WorldBroken) -> None:
    """End the calls of engines in a broken world, queued ones included; they fail with ``broken``.

    Engines are interrupted. Those that do not react are blocked in MPI, and get new processes. On the others MPI raises
    ``broken`` from then on.
    """
    running = session.open_calls(engine_ids)
    barred = call(session, engine_ids, engine_side.bar, broken)  # first, so that later calls come after it
    session.fail(running, lambda failed: broken.on(failed.engine_id))
    # Unlike mpiexec, do not end all members: idle members keep their process and their names.
    if not barred.wait(GRACE_S):
        stuck = [part.engine_id for part in barred.calls if not part.done]
        _give_up(session, [barred])
        session.fail(session.open_calls(stuck), lambda failed: broken.on(failed.engine_id))
        session.restart(stuck)


def _give_up(session: Session, results: Sequence[AsyncResult]) -> None:
    """Fail calls that only this module waits for."""
    calls = [part for result in results for part in result.calls]
    session.fail(calls, lambda failed: WorldNotFormed("its engine did not answer"))


class WorldState(enum.Enum):
    """The state of a world."""

    FORMING = "forming"
    READY = "ready"
    BROKEN = "broken"


class World:
    """Engines that are one MPI world: ``from mpi4py import MPI`` gives them a ``COMM_WORLD`` of their own.

    Ranks are in the order of the engines. An engine can be in one world at a time.

    Args:
        view: the engines.
        timeout: the time limit in seconds.

    Raises:
        CapabilityError: if engines have no processes of their own.
        MpiUnavailable: if engines have no usable MPI.
        MpiInUse: if engines have initialised MPI before.
        WorldNotFormed: if joining was begun and failed.
        TimeoutError: if engines are busy with other calls for too long; they are unchanged then.

    Example:
        >>> world = rc[:].mpi()
        >>> world
        <World of 4 ranks on engines [0, 1, 2, 3]: ready>
    """

    def __init__(self, view: DirectView, *, timeout: float = 60.0) -> None:
        from nsactors.views.direct import DirectView  # deferred: engines import this module too, and have no views

        arg.check(
            "World", view=arg.instance(view, DirectView, "a direct view"), timeout=arg.seconds(timeout, or_none=False)
        )
        self._client = view.client
        self._session = view.client.session
        self._session.require(Capability.PROCESS, "make engines an MPI world")
        self.ranks: tuple[int, ...] = tuple(resolve(view.targets, view.client.ids))
        self._state = WorldState.FORMING
        self._error: WorldBroken | None = None
        self._members: dict[int, EngineInfo] = {}
        self._to_bar: set[int] = set()
        self._server: PmiServer | None = None
        self._ending: threading.Thread | None = None
        self._barring = threading.Lock()
        self._session.directory.watch(self)
        try:
            self._form(timeout)
        except BaseException:
            self._session.directory.unwatch(self)
            raise

    @property
    def size(self) -> int:
        """Return the number of ranks."""
        return len(self.ranks)

    @property
    def state(self) -> WorldState:
        """Return the state; broken as soon as a member is known to be gone."""
        return self._state

    @property
    def error(self) -> WorldBroken | None:
        """Return the reason why the world is broken; None if it is not."""
        return self._error

    @property
    def view(self) -> DirectView:
        """Return a view of the engines, in the order of the ranks."""
        view: DirectView = self._client.direct_view(list(self.ranks))
        return view

    def reform(self, timeout: float = 60.0) -> Self:
        """Form the world anew from the same engines, each in a new process.

        Their namespaces are treated as the cluster's ``recovery`` says, as if the engines had died; requests that used
        MPI are not replayed. Running calls are ended.

        Args:
            timeout: seconds until all engines have restarted and joined.

        Raises:
            NoSuchEngine: if a member has left the cluster; nothing has changed then.
            WorldNotFormed: and the other errors of forming a world, which is broken then.
        """
        arg.check("reform", timeout=arg.seconds(timeout, or_none=False))
        if self._ending is not None:  # calls and processes are still being ended
            self._ending.join()
        directory = self._session.directory
        for engine_id in self.ranks:
            if directory.get(engine_id) is None:
                raise NoSuchEngine(engine_id, directory.ids)
        with self._barring:
            error = self._error or WorldBroken(0, self.ranks[0], "reform() gave it a new process, and failed")
            former, self._members, self._error, self._to_bar = self._members, {}, None, set()
        self._state = WorldState.FORMING
        self._close_server()
        away = directory.away
        try:
            self._session.restart([i for i, engine in former.items() if i not in away and directory.get(i) == engine])
            self._form(timeout)
        except BaseException:
            self._stay_broken(error, former)
            raise
        return self

    def __repr__(self) -> str:
        many = "1 rank" if self.size == 1 else f"{self.size} ranks"
        return f"<World of {many} on engines {list(self.ranks)}: {self._state.value}>"

    def engine_joined(self, engine: EngineInfo) -> None:
        """Bar MPI on a member with a new process, which is in no world: MPI would make it a world of its own."""
        if self._error is not None and engine.engine_id in self._to_bar:
            self._to_bar.discard(engine.engine_id)
            self._session.run_callback(partial(self._bar, engine.engine_id, self._error))

    def engine_leaving(self, engine_id: int) -> None:
        """Do nothing: the member finishes its calls."""

    def engine_left(self, left: EngineLeft) -> None:
        """Break the world if a member is gone. This is called under a lock, so another thread acts on it."""
        member = self._members.get(left.engine_id)
        if self._error is not None or member is None or member.incarnation != left.incarnation:
            return
        rank = self.ranks.index(left.engine_id)
        self._error = WorldBroken(rank, left.engine_id, left.reason, returns=left.returns)
        self._to_bar = set(self.ranks)
        if self._state is WorldState.READY:
            self._break(self._error)

    def cut_off(self, reason: ConnectionLost) -> None:
        """Close the server as the client leaves: the engines stay a world, which is no longer watched."""
        threading.Thread(target=self._close_server, name="nsactors-mpi", daemon=True).start()

    def _form(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        places = check(self._session, self.ranks, timeout_s)
        known = self._session.directory.known
        self._members = {engine_id: known[engine_id] for engine_id in self.ranks if engine_id in known}
        self._server = connect(self._session, self.ranks, places, deadline - time.monotonic())
        self._state = WorldState.READY
        if self.error is not None:  # a member has gone meanwhile
            self._break(self.error)

    def _stay_broken(self, error: WorldBroken, former: dict[int, EngineInfo]) -> None:
        """Note that the world was not formed anew from its former members; bar MPI on those with new processes."""
        with self._barring:
            self._error = error = self._error or error
            self._members = self._members or former
            self._to_bar = set(self.ranks)
        self._state = WorldState.BROKEN
        for engine_id in self.ranks:
            self._session.run_callback(partial(self._bar, engine_id, error))

    def _break(self, error: WorldBroken) -> None:
        # A thread of its own, since callbacks of the user may be waiting for the calls that this ends.
        ending = threading.Thread(target=self._take_down, args=(error,), name="nsactors-mpi", daemon=True)
        ending.start()
        self._ending = ending
        self._state = WorldState.BROKEN  # last: reform() of a world that is seen to be broken joins the thread

    def _take_down(self, error: WorldBroken) -> None:
        try:
            self._close_server()
        finally:
            with contextlib.suppress(NsactorsError):  # the client or the cluster has gone, too
                take_down(self._session, [i for i in self.ranks if i != error.lost_engine], error)

    def _bar(self, engine_id: int, error: WorldBroken) -> None:
        with self._barring, contextlib.suppress(NsactorsError):  # the engine has gone again
            if self._error is error:  # otherwise the world is being formed anew
                call(self._session, [engine_id], engine_side.bar_fresh, error)

    def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
