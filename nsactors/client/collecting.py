"""The answers to requests of other clients: asked for until they are there, since replies go to those who sent them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nsactors.client.outcomes import read_outcome
from nsactors.client.roster import Roster
from nsactors.core.answers import KeptAnswer, Missing
from nsactors.core.cluster import Collect, HistoryEntry
from nsactors.core.history import ENGINE_LOST
from nsactors.core.messages import OutputBatch, RequestId
from nsactors.core.payload import unpack
from nsactors.core.remote_value import ObjectGone
from nsactors.errors import ClientClosed, ClusterUnreachable, ConnectionLost, EngineLost, ResultUnavailable
from nsactors.results import Call
from nsactors.transport.base import ControllerProxy

__all__ = ["Collector"]

ASK_S = 5.0  # an engine that does not answer for so long is held by C code, and is asked again
AT_A_TIME = 200  # requests of one engine in one question
SHORTEST_S, LONGEST_S = 0.02, 0.25  # between two questions
PAUSE_PER_ENGINE_S = 0.005  # two hundred questions a second are nothing to the controller
MISSING_S = 2.0  # what is on its way, or between two states, is there before

Settle = Callable[[Call, Any, Exception | None], None]


@dataclass(slots=True)
class _Wanted:
    """A request whose answer is sought.

    Attributes:
        call: what becomes of it.
        missing_since: since when neither its engine nor its client can be the reason that there is no answer.
    """

    call: Call
    missing_since: float | None = None


class Collector:
    """Makes calls of other clients' requests: they end, and have output, as if they were one's own.

    Args:
        controller: passes the questions on.
        roster: the engines there are.
        settle: ends a call.
    """

    def __init__(self, controller: ControllerProxy, roster: Roster, settle: Settle) -> None:
        self._controller = controller
        self._roster = roster
        self._settle = settle
        self._wanted: dict[RequestId, _Wanted] = {}
        self._lock = threading.Lock()
        self._running = False
        self._closed = threading.Event()

    def add(self, entries: Iterable[HistoryEntry]) -> list[Call]:
        """Seek the answers to these requests."""
        calls = []
        with self._lock:
            for entry in entries:
                wanted = self._wanted.get(entry.request)
                if wanted is None:
                    executes = entry.label == "execute"
                    call = Call(entry.request, entry.engine_id, entry.label, executes, submitted=entry.started)
                    wanted = self._wanted[entry.request] = _Wanted(call)
                calls.append(wanted.call)
            if self._wanted and not self._running:
                self._running = True
                threading.Thread(target=self._run, name="nsactors-collector", daemon=True).start()
        return calls

    def close(self) -> None:
        """Seek no more; calls that are open end."""
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
        """Ask once; whether that brought anything new."""
        engines: dict[int, list[tuple[RequestId, int]]] = {}
        with self._lock:
            wanted = dict(self._wanted)
        for request, each in wanted.items():
            engines.setdefault(each.call.engine_id, []).append((request, len(each.call.output.chunks)))
        question = Collect({engine_id: tuple(asked[:AT_A_TIME]) for engine_id, asked in engines.items()})
        answers = self._controller.ask(engines, question, ASK_S)
        news = False
        missing: list[tuple[_Wanted, Missing]] = []
        for answer in answers.values():
            for request, found in (answer.value or {}).items():
                if isinstance(found, Missing):
                    missing.append((wanted[request], found))
                else:
                    wanted[request].missing_since = None
                    news |= self._take(wanted[request], found)
        there = set(self._roster.ids)
        missing += [(each, Missing.UNKNOWN) for each in wanted.values() if each.call.engine_id not in there]
        if missing:
            self._note_missing(missing)
        return news

    def _take(self, wanted: _Wanted, found: Any) -> bool:
        call = wanted.call
        match found:
            case KeptAnswer():
                self._take_answer(wanted, found)
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

    def _take_answer(self, wanted: _Wanted, answer: KeptAnswer) -> None:
        call = wanted.call
        reply = answer.reply()
        call.started, call.completed, call.execution_count = reply.started, reply.completed, reply.execution_count
        call.output.finish(reply.tail)
        value, error = None, None
        try:
            value, error = read_outcome(call, reply.outcome, answer.load())
        except ObjectGone as gone:
            error = ResultUnavailable(str(call.request_id), str(gone))
        call.output_arrived()
        self._end(wanted, value, error)

    def _note_missing(self, missing: Iterable[tuple[_Wanted, Missing]]) -> None:
        now = time.monotonic()
        clients = set(self._controller.clients())
        for wanted, why in missing:
            call = wanted.call
            if why is Missing.DROPPED:
                reason = (
                    f"engine {call.engine_id} keeps a limited number of answers, and newer ones have taken its place"
                )
                self._end(wanted, None, ResultUnavailable(str(call.request_id), reason))
            elif why is Missing.AHEAD or (why is Missing.ABSENT and call.request_id.client in clients):
                wanted.missing_since = None  # it will come
            elif wanted.missing_since is None:
                wanted.missing_since = now
            elif now - wanted.missing_since > MISSING_S:
                self._end(wanted, None, self._explain(call))

    def _explain(self, call: Call) -> Exception:
        """Why there is no answer, and there will be none."""
        entries = self._controller.history(call.request_id.client, call.engine_id, None)
        entry = next((e for e in reversed(entries) if e.request == call.request_id), None)
        if entry is not None and entry.outcome == ENGINE_LOST:
            return EngineLost(call.engine_id, call.label, "its client had gone, and this is what the history says")
        if entry is not None and entry.completed is not None:
            reason = f"the process of engine {call.engine_id} that gave it has ended since"
        else:
            reason = (
                f"it never began: when its client ended it had not reached engine {call.engine_id}, "
                "or large data that it takes went with the client"
            )
        return ResultUnavailable(str(call.request_id), reason)

    def _end(self, wanted: _Wanted, value: Any, error: Exception | None) -> None:
        with self._lock:
            self._wanted.pop(wanted.call.request_id, None)
        self._settle(wanted.call, value, error)
