"""Memory does not grow with use: nothing has to be purged in a long session."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.cluster]


def grow(*options: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run the benchmark in a process of its own, whose memory is the client's alone."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.studies.growth", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


@pytest.mark.timeout(450)
def test_client_controller_and_engines_end_where_they_stood_after_a_warm_up() -> None:
    done = grow("--calls=12000", "--items=20000", "--pushes=60", "--limit=25", limit_s=400)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full_size
@pytest.mark.timeout(1_000)
def test_so_they_do_after_a_hundred_thousand_calls() -> None:
    done = grow(limit_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
