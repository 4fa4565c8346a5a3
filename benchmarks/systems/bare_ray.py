"""Bare Ray: the lower bound.

Ray actors are called with bytes and answer with bytes, as many as nsactors sends for the same operation.
"""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

from benchmarks.operations.catalogue import LARGE_BYTES, MAP_ITEMS, PIPELINED_CALLS, TASKS
from benchmarks.operations.workload import ARGUMENTS, CODE, NUMBER, large_array, noop, power

__all__ = ["BareRay", "message_sizes"]


class Engine:
    """The actual work of an engine, and nothing else."""

    def __init__(self) -> None:
        self._reply = b""
        self._shell: Any = None
        self._part: Any = None

    def reply_with(self, nbytes: int) -> None:
        self._reply = bytes(nbytes)

    def call(self, request: bytes) -> bytes:
        return self._reply

    def start_shell(self) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.hist_file = ":memory:"
        self._shell = InteractiveShell.instance(config=config)

    def run_cell(self, request: bytes) -> bytes:
        self._shell.run_cell(CODE, store_history=False, silent=True)
        return self._reply

    def hold(self, array: Any) -> None:
        self._part = array

    def give(self) -> Any:
        return self._part

    def power_of_all(self, numbers: range) -> bytes:
        return pickle.dumps([power(number) for number in numbers], protocol=5)


class BareRay:
    """Ray as ``ray.init`` starts it, with the settings that nsactors gives it, and one actor per engine."""

    def start(self, engines: int) -> None:
        from nsactors.system.private_files import PrivateFolder
        from nsactors.transport.ray.runtime import PRESETS

        self._folder = PrivateFolder()
        os.environ.update(PRESETS, RAY_AUTH_TOKEN_PATH=self._folder.token_path)

        import ray

        ray.init(
            num_cpus=len(os.sched_getaffinity(0)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=self._folder.path,
        )
        self._ray: Any = ray
        actor_class = self._ray.remote(Engine).options(num_cpus=0)
        self._actors = [actor_class.remote() for _ in range(engines)]
        self._ray.get([actor.call.remote(b"") for actor in self._actors])

    def prepare(self, operation: str, engines: int) -> Callable[[], object] | None:
        ray, actors = self._ray, self._actors[: 1 if operation == "call" else engines]
        match operation:
            case "call" | "apply" | "push" | "pull" | "pipelined" | "tasks":
                calls = {"pipelined": PIPELINED_CALLS // engines, "tasks": TASKS // engines}.get(operation, 1)
                request = self._agree_on_sizes("apply" if calls > 1 or operation == "call" else operation, actors)
                return lambda: ray.get([actor.call.remote(request) for _ in range(calls) for actor in actors])
            case "execute":
                request = self._agree_on_sizes(operation, actors)
                ray.get([actor.start_shell.remote() for actor in actors])
                return lambda: ray.get([actor.run_cell.remote(request) for actor in actors])
            case "push-large":
                array = large_array()
                return lambda: self._push(array, actors)
            case "scatter":
                array = large_array()
                return lambda: self._scatter(array, actors)
            case "gather":
                self._scatter(large_array(), actors)
                return lambda: self._gather(actors)
            case "map":
                return lambda: self._map(actors)
            case _:
                return None

    def _agree_on_sizes(self, operation: str, actors: list[Any]) -> bytes:
        request, reply = message_sizes(operation)
        self._ray.get([actor.reply_with.remote(reply) for actor in actors])
        return bytes(request)

    def _push(self, array: Any, actors: list[Any]) -> None:
        ref = self._ray.put(array)
        self._ray.get([actor.hold.remote(ref) for actor in actors])

    def _scatter(self, array: Any, actors: list[Any]) -> None:
        import numpy as np

        parts = np.array_split(array, len(actors))
        self._ray.get([actor.hold.remote(part) for actor, part in zip(actors, parts, strict=True)])

    def _gather(self, actors: list[Any]) -> Any:
        import numpy as np

        whole = np.concatenate(self._ray.get([actor.give.remote() for actor in actors]))
        assert whole.nbytes == LARGE_BYTES
        return whole

    def _map(self, actors: list[Any]) -> list[int]:
        bounds = [MAP_ITEMS * k // len(actors) for k in range(len(actors) + 1)]
        ranges = [range(a, b) for a, b in itertools.pairwise(bounds)]
        parts = self._ray.get([a.power_of_all.remote(r) for a, r in zip(actors, ranges, strict=True)])
        return [number for part in parts for number in pickle.loads(part)]

    def close(self) -> None:
        self._ray.shutdown()
        self._folder.remove()


def message_sizes(operation: str) -> tuple[int, int]:
    """Return the bytes of the request and of the reply of nsactors for a small operation on one engine."""
    from nsactors.protocol.messages import (
        Apply,
        EngineRequest,
        Execute,
        Ok,
        Operation,
        OutputBatch,
        Pull,
        Push,
        Reply,
        RequestId,
    )
    from nsactors.protocol.serialize import pack
    from nsactors.protocol.wire import Sealed, encode_body, encode_reply, seal, stamp

    number = NUMBER["number"]
    exchanges: dict[str, tuple[Operation, object, object]] = {
        "apply": (Apply("apply(noop)"), (noop, ARGUMENTS, {}), number),
        "push": (Push(), NUMBER, None),
        "pull": (Pull(("number",), single=True), None, number),
        "execute": (Execute(CODE, silent=True, store_history=False), None, None),
    }
    work, value, result = exchanges[operation]
    request_id = RequestId("somebody-123456", 1_000)
    now = time.time()
    request = EngineRequest(request_id, work)
    reply = Reply(request_id, 0, 0, Ok(), OutputBatch(request_id, 0, 0, ()), now, now, None)

    def sealed(value: object) -> Sealed:
        return seal(None if value is None else pack(value))

    header = stamp(request_id.seq, request.stops_seen, encode_body(request, sealed(value)))
    return len(header), len(encode_reply(reply, sealed(result)))
