"""The process of an engine's kernel: ``python -m nsactors.cluster.kernel_process ENGINE``.

The process reads the connection info of the cluster from standard input, and prints one line of JSON: the path of the
connection file once programs of Jupyter can connect, or an error. Then the process serves these programs until the
engine has left for good, the cluster has ended, or a signal ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from IPython.core.inputtransformer2 import TransformerManager
from IPython.utils.tokenutil import token_at_cursor
from tornado.ioloop import IOLoop
from traitlets import Instance

from nsactors._version import __version__
from nsactors.client import Client
from nsactors.errors import CapabilityError, NsactorsError, render_text
from nsactors.protocol.control import Complete
from nsactors.protocol.messages import ClearOutput, Display, ExecuteResult, OutputChunk, StreamText
from nsactors.results import AsyncResult
from nsactors.system.private_files import PrivateFolder, write_private
from nsactors.transport.base import ConnectionInfo
from nsactors.views.direct import DirectView

if TYPE_CHECKING:
    from tornado.platform.asyncio import BaseAsyncIOLoop

ANSWER_S = 1.0
OUTPUT_S = 10.0
LEAVING_S = 15.0  # for the reply to the cell that runs when its engine ends
LOOK_S = 0.2
_NAME = re.compile(r"[A-Za-z_][\w.]*")


class EngineKernelApp(IPKernelApp):
    """The sockets and loops of a kernel, without a shell of its own."""

    def init_signal(self) -> None:
        """Let SIGINT interrupt the engine's cell, and SIGTERM end this process gracefully."""
        # Not signal.signal(): its handler would wait until the loop wakes for another reason, if the signal comes just
        # before the loop begins to wait, or on another thread.
        loop = cast("BaseAsyncIOLoop", IOLoop.current())
        loop.asyncio_loop.add_signal_handler(signal.SIGINT, lambda: self.kernel.interrupt())  # noqa: PLW0108 (made later)
        loop.asyncio_loop.add_signal_handler(signal.SIGTERM, loop.stop)

    def leave_when_idle(self) -> None:
        """End the process when programs have the replies to their cells; callable from any thread."""
        give_up = time.monotonic() + LEAVING_S

        def look() -> None:
            if self.kernel.is_busy and time.monotonic() < give_up:
                self.io_loop.call_later(LOOK_S, look)
            else:  # during this pause, cells that were queued after the failed one get their replies
                self.io_loop.call_later(LOOK_S, self.io_loop.stop)

        self.io_loop.add_callback(look)


class EngineKernelBase(Kernel):
    """A kernel whose cells run on an engine.

    Attributes:
        view: the view of the engine.
    """

    implementation = "nsactors"
    implementation_version = __version__
    banner = "Cells run on an engine of nsactors."
    language_info = {  # noqa: RUF012 (no trait in the base class)
        "name": "python",
        "version": sys.version.split()[0],
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": sys.version_info.major},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }
    view = Instance(DirectView)

    @property
    def kernel_info(self) -> dict[str, Any]:
        """The description for programs: no subshells, as an engine runs one cell at a time, and no debugger."""
        return {**super().kernel_info, "supported_features": []}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._running: AsyncResult | None = None
        self._deliver: Callable[[Sequence[OutputChunk] | None], object] = lambda chunks: None
        self._transformer = TransformerManager()

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        allow_stdin: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Run a cell on the engine, publish its output as it arrives, and return the content of the reply."""
        result = self._running = self.view.execute(code, silent=silent or not store_history, block=False)
        try:
            await self._publish_output(result, silent=silent)
        finally:
            self._running = None
        (call,) = result.calls
        self.execution_count = call.execution_count or self.execution_count
        try:
            result.get(0)
        except Exception as error:
            content = _error_content(error)
            if not silent:
                self._publish_message("error", content)
            return {"status": "error", "execution_count": self.execution_count, **content}
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "user_expressions": self._evaluated(user_expressions or {}),
            "payload": [],
        }

    async def _publish_output(self, result: AsyncResult, *, silent: bool) -> None:
        """Return when the result has arrived and its output has been published."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Sequence[OutputChunk] | None] = asyncio.Queue()

        def deliver(chunks: Sequence[OutputChunk] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the kernel may have ended in the meantime
                loop.call_soon_threadsafe(arrived.put_nowait, chunks)

        def settle() -> None:
            result.wait()
            result.wait_for_output(OUTPUT_S)
            deliver(None)

        (call,) = result.calls
        self._deliver = deliver
        call.watch_output(lambda _, chunks: deliver(chunks))
        threading.Thread(target=settle, name="nsactors-kernel-wait", daemon=True).start()
        while (chunks := await arrived.get()) is not None:
            for chunk in () if silent else chunks:
                self._publish(chunk)

    def _publish(self, chunk: OutputChunk) -> None:
        match chunk:
            case StreamText(name, text):
                self._publish_message("stream", {"name": name, "text": text})
            case Display(data, metadata, transient, update):
                kind = "update_display_data" if update else "display_data"
                self._publish_message(kind, {"data": data, "metadata": metadata, "transient": transient})
            case ExecuteResult(count, data, metadata):
                content = {"execution_count": count, "data": data, "metadata": metadata}
                self._publish_message("execute_result", content)
            case ClearOutput(wait):
                self._publish_message("clear_output", {"wait": wait})

    def _publish_message(self, kind: str, content: dict[str, Any]) -> None:
        self.send_response(self.iopub_socket, kind, content)  # type: ignore[no-untyped-call]

    def _evaluated(self, expressions: dict[str, str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, expression in expressions.items():
            try:
                text = repr(self.view.peek(expression))
            except NsactorsError as error:
                found[name] = {"status": "error", **_error_content(error)}
            else:
                found[name] = {"status": "ok", "data": {"text/plain": text}, "metadata": {}}
        return found

    @property
    def is_busy(self) -> bool:
        """True while a cell runs."""
        return self._running is not None

    def interrupt(self) -> None:
        """Interrupt the cell that runs."""
        result = self._running
        if result is not None:
            # In another thread: abort() waits for the controller, and messages are handled on this one.
            threading.Thread(target=self._abort, args=(result,), daemon=True).start()

    def _abort(self, result: AsyncResult) -> None:
        try:
            result.abort(interrupt=True)
        except CapabilityError as unable:
            self._deliver([StreamText("stderr", f"{unable}\n")])
        except RuntimeError:  # the cell has ended already
            return

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Interrupt the cell that runs, because a message asks for it."""
        self.interrupt()
        assert self.session is not None
        self.session.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    def pre_handler_hook(self) -> None:
        """Do nothing: the base class would replace the handler of SIGINT that ``init_signal`` has set."""

    def post_handler_hook(self) -> None:
        """Do nothing: the base class would restore the handler that ``pre_handler_hook`` has replaced."""

    async def do_complete(self, code: str, cursor_pos: int) -> dict[str, Any]:
        """Return the names on the engine that complete the text before the cursor."""
        start, end, matches = cursor_pos, cursor_pos, ()
        client, engine_id = self.view.client, self.view.targets
        with contextlib.suppress(NsactorsError):  # the next cell reports a lost connection
            replies = client.session.controller.query([engine_id], Complete(code, cursor_pos), ANSWER_S)
            reply = replies.get(engine_id)
            if reply is not None and reply.value is not None:
                start, end, matches = reply.value.start, reply.value.end, reply.value.matches
        content = {"matches": list(matches), "cursor_start": start, "cursor_end": end, "metadata": {}}
        return {"status": "ok", **content}

    async def do_inspect(
        self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()
    ) -> dict[str, Any]:
        """Return the description that IPython on the engine gives for ``name?``, for the name at the cursor."""
        name = token_at_cursor(code, cursor_pos)
        data: dict[str, str] = {}
        if _NAME.fullmatch(name):
            with contextlib.suppress(NsactorsError):  # the engine does not know the name, or has not run anything yet
                text = self.view.peek(f"get_ipython().object_inspect_text({name!r}, {int(detail_level)})")
                data = {"text/plain": text}
        return {"status": "ok", "found": bool(data), "data": data, "metadata": {}}

    async def do_is_complete(self, code: str) -> dict[str, Any]:
        """Return whether a cell can be run, or needs more lines."""
        status, indent = self._transformer.check_complete(code)
        return {"status": status} if status != "incomplete" else {"status": status, "indent": " " * (indent or 0)}

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """End this process; the engine stays."""
        return {"status": "ok", "restart": restart}


def _error_content(error: Exception) -> dict[str, Any]:
    name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return {"ename": name, "evalue": text, "traceback": render_text(error, color=True, says_where=False).splitlines()}


def serve(info: ConnectionInfo | str, engine_id: int, tell: Any) -> None:
    """Serve an engine's kernel until it is asked to end.

    Args:
        info: the connection info of the cluster, or the name of an embedded program.
        engine_id: the engine.
        tell: called with the path of the connection file once programs can connect.
    """
    folder = PrivateFolder()
    client = None
    try:
        client = Client(info, f"kernel-{engine_id}", output="keep", modules="off")
        client.wait_for_engines()
        file = Path(folder.path) / "kernel.json"
        # JupyterLab shows the name; the app completes the file.
        known = {"kernel_name": f"engine {engine_id}", "transport": "ipc", "ip": str(file.with_suffix(""))}
        write_private(file, json.dumps(known))
        app = EngineKernelApp.instance(kernel_class=EngineKernelBase, connection_file=str(file))
        app.initialize([])  # type: ignore[no-untyped-call]
        app.kernel.view = client[engine_id]
        gone = client.session.directory.wait_until_gone

        def follow() -> None:
            gone([engine_id], None)
            app.leave_when_idle()  # the cell that runs fails, and its program gets the error

        threading.Thread(target=follow, name="nsactors-kernel-end", daemon=True).start()
        tell(str(file))
        app.start()  # type: ignore[no-untyped-call]
    finally:
        if client is not None:
            client.close()
        folder.remove()


def main() -> None:
    """Read the connection info, serve, and end."""
    # Keep standard output for the answer; drop what the kernel prints there.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def tell(file: str) -> None:
        print(json.dumps({"connection_file": file, "pid": os.getpid()}), file=answers, flush=True)
        answers.close()

    request = json.load(sys.stdin)
    if os.fork():
        os._exit(0)  # Ray kills the children of an engine's process together with it, but a kernel must end gracefully
    try:
        serve(ConnectionInfo.from_dict(request), int(sys.argv[1]), tell)
    except Exception as error:
        if answers.closed:
            raise
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)


if __name__ == "__main__":
    main()
