from __future__ import annotations

import base64
from typing import Any

from docs.tools.notebook_pages import page_of


def code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": [source], "outputs": list(outputs)}


def stream(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def display(**data: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {mime.replace("_", "/"): text for mime, text in data.items()}}


def body(*cells: dict[str, Any]) -> str:
    """The page without its last line, a link to the notebook."""
    return page_of({"cells": cells}, "some").text.rpartition("\n\n[Download")[0]


def test_text_cells_are_taken_as_they_are() -> None:
    assert body({"cell_type": "markdown", "source": ["# Title\n", "text"]}) == "# Title\ntext"


def test_pieces_of_text_are_one_block() -> None:
    page = body(code("f()", stream("a\n"), stream("b\n"), display(text_plain="c")))
    assert page == "```ipython\nf()\n```\n\n```text\na\nb\n```\n\n```text\nc\n```"


def test_an_error_is_shown_without_its_colours() -> None:
    error = {"output_type": "error", "traceback": ["\x1b[1;31mValueError\x1b[0m: no"]}
    assert body(code("f()", error)).endswith("```text\nValueError: no\n```")


def test_images_become_files_in_order() -> None:
    images = [display(image_png=base64.b64encode(content).decode(), text_plain="plot") for content in (b"1", b"2")]
    page = page_of({"cells": [code("f()", *images)]}, "some")
    assert page.images == {"some-1.png": b"1", "some-2.png": b"2"}
    assert "![plot](some-1.png)\n\n![plot](some-2.png)" in page.text


def test_html_is_preferred_to_text() -> None:
    assert body(code("f()", display(text_html="<b>x</b>", text_plain="x"))).endswith("<div>\n<b>x</b>\n</div>")


def test_a_display_that_was_emptied_leaves_no_trace() -> None:
    assert body(code("f()", display(text_html="", text_plain=""))) == "```ipython\nf()\n```"


def test_backticks_in_output_do_not_end_its_block() -> None:
    assert body(code("f()", stream("```\nx\n```\n"))).endswith("````text\n```\nx\n```\n````")
