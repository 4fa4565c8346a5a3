"""From what a user calls a cluster to the way there."""

from __future__ import annotations

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nsactors.errors import ClusterNotFound, ClusterNotReady, ClusterUnreachable
from nsactors.testing import TIMEOUT_S
from nsactors.transport.base import ConnectionInfo
from nsactors.transport.registry import Registry, await_connection, connection_of


def info(address: str) -> ConnectionInfo:
    return ConnectionInfo(address=address, namespace="n")


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    registry = Registry()
    for name in ("lab", "other"):
        registry.update(replace(registry.reserve(name), connection=info(f"{name}:1")))
    return registry


def test_a_cluster_is_found_by_name_whatever_the_environment_says() -> None:
    assert connection_of("lab").address == "lab:1"
    assert connection_of("lab", "other").address == "lab:1"


def test_without_a_name_it_is_the_one_that_the_environment_names() -> None:
    assert connection_of(None, "other").address == "other:1"


def test_that_may_be_a_file(tmp_path: Path) -> None:
    info("file:1").save(tmp_path / "lab.json")
    assert connection_of(None, os.fspath(tmp_path / "lab.json")).address == "file:1"


def test_without_either_there_must_be_one_only(registry: Registry) -> None:
    with pytest.raises(
        ClusterNotFound, match=r"2 clusters of yours run: 'lab', 'other'\. Name one, .*NSACTORS_CLUSTER"
    ):
        connection_of(None)
    registry.remove(registry.find("other"))
    assert connection_of(None).address == "lab:1"


def test_a_cluster_that_the_environment_names_and_is_not_there_is_told_with_what_named_it() -> None:
    with pytest.raises(ClusterNotFound, match="no cluster 'nope', which NSACTORS_CLUSTER names, of yours runs here"):
        connection_of(None, "nope")


def test_one_that_is_starting_is_not_ready(registry: Registry) -> None:
    registry.reserve("third")
    with pytest.raises(ClusterNotReady):
        connection_of("third")


def test_a_cluster_that_is_not_there_yet_is_awaited(registry: Registry) -> None:
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(await_connection, "late", None, TIMEOUT_S)
        record = registry.reserve("late")
        registry.update(replace(record, connection=info("late:1")))
        assert found.result(TIMEOUT_S).address == "late:1"


@pytest.mark.parametrize("timeout_s", [0, 0.01])
def test_a_cluster_that_does_not_come_is_awaited_for_its_time(registry: Registry, timeout_s: float) -> None:
    with pytest.raises(ClusterNotFound):
        await_connection("nope", None, timeout_s)
    registry.reserve("third")
    with pytest.raises(ClusterNotReady):
        await_connection("third", None, timeout_s)


def test_a_wait_says_once_what_it_is_for(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 0.1)  # a tenth of a second passes between two looks at it
    monkeypatch.setattr(
        "nsactors.transport.registry.time", SimpleNamespace(time=time.time, monotonic=lambda: next(clock))
    )
    monkeypatch.setattr("nsactors.transport.registry.LOOK_S", 0.0)
    told: list[str] = []
    with pytest.raises(ClusterNotFound):
        await_connection("nope", None, 1, tell=told.append, tell_after_s=0)
    assert len(told) == 1
    assert told[0].startswith("waiting up to 1 s for a cluster: no cluster 'nope' of yours runs here")
    registry.reserve("third")
    with pytest.raises(ClusterNotReady):
        await_connection("third", None, 1, tell_after_s=0)
    assert capsys.readouterr().err.startswith("nsactors: waiting up to 1 s for a cluster: the cluster 'third' is st")
    with pytest.raises(ClusterNotReady):
        await_connection("third", None, 0.01)  # too short to be noticed
    assert capsys.readouterr().err == ""


def test_a_file_that_is_not_there_yet_is_awaited(tmp_path: Path) -> None:
    path = tmp_path / "late.json"
    with pytest.raises(ClusterUnreachable, match=r"late\.json"):
        await_connection(path, None, 0.01)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(await_connection, path, None, TIMEOUT_S)
        info("late:1").save(path)
        assert found.result(TIMEOUT_S).address == "late:1"


def test_another_file_is_not_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "other.json").chmod(0o600)
    monkeypatch.setattr("nsactors.transport.registry.LOOK_S", None)  # a second look is an error
    with pytest.raises(ClusterUnreachable, match="has not written this file"):
        await_connection(tmp_path / "other.json", None, TIMEOUT_S)


def test_waiting_does_not_choose_between_clusters() -> None:
    with pytest.raises(ClusterNotFound, match="2 clusters of yours"):
        await_connection(None, None, TIMEOUT_S)
