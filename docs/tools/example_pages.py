"""The examples as a page: a hook of MkDocs that adds each program's source to the text of ``examples/README.md``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "on_files", "page_of"]

PAGE = "tutorials/examples.md"
FOLDER = Path(__file__).parents[2] / "examples"
_SECTION = re.compile(r"^### [^\n]*`([\w.]+)`\n(?:(?!^#).*\n?)*", re.MULTILINE)


def page_of(readme: str, sources: Mapping[str, str]) -> str:
    """Return the page: the text, with the source of the program at the end of each program's section.

    Args:
        readme: Markdown; the heading of a program's section has its file's name in backticks.
        sources: the programs by their names.

    Raises:
        KeyError: if there is no such program.
    """

    def with_source(section: re.Match[str]) -> str:
        name = section[1]
        block = textwrap.indent(f"```python\n{sources[name].rstrip()}\n```", "    ")
        return f'{section[0].rstrip()}\n\n??? example "{name}"\n\n{block}\n\n'

    return _SECTION.sub(with_source, readme)


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs when it has collected the files: adds the page."""
    from mkdocs.structure.files import File

    sources = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    text = page_of((FOLDER / "README.md").read_text(encoding="utf-8"), sources)
    files.append(File.generated(config, PAGE, content=text))
    return files
