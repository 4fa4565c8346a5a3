"""Inspection of engines at a prompt: values (``%pxpeek``), and profiles of cells (``%px --profile``)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from IPython.core.error import UsageError
from IPython.display import display

from nsactors.client import Client
from nsactors.errors import printable
from nsactors.inside.profiles import wrong_form
from nsactors.inside.values import peek
from nsactors.magics.options import Options
from nsactors.protocol.messages import check_expression
from nsactors.results.display.merging import engine_label
from nsactors.views.direct import DirectView

PEEK_S = 2.0
# Engines, and then an expression. A line such as `5 + x` or `5 in x` is an expression that begins with a number.
_ENGINES = re.compile(
    r"(?P<engines>all|-?\d+(,-?\d+)*|-?\d*(:-?\d*){1,2})\s+(?!(and|or|in|is|if|not\s+in)\b)(?P<expression>[\w(\[{'\"].*)"
)


def show(value: object) -> None:
    """Show a value as IPython shows the value of a cell."""
    display(value)


def split_peek(line: str) -> tuple[list[str], str]:
    """Split the line of ``%pxpeek`` into the word that names engines, if there is one, and the expression.

    Example:
        >>> split_peek("0,2 len(x)"), split_peek("len(x)")
        ((['0,2'], 'len(x)'), ([], 'len(x)'))
    """
    if (named := _ENGINES.fullmatch(line.strip())) is not None:
        return [named["engines"]], named["expression"]
    if not line.strip():
        raise UsageError("%pxpeek takes an expression, as in: %pxpeek len(results)")
    return [], line.strip()


def show_peek(client: Client, engine_ids: Sequence[int], expression: str) -> None:
    """Print the values of an expression on engines; equal values are printed once."""
    check_expression(expression, "%pxpeek")
    groups: dict[str, list[int]] = {}
    for engine_id, text in peek(client.session, engine_ids, expression, PEEK_S, as_text=True).items():
        groups.setdefault(text, []).append(engine_id)
    for text, ids in groups.items():
        print(f"{engine_label(ids)} {printable(text)}")


@contextmanager
def profiled(view: DirectView, options: Options) -> Iterator[None]:
    """Profile a cell within the block, if its options ask for that; then show the profile, and save it."""
    how, file = options.profile or ("sample" if options.profile_out is not None else None), options.profile_out
    if how is None:
        yield
        return
    if not options.block:
        raise UsageError("%px --profile waits for the cell: give it with --block")
    if file is not None and (takes := wrong_form(file, how)) is not None:
        raise UsageError(f"%px --profile-out takes {takes}, not {file!r}")
    if file is not None:
        _check_can_be_written(file)
    measured = view if options.targets is None else view.with_flags(targets=options.targets)
    block = measured.profiled(how=how)
    profile = block.__enter__()
    try:
        yield
    finally:
        block.__exit__(None, None, None)
        show(profile)
        if file is not None:
            try:
                profile.save(file)
            except OSError as error:  # printed, because raising it would replace an error of the cell
                print(f"The profile could not be saved: {error}", file=sys.stderr)


def _check_can_be_written(file: str) -> None:
    """Refuse a file that cannot be written before the cell runs, which may take hours."""
    is_there = os.path.lexists(file)
    try:
        with open(file, "ab"):
            pass
    except OSError as error:
        raise UsageError(f"%px --profile-out cannot write {file!r}: {error.strerror}") from None
    if not is_there:
        os.unlink(file)
