"""Clusters: engines started and stopped together.

``Cluster``, in ``cluster``, is what people start; ``scaling`` is how its engines come and go. ``options`` reads what
they are asked for with; ``resources`` counts the cores at hand and shares them out.
"""

from nsactors.cluster.cluster import Cluster

__all__ = ["Cluster"]
