"""An MPI world made of engines."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Self

from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.core.messages import Capability
from nsactors.core.targets import resolve
from nsactors.errors import NoSuchEngine, NsactorsError, WorldBroken
from nsactors.mpi import joining
from nsactors.mpi.forming import call, check, connect, take_down
from nsactors.mpi.server import PmiServer
from nsactors.transport.base import require

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = ["World", "WorldState"]


class WorldState(enum.Enum):
    """How a world is."""

    FORMING = "forming"
    READY = "ready"
    BROKEN = "broken"


class World:
    """Engines that are one MPI world: ``from mpi4py import MPI`` gives them a ``COMM_WORLD`` of their own.

    Ranks are in the order of the engines. An engine can be in one world at a time.

    Args:
        view: the engines.
        timeout: seconds that making it may take.

    Raises:
        CapabilityError: if engines are no processes of their own.
        MpiUnavailable: if engines have no MPI that can be used.
        MpiInUse: if engines have initialised MPI before.
        WorldNotFormed: if it was begun and did not succeed.
        TimeoutError: if engines are busy with something else for so long; they have not been touched.

    Example:
        >>> world = rc[:].mpi()
        >>> world
        <World of 4 ranks on engines [0, 1, 2, 3]: ready>
    """

    def __init__(self, view: DirectView, *, timeout: float = 60.0) -> None:
        self._client = view.client
        self._session = view.client.session
        require(self._session.transport, Capability.PROCESS, "make engines an MPI world")
        self.ranks: tuple[int, ...] = tuple(resolve(view.targets, view.client.ids))
        self._state = WorldState.FORMING
        self._error: WorldBroken | None = None
        self._members: dict[int, EngineInfo] = {}
        self._to_bar: set[int] = set()
        self._server: PmiServer | None = None
        self._ending: threading.Thread | None = None
        self._barring = threading.Lock()
        self._session.roster.watch(self)
        try:
            self._form(timeout)
        except BaseException:
            self._session.roster.unwatch(self)
            raise

    @property
    def size(self) -> int:
        """How many ranks it has."""
        return len(self.ranks)

    @property
    def state(self) -> WorldState:
        """Whether it can be used; broken as soon as a member is known to be gone."""
        return self._state

    @property
    def error(self) -> WorldBroken | None:
        """Why it is broken; None if it is not."""
        return self._error

    @property
    def view(self) -> DirectView:
        """A view of its engines, in the order of the ranks."""
        return self._client.direct_view(list(self.ranks))

    def reform(self, timeout: float = 60.0) -> Self:
        """Make the world anew: of the same engines, each in a new process.

        What becomes of their namespaces is what the cluster's ``recovery`` says, as if they had died; what had used MPI
        is not replayed. Whatever they are doing is ended.

        Args:
            timeout: seconds that it may take until all are back and have joined.

        Raises:
            NoSuchEngine: if a member is gone for good.
            WorldNotFormed: and the others, as for making a world.
        """
        if self._ending is not None:  # it still ends calls, and processes
            self._ending.join()
        roster = self._session.roster
        with self._barring:
            former, self._members, self._error, self._to_bar = self._members, {}, None, set()
        self._state = WorldState.FORMING
        self._close_server()
        for engine_id in self.ranks:
            if roster.get(engine_id) is None:
                raise NoSuchEngine(engine_id, roster.ids)
        away = roster.away
        self._session.restart([i for i, engine in former.items() if i not in away and roster.get(i) == engine])
        self._form(timeout)
        return self

    def __repr__(self) -> str:
        many = "1 rank" if self.size == 1 else f"{self.size} ranks"
        return f"<World of {many} on engines {list(self.ranks)}: {self._state.value}>"

    def engine_joined(self, engine: EngineInfo) -> None:
        """A member that has a new process is in no world: MPI would make it one of its own."""
        if self._error is not None and engine.engine_id in self._to_bar:
            self._to_bar.discard(engine.engine_id)
            self._session.call_back(partial(self._bar, engine.engine_id, self._error))

    def engine_leaving(self, engine_id: int) -> None:
        """It finishes what it has."""

    def engine_left(self, left: EngineLeft) -> None:
        """A member may be gone, and the world with it; called under a lock, so others act on it."""
        member = self._members.get(left.engine_id)
        if self._error is not None or member is None or member.incarnation != left.incarnation:
            return
        rank = self.ranks.index(left.engine_id)
        self._error = WorldBroken(rank, left.engine_id, left.reason)
        self._to_bar = set(self.ranks)
        if self._state is WorldState.READY:
            self._break(self._error)

    def cut_off(self) -> None:
        """The client leaves: the engines remain a world, which nobody watches over."""
        threading.Thread(target=self._close_server, name="nsactors-mpi", daemon=True).start()

    def _form(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        places = check(self._session, self.ranks, timeout_s)
        known = self._session.roster.known
        self._members = {engine_id: known[engine_id] for engine_id in self.ranks if engine_id in known}
        self._server = connect(self._session, self.ranks, places, deadline - time.monotonic())
        self._state = WorldState.READY
        if self.error is not None:  # it has come meanwhile
            self._break(self.error)

    def _break(self, error: WorldBroken) -> None:
        self._state = WorldState.BROKEN
        # A thread of its own: callbacks of the user's may be waiting for the very calls that this is to end.
        self._ending = threading.Thread(target=self._take_down, args=(error,), name="nsactors-mpi", daemon=True)
        self._ending.start()

    def _take_down(self, error: WorldBroken) -> None:
        try:
            self._close_server()
        finally:
            with contextlib.suppress(NsactorsError):  # the client, or the cluster, is gone as well
                take_down(self._session, [i for i in self.ranks if i != error.lost_engine], error)

    def _bar(self, engine_id: int, error: WorldBroken) -> None:
        with self._barring, contextlib.suppress(NsactorsError):  # it has gone again
            if self._error is error:  # else the world is being made anew
                call(self._session, [engine_id], joining.bar_fresh, error)

    def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
