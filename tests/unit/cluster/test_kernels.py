"""Cells of a Jupyter kernel on an engine, without sockets and other processes."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsactors import Client, Cluster, bind_kernel
from nsactors.cluster.kernels import EngineKernel
from nsactors.errors import CapabilityError, WrongType, WrongValue
from nsactors.system.processes import ProcessIdentity
from nsactors.testing import TIMEOUT_S

_COLOR = re.compile(r"\x1b\[[\d;]*m")
jupyter_client = pytest.importorskip("jupyter_client")
kernel_process = pytest.importorskip("nsactors.cluster.kernel_process")


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=2, backend="local") as rc:
        yield rc


@pytest.fixture
def kernel(rc: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kernel on engine 1 that keeps what it publishes in ``published``."""
    made = kernel_process.EngineKernelBase(view=rc[1])
    made.published = []
    monkeypatch.setattr(made, "send_response", lambda _, kind, content: made.published.append((kind, content)))
    return made


@pytest.fixture(autouse=True)
def _breakpointhook_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import of ipykernel replaces the hook, on which engines of this process rely."""
    monkeypatch.setattr(sys, "breakpointhook", sys.breakpointhook)


def run(kernel: Any, code: str, *, silent: bool = False, **options: Any) -> dict[str, Any]:
    kernel.published.clear()
    reply: dict[str, Any] = asyncio.run(kernel.do_execute(code, silent, **options))
    return reply


def test_output_and_value_of_a_cell_are_published_before_its_reply(kernel: Any, rc: Client) -> None:
    reply = run(kernel, "x = 5\nprint('a')\nx + 1")
    text = "".join(content["text"] for kind, content in kernel.published if kind == "stream")
    assert text == "a\n"
    kind, content = kernel.published[-1]
    assert (kind, content["data"]) == ("execute_result", {"text/plain": "6"})
    assert (reply["status"], reply["execution_count"]) == ("ok", content["execution_count"])
    assert rc[1]["x"] == 5


def test_an_error_is_published_with_its_traceback(kernel: Any) -> None:
    reply = run(kernel, "1 / 0")
    (kind, content) = kernel.published[-1]
    assert kind == "error"
    assert (content["ename"], content["evalue"]) == ("ZeroDivisionError", "division by zero")
    traceback = _COLOR.sub("", "\n".join(content["traceback"]))
    assert "1 / 0" in traceback
    assert "Called from" not in traceback
    assert reply["status"] == "error"


def test_a_silent_cell_publishes_nothing(kernel: Any) -> None:
    assert run(kernel, "print(1)\n2", silent=True)["status"] == "ok"
    assert kernel.published == []


def test_expressions_of_the_user_are_evaluated_on_the_engine(kernel: Any) -> None:
    reply = run(kernel, "z = 3", user_expressions={"twice": "2 * z", "unknown": "no_such_name"})
    assert reply["user_expressions"]["twice"]["data"] == {"text/plain": "6"}
    assert reply["user_expressions"]["unknown"]["ename"] == "NameError"


def test_names_of_the_engine_complete_a_text(kernel: Any, rc: Client) -> None:
    rc[1].push({"wavelength": 1}, block=True)
    reply = asyncio.run(kernel.do_complete("y = wavel", 9))
    assert (reply["matches"], reply["cursor_start"], reply["cursor_end"]) == (["wavelength"], 4, 9)


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("for x in y:", {"status": "incomplete", "indent": "    "}),
        ("x = 1", {"status": "complete"}),
        ("x = = 1", {"status": "invalid"}),
    ],
)
def test_a_console_is_told_whether_a_cell_is_complete(kernel: Any, code: str, reply: dict[str, str]) -> None:
    assert asyncio.run(kernel.do_is_complete(code)) == reply


def test_only_one_engine_of_other_processes_becomes_a_kernel(rc: Client) -> None:
    with pytest.raises(WrongType, match="a view of one engine"):
        bind_kernel(3)  # type: ignore[arg-type]
    with pytest.raises(WrongValue, match="a view of one engine"):
        bind_kernel(rc[:])
    with pytest.raises(CapabilityError, match="reached from another process"):
        bind_kernel(rc[1])


def test_a_kernel_is_closed_once_and_says_that_it_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], text=True)
    kernel = EngineKernel(3, "/folder/kernel.json", ProcessIdentity.of(process.pid))
    assert repr(kernel) == "<EngineKernel of engine 3: jupyter console --existing /folder/kernel.json>"
    kernel.close()
    kernel.close()
    assert process.wait(TIMEOUT_S) == -signal.SIGTERM
    assert not kernel.is_running
    assert repr(kernel) == "<EngineKernel of engine 3: has ended>"


def test_a_console_is_offered_what_engines_have(kernel: Any) -> None:
    told = kernel.kernel_info
    assert told["supported_features"] == []
    assert (told["language_info"]["name"], told["language_info"]["file_extension"]) == ("python", ".py")


PROGRAM = """\
import threading
import nsactors
nsactors.embed(name="held")
print("ready", flush=True)
threading.Event().wait()
"""
# Signals interrupt a thread that is not the main one. The effect is that of a signal that comes just before the main
# thread begins to wait: the system call does not return.
KERNEL = """\
import os, signal, threading
tell = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
from nsactors.cluster.kernel_process import serve
serve("held", 0, lambda file: print(file, file=tell, flush=True))
"""


def start(code: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        return process, process.stdout.readline().strip()


class Console:
    """A console on the kernel of an embedded program, with a cell that does not end by itself."""

    def __init__(self) -> None:
        self.program, _ = start(PROGRAM)
        self.kernel, self.file = start(KERNEL)
        self.client = jupyter_client.BlockingKernelClient()

    def begin(self) -> None:
        """Connect, and return when the cell runs."""
        self.client.load_connection_file(self.file)
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self.client.execute("print('begun'); import threading; threading.Event().wait()")
        self.read_until("begun\n")

    def read_until(self, end: str) -> None:
        """Return when a text has been published that ends with this."""
        while not str(self.client.get_iopub_msg(timeout=TIMEOUT_S)["content"].get("text")).endswith(end):
            pass

    def reply(self) -> dict[str, Any]:
        """Return the content of the reply to the cell.

        Others may come first: while a kernel is slow to answer, ``wait_for_ready`` asks it again and again.
        """
        while (message := self.client.get_shell_msg(timeout=TIMEOUT_S))["msg_type"] != "execute_reply":
            pass
        content: dict[str, Any] = message["content"]
        return content

    def close(self) -> None:
        """End the processes."""
        self.client.stop_channels()
        for process in (self.program, self.kernel):
            process.kill()
            process.wait(TIMEOUT_S)


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    console = Console()
    try:
        yield console
    finally:
        console.close()


def test_a_console_gets_the_error_of_its_cell_when_the_engine_ends(console: Console) -> None:
    console.begin()
    console.program.kill()
    reply = console.reply()
    assert (reply["status"], reply["ename"]) == ("error", "ProgramEnded")
    assert console.kernel.wait(TIMEOUT_S) == 0
    assert not Path(console.file).parent.exists()


def test_a_console_is_told_that_its_cell_cannot_be_interrupted(console: Console) -> None:
    console.begin()
    console.kernel.send_signal(signal.SIGINT)
    console.read_until("cannot interrupt a call that runs: engines of `nsactors start` and Cluster(n=4) can\n")


def test_a_signal_ends_a_kernel_that_waits_for_messages(console: Console) -> None:
    console.begin()
    console.kernel.send_signal(signal.SIGTERM)
    assert console.kernel.wait(TIMEOUT_S) == 0
    assert not Path(console.file).parent.exists()
