"""The client's half of peeks: values of expressions and variables of busy engines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors import (
    CompositeError,
    EngineLost,
    EngineSilent,
    NoSuchEngine,
    NsactorsError,
    TimeLimitExceeded,
    as_text,
    bytes_in_words,
    engine_ranges,
    plural,
    printable,
)
from nsactors.inside.session_protocol import SessionProtocol
from nsactors.protocol.control import QueryReply
from nsactors.protocol.engine_info import EngineInfo, Recovery
from nsactors.protocol.inspection import ListVariables, Peek, PeekResult, Variable
from nsactors.protocol.serialize import ObjectGone, Payload, unpack
from nsactors.results.display.merging import engine_label
from nsactors.results.display.tables import show_pretty, table_as_html, table_as_text
from nsactors.results.outcome import with_hint

SLACK_S = 1.0  # the time for an engine to report that a peek has reached its limit
LISTED_S = 5.0


def peek(
    session: SessionProtocol, engine_ids: Sequence[int], expression: str, limit_s: float, *, as_text: bool = False
) -> dict[int, Any]:
    """Evaluate an expression on engines while they run requests; return its values by engine.

    Text that the expression prints is printed here.

    Raises:
        RemoteError: if the expression fails on the only engine. ``DirectView.peek`` lists the other errors.
        CompositeError: if it fails on one or more of several engines.
    """
    before = {i: session.directory.get(i) for i in engine_ids}
    replies = session.controller.query(engine_ids, Peek(expression, limit_s, as_text), limit_s + SLACK_S)
    values: dict[int, Any] = {}
    errors: list[Exception] = []
    for i in engine_ids:
        if (reply := replies.get(i)) is not None and isinstance(reply.value, PeekResult):
            for line in reply.value.printed.splitlines():
                print(printable(f"{engine_label([i])} {line}", "\t"))
        try:
            values[i] = _value_of(i, reply, f"peek({expression})", limit_s)
        except EngineSilent as silent:
            # The directory may learn later than the controller that the process has ended.
            now = {engine.engine_id: engine for engine in session.controller.state().engines}.get(i)
            errors.append(silent if now is not None and now == before[i] else _gone(session, i, before[i], silent.call))
        except Exception as error:
            errors.append(error)
    if len(errors) == 1 and len(engine_ids) == 1:
        raise errors[0]
    if errors:
        many = len(engine_ids)
        message = f"peek({expression}) failed on {len(errors)} of {many} {plural('engine', many)}"
        raise CompositeError(message, errors)
    return values


def _value_of(engine_id: int, reply: QueryReply | None, call: str, limit_s: float) -> Any:
    if reply is None:
        raise EngineSilent(engine_id, call)
    if reply.error is not None:
        raise NsactorsError(f"{call} failed on engine {engine_id}: {reply.error}")
    result: PeekResult = reply.value
    if result.failure is not None:
        raise with_hint(result.failure).to_exception(lambda dumped: unpack(Payload(dumped)))
    if result.value is None:
        raise TimeLimitExceeded(engine_id, call, limit_s)
    try:
        return unpack(result.value if isinstance(result.value, Payload) else result.value.load())
    except ObjectGone as gone:
        raise EngineLost(engine_id, call, str(gone)) from None


def _gone(session: SessionProtocol, engine_id: int, before: EngineInfo | None, call: str) -> NsactorsError:
    if before is None:
        return NoSuchEngine(engine_id, session.directory.ids)
    returns = before.recovery is not Recovery.NONE
    after = "It restarts: peek again when it runs its requests" if returns else ""
    return EngineLost(engine_id, call, "its process has ended", after=after)


@frozen
class Variables:
    """The variables of engines. A prompt and a notebook show a table, where engines with equal variables share a row.

    Attributes:
        by_engine: the variables of each engine, by engine id and then by name.
        silent: ids of engines that did not reply: C code holds their interpreter, or they have just gone.

    Example:
        >>> rc.variables()[0]["table"].type_name
        'ndarray float64 (10000, 100)'
    """

    by_engine: Mapping[int, Mapping[str, Variable]]
    silent: tuple[int, ...] = ()

    def __getitem__(self, engine_id: int) -> Mapping[str, Variable]:
        return self.by_engine[engine_id]

    def __len__(self) -> int:
        return len(self.by_engine)

    def __iter__(self) -> Iterator[int]:
        return iter(self.by_engine)

    def __rich__(self) -> Any:
        """Return the table."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for heading in ("name", "type", "value"):
            table.add_column(heading, overflow="fold")
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("engines", no_wrap=True)
        groups: defaultdict[Variable, list[int]] = defaultdict(list)
        for engine_id, variables in self.by_engine.items():
            for variable in variables.values():
                groups[variable].append(engine_id)
        last = ""
        for variable in sorted(groups, key=lambda one: (one.name, groups[one])):
            ids = groups[variable]
            label = "all" if len(ids) == len(self.by_engine) else engine_ranges(ids).partition(" ")[2]
            name = "" if variable.name == last else variable.name
            last = variable.name
            cells = (name, variable.type_name, variable.text, bytes_in_words(variable.size.total), label)
            table.add_row(*(as_text(printable(cell, "")) for cell in cells))
        if empty := [i for i, variables in self.by_engine.items() if not variables]:
            table.add_row("", "no names", "", "", engine_ranges(empty).partition(" ")[2], style="dim")
        if self.silent:
            table.add_row("", "no reply", "", "", engine_ranges(self.silent).partition(" ")[2], style="yellow")
        return table

    def __repr__(self) -> str:
        return table_as_text(self.__rich__())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at IPython's prompt, with colours."""
        show_pretty(printer, self.__rich__())

    def _repr_html_(self) -> str:
        return table_as_html(self.__rich__())


def variables(session: SessionProtocol, engine_ids: Sequence[int]) -> Variables:
    """Ask engines for their names."""
    replies = session.controller.query(engine_ids, ListVariables(), LISTED_S)
    found = {i: {one.name: one for one in reply.value} for i, reply in replies.items() if reply.error is None}
    return Variables({i: found[i] for i in engine_ids if i in found}, tuple(i for i in engine_ids if i not in found))
