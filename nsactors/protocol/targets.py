"""Targets of a call, resolved to engine ids.

Views keep targets as the user wrote them, and resolve them at each call, because the engines of ``"all"`` change.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from typing import Any

from nsactors.errors.exceptions import InvalidTarget, NoEngines, NoSuchEngine

Targets = int | Sequence[int] | slice | str | None


def resolve(targets: Targets, ids: Sequence[int]) -> list[int]:
    """Return the ids of the engines that ``targets`` names, in its order.

    Ids increase and are never reused, so they may have gaps. An int from 0 on is an id; a negative one counts
    from the end of ``ids``; a slice selects positions in ``ids``; ``"all"`` and None mean all of ``ids``.

    Args:
        targets: an int, a sequence of ints without duplicates, a slice, ``"all"`` or None. NumPy's integers, and
            arrays of them, are also accepted.
        ids: the ids of the connected engines, in increasing order.

    Example:
        >>> resolve([5, -3], ids=[0, 2, 5]), resolve(slice(1, None), ids=[0, 2, 5])
        ([5, 0], [2, 5])

    Raises:
        InvalidTarget: if ``targets`` cannot name engines, or names one twice.
        NoEngines: if no engine is connected, or ``targets`` selects none.
        NoSuchEngine: if no engine has this id or position.
    """
    if type(targets) is int and targets >= 0 and targets in ids:  # the common case
        return [targets]
    wanted = _positions_of(targets)
    if not ids:
        raise NoEngines
    match wanted:
        case None:
            chosen = list(ids)
        case slice():
            chosen = list(ids[wanted])
        case _:
            chosen = []
            for index in wanted:
                if index < 0 and -index <= len(ids):
                    index = ids[index]  # noqa: PLW2901
                elif index not in ids:
                    raise NoSuchEngine(index, ids)
                chosen.append(index)
    if not chosen:
        raise NoEngines(targets=targets, ids=ids)
    if len(set(chosen)) < len(chosen):
        raise InvalidTarget(targets, next(engine_id for engine_id in chosen if chosen.count(engine_id) > 1))
    return chosen


def is_single(targets: Targets) -> bool:
    """Return whether ``targets`` is one int, so that the result is one value and not a list with one per engine."""
    return not isinstance(targets, slice | Sequence) and _as_index(targets) is not None


def targets_from_text(text: str) -> Targets:
    """Parse targets that a user typed.

    Args:
        text: ``3``, ``0,2`` or ``[0, 2]``, a slice such as ``::2``, or ``all``.

    Raises:
        ValueError: if the text is none of these.
    """
    text = text.strip()
    if text == "all":
        return "all"
    if re.fullmatch(r"-?\d*(:-?\d*){1,2}", text):
        return slice(*(int(part) if part else None for part in text.split(":")))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
        return list(value)
    raise ValueError(f"engines are written as 3 or 0,2 or ::2 or all, not {text!r}")


def _positions_of(targets: Any) -> list[int] | slice | None:
    """Return the ids and negative positions, or the slice, that targets name; None for all engines."""
    if targets is None or (isinstance(targets, str) and targets == "all"):
        return None
    if isinstance(targets, slice):
        bounds = (targets.start, targets.stop, targets.step)
        if targets.step == 0 or any(bound is not None and _as_index(bound) is None for bound in bounds):
            raise InvalidTarget(targets)
        return targets
    values = targets if type(targets) is list else _plain(targets)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray | memoryview):
        values = [values]
    indices = []
    for value in values:
        index = value if type(value) is int else _as_index(value)
        if index is None:
            raise InvalidTarget(targets)
        indices.append(index)
    return indices


def _as_index(value: Any) -> int | None:
    """Return ``value`` as an int; None for a bool, and for anything that is not an integer."""
    value = _plain(value)
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except (Exception, SystemExit):  # not an integer, or user code failed
        return None


def _plain(value: Any) -> Any:
    # NumPy's scalars and arrays have tolist(), so NumPy need not be imported; a user's class may have one that fails.
    if not hasattr(type(value), "tolist"):
        return value
    try:
        return value.tolist()
    except (Exception, SystemExit):
        return value
