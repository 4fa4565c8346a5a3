"""All names on the page for users of other libraries exist."""

from __future__ import annotations

import ast
import builtins
import inspect
import pathlib
import re
from typing import Any

import pytest

import nsactors
from nsactors import AsyncResult, Client, Cluster, DirectView, LoadBalancedView
from nsactors.views.executor import ViewExecutor
from nsactors.views.flags import TaskFlags

PAGE = pathlib.Path(nsactors.__file__).parents[1] / "docs" / "how-to" / "migrate.md"
RECEIVERS: dict[str, Any] = {
    "ar": AsyncResult,
    "cluster": Cluster,
    "executor": ViewExecutor,
    "lview": LoadBalancedView,
    "nsactors": nsactors,
    "rc": Client,
    "view": DirectView,
}


def names_of_ours() -> list[str]:
    """The code in the second column of the tables."""
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return sorted({code for row in rows for code in re.findall(r"`([^`]+)`", row[2])})


def meaning(node: ast.expr) -> Any:
    """Return the object that an expression of the page names; AttributeError if there is none."""
    match node:
        case ast.Name(name):
            return RECEIVERS[name] if name in RECEIVERS else getattr(builtins, name, None) or public(name)
        case ast.Attribute(value, name):
            return getattr(meaning(value), name)
        case ast.Call(function, _, keywords):
            called = meaning(function)
            parameters = inspect.signature(called).parameters.values()
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
                unknown = {word.arg for word in keywords} - {parameter.name for parameter in parameters}
                assert not unknown, f"{ast.unparse(node)} has no {unknown}"
            return called
    raise AssertionError(f"the page should not say {ast.unparse(node)}")


def public(name: str) -> Any:
    return getattr(nsactors, name, None) or getattr(nsactors.errors, name)


@pytest.mark.parametrize("code", names_of_ours())
def test_a_name_of_the_migration_page_exists(code: str) -> None:
    assert meaning(ast.parse(code, mode="eval").body) is not None


def test_a_flag_of_the_migration_page_exists() -> None:
    calls = [node for code in names_of_ours() for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    given = {word.arg for call in calls if "flags" in ast.unparse(call.func) for word in call.keywords}
    assert given
    assert given <= set(inspect.signature(TaskFlags).parameters)


@pytest.mark.parametrize("code", ["lview.mapp(f)", "executor.map(f, chunk=1)", "Clusters(n=4)"])
def test_a_name_that_does_not_exist_is_found(code: str) -> None:
    with pytest.raises((AttributeError, AssertionError)):
        meaning(ast.parse(code, mode="eval").body)
