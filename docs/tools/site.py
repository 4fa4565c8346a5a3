"""The documentation's site: hooks of MkDocs for copying, for searching, and for rules that its pages keep.

A page that loads something from another host, and a public name that the reference leaves out, end the build.
"""

from __future__ import annotations

import html
import inspect
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "code_to_copy",
    "external_loads",
    "inventory_names",
    "on_page_content",
    "on_page_markdown",
    "on_post_build",
    "on_post_page",
    "public_names",
    "with_code_to_copy",
]

# A search for "push" should find the guide that shows it before the decision that mentions it. Factors of the score.
SEARCH_BOOSTS = {
    "how-to": 4.0,
    "tutorials": 2.0,
    "notebooks": 2.0,
    "reference": 0.5,
    "explanation": 1.0,
    "decisions": 0.3,
}

_PROMPTS = {
    "pycon": re.compile(r"(?:>>>|\.\.\.)(?: |$)"),
    "ipython": re.compile(r"(?:In \[\d+\]:| +\.\.\.:)(?: |$)"),
    "console": re.compile(r"\$ "),
}
_BLOCK = re.compile(r'<div class="language-(\w+) highlight">(.*?)</div>', re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_LOADING = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\s(?:src|srcset|data)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon|dns-prefetch))[^>]*?\shref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|url\(["']?((?:https?:)?//[^"')]+)""",
    re.IGNORECASE,
)


def code_to_copy(language: str, text: str) -> str | None:
    """Return the code of a session, without its prompts and its output; None for a block that is no session.

    A command may go on in further lines, after a backslash at the end of one.
    """
    prompt = _PROMPTS.get(language)
    if prompt is None:
        return None
    code: list[str] = []
    goes_on = False
    for line in text.splitlines():
        if found := prompt.match(line):
            code.append(line[found.end() :])
        elif goes_on:
            code.append(line)
        else:
            continue
        goes_on = language == "console" and line.endswith("\\")
    return "\n".join(code) if code else None


def with_code_to_copy(page: str) -> str:
    """Give each session of a rendered page the attribute that the theme's copy button takes in place of the text."""

    def marked(block: re.Match[str]) -> str:
        language, content = block.groups()
        code = code_to_copy(language, html.unescape(_TAG.sub("", content)))
        if code is None:
            return block[0]
        return f'<div class="language-{language} highlight" data-copy="{html.escape(code)}">{content}</div>'

    return _BLOCK.sub(marked, page)


def external_loads(page: str) -> list[str]:
    """Return the addresses on other hosts from which a rendered page would load something; links do not count."""
    return [next(filter(None, found)) for found in _LOADING.findall(page)]


def public_names(package: Any) -> Iterator[str]:
    """Yield what the reference must have: each exported name and error, and the methods of classes that are ours.

    Args:
        package: the module ``nsactors``.
    """
    exported = {f"nsactors.{name}": getattr(package, name) for name in package.__all__ if not name.startswith("_")}
    errors = {f"nsactors.errors.{name}": getattr(package.errors, name) for name in package.errors.__all__}
    shown = {name: value for name, value in exported.items() if not inspect.ismodule(value)}
    shown |= {name: value for name, value in errors.items() if inspect.isclass(value)}
    for name, value in shown.items():
        yield name
        if inspect.isclass(value) and name in exported and not issubclass(value, BaseException):
            yield from (f"{name}.{member}" for member in _members(value))


def _members(owner: type) -> list[str]:
    """The public methods and properties of a class, but those of the standard library."""
    ours = [base for base in owner.__mro__ if base.__module__.partition(".")[0] == "nsactors"]
    callables = (staticmethod, classmethod, property)
    return sorted(
        {
            name
            for base in ours
            for name, value in vars(base).items()
            if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, callables))
        }
    )


def inventory_names(inventory: bytes) -> set[str]:
    """Return the names in an inventory of objects, which is in Sphinx's format, version 2."""
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines}


def _missing(names: Iterable[str], documented: set[str]) -> list[str]:
    return sorted(set(names) - documented)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs before a page is rendered: says how much its words count in a search."""
    boost = SEARCH_BOOSTS.get(page.file.src_uri.partition("/")[0])
    if boost is not None:
        page.meta.setdefault("search", {}).setdefault("boost", boost)
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Called by MkDocs when a page's text has been rendered."""
    return with_code_to_copy(content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Called by MkDocs before a page is written.

    Raises:
        mkdocs.exceptions.PluginError: if the page would load something from another host.
    """
    if loads := external_loads(output):
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri} would load {', '.join(loads)}: keep a copy under docs/assets instead")
    return output


def on_post_build(config: Any) -> None:
    """Called by MkDocs when all pages are written.

    Raises:
        mkdocs.exceptions.PluginError: if the reference lacks a public name.
    """
    from mkdocs.exceptions import PluginError

    import nsactors

    documented = inventory_names((Path(config["site_dir"]) / "objects.inv").read_bytes())
    if missing := _missing(public_names(nsactors), documented):
        raise PluginError(f"docs/reference lacks {', '.join(missing)}: add `::: NAME` to the page of the subject")
