"""Interactive parallel computing in Python on Ray.

An *engine* owns one namespace and runs one stream of instructions in it; a *client* drives many engines.
A map of the package, each line building only on those above it:

    errors         what can go wrong, on an engine or here, and how it is shown
    protocol       what travels: messages, serialisation, engine descriptions, targets
    recovery       the journal of a namespace, its storage and replay
    services       state machines hosted by the cluster
    results        handles on work in progress, and their display
    namespace      what runs in an engine's process        membership   the controller's decisions and store
    inside         look into engines that work: stacks, values, profiles
    engine_actor   serves requests on a namespace          controller   knows who the engines are
    system         this machine: processes, private files, certificates, resources
    transport      one protocol, on Ray actors or in this process
    session        one process's connection to a cluster
    tasks          load balancing, for a client or detached from it
    views          run, move and map on some of the engines
    client         the engines as seen by one user
    cluster        starts and stops engines
    models, mpi    other models of parallel computing, on views
    magics         ``%px`` and the other magics for IPython
    cli            the ``nsactors`` command
    testing        gates, checks and fixtures for tests of code that uses engines
    ipyparallel    the names and meanings of ipyparallel, made of what this module exports
    error          ``import nsactors.error``: another name of the package ``errors``

``_version`` holds the version, and ``_frozen`` defines immutable values, for all packages.

Importing this module starts nothing. Each public name is loaded when it is first used, so that neither Ray
nor IPython is imported before it is needed.
"""

from typing import TYPE_CHECKING

from nsactors._version import __version__

if TYPE_CHECKING:
    from nsactors import errors
    from nsactors import errors as error
    from nsactors.client import Client
    from nsactors.cluster.cluster import Cluster
    from nsactors.cluster.kernels import bind_kernel
    from nsactors.errors import CompositeError, NsactorsError, RemoteError, UnmetDependency
    from nsactors.protocol.map_functions import rng
    from nsactors.protocol.messages import Reference
    from nsactors.protocol.partition import Partitioner
    from nsactors.protocol.serialize import RemoteValue, keep
    from nsactors.results import AsyncMapResult, AsyncResult, as_completed
    from nsactors.results.display.timeline import Timeline
    from nsactors.tasks.policies import SchedulingPolicy
    from nsactors.transport.embedded import embed
    from nsactors.views.dependencies import Dependency, depend, require
    from nsactors.views.direct import BroadcastView, DirectView
    from nsactors.views.load_balanced import LoadBalancedView

__all__ = [
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Client",
    "Cluster",
    "CompositeError",
    "Dependency",
    "DirectView",
    "LoadBalancedView",
    "NsactorsError",
    "Partitioner",
    "Reference",
    "RemoteError",
    "RemoteValue",
    "SchedulingPolicy",
    "Timeline",
    "UnmetDependency",
    "__version__",
    "as_completed",
    "bind_kernel",
    "depend",
    "embed",
    "error",
    "errors",
    "keep",
    "require",
    "rng",
]

# Public name -> the module that defines it. `error` is the name ipyparallel users know.
_HOMES = {
    "AsyncMapResult": "nsactors.results",
    "AsyncResult": "nsactors.results",
    "BroadcastView": "nsactors.views.direct",
    "Client": "nsactors.client",
    "Cluster": "nsactors.cluster.cluster",
    "CompositeError": "nsactors.errors",
    "Dependency": "nsactors.views.dependencies",
    "DirectView": "nsactors.views.direct",
    "LoadBalancedView": "nsactors.views.load_balanced",
    "NsactorsError": "nsactors.errors",
    "Partitioner": "nsactors.protocol.partition",
    "Reference": "nsactors.protocol.messages",
    "RemoteError": "nsactors.errors",
    "RemoteValue": "nsactors.protocol.serialize",
    "SchedulingPolicy": "nsactors.tasks.policies",
    "Timeline": "nsactors.results.display.timeline",
    "UnmetDependency": "nsactors.errors",
    "as_completed": "nsactors.results",
    "bind_kernel": "nsactors.cluster.kernels",
    "depend": "nsactors.views.dependencies",
    "embed": "nsactors.transport.embedded",
    "keep": "nsactors.protocol.serialize",
    "require": "nsactors.views.dependencies",
    "rng": "nsactors.protocol.map_functions",
}
_MODULES = {"error": "nsactors.errors", "errors": "nsactors.errors"}


def load_ipython_extension(shell: object) -> None:
    """Add the magics, such as ``%px``, to an IPython shell; ``%load_ext nsactors`` calls this."""
    from nsactors.magics import load

    load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Remove the magics from an IPython shell; ``%unload_ext nsactors`` calls this."""
    from nsactors.magics import unload

    unload(shell)


# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            value = import_module(_MODULES[name])
        elif name in _HOMES:
            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # so this function is called once for each name
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
