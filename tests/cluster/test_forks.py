"""What the contract says of forked children, on Ray: in a process that does nothing else and is gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import FORKS_HERE

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]

LIMIT_S = 280
TESTS = 4
ROOT = Path(__file__).parents[2]


def test_forked_children_of_a_process_with_a_cluster_are_told_what_to_do() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "ray and forks",
            "-p",
            "no:cacheprovider",
            "tests/contract/test_forks.py",
        ],
        cwd=ROOT,
        env={**os.environ, FORKS_HERE: "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert f"{TESTS} passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
