"""Cells that engines have run, by number."""

from __future__ import annotations

from nsactors.core.messages import ExecuteResult
from nsactors.core.targets import Targets
from nsactors.results.live.grouping import Shown, TextLine, arrange, engine_label
from nsactors.results.live.screen import Screen
from nsactors.views.direct import DirectView

__all__ = ["show_numbered"]


def show_numbered(view: DirectView, targets: Targets, number: int, screen: Screen) -> None:
    """Show the source and value of the engines' cell ``number``, equal ones once.

    Raises:
        IndexError: if an engine has run no such cell.
    """
    source = f"In[{number}] if 0 < {number} < len(In) else None"
    value = f"repr(Out[{number}]) if {number} in Out else None"
    found = view.pull(f"(len(In), {source}, {value})", targets, block=False)
    values = found.get_dict()
    for engine_id, (count, source, _) in values.items():
        if source is None:
            raise IndexError(f"engine {engine_id} has run no cell {number}: its last is {count - 1}")
    sources: dict[str, list[int]] = {}
    for engine_id, (_, source, _) in values.items():
        sources.setdefault(source.rstrip(), []).append(engine_id)
    for source, engines in sources.items():
        label = f"In{engine_label(engines)[:-1]}:{number}]:"
        first, *rest = source.splitlines() or [""]
        screen.notice("\n".join([f"{label} {first}", *(" " * len(label) + " " + line for line in rest)]))
    outs = {
        i: ExecuteResult(number, {"text/plain": text}, {}) for i, (_, _, text) in values.items() if text is not None
    }
    screen.show(arrange([(engine_id, [out]) for engine_id, out in outs.items()], "type"))
    if not outs:
        screen.show([Shown(tuple(values), TextLine("stdout", f"cell {number} gave no value"))])
    screen.close()
