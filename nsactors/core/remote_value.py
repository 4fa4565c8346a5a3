"""Values that stay where they are: an engine holds one in its object store, and others pass a handle on it around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from nsactors.errors.sizes import bytes_in_words
from nsactors.errors.tree import ObjectLost

if TYPE_CHECKING:
    from nsactors.core.memory import StoreMemory
    from nsactors.core.payload import Payload

__all__ = ["Kept", "ObjectGone", "ObjectStore", "RemoteValue", "StoredObject", "keep"]


class ObjectGone(Exception):
    """A stored object cannot be had any more; the text says why."""


class StoredObject(Protocol):
    """A payload in the store of an engine; wherever it travels, it knows the way back."""

    def load(self) -> Payload:
        """The payload, which a transport brings here if it is not here yet.

        Raises:
            ObjectGone: if it cannot be had any more.
        """
        ...


class ObjectStore(Protocol):
    """Where an engine puts aside what it need not send."""

    @property
    def ref_types(self) -> tuple[type, ...]:
        """Classes of references to stored objects, which travel beside payloads and not in them."""
        ...

    def put(self, payload: Payload) -> StoredObject:
        """Keep a payload, for as long as anybody has the object that is returned and this engine lives."""
        ...

    def memory(self) -> StoreMemory | None:
        """How full the store of this node is; None if there is none, or it does not tell."""
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RemoteValue:
    """A value held by an engine: what ``view.pull("a", as_ref=True)`` gives in place of the value.

    Push it to other engines, or pass it anywhere inside the arguments of a call: it arrives as the value, which goes
    from engine to engine and not through the client. It is the value as it was when it was pulled, whatever the name is
    bound to later, and lives as long as its engine and anybody who holds it. Where it arrives, arrays are read-only
    views of one copy a node, unless ``copy=True`` is given there; all else is a copy of its own.

    Attributes:
        stored: where it is.
        name: the name or expression that was pulled.
        engine_id: the engine that holds it; None for what a client has stored.
        call: the call that made it, e.g. ``pull(a)``.
        type_name: the class of the value.
        nbytes: its size when it is pickled, arrays included.

    Example:
        >>> a = rc[0].pull("a", as_ref=True, block=True)
        >>> a
        <RemoteValue 'a' on engine 0: numpy.ndarray, 80 MB>
        >>> rc[1:].push({"b": a}, block=True)
        >>> rc[1].apply_sync(lambda array: array.sum(), a)
        10000000.0
    """

    stored: StoredObject
    name: str
    engine_id: int | None
    call: str
    type_name: str
    nbytes: int

    def get(self, *, copy: bool = False) -> Any:
        """The value, brought here.

        Args:
            copy: make arrays that can be written to.

        Raises:
            ObjectLost: if the engine that held it is gone.
        """
        from nsactors.core.payload import unpack  # which knows this class: it is what arrives in its place

        return unpack(self.load(), copy=copy)

    def load(self) -> Payload:
        """The value as it was stored; errors as for :meth:`get`."""
        try:
            return self.stored.load()
        except ObjectGone as gone:
            raise ObjectLost(self.name, self.engine_id, self.call, str(gone)) from None

    def __repr__(self) -> str:
        where = "here" if self.engine_id is None else f"on engine {self.engine_id}"
        return f"<RemoteValue {self.name!r} {where}: {self.type_name}, {bytes_in_words(self.nbytes)}>"

    def __reduce__(self) -> NoReturn:
        # In a pickle of anybody else's the store would not see that the object is still wanted, and drop it.
        raise TypeError(
            "a RemoteValue is pickled only as part of a call: give it to push(), apply() or map() of a view, "
            "or take its value with get()"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A value on its way from a function to the store of its engine; see :func:`keep`."""

    value: Any
    name: str

    def __reduce__(self) -> NoReturn:
        raise TypeError("keep() is for what a function returns on an engine")


def keep(value: object, name: str = "result") -> Any:
    """Leave what a function returns on its engine: its caller gets a :class:`RemoteValue` in its place.

    It may stand anywhere inside what is returned.

    Args:
        value: anything that can be pickled.
        name: what it is called.

    Example:
        >>> parts = rc[:].apply_sync(lambda: [keep([1, 2, 3]), keep([4])])
        >>> rc[0].apply_sync(sum, parts[1][0])
        6
    """
    return Kept(value, name)
