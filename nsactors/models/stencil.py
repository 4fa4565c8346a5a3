"""Stencil computations: an array in bands of rows, each of which sees some rows of its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nsactors.errors import WrongValue
from nsactors.models.communicator import PROC_NULL, Communicator, communicators
from nsactors.protocol import arguments as arg
from nsactors.protocol.messages import Reference

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
        comm: the way to its neighbours.
        rows: an array of shape (k, ...).
        halo: the number of rows of each neighbour that it sees; at most k.
        edge: the value beyond the first and the last row of the whole array; None if the array wraps round.
    """

    def __init__(self, comm: Communicator, rows: np.ndarray[Any, Any], halo: int, edge: float | None) -> None:
        self.comm, self.rows, self.halo, self.edge = comm, rows, halo, edge
        self.above, self.below = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
        if edge is not None:
            self.above = self.above if comm.rank > 0 else PROC_NULL
            self.below = self.below if comm.rank + 1 < comm.size else PROC_NULL

    def with_halo(self) -> np.ndarray[Any, Any]:
        """Return the rows with those of the neighbours above and below: shape (halo + k + halo, ...)."""
        first, last = self.rows[: self.halo], self.rows[-self.halo :]
        above = self.comm.sendrecv(last, dest=self.below, source=self.above)
        below = self.comm.sendrecv(first, dest=self.above, source=self.below)
        nothing = np.full_like(first, 0 if self.edge is None else self.edge)
        return np.concatenate([nothing if above is None else above, self.rows, nothing if below is None else below])

    def step(self, update: Update, times: int) -> None:
        """Replace the rows by ``update`` of the rows with their halo; do this ``times`` times."""
        for _ in range(times):
            rows = update(self.with_halo())
            if rows.shape != self.rows.shape:
                raise ValueError(f"the update gave shape {rows.shape} for rows of shape {self.rows.shape}")
            self.rows = rows


class Stencil:
    """An array whose rows are spread over the engines of a view, in its order.

    Args:
        view: the engines.
        array: an array of shape (n, ...), with at least ``halo`` rows for each engine.
        halo: the number of rows beyond its own that each engine sees.
        edge: the value beyond the first and the last row, any number; None if the array wraps round.
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
        self._view, self._name = view, name
        self._service = communicators(view, f"{name}_comm")
        view.scatter(name, array, block=True)
        view.apply_sync(_bind, Reference("globals()"), name, halo, edge)

    def step(self, update: Update, times: int = 1) -> None:
        """Replace the array by ``update`` of it.

        Args:
            update: called on each engine with an array of shape (halo + k + halo, ...), its k rows and the rows beyond
                them, which must not be changed; returns the k new rows.
            times: the number of steps.
        """
        arg.check("step", update=arg.function(update), times=arg.whole(times, at_least=0))
        self._view.apply_sync(Band.step, Reference(self._name), update, times)

    def array(self) -> np.ndarray[Any, Any]:
        """Return the whole array."""
        whole: np.ndarray[Any, Any] = self._view.gather(f"{self._name}.rows", block=True)
        return whole

    def close(self) -> None:
        """Close the service that carries the rows."""
        self._service.close()


def _bind(names: dict[str, Any], name: str, halo: int, edge: float | None) -> None:
    names[name] = Band(names[f"{name}_comm"], names[name], halo, edge)
