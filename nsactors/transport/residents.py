"""Residents: objects of the cluster's own, with threads, which outlive the clients that call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from nsactors.core.payload import Payload, pack, unpack
from nsactors.errors import NsactorsError

if TYPE_CHECKING:
    from nsactors.transport.base import Transport

__all__ = ["MakeResident", "ResidentGone", "ResidentLine", "answer", "outcome_of", "pack_arguments"]

MakeResident = Callable[["Transport", Callable[[], None]], Any]
"""Makes a resident where it is to live; a class or function that can be imported there.

It gets a way to the cluster of its own, and a function for it to call when the cluster is gone. The methods of what it
returns are coroutines of one event loop, on which others wait too: none of them may block.
"""


class ResidentGone(Exception):
    """The process of a resident has ended, and what it held has gone with it."""


class ResidentLine(Protocol):
    """Calls methods of a resident and waits for their results."""

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method. Arguments and result are pickled, also within one process.

        Raises:
            NsactorsError: what the method raises.
            ResidentGone: if its process has ended.
            ConnectionLost: if the cluster is gone, or there is no answer in time.
        """
        ...


def pack_arguments(method: str, args: tuple[Any, ...], ref_types: tuple[type, ...]) -> Payload:
    """What to send to a resident."""
    return pack(args, what=f"what {method}() takes", ref_types=ref_types)


async def answer(resident: Any, method: str, arguments: Payload, ref_types: tuple[type, ...]) -> Payload:
    """Call a method of a resident; what to send back."""
    try:
        outcome = True, await getattr(resident, method)(*unpack(arguments))
    except NsactorsError as error:  # for the caller, who is told as if it had been raised there
        outcome = False, error
    return pack(outcome, what=f"what {method}() gives", ref_types=ref_types)


def outcome_of(answer: Payload) -> Any:
    """What a method returned; raises what it raised."""
    succeeded, outcome = unpack(answer)
    if succeeded:
        return outcome
    raise outcome
