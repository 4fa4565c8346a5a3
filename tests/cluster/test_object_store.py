"""What happens, and is said, when data does not fit into the object store."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(120)]

LIMIT_S = 90

PROGRAM = """
import warnings
import numpy as np
from nsactors import Cluster
from nsactors.errors import SpillWarning

def told(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = action()
    return value, [(type(one.message).__name__, one.filename == __file__) for one in caught]

def push(name, megabytes):
    return told(lambda: rc[:].push({name: np.ones(megabytes * 1_000_000, "u1")}, block=True))[1]

with Cluster(n=1, object_store_memory="100MB") as rc:
    print(rc.memory().stores[0].capacity)
    print("fits", push("a", 60), push("small", 1))
    print("spills", push("b", 60))
    print("still full", push("c", 60))
    print(rc.memory().stores[0].on_disk > 50_000_000, rc[:].pull("len(b)", block=True))
    result = rc[0].apply_async(lambda: np.ones(60_000_000, "u1"))
    print("result", len(result.get()), "SpillWarning: 60 MB go into the object store" in result.stderr)
"""


def test_a_put_that_does_not_fit_is_told_once_until_there_is_room(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "100000000",
            "fits [] []",
            "spills [('SpillWarning', True)]",
            "still full []",
            "True [60000000]",
            "result 60000000 True",
        ],
        "",
    )
