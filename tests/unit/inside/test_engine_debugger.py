"""The engine's half of the debugger: failures that are kept, the conversation, the commands."""

from __future__ import annotations

import bdb
import contextlib
import linecache
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from nsactors.errors import Failure
from nsactors.inside.breakpoint_stops import RequestControl
from nsactors.inside.debug_commands import FrameViewer, StopDebugger
from nsactors.inside.debug_conversation import LEASE_S, TEXT_CHARS, Conversation
from nsactors.inside.engine_debugger import MAX_SESSIONS, EngineDebugger
from nsactors.inside.kept_failures import (
    ABSENT_CLIENTS,
    KEPT_CLIENTS,
    KEPT_S,
    AbsentClients,
    KeptFailure,
    KeptFailures,
)
from nsactors.namespace.interrupts import capture_failure, in_user_code, run_user_code
from nsactors.protocol.control import (
    DebugClaim,
    DebugInterrupt,
    DebugLine,
    DebugOpen,
    DebugSay,
    DebugSource,
    DebugState,
    DebugTake,
    EngineResumed,
    EngineStopped,
    QueryReply,
)
from nsactors.protocol.messages import EngineRequest, Execute, RequestId
from nsactors.testing import TIMEOUT_S, wait_until

CELL = "<engine 3, cell 1>"
SOURCE = """\
def inner(values, limit):
    largest = max(values)
    return largest / (limit - limit)

def outer(limit):
    return inner([1, 2], limit)
"""


class Thing:
    """A large object."""


class Hostile:
    """An object whose description fails."""

    def __repr__(self) -> str:
        raise SystemExit(3)


@pytest.fixture
def outer() -> Iterator[Callable[[Any], Any]]:
    """A function of a cell, which fails."""
    names: dict[str, Any] = {"__name__": "__main__"}
    linecache.cache[CELL] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), CELL)
    exec(compile(SOURCE, CELL, "exec"), names)
    yield names["outer"]
    linecache.cache.pop(CELL, None)


def failure_of(function: Callable[..., Any], *args: Any) -> tuple[Failure, BaseException]:
    try:
        run_user_code(function, *args)
    except BaseException as error:
        return capture_failure(error, 3, "apply(outer)"), error
    raise AssertionError("it did not fail")


def kept(client: str, name: str = "", at: float = 0.0) -> KeptFailure:
    traceback: Any = None
    return KeptFailure(name or f"{client}#0.1", client, "", traceback, {}, at)


class Engine:
    """The debugger of an engine, which runs a request of ann's.

    Args:
        send: takes the replies and other messages, in place of the queue from which this object reads them.
        clock: returns seconds; by default, the time stands still.
    """

    def __init__(self, send: Callable[[Any], object] | None = None, clock: Callable[[], float] | None = None) -> None:
        self.now = 0.0
        self.replies: SimpleQueue[QueryReply] = SimpleQueue()
        self.interrupts: list[str] = []
        self.state = DebugState("", 0, "")
        request = EngineRequest(RequestId("ann", 1), Execute("stop()"), debugs=True)
        control = RequestControl(lambda: request, lambda *, held: None, lambda: self.interrupts.append("struck"))
        self.debugger = EngineDebugger(
            3, 0, send or self.replies.put, control, shares_process=True, clock=clock or (lambda: self.now)
        )

    def fail(self, function: Callable[..., Any], *args: Any) -> Failure:
        return self.debugger.failures.keep(*failure_of(function, *args), "ann")

    def ask(self, query: Any) -> Any:
        self.debugger.answer(1, query)
        return self.reply()

    def reply(self) -> Any:
        """Wait for the reply to query 1, after other replies and messages that an engine has stopped or goes on."""
        while not isinstance(reply := self.replies.get(timeout=TIMEOUT_S), QueryReply) or reply.query_id != 1:
            pass
        assert reply.error is None, reply.error
        return reply.value

    def open(self, client: str = "ann", names: tuple[str, ...] = ()) -> DebugState | None:
        state: DebugState | None = self.ask(DebugOpen(client, {3: names}))
        if state is not None:
            self.state = state
        return state

    def say(self, text: str) -> str:
        self.state = self.ask(DebugSay({3: DebugLine(self.state.session, self.state.number + 1, text)}))
        return self.state.text


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.debugger.close()


# What is kept.


def test_an_engine_keeps_the_last_failure_of_a_few_clients() -> None:
    failures = KeptFailures(0, AbsentClients())
    failures.add(kept("ann", "ann#0.1"))
    failures.add(kept("ann", "ann#0.2"))
    assert failures.find("ann", ["ann#0.1"]) is None
    assert failures.find("ann", ["ann#0.1", "ann#0.2"]) is failures.find("ann") is not None
    for number in range(KEPT_CLIENTS):
        failures.add(kept(f"bob-{number}"))
    assert failures.find("ann") is None
    assert len(failures) == KEPT_CLIENTS


def test_a_failure_is_released_after_a_while_or_when_its_client_says_so() -> None:
    failures = KeptFailures(0, AbsentClients())
    failures.add(kept("ann", at=0.0))
    failures.add(kept("bob", at=10.0))
    failures.expire(KEPT_S + 5.0)
    assert (failures.find("ann"), len(failures)) == (None, 1)
    assert failures.forget("bob")
    assert not failures.forget("bob")


def test_a_released_failure_holds_no_object_of_its_frames(engine: Engine) -> None:
    things: list[weakref.ref[Thing]] = []

    def fail() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise ValueError

    def shell() -> None:
        """Hold the error, as IPython does, in a frame that the frames of the failure refer to."""
        held = None
        try:
            run_user_code(fail)
        except ValueError as error:
            held = error
        if held is not None:
            raise held

    try:
        shell()
    except ValueError as error:
        engine.debugger.failures.keep(capture_failure(error, 3, "execute"), error, "ann")
    assert things[0]() is not None
    engine.debugger.failures.forget()
    assert things[0]() is None


def test_a_failure_of_a_client_that_has_left_is_not_kept_until_it_comes_back(
    engine: Engine, outer: Callable[[Any], Any]
) -> None:
    engine.debugger.client_left("ann")
    assert not engine.fail(outer, 3).kept
    assert len(engine.debugger.failures) == 0
    engine.debugger.client_came("ann")
    assert engine.fail(outer, 3).kept
    assert len(engine.debugger.failures) == 1


def test_what_filled_the_memory_is_not_kept(engine: Engine) -> None:
    def fill() -> None:
        raise MemoryError

    assert engine.fail(fill).kept == ""
    assert engine.open() is None


# The conversation.


class Talk:
    """A conversation, and the replies that it has sent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.replies: list[QueryReply] = []
        self.conversation = Conversation("ann", self.replies.append, "quit\n", lambda: self.now)

    def say(self, query_id: int, number: int, text: str | None) -> None:
        self.conversation.say(query_id, DebugLine(self.conversation.session, number, text))


def test_a_repeated_line_is_carried_out_once_and_its_reply_goes_to_the_last_query() -> None:
    talk = Talk()
    talk.say(1, 1, "p x")
    talk.say(2, 1, "p x")
    assert talk.conversation.readline() == "p x\n"
    talk.conversation.write("5\n")
    talk.say(3, 2, "p y")
    assert talk.conversation.readline() == "p y\n"
    talk.conversation.write("6\n")
    talk.conversation.end()
    # The reply to line 1 was not waited for any more.
    assert [(reply.query_id, reply.value.number, reply.value.text) for reply in talk.replies] == [(3, 2, "6\n")]


def test_a_query_that_comes_late_is_replied_to_without_a_state() -> None:
    talk = Talk()
    talk.say(1, 1, "p x")
    talk.say(9, 0, None)
    assert talk.replies == [QueryReply(9, None)]


def test_a_line_stays_one_line() -> None:
    talk = Talk()
    talk.say(1, 1, "x = 1\nq")
    assert talk.conversation.readline() == "x = 1 q\n"


def test_a_debugger_ends_by_itself_when_its_client_is_silent() -> None:
    talk = Talk()
    talk.now = LEASE_S
    assert talk.conversation.readline() == "quit\n"
    assert talk.conversation.lost == "its client does not answer"


def test_the_line_that_ends_a_prompt_goes_before_one_that_has_come_and_is_not_taken() -> None:
    talk = Talk()
    assert not talk.conversation.end_prompt("_interrupt\n")  # its debugger carries out a command
    talk.conversation.at_prompt = True
    talk.say(1, 1, "continue")
    assert [talk.conversation.end_prompt("_interrupt\n") for _ in range(2)] == [True, True]
    assert talk.conversation.let_go("its client has left")
    assert talk.conversation.readline() == "_interrupt\n"


def test_a_debugger_that_has_taken_its_last_line_waits_for_none() -> None:
    talk = Talk()
    talk.say(1, 1, "continue")
    assert talk.conversation.readline() == "continue\n"
    assert not talk.conversation.end_prompt("_interrupt\n")
    assert not talk.conversation.let_go("its client has left")
    assert talk.conversation.readline() == "quit\n"


def test_a_debugger_that_is_let_go_is_to_be_interrupted_in_another_way() -> None:
    talk = Talk()
    talk.conversation.at_prompt = True
    assert talk.conversation.let_go("its client has left")
    assert not talk.conversation.end_prompt("_interrupt\n")


def test_a_claim_prolongs_the_session() -> None:
    talk = Talk()
    talk.now = LEASE_S - 1
    talk.conversation.claim()
    talk.now = LEASE_S
    assert not talk.conversation.is_abandoned


def test_a_flood_is_cut() -> None:
    talk = Talk()
    talk.conversation.await_first(1)
    for _ in range(3):
        talk.conversation.write("x" * TEXT_CHARS)
    talk.conversation.end()
    text = talk.replies[0].value.text
    assert len(text) < TEXT_CHARS + 100
    assert f"({2 * TEXT_CHARS} more characters)" in text


# Sessions.


def test_a_session_begins_at_the_innermost_frame_of_the_users(engine: Engine, outer: Callable[[Any], Any]) -> None:
    engine.fail(outer, 5)
    state = engine.open()
    assert state is not None
    assert state.text == (
        "ZeroDivisionError: division by zero (apply(outer))\n"
        "inner() <engine 3, cell 1>:3\n"
        "     1 def inner(values, limit):\n"
        "     2     largest = max(values)\n"
        "---> 3     return largest / (limit - limit)\n"
        "     4 \n"
        "     5 def outer(limit):\n"
        "     6     return inner([1, 2], limit)\n"
    )
    assert engine.say("locals") == "values = [1, 2]\nlimit = 5\nlargest = 2\n"
    assert engine.say("up").startswith("outer() <engine 3, cell 1>:6\n")
    assert engine.say("where") == (
        "> outer() <engine 3, cell 1>:6  return inner([1, 2], limit)\n"
        "  inner() <engine 3, cell 1>:3  return largest / (limit - limit)\n"
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("largest + 1", "3\n"),
        ("p [v for v in values if v < largest]", "[1]\n"),
        ("print('here')", "here\n"),
        ("(lambda: values)()", "[1, 2]\n"),
        ("no_such", "*** NameError: name 'no_such' is not defined\n"),
        ("p 1 / 0", "*** ZeroDivisionError: division by zero\n"),
        ("raise SystemExit", "*** SystemExit\n"),
        ("n", "*** the code has ended, so it cannot go on: up, down, locals and expressions look at its frames\n"),
        ("interact", "*** this command is not available on an engine\n"),
        ("locals()['limit']", "5\n"),
        (
            "r = 5 ;; b = r + 1 ;; b",
            "*** the code has ended, so it cannot go on: up, down, locals and expressions look at its frames\n",
        ),
        ("n = 5 ;; !n += 1 ;; p n", "6\n"),
        ("p limit == 5", "True\n"),
        ("_complete li", "limit\n"),
        ("_complete values.in", "values.index\nvalues.insert\n"),
        ("_complete no.such", ""),
        ("", ""),
    ],
)
def test_a_line_has_this_reply(engine: Engine, outer: Callable[[Any], Any], line: str, text: str) -> None:
    engine.fail(outer, 5)
    engine.open()
    assert engine.say(line) == text
    assert not engine.state.ended


def test_variables_can_be_set_in_a_frame(engine: Engine, outer: Callable[[Any], Any]) -> None:
    engine.fail(outer, 5)
    engine.open()
    assert engine.say("largest = 7") == ""
    engine.say("up")
    engine.say("down")
    assert engine.say("largest") == "7\n"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["few = [limit + v for v in values]", "few"], "[6, 7]\n"),
        (["few = sum(limit for _ in values)", "few"], "10\n"),
        (["add = lambda v: v + limit", "add(1)"], "6\n"),
        (["def count(n): return n and 1 + count(n - 1)", "count(limit)"], "5\n"),
        (["def first(): return values[0]", "first()"], "1\n"),
        (["(half := limit / 2)", "half"], "2.5\n"),
        (["[last := v + limit for v in values]", "last"], "7\n"),
        (["from math import pi; few = [pi for _ in values]", "int(pi)"], "3\n"),
        (["def swap(): global inner; inner = limit", "swap()", "inner"], "5\n"),
        (["limit = [v for v in values][1]", "up", "down", "limit"], "2\n"),
    ],
)
def test_statements_and_functions_inside_them_find_all_names_of_the_frame(
    engine: Engine, outer: Callable[[Any], Any], lines: list[str], text: str
) -> None:
    engine.fail(outer, 5)
    engine.open()
    assert [engine.say(line) for line in lines][-1] == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("q[0]", "1\n"),
        ("c.real", "3.0\n"),
        ("n + 1", "8\n"),
        ("n if q else c", "7\n"),
        ("p(n)", "14\n"),
        ("p -n", "-7\n"),
        ("next(s)", "1\n"),
        ("list(q)", "[1, 2]\n"),
        ("w[0]", "*** NameError: name 'w' is not defined\n"),
        ("q.append(3) ;; p q", "[1, 2, 3]\n"),
        ("n, c = c, n ;; p n", "(3+1j)\n"),
    ],
)
def test_a_use_of_a_variable_with_the_name_of_a_command_is_no_command(engine: Engine, line: str, text: str) -> None:
    def fail() -> None:
        q, c, n, s = [1, 2], 3 + 1j, 7, iter([1])
        p = lambda value: 2 * value  # noqa: E731
        raise ValueError(q, c, n, s, p)

    engine.fail(fail)
    engine.open()
    assert engine.say(line) == text
    assert not engine.state.ended


@pytest.mark.parametrize("line", ["q", "quit()", "exit()", "c  # on", "c"])
def test_these_lines_leave_the_debugger(engine: Engine, outer: Callable[[Any], Any], line: str) -> None:
    engine.fail(outer, 5)
    engine.open()
    engine.say(line)
    assert engine.state.ended


def test_an_object_whose_description_fails_does_no_harm(engine: Engine) -> None:
    def fail(thing: object) -> None:
        raise ValueError(thing)

    engine.fail(fail, Hostile())
    engine.open()
    assert engine.say("locals") == "thing = <Hostile whose __repr__ raised SystemExit>\n"
    assert "SystemExit" in engine.say("p thing")
    assert "SystemExit" in engine.say("args")
    assert engine.say("1 + 1") == "2\n"


def test_prints_of_other_threads_are_not_the_debuggers(
    engine: Engine, outer: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = threading.Thread(target=print, args=("of another thread",))

    def begin() -> None:
        other.start()
        other.join(TIMEOUT_S)
        print("of the debugger")

    def fail(begin: Callable[[], None]) -> None:
        raise ValueError

    engine.fail(fail, begin)
    engine.open()
    assert engine.say("begin()") == "of the debugger\n"
    assert capsys.readouterr().out == "of another thread\n"


def test_the_source_of_a_cell_is_there_after_other_cells_have_run(engine: Engine, outer: Callable[[Any], Any]) -> None:
    engine.fail(outer, 5)
    del linecache.cache[CELL]
    engine.open()
    assert "largest = max(values)" in engine.state.text
    assert engine.state.missing == ()
    assert engine.say("q") == ""
    assert engine.state.ended
    assert CELL not in linecache.cache


def test_source_that_only_the_client_has_is_asked_for_and_shown(engine: Engine, outer: Callable[[Any], Any]) -> None:
    del linecache.cache[CELL]
    engine.fail(outer, 5)
    engine.open()
    assert engine.state.missing == (CELL,)
    engine.ask(DebugSource({CELL: SOURCE}))
    assert "---> 3     return largest" in engine.say("here")
    assert engine.state.missing == ()


def test_only_the_failure_that_is_meant_is_opened(engine: Engine, outer: Callable[[Any], Any]) -> None:
    first, second = engine.fail(outer, 5), engine.fail(outer, 6)
    assert first.kept != second.kept
    assert engine.open(names=(first.kept,)) is None
    assert engine.open(names=(first.kept, second.kept)) is not None
    assert engine.open("bob") is None


def test_two_sessions_go_on_beside_each_other(engine: Engine, outer: Callable[[Any], Any]) -> None:
    engine.fail(outer, 5)
    engine.open()
    first = engine.state
    engine.fail(outer, 6)
    engine.open()
    assert engine.say("limit") == "6\n"
    engine.state = first
    assert engine.say("limit") == "5\n"


def test_a_command_that_goes_on_for_ever_is_interrupted(engine: Engine) -> None:
    begun = threading.Event()

    def fail(begun: threading.Event) -> None:
        raise ValueError

    engine.fail(fail, begun)
    engine.open()
    session = engine.state.session
    line = "exec('begun.set()\\nwhile True: pass')"
    engine.debugger.answer(1, DebugSay({3: DebugLine(session, 1, line)}))
    assert begun.wait(TIMEOUT_S)
    engine.debugger.answer(2, DebugInterrupt(frozenset({session})))
    replies = {reply.query_id: reply.value for reply in (engine.replies.get(timeout=TIMEOUT_S) for _ in range(2))}
    assert "KeyboardInterrupt" in replies[1].text
    engine.state = replies[1]
    assert engine.say("1 + 1") == "2\n"


@pytest.mark.parametrize("how", ["left", "claim", "lease"])
def test_a_session_ends_without_its_client_also_in_a_command(engine: Engine, how: str) -> None:
    begun = threading.Event()

    def fail(begun: threading.Event) -> None:
        raise ValueError

    engine.fail(fail, begun)
    engine.open()
    session = engine.state.session
    line = "exec('begun.set()\\nwhile True: pass')"
    engine.debugger.answer(1, DebugSay({3: DebugLine(session, 1, line)}))
    assert begun.wait(TIMEOUT_S)
    match how:
        case "left":
            engine.debugger.client_left("ann")
        case "claim":
            engine.debugger.answer(2, DebugClaim(frozenset({session}), here=False))
        case _:
            engine.now += LEASE_S
            engine.debugger.expire()
    engine.state = engine.reply()
    assert engine.state.text.startswith("*** KeyboardInterrupt")
    assert engine.say("p 1").startswith("*** this debugger has ended: its client ")
    assert engine.state.ended


def test_there_are_not_too_many_sessions_and_one_that_ends_makes_room(
    engine: Engine, outer: Callable[[Any], Any]
) -> None:
    engine.fail(outer, 5)
    for _ in range(MAX_SESSIONS):
        assert engine.open() is not None
    engine.debugger.answer(1, DebugOpen("ann", {}))
    assert f"{MAX_SESSIONS} debuggers are open" in (engine.replies.get(timeout=TIMEOUT_S).error or "")
    engine.say("q")
    assert engine.open() is not None


def test_a_debugger_for_which_there_is_no_thread_takes_no_room(
    engine: Engine, outer: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    engine.fail(outer, 5)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(MAX_SESSIONS):
            with pytest.raises(AssertionError, match="can't start new thread"):
                engine.open()
    engine.open()
    assert "largest = max(values)" in engine.state.text


def test_a_session_that_has_ended_is_forgotten_after_a_while(engine: Engine, outer: Callable[[Any], Any]) -> None:
    engine.fail(outer, 5)
    engine.open()
    engine.say("q")
    engine.debugger.expire()
    assert engine.say("x") == ""  # for a client that has missed the reply
    engine.now += LEASE_S + 1
    engine.debugger.expire()
    assert engine.say("x") == "*** this debugger has ended\n"


def test_clients_that_have_left_are_not_remembered_for_ever() -> None:
    absent, clients = AbsentClients(), [f"ann-{number}" for number in range(ABSENT_CLIENTS + 1)]
    for client in clients:
        absent.add(client)
    assert [client for client in clients if client in absent] == clients[1:]


def test_the_terminal_of_a_shared_process_completes_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Readline:
        delimiters = "of the user's shell"

        def get_completer_delims(self) -> str:
            return self.delimiters

        def set_completer_delims(self, delimiters: str) -> None:
            self.delimiters = delimiters

    monkeypatch.setitem(sys.modules, "readline", Readline())  # type: ignore[arg-type]
    FrameViewer(Talk().conversation)
    assert sys.modules["readline"].get_completer_delims() == "of the user's shell"


def test_a_session_that_the_engine_does_not_know_has_ended(engine: Engine) -> None:
    state = engine.ask(DebugSay({3: DebugLine("of an earlier process", 4, "p x")}))
    assert (state.ended, state.number) == (True, 4)


class Stopping:
    """A request of ann's that stops at a breakpoint on this thread, while another thread is her client."""

    def __init__(self, engine: Engine) -> None:
        self.edited = False
        self.debugger = engine.debugger
        self.stops = engine.debugger.stops

    def run(self, code: str, client: Callable[[Conversation], object], **others: object) -> object:
        """Run code; return the tracer afterwards."""

        def talk() -> None:
            wait_until(self.stops.is_at_prompt)
            assert self.stops.conversation is not None
            client(self.stops.conversation)

        thread = threading.Thread(target=talk)
        thread.start()
        trace = sys.gettrace()
        try:
            self.run_here(code, **others)
        finally:
            self.edited = self.stops.end_request()
            after = sys.gettrace()
            sys.settrace(trace)
            thread.join()
        return after

    def run_here(self, code: str, **others: object) -> None:
        """Run code, which ends without the client."""
        names = {"stop": lambda: self.stops.stop(sys._getframe(1)), "debugger": self.debugger, **others}
        with contextlib.suppress(bdb.BdbQuit):
            run_user_code(exec, code, names)


@pytest.mark.parametrize("lines", [["continue"], ["next", "continue"], ["next", "next", "next"], ["next", "quit"]])
def test_a_tracer_of_the_users_program_goes_on_after_the_debugger(engine: Engine, lines: list[str]) -> None:
    def tracer(frame: FrameType, event: str, argument: object) -> None:
        return None

    code = "sys.settrace(tracer)\nstop()\nx = 1\nx = 2"
    client = lambda conversation: feed(conversation, *lines)  # noqa: E731
    assert Stopping(engine).run(code, client, sys=sys, tracer=tracer) is tracer


def test_an_interrupt_at_the_prompt_ends_the_request(engine: Engine) -> None:
    stopping, ended = Stopping(engine), []
    with pytest.raises(KeyboardInterrupt):
        stopping.run("stop()", lambda conversation: ended.append(engine.debugger.stops.quit_prompt()))
    assert ended == [True]
    assert not engine.debugger.stops.quit_prompt()


def test_a_line_that_comes_too_late_for_its_request_says_that_it_was_interrupted(engine: Engine) -> None:
    def client(conversation: Conversation) -> None:
        engine.debugger.stops.quit_prompt()
        wait_until(lambda: conversation.ended)
        texts.append(engine.ask(DebugSay({3: DebugLine(conversation.session, 1, "p 1")})).text)

    texts: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Stopping(engine).run("stop()", client)
    assert texts == ["*** the request has been interrupted\n"]


def test_only_commands_at_the_prompt_can_be_interrupted() -> None:
    """Anywhere else between a stop and the prompt, the client would be left without a reply."""
    seen: dict[str, bool] = {}

    def note(where: str) -> None:
        seen[where] = in_user_code(sys._getframe())

    engine = Engine(lambda message: note(type(message).__name__))
    Stopping(engine).run("stop()", lambda conversation: feed(conversation, "note('command')", "continue"), note=note)
    assert seen == {"EngineStopped": False, "QueryReply": False, "command": True, "EngineResumed": False}


@pytest.mark.parametrize("command", ["continue", "quit"])
def test_an_interrupt_at_the_end_of_a_command_leaves_the_client_at_the_prompt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    presses = iter([KeyboardInterrupt])
    carry_out = getattr(StopDebugger, f"do_{command}")

    def interrupted(debugger: StopDebugger, arg: str) -> object:
        carry_out(debugger, arg)
        for press in presses:
            raise press
        return True

    def client(conversation: Conversation) -> None:
        engine.state = engine.ask(DebugSay({3: DebugLine(conversation.session, 0, None)}))
        texts.append(engine.say(command))
        assert not engine.state.ended
        engine.say(command)
        ended.append(engine.state.ended)

    texts: list[str] = []
    ended: list[bool] = []
    monkeypatch.setattr(StopDebugger, f"do_{command}", interrupted)
    Stopping(engine).run("stop()", client)
    assert "KeyboardInterrupt" in texts[0]
    assert ended == [True]


def test_a_debugger_that_has_ended_waits_for_no_line() -> None:
    conversation = Talk().conversation
    conversation.end()
    assert conversation.readline() == "quit\n"


def test_a_stop_that_fails_before_its_prompt_ends_for_the_client_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages: list[Any] = []
    engine = Engine(messages.append)

    def fail(*args: object) -> None:
        raise RecursionError

    monkeypatch.setattr(StopDebugger, "setup", fail)
    stopping = Stopping(engine)
    code = "try: stop()\nexcept RecursionError: went_on()"
    stopping.run_here(code, went_on=lambda: messages.append("the code goes on"))
    stopped, resumed, went_on = messages
    assert (type(stopped), type(resumed)) == (EngineStopped, EngineResumed)
    assert went_on == "the code goes on"
    engine.debugger.answer(1, DebugSay({3: DebugLine(stopped.session, 0, None)}))
    assert messages[-1].value.ended


def test_a_request_at_whose_prompt_variables_were_changed_is_edited(engine: Engine) -> None:
    lines = {"p x": False, "x": False, "n": False, "x = 2": True, "p (x := 3)": True, "p edit()": True, "j 2": True}
    for line, edits in lines.items():
        stopping = Stopping(engine)
        code = "x = 1\nstop()\nx += 1"
        stopping.run(code, lambda conversation, line=line: feed(conversation, line, "c"), edit=int)  # type: ignore[misc]
        assert stopping.edited is edits, line


def test_a_late_line_of_a_client_whose_debugger_was_taken_does_nothing(engine: Engine) -> None:
    late: list[DebugState] = []
    names: dict[str, Any] = {}

    def client(conversation: Conversation) -> None:
        first = conversation.session
        try:
            engine.ask(DebugTake("bob"))
            late.append(engine.ask(DebugSay({3: DebugLine(first, 1, "names['x'] = 'late'")})))
        finally:
            feed(conversation, "names['y'] = 'of bob'", "continue")

    Stopping(engine).run("stop()", client, names=names)
    assert [state.ended for state in late] == [True]
    assert names == {"y": "of bob"}


def test_breakpoints_of_a_client_that_has_left_stop_nobody(outer: Callable[[Any], Any]) -> None:
    stops: list[EngineStopped] = []
    is_set = threading.Event()

    def note(message: Any) -> None:
        if isinstance(message, EngineStopped):
            stops.append(message)
        elif isinstance(message, QueryReply):
            is_set.set()

    # At another stop, the client would be silent for too long at once.
    clock = lambda: LEASE_S * max(0, len(stops) - 1)  # noqa: E731
    engine = Engine(note, clock)

    def client(conversation: Conversation) -> None:
        feed(conversation, "b inner")
        is_set.wait(TIMEOUT_S)
        engine.debugger.client_left("ann")

    with pytest.raises(ZeroDivisionError):
        Stopping(engine).run("stop()\nouter(5)", client, outer=outer, inner=outer.__globals__["inner"])
    assert len(stops) == 1


def test_a_client_that_leaves_after_its_request_interrupts_no_request_of_another_client(engine: Engine) -> None:
    stopping = Stopping(engine)
    stopping.run("stop()", lambda conversation: feed(conversation, "continue"))
    engine.debugger.client_left("ann")
    assert not engine.interrupts


def test_a_client_that_leaves_during_a_step_lets_the_code_go_on(engine: Engine) -> None:
    stopping = Stopping(engine)
    # The line that is stepped over is the moment at which the client leaves.
    stopping.run("stop()\ndebugger.client_left('ann')\nx = 1", lambda conversation: feed(conversation, "next", "next"))
    assert not engine.interrupts


def test_a_stop_is_known_to_queries_when_its_client_is_told() -> None:
    alive: list[frozenset[str]] = []

    def client(message: Any) -> None:
        if isinstance(message, EngineStopped):
            engine.debugger.answer(1, DebugClaim(frozenset({message.session}), here=True))
        elif isinstance(message, QueryReply) and message.query_id == 1:
            alive.append(message.value)

    engine = Engine(client)
    Stopping(engine).run("stop()", lambda conversation: feed(conversation, "continue"))
    assert [len(one) for one in alive] == [1]


def test_failures_are_released_without_the_lock() -> None:
    failures = KeptFailures(0, AbsentClients())

    class Looks:
        def __del__(self) -> None:
            thread = threading.Thread(target=failures.expire, args=(0.0,))  # as another thread of the engine
            thread.start()
            thread.join(TIMEOUT_S)
            ended.append(not thread.is_alive())

    ended: list[bool] = []
    for release in (
        lambda: failures.add(kept("ann")),
        lambda: failures.forget("ann"),
        failures.forget,
        lambda: failures.expire(KEPT_S + 1),
    ):
        sources: Any = {"cell": Looks()}
        failures.add(replace(kept("ann"), sources=sources))
        del sources
        release()
    assert ended == [True] * 4


def feed(conversation: Conversation, *lines: str) -> None:
    for number, line in enumerate(lines, start=1):
        conversation.say(0, DebugLine(conversation.session, number, line))
