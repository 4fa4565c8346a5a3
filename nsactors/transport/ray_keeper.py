"""The keeper of journals: an actor on the head node, so that a namespace outlives the machine of its engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nsactors.core.shipping import Batch, Position, Segment, Span
from nsactors.errors import ClusterUnreachable
from nsactors.namespace.journal_file import JournalCopy
from nsactors.transport.ray_folders import output_folder
from nsactors.transport.ray_nodes import head_node, place_on

__all__ = ["RayKeeper", "RayKeeperLine", "keeper_for", "start_keeper"]

_NAME = "journal-keeper"
CALL_TIMEOUT_S = 30.0


class RayKeeper:
    """The actor class of the keeper. What it has is on disk, so it can be started again."""

    def __init__(self, cluster: str) -> None:
        self._folder = output_folder(cluster)
        self._copies: dict[tuple[int, int], JournalCopy] = {}

    def accept(self, engine_id: int, incarnation: int, batch: Batch) -> Position:
        """See ``JournalKeeper``."""
        return self._copy(engine_id, incarnation).accept(batch)

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        """See ``JournalKeeper``."""
        return self._copy(engine_id, incarnation).segments

    def read(self, engine_id: int, incarnation: int, span: Span) -> Batch:
        """See ``JournalKeeper``."""
        return self._copy(engine_id, incarnation).read_span(span)

    def forget(self, engine_id: int, incarnation: int) -> None:
        """See ``JournalKeeper``."""
        self._copies.pop((engine_id, incarnation), None)
        shutil.rmtree(self._path(engine_id, incarnation), ignore_errors=True)

    def _copy(self, engine_id: int, incarnation: int) -> JournalCopy:
        key = engine_id, incarnation
        if key not in self._copies:
            self._copies[key] = JournalCopy(self._path(engine_id, incarnation))
        return self._copies[key]

    def _path(self, engine_id: int, incarnation: int) -> str:
        return os.path.join(self._folder, f"engine-{engine_id}.{incarnation}.kept")


@dataclass(frozen=True, slots=True)
class RayKeeperLine:
    """The keeper as engines call it.

    Attributes:
        actor: its handle.
        is_elsewhere: see ``JournalKeeper``.
    """

    actor: Any
    is_elsewhere: bool

    def accept(self, engine_id: int, incarnation: int, batch: Batch) -> Position:
        """See ``JournalKeeper``."""
        position: Position = self._call("accept", engine_id, incarnation, batch)
        return position

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        """See ``JournalKeeper``."""
        segments: Sequence[Segment] = self._call("segments", engine_id, incarnation)
        return segments

    def read(self, engine_id: int, incarnation: int, span: Span) -> Batch:
        """See ``JournalKeeper``."""
        batch: Batch = self._call("read", engine_id, incarnation, span)
        return batch

    def forget(self, engine_id: int, incarnation: int) -> None:
        """See ``JournalKeeper``."""
        self._call("forget", engine_id, incarnation)

    def _call(self, method: str, *args: Any) -> Any:
        import ray

        # Each of them can be repeated: while the keeper is started again, Ray does so.
        call = getattr(self.actor, method).options(max_task_retries=-1)
        try:
            return ray.get(call.remote(*args), timeout=CALL_TIMEOUT_S)
        except (ray.exceptions.RayError, OSError) as error:
            raise ClusterUnreachable("the keeper of journals", f"{type(error).__name__}: {error}") from error


def start_keeper(cluster: str, namespace: str) -> tuple[str, Any]:
    """The node and the actor of a cluster's keeper, which is started if need be."""
    import ray

    node = head_node()
    actor = (
        ray.remote(RayKeeper)
        .options(
            name=_NAME,
            namespace=namespace,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            scheduling_strategy=place_on(node),
            enable_task_events=False,
        )
        .remote(cluster)
    )
    return node, actor


def keeper_for(keeper: tuple[str, Any] | None) -> RayKeeperLine | None:
    """The way to the keeper from this process.

    Args:
        keeper: the keeper's node and actor; None if there is none.
    """
    import ray

    if keeper is None:
        return None
    node, actor = keeper
    return RayKeeperLine(actor, is_elsewhere=node != ray.get_runtime_context().get_node_id())
