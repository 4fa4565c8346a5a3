"""The sessions shown in the documentation, typed again: what they print must be what the pages say."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(350)]

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/tutorials/first-cluster.md",
    "docs/how-to/move-data.md",
    "docs/how-to/task-farm.md",
    "docs/how-to/see-tasks.md",
    "docs/how-to/message-passing.md",
    "docs/how-to/bsp.md",
    "docs/how-to/engines-as-clients.md",
    "docs/how-to/write-a-model.md",
    "docs/how-to/tuple-space.md",
    "docs/how-to/map-reduce.md",
    "docs/how-to/memory.md",
    "docs/how-to/scale.md",
    "docs/how-to/recover.md",
    "docs/how-to/come-back-for-results.md",
    "docs/how-to/ecosystem.md",
    "docs/how-to/mpi.md",
]
LIMIT_S = 300

# Types a session, at which people would not wait for long for what is slow to answer; but machines have pauses.
PATIENT = """
import runpy
from nsactors.client import memory, overtaken, shared_work
memory.ANSWER_WAIT_S = overtaken.OUTPUT_GRACE_S = shared_work.NEWS_S = 60.0
runpy.run_module("doctest", run_name="__main__", alter_sys=True)
"""


def sessions(page: str) -> str:
    """The ``pycon`` blocks of a page; other lines are blank, so that line numbers stay true."""
    lines, inside = [], False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```pycon"
            line = ""  # noqa: PLW2901
        lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def test_only_sessions_are_kept_and_lines_stay_where_they_are() -> None:
    page = "Text\n```pycon\n>>> 1 + 1\n2\n```\n```console\n$ make demo\n```\n"
    assert sessions(page) == "\n\n>>> 1 + 1\n2\n\n\n\n\n"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_it_says(page: str, tmp_path: pathlib.Path) -> None:
    typed = tmp_path / pathlib.Path(page).name
    typed.write_text(sessions((ROOT / page).read_text(encoding="utf-8")), encoding="utf-8")
    assert ">>> " in typed.read_text(encoding="utf-8")
    command = [sys.executable, "-c", PATIENT, "-o", "ELLIPSIS", str(typed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
