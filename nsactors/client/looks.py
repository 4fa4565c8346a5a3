"""Looks into busy engines: the code that they run, the breakpoints at which they are stopped, and failures."""

from __future__ import annotations

from nsactors.client.activity import waits_by_engine
from nsactors.inside.debug_console import plain_place
from nsactors.inside.stacks import Stacks, read_stacks
from nsactors.protocol import arguments as arg
from nsactors.protocol.control import DebugForget, DebugStops, Stop
from nsactors.protocol.inspection import EngineStack
from nsactors.protocol.targets import Targets
from nsactors.results import AsyncResult
from nsactors.session.session import Session

REPLY_S = 5.0
GONE = EngineStack(notes=("its process has ended meanwhile",))


def stacks_of(session: Session, targets: Targets, *, threads: bool, native: bool, disturb: bool) -> Stacks:
    """Return the stacks of engines; see ``Client.stack``."""
    arg.check("stack", threads=arg.flag(threads), native=arg.flag(native), disturb=arg.flag(disturb))
    engines = [engine for i in session.resolve(targets) if (engine := session.directory.get(i)) is not None]
    found = read_stacks(
        session.controller,
        engines,
        lambda: waits_by_engine(session.services.waiting()),
        threads=bool(threads),
        native=bool(native),
        disturb=bool(disturb),
    )
    gone = [engine for engine in engines if session.directory.get(engine.engine_id) != engine]
    return Stacks({**found.by_engine, **{engine.engine_id: GONE for engine in gone}})


def stops_of(session: Session) -> dict[int, Stop]:
    """Return the engines that are stopped at a breakpoint; see ``Client.stopped``."""
    session.check()
    replies = session.controller.query(session.directory.ids, DebugStops(), REPLY_S)
    stops = {i: reply.value for i, reply in sorted(replies.items()) if reply.value is not None}
    return {i: stop._replace(where=plain_place(stop.where)) for i, stop in stops.items()}


def debug(session: Session, targets: Targets, result: AsyncResult | None, *, forget: bool, take: bool) -> None:
    """Open the debugger of engines, or let them release the frames of failures; see ``Client.debug``."""
    arg.check(
        "debug",
        result=arg.instance(result, AsyncResult, "a result of a call", or_none=True),
        forget=arg.flag(forget),
        take=arg.flag(take),
    )
    ids = session.resolve(targets)
    if forget:
        session.controller.query(ids, DebugForget(session.name), REPLY_S)
    elif result is not None:
        result.debug()
    else:
        session.open_debugger(ids, takes=bool(take))
