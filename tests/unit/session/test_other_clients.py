"""What a client tells the cluster of requests that wait for an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, cast

import pytest

from nsactors.membership.history import QUEUED
from nsactors.protocol.control import HistoryEntry
from nsactors.protocol.messages import RequestId
from nsactors.results import Call
from nsactors.session import other_clients
from nsactors.session.other_clients import QueueReporter
from nsactors.session.requests import RequestSender
from nsactors.testing import TIMEOUT_S
from nsactors.transport.base import ControllerClient

SILENT = Call(RequestId("ann", 3), 0, "execute", True)


class FakePost:
    """Whose engine 0 has been silent since it was sent a request."""

    def silent(self, since: float) -> list[Call]:
        return [SILENT]

    def open_requests(self) -> list[Any]:
        return []

    def listen_to_strays(self, sent_before: float) -> None:
        return


class FakeController:
    def __init__(self) -> None:
        self.told: SimpleQueue[Sequence[HistoryEntry]] = SimpleQueue()

    def announce(self, entries: Sequence[HistoryEntry], timeout_s: float) -> None:
        self.told.put(entries)


@pytest.fixture
def company() -> threading.Event:
    return threading.Event()


@pytest.fixture
def controller(company: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeController]:
    """Of a client that has sent something, and says of it when it has waited for a minute."""
    controller = FakeController()
    monkeypatch.setattr(other_clients, "AFTER_S", TIMEOUT_S)
    announcer = QueueReporter(cast(RequestSender, FakePost()), cast(ControllerClient, controller), "ann", company)
    company.set()
    announcer.stir()
    yield controller
    announcer.close()


def test_an_engine_that_is_silent_is_told_of_at_once_where_there_are_others_and_once(
    controller: FakeController,
) -> None:
    [entry] = controller.told.get(timeout=TIMEOUT_S / 2)
    assert (entry.request, entry.engine_id, entry.outcome, entry.completed) == (SILENT.request_id, 0, QUEUED, None)
    with pytest.raises(Empty):
        controller.told.get(timeout=5 * other_clients.SILENT_S)
