"""Requests of several clients: replies to requests of others are collected, and queues of this client are reported."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.errors import (
    ClientClosed,
    ClusterUnreachable,
    ConnectionLost,
    EngineLost,
    ResultUnavailable,
    engine_ranges,
)
from nsactors.membership.history import ENGINE_LOST, QUEUED
from nsactors.protocol.control import CollectReplies, Fence, HistoryEntry, StoreReplies
from nsactors.protocol.messages import OutputBatch, RequestId
from nsactors.protocol.serialize import ObjectGone, unpack
from nsactors.protocol.stored_replies import Missing, StoredReply
from nsactors.results import Call
from nsactors.results.outcome import read_outcome
from nsactors.session.engine_directory import EngineDirectory
from nsactors.session.requests import RequestSender
from nsactors.transport.base import ControllerClient

QUERY_S = 5.0  # an engine that does not reply for this time runs C code, and is queried again
COLLECTED_AT_A_TIME = 200  # the number of replies that one query requests from one engine
SHORTEST_S, LONGEST_S = 0.02, 0.25  # the pause between two queries
PAUSE_PER_ENGINE_S = 0.005  # two hundred queries a second are a small load for the controller
MISSING_S = 2.0  # a reply that is on its way, or between two states, is found within this time


@dataclass(slots=True)
class _WantedReply:
    """A request of another client whose reply is collected.

    Attributes:
        call: the call that ends with the reply.
        missing_since: the time since which queries have found neither the reply nor a reason why it should still come;
            None if the reply is expected.
    """

    call: Call
    missing_since: float | None = None


class ReplyCollector:
    """Makes calls for requests of other clients. Like the calls of this client, they end and have output.

    Args:
        controller: passes queries on to engines.
        directory: the engines of the cluster.
        failed: called with each call that fails.
    """

    def __init__(
        self, controller: ControllerClient, directory: EngineDirectory, failed: Callable[[Call], object]
    ) -> None:
        self._controller = controller
        self._directory = directory
        self._failed = failed
        self._wanted: dict[RequestId, _WantedReply] = {}
        self._lock = threading.Lock()
        self._running = False
        self._closed = threading.Event()

    def add(self, entries: Iterable[HistoryEntry]) -> list[Call]:
        """Collect the replies to these requests; return their calls."""
        calls = []
        with self._lock:
            for entry in entries:
                wanted = self._wanted.get(entry.request)
                if wanted is None:
                    executes = entry.label == "execute"
                    call = Call(entry.request, entry.engine_id, entry.label, executes, submitted=entry.started)
                    wanted = self._wanted[entry.request] = _WantedReply(call)
                calls.append(wanted.call)
            if self._wanted and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="nsactors-collector", daemon=True).start()
        return calls

    def close(self) -> None:
        """Collect no more, and end the calls that are open."""
        self._closed.set()
        with self._lock:
            wanted = list(self._wanted.values())
        for each in wanted:
            self._end(each, None, ClientClosed())

    def _run(self) -> None:
        pause_s = SHORTEST_S
        while not self._closed.is_set():
            try:
                pause_s = SHORTEST_S if self._look() else min(2 * pause_s, LONGEST_S)
            except ClusterUnreachable:
                pause_s = LONGEST_S
            except ConnectionLost as lost:
                for each in list(self._wanted.values()):
                    self._end(each, None, lost)
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return
                engines = len({each.call.engine_id for each in self._wanted.values()})
            self._closed.wait(max(pause_s, engines * PAUSE_PER_ENGINE_S))

    def _look(self) -> bool:
        """Query all engines once; return whether the replies contained anything new."""
        engines: dict[int, list[tuple[RequestId, int]]] = {}
        with self._lock:
            wanted = dict(self._wanted)
        for request, each in wanted.items():
            engines.setdefault(each.call.engine_id, []).append((request, len(each.call.output.chunks)))
        query = CollectReplies({engine_id: tuple(asked[:COLLECTED_AT_A_TIME]) for engine_id, asked in engines.items()})
        replies = self._controller.query(engines, query, QUERY_S)
        news = False
        missing: list[tuple[_WantedReply, Missing]] = []
        for query_reply in replies.values():
            for request, found in (query_reply.value or {}).items():
                if isinstance(found, Missing):
                    missing.append((wanted[request], found))
                else:
                    wanted[request].missing_since = None
                    news |= self._take(wanted[request], found)
        there = set(self._directory.ids)
        missing += [(each, Missing.UNKNOWN) for each in wanted.values() if each.call.engine_id not in there]
        if missing:
            self._note_missing(missing)
        return news

    def _take(self, wanted: _WantedReply, found: Any) -> bool:
        call = wanted.call
        match found:
            case StoredReply():
                self._take_reply(wanted, found)
                return True
            case OutputBatch():
                call.started = call.started or time.time()
                call.output.add(found)
                call.output_arrived()
                return bool(found.chunks)
            case stored:
                try:
                    return self._take(wanted, unpack(stored.load()))
                except ObjectGone as gone:
                    self._end(wanted, None, ResultUnavailable(str(call.request_id), str(gone)))
                    return True

    def _take_reply(self, wanted: _WantedReply, stored: StoredReply) -> None:
        call = wanted.call
        reply = stored.reply()
        call.started, call.completed, call.execution_count = reply.started, reply.completed, reply.execution_count
        call.output.finish(reply.tail)
        value, error = None, None
        try:
            value, error = read_outcome(call, reply.outcome, stored.load())
        except ObjectGone as gone:
            error = ResultUnavailable(str(call.request_id), str(gone))
        call.output_arrived()
        self._end(wanted, value, error)

    def _note_missing(self, missing: Iterable[tuple[_WantedReply, Missing]]) -> None:
        now = time.monotonic()
        clients = set(self._controller.clients())
        for wanted, why in missing:
            call = wanted.call
            if why is Missing.DROPPED:
                reason = (
                    f"engine {call.engine_id} stores a limited number of replies, and newer ones have taken its place"
                )
                self._end(wanted, None, ResultUnavailable(str(call.request_id), reason))
            elif why is Missing.AHEAD or (why is Missing.ABSENT and call.request_id.client in clients):
                wanted.missing_since = None  # the reply will come
            elif wanted.missing_since is None:
                wanted.missing_since = now
            elif now - wanted.missing_since > MISSING_S:
                self._end(wanted, None, self._explain(call))

    def _explain(self, call: Call) -> Exception:
        """Return the error with the reason why there will be no reply."""
        entries = self._controller.history(call.request_id.client, call.engine_id, None)
        entry = next((e for e in reversed(entries) if e.request == call.request_id), None)
        if entry is not None and entry.outcome == ENGINE_LOST:
            reason = "the cluster's history reports this; its client had already left"
            return EngineLost(
                call.engine_id, call.label, reason, after="rc.ids lists the engines there are", began=None
            )
        if entry is not None and entry.completed is not None:
            reason = f"the process of engine {call.engine_id} that gave it has ended since"
        else:
            reason = (
                f"it never began: when its client ended it had not reached engine {call.engine_id}, "
                "or large data for it was lost with the client"
            )
        return ResultUnavailable(str(call.request_id), reason)

    def _end(self, wanted: _WantedReply, value: Any, error: Exception | None) -> None:
        with self._lock:
            self._wanted.pop(wanted.call.request_id, None)
        wanted.call.settle(value, error, self._failed)


AFTER_S = 0.25  # a request is announced when it has waited for this time
SILENT_S = 0.03  # or for this time, if its engine has sent no reply during it and there are other clients
ANNOUNCED_AT_A_TIME = 250  # a thousand a second; more would cost the controller time for calls that end soon
ANNOUNCE_S = 30.0
LOOK_S = 0.02
LEAVING_S = 0.5


class QueueReporter:
    """Records in the cluster's history which requests wait at their engines, because engines do not know their queues.

    Args:
        sender: sends the requests.
        controller: keeps the history.
        client: the name of the client that sends the requests.
        company: set when there are other clients.
    """

    def __init__(
        self, sender: RequestSender, controller: ControllerClient, client: str, company: threading.Event
    ) -> None:
        self._company = company
        self._sender = sender
        self._controller = controller
        self._client = client
        self._announced: set[RequestId] = set()
        self._lock = threading.Lock()
        self._stirred = threading.Event()
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="nsactors-announcer", daemon=True).start()

    def stir(self) -> None:
        """Check the queues soon, because a request has been sent."""
        if not self._stirred.is_set():  # this check is quicker than setting the event again
            self._stirred.set()

    def flush(self, timeout_s: float) -> None:
        """Return when all requests so far are safe from the end of this process; see ``Client.flush``.

        Raises:
            TimeoutError: if they are not safe in time.
            ConnectionLost: if the cluster is gone.
        """
        deadline = time.monotonic() + timeout_s
        while self._holds_back() and time.monotonic() < deadline:
            self._closed.wait(LOOK_S)
        calls = self._sent_calls()
        if calls:
            self._announce(calls, timeout_s=timeout_s)
            accepted = self._ask_to_accept(calls, max(0.0, deadline - time.monotonic()))
            silent = {call.engine_id for call in calls if call.engine_id not in accepted and not call.done}
            if silent:
                raise TimeoutError(f"{engine_ranges(silent)} did not say that what was sent has arrived")
        if self._holds_back():
            raise TimeoutError(f"not everything could be sent within {timeout_s:g} s: engines have too much to do")

    def _ask_to_accept(self, calls: Sequence[Call], timeout_s: float) -> set[int]:
        """Return the engines at which these calls have arrived."""
        self._sender.make_safe()
        give_up = time.monotonic() + timeout_s
        upto = max(call.request_id.seq for call in calls)
        replies = self._controller.query(
            {call.engine_id for call in calls}, StoreReplies(self._client, upto), timeout_s
        )
        accepted = set()
        for engine_id, reply in replies.items():
            if reply.error is None:
                with contextlib.suppress(ObjectGone):  # the engine has died after its reply
                    reply.value.load()
                    accepted.add(engine_id)
        # Because of the fence, requests that other clients send from now on do not run before these requests.
        fenced = self._controller.query(accepted, Fence(), max(0.0, give_up - time.monotonic()))
        return {engine_id for engine_id in accepted if engine_id in fenced}

    def close(self) -> None:
        """Make open requests safe from the end of this process, and announce no more from now on."""
        with contextlib.suppress(ConnectionLost, TimeoutError):
            self.flush(LEAVING_S)
        self._closed.set()
        self._stirred.set()

    def _sent_calls(self) -> list[Call]:
        return [request.call for request in self._sender.open_requests() if request.handle is not None]

    def _holds_back(self) -> bool:
        """Return whether requests have not been sent, because the send window is full or their engine restarts."""
        return any(request.handle is None for request in self._sender.open_requests())

    def _run(self) -> None:
        while True:
            self._stirred.wait()
            if self._wait():
                return
            self._stirred.clear()
            self._look()

    def _look(self) -> None:
        """Announce the requests that have waited. When this returns, none of its variables keeps their values alive."""
        self._sender.listen_to_strays(time.time() - AFTER_S)
        calls = self._sent_calls()
        with contextlib.suppress(ConnectionLost):  # these requests are announced with the next ones
            self._announce(calls, sent_before=time.time() - AFTER_S, at_most=ANNOUNCED_AT_A_TIME)
        if len(calls) > len(self._announced):
            self._stirred.set()

    def _wait(self) -> bool:
        """Wait for ``AFTER_S``, and announce requests at silent engines during the wait; return whether to end."""
        until = time.monotonic() + AFTER_S
        while (left_s := until - time.monotonic()) > 0:
            if self._closed.wait(min(left_s, SILENT_S) if self._company.is_set() else left_s):
                return True
            if self._company.is_set():
                with contextlib.suppress(ConnectionLost):  # these requests are announced with the others
                    self._announce_silent(self._sender.silent(time.time() - SILENT_S))
        return self._closed.is_set()

    def _announce_silent(self, calls: Sequence[Call]) -> None:
        # These are the first calls of their engines; the calls behind them are announced when they have waited longer.
        with self._lock:
            if news := [call for call in calls if call.request_id not in self._announced]:
                self._controller.announce([_entry(call) for call in news], ANNOUNCE_S)
                self._announced.update(call.request_id for call in news)

    def _announce(
        self,
        calls: Sequence[Call],
        *,
        sent_before: float = math.inf,
        at_most: int | None = None,
        timeout_s: float = ANNOUNCE_S,
    ) -> None:
        """Announce calls that have not been announced yet; ``calls`` are all calls that have been sent and are open."""
        with self._lock:
            self._announced &= {call.request_id for call in calls}
            news = [c for c in calls if c.submitted < sent_before and c.request_id not in self._announced][:at_most]
            if news:
                self._controller.announce([_entry(call) for call in news], timeout_s)
                self._announced.update(call.request_id for call in news)


def _entry(call: Call) -> HistoryEntry:
    return HistoryEntry(call.request_id, call.engine_id, call.label, call.label, call.submitted, None, QUEUED)
