"""``nsactors demo`` as people run it, on Ray."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(350)]

LIMIT_S = 300
COMMAND = [sys.executable, "-c", "from nsactors.cli import main; main()", "demo"]


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    """The demo, run into a pipe."""
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(COMMAND, env=environment, capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False)


def test_every_answer_is_right(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "✗" not in demo.stdout
    assert "Every answer is right" in demo.stdout


def test_nothing_but_the_demo_is_said(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.stderr == ""


@pytest.mark.parametrize(
    "line",
    [
        "  15.707963267948966\n",
        "NameError: name 'c' is not defined  [engines 2-3]",
        "[199500333333300, 199500333333300, 199500333333300, 199500333333300]",
        "✓ ydata[-1]: expected 984930291881790849, got 984930291881790849",
        "got      999990000044999880000209999748000209999880000044999990000001",
        "got      90908590909924242424241424242424243424242424241924242424242500000",
        "ZeroDivisionError: division by zero  [engines 1-3]",
        "engine 3 died while running execute",
        "✓ rc.ids: expected [0, 1, 2, 3], got [0, 1, 2, 3]",
        "✓ another process than before: expected True, got True",
    ],
)
def test_the_known_answers_are_shown(demo: subprocess.CompletedProcess[str], line: str) -> None:
    assert line in demo.stdout


def test_a_pipe_of_80_columns_gets_plain_text_that_fits(demo: subprocess.CompletedProcess[str]) -> None:
    assert "\x1b" not in demo.stdout
    assert max(map(len, demo.stdout.splitlines())) <= 80
