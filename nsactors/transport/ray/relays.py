"""Relays: a tree of actors that forwards a client's requests to many engines, and returns replies in batches.

A client that calls n engines itself makes n calls through Ray and receives n replies. With relays, it makes and
receives only about the square root of n, and so does every relay.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from nsactors.errors import ClusterUnreachable, NsactorsError
from nsactors.errors.reporting import print_traceback
from nsactors.protocol.engine_info import EngineInfo
from nsactors.protocol.wire import stamp
from nsactors.transport.base import ClusterEnd, EngineGone, Envelope
from nsactors.transport.ray.failures import failure_of

MAX_CONCURRENCY = 10_000
BATCH_S = 0.02  # replies within this time after the request are sent together


class _RelayedEngine(NamedTuple):
    """An engine as a relay knows it."""

    engine_id: int
    address: Any
    output_path: str | None
    host: str


class RayRelay:
    """The actor class of relays. A relay belongs to one client, and ends with it."""

    def __init__(self) -> None:
        self._engines: dict[int, _RelayedEngine] = {}
        self._turn = 0
        self._arrived = asyncio.Condition()
        self._open: dict[int, dict[asyncio.Task[Any], int]] = {}

    async def carry(
        self,
        turn: int,
        new_engines: dict[int, _RelayedEngine],
        requests: Sequence[tuple[int, int, int]],
        body: bytes,
        large: tuple[Any, ...] | None,
    ) -> tuple[list[tuple[int, Any]], bool]:
        """Forward requests; return the first replies, each with its request's position, and whether more will come.

        Args:
            turn: the number of this call among the client's calls to this relay. Ray may begin the calls of an
                asynchronous actor in another order.
            new_engines: engine incarnations that are new to this relay, by id.
            requests: engine id, number and ``stops_seen`` of each.
            body: the content that all requests share.
            large: the large payload that they share.
        """
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._turn == turn)
            try:
                self._engines.update(new_engines)
                self._open[turn] = {self._send(*request, body, large): k for k, request in enumerate(requests)}
            finally:  # an error here must not block later calls
                self._turn += 1
                self._arrived.notify_all()
        return await self.more(turn)

    async def more(self, turn: int) -> tuple[list[tuple[int, Any]], bool]:
        """Return further replies as soon as one has arrived; see :meth:`carry`."""
        still_open = self._open[turn]
        done, _ = await asyncio.wait(still_open, timeout=BATCH_S)
        if not done:
            done, _ = await asyncio.wait(still_open, return_when=asyncio.FIRST_COMPLETED)
        answers = [(still_open.pop(task), task.result()) for task in done]
        if not still_open:
            del self._open[turn]
        return answers, bool(still_open)

    def _send(self, engine_id: int, seq: int, stops_seen: int, body: bytes, large: tuple[Any, ...] | None) -> Any:
        engine = self._engines[engine_id]
        header = stamp(seq, stops_seen, body)
        if large is None:
            reply = engine.address.handle.remote(header)
        else:
            reply = engine.address.handle_large.remote(header, *large)
        return asyncio.ensure_future(_answer(reply, engine))


async def _answer(reply: Any, engine: _RelayedEngine) -> Any:
    try:
        return await reply
    except Exception as error:  # the client raises it
        failure = failure_of(error, engine.engine_id, engine.output_path, engine.host)
        if isinstance(failure, EngineGone | NsactorsError):  # these errors can be pickled
            return failure
        return ClusterUnreachable("the engine", f"{type(error).__name__}: {error}")


class Promise:
    """The future reply to one request."""

    __slots__ = ("_answer", "_listener", "_lock")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._answer: Any = None
        self._listener: Callable[[Any], None] | None = None

    @property
    def answer(self) -> Any:
        """The reply; None if it has not arrived yet."""
        return self._answer

    def when_kept(self, listener: Callable[[Any], None]) -> None:
        """Call ``listener`` with the reply, now or later."""
        with self._lock:
            if self._answer is None:
                self._listener = listener
                return
        listener(self._answer)

    def keep(self, answer: Any) -> None:
        """Set the reply; a second reply is dropped."""
        listener = None
        try:
            with self._lock:
                if self._answer is not None:
                    return
                self._answer = answer
                listener, self._listener = self._listener, None
            if listener is not None:
                listener(answer)
        except Exception:  # the other replies of the batch must still be delivered
            print_traceback()
        except BaseException:  # Ctrl-C: another thread delivers the reply, perhaps once more
            if (listener := listener or self._listener) is not None:
                threading.Thread(target=listener, args=(answer,), daemon=True).start()
            raise


class _RelayConnection:
    """A client's connection to a relay."""

    def __init__(self, actor: Any, stopped: ClusterEnd) -> None:
        self._actor = actor
        self._stopped = stopped
        self._turn = 0
        self._lock = threading.Lock()
        self.engines: dict[int, int] = {}  # the incarnations of the relay's engines, by id
        self.broken = False

    def carry(self, requests: Sequence[Envelope], body: bytes, large: tuple[Any, ...] | None) -> list[Promise]:
        new_engines = {
            engine.engine_id: _RelayedEngine(engine.engine_id, engine.address, engine.output_path, engine.host)
            for engine, _, _ in requests
            if self.engines.get(engine.engine_id) != engine.incarnation
        }
        addressed = [(engine.engine_id, seq, stops_seen) for engine, seq, stops_seen in requests]
        promises = [Promise(self._lock) for _ in requests]
        turn = self._turn
        answers = self._actor.carry.remote(turn, new_engines, addressed, body, large)
        # Count the turn only after the call: if the call failed, the relay would wait for this turn forever.
        self._turn += 1
        self.engines.update((engine.engine_id, engine.incarnation) for engine, _, _ in requests)
        self._listen(turn, answers, promises)
        return promises

    def _listen(self, turn: int, answers: Any, promises: list[Promise]) -> None:
        answers.future().add_done_callback(partial(self._take, turn, promises))

    def _take(self, turn: int, promises: list[Promise], answers: Any) -> None:
        try:
            batch, more_to_come = answers.result()
            for position, answer in batch:
                promises[position].keep(answer)
            if more_to_come and not self._stopped.is_set():  # a call would make Ray start another cluster
                self._listen(turn, self._actor.more.remote(turn), promises)
        except Exception as error:
            self.broken = True
            failure = ClusterUnreachable("the engine", f"a relay to it has failed: {type(error).__name__}")
            for promise in promises:
                promise.keep(failure)


class RayRelays:
    """A client's relays: as many as balance the tree, each with its own engines.

    An engine stays with its relay, so that one client's requests reach it in order.

    Args:
        ray: the module.
        stopped: set when the cluster has ended for this process.
        before_ray: called for each engine before a request is sent to it.
    """

    def __init__(
        self, ray: Any, stopped: ClusterEnd, before_ray: Callable[[EngineInfo], object] = lambda engine: None
    ) -> None:
        self._ray = ray
        self._before_ray = before_ray
        self._stopped = stopped
        self._actors: list[Any] = []
        self._relays: list[_RelayConnection] = []
        self._relay_of: dict[int, _RelayConnection] = {}

    def send(self, requests: Sequence[Envelope], prepared: tuple[bytes, Any]) -> list[Promise]:
        """Send one request to each of several engines; see ``Lane``."""
        groups: dict[_RelayConnection, list[int]] = {}
        for position, request in enumerate(requests):
            self._before_ray(request.engine)
            groups.setdefault(self._relay_to(request, len(requests)), []).append(position)
        promises: dict[int, Promise] = {}
        for relay, positions in groups.items():
            made = relay.carry([requests[position] for position in positions], *prepared)
            promises.update(zip(positions, made, strict=True))
        return [promises[position] for position in range(len(requests))]

    def close(self) -> None:
        """End the relays; pending requests are dropped."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _relay_to(self, request: Envelope, at_once: int) -> _RelayConnection:
        engine_id = request.engine.engine_id
        relay = self._relay_of.get(engine_id)
        if relay is None or relay.broken:
            self._relays = [relay for relay in self._relays if not relay.broken]
            if len(self._relays) < math.isqrt(max(at_once, len(self._relay_of) + 1) - 1) + 1:
                self._relays.append(self._open_relay())
            relay = self._relay_of[engine_id] = min(self._relays, key=lambda relay: len(relay.engines))
        return relay

    def _open_relay(self) -> _RelayConnection:
        actor = self._ray.remote(RayRelay).options(num_cpus=0, max_concurrency=MAX_CONCURRENCY).remote()
        self._actors.append(actor)
        return _RelayConnection(actor, self._stopped)
