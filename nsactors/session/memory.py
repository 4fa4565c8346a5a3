"""Memory of a cluster, by engine and name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsactors.errors import as_text, bytes_in_words, engine_ranges, plural
from nsactors.errors.rendering import drawn_text
from nsactors.protocol.control import Measure
from nsactors.protocol.engine_info import EngineMemory, NamespaceMemory, ProcessMemory, Size, StoreMemory
from nsactors.results.display.tables import show_pretty, table_as_html
from nsactors.transport.base import ControllerClient

REPLY_WAIT_S = 2.0
BAR_COLUMNS = 12
_WIDTH = 100
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class ClusterMemory:
    """The memory of engines and object stores, shown as tables at a prompt, in a notebook and by ``print``.

    Attributes:
        engines: the memory of each engine, by id.
        silent: ids of engines that did not reply, because C code holds their interpreter, or because they have just
            left.
        stores: the object store of each node that has one of these engines.

    Example:
        >>> rc.memory().engines[0].namespace.names[0]
        NameMemory(name='table', type_name='ndarray float64 (10000000)', size=Size(own=0, shared=80000000))
    """

    engines: Mapping[int, EngineMemory]
    silent: tuple[int, ...] = ()
    stores: tuple[StoreMemory, ...] = field(init=False)

    def __post_init__(self) -> None:
        stores = {engine.store.node_id: engine.store for engine in self.engines.values() if engine.store}
        object.__setattr__(self, "stores", tuple(stores.values()))

    def __rich__(self) -> Any:
        """Return the tables."""
        from rich.console import Group

        return Group(*self._tables())

    def __str__(self) -> str:
        return drawn_text(self.__rich__(), width=_WIDTH).rstrip()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the tables at IPython's prompt, with colours."""
        show_pretty(printer, self.__rich__())

    def _repr_html_(self) -> str:
        return "".join(table_as_html(table) for table in self._tables())

    def _tables(self) -> Iterator[Any]:
        yield self._engine_table()
        if self.stores:
            yield self._store_table()

    def _engine_table(self) -> Any:
        from rich.table import Table

        table = Table(title="what engines hold", title_justify="left")
        for heading in ("engine", "name", "type"):
            table.add_column(heading, overflow="fold")
        for heading in ("own", "shared"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, min_width=BAR_COLUMNS)
        largest = max((e.namespace.names[0].size.total for e in self.engines.values() if e.namespace.names), default=0)
        for ids, namespace in self._alike():
            label = engine_ranges(ids)
            for name, type_name, size in namespace.names:
                table.add_row(label, as_text(name), as_text(type_name), *_amounts(size), _bar(size.total, largest))
                label = ""
            count = len(namespace.names) + namespace.others
            table.add_row(label, f"{count} {plural('name', count)}", "", *_amounts(namespace.size), style="bold")
            if processes := [e.process for i in ids if (e := self.engines[i]).process is not None]:
                table.add_row("", "the process", "", _range(processes), "", style="dim", end_section=True)
        if self.silent:
            table.add_row(engine_ranges(self.silent), "no answer", "", "", "", style="yellow")
        return table

    def _store_table(self) -> Any:
        from rich.table import Table

        table = Table(title="object stores", title_justify="left")
        table.add_column("node")
        for heading in ("used", "of", "on disk"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, min_width=BAR_COLUMNS)
        for store in self.stores:
            used = min(store.used, store.capacity)
            amounts = (bytes_in_words(number) for number in (used, store.capacity, store.on_disk))
            table.add_row(as_text(store.node), *amounts, _bar(used, store.capacity))
        return table

    def _alike(self) -> list[tuple[list[int], NamespaceMemory]]:
        """Group the engines whose namespaces have equal names and sizes; return the groups by their first engines."""
        groups: dict[NamespaceMemory, list[int]] = {}
        for engine_id, memory in sorted(self.engines.items()):
            groups.setdefault(memory.namespace, []).append(engine_id)
        return [(ids, namespace) for namespace, ids in groups.items()]


def query_memory(controller: ControllerClient, engine_ids: Sequence[int], top: int) -> ClusterMemory:
    """Query the memory of engines, with the ``top`` largest names of each."""
    replies = controller.query(engine_ids, Measure(top), REPLY_WAIT_S)
    held = {engine_id: reply.value for engine_id, reply in replies.items() if reply.error is None}
    return ClusterMemory(held, tuple(engine_id for engine_id in engine_ids if engine_id not in held))


def _amounts(size: Size) -> tuple[str, str]:
    return bytes_in_words(size.own) if size.own else "", bytes_in_words(size.shared) if size.shared else ""


def _range(processes: list[ProcessMemory]) -> str:
    ends = [bytes_in_words(end(process.unique for process in processes)) for end in (min, max)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} - {ends[1]}"


def _bar(amount: int, whole: int) -> str:
    eighths = round(8 * BAR_COLUMNS * amount / whole) if whole else 0
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
