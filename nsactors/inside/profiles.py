"""The client's half of profiles: starts, stops, shows and saves them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from nsactors._frozen import frozen
from nsactors._version import __version__
from nsactors.errors import (
    NsactorsError,
    WrongValue,
    as_text,
    bytes_in_words,
    engine_ranges,
    plural,
    printable,
)
from nsactors.errors.failure import without_number
from nsactors.errors.formatting import reasons_by_engines
from nsactors.inside.flames import figures_of, flame_of, flame_svg, profile_stats, speedscope
from nsactors.inside.session_protocol import SessionProtocol
from nsactors.inside.stacks import short_path
from nsactors.protocol import arguments as arg
from nsactors.protocol.inspection import EngineProfile, StartProfile, StopProfile
from nsactors.protocol.serialize import Payload, unpack
from nsactors.results.display.tables import duration_in_words, heading, show_pretty, table_as_html, table_as_text
from nsactors.results.interrupting import unless_interrupted

STARTED_S, STOPPED_S = 5.0, 10.0
SHOWN = 15  # functions in the table
FEW = 30  # with fewer samples of an engine than this, the figures mean little
LEAST_INTERVAL_S = 0.001


@frozen
class _Kind:
    """The texts and formats of one kind of profile.

    Attributes:
        counted: the noun for what is counted.
        title: the title, with places for the engines, the total, and the number of what is counted.
        takes: the names of files for the profile, in words.
        endings: the endings of these names.
        unit: the unit of weights, in the word of speedscope.
        in_words: returns a weight in words.
        in_picture: returns a weight in words, for a flame graph.
        few: the number below which an engine's figures mean little.
    """

    counted: str
    title: str
    takes: str
    endings: tuple[str, ...]
    unit: str = "seconds"
    in_words: Callable[[float], str] = duration_in_words
    in_picture: Callable[[float], str] = "{:.2f} s".format
    few: int = 0


def _size_in_words(nbytes: float) -> str:
    return bytes_in_words(int(nbytes))


_KINDS = {
    "sample": _Kind(
        "sample",
        "profile of {engines}: {total} in {number}",
        "a name that ends in .prof, .json, .svg or .html",
        (".prof", ".json", ".svg", ".html"),
        few=FEW,
    ),
    "calls": _Kind(
        "call",
        "calls on {engines}: {total}",
        "a name that ends in .prof, as a profile of calls has no stacks",
        (".prof",),
    ),
    "memory": _Kind(
        "allocation",
        "memory of {engines} at its peak: {total} in {number}",
        "a name that ends in .json, .svg or .html, as .prof files hold times",
        (".json", ".svg", ".html"),
        unit="bytes",
        in_words=_size_in_words,
        in_picture=_size_in_words,
    ),
}
HOWS = tuple(_KINDS)


class FunctionTime(NamedTuple):
    """The time of a function in a profile.

    Attributes:
        name: its qualified name.
        place: its file and first line; empty for a built-in function.
        own_s: seconds in the function itself, on all engines; in a profile of memory, bytes that it has allocated.
        total_s: the same for the function and the functions that it called.
        number: the number of calls; in a profile by samples, the number of samples that found the function on the
            stack; in a profile of memory, the number of allocations.
        own: whether its code is the user's, not that of a library.
    """

    name: str
    place: str
    own_s: float
    total_s: float
    number: int
    own: bool


class Profile:
    """The time that engines spent in each function, shown as a table, and in a notebook also as a flame graph.

    ``with view.profiled() as profile:`` and ``view.profile(f)`` make it.

    Attributes:
        how: ``"sample"``, ``"calls"`` or ``"memory"``.
        by_engine: a profile of each engine alone, by id; empty within the ``with`` block.
        problems: the reason why an engine has no profile, by id.
        value: the value of the function of ``view.profile``; for several engines a list.
    """

    def __init__(self, how: str, data: Mapping[int, EngineProfile] | None = None) -> None:
        self.how = how
        self._kind = _KINDS[how]
        self.problems: dict[int, str] = {}
        self.value: Any = None
        self._data: dict[int, EngineProfile] = _with_common_cells(data or {})

    @property
    def by_engine(self) -> dict[int, Profile]:
        """A profile of each engine alone, by id."""
        return {engine_id: Profile(self.how, {engine_id: data}) for engine_id, data in self._data.items()}

    @property
    def total_s(self) -> float:
        """Seconds of all engines together; in a profile of memory, bytes."""
        return sum(sample.weight for data in self._data.values() for sample in data.samples) + sum(
            called.own_s for data in self._data.values() for called in data.calls
        )

    @property
    def samples(self) -> int:
        """The number of samples; 0 for a profile of calls."""
        return sum(sample.number for data in self._data.values() for sample in data.samples)

    def functions(self) -> list[FunctionTime]:
        """Return the functions with their times, sorted by the time spent in the function itself, longest first."""
        figures, _ = figures_of(self._data.values())
        found = [
            FunctionTime(
                function.name,
                f"{short_path(function.file)}, line {function.line}" if function.file else "",
                one.own,
                one.total,
                one.count,
                function.is_user_code,
            )
            for function, one in figures.items()
        ]
        return sorted(found, key=lambda one: (-one.own_s, -one.total_s, one.name))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile to a file, in the format that its name says; an existing file is overwritten.

        Args:
            path: ``"x.prof"`` for ``pstats`` and viewers of its files; ``"x.json"`` for speedscope, with one profile of
                all engines together and one of each engine; ``"x.svg"`` or ``"x.html"`` for a flame graph.

        Raises:
            InvalidArgument: if the name has another ending. A profile of calls has no stacks, so only ``.prof`` is
                possible; for a profile of memory, every ending except ``.prof`` is.
        """
        arg.check("save", path=arg.path(path))
        name = os.fspath(path)
        if (takes := wrong_form(name, self.how)) is not None:
            raise WrongValue("save", "path", name, takes)
        content: str | bytes
        match os.path.splitext(name)[1]:
            case ".prof":
                content = profile_stats(self._data.values())
            case ".json":
                content = speedscope(self._data, self._title(), f"nsactors {__version__}", self._kind.unit)
            case ".svg":
                content = self._flames()
            case _:
                content = f"<!doctype html><meta charset=utf-8><title>{self._title()}</title>{self._repr_html_()}"
        with open(name, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    def __rich__(self) -> Any:
        """Return the table."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(
            title=heading(self._title()),
            title_justify="left",
            caption=as_text("\n".join(self._remarks()), "yellow") if self._remarks() else None,
            caption_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for name in ("own", "", "total", plural(self._kind.counted, 2)):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("function", overflow="fold")
        table.add_column("place", overflow="fold")
        if len(self._data) > 1:
            table.add_column("most on", no_wrap=True)
        functions = self.functions()
        for function, cells in zip(functions, self._rows(functions[:SHOWN]), strict=False):
            table.add_row(*(as_text(cell, "" if function.own else "dim") for cell in cells))
        if (more := len(functions) - SHOWN) > 0:
            table.add_row("", "", "", "", as_text(f"… {more} further {plural('function', more)}", "dim"))
        return table

    def _rows(self, functions: Sequence[FunctionTime]) -> Iterator[list[str]]:
        """Yield the cells of each function."""
        words, whole = self._kind.in_words, self.total_s or 1.0
        several, most_on = len(self._data) > 1, self._most_on()
        for function in functions:
            cells = [
                words(function.own_s),
                f"{function.own_s / whole:.0%}",
                words(function.total_s),
                f"{function.number:,}",
                printable(function.name, ""),
                printable(function.place, ""),
            ]
            if several:
                cells.append(most_on.get((function.name, function.place), ""))
            yield cells

    def _most_on(self) -> dict[tuple[str, str], str]:
        """Return, for each function that has a weight of its own, the engine on which it has the most."""
        most: dict[tuple[str, str], tuple[float, int]] = {}
        for engine_id, profile in self.by_engine.items():
            for function in profile.functions():
                place = function.name, function.place
                if function.own_s > most.get(place, (0.0, 0))[0]:
                    most[place] = function.own_s, engine_id
        return {place: f"engine {i}: {self._kind.in_words(weight)}" for place, (weight, i) in most.items()}

    def _title(self) -> str:
        if not self._data:
            return "no profile" if self.problems else "no profile yet: wait until the `with` block has ended"
        return self._kind.title.format(
            engines=engine_ranges(self._data),
            total=self._kind.in_words(self.total_s) or "0 s",
            number=f"{self.samples:,} {plural(self._kind.counted, self.samples)}",
        )

    def _remarks(self) -> list[str]:
        remarks = reasons_by_engines(self.problems)
        if self.samples < self._kind.few * len(self._data):
            remarks.append("few samples: figures mean little. Measure more work, or take a shorter interval")
        return remarks

    def _flames(self) -> str:
        return flame_svg(flame_of(self._data.values()), self._title(), self._kind.in_picture)

    def __repr__(self) -> str:
        return table_as_text(self.__rich__())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at IPython's prompt, with colours."""
        show_pretty(printer, self.__rich__())

    def _repr_html_(self) -> str:
        flames = self._flames() if self.samples else ""
        return f"<div>{flames}</div>{table_as_html(self.__rich__())}"


def wrong_form(name: str, how: str) -> str | None:
    """Return, in words, the file names that a profile can be saved under; None if ``name`` is one of them."""
    kind = _KINDS[how]
    return None if os.path.splitext(name)[1] in kind.endings else kind.takes


class Profiled:
    """A ``with`` block in which engines measure the requests of a client; each entry gives a profile of its own.

    Args:
        session: the client's session.
        name: the client's name in requests.
        engine_ids: the engines.
        how: see ``view.profiled``.
        interval_s: the time between two samples in seconds.
    """

    def __init__(
        self, session: SessionProtocol, name: str, engine_ids: Sequence[int], how: str, interval_s: float
    ) -> None:
        self._session = session
        self._client = name
        self._ids = engine_ids
        self._how = how
        self._interval_s = max(LEAST_INTERVAL_S, interval_s)
        self._entered: list[tuple[str, Profile]] = []  # profiles, each with its name on engines

    def __enter__(self) -> Profile:
        profile_id, profile = f"{self._client}/{uuid.uuid4().hex}", Profile(self._how)
        start = StartProfile(profile_id, self._client, self._how, self._interval_s)
        try:
            replies = self._session.controller.query(self._ids, start, STARTED_S)
        except BaseException:
            self._stop(profile_id, profile)
            raise
        for i in self._ids:
            if (reply := replies.get(i)) is None:
                profile.problems[i] = "it did not reply when the profile began"
            elif reply.error is not None:
                profile.problems[i] = reply.error.partition(": ")[2]
        if len(profile.problems) == len(self._ids):
            self._stop(profile_id, profile)
            told = "; ".join(reasons_by_engines(profile.problems))
            raise NsactorsError(f"no engine can be profiled: {told}. rc.stack() shows the code that the engines run")
        self._entered.append((profile_id, profile))
        return profile

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop(*self._entered.pop())

    def _stop(self, profile_id: str, profile: Profile) -> None:
        wanted = [i for i in self._ids if i not in profile.problems]
        stop = StopProfile(profile_id)
        try:
            replies = unless_interrupted(lambda: self._session.controller.query(self._ids, stop, STOPPED_S))
        except KeyboardInterrupt:
            profile.problems |= dict.fromkeys(wanted, "its profile was not waited for, because of Ctrl-C")
            raise
        for i in wanted:
            reply = replies.get(i)
            if reply is None:
                gone = self._session.directory.get(i) is None
                profile.problems[i] = "it has left" if gone else "it did not reply when the profile ended"
            elif reply.error is not None:
                profile.problems[i] = reply.error.partition(": ")[2]
            else:
                payload = reply.value if isinstance(reply.value, Payload) else reply.value.load()
                profile._data[i] = EngineProfile._make(unpack(payload))
        profile._data = _with_common_cells(profile._data)


def _with_common_cells(profiles: Mapping[int, EngineProfile]) -> dict[int, EngineProfile]:
    """Return profiles in which a cell that engines have run with different numbers has one name, that of the first.

    Args:
        profiles: the profiles, by engine.
    """
    names: dict[int | str, str] = {}
    cells: dict[str, int | str] = {}
    found = {}
    for engine_id, profile in profiles.items():
        functions = []
        for function in profile.functions:
            file = function.file
            # The name of a cell of an engine does not identify its source; that of a client's cell ends in a checksum.
            cell = function.cell or (file if file.startswith("<cell ") else without_number(file))
            if cell not in names:
                is_other = cells.get(file, cell) != cell  # other code has this number on another engine
                names[cell] = f"{file[:-1]}, engine {engine_id}>" if is_other else file
                cells[names[cell]] = cell
            functions.append(function._replace(file=names[cell]))
        found[engine_id] = profile._replace(functions=tuple(functions))
    return found
