"""Sources of the records of MapReduce jobs.

A *source* cuts the input into about as many *splits* as it is asked for; a split is a function that gives its records,
and is called on an engine. Splits follow the order of the input.
"""

from __future__ import annotations

import codecs
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from nsactors.errors import WrongType
from nsactors.protocol import arguments as arg
from nsactors.protocol.partition import Block, kind_of

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = [
    "Source",
    "Split",
    "chunks",
    "csv_rows",
    "items",
    "names",
    "parquet_rows",
    "text_files",
    "text_lines",
]

Split = Callable[[], Iterable[Any]]
Source = Callable[[int], Sequence[Split]]
Path = str | os.PathLike[str]


def items(iterable: Iterable[Any]) -> Source:
    """Make each item a record; arrays are cut along their first axis."""
    arg.check("items", iterable=arg.iterable(iterable))
    kind = kind_of(iterable)
    sequence: Any = iterable if kind is not None and kind.iterates else list(iterable)
    return lambda count: [partial(iter, part) for part in Block().split(sequence, min(count, max(1, len(sequence))))]


def chunks(sequence: Sequence[Any], size: int, overlap: int = 0) -> Source:
    """Make records ``(start, part)``: parts of a text, list or array, each with the first items of the next part.

    Args:
        sequence: the text, list or array.
        size: items of a part.
        overlap: the number of items of the next part that a part also has, so that nothing is lost at the cut.

    Example:
        >>> [record for split in chunks("abcde", 2, overlap=1)(1) for record in split()]
        [(0, 'abc'), (2, 'cde'), (4, 'e')]
    """
    arg.check(
        "chunks",
        sequence=arg.iterable(sequence, "a text, a list or an array") or _sliceable(sequence),
        size=arg.whole(size, at_least=1),
        overlap=arg.whole(overlap, at_least=0),
    )
    parts = [(start, sequence[start : start + size + overlap]) for start in range(0, len(sequence), size)]
    return items(parts)


def _sliceable(sequence: Any) -> arg.Unfit | None:
    try:
        len(sequence), sequence[:0]
    except Exception:
        return arg.splittable(sequence) or arg.Unfit(sequence, "a text, a list or an array", WrongType)
    return None


def names(view: DirectView, name: str) -> Source:
    """Make a record of each item of a name, or an expression, on the engines of a view, in their order."""
    is_view = hasattr(view, "pull")  # engines import this module too, and have no views
    arg.check("names", view=None if is_view else arg.Unfit(view, "a direct view", WrongType), name=arg.text(name))
    values = view.pull(name, block=True, as_ref=True)
    splits: list[Split] = [partial(iter, value) for value in (values if isinstance(values, list) else [values])]
    return lambda count: splits


def text_files(*paths: Path, encoding: str = "utf-8", errors: str = "strict") -> Source:
    """Make records ``(path, text)``, one for each file; ``**/*.py`` and the like stand for all files they match.

    The files are read on the engines, and must be found there under the same paths.
    """
    arg.check("text_files", encoding=arg.text(encoding), errors=arg.text(errors))
    found = _found("text_files", paths)
    return lambda count: [partial(_read_files, group, encoding, errors) for group in _groups(found, count)]


def text_lines(*paths: Path, encoding: str = "utf-8", errors: str = "strict") -> Source:
    r"""Make a record of each line, without its end, ``\n`` or ``\r\n``; paths are those of :func:`text_files`.

    Large files are cut between lines, unless a line feed is not one byte in their encoding, as in UTF-16, or a line
    cannot be decoded without earlier lines.

    Raises:
        LookupError: if there is no such encoding.
    """
    arg.check("text_lines", encoding=arg.text(encoding), errors=arg.text(errors))
    is_cut = _finds_lines(encoding)
    found = _found("text_lines", paths)

    def splits(count: int) -> Sequence[Split]:
        if not is_cut:
            return [partial(_read_whole, path, encoding, errors) for path in found]
        sizes = [os.path.getsize(path) for path in found]
        size = max(1, -(-sum(sizes) // count))
        pieces = [(path, start, size) for path, end in zip(found, sizes, strict=True) for start in range(0, end, size)]
        return [partial(_read_lines, *piece, encoding, errors) for piece in pieces]

    return splits


def csv_rows(*paths: Path, **options: Any) -> Source:
    """Make a record of each row of CSV files, a dictionary; ``options`` are those of ``pyarrow.csv.open_csv``."""
    found = _found("csv_rows", paths)
    return lambda count: [partial(_read_csv, group, options) for group in _groups(found, count)]


def parquet_rows(*paths: Path, columns: Sequence[str] | None = None) -> Source:
    """Make a record of each row of Parquet files, a dictionary; a row group is not cut.

    Args:
        paths: see :func:`text_files`.
        columns: the columns that are read; None for all.
    """
    takes = "names of columns, or None for all"
    if columns is not None:
        arg.check("parquet_rows", columns=arg.iterable(columns, takes))
        for column in columns:
            arg.check("parquet_rows", columns=arg.instance(column, str, takes))
    found = _found("parquet_rows", paths)

    def splits(count: int) -> Sequence[Split]:
        from pyarrow import parquet

        groups = [(path, group) for path in found for group in range(parquet.ParquetFile(path).num_row_groups)]
        parts = Block().split(groups, min(count, len(groups) or 1))
        return [partial(_read_parquet, part, columns) for part in parts]

    return splits


def _found(call: str, paths: Sequence[Path]) -> list[str]:
    """Return the files that paths and patterns stand for, those of a pattern in alphabetical order.

    Raises:
        FileNotFoundError: for a path or pattern that stands for no file.
    """
    for given in paths:
        arg.check(call, paths=arg.path(given))
    found: list[str] = []
    for path in (os.fspath(path) for path in paths):
        matching = sorted(filter(os.path.isfile, glob.glob(path, recursive=True))) if glob.has_magic(path) else [path]
        if not matching or not os.path.isfile(matching[0]):
            raise FileNotFoundError(f"no file is called {path}")
        found += [os.path.abspath(file) for file in matching]
    return found


def _groups(paths: list[str], count: int) -> list[list[str]]:
    """Return groups of consecutive files, of about equal size."""
    ends = list(itertools.accumulate(os.path.getsize(path) for path in paths))
    places = [(end - 1) * count // max(1, ends[-1]) for end in ends]
    return [
        [path for path, _ in group]
        for _, group in itertools.groupby(zip(paths, places, strict=True), lambda pair: pair[1])
    ]


def _read_files(paths: Iterable[str], encoding: str, errors: str) -> Iterator[tuple[str, str]]:
    for path in paths:
        with open(path, encoding=encoding, errors=errors) as file:
            yield path, file.read()


def _read_lines(path: str, start: int, size: int, encoding: str, errors: str) -> Iterator[str]:
    with open(path, "rb") as file:
        if start:  # a line that began before `start` belongs to the previous piece
            file.seek(start - 1)
            file.readline()
        while file.tell() < start + size and (line := file.readline()):
            yield _without_end(line.decode(encoding, errors))


def _read_whole(path: str, encoding: str, errors: str) -> Iterator[str]:
    with open(path, encoding=encoding, errors=errors, newline="\n") as file:
        yield from map(_without_end, file)


def _without_end(line: str) -> str:
    return line[:-1].removesuffix("\r") if line.endswith("\n") else line


def _finds_lines(encoding: str) -> bool:
    """Return whether the byte of a line feed ends a line, and the next line can be decoded by itself."""
    name = codecs.lookup(encoding).name
    has_states = name.startswith(("iso2022", "hz", "utf-7"))
    return name == "utf-8-sig" or ("\n".encode(encoding) == b"\n" and not has_states)


def _read_csv(paths: Iterable[str], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from pyarrow import csv

    for path in paths:
        with csv.open_csv(path, **options) as batches:
            for batch in batches:
                yield from batch.to_pylist()


def _read_parquet(groups: Iterable[tuple[str, int]], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    from pyarrow import parquet

    for path, group in groups:
        yield from parquet.ParquetFile(path).read_row_group(group, columns=columns).to_pylist()
