"""What engines are asked for with, as people write it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nsactors.core.cluster import EngineOptions, Recovery

__all__ = ["engine_options"]


def engine_options(usual: EngineOptions, *, journal: str | None = None, **changes: Any) -> EngineOptions:
    """``usual`` with some options changed, as people write them.

    Raises:
        ValueError: if ``recovery`` or ``journal`` is none that there is.
        TypeError: if there is no such option.
    """
    if journal is not None:
        if journal not in ("local", "sync"):
            raise ValueError(f"journal is 'local' or 'sync', not {journal!r}")
        changes["ships_journal"] = journal == "sync"
    if "recovery" in changes:
        try:
            changes["recovery"] = Recovery(changes["recovery"])
        except ValueError:
            choices = ", ".join(repr(str(choice)) for choice in Recovery)
            raise ValueError(f"recovery is one of {choices}, not {changes['recovery']!r}") from None
    return replace(usual, **changes)
