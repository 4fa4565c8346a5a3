"""Interactive parallel computing in Python on Ray.

An *engine* owns one namespace and runs one stream of instructions in it; a *client* drives many engines.
A map of the package, each line building only on those above it:

    errors         what can go wrong, on an engine or here, and how it is shown
    core           decisions as pure code: messages, payloads, targets, membership, scheduling, journal
    namespace      the names an engine owns, its shell, its histories, its captured output
    engine_actor   serves requests on a namespace          controller   knows who the engines are
    transport      one protocol, on Ray actors or in this process
    results        handles on work in progress
    client         the engines as seen by one user
    cluster        starts and stops engines
    views          run, move and map on some of the engines
    models, mpi    other models of parallel computing, on views
    magics         ``%px`` and friends
    cli            the ``nsactors`` command

Importing this module starts nothing. Each public name is loaded when it is first used, so that neither Ray
nor IPython is imported before it is needed.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsactors import errors
    from nsactors import errors as error
    from nsactors.client import Client
    from nsactors.cluster import Cluster
    from nsactors.core.depending import depend, require
    from nsactors.core.messages import Reference
    from nsactors.core.remote_value import RemoteValue, keep
    from nsactors.errors import CompositeError, NsactorsError, RemoteError, UnmetDependency
    from nsactors.results import AsyncMapResult, AsyncResult, as_completed
    from nsactors.results.timeline import Timeline
    from nsactors.views.broadcast import BroadcastView
    from nsactors.views.dependencies import Dependency
    from nsactors.views.direct import DirectView
    from nsactors.views.load_balanced import LoadBalancedView

__version__ = "0.1.0"

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
    "Reference",
    "RemoteError",
    "RemoteValue",
    "Timeline",
    "UnmetDependency",
    "__version__",
    "as_completed",
    "depend",
    "error",
    "errors",
    "keep",
    "require",
]

# Public name -> the module that defines it. `error` is the name ipyparallel users know.
_HOMES = {
    "AsyncMapResult": "nsactors.results",
    "AsyncResult": "nsactors.results",
    "BroadcastView": "nsactors.views.broadcast",
    "Client": "nsactors.client",
    "Cluster": "nsactors.cluster",
    "CompositeError": "nsactors.errors",
    "Dependency": "nsactors.views.dependencies",
    "DirectView": "nsactors.views.direct",
    "LoadBalancedView": "nsactors.views.load_balanced",
    "NsactorsError": "nsactors.errors",
    "Reference": "nsactors.core.messages",
    "RemoteError": "nsactors.errors",
    "RemoteValue": "nsactors.core.remote_value",
    "Timeline": "nsactors.results.timeline",
    "UnmetDependency": "nsactors.errors",
    "as_completed": "nsactors.results",
    "depend": "nsactors.core.depending",
    "keep": "nsactors.core.remote_value",
    "require": "nsactors.core.depending",
}
_MODULES = {"error": "nsactors.errors", "errors": "nsactors.errors"}


def load_ipython_extension(shell: object) -> None:
    """Add ``%px`` and its kin to an IPython shell: what ``%load_ext nsactors`` calls."""
    from nsactors.magics import load

    load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Take them away again: what ``%unload_ext nsactors`` calls."""
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
        globals()[name] = value  # looked up once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
