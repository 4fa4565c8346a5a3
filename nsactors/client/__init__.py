"""The client: a cluster's engines as one object.

``Client`` is what people hold; ``Session`` is its conversation with the cluster; ``Ledger`` keeps the failures that
nobody has asked for yet.
"""

from nsactors.client.client import Client

__all__ = ["Client"]
