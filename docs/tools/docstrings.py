"""Docstrings as Markdown: an extension of griffe, which reads them for the reference.

Their sections are those of Google's style. Examples are sessions, and names of other things are marked as Sphinx
would have it; editors show both well, and Markdown needs them otherwise.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

__all__ = ["Docstrings", "as_markdown"]

_ROLE = re.compile(r":(?:attr|class|exc|func|meth|mod):`~?([^`]+)`")
_EXAMPLE = re.compile(r"^Examples?::?\n((?:[ \t]*\n|[ \t]+\S.*(?:\n|\Z))+)", re.MULTILINE)
_PROPERTY = re.compile(r"property\(.*doc='(.*)'\)")  # of griffe's own rendering, which has single quotes
_LITERAL = re.compile(r"::$", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """Return a docstring whose examples are fenced code, and whose names of other things are code."""
    return _LITERAL.sub(":", _EXAMPLE.sub(_fenced, _ROLE.sub(r"`\1`", docstring)))


def _fenced(example: re.Match[str]) -> str:
    code = textwrap.dedent(example[1]).strip("\n")
    if "```" not in code:
        language = "pycon" if ">>>" in code else "python"
        code = f"```{language}\n{code}\n```"
    return f"Example:\n{textwrap.indent(code, '    ')}\n\n"


class Docstrings(griffe.Extension):
    """Turns every docstring into Markdown as it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called by griffe as it reads a class: a frozen class has the parameters of the data class that it is."""
        for decorator in cls.decorators:
            if decorator.callable_path == "nsactors._frozen.frozen":
                decorator.value = griffe.ExprName("dataclass", parent="dataclasses")
                cls.labels.add("dataclass")

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Called by griffe for each attribute: finds the docstring of ``name = property(get, doc="...")``."""
        if attr.docstring is None and (found := _PROPERTY.fullmatch(str(attr.value))):
            attr.docstring = griffe.Docstring(found[1], lineno=attr.lineno, parent=attr)
