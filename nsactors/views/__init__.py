"""Views: some engines of a cluster, and how to call them.

``DirectView`` speaks to its engines by name, ``BroadcastView`` to many of them through relays; ``LoadBalancedView``
leaves it to a scheduler which engine does what. ``functions`` makes functions that run on a view; ``flags`` are what
views can be set to.

::

    engine_view    what every view has                   view           and those that call engines by name
    direct         the direct view                       broadcast      the broadcast view
    data           a view as a dictionary of names       importing      imports that happen on engines as well
    activation     magics that run on a view
    maps           functions mapped over sequences       mapping        how these are cut, an engine's part
    lazy_map       over input that may never end         map_chunk      a chunk of that, as one call
    load_balanced  the load-balanced view                dependencies   what its tasks may depend on
    task_forms     what people give to it, as tasks      task_planning  tasks, as its flags say
    executor       it as an executor of concurrent.futures, and joblib_backend as what joblib runs on
"""

from nsactors.views.broadcast import BroadcastView
from nsactors.views.direct import DirectView
from nsactors.views.load_balanced import LoadBalancedView

__all__ = ["BroadcastView", "DirectView", "LoadBalancedView"]
