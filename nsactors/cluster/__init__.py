"""Clusters: engines started and stopped together.

``Cluster``, in ``cluster``, is what people start; ``attached`` is one that another process has started, and ``scaling``
how engines of both come and go. ``options`` reads what they are asked for with; ``resources`` counts the cores at hand
and shares them out.

On machines beside this one:

    job           a cluster as a batch job: its process on the first node      submitting    writes and submits the job
    continuing    what a job leaves for the next one                           node          a node on another machine
    ssh_hosts     hosts that ssh reaches                                       ray_launcher  Ray's own launcher
"""

from nsactors.cluster.cluster import Cluster

__all__ = ["Cluster"]
