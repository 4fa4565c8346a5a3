"""A tree to many engines: actors that pass a client's requests on, and bring the answers back in batches.

A client that calls n engines itself makes n calls of Ray's and takes n replies. With relays it makes about the square
root of n of each, and every relay as many.
"""

from __future__ import annotations

import asyncio
import math
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from nsactors.core.wire import stamp
from nsactors.errors import ClusterUnreachable, NsactorsError
from nsactors.transport.base import Addressed, EngineGone
from nsactors.transport.ray_death import failure_of

__all__ = ["Promise", "RayRelays"]

MAX_CONCURRENCY = 10_000
BATCH_S = 0.02  # answers that come within this of the request travel together


class _Engine(NamedTuple):
    """An engine as a relay knows it."""

    engine_id: int
    address: Any
    output_path: str | None
    host: str


class RayRelay:
    """The actor class of relays. It belongs to one client, and ends with it."""

    def __init__(self) -> None:
        self._engines: dict[int, _Engine] = {}
        self._turn = 0
        self._arrived = asyncio.Condition()
        self._open: dict[int, dict[asyncio.Task[Any], int]] = {}

    async def carry(
        self,
        turn: int,
        newcomers: dict[int, _Engine],
        requests: Sequence[tuple[int, int, int]],
        body: bytes,
        large: tuple[Any, ...] | None,
    ) -> tuple[list[tuple[int, Any]], bool]:
        """Send requests on: the first answers, each with its request's position, and whether there are more to come.

        Args:
            turn: of the client's calls to this relay, the how-manieth. Ray may begin calls of an actor like this one in
                another order.
            newcomers: engines whose incarnation was not spoken of before, by id.
            requests: engine's id, number and ``stops_seen`` of each.
            body: what all of them say.
            large: what goes with it.
        """
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._turn == turn)
            try:
                self._engines.update(newcomers)
                self._open[turn] = {self._send(*request, body, large): k for k, request in enumerate(requests)}
            finally:  # those that are waiting for their turn have done nothing wrong
                self._turn += 1
                self._arrived.notify_all()
        return await self.more(turn)

    async def more(self, turn: int) -> tuple[list[tuple[int, Any]], bool]:
        """Further answers, as soon as there is one; see :meth:`carry`."""
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


async def _answer(reply: Any, engine: _Engine) -> Any:
    try:
        return await reply
    except Exception as error:  # for the client to raise
        failure = failure_of(error, engine.engine_id, engine.output_path, engine.host)
        if isinstance(failure, EngineGone | NsactorsError):  # which can travel
            return failure
        return ClusterUnreachable("the engine", f"{type(error).__name__}: {error}")


class Promise:
    """What will be the answer to one request."""

    __slots__ = ("_answer", "_listener", "_lock")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._answer: Any = None
        self._listener: Callable[[Any], None] | None = None

    def when_kept(self, listener: Callable[[Any], None]) -> None:
        """Call ``listener`` with the answer, now or later."""
        with self._lock:
            if self._answer is None:
                self._listener = listener
                return
        listener(self._answer)

    def keep(self, answer: Any) -> None:
        """The answer is here; a second one is dropped."""
        with self._lock:
            if self._answer is not None:
                return
            self._answer = answer
            listener, self._listener = self._listener, None
        if listener is not None:
            try:
                listener(answer)
            except Exception:  # it is one of many, and the others are still to hear
                traceback.print_exc()


class _Line:
    """A relay, as its client speaks to it."""

    def __init__(self, actor: Any, stopped: threading.Event) -> None:
        self._actor = actor
        self._stopped = stopped
        self._turn = 0
        self._lock = threading.Lock()
        self.engines: dict[int, int] = {}  # their incarnations, by id
        self.broken = False

    def carry(self, requests: Sequence[Addressed], body: bytes, large: tuple[Any, ...] | None) -> list[Promise]:
        newcomers = {
            engine.engine_id: _Engine(engine.engine_id, engine.address, engine.output_path, engine.host)
            for engine, _, _ in requests
            if self.engines.get(engine.engine_id) != engine.incarnation
        }
        addressed = [(engine.engine_id, seq, stops_seen) for engine, seq, stops_seen in requests]
        promises = [Promise(self._lock) for _ in requests]
        turn = self._turn
        answers = self._actor.carry.remote(turn, newcomers, addressed, body, large)
        # Not before: had this not been sent, the relay would wait for its turn for ever.
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
            if more_to_come and not self._stopped.is_set():  # a call to a Ray that has ended would start another one
                self._listen(turn, self._actor.more.remote(turn), promises)
        except Exception as error:
            self.broken = True
            failure = ClusterUnreachable("the engine", f"a relay to it has failed: {type(error).__name__}")
            for promise in promises:
                promise.keep(failure)


class RayRelays:
    """A client's relays: as many as make the tree even, each with engines of its own.

    An engine stays with its relay, so that one client's requests reach it in order.
    """

    def __init__(self, ray: Any, stopped: threading.Event) -> None:
        self._ray = ray
        self._stopped = stopped
        self._actors: list[Any] = []
        self._lines: list[_Line] = []
        self._line_of: dict[int, _Line] = {}

    def send(self, requests: Sequence[Addressed], prepared: tuple[bytes, Any]) -> list[Promise]:
        """Send one request to each of several engines; see ``Relays``."""
        groups: dict[_Line, list[int]] = {}
        for position, request in enumerate(requests):
            groups.setdefault(self._line_to(request, len(requests)), []).append(position)
        promises: dict[int, Promise] = {}
        for line, positions in groups.items():
            made = line.carry([requests[position] for position in positions], *prepared)
            promises.update(zip(positions, made, strict=True))
        return [promises[position] for position in range(len(requests))]

    def close(self) -> None:
        """End the relays; what they still wait for is dropped."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _line_to(self, request: Addressed, at_once: int) -> _Line:
        engine_id = request.engine.engine_id
        line = self._line_of.get(engine_id)
        if line is None or line.broken:
            self._lines = [line for line in self._lines if not line.broken]
            if len(self._lines) < math.isqrt(max(at_once, len(self._line_of) + 1) - 1) + 1:
                self._lines.append(self._open_line())
            line = self._line_of[engine_id] = min(self._lines, key=lambda line: len(line.engines))
        return line

    def _open_line(self) -> _Line:
        actor = self._ray.remote(RayRelay).options(num_cpus=0, max_concurrency=MAX_CONCURRENCY).remote()
        self._actors.append(actor)
        return _Line(actor, self._stopped)
