"""With what `nsactors run` and `nsactors exec` exit."""

from __future__ import annotations

import pytest

from nsactors.cli.execute import exit_status
from nsactors.errors import EngineLost, Failure


def raised(error: BaseException) -> BaseException:
    """Return the error that a client gets when an engine raises this error."""
    from nsactors.protocol.serialize import pack_whole

    try:
        raise error
    except BaseException as caught:
        return Failure.capture(caught, engine_id=0, call="execute", dumps=pack_whole).to_exception()


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ([], 0),
        ([SystemExit()], 0),
        ([SystemExit(0)], 0),
        ([SystemExit(3)], 3),
        ([SystemExit("why")], 1),
        ([SystemExit(256)], 1),  # what shells would take for success
        ([SystemExit(-1)], 255),
        ([SystemExit(True)], 1),
        ([ValueError("wrong")], 1),
        ([KeyboardInterrupt()], 130),
        ([SystemExit(2), SystemExit(5), SystemExit(0)], 5),
        ([SystemExit(0), ValueError("wrong")], 1),
    ],
)
def test_the_status_is_the_highest_of_all_engines(errors: list[BaseException], status: int) -> None:
    assert exit_status([raised(error) for error in errors]) == status


def test_an_engine_that_died_is_a_failure() -> None:
    assert exit_status([EngineLost(3, "execute", "killed")]) == 1
