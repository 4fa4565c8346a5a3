"""Which versions a client and a cluster may differ in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Comparison", "compare"]


class Comparison(NamedTuple):
    """How two processes differ.

    Attributes:
        differences: by name, the version here and the version there.
        fatal: whether they cannot work together.
    """

    differences: dict[str, tuple[str, str]]
    fatal: bool


def compare(here: Mapping[str, str], there: Mapping[str, str]) -> Comparison:
    """Compare versions by name; what only one of them has is no difference.

    Functions travel as bytecode, which differs between minor versions of Python: those do not work together. Of
    anything else the user is better warned than refused.
    """
    differences = {name: (here[name], there[name]) for name in here if name in there and here[name] != there[name]}
    return Comparison(differences, "python" in differences and _minor(*differences["python"]))


def _minor(here: str, there: str) -> bool:
    return here.split(".")[:2] != there.split(".")[:2]
