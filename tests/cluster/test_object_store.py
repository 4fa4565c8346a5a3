"""What happens, and is said, when data does not fit into the object store."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(400)]

LIMIT_S = 300

PROGRAM = """
import warnings
import numpy as np
from nsactors import Cluster
from nsactors.session import memory
from nsactors.errors import SpillWarning

memory.REPLY_WAIT_S = 60.0  # machines have pauses

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


# Fills the store in every way that there is, to far more than three times its size, keeps all and looks at every byte.
OVERFILLING = """
import warnings
import numpy as np
from nsactors import Cluster

MANY, SIZE = 10, 30_000_000

def make(number):
    import numpy
    return numpy.full(30_000_000, number, "u1")

def numbers(arrays):
    return [sorted({int(array.min()), int(array.max())}) for array in arrays if len(array) == SIZE]

warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught, Cluster(n=2, object_store_memory="100MB") as rc:
    view = rc[:]
    for number in range(MANY):
        view.push({f"pushed{number}": make(number)}, block=True)
    for number in range(MANY):
        view.scatter(f"parts{number}", make(number), block=True)
    results = [rc[0].apply_sync(make, number) for number in range(MANY)]
    for number in range(MANY):
        rc[1].execute(f"made{number} = __import__('numpy').full({SIZE}, {number}, 'u1')", block=True)
    refs = [rc[1].pull(f"made{number}", as_ref=True, block=True) for number in range(MANY)]
    pulled = [rc[1].pull(f"pushed{number}", block=True) for number in range(MANY)]
    gathered = [view.gather(f"parts{number}", block=True) for number in range(MANY)]
    expected = [[number] for number in range(MANY)]
    for found in (results, pulled, gathered, [ref.get() for ref in refs]):
        print(numbers(found) == expected)
    view.push({"huge": np.ones(150_000_000, "u1")}, block=True)
    print(view.pull("int(huge.sum())", block=True))
print([type(one.message).__name__ for one in caught])
"""

# With a disk that counts as full as soon as there is anything on it.
NO_ROOM = """
import numpy as np
from nsactors import Cluster
from nsactors.session import memory
from nsactors.errors import StoreFull

memory.REPLY_WAIT_S = 60.0  # machines have pauses

def attempt(what, action):
    try:
        action()
        print(what, "done")
    except StoreFull as full:
        print(what, str(full).partition(":")[0])

values = np.ones(30_000_000, "u1")
with Cluster(n=2, object_store_memory="100MB") as rc:
    view = rc[:]
    for k in range(4):
        attempt("push", lambda: view.push({f"a{k}": values}, block=True))
    attempt("scatter", lambda: view.scatter("parts", np.tile(values, 2), block=True))
    attempt("make", lambda: view.execute("import numpy as np; b = np.ones(30_000_000, 'u1')", block=True))
    attempt("pull", lambda: rc[0].pull("b", block=True))
    attempt("pull as_ref", lambda: rc[0].pull("b", as_ref=True, block=True))
    print(view.pull("[int(a0.sum()), int(b.sum()), 'a3' in globals(), 'parts' in globals()]", block=True))
    view.clear(block=True)
    while sum(store.used for store in rc.memory().stores) > 50_000_000:  # given back a moment later
        pass
    attempt("push", lambda: view.push({"a": values}, block=True))
"""


def run(text: str, folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2]), **environment}
    return subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def test_three_times_as_much_as_fits_is_all_there_and_told_once(tmp_path: pathlib.Path) -> None:
    done = run(OVERFILLING, tmp_path)
    told = ["True", "True", "True", "True", "[150000000, 150000000]", "['SpillWarning']"]
    assert done.stdout.splitlines() == told
    told_by_engines = done.stderr.splitlines()  # by each that puts something there, and shown to who waits for it
    assert len(told_by_engines) == 2
    assert all(line.startswith("SpillWarning: 30 MB go into the object store") for line in told_by_engines)


def test_what_has_no_room_on_the_disk_either_fails_at_once_and_leaves_the_rest_as_it_was(
    tmp_path: pathlib.Path,
) -> None:
    done = run(NO_ROOM, tmp_path, RAY_local_fs_capacity_threshold="0.001")
    assert done.stdout.splitlines() == [
        "push done",
        "push done",
        "push done",
        "push there is no room for the request's payload (30 MB)",
        "scatter there is no room for the request's payload (30 MB)",
        "make done",
        "pull there is no room for the reply of engine 0",
        "pull as_ref there is no room for the value (30 MB)",
        "[[30000000, 30000000, False, False], [30000000, 30000000, False, False]]",
        "push done",
    ]


def test_a_put_that_does_not_fit_is_told_once_until_there_is_room(tmp_path: pathlib.Path) -> None:
    done = run(PROGRAM, tmp_path)
    assert done.stdout.splitlines() == [
        "100000000",
        "fits [] []",
        "spills [('SpillWarning', True)]",
        "still full []",
        "True [60000000]",
        "result 60000000 True",
    ]
    [told] = done.stderr.splitlines()  # what the engine wrote, shown to who waited for its result
    assert told.startswith("SpillWarning: 60 MB go into the object store of this machine")
