"""Examples run as programs, and a cluster that they share."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nsactors import Cluster


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run an example in this process, as ``python PATH ARGUMENTS`` would; return its status and its output."""

    def run(path: Path, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two engines on Ray."""
    cluster = Cluster(n=2)
    cluster.start_and_connect_sync()
    yield cluster
    cluster.stop_cluster_sync()
