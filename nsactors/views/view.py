"""What every view has: targets, flags, and a way to submit operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from nsactors.core.messages import Operation
from nsactors.core.payload import Payload, pack
from nsactors.core.targets import Targets, is_single, resolve
from nsactors.errors import NsactorsError, warn_caller
from nsactors.results import AsyncResult, Call, Terms, value_of
from nsactors.views.flags import Flags

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["View"]


class View:
    """Some engines of a client, and how calls to them behave.

    Args:
        client: whose engines these are.
        targets: an id, a list of ids, or ``"all"``, which is looked up at each call.
        flags: see :class:`nsactors.views.flags.Flags`.
    """

    def __init__(self, client: Client, targets: Targets = "all", **flags: Any) -> None:
        self.client = client
        self._flags = Flags(targets=targets, block=client.block).changed(**flags)

    @property
    def targets(self) -> Targets:
        """The engines: an id, a list of ids, or ``"all"``."""
        return self._flags.targets

    @targets.setter
    def targets(self, targets: Targets) -> None:
        self.set_flags(targets=targets)

    @property
    def block(self) -> bool:
        """Whether calls wait for their result and return it."""
        return self._flags.block

    @block.setter
    def block(self, block: bool) -> None:
        self.set_flags(block=block)

    def set_flags(self, **flags: Any) -> Self:
        """Change flags; the view itself is returned.

        Raises:
            UnknownFlag: if one does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
        """
        changed = self._flags.changed(**flags)
        resolve(changed.targets, self.client.ids)
        self._flags = changed
        return self

    def with_flags(self, **flags: Any) -> Self:
        """Another view of the same engines, with some flags changed; errors as for :meth:`set_flags`."""
        return type(self)(self.client, self.targets).set_flags(**{**asdict(self._flags), **flags})

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Change flags within a ``with`` block; errors as for :meth:`set_flags`."""
        before = self._flags
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self._flags = before

    def __len__(self) -> int:
        return len(self._resolve(None))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.targets}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """At IPython's prompt: the engines and what they do."""
        from nsactors.client.forms import engines_in_words

        printer.text(f"<{type(self).__name__}: {engines_in_words(self.client.session, self._engines_now())}>")

    def __rich__(self) -> Any:
        """A table of the engines."""
        from nsactors.client.forms import engine_table

        return engine_table(self.client.session, type(self).__name__, self._engines_now())

    def _repr_html_(self) -> str:
        from nsactors.client.forms import table_as_html

        return table_as_html(self.__rich__())

    def _engines_now(self) -> list[int]:
        """The engines to show: none, where there is no cluster any more, or the targets have left it."""
        try:
            return self._resolve(None)
        except NsactorsError:
            return []

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

    def _pack(self, value: Any, what: str) -> Any:
        return pack(value, what=what, ref_types=self.client.session.transport.ref_types)

    def _warn_of_data(self, payload: Payload, function: Any, args: Any = (), kwargs: Any = None) -> None:
        for warning in self.client.carried_data.notice(payload, function, args, kwargs):
            warn_caller(warning)

    def _finish(self, result: AsyncResult, block: bool | None) -> Any:
        return result.get() if self._blocks(block) else result

    def _copies(self, copy: bool | None) -> bool:
        return self._flags.copy if copy is None else copy

    def _blocks(self, block: bool | None) -> bool:
        return self.block if block is None else block

    def _resolve(self, targets: Targets) -> list[int]:
        return resolve(self.targets if targets is None else targets, self.client.ids)

    def _single(self, targets: Targets) -> bool:
        return is_single(self.targets if targets is None else targets)
