"""Control requests: queries that an engine answers from its control thread while it is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from nsactors._frozen import frozen
from nsactors.namespace.host import EngineHost
from nsactors.namespace.memory import namespace_memory
from nsactors.namespace.namespace import Namespace
from nsactors.namespace.reply_cache import ReplyCache
from nsactors.namespace.task_runner import TaskRunner
from nsactors.protocol.control import (
    Abort,
    CollectReplies,
    Complete,
    ExplainObstacle,
    Fence,
    Inspect,
    Measure,
    MeasureIdle,
    Obstacle,
    PeekTasks,
    PlainQuery,
    QueryReply,
    StealTasks,
    StoreReplies,
)
from nsactors.protocol.engine_info import EngineMemory, NamespaceMemory, Size
from nsactors.protocol.messages import RequestId
from nsactors.protocol.sequencing import RequestStream
from nsactors.protocol.serialize import ObjectStore, Payload, StoredObject
from nsactors.protocol.wire import copied_or_stored


@frozen
class ControlRequests:
    """Answer queries from any thread.

    Args:
        engine_id: the engine.
        stream: the order of its requests.
        stream_lock: guards ``stream``.
        namespace: its namespace.
        tasks: its batches of tasks.
        replies: its reply cache.
        host: its process or thread.
        store: the object store.
        rests_s: returns how long the engine has been idle, in seconds; 0 while it is busy.
        explain: returns the reason why one of these requests has not ended after an interrupt.
        fence: lets the requests that arrive after a call to it run after those that have already arrived.
    """

    engine_id: int
    stream: RequestStream
    stream_lock: threading.Lock
    namespace: Namespace
    tasks: TaskRunner
    replies: ReplyCache
    host: EngineHost
    store: ObjectStore
    rests_s: Callable[[], float]
    explain: Callable[[frozenset[RequestId]], Obstacle | None]
    fence: Callable[[], None]

    def reply(self, query_id: int, query: PlainQuery) -> QueryReply:
        """Return the reply to a query; an error becomes its text."""
        try:
            return QueryReply(query_id, self._value(query))
        except Exception as error:
            return QueryReply(query_id, None, f"{type(error).__name__}: {error}")

    def _value(self, query: PlainQuery) -> Any:
        match query:
            case Abort(requests):
                with self.stream_lock:
                    return self.stream.abort(requests)
            case StoreReplies(client, upto):
                return self.replies.store_upto(client, upto)
            case Fence():
                return self.fence()
            case CollectReplies(requests):
                wanted = requests.get(self.engine_id, ())
                with self.stream_lock:
                    passed = {request for request, _ in wanted if self.stream.has_passed(request)}
                return self.replies.collect(wanted, passed)
            case Complete(code, cursor):
                return self.namespace.complete(code, cursor)
            case ExplainObstacle(requests):
                return self.explain(requests)
            case StealTasks(batches):
                return self.tasks.steal(batches)
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
            case MeasureIdle():
                return self.rests_s()
            case PeekTasks(batch):
                return self._small_or_stored(self.tasks.so_far(batch))

    def _small_or_stored(self, payload: Payload | None) -> Payload | StoredObject | None:
        return payload and copied_or_stored(payload, self.store.put)
