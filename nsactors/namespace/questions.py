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
)
from nsactors.core.memory import EngineMemory
from nsactors.core.remote_value import ObjectStore
from nsactors.core.stream import InstructionStream
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
                held = namespace_memory(self.namespace.names, top)
                return EngineMemory(held, self.host.memory(), self.store.memory())
            case Rest():
                return self.rests_s()
