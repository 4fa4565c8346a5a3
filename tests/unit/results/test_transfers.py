"""The line of progress that long transfers show."""

import io
import sys
from types import SimpleNamespace

import pytest

from nsactors.core.messages import RequestId
from nsactors.results import transfers
from nsactors.results.call import Call
from nsactors.results.live import line
from nsactors.results.transfers import showing_transfer, wait_showing
from tests.gates import wait_until


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
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=screen, modules=sys.modules))
    monkeypatch.setattr(transfers, "REDRAW_S", 0.001)
    return screen


def calls(label: str = "push", answered: int = 0, of: int = 2) -> list[Call]:
    made = [Call(RequestId("me", number), number, label, False) for number in range(of)]
    for call in made[:answered]:
        call.settle(None, None)
    return made


def test_a_long_transfer_shows_what_how_much_and_how_far(terminal: Screen) -> None:
    with showing_transfer("push", 800_000_000, calls(answered=1), after_s=0.0):
        wait_until(lambda: "1/2 engines" in terminal.getvalue())
    assert "push: 800 MB" in terminal.getvalue()


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
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=file, modules=sys.modules))
    monkeypatch.setattr(transfers.threading, "Thread", lambda **kwargs: pytest.fail("a thread was started"))
    with showing_transfer("push", 800_000_000, after_s=0.0):
        pass
    assert file.getvalue() == ""


@pytest.mark.parametrize("label", ["push", "pull(a, b)"])
def test_whoever_waits_long_for_data_sees_a_line(terminal: Screen, label: str) -> None:
    waits: list[float | None] = []

    def wait(timeout_s: float | None) -> bool:
        waits.append(timeout_s)
        if len(waits) == 2:
            wait_until(lambda: label in terminal.getvalue())
        return len(waits) == 2

    assert wait_showing(wait, calls(label), None)
    assert waits == [transfers.AFTER_S, None]


@pytest.mark.parametrize(
    ("label", "timeout_s"), [("apply(f)", None), ("execute", 9.0), ("push", transfers.AFTER_S), ("pull(a)", 0.0)]
)
def test_other_waits_are_left_as_they_are(terminal: Screen, label: str, timeout_s: float | None) -> None:
    waits: list[float | None] = []
    assert not wait_showing(waits.append, calls(label), timeout_s)  # type: ignore[arg-type,func-returns-value]
    assert waits == [timeout_s]


def test_a_limit_holds_for_both_halves_of_a_wait(terminal: Screen) -> None:
    waits: list[float | None] = []
    assert not wait_showing(waits.append, calls(), 5.0)  # type: ignore[arg-type,func-returns-value]
    assert waits == [2.0, 3.0]


def test_waiting_within_a_shown_transfer_adds_its_engines_to_the_line(terminal: Screen) -> None:
    def wait(timeout_s: float | None) -> bool:
        wait_until(lambda: "1/3 engines" in terminal.getvalue())
        return True

    with showing_transfer("push", 800_000_000, after_s=0.0):
        assert wait_showing(wait, calls(answered=1, of=3), None)


def test_a_notebook_shows_the_line_under_its_cell_and_empties_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def publish(data: dict[str, str], metadata: object, **options: object) -> None:
        shown.append(data["text/plain"])

    shell = SimpleNamespace(kernel=object(), display_pub=SimpleNamespace(publish=publish))
    modules = {"IPython": SimpleNamespace(get_ipython=lambda: shell)}
    monkeypatch.setattr(line, "sys", SimpleNamespace(stderr=None, modules=modules))
    monkeypatch.setattr(transfers, "REDRAW_S", 0.001)
    with showing_transfer("push", 800_000_000, calls(answered=1), after_s=0.0):
        wait_until(lambda: shown)
    assert shown[0].startswith("push: 800 MB: ██████████░░░░░░░░░░ 1/2 engines")
    assert shown[-1] == ""
