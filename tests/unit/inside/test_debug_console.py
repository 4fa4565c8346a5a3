"""The client's half of the debugger: what the user sees and types."""

from __future__ import annotations

import linecache
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any

import pytest

from nsactors.errors import ClusterStopped, ClusterUnreachable, CompositeError, Failure
from nsactors.inside.debug_console import DebugConsole, EngineStops, kept_failures, open_failures
from nsactors.protocol.control import (
    DebugClaim,
    DebugInterrupt,
    DebugLine,
    DebugOpen,
    DebugSay,
    DebugSource,
    DebugState,
    EngineResumed,
    EngineStopped,
    QueryReply,
)
from nsactors.testing import TIMEOUT_S, wait_until


class Engines:
    """Engines whose debuggers reply with what ``answer(engine_id, line)`` returns; None: they have ended."""

    def __init__(self, count: int, answer: Callable[[int, str], str | None]) -> None:
        self.states = {i: DebugState(f"s{i}", 0, f"ValueError\nf() <engine {i}, cell 1>:2\n") for i in range(count)}
        self.answer = answer
        self.silent: list[set[int]] = []  # the engines that do not answer the next queries
        self.gone: set[int] = set()
        self.said: list[dict[int, DebugLine]] = []
        self.sources: dict[str, str] = {}
        self.ended = threading.Event()
        self.interrupted = threading.Event()
        self.at_breakpoint = False

    def query(self, engine_ids: Iterable[int], query: Any, timeout_s: float) -> Mapping[int, QueryReply]:
        match query:
            case DebugSay(lines):
                self.said.append(lines)
                silent = self.silent.pop(0) if self.silent else set()
                return {i: QueryReply(0, self._state(i, lines[i])) for i in lines if i not in silent | self.gone}
            case DebugClaim(_, here=False):
                self.ended.set()
            case DebugInterrupt():
                self.interrupted.set()
            case DebugSource(sources):
                self.sources |= sources
            case DebugOpen():
                return {i: QueryReply(0, self.states.get(i)) for i in engine_ids if i not in self.gone}
        return {}

    def _state(self, engine_id: int, line: DebugLine) -> DebugState:
        text = self.answer(engine_id, line.text or "")
        where = f"f() <engine {engine_id}, cell 1>:2"
        return DebugState(line.session, line.number, text or "", text is None, where, (), self.at_breakpoint)


class User:
    """Types lines; an exception in their place is raised at the prompt."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.lines = iter(lines)
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        line = next(self.lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


def debug(engines: Engines, *lines: str | BaseException) -> User:
    user = User(*lines)
    DebugConsole(engines, engines.states, lambda i: i not in engines.gone, user).run()
    assert engines.ended.wait(TIMEOUT_S)
    return user


Shown = Callable[[], list[str]]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Shown:
    return lambda: capsys.readouterr().out.splitlines()  # noqa: PLW0108 - of the moment of the call


def test_equal_replies_are_shown_once_with_their_engines(shown: Shown) -> None:
    debug(Engines(4, lambda i, line: f"{i % 2}\n"), "all p x")
    assert shown() == ["[engines 0-3]", "ValueError", "f() <cell 1>:2", "[engines 0, 2] 0", "[engines 1, 3] 1", ""]


def test_objects_that_differ_in_their_addresses_alone_are_shown_once(shown: Shown) -> None:
    engines = Engines(3, lambda i, line: f"<A object at 0x7f{i if line == 'p a' else 0}>, {line[-1]}\n")
    debug(engines, "all p a", "all p b", "p a")
    lines = ["[engines 0-2] <A object at 0x...>, a", "[engines 0-2] <A object at 0x7f0>, b", "<A object at 0x7f0>, a"]
    assert shown()[3:-1] == lines


def test_a_line_goes_to_one_engine_and_engine_n_chooses_it(shown: Shown) -> None:
    engines = Engines(2, lambda i, line: f"{line} of {i}\n")
    user = debug(engines, "p x", "engine 1", "p x", "engine 7", "engines")
    assert user.prompts[0] == "ipdb engine 0> "
    assert user.prompts[-1] == "ipdb engine 1> "
    assert shown()[3:-1] == [
        "p x of 0",
        "here of 1",
        "p x of 1",
        "*** engine 7 has no debugger here: there are engines 0-1",
        "   engine 0: f() <cell 1>:2",
        "-> engine 1: f() <cell 1>:2",
    ]


def test_of_many_engines_the_list_has_a_line_for_each_place(shown: Shown) -> None:
    debug(Engines(12, lambda i, line: "\n"), "all where", "engines")
    assert "-> engines 0-11: f() <cell 1>:2" in shown()


def test_a_name_that_is_also_a_command_is_meant_with_an_exclamation_mark(shown: Shown) -> None:
    engines = Engines(1, lambda i, line: "")
    debug(engines, "!engines", "engine = 3", "all", "all = 4", "q = 5")
    assert [lines[0].text for lines in engines.said] == ["!engines", "engine = 3", "all", "all = 4", "q = 5"]


def test_an_empty_line_repeats_the_last_one() -> None:
    engines = Engines(1, lambda i, line: "")
    debug(engines, "up", "")
    assert [lines[0].text for lines in engines.said] == ["up", "up"]


def test_the_console_ends_when_all_debuggers_have_ended() -> None:
    user = debug(Engines(2, lambda i, line: None), "engine 1", "c")
    assert len(user.prompts) == 2


def test_ctrl_c_at_the_prompt_drops_the_line(shown: Shown) -> None:
    engines = Engines(1, lambda i, line: "5\n")
    debug(engines, KeyboardInterrupt(), "p x")
    assert shown()[2:4] == ["", "KeyboardInterrupt"]
    assert len(engines.said) == 1


def test_ctrl_c_during_a_command_interrupts_it_on_the_engine() -> None:
    engines = Engines(1, lambda i, line: "")
    main = threading.main_thread().ident
    assert main is not None

    def answer(engine_id: int, line: str) -> str:
        signal.pthread_kill(main, signal.SIGINT)
        return f"{engines.interrupted.wait(TIMEOUT_S)}\n"

    engines.answer = answer
    debug(engines, "while True: pass")
    assert engines.interrupted.is_set()
    assert len(engines.said) == 1


def test_an_engine_that_does_not_answer_yet_is_asked_again_with_the_same_number(shown: Shown) -> None:
    engines = Engines(2, lambda i, line: "5\n")
    engines.silent = [{1}, {1}, set()]
    debug(engines, "all p x")
    assert [sorted(lines) for lines in engines.said] == [[0, 1], [1], [1]]
    assert {lines[1].number for lines in engines.said} == {1}
    assert "[engines 0-1] 5" in shown()


def test_of_an_engine_that_is_gone_the_debugger_ends(shown: Shown) -> None:
    engines = Engines(2, lambda i, line: "5\n")
    engines.gone = {0}
    user = debug(engines, "p x", "p x")
    assert shown()[3:-1] == ["*** the engine is gone", "5"]
    assert user.prompts == ["ipdb engine 0> ", "ipdb engine 1> ", "ipdb engine 1> "]


def test_a_silent_controller_is_asked_again_and_the_end_of_the_cluster_ends_the_console(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.inside.debug_console.RETRY_S", 0.0)
    errors: list[Exception] = [ClusterUnreachable("here", "it is silent"), ClusterStopped()]

    def answer(engine_id: int, line: str) -> str:
        raise errors.pop(0)

    engines = Engines(1, answer)
    user = debug(engines, "p x")
    assert (len(engines.said), len(user.prompts)) == (2, 1)
    assert shown()[-1].startswith("The debugger has ended: ")


def test_control_characters_do_not_reach_the_terminal(shown: Shown) -> None:
    debug(Engines(1, lambda i, line: "\x1b[2J\n"), "p x")
    assert r"\x1b[2J" in shown()


@pytest.fixture
def own_source() -> Iterator[str]:
    """The name of a file of which only the client has the source."""
    name = "<ipython-input-3>"
    linecache.cache[name] = (6, None, ["1 / 0\n"], name)
    yield name
    linecache.cache.pop(name, None)


def test_source_that_engines_lack_is_sent_before_their_places_are_shown(shown: Shown, own_source: str) -> None:
    engines = Engines(2, lambda i, line: "f() <cell 1>:1\n---> 1 / 0\n")
    engines.states[1] = DebugState("s1", 0, "ValueError\nf() <cell 1>:1\n", missing=(own_source, "/not/here"))
    debug(engines)
    assert engines.sources == {own_source: "1 / 0\n"}
    assert [line.text for lines in engines.said for line in lines.values()] == ["here"]
    assert shown()[3:6] == ["[engine 1]", "ValueError", "f() <cell 1>:1"]


def test_engines_that_keep_nothing_are_left_out_and_silent_ones_are_named() -> None:
    engines = Engines(1, lambda i, line: "")
    engines.gone = {2}
    states, problems = open_failures(engines, "ann", [0, 1, 2], {})
    assert (sorted(states), sorted(problems)) == ([0], [2])


def test_the_failures_of_an_error_are_those_that_were_kept_for_this_client() -> None:
    def error(engine_id: int, kept: str) -> Exception:
        return Failure(engine_id, "execute", "ValueError", "builtins", "ValueError", "", kept=kept).to_exception()

    errors = CompositeError(
        "", [error(0, "ann#0.1"), error(0, "ann#0.2"), error(1, "bob#0.1"), error(2, ""), OSError()]
    )
    assert kept_failures([errors], "ann") == {0: ("ann#0.1", "ann#0.2")}


def test_names_of_the_frame_and_commands_complete_a_text() -> None:
    engines = Engines(1, lambda i, line: {"_complete l": "last\nlimit\n"}.get(line, ""))
    console = DebugConsole(engines, engines.states, lambda i: True, User())
    assert console.complete("l") == ["list", "locals", "longlist", "last", "limit"]
    assert console.complete("") == []


# Breakpoints.


class Claims:
    """Engines at which some sessions are alive."""

    def __init__(self, *alive: str) -> None:
        self.alive = frozenset(alive)
        self.claimed: SimpleQueue[frozenset[str]] = SimpleQueue()

    def query(self, engine_ids: Iterable[int], query: Any, timeout_s: float) -> Mapping[int, QueryReply]:
        self.claimed.put(query.sessions)
        return {i: QueryReply(0, query.sessions & self.alive) for i in engine_ids}


@pytest.fixture
def leaving() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_stopped_engine_is_claimed_at_once_and_taken_once(leaving: threading.Event) -> None:
    claims = Claims("s0", "s1")
    stops = EngineStops(claims, lambda notice: None, leaving)
    stops.add(EngineStopped(0, "s0", "ann", "f() x.py:1"))
    assert claims.claimed.get(timeout=TIMEOUT_S) == {"s0"}
    assert stops.has_new
    assert stops.take() == {0: "s0"}
    assert (stops.has_new, stops.take()) == (False, {})
    assert stops.rejoin([1]) is False
    assert stops.rejoin([0, 1])
    assert stops.take() == {0: "s0"}
    stops.remove(EngineResumed(0, "of an earlier stop", "ann"))
    assert stops.engine_ids == [0]
    stops.remove(EngineResumed(0, "s0", "ann"))
    assert stops.engine_ids == []
    stops.add(EngineStopped(1, "s1", "ann", "f() x.py:1"))
    stops.engine_left(1)
    assert not stops.has_new


def test_engines_go_on_if_their_user_cannot_be_prompted_any_more(leaving: threading.Event) -> None:
    engines = Engines(0, lambda i, line: "")
    stops = EngineStops(engines, lambda notice: None, leaving)
    stops.add(EngineStopped(0, "s0", "ann", "f() x.py:1"))
    stops.let_go()
    assert engines.ended.is_set()
    assert not stops.has_new


def test_a_session_that_has_ended_unnoticed_is_dropped(leaving: threading.Event) -> None:
    stops = EngineStops(Claims(), lambda notice: None, leaving)
    stops.add(EngineStopped(0, "s0", "ann", "f() x.py:1"))
    wait_until(lambda: not stops.engine_ids)


def test_the_user_is_told_once_of_an_engine_whose_debugger_is_not_opened(
    leaving: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TELL_AFTER_S", "CLAIM_EVERY_S"):
        monkeypatch.setattr(f"nsactors.inside.debug_console.{name}", 0.01)
    told: list[str] = []
    claims = Claims("s0")
    stops = EngineStops(claims, told.append, leaving)
    stops.add(EngineStopped(0, "s0", "ann", "f() <engine 0, cell 3>:1"))
    for _ in range(4):
        claims.claimed.get(timeout=TIMEOUT_S)
    assert told == ["engine 0 is stopped at a breakpoint in f() <cell 3>:1: %pxdebug or rc.debug() opens the debugger"]


def test_engines_that_stop_meanwhile_join_the_console_and_go_on(shown: Shown) -> None:
    engines = Engines(0, lambda i, line: {"": f"f() <engine {i}, cell {i}>:2\n", "c": None}.get(line, "5\n"))
    arrivals: list[dict[int, str]] = [{0: "s0"}, {}, {1: "s1"}, {2: "s2"}]
    settled: list[bool] = []
    user = User("p x", "all p x", "all c")
    arrive = lambda: arrivals.pop(0) if arrivals else {}  # noqa: E731
    engines.at_breakpoint = True
    DebugConsole(engines, {}, lambda i: True, user, arrive, lambda: settled.append(True)).run()
    assert len(user.prompts) == 3
    assert shown() == [
        "f() <cell 0>:2",
        "5",
        "[engines 1-2] f() <cell 1>:2",
        "[engines 0-2] 5",
    ]
    assert not engines.ended.is_set()
    assert len(settled) == 4


def test_the_first_prompt_waits_for_engines_that_may_stop_as_well(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsactors.inside.debug_console.GATHER_S", TIMEOUT_S)
    engines = Engines(0, lambda i, line: {"": f"f() <engine {i}, cell 1>:2\n", "c": None}.get(line, "5\n"))
    engines.at_breakpoint = True
    arrivals: list[dict[int, str]] = [{0: "s0"}, {1: "s1"}]
    awaits_others = [True, True, False]
    arrive = lambda: arrivals.pop(0) if arrivals else {}  # noqa: E731
    console = DebugConsole(
        engines, {}, lambda i: True, User("all c"), arrive, awaits_others=lambda: awaits_others.pop(0)
    )
    console.run()
    assert awaits_others == []
    assert shown() == ["[engines 0-1] f() <cell 1>:2"]


def test_a_prompt_ends_when_its_engine_has_gone_on_by_itself(shown: Shown, leaving: threading.Event) -> None:
    engines = Engines(0, lambda i, line: "5\n")
    engines.at_breakpoint = True
    stops = EngineStops(Claims("s0", "s1"), lambda notice: None, leaving)
    ends = [lambda: stops.remove(EngineResumed(0, "s0", "ann")), lambda: stops.engine_left(1)]
    prompts: list[str] = []

    def prompt(text: str) -> str:
        prompts.append(text)
        threading.Thread(target=ends.pop(0)).start()
        threading.Event().wait(TIMEOUT_S)
        return "the user has typed this"

    console = DebugConsole(engines, {}, lambda i: True, prompt, stops.take)
    for i in range(2):
        stops.add(EngineStopped(i, f"s{i}", "ann", "f() x.py:1"))
    with stops.shown(console):
        console.run()
    assert prompts == ["ipdb engine 0> ", "ipdb engine 1> "]
    assert [line for line in shown() if line.startswith("***")] == [
        "*** engine 0 has left the debugger: its request was interrupted, another client has taken the debugger over, "
        "or this client was silent for too long",
        "*** engine 1 is gone",
    ]
    assert [lines[0].text for lines in engines.said if 0 in lines] == [None]


def test_quitting_at_a_breakpoint_is_for_one_engine(shown: Shown) -> None:
    engines = Engines(0, lambda i, line: None if line == "q" else "5\n")
    engines.at_breakpoint = True
    arrivals: list[dict[int, str]] = [{0: "s0", 1: "s1"}]
    user = User("q", "p x", "q")
    arrive = lambda: arrivals.pop(0) if arrivals else {}  # noqa: E731
    DebugConsole(engines, {}, lambda i: True, user, arrive).run()
    assert user.prompts == ["ipdb engine 0> ", "ipdb engine 1> ", "ipdb engine 1> "]


def test_the_only_engine_is_named_where_another_one_is_chosen(shown: Shown) -> None:
    debug(Engines(1, lambda i, line: f"{line} of {i}\n"), "engine 7")
    assert "*** engine 7 has no debugger here: there is engine 0" in shown()


def test_an_empty_line_after_quitting_ends_no_other_request(shown: Shown) -> None:
    engines = Engines(0, lambda i, line: None if line == "q" else "5\n")
    engines.at_breakpoint = True
    arrivals: list[dict[int, str]] = [{0: "s0", 1: "s1"}]
    arrive = lambda: arrivals.pop(0) if arrivals else {}  # noqa: E731
    DebugConsole(engines, {}, lambda i: True, User("q", "", "q"), arrive).run()
    assert [line.text for lines in engines.said for line in lines.values()] == [None, None, "q", "", "q"]
