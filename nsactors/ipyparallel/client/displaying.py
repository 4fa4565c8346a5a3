"""The output of engines, shown with their numbers as in ipyparallel."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from nsactors.ipyparallel.client.metadata import Metadata

__all__ = ["display_outputs"]

_GROUPS = ("type", "engine", "order")


def display_outputs(
    metadata: Sequence[Metadata], replies: Sequence[Any], groupby: str, single: bool, result_only: bool
) -> None:
    """Show the output of requests.

    Args:
        metadata: the metadata of each request.
        replies: the value of each request.
        groupby: ``"type"``, ``"engine"`` or ``"order"``.
        single: show no engine numbers.
        result_only: show only the values of cells.

    Raises:
        ValueError: for another ``groupby``.
    """
    if groupby not in _GROUPS:
        raise ValueError(f"groupby must be one of {', '.join(map(repr, _GROUPS))}, not {groupby!r}")
    rows = list(zip(metadata, replies, strict=False))
    if groupby == "engine":
        for known, reply in rows:
            if not result_only:
                _show_text(known, "stdout", single)
                _show_text(known, "stderr", single)
                _show_displays(known, known["outputs"], single)
            _show_value(known, reply, labels=not single and (result_only or not known["outputs"]))
        return
    if not result_only:
        for name in ("stdout", "stderr"):
            for known, _ in rows:
                _show_text(known, name, single)
        for known, displays in _rounds([known for known, _ in rows], groupby):
            _show_displays(known, displays, single)
    for known, reply in rows:
        _show_value(known, reply)


def _rounds(metadata: Sequence[Metadata], groupby: str) -> Iterator[tuple[Metadata, list[Any]]]:
    """Yield displays in the order in which to show them.

    Args:
        metadata: of the requests.
        groupby: ``"type"`` shows the displays engine by engine. Any other value shows the first display of each engine,
            then the second of each, and so on.
    """
    if groupby == "type":
        yield from ((known, known["outputs"]) for known in metadata)
        return
    for number in range(max((len(known["outputs"]) for known in metadata), default=0)):
        yield from ((known, known["outputs"][number : number + 1]) for known in metadata)


def _show_text(known: Metadata, name: str, single: bool) -> None:
    text = known[name]
    if not text:
        return
    head = "" if single else f"[{name}:{known['engine_id']}] \n"
    end = "" if single or text.endswith("\n") else "\n"
    print(f"{head}{text}", file=getattr(sys, name), end=end)


def _show_displays(known: Metadata, displays: Sequence[Any], single: bool) -> None:
    if not displays or not _in_ipython():
        return
    from IPython.display import publish_display_data

    if not single:
        _show_label(known)
    for each in displays:
        publish_display_data(each["data"], {**(each["metadata"] or {}), "engine": known["engine_id"]})


def _show_value(known: Metadata, reply: Any, *, labels: bool = False) -> None:
    if known["execute_result"] is None or isinstance(reply, Exception) or not _in_ipython():
        return
    from IPython.display import display

    if labels:
        _show_label(known)
    display(reply)


def _show_label(known: Metadata) -> None:
    from IPython.display import display_pretty

    display_pretty(f"[output:{known['engine_id']}]", raw=True)


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
