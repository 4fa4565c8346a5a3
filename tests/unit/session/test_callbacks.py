"""Functions of the user's, called on a thread of their own."""

import threading
from collections.abc import Iterator

import pytest

from nsactors.session.callbacks import Callbacks
from nsactors.testing import TIMEOUT_S


@pytest.fixture
def callbacks() -> Iterator[Callbacks]:
    made = Callbacks()
    yield made
    made.close()


def test_functions_are_called_in_order_on_another_thread(callbacks: Callbacks) -> None:
    called: list[int | threading.Thread] = []
    callbacks.call(lambda: called.append(1))
    callbacks.call(lambda: called.append(threading.current_thread()))
    callbacks.drain()
    assert called[0] == 1
    assert called[1] is not threading.current_thread()


def test_functions_that_were_given_before_the_end_are_called(callbacks: Callbacks) -> None:
    called: list[int] = []
    may_go_on = threading.Event()
    callbacks.call(lambda: may_go_on.wait(TIMEOUT_S))
    callbacks.call(lambda: called.append(1))
    may_go_on.set()
    callbacks.close()
    assert called == [1]


@pytest.mark.parametrize("used", [True, False])
def test_a_function_given_after_the_end_is_called_at_once(callbacks: Callbacks, used: bool) -> None:
    called: list[int] = []
    if used:
        callbacks.call(lambda: None)
    callbacks.close()
    callbacks.call(lambda: called.append(1))
    assert called == [1]


def test_errors_after_the_end_are_printed_as_those_before(
    callbacks: Callbacks, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("mine")

    callbacks.close()
    callbacks.call(fail)
    assert "ValueError: mine" in capsys.readouterr().err
