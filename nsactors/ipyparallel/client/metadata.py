"""The metadata of a request, in ipyparallel's form; and the reply to a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nsactors.ipyparallel.datapub import published_data, without_data
from nsactors.ipyparallel.error import TaskAborted
from nsactors.ipyparallel.translation import translated

__all__ = ["KEPT", "ExecuteReply", "Metadata", "engine_uuid", "metadata_of"]


KEPT = 10_000
"""The number of requests that clients and views remember: as many as the cluster's history does."""


class Metadata(dict[str, Any]):
    """The metadata of a request: a dictionary with a fixed set of keys, which are attributes too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        nothing = "msg_id submitted started completed received engine_uuid engine_id follow after status execute_input"
        self.update(dict.fromkeys([*nothing.split(), "execute_result", "error"]))
        self.update(stdout="", stderr="", outputs=[], data={}, label=None, is_broadcast=False, is_coalescing=False)
        self.update(dict(*args, **kwargs))

    def __getattr__(self, key: str) -> Any:
        if key in self:
            return self[key]
        raise AttributeError(key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key not in self:
            raise AttributeError(key)
        self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self:
            raise KeyError(key)
        super().__setitem__(key, value)


def engine_uuid(engine_id: int | None) -> str | None:
    """Return a unique name of an engine, which ipyparallel's programs expect. It is made from the engine's id."""
    return None if engine_id is None else f"engine-{engine_id}"


def metadata_of(known: Mapping[str, Any], sent: Mapping[str, Any]) -> Metadata:
    """Return the metadata of a request.

    Args:
        known: the metadata of nsactors.
        sent: the values that the view has noted when it sent the request.
    """
    made = Metadata()
    for key in ("msg_id", "submitted", "started", "completed", "received", "engine_id", "execute_result"):
        made[key] = known[key]
    made["engine_uuid"] = engine_uuid(known["engine_id"])
    made["status"] = None if known["status"] == "pending" else known["status"]
    made["error"] = translated(known["error"])
    if isinstance(made["error"], TaskAborted):
        made["status"] = "aborted"
    made["stdout"], made["stderr"] = known["stdout"], known["stderr"]
    made["outputs"], made["data"] = without_data(known["outputs"]), published_data(known["outputs"])
    if made["status"] is not None:  # ipyparallel's replies have these
        made.update(after=[], follow=[])
    made.update(sent)
    return made


class ExecuteReply:
    """The reply of one engine to a cell; IPython displays it as the cell's value.

    Args:
        msg_id: the id of the request.
        content: a dictionary with ``execution_count``, the cell's number on its engine.
        metadata: the metadata of the request; its keys are attributes of the reply.
    """

    def __init__(self, msg_id: str, content: Mapping[str, Any], metadata: Metadata) -> None:
        self.msg_id = msg_id
        self.execution_count = content["execution_count"]
        self.metadata = metadata

    @property
    def source(self) -> str:
        """The source of the value; empty, as engines do not report it."""
        return str(self._result.get("source", ""))

    @property
    def data(self) -> dict[str, Any]:
        """The value of the last expression, as a MIME bundle."""
        return dict(self._result.get("data", {}))

    @property
    def text(self) -> str:
        """The value of the last expression as text; empty without one."""
        return str(self.data.get("text/plain", ""))

    def display(self) -> None:
        """Show the value."""
        from IPython.display import publish_display_data

        publish_display_data(self.data, self._result.get("metadata", {}))

    @property
    def _result(self) -> dict[str, Any]:
        return self.metadata["execute_result"] or {}

    def __getitem__(self, key: str) -> Any:
        return self.metadata[key]

    def __getattr__(self, key: str) -> Any:
        metadata = self.__dict__.get("metadata", {})  # empty while it is being unpickled
        if key not in metadata:
            raise AttributeError(key)
        return metadata[key]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExecuteReply) and (self.msg_id, self.metadata) == (other.msg_id, other.metadata)

    def __hash__(self) -> int:
        return hash(self.msg_id)

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 32 else f"{self.text[:29]}..."
        return f"<ExecuteReply[{self.execution_count}]: {text}>"

    def _repr_mime(self, mime: str) -> Any:
        if mime not in self.data:
            return None
        described = self._result.get("metadata", {})
        return (self.data[mime], described[mime]) if mime in described else self.data[mime]

    def _repr_html_(self) -> Any:
        return self._repr_mime("text/html")

    def _repr_latex_(self) -> Any:
        return self._repr_mime("text/latex")

    def _repr_markdown_(self) -> Any:
        return self._repr_mime("text/markdown")

    def _repr_json_(self) -> Any:
        return self._repr_mime("application/json")

    def _repr_javascript_(self) -> Any:
        return self._repr_mime("application/javascript")

    def _repr_png_(self) -> Any:
        return self._repr_mime("image/png")

    def _repr_jpeg_(self) -> Any:
        return self._repr_mime("image/jpeg")

    def _repr_svg_(self) -> Any:
        return self._repr_mime("image/svg+xml")

    def _plain(self) -> str:
        if not self.text:
            return ""
        first = "\n" if "\n" in self.text and not self.text.startswith("\n") else ""
        return f"Out[{self.metadata['engine_id']}:{self.execution_count}]: {first}{self.text}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._plain())

    def _repr_mimebundle_(self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None) -> Any:
        data = self.data
        if "text/plain" in data:
            data["text/plain"] = self._plain()
        return data, self._result.get("metadata", {})
