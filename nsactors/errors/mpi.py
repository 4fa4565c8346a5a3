"""The errors of MPI worlds.

::

    MpiError
    ├── MpiUnavailable
    ├── MpiInUse
    ├── WorldNotFormed
    └── WorldBroken
"""

from __future__ import annotations

from collections.abc import Iterable

from nsactors.errors.ranges import engine_ranges
from nsactors.errors.tree import NsactorsError

__all__ = ["MpiError", "MpiInUse", "MpiUnavailable", "WorldBroken", "WorldNotFormed"]


class MpiError(NsactorsError):
    """Something about an MPI world."""


class MpiUnavailable(MpiError):
    """Engines have no MPI that a world can be made with.

    Args:
        engine_ids: these engines.
        reason: what is missing, such as ``"No module named 'mpi4py'"``.
    """

    def __init__(self, engine_ids: Iterable[int], reason: str) -> None:
        self.engine_ids = tuple(engine_ids)
        self.reason = reason
        super().__init__(
            f"{engine_ranges(self.engine_ids)} cannot join an MPI world: {reason}. A world needs mpi4py with MPICH, or "
            "an MPI derived from it: pip install 'nsactors[mpi]' on every machine brings both; then restart the engines"
        )


class MpiInUse(MpiError):
    """Engines have initialised MPI before, which a process can do only once.

    Args:
        engine_ids: these engines.
    """

    def __init__(self, engine_ids: Iterable[int]) -> None:
        self.engine_ids = tuple(engine_ids)
        ids = list(self.engine_ids)
        super().__init__(
            f"{engine_ranges(ids)} cannot join an MPI world: MPI is initialised there already, which a process can do "
            f"only once. rc.recover({ids}) gives them new processes; reform() does so for the members of a world"
        )


class WorldNotFormed(MpiError):
    """Engines could not be made one MPI world; those that had begun to join have been given new processes.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no MPI world was made: {reason}. reform(), or mpi() once more, tries again")


class WorldBroken(MpiError):
    """A member of an MPI world is gone, and with it the world: MPI cannot go on without it.

    Args:
        rank: of the member, in ``COMM_WORLD``.
        lost_engine: the member.
        reason: how it went, such as ``"killed by signal 9 (SIGKILL)"``.
        engine_id: the member whose call fails because of that, if it is one.
    """

    def __init__(self, rank: int, lost_engine: int, reason: str, engine_id: int | None = None) -> None:
        super().__init__(
            f"rank {rank} of the MPI world (engine id {lost_engine}) is gone: {reason}. "
            "The world is broken; world.reform() makes a new one of all its engines"
        )
        self.rank = rank
        self.lost_engine = lost_engine
        self.reason = reason
        self.engine_id = engine_id

    def on(self, engine_id: int) -> WorldBroken:
        """The same, for a call of this engine."""
        return WorldBroken(self.rank, self.lost_engine, self.reason, engine_id)
