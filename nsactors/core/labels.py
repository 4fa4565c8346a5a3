"""Labels of nodes and engines, and conditions on them."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["has_labels", "holds"]


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether labels are as asked for.

    Conditions are those of Ray's label selectors: ``"a"``, ``"!a"``, ``"in(a, b)"`` and ``"!in(a, b)"``. A label that
    is not there is not ``"a"``.

    Example:
        >>> has_labels({"zone": "b"}, {"zone": "in(a, b)", "disk": "!slow"})
        True
    """
    return all(holds(labels.get(name), condition) for name, condition in selector.items())


def holds(value: str | None, condition: str) -> bool:
    """Whether one label's value, None if it is not there, meets a condition."""
    wanted, negated = condition.removeprefix("!").strip(), condition.startswith("!")
    if wanted.startswith("in(") and wanted.endswith(")"):
        values = [part.strip() for part in wanted[3:-1].split(",")]
    else:
        values = [wanted]
    return (value in values) is not negated
