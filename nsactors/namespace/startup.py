"""The first cell of an engine, and the ``on_error`` function of a cluster."""

from __future__ import annotations

import json
import re
import sys
import traceback
from functools import partial
from typing import Any, Self

from nsactors.namespace.interrupts import run_user_code, user_traceback
from nsactors.namespace.namespace import Namespace
from nsactors.namespace.output import OutputRecorder
from nsactors.protocol.messages import Execute, OutputChunk, RequestId, StreamText
from nsactors.protocol.serialize import Payload, unpack

MOST_CHARS = 4_000
_FOUND = re.compile(r"start-up code: (\[.*\])$", re.MULTILINE)


class StartupFailed(Exception):
    """The start-up code of an engine has raised an error.

    The message is one line that contains everything. If Ray cannot make an actor, it passes on only the text of the
    reason, without the lines that look like Ray's own.

    Args:
        reason: one line.
        output: the cell's output, and its traceback.
    """

    def __init__(self, reason: str, output: str) -> None:
        super().__init__(f"start-up code: {json.dumps([reason, output])}")
        self.reason = reason
        self.output = output

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.reason, self.output)

    @classmethod
    def found_in(cls, text: str) -> Self | None:
        """Return the failure that ``text`` describes; None if it describes none."""
        found = _FOUND.search(text)
        return None if found is None else cls(*json.loads(found[1]))


def run_startup(code: str, namespace: Namespace, output: OutputRecorder) -> tuple[StreamText, ...]:
    """Run a cell; return the end of its output, by stream.

    Raises:
        StartupFailed: if the cell raised an error of any kind.
    """
    output.begin(RequestId("", 0))
    try:
        namespace.run(Execute(code, silent=True, store_history=False), None)
    except BaseException as error:
        written = "".join(chunk.text for chunk in _texts(output.finish().chunks))
        where = "".join(traceback.format_exception(type(error), error, user_traceback(error)))
        summary = traceback.format_exception_only(type(error), error)[-1].strip().splitlines()[0]
        raise StartupFailed(f"its start-up code raised {summary}", (written + where).rstrip()) from None
    return _texts(output.finish().chunks)


def _texts(chunks: tuple[OutputChunk, ...]) -> tuple[StreamText, ...]:
    written: dict[str, str] = {}
    for chunk in chunks:
        if isinstance(chunk, StreamText):
            written[chunk.name] = written.get(chunk.name, "") + chunk.text
    return tuple(StreamText(name, text[-MOST_CHARS:]) for name, text in written.items())


class ErrorHandler:
    """Call the user's ``on_error`` function with an error. The client gets the error as well.

    Args:
        pickled: the function; None for no function.
        names: the namespace; the function looks names up there first, and then in its own globals.
    """

    def __init__(self, pickled: bytes | None, names: dict[str, Any]) -> None:
        self._pickled = pickled
        self._names = names
        self._function: Any = None

    def __call__(self, error: BaseException) -> None:
        """Pass an error to the function, unless it is an interrupt or an exit."""
        if self._pickled is None or not issubclass(type(error), Exception):
            return
        try:
            if self._function is None:
                load = partial(unpack, scope=self._names, stays=True)
                self._function = run_user_code(load, Payload(self._pickled))
            run_user_code(self._function, error)
        except BaseException as failed:  # it must not hide the error that it was called with
            print(f"[nsactors: on_error itself failed: {type(failed).__name__}: {failed}]", file=sys.stderr)
