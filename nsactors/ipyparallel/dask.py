"""Engines as workers of Dask: ``Client.become_dask``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nsactors.errors import PackageMissing

if TYPE_CHECKING:
    from nsactors.ipyparallel.client.client import Client

__all__ = ["become_dask", "stop_dask"]

_NAME = "distributed_worker"
_ALIAS = "dask_worker"  # the name of the worker in programs on engines


def become_dask(client: Client, targets: Any, port: int, scheduler_args: Mapping[str, Any], worker_args: Any) -> Any:
    """Start a Dask scheduler in this process, unless there is one, and a worker on each engine; return Dask's client.

    Raises:
        PackageMissing: if Dask's scheduler is not installed.
        RemoteError: if a worker cannot start; in this case the new scheduler has ended.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise PackageMissing(
            "become_dask()", "distributed", "pip install distributed, also where the engines are"
        ) from error

    is_new = not client.dask_clusters
    if is_new:
        # Without a protocol, the scheduler would listen inside this process alone.
        given = {"host": "127.0.0.1", "protocol": "tcp://", "scheduler_port": port, "dashboard_address": None}
        cluster = distributed.LocalCluster(n_workers=0, processes=False, **{**given, **scheduler_args})
        client.dask_clusters.append(cluster)
    address = client.dask_clusters[-1].scheduler_address
    threads = worker_args.pop("ncores", 1)  # the name in older releases of Dask
    options = {"nthreads": threads, "dashboard": False, **worker_args}
    try:
        client.direct_view(targets).apply_sync(start_worker, address, options, _NAME)
    except BaseException:
        if is_new:
            client.dask_clusters.pop().close()
        raise
    return distributed.Client(address)


def stop_dask(client: Client, targets: Any) -> None:
    """Stop the workers on engines, and the scheduler in this process."""
    client.direct_view(targets).apply_sync(stop_worker, _NAME)
    while client.dask_clusters:
        client.dask_clusters.pop().close()


def start_worker(address: str, options: dict[str, Any], name: str) -> None:
    """Start a worker in this engine's process, with its own event loop, unless there is a worker of this scheduler."""
    import __main__

    if name in __main__.__dict__:
        if __main__.__dict__[name].scheduler.address == address:
            return
        stop_worker(name)
    from distributed import Worker
    from distributed.utils import LoopRunner

    runner = LoopRunner(asynchronous=False)
    runner.start()

    async def begin() -> Any:
        return await Worker(address, **options)

    try:
        worker = runner.run_sync(begin)
    except BaseException:
        runner.stop()
        raise
    __main__.__dict__.update({name: worker, _ALIAS: worker, f"_{name}_loop": runner})


def stop_worker(name: str) -> None:
    """Stop the worker in this engine's process, if there is one."""
    import __main__

    if name not in __main__.__dict__:
        return
    worker, runner = __main__.__dict__.pop(name), __main__.__dict__.pop(f"_{name}_loop")
    if __main__.__dict__.get(_ALIAS) is worker:
        del __main__.__dict__[_ALIAS]
    runner.run_sync(worker.close)
    runner.stop()
