"""The client: a cluster's engines as one object.

::

    client         the client: a cluster's engines as one object
    prompt         additions of a client to an IPython prompt: errors, notices and edits
    activity       activity of a cluster, tables of engines, and stacks and debuggers of busy ones
    tables         lists of a client as tables: requests, tasks and recoveries
    find_requests  requests named by message ids, results, clients and positions in the history

"""

from nsactors.client.client import Client

__all__ = ["Client"]
