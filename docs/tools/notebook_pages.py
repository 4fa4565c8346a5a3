"""Notebooks as pages: a hook of MkDocs that turns executed notebooks into Markdown and images.

It reads the outputs that a notebook was saved with, so that building the pages runs nothing and needs no cluster.
The plugin mkdocs-jupyter was tried: its pages import Mermaid from another host, and ours load nothing from elsewhere.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

__all__ = ["Page", "on_files", "page_of"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_IMAGES = {"image/png": "png", "image/jpeg": "jpg"}


class Page(NamedTuple):
    """A notebook as Markdown, and its images by the names that the Markdown refers to."""

    text: str
    images: dict[str, bytes]


def page_of(notebook: Mapping[str, Any], name: str) -> Page:
    """Turn a notebook, as read from its JSON, into a page.

    Args:
        notebook: the notebook; only format 4 is understood.
        name: its file name without ``.ipynb``.
    """
    images: dict[str, bytes] = {}
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(_fenced(source, "ipython"))
            parts += [part for output in _joined(cell["outputs"]) if (part := _shown(output, images, name))]
    parts.append(f"[Download this notebook]({name}.ipynb)")
    return Page("\n\n".join(parts) + "\n", images)


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs when it has collected the files: adds a page for each notebook."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        path = PurePosixPath(file.src_uri)
        page = page_of(json.loads(file.content_string), path.stem)
        files.append(File.generated(config, str(path.with_suffix(".md")), content=page.text))
        for image, content in page.images.items():
            files.append(File.generated(config, str(path.with_name(image)), content=content))
    return files


def _joined(outputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The outputs, with consecutive pieces of text made one."""
    pending: dict[str, Any] | None = None
    for output in outputs:
        if output["output_type"] != "stream":
            if pending is not None:
                yield pending
            pending = None
            yield output
        elif pending is None:
            pending = {"output_type": "stream", "text": "".join(output["text"])}
        else:
            pending["text"] += "".join(output["text"])
    if pending is not None:
        yield pending


def _shown(output: Mapping[str, Any], images: dict[str, bytes], name: str) -> str:
    """One output as Markdown; images are added to ``images``."""
    match output["output_type"]:
        case "stream":
            return _fenced(output["text"], "text")
        case "error":
            return _fenced("\n".join(output["traceback"]), "text")
        case _:
            return _richest(output["data"], images, name)


def _richest(data: Mapping[str, Any], images: dict[str, bytes], name: str) -> str:
    for mime, suffix in _IMAGES.items():
        if mime in data:
            image = f"{name}-{len(images) + 1}.{suffix}"
            images[image] = base64.b64decode("".join(data[mime]))
            return f"![{_plain(data) or 'figure'}]({image})"
    if html := "".join(data.get("text/html", "")):
        return f"<div>\n{html}\n</div>"
    return _fenced(_plain(data), "text")


def _plain(data: Mapping[str, Any]) -> str:
    return "".join(data.get("text/plain", ""))


def _fenced(text: str, language: str) -> str:
    text = _COLOURS.sub("", text).rstrip()
    if not text:
        return ""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
