"""The journal replica: an actor on the head node, so that a namespace outlives the machine of its engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from nsactors._frozen import frozen
from nsactors.errors import ClusterUnreachable
from nsactors.recovery.replication import JournalBatch, Position, Segment, SegmentRange
from nsactors.recovery.storage import JournalCopy, saved_at
from nsactors.transport.ray.failures import output_folder
from nsactors.transport.ray.nodes import head_node, on_head_node

_NAME = "journal-replica"
CALL_TIMEOUT_S = 30.0


class RayJournalReplica:
    """The actor class of the replica. Its copies are on disk, so it can restart."""

    def __init__(self, cluster: str) -> None:
        self._folder = output_folder(cluster)
        self._copies: dict[tuple[int, int], JournalCopy] = {}

    def accept(self, engine_id: int, incarnation: int, batch: JournalBatch) -> Position:
        """See ``JournalReplica``."""
        return self._copy(engine_id, incarnation).accept(batch)

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        """See ``JournalReplica``."""
        return self._copy(engine_id, incarnation).segments

    def read(self, engine_id: int, incarnation: int, span: SegmentRange) -> JournalBatch:
        """See ``JournalReplica``."""
        return self._copy(engine_id, incarnation).read_span(span)

    def saved_at(self, engine_id: int, incarnation: int) -> float | None:
        """See ``JournalReplica``."""
        return saved_at(self._path(engine_id, incarnation))

    def forget(self, engine_id: int, incarnation: int) -> None:
        """See ``JournalReplica``."""
        self._copies.pop((engine_id, incarnation), None)
        shutil.rmtree(self._path(engine_id, incarnation), ignore_errors=True)

    def _copy(self, engine_id: int, incarnation: int) -> JournalCopy:
        key = engine_id, incarnation
        if key not in self._copies:
            self._copies[key] = JournalCopy(self._path(engine_id, incarnation))
        return self._copies[key]

    def _path(self, engine_id: int, incarnation: int) -> str:
        return os.path.join(self._folder, f"engine-{engine_id}.{incarnation}.kept")


@frozen
class JournalReplicaClient:
    """The replica as engines call it.

    Attributes:
        actor: its handle.
        is_elsewhere: see ``JournalReplica``.
    """

    actor: Any
    is_elsewhere: bool

    def accept(self, engine_id: int, incarnation: int, batch: JournalBatch) -> Position:
        """See ``JournalReplica``."""
        position: Position = self._call("accept", engine_id, incarnation, batch)
        return position

    def segments(self, engine_id: int, incarnation: int) -> Sequence[Segment]:
        """See ``JournalReplica``."""
        segments: Sequence[Segment] = self._call("segments", engine_id, incarnation)
        return segments

    def read(self, engine_id: int, incarnation: int, span: SegmentRange) -> JournalBatch:
        """See ``JournalReplica``."""
        batch: JournalBatch = self._call("read", engine_id, incarnation, span)
        return batch

    def saved_at(self, engine_id: int, incarnation: int) -> float | None:
        """See ``JournalReplica``."""
        at: float | None = self._call("saved_at", engine_id, incarnation)
        return at

    def forget(self, engine_id: int, incarnation: int) -> None:
        """See ``JournalReplica``."""
        self._call("forget", engine_id, incarnation)

    def _call(self, method: str, *args: Any) -> Any:
        import ray

        # Each call can be repeated, and Ray does so while the replica restarts.
        call = getattr(self.actor, method).options(max_task_retries=-1)
        try:
            return ray.get(call.remote(*args), timeout=CALL_TIMEOUT_S)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):  # the disk is full
                raise OSError(*error.cause.args) from None
            raise ClusterUnreachable("the journal replica", f"{type(error).__name__}: {error}") from error
        except (ray.exceptions.RayError, OSError) as error:
            raise ClusterUnreachable("the journal replica", f"{type(error).__name__}: {error}") from error


def start_replica(cluster: str, namespace: str) -> tuple[str, Any]:
    """Return the node and the actor of a cluster's replica; start it if there is none."""
    import ray

    actor_class = on_head_node(ray.remote(RayJournalReplica), _NAME, namespace, max_restarts=-1)
    return head_node(), actor_class.remote(cluster)


def replica_for(replica: tuple[str, Any] | None) -> JournalReplicaClient | None:
    """Return the replica's client in this process.

    Args:
        replica: the replica's node and actor; None if there is none.
    """
    import ray

    if replica is None:
        return None
    node, actor = replica
    return JournalReplicaClient(actor, is_elsewhere=node != ray.get_runtime_context().get_node_id())
