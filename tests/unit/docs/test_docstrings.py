"""Docstrings as the reference shows them."""

from __future__ import annotations

import ast

import pytest

pytest.importorskip("griffe")

import griffe

from docs.tools.docstrings import Docstrings, as_markdown
from tests.blocks import ROOT


def test_names_of_other_things_are_code() -> None:
    assert as_markdown("See :meth:`get` and :class:`~nsactors.Client`.") == "See `get` and `nsactors.Client`."


def test_a_session_is_fenced() -> None:
    docstring = "Do it.\n\nExample:\n    >>> f(1)\n    2\n\nRaises:\n    ValueError: never.\n"
    fenced = "Example:\n    ```pycon\n    >>> f(1)\n    2\n    ```\n\nRaises:\n    ValueError: never.\n"
    assert as_markdown(docstring) == f"Do it.\n\n{fenced}"


def test_code_without_prompts_is_python() -> None:
    assert as_markdown("Example::\n\n    f(1)\n") == "Example:\n    ```python\n    f(1)\n    ```\n\n"


def test_what_is_fenced_already_stays() -> None:
    assert "```pycon\n    ```" not in as_markdown("Example:\n    ```pycon\n    >>> a\n    ```\n")


def test_a_literal_block_follows_a_colon() -> None:
    assert as_markdown("Such as::\n\n    a\n") == "Such as:\n\n    a\n"


def test_a_frozen_class_is_shown_with_its_parameters_as_a_data_class() -> None:
    extensions = griffe.load_extensions(Docstrings)
    step = griffe.load("nsactors.models.map_reduce", search_paths=[ROOT], extensions=extensions)["Step"]
    assert "dataclass" in step.labels
    assert [parameter.name for parameter in step.parameters][:3] == ["self", "mapper", "reducer"]


def test_further_lines_of_an_argument_are_indented(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise ``make docs`` fails for public names, and readers of the others take the line for an argument."""
    wrong = []
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted((ROOT / "nsactors").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                caplog.clear()
                docstring = griffe.Docstring(ast.get_docstring(node) or "")
                docstring.parse("google", warn_missing_types=False, warn_unknown_params=False)
                wrong += [f"{path}: {text}" for text in caplog.messages if "Failed to get" in text]
    assert wrong == []
