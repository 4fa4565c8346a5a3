"""What is asked of engines while they are busy."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from nsactors.core.cluster import GiveBack, InterruptTasks, TellResults
from nsactors.core.messages import Capability
from nsactors.core.payload import Payload
from nsactors.core.remote_value import ObjectGone
from nsactors.core.scheduling import Interrupt, Peek, Span, TakeBack
from nsactors.errors import NsactorsError
from nsactors.transport.base import Transport

__all__ = ["Asker"]

ANSWER_S = 0.5  # an engine that does not answer for so long is held by C code, and begins nothing meanwhile
UNHURRIED_S = 10.0  # nobody waits for it


class Asker:
    """Asks engines by way of the controller, each question on a thread of its own: one may be slow to answer.

    Args:
        transport: the way to the controller.
        client: who has sent the batches.
    """

    def __init__(self, transport: Transport, client: str) -> None:
        self._transport = transport
        self._client = client

    def take_back(self, effect: TakeBack, then: Callable[[tuple[Span, ...]], None], *, hurry: bool = False) -> None:
        """Ask for what has not begun; ``then`` is called with what is given back, nothing if there is no answer.

        If the answer comes too late, the batch's reply leaves it out all the same: only then, and it may be hours away
        if something in the batch takes hours. So an answer is waited for longer than loaded machines need, unless
        somebody is in a ``hurry``.
        """
        key = (self._client, effect.batch_id)
        timeout_s = ANSWER_S if hurry else UNHURRIED_S

        def ask() -> None:
            given: tuple[Span, ...] = ()
            try:
                question = GiveBack(((key, effect.spans),))
                answers = self._transport.controller.ask([effect.engine_id], question, timeout_s)
                answer = answers.get(effect.engine_id)
                if answer is not None and answer.error is None:
                    given = answer.value[key]
            except NsactorsError:  # the controller is away: the reply will tell
                given = ()
            finally:
                then(given)

        self._start(ask)

    def peek(self, effect: Peek, then: Callable[[Payload], None]) -> None:
        """Ask for the results so far of a batch; ``then`` is called with them, if there are any.

        They come by way of the controller, large ones by the object store.
        """
        batch = (self._client, effect.batch_id)

        def ask() -> None:
            with contextlib.suppress(NsactorsError, ObjectGone):  # they come with the batch's reply
                answers = self._transport.controller.ask([effect.engine_id], TellResults(batch), UNHURRIED_S)
                answer = answers.get(effect.engine_id)
                if answer is not None and answer.value is not None:
                    then(answer.value if isinstance(answer.value, Payload) else answer.value.load())

        self._start(ask)

    def interrupt(self, effect: Interrupt) -> None:
        """Interrupt an engine if it runs one of these items, where engines can be interrupted."""
        if Capability.SIGNALS not in self._transport.capabilities:
            return
        command = InterruptTasks(self._client, effect.spans)

        def tell() -> None:
            try:
                self._transport.controller.command([effect.engine_id], command)
            except NsactorsError:  # nobody is there to be interrupted
                return

        self._start(tell)

    @staticmethod
    def _start(function: Callable[[], None]) -> None:
        threading.Thread(target=function, name="nsactors-asking", daemon=True).start()
