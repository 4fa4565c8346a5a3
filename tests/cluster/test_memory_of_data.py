"""One copy of large data a machine, however many engines have it."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nsactors import Client, Cluster, Reference
from nsactors.testing import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]

DATA_BYTES = 200_000_000
SETTLING_S = 0.5


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=4) as client:
        client[:].push({"data": np.arange(100_000)}, block=True)  # imports NumPy there
        yield client


def test_a_push_to_four_engines_adds_one_copy_to_what_the_machine_holds(rc: Client) -> None:
    data = np.arange(DATA_BYTES // 8)
    total = int(data.sum())
    before = _settled_bytes()
    rc[:].push({"data": data}, block=True)
    assert rc[:].apply_sync(lambda array: int(array.sum()), Reference("data")) == [total] * 4
    assert _settled_bytes() - before < 1.1 * DATA_BYTES


def _settled_bytes() -> int:
    """Memory as ``_held_bytes`` tells it, once it stays as it is: Ray's processes may still be starting."""
    pause = threading.Event()
    readings = [_held_bytes()]

    def settled() -> bool:
        pause.wait(SETTLING_S)
        readings.append(_held_bytes())
        return abs(readings[-1] - readings[-2]) < 0.01 * DATA_BYTES

    wait_until(settled)
    return readings[-1]


def _held_bytes() -> int:
    """Memory of this process and those below it; pages that several of them share count once."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = status.read_text().rpartition(")")
        except OSError:  # it has ended
            continue
        children[int(rest.split()[1])].append(int(status.parent.name))
    family = [os.getpid()]
    for process in family:
        family += children[process]
    return sum(map(_proportional_bytes, family))


def _proportional_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
