"""What every view has: engines, flags, and what it shows of itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from nsactors.core.payload import Payload, pack
from nsactors.core.targets import Targets, is_single, resolve
from nsactors.errors import NsactorsError, warn_caller
from nsactors.results import AsyncMapResult, AsyncResult
from nsactors.views.flags import Flags, TaskFlags

if TYPE_CHECKING:
    from nsactors.client import Client

__all__ = ["EngineView"]

F = TypeVar("F", Flags, TaskFlags)


class EngineView(Generic[F]):
    """Some engines of a client, and flags that say how calls to them behave.

    Args:
        client: whose engines these are.
        flags: how its calls behave.
    """

    def __init__(self, client: Client, flags: F) -> None:
        self.client = client
        self._flags: F = flags

    @property
    def targets(self) -> Targets:
        """The engines: an id, a list of ids, or ``"all"``."""
        targets: Targets = self._flags.targets
        return targets

    @targets.setter
    def targets(self, targets: Targets) -> None:
        self.set_flags(targets=targets)

    @property
    def block(self) -> bool:
        """Whether calls wait for their result and return it."""
        return bool(self._flags.block)

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
        return copy.copy(self).set_flags(**flags)

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Change flags within a ``with`` block; errors as for :meth:`set_flags`."""
        before = self._flags
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self._flags = before

    map: Callable[..., Any]

    def map_async(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """As :meth:`map`, at once."""
        result: AsyncMapResult = self.map(function, *sequences, block=False, **options)
        return result

    def map_sync(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """As :meth:`map`; waits for the list."""
        values: list[Any] = self.map(function, *sequences, block=True, **options)
        return values

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results; see ``Client.wait``."""
        return self.client.wait(jobs, timeout)

    def queue_status(self, targets: Targets = None, verbose: bool = False) -> dict[Any, Any]:
        """What each engine has to do; see ``Client.queue_status``."""
        return self.client.queue_status(self._resolve(targets), verbose)

    def shutdown(self, targets: Targets = None) -> None:
        """End the engines; see ``Client.shutdown``."""
        self.client.shutdown(self._resolve(targets))

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
