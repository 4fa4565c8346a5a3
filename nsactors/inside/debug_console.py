"""The client's half of the debugger: one prompt for the debuggers of several engines."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from nsactors.errors import ClusterUnreachable, CompositeError, ConnectionLost, RemoteError, engine_ranges, printable
from nsactors.errors.failure import lines_of, shown_file
from nsactors.protocol.control import (
    DebugClaim,
    DebugInterrupt,
    DebugLine,
    DebugOpen,
    DebugSay,
    DebugSource,
    DebugState,
    DebugStops,
    DebugTake,
    EngineResumed,
    EngineStopped,
    Query,
    QueryReply,
    Stop,
)
from nsactors.protocol.process import current_shell
from nsactors.results.interrupting import Presses, aside

OPEN_S = 5.0
POLL_S = 2.0  # the query is repeated if the reply takes longer
RETRY_S = 0.5
GATHER_S = 0.15
GATHER_STEP_S = 0.01
TELL_AFTER_S = 1.0
LOOK_S = 0.1  # Ctrl-C is noticed within this time
CLAIM_EVERY_S = 4.0
GROUPED_FROM = 9  # from so many engines on, the list has one line for all engines at the same place
SOURCE_CHARS = 1_000_000
KEPT_RULE = (
    "an engine keeps the frames of the last failure of each client that has a prompt, for ten minutes; "
    "it releases them earlier at the client's next failure, or when a namespace is cleared"
)

_CELL = re.compile(r"<engine \d+, (cell [^>\n]+)>")
_CELL_HERE = re.compile(r"/\S+/ipykernel_\d+/\d+\.py|<ipython-input-[^>\s]+>")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+(?=[>, ])")
_NEWLINE = "\n"
_WORDS = ("all", "continue", "down", "engine", "engines", "here", "help", "list", "locals", "longlist", "next", "quit")
_COMMANDS = (
    "engines            the engines, and where they are\n"
    "engine N           go on with engine N\n"
    "all COMMAND        a command for all engines; equal replies are shown once\n"
    "locals             the local variables of the frame\n"
    "here               show the place again\n"
    "q                  leave the debugger; at a breakpoint, end the request with an error\n"
    "c                  at a breakpoint, let the code go on\n"
    "!NAME ...          run a line of Python that begins with a name of yours that is also a command\n"
    "Besides, there are the commands of Python's debugger; help COMMAND describes one:"
)
T = TypeVar("T")


class QueryChannel(Protocol):
    """Sends queries to engines."""

    def query(self, engine_ids: Iterable[int], query: Query, timeout_s: float) -> Mapping[int, QueryReply]:
        """Query engines, busy or not; return the replies by engine, without those that did not arrive in time."""
        ...


class DebugConsole:
    """A prompt for the debuggers of some engines.

    Queries are made on other threads, so that Ctrl-C on this thread interrupts the command that engines carry out.

    Args:
        channel: sends queries to the engines.
        states: the first state of the debugger of each engine.
        is_there: returns whether an engine is still in the cluster.
        read_line: prompts the user for a line.
        arrivals: returns the engines that have stopped at a breakpoint since the last call, with their sessions.
        settle: called before each prompt.
        awaits_others: returns whether an engine that is not stopped has a request of this client, and so may stop as
            well.
    """

    def __init__(
        self,
        channel: QueryChannel,
        states: Mapping[int, DebugState],
        is_there: Callable[[int], bool],
        read_line: Callable[[str], str],
        arrivals: Callable[[], Mapping[int, str]] = dict,
        settle: Callable[[], object] = lambda: None,
        awaits_others: Callable[[], bool] = lambda: True,
    ) -> None:
        self._channel = channel
        self._states = dict(states)
        self._first_states = dict(states)
        self._is_there = is_there
        self._read_line = read_line
        self._arrivals = arrivals
        self._settle = settle
        self._awaits_others = awaits_others
        self._current = min(states, default=0)
        self._over = threading.Event()
        # A KeyboardInterrupt between the arrival of a reply and its entry in ``_states`` would put this prompt and the
        # engines out of step.
        self._presses = Presses()
        self._last = ""
        self._prompt_lock = threading.Lock()
        self._is_prompting = False
        self._ended_by_themselves: dict[str, str] = {}  # sessions, with the text to show

    def leave(self, engine_id: int, session: str, why: str) -> None:
        """Mark a debugger as ended, because it has ended by itself; another thread calls this.

        A prompt for that debugger ends, as if Ctrl-C was pressed. The lock makes sure that only the prompt is
        interrupted.
        """
        with self._prompt_lock:
            state = self._states.get(engine_id)
            if state is None or state.session != session or session in self._ended_by_themselves:
                return
            self._ended_by_themselves[session] = why
            if not self._is_prompting:
                return
            if engine_id != self._current:
                self._ended_by_themselves[session] = ""
                print(f"\n{why}", flush=True)
            elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def run(self) -> None:
        """Show the first states, and carry out the user's lines until all debuggers have ended."""
        threading.Thread(target=self._keep_sessions_open, name="nsactors-debugger", daemon=True).start()
        end_completing = _complete_by(self.complete) if self._read_line is input else None
        try:
            with self._presses:
                self._show(self._with_sources(self._states))
            while self._go_on():
                try:
                    line = self._ask_user()
                except KeyboardInterrupt:
                    print("" if self._current_has_ended() else "\nKeyboardInterrupt")
                    continue
                if self._current_has_ended():
                    continue
                with self._presses as presses:
                    presses.take()  # forget a press that came while the last reply was shown
                    self._do(line)
        except ConnectionLost as lost:
            print(f"The debugger has ended: {lost}")
        finally:
            self._over.set()
            if end_completing is not None:
                end_completing()
            self._end_kept()

    def _wait_for_others(self) -> None:
        """Wait a moment, since engines that run the same code stop at nearly the same time."""
        deadline = time.monotonic() + GATHER_S
        while self._awaits_others() and time.monotonic() < deadline:
            self._over.wait(GATHER_STEP_S)

    def _go_on(self) -> bool:
        """Take over the engines that have stopped since the last call; return whether any debugger is left."""
        with self._presses:
            self._drop_ended()
            if stopped := self._arrivals():
                self._wait_for_others()
                stopped = {**stopped, **self._arrivals()}
                found = _query_aside(
                    lambda: self._ask({i: DebugLine(session, 0, None) for i, session in stopped.items()}),
                    presses=self._presses,
                )
                found = {i: state for i, state in found.items() if not state.ended}
                self._states |= found
                self._first_states |= found
                if self._current not in self._states:
                    self._current = min(self._states, default=0)
                self._show(self._with_sources(found))
            self._settle()
        return bool(self._states)

    def _drop_ended(self) -> None:
        for engine_id, state in list(self._states.items()):
            if state.session in self._ended_by_themselves:
                if why := self._ended_by_themselves[state.session]:
                    print(why)
                del self._states[engine_id]
        if self._current not in self._states:
            self._current = min(self._states, default=0)

    def _current_has_ended(self) -> bool:
        return self._states[self._current].session in self._ended_by_themselves

    def _ask_user(self) -> str:
        with self._prompt_lock:
            if self._current_has_ended():
                return ""
            self._is_prompting = True
        try:
            return self._read_line(f"ipdb engine {self._current}> ").strip() or self._last
        except EOFError:
            print()
            return "quit"
        finally:
            with self._prompt_lock:
                self._is_prompting = False

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        self._last = line if word not in ("quit", "q", "exit") else ""
        match word:
            case "engines" if not rest:
                self._list()
            case "engine" if rest.isdecimal():
                self._choose(int(rest))
            case "all" if rest and not rest.startswith("="):
                self._show_and_store(self._say(dict.fromkeys(self._states, rest)))
            case "quit" | "q" | "exit" if not rest and not self._states[self._current].at_breakpoint:
                self._states = {i: state for i, state in self._states.items() if state.at_breakpoint}
                self._current = min(self._states, default=0)
            case "help" | "h" if not rest:
                print(_COMMANDS)
                self._show_and_store(self._say({self._current: line}))
            case _:
                self._show_and_store(self._say({self._current: line}))

    def _list(self) -> None:
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for engine_id, state in sorted(self._states.items()):
            groups[_CELL.sub("<cell>", state.where)].append(engine_id)
        one_by_one = len(self._states) < GROUPED_FROM
        for ids in groups.values():
            where = plain_place(self._states[ids[0]].where)
            for some in [[i] for i in ids] if one_by_one else [ids]:
                mark = "->" if self._current in some else "  "
                print(f"{mark} {engine_ranges(some)}: {where or 'starting'}")

    def _choose(self, engine_id: int) -> None:
        if engine_id not in self._states:
            are = "is" if len(self._states) == 1 else "are"
            print(f"*** engine {engine_id} has no debugger here: there {are} {engine_ranges(self._states)}")
            return
        self._current = engine_id
        self._show_and_store(self._say({engine_id: "here"}))

    def _say(self, lines: Mapping[int, str]) -> dict[int, DebugState]:
        """Give each debugger its line; return their states when all of them wait for the next line."""
        numbered = {
            engine_id: DebugLine(self._states[engine_id].session, self._states[engine_id].number + 1, text)
            for engine_id, text in lines.items()
        }
        sessions = frozenset(line.session for line in numbered.values())
        interrupt = DebugInterrupt(sessions)
        return _query_aside(
            lambda: self._ask(numbered),
            lambda: self._channel.query(list(numbered), interrupt, POLL_S),
            self._presses,
        )

    def _ask(self, lines: Mapping[int, DebugLine]) -> dict[int, DebugState]:
        found: dict[int, DebugState] = {}
        while unanswered := {engine_id: line for engine_id, line in lines.items() if engine_id not in found}:
            try:
                replies = self._channel.query(list(unanswered), DebugSay(dict(unanswered)), POLL_S)
            except ClusterUnreachable:  # there is no reply, but the cluster may not have ended
                self._over.wait(RETRY_S)
                continue
            for engine_id, line in unanswered.items():
                reply = replies.get(engine_id)
                if reply is not None and reply.error is not None:
                    found[engine_id] = DebugState(line.session, line.number, f"*** {reply.error}\n", ended=True)
                elif reply is not None and reply.value is not None:
                    found[engine_id] = reply.value
                elif not self._is_there(engine_id):
                    found[engine_id] = DebugState(line.session, line.number, "*** the engine is gone\n", ended=True)
                else:  # its process may have ended; the query then returns immediately, so pause here
                    self._over.wait(LOOK_S)
        return found

    def _with_sources(self, states: Mapping[int, DebugState]) -> Mapping[int, DebugState]:
        """Send engines the sources that only this process has; return the states.

        Where a source was missing, the engine had shown the place without its lines, and shows it again.
        """
        wanted = {name for state in states.values() for name in state.missing}
        sources = {name: text for name in wanted if 0 < len(text := "".join(lines_of(name))) < SOURCE_CHARS}
        if not sources:
            return states
        poor = {i: state for i, state in states.items() if not sources.keys().isdisjoint(state.missing)}
        _query_aside(lambda: self._channel.query(list(poor), DebugSource(sources), POLL_S), presses=self._presses)
        redrawn = self._say(dict.fromkeys(poor, "here"))
        self._states |= redrawn
        titles = {
            i: "" if state.at_breakpoint else f"{state.text.partition(_NEWLINE)[0]}\n" for i, state in poor.items()
        }
        return {**states, **{i: replace(state, text=titles[i] + state.text) for i, state in redrawn.items()}}

    def complete(self, text: str) -> list[str]:
        """Return the names of the current frame that complete a text, and the commands."""
        commands = [word for word in _WORDS if text and word.startswith(text)]
        with self._presses:
            found = self._say({self._current: f"_complete {text}"}) if text else {}
        self._states |= {i: state for i, state in found.items() if not state.ended}
        return commands + [name for state in found.values() if not state.ended for name in state.text.splitlines()]

    def _show_and_store(self, found: Mapping[int, DebugState]) -> None:
        self._show(found)
        for engine_id, state in found.items():
            if state.ended:
                self._states.pop(engine_id, None)
            else:
                self._states[engine_id] = state
        if self._states and self._current not in self._states:
            self._current = min(self._states)

    def _show(self, states: Mapping[int, DebugState]) -> None:
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for engine_id, state in sorted(states.items()):
            # Engines number their cells differently, and have their objects at other places in memory.
            groups[_ADDRESS.sub(" at 0x...", _CELL.sub("<cell>", state.text))].append(engine_id)
        for ids in groups.values():
            text = plain_place(states[ids[0]].text)
            if len({tuple(_ADDRESS.findall(states[i].text)) for i in ids}) > 1:
                text = _ADDRESS.sub(" at 0x...", text)
            label = f"[{engine_ranges(ids)}]" if len(states) > 1 else ""
            if not text:
                continue
            if text.count("\n") > 1 or not label:
                print(*filter(None, (label, text.rstrip("\n"))), sep="\n", flush=True)
            else:
                print(label, text.rstrip("\n"), flush=True)

    def _keep_sessions_open(self) -> None:
        """Claim the sessions until this console ends; mark the debuggers of engines that are gone as ended."""
        while not self._over.wait(CLAIM_EVERY_S):
            states = dict(self._states)
            sessions = frozenset(state.session for state in states.values())
            try:
                self._channel.query(list(states), DebugClaim(sessions, here=True), POLL_S)
            except ClusterUnreachable:
                continue
            except ConnectionLost:
                return  # the user's next line reports the loss
            for engine_id, state in states.items():
                if not self._is_there(engine_id):
                    self.leave(engine_id, state.session, f"*** engine {engine_id} is gone")

    def _end_kept(self) -> None:
        """End the debuggers of kept failures, on another thread: the user does not wait."""
        kept = {i: state for i, state in self._first_states.items() if not state.at_breakpoint}
        if sessions := frozenset(state.session for state in kept.values()):
            threading.Thread(target=self._end_sessions, args=(list(kept), sessions), daemon=True).start()

    def _end_sessions(self, engine_ids: list[int], sessions: frozenset[str]) -> None:
        with contextlib.suppress(ConnectionLost):  # without a claim, the engines end these sessions after a while
            self._channel.query(engine_ids, DebugClaim(sessions, here=False), POLL_S)


def _complete_by(complete: Callable[[str], list[str]]) -> Callable[[], None] | None:
    """Let the terminal's prompt complete names with the tab key; return a function that undoes this.

    Return None in a notebook, where the front end has the keyboard. Return None also if there is no ``readline``
    module.
    """
    if hasattr(current_shell(), "kernel"):
        return None
    try:
        import readline
    except ImportError:
        return None
    before, delimiters = readline.get_completer(), readline.get_completer_delims()
    matches: list[str] = []

    def completer(text: str, state: int) -> str | None:
        if state == 0:
            matches[:] = complete(text)
        return matches[state] if state < len(matches) else None

    def end() -> None:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)

    readline.set_completer(completer)
    readline.set_completer_delims(" \t\n`@#$%^&*()=+[{]}\\|;:'\",<>?/-~!")
    readline.parse_and_bind("tab: complete")
    return end


class EngineStops:
    """Lists the engines that are stopped at breakpoints in requests of one client, and keeps their sessions open.

    A session is the conversation with a debugger. Its engine ends it if the client does not claim it every few seconds.

    Args:
        channel: sends queries to the engines.
        tell: called with a message for the user, if the debugger of a stopped engine is not opened soon.
        leaving: set when the client ends.
    """

    def __init__(self, channel: QueryChannel, tell: Callable[[str], object], leaving: threading.Event) -> None:
        self._channel = channel
        self._tell = tell
        self._leaving = leaving
        self._lock = threading.Lock()
        self._stops: dict[int, EngineStopped] = {}
        self._taken: set[str] = set()  # sessions that :meth:`take` has returned
        self._changed = threading.Event()
        self._is_watching = False
        self._console: DebugConsole | None = None

    @property
    def has_new(self) -> bool:
        """True if an engine has stopped whose debugger no console has taken."""
        return bool(self._stops) and any(stop.session not in self._taken for stop in list(self._stops.values()))

    @property
    def engine_ids(self) -> list[int]:
        """The engines that are stopped."""
        return sorted(self._stops)

    def add(self, stop: EngineStopped) -> None:
        """Add an engine that has stopped, and keep its session open."""
        with self._lock:
            self._stops[stop.engine_id] = stop
            self._changed.set()
            if not self._is_watching:
                self._is_watching = True
                threading.Thread(target=self._watch_stops, name="nsactors-breakpoints", daemon=True).start()

    def remove(self, resumed: EngineResumed) -> None:
        """Remove an engine that goes on."""
        with self._lock:
            known = self._stops.get(resumed.engine_id)
            if known is not None and known.session == resumed.session:
                del self._stops[resumed.engine_id]
                self._taken.discard(resumed.session)
        why = (
            "has left the debugger: its request was interrupted, another client has taken the debugger over, or this "
            "client was silent for too long"
        )
        self._tell_console(resumed.engine_id, resumed.session, why)

    def engine_left(self, engine_id: int) -> None:
        """Forget an engine whose process has ended."""
        with self._lock:
            stop = self._stops.pop(engine_id, None)
        if stop is not None:
            self._tell_console(engine_id, stop.session, "is gone")

    def _tell_console(self, engine_id: int, session: str, why: str) -> None:
        if (console := self._console) is not None:
            console.leave(engine_id, session, f"*** engine {engine_id} {why}")

    def take(self) -> dict[int, str]:
        """Return the sessions that have not been taken, by engine; they count as taken from now on."""
        with self._lock:
            new = {i: stop.session for i, stop in self._stops.items() if stop.session not in self._taken}
            self._taken.update(new.values())
        return new

    def rejoin(self, engine_ids: Iterable[int]) -> bool:
        """Let a console take these engines if they are stopped, even those that a console took and left.

        Return whether any of them is stopped.
        """
        with self._lock:
            sessions = [self._stops[i].session for i in engine_ids if i in self._stops]
            self._taken.difference_update(sessions)
        return bool(sessions)

    def let_go(self) -> None:
        """Let engines that are stopped go on: the user cannot be prompted any more."""
        new = self.take()
        with contextlib.suppress(ConnectionLost):
            self._channel.query(list(new), DebugClaim(frozenset(new.values()), here=False), POLL_S)

    @contextlib.contextmanager
    def shown(self, console: DebugConsole) -> Iterator[None]:
        """Let a console show the stops within the block, and end its prompts for engines that go on by themselves."""
        self._console = console
        try:
            yield
        finally:
            self._console = None

    def _watch_stops(self) -> None:
        """Claim the sessions as long as there are any, and tell the user of those that no console takes."""
        told: set[str] = set()
        while not self._leaving.is_set():
            with self._lock:
                stops = dict(self._stops)
                self._changed.clear()
                if not stops:
                    self._is_watching = False
                    return
            sessions = frozenset(stop.session for stop in stops.values())
            replies: Mapping[int, QueryReply] = {}
            with contextlib.suppress(ConnectionLost):
                replies = self._channel.query(list(stops), DebugClaim(sessions, here=True), POLL_S)
            for engine_id, reply in replies.items():
                if stops[engine_id].session not in (reply.value or ()):
                    self.remove(EngineResumed(engine_id, stops[engine_id].session, ""))
            if not self._changed.wait(TELL_AFTER_S):
                new = {
                    i: stop
                    for i, stop in stops.items()
                    if self._stops.get(i) is stop and stop.session not in told | self._taken
                }
                told.update(stop.session for stop in new.values())
                if self._console is None:
                    self._tell_of(new)
                self._changed.wait(CLAIM_EVERY_S)

    def _tell_of(self, stops: Mapping[int, EngineStopped]) -> None:
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for engine_id, stop in sorted(stops.items()):
            groups[_CELL.sub("<cell>", stop.where)].append(engine_id)
        for ids in groups.values():
            are = f"{engine_ranges(ids)} {'are' if len(ids) > 1 else 'is'} stopped at a breakpoint"
            self._tell(f"{are} in {plain_place(stops[ids[0]].where)}: %pxdebug or rc.debug() opens the debugger")


def _query_aside(
    query: Callable[[], T], on_interrupt: Callable[[], object] = lambda: None, presses: Presses | None = None
) -> T:
    """Return ``query()``, called on a thread; Ctrl-C calls ``on_interrupt`` on another thread, and the wait goes on."""

    def interrupt() -> None:
        threading.Thread(target=on_interrupt, name="nsactors-interrupt", daemon=True).start()

    return aside(query, interrupt, presses)


def kept_failures(errors: Iterable[BaseException], client: str) -> dict[int, tuple[str, ...]]:
    """Return the names of the failures in ``errors`` that engines may keep for a client, by engine."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for error in errors:
        if isinstance(error, CompositeError):
            for engine_id, names in kept_failures(error.exceptions, client).items():
                found[engine_id] += names
        elif isinstance(error, RemoteError) and error.failure.kept.rpartition("#")[0] == client:
            found[error.engine_id].append(error.failure.kept)
    return {engine_id: tuple(names) for engine_id, names in found.items()}


def open_failures(
    channel: QueryChannel, client: str, engine_ids: Iterable[int], failures: Mapping[int, tuple[str, ...]]
) -> tuple[dict[int, DebugState], dict[int, str]]:
    """Open the debuggers of engines on their kept failures.

    Args:
        channel: sends queries to the engines.
        client: the client.
        engine_ids: the engines.
        failures: the names of the failures, by engine; an engine without names opens its last failure.

    Returns:
        The first states, and the problems of engines that have not opened a debugger, by engine; engines without a
        failure are in neither.
    """
    ids = list(engine_ids)
    replies = _query_aside(lambda: channel.query(ids, DebugOpen(client, dict(failures)), OPEN_S))
    problems = {i: f"no answer in {OPEN_S:g} s: code in C may hold its interpreter" for i in ids if i not in replies}
    problems |= {i: reply.error for i, reply in replies.items() if reply.error is not None}
    return {i: reply.value for i, reply in replies.items() if reply.value is not None}, problems


def take_stops(
    channel: QueryChannel, client: str, engine_ids: Iterable[int]
) -> tuple[dict[int, DebugState], dict[int, str]]:
    """Take the debuggers of stopped engines over from other clients; return the same as :func:`open_failures`."""
    replies = _query_aside(lambda: channel.query(list(engine_ids), DebugTake(client), OPEN_S))
    problems = {i: reply.error for i, reply in replies.items() if reply.error is not None}
    return {i: reply.value for i, reply in replies.items() if reply.value is not None}, problems


def held_by_others(channel: QueryChannel, engine_ids: Iterable[int]) -> str:
    """Say which engines are stopped in the debuggers of other clients, and how to take them; empty if none is."""
    replies = _query_aside(lambda: channel.query(list(engine_ids), DebugStops(), OPEN_S))
    stops = {i: reply.value for i, reply in sorted(replies.items()) if isinstance(reply.value, Stop)}
    if not stops:
        return ""
    told = "; ".join(f"engine {i} is stopped at {plain_place(s.where)} for {s.client}" for i, s in stops.items())
    ids = ",".join(map(str, stops))
    return f"{told}. `%pxdebug --take {ids}`, or rc.debug([{ids}], take=True), takes the debugger over"


def plain_place(text: str) -> str:
    """Return text about a place in the form that a terminal shows.

    It does not depend on the engine, and shows a cell of this process by its number.
    """
    return printable(_CELL_HERE.sub(lambda found: shown_file(found[0]), _CELL.sub(r"<\1>", text)))
