"""Errors of hosted services and of MPI worlds.

::

    ServiceError
    ├── ServiceClosed
    ├── ServiceOverloaded
    ├── MemberLost
    └── MeetingFailed

::

    MpiError
    ├── MpiUnavailable
    ├── MpiInUse
    ├── WorldNotFormed
    └── WorldBroken
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nsactors.errors.exceptions import NsactorsError
from nsactors.errors.formatting import engine_ranges


class ServiceError(NsactorsError):
    """A call to a service failed, or a collective operation (such as a barrier) of its callers did."""


class MemberLost(ServiceError):
    """A member of a group died while others waited for it.

    Args:
        rank: the rank of the member.
        what: the operation that waited, such as ``"recv from 2"``.
        collective: whether the operation needs every rank; otherwise, it waited for a message of this one.
    """

    def __init__(self, rank: int, what: str, *, collective: bool = False) -> None:
        effect = "this operation needs every rank" if collective else "will send nothing more"
        super().__init__(
            f"{what}: rank {rank} has died, and {effect}. Repeat it when the engine is back; without "
            "recovery='replay', make the communicator again first"
        )
        self.rank = rank
        self.what = what


class MeetingFailed(ServiceError):
    """The members of a group called different collectives.

    Args:
        what: the operation of this member, such as ``"barrier"``.
        others: the operation of each member, by rank.
    """

    def __init__(self, what: str, others: Mapping[int, str]) -> None:
        ranks: dict[str, list[int]] = {}
        for rank, other in others.items():
            ranks.setdefault(other, []).append(rank)
        told = "; ".join(f"{engine_ranges(of).replace('engine', 'rank')}: {other}" for other, of in ranks.items())
        super().__init__(
            f"{what}: the ranks are at different operations ({told}); all must call the same ones in the same order"
        )
        self.what = what
        self.others = dict(others)


class ServiceClosed(ServiceError):
    """A service has ended, and its state is lost: it was closed, its process has died, or the cluster has ended.

    Args:
        name: the name of the service.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the service {name!r} has ended: create a new one, and pass it to the code that used this one"
        )
        self.name = name


class ServiceOverloaded(ServiceError):
    """A service refuses a call, because too many are waiting already.

    Args:
        waiting: the largest number of calls that may wait.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting:,} calls wait at this service already: wait for some of their replies first")
        self.waiting = waiting


class MpiError(NsactorsError):
    """An MPI world cannot be formed or used."""


class MpiUnavailable(MpiError):
    """Engines have no MPI library that can form a world.

    Args:
        engine_ids: the engines.
        reason: the part that is missing, such as ``"No module named 'mpi4py'"``.
        advice: what the user can do; None for the advice that suits a missing mpi4py or MPI library.
    """

    def __init__(self, engine_ids: Iterable[int], reason: str, advice: str | None = None) -> None:
        self.engine_ids = tuple(engine_ids)
        self.reason = reason
        self.advice = advice
        usual = (
            "A world needs mpi4py with an MPI library on every machine: pip install 'nsactors[mpi]' installs both; "
            "then restart the engines. To use the MPI library that your site provides, load its environment module, "
            "and then start the cluster again"
        )
        way_out = usual if advice is None else advice
        super().__init__(f"{engine_ranges(self.engine_ids)} cannot join an MPI world: {reason}. {way_out}")


class MpiInUse(MpiError):
    """Engines have already initialised MPI, which a process can do only once.

    Args:
        engine_ids: the engines.
    """

    def __init__(self, engine_ids: Iterable[int]) -> None:
        self.engine_ids = tuple(engine_ids)
        ids = list(self.engine_ids)
        super().__init__(
            f"{engine_ranges(ids)} cannot join an MPI world: MPI is initialised there already, which a process can do "
            f"only once. rc.recover({ids}) gives them new processes; for the members of a world, world.reform() does it"
        )


class WorldNotFormed(MpiError):
    """Engines could not form an MPI world; engines that had begun to join it got new processes.

    Args:
        reason: the cause.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no MPI world was formed: {reason}. Call world.reform(), or view.mpi() again")


class WorldBroken(MpiError):
    """A member of an MPI world was lost, which breaks the world: MPI cannot continue without it.

    Args:
        rank: the rank of the member in ``COMM_WORLD``.
        lost_engine: the engine of that member.
        reason: how it was lost, such as ``"killed by signal 9 (SIGKILL)"``.
        engine_id: the engine whose call fails for this reason, if there is one.
        returns: whether a new process takes the place of the lost one.
    """

    def __init__(
        self, rank: int, lost_engine: int, reason: str, engine_id: int | None = None, returns: bool = True
    ) -> None:
        advice = "world.reform() forms a new world from the same engines"
        if not returns:
            advice = f"engine {lost_engine} does not return: call view.mpi() on a view of other engines"
        super().__init__(
            f"rank {rank} of the MPI world (engine id {lost_engine}) was lost: {reason}. The world is broken; {advice}"
        )
        self.rank = rank
        self.lost_engine = lost_engine
        self.reason = reason
        self.engine_id = engine_id
        self.returns = returns

    def on(self, engine_id: int) -> WorldBroken:
        """Return the same error for a call to another engine."""
        return WorldBroken(self.rank, self.lost_engine, self.reason, engine_id, self.returns)
