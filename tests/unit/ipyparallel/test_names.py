"""Every public name of ipyparallel is provided, with parameters that take the same calls, or listed as not."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import json
import pathlib
import re
from typing import Any

import pytest

import nsactors

HERE = pathlib.Path(__file__).parent
NAMES: dict[str, dict[str, Any]] = json.loads((HERE / "names.json").read_text(encoding="utf-8"))
PAGE = pathlib.Path(nsactors.__file__).parents[1] / "docs" / "how-to" / "ipyparallel.md"


def not_provided() -> dict[str, str]:
    """Patterns of names, and what takes their place, of the table on the page."""
    part = PAGE.read_text(encoding="utf-8").partition("## Not provided")[2]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| `")
    ]
    return {pattern: row[1] for row in rows for pattern in re.findall(r"`([^`]+)`", row[0])}


LISTED = not_provided()


def is_listed(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LISTED)


def all_names() -> list[tuple[str, str, str, Any]]:
    """Module, name, name of a member (empty for the thing itself), and parameters."""
    rows = []
    for module, found in NAMES.items():
        for name, described in found.items():
            rows.append((module, name, "", described["parameters"]))
            rows += [(module, name, member, given) for member, given in described.get("members", {}).items()]
    return rows


def missing_parameters(theirs: list[list[Any]], ours: inspect.Signature, *, bound: bool) -> list[str]:
    """Return the parameters with which calls that fit one signature would not fit the other."""
    kinds = {p.kind for p in ours.parameters.values()}
    takes_any, takes_keywords = inspect.Parameter.VAR_POSITIONAL in kinds, inspect.Parameter.VAR_KEYWORD in kinds
    places = [name for name, p in ours.parameters.items() if p.kind.name.startswith("POSITIONAL")]
    wrong = []
    for place, (name, kind, optional) in enumerate(theirs):
        if (place == 0 and bound) or name.startswith("_"):  # calls do not use this name
            continue
        own = ours.parameters.get(name)
        if kind == "VAR_POSITIONAL":
            wrong += [] if takes_any else [f"*{name}"]
        elif kind == "VAR_KEYWORD":
            wrong += [] if takes_keywords else [f"**{name}"]
        elif own is None:
            wrong += [] if takes_keywords and (takes_any or kind == "KEYWORD_ONLY") else [name]
        elif kind == "POSITIONAL_OR_KEYWORD" and (name not in places or places.index(name) != place):
            wrong.append(f"{name} is not in place {place}")
        elif optional and own.default is own.empty and "VAR" not in own.kind.name:
            wrong.append(f"{name} must be given")
    known = {name for name, _, _ in theirs}
    for index, (name, p) in enumerate(ours.parameters.items()):
        needed = p.default is p.empty and "VAR" not in p.kind.name and not (index == 0 and bound)
        if needed and name not in known and index >= len(theirs):
            wrong.append(f"{name} is needed here alone")
    return wrong


def test_the_table_of_names_is_that_of_a_whole_library() -> None:
    assert len(all_names()) > 500
    assert all(instead for instead in LISTED.values())


@pytest.mark.parametrize("module", NAMES)
def test_no_module_is_missing_without_being_listed(module: str) -> None:
    short = module.removeprefix("ipyparallel").lstrip(".")
    try:
        importlib.import_module(f"nsactors.{module}")
    except ImportError:
        assert is_listed(short) or is_listed(f"{short}.*"), f"{module} is neither there nor on the page"


@pytest.mark.parametrize("module", NAMES)
def test_no_name_is_missing_without_being_listed(module: str) -> None:
    missing = []
    for _, name, member, _ in (row for row in all_names() if row[0] == module):
        short = module.removeprefix("ipyparallel").lstrip(".")
        full = ".".join(part for part in (short, name, member) if part)
        if is_listed(full):
            continue
        try:
            found = getattr(importlib.import_module(f"nsactors.{module}"), name)
        except (ImportError, AttributeError):
            missing.append(full)
            continue
        if member and not hasattr(found, member) and member not in attributes_of(found):
            missing.append(full)
    assert missing == []


def attributes_of(kind: Any) -> set[str]:
    """Return the attributes that instances of a class get when they are made."""
    source = "".join(
        inspect.getsource(base) for base in kind.__mro__ if base.__module__.startswith("nsactors.ipyparallel")
    )
    return set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", source))


@pytest.mark.parametrize("module", NAMES)
def test_every_parameter_is_taken(module: str) -> None:
    wrong = {}
    for _, name, member, theirs in (row for row in all_names() if row[0] == module):
        short = module.removeprefix("ipyparallel").lstrip(".")
        full = ".".join(part for part in (short, name, member) if part)
        if is_listed(full) or theirs is None:
            continue
        found = getattr(importlib.import_module(f"nsactors.{module}"), name)
        found = getattr(found, member, None) if member else found
        if not callable(found):
            continue
        try:
            signature = inspect.signature(found.__init__ if inspect.isclass(found) else found)
        except (TypeError, ValueError):
            continue
        if differences := missing_parameters(theirs, signature, bound=bool(theirs) and theirs[0][0] == "self"):
            wrong[full] = differences
    assert wrong == {}


# The comparison itself, on invented functions: one that finds nothing must be able to find something.


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda a, b=1: None, lambda a: None),
        (lambda a, b=1: None, lambda b=1, a=2: None),
        (lambda a=1: None, lambda a: None),
        (lambda a: None, lambda a, b: None),
        (lambda *a: None, lambda a: None),
        (lambda **a: None, lambda: None),
        (lambda *, a: None, lambda: None),
    ],
)
def test_a_call_that_could_not_be_made_is_found(theirs: Any, ours: Any) -> None:
    given = [[p.name, p.kind.name, p.default is not p.empty] for p in inspect.signature(theirs).parameters.values()]
    assert missing_parameters(given, inspect.signature(ours), bound=False)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda a, b=1: None, lambda a, b=2, c=3: None),
        (lambda a, *b, c=1: None, lambda a, *b, **c: None),
        (lambda **a: None, lambda **b: None),
    ],
)
def test_a_call_that_can_be_made_is_not(theirs: Any, ours: Any) -> None:
    given = [[p.name, p.kind.name, p.default is not p.empty] for p in inspect.signature(theirs).parameters.values()]
    assert missing_parameters(given, inspect.signature(ours), bound=False) == []
