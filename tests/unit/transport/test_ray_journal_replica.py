"""The client of the journal replica: the errors that engines get from the replica's failures."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from nsactors.errors import ClusterUnreachable
from nsactors.recovery.replication import JournalBatch, Position
from nsactors.transport.ray.journal_replica import JournalReplicaClient

pytestmark = pytest.mark.ray


@pytest.fixture
def exceptions() -> Any:
    """Ray's errors. Not imported with this module: clusters of other tests set Ray's environment first."""
    import ray.exceptions

    return ray.exceptions


class Actor:
    """A handle whose calls are made, and come to nothing."""

    def __getattr__(self, name: str) -> Any:
        return self

    def options(self, **options: object) -> Actor:
        return self

    def remote(self, *args: object) -> None:
        pass


def accept(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    import ray

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(ray, "get", fail)
    JournalReplicaClient(Actor(), is_elsewhere=True).accept(0, 0, JournalBatch(Position(0, 0), b"", 0))


def test_a_keeper_without_room_is_an_error_of_the_system(exceptions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as caught:
        accept(monkeypatch, exceptions.RayTaskError("accept", "", cause).as_instanceof_cause())
    assert type(caught.value) is OSError
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("cause", [ValueError("broken"), None])
def test_a_keeper_that_fails_otherwise_cannot_be_reached(
    exceptions: Any, monkeypatch: pytest.MonkeyPatch, cause: Exception | None
) -> None:
    error = exceptions.GetTimeoutError("late")
    if cause is not None:
        error = exceptions.RayTaskError("accept", "", cause).as_instanceof_cause()
    with pytest.raises(ClusterUnreachable):
        accept(monkeypatch, error)
