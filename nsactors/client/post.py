"""A client's requests on their way to engines, and their answers on the way back.

Callers send; the transport's own thread, or a caller who waits, settles calls as their replies come in: the way to
somebody who waits has one thread less. What may take longer than a reply should is left to the session's dispatcher.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from nsactors.client.letters import Letter, Line, loss_of, not_repeated, send_together
from nsactors.client.outcomes import read_outcome
from nsactors.client.overtaken import Overtaken, RecentCalls
from nsactors.core.cluster import EngineInfo, EngineLeft
from nsactors.core.messages import (
    Execute,
    Expired,
    Failed,
    Instruction,
    Operation,
    OutputBatch,
    Refused,
    Reply,
    RequestId,
    StreamText,
)
from nsactors.core.payload import Payload
from nsactors.core.stream import SendWindow
from nsactors.errors import ClusterUnreachable, EngineLost
from nsactors.results import Call, Terms
from nsactors.transport.base import EngineGone, Transport

__all__ = ["Post"]

WINDOW = 1_000  # calls in flight to one engine: each held reference costs Ray 15 to 18 kB that it never gives back
LOSSES = 2  # deaths of an engine with the same request in front after which it is sent once more; then no more
LARGE_BYTES = 250_000  # a pickle that takes half a millisecond to unpickle, or more
TAKE_S = 0.05  # who waits takes quick answers by itself, and is woken for others

Settle = Callable[[Call, Any, Exception | None], None]


class Post:
    """Numbers requests, keeps a window of them in flight to each engine, and settles each exactly once.

    Args:
        transport: the way to the engines.
        client: the name that the requests bear.
        settle: called with every call that has ended; it ends the call.
        later: runs a function soon, on another thread.
        lost: called when the transport says that an engine is gone.
    """

    def __init__(
        self,
        transport: Transport,
        client: str,
        *,
        settle: Settle,
        later: Callable[[Callable[[], object]], object],
        lost: Callable[[EngineInfo, EngineGone], object],
    ) -> None:
        self._transport = transport
        self._client = client
        self._settle = settle
        self._later = later
        self._lost = lost
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._lines: dict[int, Line] = {}
        self._open: dict[RequestId, Letter] = {}
        self._recent = RecentCalls()
        self._overtaken = Overtaken()

    def submit(
        self,
        engine_ids: Sequence[int],
        operation: Operation,
        payload: Payload | None,
        terms: Terms,
        *,
        awaited: bool,
        relayed: bool,
    ) -> list[Call]:
        """Send one operation to several engines; it is encoded and stored once.

        Arguments are those of ``Session.submit``; there need not be relays.
        """
        instruction = Instruction(self._client, operation, terms.limit_s, terms.stops_on_error, terms.journalled)
        prepared = self._transport.prepare(instruction, payload)
        label, executes = instruction.label, isinstance(operation, Execute)
        relayed = relayed and self._transport.relays is not None
        calls, strangers, leaving = [], [], []
        # Numbered and sent under one lock, or a newer request would go first and this one be refused as a repeated one.
        with self._lock:
            for engine_id in engine_ids:
                number = RequestId(self._client, next(self._numbers))
                call = Call(number, engine_id, label, executes, terms.copies)
                calls.append(call)
                line = self._lines.get(engine_id)
                if line is None or (line.away and terms.carries_tasks):
                    strangers.append(call)
                    continue
                letter = self._open[number] = Letter(
                    call, line, line.stops_seen, prepared, terms.stops_on_error, relayed, terms.carries_tasks
                )
                if not line.away and self._offer(letter):
                    leaving.append(letter)
            self._send(leaving)
            if not awaited or relayed:
                self._listen(leaving)
        for call in strangers:  # they left between the look-up of targets and now
            self.end(call, None, EngineLost(call.engine_id, label, "it left before the request was sent"))
        return calls

    def take(self, calls: Sequence[Call]) -> bool:
        """Wait a moment for the answers of calls that were submitted to be awaited; whether they are all here.

        If they are not, or if this is interrupted, they come by themselves from now on.
        """
        sent: list[Letter] = []
        delivered = None
        try:
            with self._lock:  # claimed: nobody else listens for these answers meanwhile
                letters = [self._open.get(call.request_id) for call in calls]
                sent = [i for i in letters if i is not None and i.pending is not None and not i.heard]
                for letter in sent:
                    letter.heard = True
            if len(sent) == len(calls):
                delivered = self._transport.take([letter.pending for letter in sent], TAKE_S)
            for letter, content in zip(sent, delivered or (), strict=False):
                self._deliver(letter, letter.line.window, content)
        except BaseException:  # Ctrl-C between an answer and its call's end: another thread goes on with it
            for letter, content in zip(sent, delivered or (), strict=False):
                if letter.pending is None and not letter.call.done:
                    self._later(partial(self._deliver, letter, letter.line.window, content))
            raise
        finally:  # after Ctrl-C while one is unpickled, too: it is brought again
            if left := [letter for letter in sent if delivered is None or not letter.call.done]:
                for letter in left:
                    letter.heard = letter.pending is None
                self._listen(left)
        return delivered is not None and all(call.done for call in calls)

    def listen_to_strays(self, sent_before: float) -> None:
        """See to the answers that nobody has come to take: whoever was to take them has been interrupted."""
        self._listen([letter for letter in self.open_letters() if letter.call.submitted < sent_before])

    def withdraw(self, calls: Iterable[Call]) -> list[Call]:
        """Those of ``calls`` that have not been sent; they will not be."""
        requests = {call.request_id for call in calls}
        with self._lock:
            withdrawn = [
                letter.call
                for line in self._lines.values()
                for letter in line.window.take_back(lambda letter: letter.call.request_id in requests)
            ]
            held = [i for request in requests if (i := self._open.get(request)) and i.engine is None]
            for letter in held:  # or it might be sent before it is ended
                del self._open[letter.call.request_id]
            return withdrawn + [letter.call for letter in held]

    def open_calls(self) -> list[Call]:
        """Calls that have not been answered, in order of submission; without those that carry tasks."""
        with self._lock:
            return [i.call for i in self._open.values() if not (i.call.done or i.carries_tasks)]

    def open_letters(self) -> list[Letter]:
        """Requests that have not been answered, sent or not, in order of submission."""
        with self._lock:
            return [letter for letter in self._open.values() if not letter.call.done]

    def add_engine(self, engine: EngineInfo) -> None:
        """An engine takes requests; what was held for it is sent."""
        with self._lock:
            line = self._lines.setdefault(engine.engine_id, Line(engine, SendWindow(WINDOW)))
            if line.engine == engine:
                return
            held = [letter for letter in self._letters_of(line) if line.replays or letter.engine is None]
            line.engine, line.window, line.stops_seen, line.away = engine, SendWindow(WINDOW), 0, False
            for place, letter in enumerate(held):
                letter.take_back(in_front=place == 0)
            if held and held[0].losses > LOSSES:
                self._later(partial(self.end, held[0].call, None, not_repeated(held.pop(0).call)))
            for letter in held:
                if self._offer(letter):
                    self._send([letter])
                    self._listen([letter])

    def engine_left(self, left: EngineLeft) -> list[Call]:
        """An engine takes no requests, for good or for a while; the calls that nobody will answer.

        Those that were sent and are not to be repeated fail by themselves, when the transport says so.
        """
        with self._lock:
            line = self._lines.get(left.engine_id)
            if line is None or line.engine.incarnation != left.incarnation:
                return []
            was_away, line.away, line.replays = line.away, left.returns, left.replays
            carriers = [letter.call for letter in self._letters_of(line) if letter.carries_tasks]
            if left.returns and left.replays:
                return carriers
            if not left.returns:
                del self._lines[left.engine_id]
            unanswered = line.window.drain()
            if was_away:  # what was sent has been waiting for the next incarnation
                unanswered = [letter for letter in self._letters_of(line) if letter.engine or not left.returns]
            return carriers + [letter.call for letter in unanswered if not letter.carries_tasks]

    def take_output(self, batch: OutputBatch) -> None:
        """Output that came by way of the controller, before its call's reply or after it."""
        call = self.find(batch.request)
        if call is None:
            return
        with self._lock:
            call.output.add(batch)
            overtaken = call.output.complete and self._overtaken.remove(call)
        call.output_arrived()
        if overtaken:
            self.end(call, call.value, call.error)

    @property
    def seconds_to_overdue(self) -> float | None:
        """Until :meth:`settle_overdue` has something to do; None if nothing is awaited."""
        return self._overtaken.seconds_left

    def settle_overdue(self) -> None:
        """End the calls whose output has not followed their reply."""
        with self._lock:
            overdue = self._overtaken.take_overdue()
        for call in overdue:
            call.output.chunks.append(StreamText("stderr", "[nsactors: output was lost on its way]\n"))
            self.end(call, call.value, call.error)

    def find(self, request: RequestId) -> Call | None:
        """The call with this number, if it is open, or somebody still holds it."""
        letter = self._open.get(request)
        return self._recent.get(request) if letter is None else letter.call

    def _letters_of(self, line: Line) -> list[Letter]:
        """What has not been answered of what was sent this way, in order."""
        return [letter for letter in self._open.values() if letter.line is line and not letter.call.done]

    def _offer(self, letter: Letter) -> bool:
        letter.engine = letter.line.engine
        return letter.line.window.offer(letter, letter.relayed) is not None

    def _send(self, letters: Sequence[Letter]) -> None:
        """Send letters that say the same and go the same way."""
        try:
            send_together(self._transport, letters)
        except Exception as error:
            # It may be their turn long after the caller has gone on: the calls themselves must say what became of them.
            failure = ClusterUnreachable("the engine", f"{type(error).__name__}: {error}")
            for letter in letters:
                if letter.pending is None:
                    self._make_room(letter.line.window)
                    self.end(letter.call, None, failure)

    def _listen(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            with self._lock:
                pending = None if letter.heard else letter.pending
                letter.heard = letter.heard or pending is not None
            if pending is not None:
                deliver = partial(self._deliver, letter, letter.line.window, lingers=False)
                self._transport.when_answered(pending, deliver)

    def _send_waiting(self, window: SendWindow[Letter]) -> None:
        with self._lock:
            while letter := window.next():
                self._send([letter])
                self._listen([letter])

    def _deliver(self, letter: Letter, window: SendWindow[Letter], content: Any, *, lingers: bool = True) -> None:
        """Take what came back for a letter sent through this window; quickly, unless the thread may linger."""
        engine = letter.engine
        assert engine is not None, "what has been answered has been sent"
        try:
            reply, payload = self._transport.open(engine, content)
        except EngineGone as gone:
            if window is letter.line.window or engine is not letter.line.engine:  # else it has been sent again
                self._later(partial(self._take_loss, letter, engine, gone))
        except Exception as error:  # a reply that cannot be read is an error of that call, not of this thread
            self._make_room(window)
            self.end(letter.call, None, error)
        else:
            if lingers or payload is None or len(payload.data) < LARGE_BYTES:
                self._take_reply(letter, engine, window, reply, payload)
            else:
                self._later(partial(self._take_reply, letter, engine, window, reply, payload))

    def _make_room(self, window: SendWindow[Letter]) -> None:
        # The window it was sent through: by now the engine may have been brought back, and have another.
        with self._lock:
            if window.settle():
                self._later(partial(self._send_waiting, window))

    def _take_reply(
        self, letter: Letter, engine: EngineInfo, window: SendWindow[Letter], reply: Reply, payload: Payload | None
    ) -> None:
        call = letter.call
        call.started, call.completed, call.execution_count = reply.started, reply.completed, reply.execution_count
        value, error = read_outcome(call, reply.outcome, payload)
        if letter.repeated and isinstance(reply.outcome, Refused):
            error = not_repeated(call)
        with self._lock:
            if letter.pending is not None:  # else this was interrupted after it
                letter.pending = None
                self._make_room(window)
                if letter.stops_on_error and isinstance(reply.outcome, Failed | Expired):
                    letter.line.stops_seen += engine is letter.line.engine
            call.output.finish(reply.tail)
            complete = call.output.complete
            if not complete:
                call.value, call.error = value, error
                self._overtaken.add(call)
                self._later(_look_at_the_clock)
        call.output_arrived()
        if complete:
            self.end(call, value, error)

    def _take_loss(self, letter: Letter, engine: EngineInfo, gone: EngineGone) -> None:
        self._lost(engine, gone)
        line, call = letter.line, letter.call
        with self._lock:
            waits = line.replays and (line.away or line.engine != engine)
        if not waits:
            self.end(call, None, loss_of(call, engine, gone))

    def end(self, call: Call, value: Any, error: Exception | None) -> None:
        """A call has ended: with its answer, or because none will come or be waited for."""
        self._settle(call, value, error)
        # After somebody who waits has been told. What comes late is still the call's, for as long as anybody holds it.
        with self._lock:
            if self._open.pop(call.request_id, None) is not None:
                self._recent.add(call)


def _look_at_the_clock() -> None:
    """The dispatcher has a deadline to look after now."""
