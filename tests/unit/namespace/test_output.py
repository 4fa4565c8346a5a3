"""Captured output of processes, also where there is no room for it, and of threads."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from nsactors.namespace.output import ThreadCapture, printing_to

FULL = """
import os, resource, sys
from nsactors.namespace.output import FileCapture

capture = FileCapture(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
print("first")
print("second", file=sys.stderr)
print("third")
text = "".join(f"{each.name}: {each.text}" for each in capture.read())
capture.close()
print(text, end="")
"""


NO_FILE = """
import errno, os, sys
from nsactors.namespace import output as capture

def refuse(path, flags, *mode, opened=os.open):
    if flags & os.O_CREAT:
        raise OSError(errno.EROFS, "read-only")
    return opened(path, flags, *mode)

os.open = refuse
captured = capture.FileCapture(sys.argv[1])
print("first")
os.system("echo second")
text = "".join(each.text for each in captured.read())
captured.close()
print(text, end="")
"""


def test_output_is_captured_where_no_file_can_be_made(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_FILE, str(tmp_path / "engine")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["first", "second"], "")


@pytest.mark.parametrize("room", [0, 3, 100])
def test_what_is_printed_on_a_full_disk_is_shown_all_the_same(tmp_path: Path, room: int) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "engine"), str(room)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stderr == ""
    shown = done.stdout.replace("stdout: ", "").replace("stderr: ", "")
    assert shown.split() == ["first", "second", "third"]


class KernelStream(io.StringIO):
    """A stream like that of a kernel, whose ``set_parent`` is called for each cell."""

    parent = ""

    def set_parent(self, parent: str) -> None:
        self.parent = parent


def test_while_a_thread_is_captured_the_stream_of_others_has_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = KernelStream()
    monkeypatch.setattr(sys, "stdout", stream)
    captures: SimpleQueue[ThreadCapture] = SimpleQueue()
    ended = threading.Event()
    refused: list[bool] = []

    def engine() -> None:
        capture = ThreadCapture()
        refused.append(not hasattr(sys.stdout, "set_parent"))
        captures.put(capture)
        ended.wait()
        capture.close()

    thread = threading.Thread(target=engine)
    thread.start()
    captures.get()
    sys.stdout.set_parent("cell 2")  # type: ignore[attr-defined]
    print("hello")
    ended.set()
    thread.join()
    assert (stream.parent, stream.getvalue(), refused) == ("cell 2", "hello\n", [True])
    assert sys.stdout is stream


def test_a_thread_prints_to_a_list_of_its_own_and_the_stream_keeps_its_properties() -> None:
    before, text = sys.stdout, list[str]()
    with printing_to(text):
        print("mine")
        assert (sys.stdout.encoding, sys.stdout.errors) == (before.encoding, before.errors)
    assert "".join(text) == "mine\n"
    assert sys.stdout is before
