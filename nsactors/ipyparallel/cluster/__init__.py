"""Clusters: ``cluster``."""

from nsactors.ipyparallel.cluster.cluster import Cluster, ClusterManager

__all__ = ["Cluster", "ClusterManager"]
