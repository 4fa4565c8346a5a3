"""ipyparallel's names and meanings on engines of nsactors: for programs, notebooks and libraries written for it.

``import nsactors.ipyparallel as ipp`` is the one line to change. For programs that cannot be changed, :func:`install`
makes ``import ipyparallel`` mean this package, and ``python -m nsactors.ipyparallel SCRIPT`` runs a script that way.

The package uses only the public interface of nsactors; in nsactors, only ``nsactors doctor --ipyparallel`` imports it::

    client       clients, views, results, records, magics        cluster     clusters
    controller   dependencies of tasks                            error       exceptions that belong to both libraries
    serialize    functions that pickle objects and calls          util        helpers
    engine       imports of code on engines
    alias        ``import ipyparallel``                           joblib      the backend under ipyparallel's name
    arguments    checks of arguments, and warnings about those without effect
    translation  errors of nsactors as ipyparallel's
    __main__     ``python -m nsactors.ipyparallel``
    commands     ``ipcluster`` and related commands
    reading      a reader that finds lines of programs to change
    datapub      data that engines publish                        dask        engines as workers of Dask
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

    from nsactors.ipyparallel.alias import install, uninstall
    from nsactors.ipyparallel.client.asyncresult import AsyncHubResult, AsyncMapResult, AsyncResult
    from nsactors.ipyparallel.client.client import Client
    from nsactors.ipyparallel.client.remotefunction import ParallelFunction, RemoteFunction, parallel, remote
    from nsactors.ipyparallel.client.view import BroadcastView, DirectView, LoadBalancedView, ViewExecutor
    from nsactors.ipyparallel.cluster import Cluster, ClusterManager
    from nsactors.ipyparallel.controller.dependency import Dependency, depend, dependent, require
    from nsactors.ipyparallel.error import (
        AlreadyDisplayedError,
        CompositeError,
        DependencyTimeout,
        EngineError,
        ImpossibleDependency,
        InvalidDependency,
        IPythonError,
        KernelError,
        NoEnginesRegistered,
        RemoteError,
        TaskAborted,
        TaskRejectError,
        TaskTimeout,
        TimeoutError,
        UnmetDependency,
        collect_exceptions,
        unwrap_exception,
        wrap_exception,
    )
    from nsactors.ipyparallel.serialize import (
        PrePickled,
        Reference,
        can,
        can_map,
        deserialize_object,
        pack_apply_message,
        serialize_object,
        uncan,
        uncan_map,
        unpack_apply_message,
        use_cloudpickle,
        use_dill,
        use_pickle,
    )
    from nsactors.ipyparallel.util import interactive

# The release of ipyparallel whose names and meanings this package has.
__version__ = "9.2.0"
version_info = (9, 2, 0)

_HOMES = {
    "concurrent.futures": ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"),
    "nsactors.ipyparallel.alias": ("install", "uninstall"),
    "nsactors.ipyparallel.client.asyncresult": ("AsyncHubResult", "AsyncMapResult", "AsyncResult"),
    "nsactors.ipyparallel.client.client": ("Client",),
    "nsactors.ipyparallel.client.remotefunction": ("ParallelFunction", "RemoteFunction", "parallel", "remote"),
    "nsactors.ipyparallel.client.view": ("BroadcastView", "DirectView", "LoadBalancedView", "ViewExecutor"),
    "nsactors.ipyparallel.cluster": ("Cluster", "ClusterManager"),
    "nsactors.ipyparallel.controller.dependency": ("Dependency", "depend", "dependent", "require"),
    "nsactors.ipyparallel.error": (
        "AlreadyDisplayedError",
        "CompositeError",
        "DependencyTimeout",
        "EngineError",
        "IPythonError",
        "ImpossibleDependency",
        "InvalidDependency",
        "KernelError",
        "NoEnginesRegistered",
        "RemoteError",
        "TaskAborted",
        "TaskRejectError",
        "TaskTimeout",
        "TimeoutError",
        "UnmetDependency",
        "collect_exceptions",
        "unwrap_exception",
        "wrap_exception",
    ),
    "nsactors.ipyparallel.serialize": (
        "PrePickled",
        "Reference",
        "can",
        "can_map",
        "deserialize_object",
        "pack_apply_message",
        "serialize_object",
        "uncan",
        "uncan_map",
        "unpack_apply_message",
        "use_cloudpickle",
        "use_dill",
        "use_pickle",
    ),
    "nsactors.ipyparallel.util": ("interactive",),
}
_MODULES = ("client", "cluster", "controller", "error", "joblib", "serialize", "util")
_FINDS = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AlreadyDisplayedError",
    "AsyncHubResult",
    "AsyncMapResult",
    "AsyncResult",
    "BroadcastView",
    "Client",
    "Cluster",
    "ClusterManager",
    "CompositeError",
    "Dependency",
    "DependencyTimeout",
    "DirectView",
    "EngineError",
    "IPythonError",
    "ImpossibleDependency",
    "InvalidDependency",
    "KernelError",
    "LoadBalancedView",
    "NoEnginesRegistered",
    "ParallelFunction",
    "PrePickled",
    "Reference",
    "RemoteError",
    "RemoteFunction",
    "TaskAborted",
    "TaskRejectError",
    "TaskTimeout",
    "TimeoutError",
    "UnmetDependency",
    "ViewExecutor",
    "__version__",
    "bind_kernel",
    "can",
    "can_map",
    "collect_exceptions",
    "depend",
    "dependent",
    "deserialize_object",
    "error",
    "install",
    "interactive",
    "load_ipython_extension",
    "pack_apply_message",
    "parallel",
    "register_joblib_backend",
    "remote",
    "require",
    "serialize",
    "serialize_object",
    "uncan",
    "uncan_map",
    "uninstall",
    "unload_ipython_extension",
    "unpack_apply_message",
    "unwrap_exception",
    "use_cloudpickle",
    "use_dill",
    "use_pickle",
    "util",
    "version_info",
    "wrap_exception",
]


def bind_kernel(**kwargs: Any) -> None:
    """Make the engine on which this runs a kernel of Jupyter, and print the command that opens a console there.

    Args:
        kwargs: not used; in ipyparallel, they are options of ``IPKernelApp``.

    Raises:
        CapabilityError: if this process is not an engine.
    """
    import nsactors

    print(nsactors.bind_kernel())


def register_joblib_backend(name: str = "ipyparallel", make_default: bool = False) -> None:
    """Let joblib run on the user's cluster; see :func:`nsactors.ipyparallel.joblib.register`."""
    from nsactors.ipyparallel.joblib import register

    register(name, make_default)


def load_ipython_extension(shell: Any) -> None:
    """Add ``%px`` and related magics to an IPython shell; ``%load_ext ipyparallel`` calls this function."""
    import nsactors

    nsactors.load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Remove the magics from an IPython shell."""
    import nsactors

    nsactors.unload_ipython_extension(shell)


# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _FINDS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_FINDS[name]), name)
        globals()[name] = value  # looked up once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
