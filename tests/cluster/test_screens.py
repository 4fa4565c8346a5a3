"""What the commands that people look at draw in a terminal: ``console``, ``top`` and ``doctor``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.cluster.terminal import terminal

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(450)]

COMMAND = [sys.executable, "-c", "from nsactors.cli import main; main()"]
LIMIT_S = 200


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Of a user with one cluster in the background, a home of their own, and a temporary folder with a long path."""
    home = tmp_path_factory.mktemp("home")
    temporary = home / "temporary files of a job that has a long name"
    temporary.mkdir()
    variables = {
        "XDG_STATE_HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "TERM": "xterm-256color",
        "TMPDIR": str(temporary),
    }
    for arguments in (["start", "-n", "2", "--name", "lab"], ["exec", "import time; a = 5"]):
        _run(variables, *arguments)
    yield variables
    _run(variables, "stop", "lab")


def _run(variables: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _running(variables: Mapping[str, str]) -> list[str]:
    """Return the requests that engines run."""
    return [engine["runs"] for engine in json.loads(_run(variables, "status", "--json"))["engines"]]


def test_cells_of_the_console_run_on_the_engines_until_it_is_left(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    with terminal(tmp_path, [*COMMAND, "console"], 80, environment=environment) as shown:
        shown.wait_for("lab In [1]:")
        shown.type("print('rank', a + 37)")
        screen = shown.wait_for("rank 42", "lab In [2]:")
        apart = all(line in screen for line in ("[0] rank 42", "[1] rank 42"))  # one was a fifth of a second later
        assert apart or "[0-1] rank 42" in screen
        shown.type("%pn 1 a")
        shown.wait_for("Out[1:", ": 5", "lab In [3]:")
        shown.type("1/0")
        shown.wait_for("ZeroDivisionError: division by zero  [engines 0-1]", "lab In [4]:")
        shown.type("time.sleep(600)")
        wait_until(lambda: _running(environment) == ["time.sleep(600)"] * 2, LIMIT_S)
        shown.press("C-c")
        shown.wait_for("KeyboardInterrupt", "lab In [5]:")
        shown.type("exit")
        shown.wait_until_ended()
    assert "5" in _run(environment, "exec", "print(a)")


@pytest.mark.parametrize(("columns", "arguments", "end"), [(80, [], "C-c"), (140, ["lab"], "q")])
def test_top_fits_the_terminal_and_shows_what_engines_do(
    columns: int, arguments: list[str], end: str, environment: Mapping[str, str], tmp_path: Path
) -> None:
    busy = subprocess.Popen([*COMMAND, "exec", "time.sleep(600)"], env={**os.environ, **environment})
    try:
        with terminal(tmp_path, [*COMMAND, "top", *arguments], columns, environment=environment) as shown:
            wait_until(lambda: shown.screen.count("busy") >= 2, LIMIT_S)
            screen = shown.wait_for("lab · ", "busy", "time.sl", "%", "MB", "queued", "q or Ctrl-C")
            assert ("last error" in screen) == (columns == 140)
            assert all(len(line) <= columns for line in screen.splitlines())
            shown.press(end)
            shown.wait_until_ended()
        assert "engine 0 runs time.sleep(600), for" in _run(environment, "top", "--seconds", "0")
    finally:
        _run(environment, "interrupt")
        busy.wait(LIMIT_S)


def test_the_doctor_finds_a_machine_on_which_clusters_run(environment: Mapping[str, str]) -> None:
    findings = {finding["subject"]: finding for finding in json.loads(_run(environment, "doctor", "--json"))}
    assert findings["a cluster"]["level"] == "good"
    assert findings["clusters"]["found"] == "running: lab"
    assert "is too long a path for sockets" in findings["temporary files"]["found"]
    assert findings["temporary files"]["level"] != "wrong"
