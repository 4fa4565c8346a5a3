"""The list of all that is used of Ray beyond its documented interface is complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nsactors
from nsactors.transport.ray import private_names
from nsactors.transport.ray.private_names import NAMES, SETTINGS

PACKAGE = Path(nsactors.__file__).parent
OF_RAY = PACKAGE / "transport" / "ray"
DOCUMENTED = {
    *("RAY_ADDRESS", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED", "RAY_DEDUP_LOGS"),
    *("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
    *("RAY_USE_TLS", "RAY_TLS_CA_CERT", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY"),
}
PRIVATE = re.compile(r"\b(_private|_raylet|_common|global_worker|_global_node|rpdb)\b")
STARTS_LIKE_A_WORKER = {"scripts.zygote"}  # imports the modules that workers import


def words_of(file: Path) -> Iterator[str]:
    """The names and texts in a module, without its docstrings."""
    tree = ast.parse(file.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=word) | ast.Name(id=word) | ast.alias(name=word):
                yield word
            case ast.ImportFrom(module=str(word)):
                yield word
            case ast.Constant(value=str(word)) if id(node) not in docs:
                yield word
            case ast.Constant(value=bytes(word)):
                yield word.decode(errors="replace")
            case _:
                pass


def modules() -> Iterator[Path]:
    return (file for file in PACKAGE.rglob("*.py") if file != Path(private_names.__file__))


def test_every_undocumented_setting_is_listed_and_no_other() -> None:
    used = {word for file in modules() for word in words_of(file) if re.fullmatch(r"RAY_[A-Za-z_]+", word)}
    assert used - DOCUMENTED == set(SETTINGS)


def test_the_modules_that_use_private_names_are_those_in_the_list() -> None:
    using = {
        ".".join(file.relative_to(OF_RAY).with_suffix("").parts)
        for file in modules()
        if file.is_relative_to(OF_RAY) and any(PRIVATE.search(word) for word in words_of(file))
    }
    assert using - STARTS_LIKE_A_WORKER == {name.used_in for name in NAMES}


def test_each_private_name_stands_in_its_module() -> None:
    for name in NAMES:
        text = (OF_RAY / f"{name.used_in.replace('.', '/')}.py").read_text()
        last = name.name.rpartition(".")[2]
        assert last in text or last.endswith("_PORT_NAME"), name
