"""Maps: their functions and columns, the parts that engines get, and the calls that carry these parts."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nsactors._frozen import frozen
from nsactors.errors import Failure, WrongValue
from nsactors.errors.exception_state import traceback_of
from nsactors.errors.failure import FailedAt, set_item
from nsactors.namespace.interrupts import describe_failure
from nsactors.namespace.seeded_call import SeededCall, arguments_of_item
from nsactors.protocol import arguments as arg
from nsactors.protocol.map_functions import Seeds, WithKeywords, keywords_for, seeds_of, takes
from nsactors.protocol.messages import Apply, Capability, Operation, Reference
from nsactors.protocol.partition import (
    Block,
    Custom,
    Distribution,
    Kind,
    Partitioner,
    Positions,
    RoundRobin,
    cut,
    kind_of,
    length_of,
    own_items,
)
from nsactors.protocol.serialize import OWN_BYTES, Payload, RemoteValue, Steps, pack
from nsactors.protocol.tasks import MapItems, MapValues
from nsactors.results import AsyncMapResult, Call
from nsactors.results.outcome import FirstValues
from nsactors.session.session import Session

if TYPE_CHECKING:
    from nsactors.protocol.map_functions import Seed

# An engine's share of a map is cut in these proportions, so that the results of one piece travel while the next piece
# is computed. The last piece is smaller, because the engines are idle while its results are unpacked. Each piece costs
# 2 ms.
PIECES = (2, 1)
RULES: Mapping[str, Callable[[int], Distribution]] = {"b": Block, "r": RoundRobin}
"""The rule for each word of ``dist=``, called with an axis: contiguous parts, or items dealt out in turn."""

DISTS = tuple(RULES)

PIECE_ITEMS = 256  # fewer items are not worth a message of their own


class MapPart:
    """``function`` mapped over an engine's parts.

    Args:
        function: called with one item of each part.
        label: the name of the map for people.
    """

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        self.function = function
        self._label = label

    def __call__(self, *parts: Iterable[Any], items: tuple[Any, ...], engine_id: int) -> MapValues:
        """Map over one part of each sequence.

        Args:
            parts: at least one.
            items: the ``MapItems``, in the form in which they are sent.
            engine_id: the engine that runs this.
        """
        which = MapItems.from_value(items)
        parts = tuple(own_items(part, OWN_BYTES) for part in parts)
        values: list[Any] = []
        failures: dict[int, Failure] = {}
        ended = None

        def describe(error: BaseException, item: FailedAt | None = None) -> Failure:
            return describe_failure(error, traceback_of(error), engine_id, self._label, item)

        if which.spares:
            failed: list[_Failed] = []

            def spared(*of_one: Any) -> Any:
                try:
                    return self.function(*of_one)
                except KeyboardInterrupt:  # an interrupt ends the whole part
                    raise
                except BaseException as error:
                    failed.append(_Failed(describe(error, (-1, arguments_of_item(self.function, of_one)))))
                    return failed[-1]

            values = list(map(spared, *parts))
            if failed:
                failures = {
                    place: _numbered(value.failure, which.numbers[place])
                    for place, value in enumerate(values)
                    if type(value) is _Failed
                }
                values = [None if type(value) is _Failed else value for value in values]
        elif which.lazily:
            row: tuple[Any, ...] = ()
            try:
                for row in zip(*parts, strict=False):
                    values.append(self.function(*row))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                ended = describe(error, (which.numbers[len(values)], arguments_of_item(self.function, row)))
        else:
            values = self._results(parts, which.numbers)
        return MapValues(which, self._label, values, failures, ended, describe)

    def _results(self, parts: tuple[Iterable[Any], ...], numbers: Sequence[int]) -> list[Any]:
        # Do not use map(), which treats a StopIteration of the function as the end of the items.
        function = self.function
        first, *others = parts
        items: Iterator[Any] = iter(first)
        counter = itertools.count()
        if not (knows_rest := _knows_rest(items)):
            items = map(operator.itemgetter(1), zip(counter, items, strict=False))
        try:
            if others:
                return [function(*row) for row in zip(items, *others, strict=False)]
            return [function(item) for item in items]
        except BaseException as error:
            with suppress(BaseException):  # a sequence of the user's class may raise anything
                place = (length_of(first) - operator.length_hint(items) if knows_rest else next(counter)) - 1
                set_item(error, (numbers[place], arguments_of_item(function, _row_at(parts, place))))
            raise


def _knows_rest(items: Iterator[Any]) -> bool:
    """Return whether an iterator knows how many items are left; counting the items of others takes 40 ns an item."""
    return type(items).__module__ == "builtins" and hasattr(items, "__length_hint__")


def _row_at(parts: tuple[Any, ...], place: int) -> tuple[Any, ...]:
    """Return the items of parts at a place; an empty tuple if they cannot be read."""
    try:
        # A row that is copied when it is read is no part of a known kind, but can be read by its place.
        return tuple(
            part[place] if kind_of(part) is None else next(iter(cut(part, slice(place, place + 1)))) for part in parts
        )
    except BaseException:  # of a sequence of the user's class
        return ()


def _numbered(failure: Failure, number: int) -> Failure:
    return failure if failure.item is None else replace(failure, item=failure.item._replace(number=number))


@frozen
class _Failed:
    """Replaces the result of an item that failed."""

    failure: Failure


@frozen
class EnginePart:
    """One piece of an engine's share: parts of the sequences, and the number of the piece on the engine."""

    engine_id: int
    turn: int
    parts: tuple[Any, ...]


def work_for(
    engine_ids: Sequence[int], sequences: Sequence[Any], partitioner: Distribution, *, in_pieces: bool
) -> list[EnginePart]:
    """Spread sequences of equal length over engines, in their order; engines without a share get no piece.

    Args:
        engine_ids: the engines.
        sequences: at least one.
        partitioner: cuts each of the sequences into one part per engine.
        in_pieces: cut long parts again, so that results already return while engines still compute.
    """
    shares = zip(*(partitioner.split(seq, len(engine_ids)) for seq in sequences), strict=True)
    work = []
    for engine_id, share in zip(engine_ids, shares, strict=True):
        length = length_of(share[0])
        cuts = _cuts(length) if in_pieces else [slice(0, length)]
        work += [
            EnginePart(engine_id, turn, tuple(cut(part, at) for part in share))
            for turn, at in enumerate(cuts)
            if length
        ]
    return work


def numbers_of(work: Sequence[EnginePart], partitioner: Distribution) -> Sequence[Sequence[int]]:
    """Return the numbers of the items of each piece."""
    if isinstance(partitioner, Positions):
        return [part for part in partitioner.positions if len(part)]
    lengths = [length_of(piece.parts[0]) for piece in work]
    if isinstance(partitioner, RoundRobin):  # one piece for each engine that has any items
        step = max(1, len(work))
        return [range(first, first + length * step, step) for first, length in enumerate(lengths)]
    ends = itertools.accumulate(lengths, initial=0)
    return [range(start, stop) for start, stop in itertools.pairwise(ends)]


def _cuts(length: int) -> list[slice]:
    """Return the pieces of an engine's share, as slices of it."""
    if length < len(PIECES) * PIECE_ITEMS:
        return [slice(0, length)]
    ends = [length * part // sum(PIECES) for part in itertools.accumulate(PIECES, initial=0)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def columns_of(sequences: Sequence[Iterable[Any]], kept: Callable[[Any], Kind | None] | None = None) -> list[Any]:
    """Return columns of one length, with the rows of ``zip(*sequences)``.

    Sequences that can be cut by position stay as they are. Other sequences become lists of as many items as are needed;
    no more are taken from an iterator.

    Args:
        sequences: at least one; the shortest decides.
        kept: returns the kind of a sequence that may stay as it is, and None for any other. By default, a sequence may
            stay if iteration over it gives its items. (A data frame does not give its items.)

    Raises:
        WrongValue: if none of the sequences ends.
    """
    if not sequences:
        raise TypeError("a map needs at least one sequence")
    kinds = [(kept or _kind_by_items)(seq) for seq in sequences]
    sizes = [None if kind is None else kind.length(seq, 0) for seq, kind in zip(sequences, kinds, strict=True)]
    limit = min((size for size in sizes if size is not None), default=None)
    loose = [seq for seq, kind in zip(sequences, kinds, strict=True) if kind is None]
    if limit is None and all(map(_is_endless, loose)):
        takes = "iterables of which at least one ends (imap() takes items only as results are taken)"
        raise WrongValue("map", "sequences", sequences[0], takes)
    pulled = _pulled(loose, limit)
    length = len(pulled[0]) if pulled else limit
    lists = iter(pulled)
    return [
        next(lists) if kind is None else seq if size == length else kind.cut(seq, slice(0, length), 0)
        for seq, kind, size in zip(sequences, kinds, sizes, strict=True)
    ]


def rows_of(sequences: Sequence[Any]) -> list[Any]:
    """Return sequences, cut to the shortest; their parts keep their types, and the items of tables are rows."""
    return columns_of(sequences, kind_of)


def _kind_by_items(seq: Any) -> Kind | None:
    kind = kind_of(seq)
    return kind if kind is not None and kind.iterates else None


def _pulled(iterables: Sequence[Iterable[Any]], limit: int | None) -> list[list[Any]]:
    """Return the items of iterables, as many as the shortest has, and ``limit`` at most."""
    if len(iterables) == 1:
        return [list(itertools.islice(iterables[0], limit))]
    rows = list(itertools.islice(zip(*iterables, strict=False), limit))
    return [[row[column] for row in rows] for column in range(len(iterables))]


def _is_endless(iterable: Iterable[Any]) -> bool:
    if isinstance(iterable, itertools.repeat):
        return operator.length_hint(iterable, -1) < 0
    return isinstance(iterable, itertools.count | itertools.cycle)


def distribution_for(call: str, dist: str | Partitioner, axis: int = 0) -> Distribution:
    """Return the distribution for the ``dist`` of a call, which has been checked."""
    if not isinstance(dist, str):
        return Custom(dist, axis, call)
    return RULES[dist](axis)


def name_of(function: Any) -> str:
    """Return the name, for people, of a function, a reference to one, or another object that can be called."""
    if isinstance(function, Reference | RemoteValue):
        return function.name
    return getattr(function, "__name__", None) or type(function).__name__


class SendPart(Protocol):
    """Submits one part of a map, with the flags of a view."""

    def __call__(
        self, ids: list[int], operation: Operation, payload: Payload, *, items: MapItems | None, copies: bool
    ) -> list[Call]:
        """Return the calls, one for each of ``ids``."""
        ...


def map_in_parts(
    session: Session,
    send: SendPart,
    engine_ids: Sequence[int],
    function: Callable[..., Any],
    columns: Sequence[Any],
    label: str,
    *,
    dist: str | Partitioner,
    in_pieces: bool = False,
    ordered: bool = True,
    return_exceptions: bool = False,
    copies: bool = False,
    seed: Any = None,
) -> AsyncMapResult:
    """Call a function with each engine's parts of columns of one length.

    Args:
        session: the connection to the cluster.
        send: submits a part.
        engine_ids: the engines, in the order of their parts.
        function: called with one part of each column; a :class:`MapPart` also gets the items' numbers and the engine.
        columns: at least one.
        label: the name of the map for people.
        dist: decides which items each engine gets.
        in_pieces: cut long parts again, so that results already return while engines still compute.
        ordered: whether iteration over the result gives the items in order.
        return_exceptions: put exceptions in place of the results that they prevented.
        copies: give function and caller writable arrays.
        seed: the seed of the map's random numbers; None without a seed. With a seed, the first column has the numbers
            of the items.
    """
    partitioner = distribution_for("map", dist)
    if isinstance(partitioner, Custom):
        partitioner = partitioner.of(length_of(columns[0]), len(engine_ids))
    work = work_for(engine_ids, columns, partitioner, in_pieces=in_pieces)
    items: list[MapItems | None] = [None] * len(work)
    if isinstance(function, MapPart):
        items = [MapItems(numbers, return_exceptions) for numbers in numbers_of(work, partitioner)]
    seeded, ref_types = seed is not None, session.ref_types
    payloads = [
        pack_part(ref_types, function, piece.parts, which, piece.engine_id, label, seeded=seeded)
        for piece, which in zip(work, items, strict=True)
    ]
    operation = Apply(label, copies)
    calls: dict[int, Call] = {}
    # Every engine gets its first piece before any engine gets its second.
    for index in sorted(range(len(work)), key=lambda index: work[index].turn):
        (calls[index],) = send([work[index].engine_id], operation, payloads[index], items=items[index], copies=copies)
    lengths = [length_of(piece.parts[0]) for piece in work] if isinstance(partitioner, Block) else None
    if isinstance(partitioner, Positions):  # engines without items have no piece
        partitioner = Positions(tuple(part for part in partitioner.positions if len(part)))
    return AsyncMapResult(
        session,
        [calls[index] for index in range(len(work))],
        label=label,
        partitioner=partitioner,
        ordered=ordered,
        return_exceptions=return_exceptions,
        lengths=lengths,
        seed=seed,
    )


def pack_part(
    ref_types: tuple[type, ...],
    function: Callable[..., Any],
    parts: Sequence[Any],
    items: MapItems | None,
    engine_id: int,
    label: str,
    *,
    seeded: bool,
) -> Payload:
    """Pack a call to a map's function with an engine's parts; if ``seeded``, the first part has the numbers of items.

    Raises:
        SerializationError: naming the function or the item that cannot be pickled.
    """
    kwargs = {} if items is None else {"items": items.as_value(), "engine_id": engine_id}
    naming = partial(_name_part, label, items, 0 if seeded else 1)
    return pack((function, tuple(parts), kwargs), what=naming, ref_types=ref_types)


def _name_part(label: str, items: MapItems | None, first: int, steps: Steps) -> tuple[str, Steps]:
    """Name the part of a map that cannot be pickled; see ``pack``. ``first`` is the number of the first column."""
    match steps:
        case ["[0]", *rest]:
            return f"the function of {label}", [step for step in rest if step != ".function"]
        case ["[1]", sequence, place, *rest] if items is not None:
            number = items.numbers[int(place[1:-1])]
            return f"item {number} of sequence {int(sequence[1:-1]) + first} of {label}", rest
        case ["[1]", sequence, *rest]:
            return f"a part of sequence {int(sequence[1:-1]) + first} of {label}", rest
    return f"the call to {label}", steps


@frozen
class CallChunk:
    """A chunk of a lazy map, as a call."""

    call: Call
    length: int

    def results(self, return_exceptions: bool) -> Iterator[Any]:
        """Yield the results up to the first error, if there is one, and then raise it."""
        value, error = self.call.value, self.call.error
        if error is not None and return_exceptions:
            value, error = [error] * self.length, None
        elif isinstance(value, FirstValues):
            value, error = value
        yield from value or ()
        if error is not None:
            raise error

    @property
    def seconds(self) -> float | None:
        """The time that the chunk took, once it is known."""
        call = self.call
        return None if call.started is None or call.completed is None else call.completed - call.started


class MappedFunction(NamedTuple):
    """The function of a map, and its arguments besides the items.

    Attributes:
        given: the function, as it was given.
        name: its name for people.
        keywords: its arguments by name.
        seeds: the seeds of its items, if they have any.
    """

    given: Any
    name: str
    keywords: Mapping[str, Any] = {}
    seeds: Seeds | None = None

    @property
    def travelling(self) -> Any:
        """The function that is sent, to be called with an item of each column."""
        function = WithKeywords(self.given, self.keywords) if self.keywords else self.given
        return function if self.seeds is None else SeededCall(function, self.seeds)

    @property
    def seed(self) -> Any:
        """The seed that gives the same random numbers again; None if it has none."""
        return None if self.seeds is None else self.seeds.as_sequence()

    def columns(self, columns: Sequence[Any]) -> Sequence[Any]:
        """Return columns of one length.

        If items have seeds, the first column has their numbers, from which the seeds are made.
        """
        return columns if self.seeds is None else [range(length_of(columns[0])), *columns]

    def iterables(self, iterables: tuple[Iterable[Any], ...]) -> tuple[Iterable[Any], ...]:
        """Do as :meth:`columns` does, for iterables that may never end."""
        return iterables if self.seeds is None else (count(), *iterables)


def mapped(
    call: Callable[..., Any],
    function: Callable[..., Any],
    sequences: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
    seed: Seed | None,
    session: Session,
) -> MappedFunction:
    """Return the function of a map with its arguments besides the items.

    Args:
        call: the method of a view that is called; its keyword-only parameters are the options.
        function: the function.
        sequences: the sequences of its items.
        kwargs: arguments by name, even if the function's signature does not have them.
        keywords: other arguments by name, which are neither options nor in ``kwargs``.
        seed: see ``seeds_of``.
        session: the connection to the engines.

    Raises:
        UnknownOption: for one of ``keywords`` that the function does not take.
        CapabilityError: if there is a seed, engines are threads, and the function has no parameter ``rng``.
        InvalidArgument: if another argument has a value that it cannot have.
    """
    name = call.__name__
    arg.check(
        name,
        function=arg.function(function),
        kwargs=arg.values_by_name(kwargs),
        seed=arg.seed(seed),
    )
    if not keywords and not kwargs and seed is None:
        return MappedFunction(function, name_of(function))
    by_name = keywords_for(call, function, len(sequences), kwargs, keywords)
    seeds = seeds_of(name, seed)
    if seeds is not None and "rng" in by_name:
        raise WrongValue(name, "seed", seed, "None where the function is given an `rng`, because it would get two")
    if seeds is not None and not takes(function, "rng", len(sequences), named=True):
        session.require(
            Capability.PROCESS,
            "seed the random numbers that its threads have in common (a function with a parameter `rng` gets its own)",
        )
    return MappedFunction(function, name_of(function), by_name, seeds)
