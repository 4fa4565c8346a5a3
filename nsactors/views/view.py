"""What a view of engines called by name has: a way to submit operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nsactors.core.messages import Operation
from nsactors.core.payload import Payload
from nsactors.core.targets import Targets
from nsactors.results import AsyncResult, Call, Terms, value_of
from nsactors.views.engine_view import EngineView
from nsactors.views.flags import Flags

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["View"]


class View(EngineView[Flags]):
    """Some engines of a client, each of which does what is asked of the view.

    Args:
        client: whose engines these are.
        targets: an id, a list of ids, or ``"all"``, which is looked up at each call.
        flags: see :class:`nsactors.views.flags.Flags`.
    """

    def __init__(self, client: Client, targets: Targets = "all", **flags: Any) -> None:
        super().__init__(client, Flags(targets=targets, block=client.block).changed(**flags))

    def _ask(
        self, targets: Targets, operation: Operation, label: str, block: bool | None, payload: Payload | None = None
    ) -> Any:
        """Submit an operation: its result, or its value if the caller waits for it."""
        ids, single, session = self._resolve(targets), self._single(targets), self.client.session
        if self._blocks(block):
            calls = self._send(ids, operation, payload, awaited=True)
            return value_of(session, calls, label=label, single=single)
        return AsyncResult(session, self._send(ids, operation, payload), label=label, single=single)

    def _send(
        self,
        ids: list[int],
        operation: Operation,
        payload: Payload | None = None,
        timeout: float | None = None,
        *,
        awaited: bool = False,
        relayed: bool = False,
    ) -> list[Call]:
        """Submit an operation as this view's flags say."""
        flags = self._flags
        limit_s = flags.timeout if timeout is None else timeout
        terms = Terms(limit_s, flags.stop_on_error, flags.copy, flags.journal)
        return self.client.session.submit(ids, operation, payload, terms, awaited=awaited, relayed=relayed)
