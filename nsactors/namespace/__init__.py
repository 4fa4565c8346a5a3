"""A namespace and what it takes to run code in it.

``Namespace`` answers operations: execute, apply, push, pull, reset. Cells run in a *shell*: a full IPython where the
namespace has a process of its own, plain Python where several share one. ``gate`` says when user code is running, so
that an interrupt never lands in the machinery; ``output`` and ``capture`` collect what the code writes and shows.
"""

from nsactors.namespace.namespace import Namespace

__all__ = ["Namespace"]
