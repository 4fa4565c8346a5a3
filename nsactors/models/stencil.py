"""Stencil computations: an array in bands of rows, each of which sees some rows of its neighbours."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nsactors.errors import MeetingFailed, MemberLost, ServiceClosed, WrongValue
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import Reference
from nsactors.protocol.targets import resolve
from nsactors.services.mailboxes import Collective, Mailboxes, MailboxMember
from nsactors.services.service import Parcel, Service, ServiceFuture

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = [
    "Band",
    "Stencil",
]

Update = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


class Band:
    """The rows of one engine.

    Args:
        service: carries rows between neighbours.
        rank: the number of the band, from above.
        size: the number of bands.
        rows: an array of shape (k, ...).
        halo: the number of rows of each neighbour that it sees; at most k.
        edge: the value beyond the first and the last row of the whole array; None if the array wraps round.

    Attributes:
        steps: the number of steps so far.
    """

    def __init__(
        self, service: Service, rank: int, size: int, rows: np.ndarray[Any, Any], halo: int, edge: float | None
    ) -> None:
        self.rank, self.size, self.rows, self.halo, self.edge = rank, size, rows, halo, edge
        wraps = edge is None
        self.above = (rank - 1) % size if wraps or rank > 0 else None
        self.below = (rank + 1) % size if wraps or rank + 1 < size else None
        self.steps = 0
        self._service = service
        self._round = 0
        self._all_know = False  # whether the last exchange failed, which all bands know
        self._told: ServiceFuture | None = None

    def with_halo(self) -> np.ndarray[Any, Any]:
        """Return the rows with those of the neighbours above and below: shape (halo + k + halo, ...)."""
        return self._extended(self.rows, f"the rows after step {self.steps}")

    def step(self, update: Update, times: int, round: int = 0) -> None:
        """Replace the rows by ``update`` of the rows with their halo; do this ``times`` times.

        Rows are replaced when all steps have succeeded on all bands.

        Args:
            update: see :meth:`Stencil.step`.
            times: the number of steps.
            round: the number of this call, the same for all bands and larger than that of the previous call.

        Raises:
            MeetingFailed: if another band failed, or has made a different number of steps.
            MemberLost: if the engine of another band has died.
        """
        self._round, self._told = round, None
        self._all_know = False
        rows, last = self.rows, self.steps + times
        try:
            for number in range(self.steps, last):
                new = update(self._extended(rows, f"step {number + 1}"))
                if new.shape != rows.shape:
                    raise ValueError(f"the update gave shape {new.shape} for rows of shape {rows.shape}")
                rows = new
            self._meet(f"the end of step {last}", {})
        except BaseException as error:
            if not self._all_know:  # the others get this error at their next exchange; this band does not wait for them
                with contextlib.suppress(ServiceClosed):
                    self._told = self._service.ask(self._meeting(f"failed with {type(error).__name__}", {}))
            raise
        self.rows, self.steps = rows, last

    def _extended(self, rows: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
        first, last = rows[: self.halo], rows[-self.halo :]
        neighbours = [rank for rank in {self.above, self.below} if rank is not None]
        parcels = {
            rank: self._service.pack((last if rank == self.below else None, first if rank == self.above else None))
            for rank in neighbours
        }
        came = self._meet(what, parcels)
        dtype = _dtype_with(self.edge, rows.dtype)
        beyond: Any = None if self.edge is None else np.full_like(first, self.edge, dtype)
        above = beyond if self.above is None else self._service.unpack(came[self.above])[0]
        below = beyond if self.below is None else self._service.unpack(came[self.below])[1]
        extended = np.concatenate([above, rows, below])
        # The type is the same on all engines, whether or not a band sees the edge.
        return extended.astype(np.promote_types(extended.dtype, dtype), copy=False)

    def _meet(self, what: str, parcels: Mapping[int, Parcel]) -> list[Any]:
        try:
            came: list[Any] = self._service.call(self._meeting(what, parcels))
        except (MeetingFailed, MemberLost, ServiceClosed):
            self._all_know = True
            raise
        return came

    def _meeting(self, what: str, parcels: Mapping[int, Parcel]) -> Collective:
        return Collective(MailboxMember("stencil", self.rank), self.size, what, parcels, self._round)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_told": None}


def _dtype_with(edge: float | None, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of rows with their halo: the type of the rows, or another one if that cannot hold the edge."""
    if edge is None or dtype.kind not in "biu":
        return dtype
    beyond = np.asarray(edge if abs(edge) < 2**63 else float(edge))
    with np.errstate(invalid="ignore"):
        fits = bool(beyond.astype(dtype) == beyond)
    return dtype if fits else np.promote_types(dtype, beyond.dtype)


class Stencil:
    """An array whose rows are spread over the engines of a view, in its order.

    Args:
        view: the engines.
        array: an array of shape (n, ...), with at least ``halo`` rows for each engine.
        halo: the number of rows beyond its own that each engine sees.
        edge: the value beyond the first and the last row, any number; None if the array wraps round. Updates get
            fractions if it is a fraction and the array has whole numbers.
        name: the name of each engine's :class:`Band`, to be looked at and changed between steps.

    Raises:
        ValueError: if there are too few rows.

    Example:
        >>> field = Stencil(rc[:], np.eye(8))
        >>> field.step(lambda u: (u[:-2] + u[1:-1] + u[2:]) / 3, times=10)
        >>> field.array().sum()
        6.8...
    """

    def __init__(
        self, view: DirectView, array: np.ndarray[Any, Any], *, halo: int = 1, edge: float | None = 0.0,
        name: str = "band",
    ) -> None:  # fmt: skip
        from nsactors.views.direct import DirectView  # deferred: engines import this module too, and have no views

        arg.check(
            "Stencil",
            view=arg.instance(view, DirectView, "a direct view"),
            array=arg.instance(array, np.ndarray, "an array"),
            halo=arg.whole(halo, at_least=1),
            edge=arg.number(edge, or_none=True, finite=False),
            name=arg.identifier(name),
        )
        if array.ndim < 1 or len(array) < halo * len(view):
            takes = f"at least {halo * len(view)} rows, {halo} for each of {len(view)} engines with this halo"
            raise WrongValue("Stencil", "array", array, takes)
        engines = resolve(view.targets, view.client.ids)
        self._name = name
        self._view: DirectView = view.client[engines]
        self._service = view.client.host(Mailboxes())
        self._rounds = itertools.count(1)
        self._view.scatter(name, array, block=True)
        for rank, engine in enumerate(engines):
            bind = view.client[engine].apply_sync
            bind(_bind, Reference("globals()"), name, self._service, rank, len(engines), halo, edge)

    def step(self, update: Update, times: int = 1) -> None:
        """Replace the array by ``update`` of it.

        Args:
            update: called on each engine with an array of shape (halo + k + halo, ...), its k rows and the rows beyond
                them, which must not be changed; returns the k new rows.
            times: the number of steps.

        Raises:
            CompositeError: if the update fails on an engine; it then fails on all, and no rows have been replaced.
        """
        arg.check("step", update=arg.function(update), times=arg.whole(times, at_least=0))
        self._view.apply_sync(Band.step, Reference(self._name), update, times, next(self._rounds))

    def array(self) -> np.ndarray[Any, Any]:
        """Return the whole array."""
        whole: np.ndarray[Any, Any] = self._view.gather(f"{self._name}.rows", block=True)
        return whole

    def close(self) -> None:
        """Close the service that carries the rows."""
        self._service.close()


def _bind(
    names: dict[str, Any], name: str, service: Service, rank: int, size: int, halo: int, edge: float | None
) -> None:
    names[name] = Band(service, rank, size, names[name], halo, edge)
