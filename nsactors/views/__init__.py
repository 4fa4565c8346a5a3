"""Views: some engines of a cluster, and how to call them.

::

    base           the base of views: the methods that all views have
    flags          the flags of views, and the checks of their values
    view_client    the part of a client that its views use
    direct         direct views, which name their engines, and the broadcast view of many engines
    load_balanced  the load-balanced view: calls run on engines that are free
    map_parts      maps: their functions and columns, the parts that engines get, and the calls that carry these parts
    lazy_map       maps over input that may never end, in chunks whose size is set by measured times
    dependencies   dependencies of tasks, and functions that run where a condition holds
    executor       a view as an executor of the standard library: for code that is written for
                   ``concurrent.futures``
    joblib         a view as a backend of joblib, and so of scikit-learn; this module imports joblib, and is
                   loaded only when it is needed
    decorators     functions that run on a view, and imports that happen on engines as well

"""

from nsactors.views.direct import BroadcastView, DirectView
from nsactors.views.load_balanced import LoadBalancedView

__all__ = ["BroadcastView", "DirectView", "LoadBalancedView"]
