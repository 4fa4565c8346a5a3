"""Who waits at services, told by engine."""

from nsactors.client.activity import waits_by_engine
from nsactors.services.state_machine import CallId, Waiting


def test_what_engines_wait_for_is_told_in_words() -> None:
    calls = [
        Waiting(CallId("engine 3/8f2c", 5), "recv from 2 tag 5", 12.3),
        Waiting(CallId("engine 10/1", 1), "barrier with 3", 0.2),
        Waiting(CallId("engine 3/8f2c", 6), "recv from any rank", 1.0),
    ]
    assert waits_by_engine(calls) == {
        3: ["recv from 2 tag 5 for 12 s", "recv from any rank for 1 s"],
        10: ["barrier with 3 for 0 s"],
    }


def test_clients_that_wait_are_not_taken_for_engines() -> None:
    calls = [Waiting(CallId(caller, 1), "a turn", 1.0) for caller in ("ann/4", "engine room/2", "MainThread/7")]
    assert waits_by_engine(calls) == {}
