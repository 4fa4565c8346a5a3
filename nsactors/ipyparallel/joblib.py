"""joblib on engines, under ipyparallel's name: ``Parallel(backend="ipyparallel")``."""

from __future__ import annotations

from typing import Any

__all__ = ["register"]


def register(name: str = "ipyparallel", make_default: bool = False) -> None:
    """Let joblib run on the user's cluster, or on a new one that the first use starts.

    Args:
        name: the name of the backend.
        make_default: make this the default backend.
    """
    import joblib

    clusters: list[Any] = []  # at most one client, for all uses; its cluster ends with this process

    def backend(**options: Any) -> Any:
        from nsactors.ipyparallel import Client, Cluster

        if not clusters:
            try:
                clusters.append(Client(timeout=0))
            except OSError:
                clusters.append(Cluster().start_and_connect_sync())
        clusters[0].load_balanced_view().register_joblib_backend(f"{name}-view")
        return joblib.parallel.BACKENDS[f"{name}-view"](**options)

    joblib.register_parallel_backend(name, backend, make_default=make_default)
