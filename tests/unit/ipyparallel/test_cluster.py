"""Clusters with ipyparallel's names."""

from __future__ import annotations

import asyncio
import threading

import pytest

import nsactors.ipyparallel as ipp
from nsactors.ipyparallel.arguments import CompatibilityWarning
from nsactors.ipyparallel.error import NotProvided
from nsactors.testing import TIMEOUT_S
from nsactors.transport.local import LocalBackend


def test_a_client_that_comes_before_the_engines_has_views_that_wait_for_them() -> None:
    cluster = ipp.Cluster(n=0, backend="local")
    cluster.start_cluster_sync()
    try:
        rc = cluster.connect_client_sync()
        view = rc.direct_view(block=True)
        assert view.block
        name = cluster.start_engines_sync(2)
        rc.wait_for_engines(2)
        assert view.apply(abs, -1) == [1, 1]
        assert cluster.engines[name].n == 2
    finally:
        cluster.stop_cluster_sync()
    assert cluster.controller is None


def test_a_cluster_that_runs_gets_more_engines_by_another_start() -> None:
    cluster = ipp.Cluster(engines="ipyparallel.cluster.launcher.LocalEngineSetLauncher", n=2, backend="local")
    cluster.start_controller_sync()
    try:
        with pytest.raises(RuntimeError, match="runs already"):
            cluster.start_controller_sync()
        assert cluster.start_cluster_sync(1) is cluster
        rc = cluster.start_and_connect_sync(2)
        rc.wait_for_engines(3, timeout=TIMEOUT_S)
        assert rc[:].apply_sync(abs, -1) == [1, 1, 1]
        assert [one.n for one in cluster.engines.values()] == [1, 2]
        with pytest.raises(ValueError, match="n"):
            cluster.start_and_connect_sync(-1)
        assert len(rc) == 3
    finally:
        cluster.stop_cluster_sync()


def test_a_cluster_that_was_made_of_a_description_does_not_end_with_its_object() -> None:
    described = ipp.Cluster(n=1, backend="local").to_dict()
    assert described["controller"] == {"state": {"running": False}}
    assert not ipp.Cluster.from_dict(described).shutdown_atexit


def test_coroutines_start_connect_and_stop() -> None:
    async def work() -> object:
        async with ipp.Cluster(n=2, backend="local") as rc:
            return await rc[:].apply_async(abs, -1)

    assert asyncio.run(work()) == [1, 1]


def test_engines_that_another_command_starts_are_refused_with_it() -> None:
    with pytest.raises(NotProvided, match="nsactors launch slurm"):
        ipp.Cluster(engines="slurm")


def test_a_cluster_is_shown_with_its_profile_and_its_engines() -> None:
    with pytest.warns(CompatibilityWarning, match="profile_dir"):
        cluster = ipp.Cluster(n=1, backend="local", cluster_id="lab", profile_dir="here")
    assert repr(cluster) == "<Cluster(cluster_id='lab', profile_dir='here')>"
    cluster.start_controller_sync()
    try:
        assert repr(cluster) == "<Cluster(cluster_id='lab', profile_dir='here', controller=<running>)>"
        cluster.start_engines_sync(1, "few")
        assert repr(cluster).endswith("controller=<running>, engine_sets=['few'])>")
    finally:
        cluster.stop_cluster_sync()


def test_settings_without_meaning_are_warned_of() -> None:
    with pytest.warns(CompatibilityWarning, match="log_level"):
        ipp.Cluster(n=1, backend="local", log_level=10)


def test_a_manager_knows_the_clusters_it_has_made() -> None:
    manager = ipp.ClusterManager()
    name, cluster = manager.new_cluster(n=1, backend="local", cluster_id="lab")
    assert name == "lab"
    assert manager.get_cluster("lab") is cluster
    with pytest.raises(KeyError):
        manager.new_cluster(backend="local", cluster_id="lab")
    manager.remove_cluster("lab")
    with pytest.raises(KeyError):
        manager.get_cluster("lab")


@pytest.mark.parametrize("method", ["start_cluster", "start_controller", "start_and_connect"])
def test_a_start_that_is_cancelled_is_undone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, may_go_on, usual = threading.Event(), threading.Event(), LocalBackend.start

    def start(backend: LocalBackend) -> None:
        arrived.set()
        assert may_go_on.wait(TIMEOUT_S)
        usual(backend)

    async def main() -> None:
        starting = asyncio.create_task(getattr(cluster, method)())
        assert await asyncio.to_thread(arrived.wait, TIMEOUT_S)
        starting.cancel()
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await starting

    cluster = ipp.Cluster(n=1, backend="local")
    monkeypatch.setattr(LocalBackend, "start", start)
    asyncio.run(main())  # returns when the thread of the start has ended
    assert "running" not in repr(cluster)
    assert repr(cluster.core) == "<Cluster: stopped>"
