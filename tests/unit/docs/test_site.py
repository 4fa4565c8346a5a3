"""The documentation's site: its navigation, and the hooks that make sessions copyable and keep its rules."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nsactors
from docs.tools.example_pages import PAGE as EXAMPLES_PAGE
from docs.tools.site import (
    code_to_copy,
    external_loads,
    inventory_names,
    on_page_markdown,
    public_names,
    with_code_to_copy,
)

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
GROUPS = {"Data", "Tasks", "Models", "Clusters", "Recovery", "Inside engines", "Other libraries"}
FIRST = "how-to/which-one.md"  # it leads to all groups, and stands in none


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions of MkDocs's plugins."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def settings() -> Any:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Settings)


def pages(nav: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each page of a navigation with the titles that lead to it."""
    match nav:
        case str():
            yield nav, way
        case dict():
            for title, below in nav.items():
                yield from pages(below, (*way, title))
        case _:
            for below in nav:
                yield from pages(below, way)


def test_every_page_has_one_place_in_the_navigation(settings: Any) -> None:
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    written |= {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.ipynb")}
    written.add(EXAMPLES_PAGE)
    assert Counter(page for page, _ in pages(settings["nav"])) == Counter(written)


def test_every_guide_stands_in_a_group(settings: Any) -> None:
    groups = {page: way[1:] for page, way in pages(settings["nav"]) if way[0] == "How-to guides"}
    assert groups.pop(FIRST) == ()
    assert {group for way in groups.values() for group in way} == GROUPS
    assert [page for page, way in groups.items() if len(way) != 1] == []


def test_pages_have_neighbours_copy_buttons_and_a_dark_scheme(settings: Any) -> None:
    theme = settings["theme"]
    assert {"navigation.footer", "content.code.copy"} <= set(theme["features"])
    assert [palette.get("scheme") for palette in theme["palette"]] == [None, "default", "slate"]


def test_blocks_say_their_language_to_the_hook(settings: Any) -> None:
    assert {"pymdownx.highlight": {"pygments_lang_class": True}} in settings["markdown_extensions"]


def test_fonts_are_the_reader_s_own(settings: Any) -> None:
    assert settings["theme"]["font"] is False


@pytest.mark.parametrize(
    ("language", "block", "code"),
    [
        ("pycon", ">>> 1 + 1\n2\n", "1 + 1"),
        ("pycon", ">>> for i in x:\n...     f(i)\n...\n3\n>>> y\n", "for i in x:\n    f(i)\n\ny"),
        ("pycon", ">>> f()\nTraceback (most recent call last):\n  ...\nValueError: no\n", "f()"),
        ("ipython", "In [1]: a = 1\n\nIn [12]: %%px\n    ...: b\n    ...:\n[0] 2\nOut[12]: 3\n", "a = 1\n%%px\nb\n"),
        ("console", "$ nsactors list\nname\n$ echo $?\n0\n", "nsactors list\necho $?"),
        ("console", "$ nsactors start \\\n    -n 4\nThe cluster runs\n", "nsactors start \\\n    -n 4"),
    ],
)
def test_code_is_copied_without_prompts_and_output(language: str, block: str, code: str) -> None:
    assert code_to_copy(language, block) == code


@pytest.mark.parametrize(("language", "block"), [("python", ">>> a\n"), ("text", "$ a\n"), ("ipython", "a = 1\n")])
def test_a_block_without_prompts_is_copied_as_it_is(language: str, block: str) -> None:
    assert code_to_copy(language, block) is None


def test_a_session_on_a_page_carries_its_code() -> None:
    shown = (
        '<pre><code><span class="gp">&gt;&gt;&gt; </span>f(<span>"a"</span>)\n<span class="go">1</span>\n</code></pre>'
    )
    page = f'<p>x</p><div class="language-pycon highlight">{shown}</div><div class="language-text highlight">y</div>'
    marked = f'<div class="language-pycon highlight" data-copy="f(&quot;a&quot;)">{shown}</div>'
    assert with_code_to_copy(page) == f'<p>x</p>{marked}<div class="language-text highlight">y</div>'


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<img alt="x" src="//cdn.example/a.png">',
        '<link rel="stylesheet" href="https://cdn.example/a.css">',
        '<link href="https://cdn.example" rel="preconnect" crossorigin>',
        "<style>@font-face { src: url(https://cdn.example/a.woff2) }</style>",
    ],
)
def test_loading_from_another_host_is_found(page: str) -> None:
    assert [address.partition("cdn.example")[1] for address in external_loads(page)] == ["cdn.example"]


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://docs.example/">a link</a>',
        '<link rel="canonical" href="https://docs.example/">',
        '<script src="../assets/a.js"></script><img src="a.svg"><link rel="stylesheet" href="assets/site.css">',
    ],
)
def test_links_and_own_files_are_no_loads(page: str) -> None:
    assert external_loads(page) == []


@pytest.mark.parametrize(("better", "worse"), [("how-to", "explanation"), ("tutorials", "decisions")])
def test_a_search_ranks_the_guide_before_the_prose(better: str, worse: str) -> None:
    def boost(folder: str) -> float:
        page = types.SimpleNamespace(meta={}, file=types.SimpleNamespace(src_uri=f"{folder}/page.md"))
        assert on_page_markdown("text", page) == "text"
        return float(page.meta["search"]["boost"])

    assert boost(better) >= 2 * boost(worse)


def test_the_reference_is_held_to_names_errors_and_methods() -> None:
    names = set(public_names(nsactors))
    assert {"nsactors.keep", "nsactors.Client.history", "nsactors.DirectView.push", "nsactors.AsyncResult.r"} <= names
    assert "nsactors.errors.EngineLost" in names
    assert {"nsactors.AsyncResult.running", "nsactors.__version__", "nsactors.Client._session"} & names == set()


def test_an_inventory_is_read() -> None:
    import zlib

    lines = b"nsactors.keep py:function 1 reference/data/#$ -\nnsactors.Client py:class 1 x -\n"
    head = (
        b"# Sphinx inventory version 2\n# Project: nsactors\n# Version: 1\n# The remainder is compressed using zlib.\n"
    )
    assert inventory_names(head + zlib.compress(lines)) == {"nsactors.keep", "nsactors.Client"}
