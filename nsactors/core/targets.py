"""Which engines are meant: targets become engine ids."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from typing import Any

from nsactors.errors.tree import InvalidTarget, NoEngines, NoSuchEngine

__all__ = ["Targets", "is_single", "resolve", "targets_from_text"]

Targets = int | Sequence[int] | slice | str | None


def resolve(targets: Targets, ids: Sequence[int]) -> list[int]:
    """The ids of the engines that ``targets`` names, in its order.

    Ids increase and are never reused, so they may have gaps. An int from 0 on is an id; a negative one counts
    from the end of ``ids``; a slice selects positions in ``ids``; ``"all"`` and None mean all of ``ids``.

    Args:
        targets: an int, a sequence of ints without duplicates, a slice, ``"all"`` or None. NumPy's ints, and
            arrays of them, are as good.
        ids: the engines there are now, in increasing order.

    Example:
        >>> resolve([5, -3], ids=[0, 2, 5]), resolve(slice(1, None), ids=[0, 2, 5])
        ([5, 0], [2, 5])

    Raises:
        InvalidTarget: if ``targets`` cannot name engines, or names one twice.
        NoEngines: if there are none, or ``targets`` selects none of them.
        NoSuchEngine: if there is no engine with such an id or position.
    """
    if type(targets) is int and targets >= 0 and targets in ids:  # by far the most common
        return [targets]
    wanted = _parse(targets)
    if not ids:
        raise NoEngines
    match wanted:
        case None:
            chosen = list(ids)
        case slice():
            chosen = list(ids[wanted])
        case _:
            chosen = [_find(index, ids) for index in wanted]
    if not chosen:
        raise NoEngines(f"{targets!r} selects none of the engines {list(ids)}")
    if len(set(chosen)) < len(chosen):
        raise InvalidTarget(targets)
    return chosen


def is_single(targets: Targets) -> bool:
    """Whether ``targets`` is one int: such calls give a value, all others a list with one value an engine."""
    return not isinstance(targets, slice | Sequence) and _as_index(targets) is not None


def targets_from_text(text: str) -> Targets:
    """The engines that somebody has typed.

    Args:
        text: ``3``, ``0,2`` or ``[0, 2]``, a slice such as ``::2``, or ``all``.

    Raises:
        ValueError: if it is none of these.
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
    raise ValueError(f"engines are named as 3, 0,2 or ::2 or all, not {text!r}")


def _parse(targets: Any) -> list[int] | slice | None:
    """None for all engines."""
    if targets is None or (isinstance(targets, str) and targets == "all"):
        return None
    if isinstance(targets, slice):
        bounds = (targets.start, targets.stop, targets.step)
        if targets.step == 0 or any(bound is not None and _as_index(bound) is None for bound in bounds):
            raise InvalidTarget(targets)
        return targets
    values = _plain(targets)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray | memoryview):
        values = [values]
    indices = [_as_index(value) for value in values]
    if None in indices:
        raise InvalidTarget(targets)
    return [index for index in indices if index is not None]


def _as_index(value: Any) -> int | None:
    """The int that ``value`` is; None for anything else, truth values included."""
    value = _plain(value)
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _plain(value: Any) -> Any:
    # NumPy's scalars and arrays, without importing NumPy.
    return value.tolist() if hasattr(value, "tolist") else value


def _find(index: int, ids: Sequence[int]) -> int:
    if index >= 0:
        if index in ids:
            return index
    elif -index <= len(ids):
        return ids[index]
    raise NoSuchEngine(index, ids)
