"""Data that code on an engine publishes while it runs; ``result.data`` has the latest values.

The data travels as a display with a MIME type of its own.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["publish_data", "published_data", "without_data"]

MIME = "application/x-nsactors-data"


def publish_data(data: Mapping[str, Any]) -> None:
    """Publish names and values from an engine; the client reads them in ``result.data`` while the call runs.

    Args:
        data: values by name; each replaces an earlier value of the name.

    Raises:
        TypeError: if ``data`` is not a dictionary.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"publish_data() takes a dictionary of names and values, not {type(data).__name__}")
    import cloudpickle
    from IPython.display import publish_display_data

    publish_display_data({MIME: base64.b64encode(cloudpickle.dumps(dict(data))).decode("ascii")})


def published_data(displays: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the data among displays, with the latest value of each name."""
    found: dict[str, Any] = {}
    for display in displays:
        if MIME in display["data"]:
            found |= pickle.loads(base64.b64decode(display["data"][MIME]))
    return found


def without_data(displays: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the displays that are not data."""
    return [display for display in displays if MIME not in display["data"]]
