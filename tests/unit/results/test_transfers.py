"""The line of progress that long transfers show."""

import io
import mmap
import sys
from collections.abc import Callable
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from nsactors.protocol.messages import RequestId
from nsactors.results import interrupting
from nsactors.results.call import Call
from nsactors.results.display import line, progress
from nsactors.results.display.line import showing
from nsactors.results.display.progress import showing_transfer, wait_showing
from nsactors.results.display.screen import Progress
from nsactors.results.interrupting import wait_or_interrupt
from nsactors.testing import TIMEOUT_S, wait_until


class Screen(io.StringIO):
    """A terminal, or a file."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen(terminal=True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    # Not in sys itself, where pytest puts a stream of its own for each phase of a test.
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=screen))
    monkeypatch.setattr(line, "REDRAW_S", 0.001)
    return screen


def calls(label: str = "push", answered: int = 0, of: int = 2) -> list[Call]:
    made = [Call(RequestId("me", number), number, label, False) for number in range(of)]
    for call in made[:answered]:
        call.settle(None, None)
    return made


def test_a_long_transfer_shows_how_much_is_stored_and_then_how_fast_it_was_and_who_has_it(terminal: Screen) -> None:
    with showing_transfer("push", 800_000_000, after_s=0.0):
        wait_until(lambda: "push: 800 MB" in terminal.getvalue())
        assert "into the object store" in terminal.getvalue()
        assert "engines" not in terminal.getvalue()

        def wait(timeout_s: float | None) -> bool:
            wait_until(lambda: "1/2 engines" in terminal.getvalue())
            return True

        assert wait_showing(wait, calls(answered=1), None)
    assert "B/s" in terminal.getvalue().rpartition("1/2 engines")[2]


def test_what_has_been_stored_so_far_is_shown_as_far_as_it_is_known(
    terminal: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = iter([5_000_000, *[101_000_000] * 10_000])
    monkeypatch.setattr(progress, "_shared_bytes", lambda: next(touched))
    with showing_transfer("push", 480_000_000, after_s=0.0):
        wait_until(lambda: "96 MB/480 MB" in terminal.getvalue())


def test_the_shared_memory_of_this_process_is_read() -> None:
    before = progress._shared_bytes()
    with mmap.mmap(-1, 10_000_000) as shared:
        shared.write(bytes(10_000_000))
        assert sys.platform != "linux" or progress._shared_bytes() - before > 9_000_000


def test_a_pull_shows_what_has_come_and_how_fast(terminal: Screen) -> None:
    pulled = calls("pull(a)", answered=1)
    pulled[0].nbytes = 480 * 10**12
    for call in pulled:
        call.submitted -= 1e6
    assert wait_showing(Waits(until=lambda: "480 MB/s" in terminal.getvalue()), pulled, None)
    assert "pull(a): 480 TB" in terminal.getvalue()


def test_what_is_stored_by_a_call_within_a_transfer_is_shown_once(terminal: Screen) -> None:
    with showing_transfer("push", 800_000_000, after_s=0.0), showing_transfer("apply(f)", 800_000_000, after_s=0.0):
        wait_until(lambda: "push" in terminal.getvalue())
    assert "apply" not in terminal.getvalue()


def test_what_is_small_shows_nothing(terminal: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "showing", lambda *_, **__: pytest.fail("a line was opened"))
    with showing_transfer("push", 19_000_000, after_s=0.0):
        pass


def test_the_line_goes_when_the_transfer_is_done(terminal: Screen) -> None:
    with showing_transfer("push", 800_000_000, after_s=0.0):
        wait_until(lambda: "push" in terminal.getvalue())
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased


def test_the_line_goes_when_the_transfer_fails(terminal: Screen) -> None:
    def interrupted() -> None:
        wait_until(lambda: "push" in terminal.getvalue())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), showing_transfer("push", 800_000_000, after_s=0.0):
        interrupted()
    assert terminal.getvalue().endswith("\x1b[2K")


def test_a_quick_transfer_shows_nothing(terminal: Screen) -> None:
    with showing_transfer("push", 800_000_000):
        pass
    assert terminal.getvalue() == ""


def test_nothing_is_shown_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Screen(terminal=False)
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=file))
    monkeypatch.setattr(line.threading, "Thread", lambda **kwargs: pytest.fail("a thread was started"))
    with showing_transfer("push", 800_000_000, after_s=0.0):
        pass
    assert file.getvalue() == ""


class Waits:
    """A wait that ends at its second call, when a line must be visible."""

    def __init__(self, until: Callable[[], object]) -> None:
        self.limits: list[float | None] = []
        self._until = until

    def __call__(self, timeout_s: float | None) -> bool:
        self.limits.append(timeout_s)
        if len(self.limits) == 2:
            wait_until(self._until)
        return len(self.limits) == 2


@pytest.mark.parametrize(
    ("label", "after_s"),
    [
        ("push", progress.TRANSFER_AFTER_S),
        ("pull(a, b)", progress.TRANSFER_AFTER_S),
        ("apply(f)", progress.AFTER_S),
        ("execute", progress.AFTER_S),
    ],
)
def test_whoever_waits_long_sees_a_line(terminal: Screen, label: str, after_s: float) -> None:
    wait = Waits(until=lambda: label in terminal.getvalue())
    assert wait_showing(wait, calls(label), None)
    assert wait.limits == [after_s, None]


@pytest.mark.parametrize(
    ("label", "timeout_s"), [("execute", progress.AFTER_S), ("push", progress.TRANSFER_AFTER_S), ("pull(a)", 0.0)]
)
def test_short_waits_are_left_as_they_are(terminal: Screen, label: str, timeout_s: float | None) -> None:
    waits: list[float | None] = []
    assert not wait_showing(waits.append, calls(label), timeout_s)  # type: ignore[arg-type,func-returns-value]
    assert waits == [timeout_s]


def test_a_wait_that_draws_by_itself_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupting, "wait_showing", None)
    owner = SimpleNamespace(has_stops=False)  # no engine is at a breakpoint
    wait = iter([False, False, True])
    assert wait_or_interrupt(lambda timeout_s: next(wait), calls("%px"), owner, None, progress=False)  # type: ignore[arg-type]


def test_a_limit_holds_for_both_halves_of_a_wait(terminal: Screen) -> None:
    waits: list[float | None] = []
    assert not wait_showing(waits.append, calls("execute"), 5.0)  # type: ignore[arg-type,func-returns-value]
    assert waits == [2.0, 3.0]


def test_waiting_within_a_shown_transfer_adds_its_engines_to_the_line(terminal: Screen) -> None:
    def wait(timeout_s: float | None) -> bool:
        wait_until(lambda: "1/3 engines" in terminal.getvalue())
        return True

    with showing_transfer("push", 800_000_000, after_s=0.0):
        assert wait_showing(wait, calls(answered=1, of=3), None)


def test_what_there_is_nothing_to_count_of_is_told_in_words(terminal: Screen) -> None:
    starting = Progress("starting 4 engines", 0, 0, 1.0, doing="Ray")
    with showing(lambda: starting, after_s=0.0):
        wait_until(lambda: "Ray 1.0 s" in terminal.getvalue())
    assert "0/0" not in terminal.getvalue()


def test_a_notebook_shows_the_line_under_its_cell_and_empties_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def publish(data: dict[str, str], metadata: object, **options: object) -> None:
        shown.append(data["text/plain"])

    shell = SimpleNamespace(kernel=object(), display_pub=SimpleNamespace(publish=publish))
    monkeypatch.setattr(line, "current_shell", lambda: shell)
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=None))
    monkeypatch.setattr(line, "REDRAW_S", 0.001)
    with showing_transfer("push", 800_000_000, after_s=0.0):
        wait_until(lambda: shown)
        assert shown[0].startswith("push: 800 MB: into the object store, 0.")
        wait = Waits(until=lambda: "push: 800 MB: ██████████░░░░░░░░░░ 1/2 engines" in shown[-1])
        wait.limits.append(None)
        assert wait_showing(wait, calls(answered=1), None)
    assert shown[-1] == ""


@pytest.mark.parametrize(("concludes", "left"), [(False, ""), (True, "starting 2 engines: 2/2 engines, 0.7 s")])
def test_in_a_notebook_a_line_that_is_over_may_say_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, concludes: bool, left: str
) -> None:
    shown: SimpleQueue[str] = SimpleQueue()
    publish = lambda data, *_, **__: shown.put(data["text/plain"])  # noqa: E731
    shell = SimpleNamespace(kernel=True, display_pub=SimpleNamespace(publish=publish))
    monkeypatch.setattr(line, "current_shell", lambda: shell)
    there = [1]
    with showing(lambda: Progress("starting 2 engines", there[0], 2, 0.7), after_s=0.0, concludes=concludes):
        assert "1/2 engines" in shown.get(timeout=TIMEOUT_S)
        there[0] = 2
    texts = [shown.get() for _ in range(shown.qsize())]
    assert texts[-1] == left


def test_a_line_that_was_never_drawn_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    shell = SimpleNamespace(kernel=True, display_pub=SimpleNamespace(publish=lambda *_, **__: shown.append("")))
    monkeypatch.setattr(line, "current_shell", lambda: shell)
    with showing(lambda: Progress("starting", 2, 2, 0.1), after_s=60.0, concludes=True):
        pass
    assert shown == []
