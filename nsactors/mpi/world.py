"""MPI worlds of engines: form, break and form again."""

from __future__ import annotations

import contextlib
import enum
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from nsactors._frozen import frozen
from nsactors.errors import (
    ConnectionLost,
    MpiError,
    MpiInUse,
    MpiUnavailable,
    NoSuchEngine,
    NsactorsError,
    WorldBroken,
    WorldNotFormed,
    engine_ranges,
)
from nsactors.mpi import engine_side
from nsactors.mpi.launcher import MpiLauncher, is_srun, launcher_of
from nsactors.mpi.library import OPEN_MPI, Library
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

ENGINE_S = 20.0  # for a rank that a launcher has started to find its engine
GRACE_S = 1.0  # an engine that does not answer within this time after an interrupt is blocked in MPI


def call(session: Session, engine_ids: Sequence[int], function: Callable[..., Any], *args: Any) -> AsyncResult:
    """Call a function of :mod:`nsactors.mpi.engine_side` on engines; the call is not repeated if engines die."""
    label = f"mpi: {function.__name__}"
    payload = pack_call(function, args, {}, name=function.__name__, ref_types=session.ref_types)
    calls = session.submit(engine_ids, Apply(label), payload, RequestOptions(journalled=False))
    result = AsyncResult(session, calls, label=label)
    result.add_done_callback(lambda done: session.mark_retrieved(calls))  # its errors are handled here, not reported
    return result


@frozen
class Members:
    """The engines that will form a world, after they have loaded MPI.

    Attributes:
        places: their places.
        nodes: the names of their machines for a launcher.
        library: their MPI library.
        launcher: the command that starts their ranks; empty if this client's own server connects them.
        placeholder: the command of a placeholder on their machines.
    """

    places: Sequence[engine_side.Place]
    nodes: Sequence[str]
    library: Library
    launcher: Sequence[str]
    placeholder: Sequence[str]

    @property
    def together(self) -> bool:
        """Return whether they are all on this machine."""
        return {engine_side.place(), *self.places} == {self.places[0]}


def check(session: Session, engine_ids: Sequence[int], launcher: Sequence[str], timeout_s: float) -> Members:
    """Check that engines can form a world, and load MPI there.

    Args:
        session: the session of the client.
        engine_ids: the engines.
        launcher: the command that starts the ranks; if it is empty, the engines' environment may name a command.
        timeout_s: the time limit in seconds.

    Raises:
        MpiUnavailable: if engines have no usable MPI.
        MpiInUse: if engines have initialised MPI.
        TimeoutError: if engines are busy for too long.
    """
    found: dict[int, engine_side.Readiness] = _ask(session, engine_ids, engine_side.readiness, timeout_s)
    _refuse({engine_id: ready.obstacle for engine_id, ready in found.items()})
    if used := [i for i, ready in found.items() if ready.is_initialised]:
        raise MpiInUse(used)
    loaded: dict[int, engine_side.Loaded] = _ask(session, engine_ids, engine_side.load, timeout_s)
    try:
        _refuse({engine_id: one.obstacle for engine_id, one in loaded.items()})
        library = _common({engine_id: one.library for engine_id, one in loaded.items() if one.library})
        ready = [found[engine_id] for engine_id in engine_ids]
        members = Members(
            [one.place for one in ready],
            [one.node for one in ready],
            library,
            launcher or ready[0].launcher,
            ready[0].placeholder,
        )
        return _with_launcher(engine_ids, members)
    except MpiUnavailable as error:
        # MPI would end the process if it were used before it is initialised.
        call(session, engine_ids, engine_side.bar, error)
        raise


def _with_launcher(engine_ids: Sequence[int], members: Members) -> Members:
    """Return members with the launcher that their library needs; Open MPI would initialise alone, without one."""
    if members.launcher:
        command = members.launcher[0]
        if shutil.which(command) is None:
            advice = "Call view.mpi() on a machine that has this command, or name another one with launcher="
            raise MpiUnavailable(
                engine_ids, f"{command!r}, which should start their ranks, is not on this machine", advice
            )
        return members
    if members.library.name != OPEN_MPI:
        return members
    if not members.together:
        advice = (
            "Name the command that starts its ranks on these machines, such as view.mpi(launcher='srun --mpi=pmix'); "
            "ranks of MPICH need none"
        )
        raise MpiUnavailable(engine_ids, f"{members.library}, does not speak PMI-1, as MPICH does", advice)
    launcher = launcher_of(members.library)
    if not launcher:
        advice = "Install it (Debian: openmpi-bin), or name it: view.mpi(launcher='/opt/openmpi/bin/mpiexec')"
        raise MpiUnavailable(engine_ids, f"{members.library}, needs its mpiexec, which was not found", advice)
    return replace(members, launcher=launcher)


def _common(libraries: Mapping[int, Library]) -> Library:
    """Return the library that all engines have; ranks of different libraries would wait for each other for ever."""
    engines: dict[tuple[str, str], list[int]] = {}
    for engine_id, library in libraries.items():
        engines.setdefault((library.name, library.version), []).append(engine_id)
    if len(engines) > 1:
        found = ", ".join(f"{name} {version} on {engine_ranges(ids)}" for (name, version), ids in engines.items())
        raise MpiUnavailable(
            libraries, f"they have different libraries: {found}", "Install one of them on all machines"
        )
    return next(iter(libraries.values()))


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


class Connection(Protocol):
    """The connection of the ranks of a world."""

    def let_go(self) -> None:
        """Leave the ranks to themselves: a member is gone, or the client leaves."""

    def close(self) -> None:
        """End the connection: every member is gone or has a new process."""


def connect(session: Session, engine_ids: Sequence[int], members: Members, timeout_s: float) -> Connection:
    """Let engines initialise MPI together; return their connection.

    Raises:
        MpiUnavailable: if their library does not understand how they are connected.
        WorldNotFormed: if an engine fails or dies, or they take too long.

    Engines that have begun to join have new processes after an error.
    """
    deadline = time.monotonic() + timeout_s
    joins: list[AsyncResult] = []
    connection: Connection | None = None
    try:
        begin = _begin_by_launcher if members.launcher else _begin_by_server
        connection = begin(session, engine_ids, members, timeout_s, joins)
        joined: list[engine_side.Joined]
        joined = AsyncResult.join(*joins).get(max(deadline - time.monotonic(), 0), return_when=FIRST_EXCEPTION)
        if obstacle := next((one.obstacle for one in joined if one.obstacle), ""):
            wrong = [engine_id for engine_id, one in zip(engine_ids, joined, strict=True) if one.obstacle]
            raise MpiUnavailable(wrong, obstacle, _advice(members.launcher))
        call(session, engine_ids, mpi_guard.release_memory)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if not joins:  # nothing was begun
            raise
        _give_up(session, joins)
        session.restart(engine_ids)
        if isinstance(error, MpiError) or not isinstance(error, Exception):
            raise
        raise _not_formed(error) from error
    return connection


def _not_formed(error: Exception) -> WorldNotFormed:
    """Return the error of a world that was not formed; one error, if all engines have the same."""
    told = (one for one in getattr(error, "exceptions", ()) if isinstance(one, WorldNotFormed))
    return next(told, None) or WorldNotFormed(str(error))


def _begin_by_server(
    session: Session, engine_ids: Sequence[int], members: Members, timeout_s: float, joins: list[AsyncResult]
) -> PmiServer:
    # On one machine no port is opened to others. Rejected: MPI_Comm_connect of worlds of one process. It leaves
    # COMM_WORLD, which libraries use, a world of one process.
    exchange = new_exchange(members.places)
    host, spawn = (LOOPBACK, start_children) if members.together else (session.transport.address, None)
    server = PmiServer(exchange, host, spawn)
    common = {"PMI_PORT": server.address, **(ONE_MACHINE if members.together else {})}
    for engine_id, number in zip(engine_ids, exchange.ids, strict=True):
        environment = {**common, "PMI_ID": str(number)}
        joins.append(call(session, [engine_id], engine_side.join, environment, len(engine_ids), timeout_s))
    return server


def _begin_by_launcher(
    session: Session, engine_ids: Sequence[int], members: Members, timeout_s: float, joins: list[AsyncResult]
) -> MpiLauncher:
    name, size = secrets.token_hex(16), len(engine_ids)
    for rank, engine_id in enumerate(engine_ids):
        joins.append(call(session, [engine_id], engine_side.take_place, name, rank, size, timeout_s))
    calls = [part for result in joins for part in result.calls]
    launcher = shlex.join(members.launcher)
    return MpiLauncher(
        members.launcher,
        [*members.placeholder, name, str(size), str(min(timeout_s, ENGINE_S))],
        members.nodes,
        together=members.together,
        failed=lambda text: session.fail(calls, lambda failed: WorldNotFormed(f"`{launcher}` ended early: {text}")),
    )


def _advice(launcher: Sequence[str]) -> str | None:
    if not launcher:
        return None
    listed = ", such as another --mpi= of `srun --mpi=list`" if is_srun(launcher) else ""
    return f"`{shlex.join(launcher)}` has started their ranks: name their library's launcher with launcher={listed}"


def take_down(session: Session, engine_ids: Sequence[int], broken: WorldBroken) -> None:
    """End the calls to engines of a broken world, also those that are queued; these calls fail with ``broken``.

    Engines are interrupted. Those that do not react are blocked in MPI, and get new processes. On the other engines,
    MPI raises ``broken`` from then on.
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
        launcher: the command that starts ranks of the site's MPI, such as ``"srun --mpi=pmix"``; this machine runs it.
            None for the command in the engines' environment variable ``NSACTORS_MPI``. Without this variable, ranks of
            Open MPI on one machine are started with its own ``mpiexec``, and MPICH needs no launcher.

    Raises:
        CapabilityError: if engines have no processes of their own.
        MpiUnavailable: if engines have no usable MPI.
        MpiInUse: if engines have already initialised MPI.
        WorldNotFormed: if joining was begun and failed.
        TimeoutError: if engines are busy with other calls for too long; in this case they are unchanged.

    Example:
        >>> world = rc[:].mpi()
        >>> world
        <World of 4 ranks on engines [0, 1, 2, 3]: ready>
    """

    def __init__(self, view: DirectView, *, timeout: float = 60.0, launcher: str | None = None) -> None:
        from nsactors.views.direct import DirectView  # deferred: engines import this module too, and have no views

        arg.check(
            "World",
            view=arg.instance(view, DirectView, "a direct view"),
            timeout=arg.seconds(timeout, or_none=False),
            launcher=arg.text(launcher, or_none=True),
        )
        self._client = view.client
        self._session = view.client.session
        self._session.require(Capability.PROCESS, "make engines an MPI world")
        self.ranks: tuple[int, ...] = tuple(resolve(view.targets, view.client.ids))
        self._state = WorldState.FORMING
        self._error: WorldBroken | None = None
        self._members: dict[int, EngineInfo] = {}
        self._to_bar: set[int] = set()
        self._launcher = tuple(shlex.split(launcher or ""))
        self._library: Library | None = None
        self._connection: Connection | None = None
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
    def library(self) -> Library | None:
        """Return the engines' MPI library: its name, version and path; None if no engine has loaded one."""
        return self._library

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
            NoSuchEngine: if a member has left the cluster; in this case nothing has changed.
            WorldNotFormed: or another error of forming a world; the world is then broken.
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
        self._close_connection()
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
        """Stop watching the world, because the client leaves; the engines stay a world."""
        threading.Thread(target=self._let_go, name="nsactors-mpi", daemon=True).start()

    def _form(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        members = check(self._session, self.ranks, self._launcher, timeout_s)
        self._library = members.library
        known = self._session.directory.known
        self._members = {engine_id: known[engine_id] for engine_id in self.ranks if engine_id in known}
        self._connection = connect(self._session, self.ranks, members, deadline - time.monotonic())
        self._state = WorldState.READY
        if self.error is not None:  # a member has gone while the world was formed
            self._break(self.error)

    def _stay_broken(self, error: WorldBroken, former: dict[int, EngineInfo]) -> None:
        """Mark the world as broken, because it was not formed anew; bar MPI on members with new processes."""
        with self._barring:
            self._error = error = self._error or error
            self._members = self._members or former
            self._to_bar = set(self.ranks)
        self._state = WorldState.BROKEN
        for engine_id in self.ranks:
            self._session.run_callback(partial(self._bar, engine_id, error))

    def _break(self, error: WorldBroken) -> None:
        # Use a new thread, because callbacks of the user may be waiting for the calls that the thread ends.
        ending = threading.Thread(target=self._take_down, args=(error,), name="nsactors-mpi", daemon=True)
        ending.start()
        self._ending = ending
        self._state = WorldState.BROKEN  # last: reform() of a world that is seen to be broken joins the thread

    def _take_down(self, error: WorldBroken) -> None:
        try:
            self._let_go()
        finally:
            with contextlib.suppress(NsactorsError):  # the client or the cluster has gone, too
                take_down(self._session, [i for i in self.ranks if i != error.lost_engine], error)

    def _bar(self, engine_id: int, error: WorldBroken) -> None:
        with self._barring, contextlib.suppress(NsactorsError):  # the engine has gone again
            if self._error is error:  # otherwise the world is being formed anew
                call(self._session, [engine_id], engine_side.bar_fresh, error)

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.let_go()
