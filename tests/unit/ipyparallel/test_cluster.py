"""Clusters with ipyparallel's names."""

from __future__ import annotations

import asyncio

import pytest

import nsactors.ipyparallel as ipp
from nsactors.ipyparallel.error import NotProvided
from nsactors.ipyparallel.settings import CompatibilityWarning


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


def test_coroutines_start_connect_and_stop() -> None:
    async def work() -> object:
        async with ipp.Cluster(n=2, backend="local") as rc:
            return await rc[:].apply_async(abs, -1)

    assert asyncio.run(work()) == [1, 1]


def test_engines_that_another_command_starts_are_refused_with_it() -> None:
    with pytest.raises(NotProvided, match="nsactors launch slurm"):
        ipp.Cluster(engines="slurm")


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
