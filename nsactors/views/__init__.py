"""Views: some engines of a cluster, and how to call them.

``DirectView`` speaks to its engines by name, ``BroadcastView`` to many of them through relays; ``LoadBalancedView``
leaves it to a scheduler which engine does what. ``functions`` makes functions that run on a view; ``flags`` are what
views can be set to.
"""

from nsactors.views.broadcast import BroadcastView
from nsactors.views.direct import DirectView
from nsactors.views.load_balanced import LoadBalancedView

__all__ = ["BroadcastView", "DirectView", "LoadBalancedView"]
