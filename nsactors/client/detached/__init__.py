"""Tasks that outlive their client: the scheduler of ``client.tasks`` at work in a process of the cluster's.

There::

    scheduling   a client that nobody sits at, which takes tasks of all others
    keeping      what comes of them, as it came from engines

With the clients that submit and collect::

    farm         the scheduler, as views see it
    collecting   brings what comes of tasks
    messages     what both sides say to each other
"""

from nsactors.client.detached.farm import DetachedFarm, is_detached

__all__ = ["DetachedFarm", "is_detached"]
