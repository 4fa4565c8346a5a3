"""The base of views: the methods that all views have."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from nsactors.errors import NsactorsError, suggest_name, warn_caller
from nsactors.inside.profiles import HOWS, Profile, Profiled
from nsactors.protocol import arguments as arg
from nsactors.protocol.serialize import Naming, Payload, pack
from nsactors.protocol.targets import Targets
from nsactors.results import AsyncMapResult
from nsactors.views.flags import Flags, TaskFlags
from nsactors.views.view_client import ViewClient

F = TypeVar("F", Flags, TaskFlags)


class EngineView(Generic[F]):
    """Some engines of a client, and the flags of calls to them.

    Args:
        client: the client of the cluster.
        flags: the flags of its calls.
    """

    _why_unsendable = (
        "a view cannot leave its client's process: make a client on the engine, with Client(cluster.connection_info())"
    )

    def __init__(self, client: ViewClient, flags: F) -> None:
        self._client = client
        self._session = client.session
        self._flags: F = flags

    if not TYPE_CHECKING:
        __getattr__ = suggest_name

    @property
    def client(self) -> Any:
        """The client of the cluster."""
        # Typed Any, because users call methods of Client that the protocol ViewClient does not list.
        return self._client

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
        """True if calls wait for their result and return it."""
        return bool(self._flags.block)

    @block.setter
    def block(self, block: bool) -> None:
        self.set_flags(block=block)

    @property
    def output(self) -> str | None:
        """The choice for the output of calls: ``"show"``, ``"keep"``, or None for the choice of the client."""
        return self._flags.output

    @output.setter
    def output(self, output: str | None) -> None:
        self.set_flags(output=output)

    def set_flags(self, **flags: Any) -> Self:
        """Change flags and return the view itself.

        Raises:
            UnknownFlag: if a flag does not exist; nothing is changed then.
            TargetError: if ``targets`` names no engines of this cluster.
        """
        new = self._flags_with("set_flags", flags)
        if "targets" not in flags:
            self._session.resolve(new.targets)  # they may have left the cluster
        self._flags = new
        return self

    def with_flags(self, **flags: Any) -> Self:
        """Return another view of the same engines, with some flags changed; errors as for :meth:`set_flags`."""
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
    apply: Callable[..., Any]

    def map_async(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """Like :meth:`map`, but return the result at once."""
        result: AsyncMapResult = self.map(function, *sequences, block=False, **options)
        return result

    def map_sync(self, function: Callable[..., Any], *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """Like :meth:`map`, but wait for the list."""
        values: list[Any] = self.map(function, *sequences, block=True, **options)
        return values

    def profiled(self, *, how: str = "sample", interval: float = 0.01) -> Profiled:
        """Measure where the engines spend their time during a ``with`` block; ``as`` gives the ``Profile``.

        The profile includes all requests of this client on the engines: cells, calls, maps, and tasks that are not
        detached.

        Args:
            how: ``"sample"``: look at the running code now and then, which takes little time. ``"calls"``: count and
                time every function call in requests that begin within the block; code with many short calls takes
                several times as long. ``"memory"``: find with memray which allocations of requests are alive at the
                peak of each engine's memory; this needs ``pip install nsactors[memory]`` where the engines are.
            interval: seconds between two samples.

        Example:
            >>> with rc[:].profiled() as profile:
            ...     rc[:].map_sync(simulate, range(100))
            >>> profile
        """
        arg.check("profiled", how=arg.choice(how, HOWS), interval=arg.number(interval, above=0))
        session = self._session
        return Profiled(session, session.name, self._resolve(None), how, float(arg.plain(interval)))

    def profile(
        self, function: Callable[..., Any], /, *args: Any, how: str = "sample", interval: float = 0.01, **kwargs: Any
    ) -> Profile:
        """Call a function on the engines, and return a profile; the function's value is ``profile.value``.

        Args:
            function: the function.
            args: its arguments.
            how: see :meth:`profiled`.
            interval: seconds between two samples.
            kwargs: the function's arguments by name.
        """
        arg.check("profile", function=arg.function(function))
        with self.profiled(how=how, interval=interval) as profile:
            value = self.with_flags(block=True).apply(function, *args, **kwargs)
        profile.value = value
        return profile

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for results; see ``Client.wait``."""
        return self._client.wait(jobs, timeout)

    def queue_status(self, targets: Targets = None, verbose: bool = False) -> dict[Any, Any]:
        """Return the work of each engine; see ``Client.queue_status``."""
        return self._client.queue_status(self._resolve(targets), verbose)

    def shutdown(self, targets: Targets = None) -> None:
        """End the engines; see ``Client.shutdown``."""
        self._client.shutdown(self._resolve(targets))

    def __len__(self) -> int:
        return len(self._resolve(None))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.targets}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print the engines and their work at IPython's prompt."""
        from nsactors.session.engine_directory import engines_in_words

        printer.text(f"<{type(self).__name__}: {engines_in_words(self._session, self._engines_now())}>")

    def __rich__(self) -> Any:
        """Return a table of the engines."""
        from nsactors.session.engine_directory import engine_table

        return engine_table(self._session, type(self).__name__, self._engines_now())

    def _repr_html_(self) -> str:
        from nsactors.results.display.tables import table_as_html

        return table_as_html(self.__rich__())

    def _flags_with(self, call: str, flags: dict[str, Any]) -> F:
        """Return this view's flags, with those given to a call in their place; errors as for :meth:`set_flags`."""
        new = self._flags.replaced(call, **flags)
        if "targets" in flags:
            self._session.resolve(new.targets)
        return new

    def _engines_now(self) -> list[int]:
        """Return the engines to show: none if there is no cluster any more, or the targets have left it."""
        try:
            return self._resolve(None)
        except NsactorsError:
            return []

    def _pack(self, value: Any, what: str | Naming) -> Payload:
        return pack(value, what=what, ref_types=self._session.ref_types)

    def _pack_names(self, names: dict[str, Any], what: str) -> Payload:
        """Pack values that engines bind to names."""
        payload = self._pack(names, what)
        self._client.carried_data.pushed(names)
        return payload

    def _warn_of_data(self, payload: Payload, function: Any, args: Any = (), kwargs: Any = None) -> None:
        for warning in self._client.carried_data.notice(payload, function, args, kwargs):
            warn_caller(warning)

    def _copies(self, copy: bool | None) -> bool:
        return self._flags.copy if copy is None else copy

    def _blocks(self, block: bool | None) -> bool:
        return self._flags.block if block is None else block

    def _resolve(self, targets: Targets) -> list[int]:
        return self._session.resolve(self._flags.targets if targets is None else targets)
