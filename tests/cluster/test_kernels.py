"""Engines as kernels of Jupyter: a program of Jupyter runs cells on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster, bind_kernel
from nsactors.testing import wait_until

jupyter_client = pytest.importorskip("jupyter_client")
pytestmark = pytest.mark.ray

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=2) as rc:
        yield rc


class Console:
    """A client of a kernel, with the steps of a console of Jupyter."""

    def __init__(self, connection_file: str) -> None:
        self.client = jupyter_client.BlockingKernelClient()
        self.client.load_connection_file(connection_file)
        self.client.start_channels()
        self.client.wait_for_ready(PATIENCE_S)

    def run(self, code: str, on_output: Any = None) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def note(message: dict[str, Any]) -> None:
            known = seen.get("stream") if message["msg_type"] == "stream" else None
            if known is not None and known["name"] == message["content"]["name"]:
                known["text"] += message["content"]["text"]  # what is written in one piece may arrive in several
            else:
                seen[message["msg_type"]] = message["content"]
            if on_output is not None and message["msg_type"] == "stream":
                on_output()

        reply = self.client.execute_interactive(code, output_hook=note, timeout=PATIENCE_S)
        return {**seen, "reply": reply["content"]}

    def interrupt(self) -> None:
        self.client.control_channel.send(self.client.session.msg("interrupt_request"))


def test_a_console_works_on_an_engine_as_in_a_notebook(rc: Client) -> None:
    kernel = bind_kernel(rc[1])
    console = Console(kernel.connection_file)
    try:
        seen = console.run("import os; x = os.getpid(); print('hello'); x")
        assert seen["stream"]["text"] == "hello\n"
        assert seen["execute_result"]["data"] == {"text/plain": str(rc[1]["x"])}
        figure = "from IPython.display import HTML, display; display(HTML('<b>bold</b>'))"
        assert console.run(figure)["display_data"]["data"]["text/html"] == "<b>bold</b>"
        assert console.run("undefined")["error"]["ename"] == "NameError"
        endless = "import time\nprint('runs', flush=True)\nwhile True: time.sleep(0.01)"
        seen = console.run(endless, console.interrupt)
        assert seen["reply"]["ename"] == "KeyboardInterrupt"
        found = console.client.inspect("os.getpid", 9, reply=True, timeout=PATIENCE_S)["content"]
        assert "current process id" in found["data"]["text/plain"]
        file = Path(kernel.connection_file)
        assert (file.parent.stat().st_mode | file.stat().st_mode) & 0o077 == 0
        assert json.loads(file.read_text())["kernel_name"] == "engine 1"  # JupyterLab's name for it
    finally:
        console.client.stop_channels()
        kernel.close()
    assert not Path(kernel.connection_file).parent.exists()
    assert rc[1]["x"] == rc[1].apply_sync(os.getpid)


def test_an_engine_makes_itself_a_kernel_that_ends_with_it(rc: Client) -> None:
    rc[0].execute("import nsactors; kernel = nsactors.bind_kernel()", block=True)
    assert rc[0]["kernel.engine_id"] == 0
    file = Path(rc[0]["kernel.connection_file"])
    console = Console(str(file))
    console.run("y = 7")
    console.client.stop_channels()
    assert rc[0]["y"] == 7
    assert file.exists()
    rc[0].shutdown()
    wait_until(lambda: not file.parent.exists())
