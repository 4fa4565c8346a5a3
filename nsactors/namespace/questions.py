"""What an engine answers while it is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nsactors.core.cluster import (
    Abort,
    Accept,
    Answer,
    Collect,
    Complete,
    GiveBack,
    Inspect,
    Measure,
    Question,
    Rest,
    TellResults,
)
from nsactors.core.memory import EngineMemory, NamespaceMemory, Size
from nsactors.core.payload import Payload
from nsactors.core.remote_value import ObjectStore, StoredObject
from nsactors.core.stream import InstructionStream
from nsactors.core.wire import INLINE_LIMIT_BYTES
from nsactors.namespace.answering import Answers
from nsactors.namespace.host import Host
from nsactors.namespace.memory import namespace_memory
from nsactors.namespace.namespace import Namespace
from nsactors.namespace.tasks import TaskRunner

__all__ = ["Questions"]


@dataclass(frozen=True, slots=True)
class Questions:
    """Answers questions from any thread, out of the parts of an engine that know.

    Args:
        engine_id: the engine.
        stream: which requests it has taken.
        stream_lock: held by whoever uses the stream.
        namespace: its names.
        tasks: what it has of load-balanced views.
        answers: what it has answered.
        host: where it lives.
        store: where it puts values aside.
        rests_s: for how many seconds it has had nothing to do; 0 while it has.
    """

    engine_id: int
    stream: InstructionStream
    stream_lock: threading.Lock
    namespace: Namespace
    tasks: TaskRunner
    answers: Answers
    host: Host
    store: ObjectStore
    rests_s: Callable[[], float]

    def answer(self, ticket: int, question: Question) -> Answer:
        """The answer, or what prevented it."""
        try:
            return Answer(ticket, self._value(question))
        except Exception as error:
            return Answer(ticket, None, f"{type(error).__name__}: {error}")

    def _value(self, question: Question) -> Any:
        match question:
            case Abort(requests):
                with self.stream_lock:
                    self.stream.abort(requests)
                return None
            case Accept(client, upto):
                return self.answers.accept(client, upto)
            case Collect(requests):
                wanted = requests.get(self.engine_id, ())
                with self.stream_lock:
                    passed = {request for request, _ in wanted if self.stream.has_passed(request)}
                return self.answers.collect(wanted, passed)
            case Complete(code, cursor):
                return self.namespace.complete(code, cursor)
            case GiveBack(batches):
                return self.tasks.give_back(batches)
            case Inspect(name, detail):
                return self.namespace.inspect(name, detail)
            case Measure(top):
                process, processor = self.host.memory(), self.host.processor_time()
                if top is None:
                    return EngineMemory(
                        NamespaceMemory((), len(self.namespace.names), Size()), process, None, processor
                    )
                held = namespace_memory(self.namespace.names, top)
                return EngineMemory(held, process, self.store.memory(), processor)
            case Rest():
                return self.rests_s()
            case TellResults(batch):
                return self._small_or_stored(self.tasks.so_far(batch))

    def _small_or_stored(self, payload: Payload | None) -> Payload | StoredObject | None:
        if payload is not None and (payload.refs or payload.nbytes > INLINE_LIMIT_BYTES):
            return self.store.put(payload)
        return payload and payload._replace(buffers=tuple(bytes(buffer) for buffer in payload.buffers))
