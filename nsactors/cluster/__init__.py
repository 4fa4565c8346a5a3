"""Clusters: engines started and stopped together.

``Cluster`` is what people start; ``resources`` counts the cores at hand and shares them out.
"""

from nsactors.cluster.cluster import Cluster

__all__ = ["Cluster"]
