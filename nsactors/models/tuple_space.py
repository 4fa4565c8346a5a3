"""Tuple spaces: processes that coordinate through tuples which none of them owns."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from nsactors.errors import CapabilityError
from nsactors.protocol import arguments as arg
from nsactors.services.tuple_index import header_of, is_plain, template_of
from nsactors.services.tuple_space import Ask, Begin, Collect, Count, Finish, Forget, Item, Out, TupleSpaces

if TYPE_CHECKING:
    from nsactors.results import AsyncResult
    from nsactors.services.service import Service
    from nsactors.views.view_client import ViewClient

__all__ = [
    "TupleSpace",
]


class TupleSpace:
    """A bag of tuples that clients and engines share, as in Linda.

    A *template* describes the tuples that a caller wants: each field is either a value, which matches an equal value of
    the same type, or a type, which matches its instances. ``object`` matches anything, and ``int | str`` matches an int
    or a text; ``int`` does not match a bool.

    A caller that waits for a tuple uses no processor time; callers are served in the order of their calls. A
    tuple that does not reach its caller, because the caller was interrupted, ran out of time or has died, stays in the
    space.

    Push a space to engines, or pass it to functions that run on engines: it is the same space everywhere. Arrays that
    come out of a space are read-only.

    Args:
        client: the client of the cluster that holds the space.
        name: spaces of the same name are one.

    Example:
        >>> space = TupleSpace(rc)
        >>> for number in range(3):
        ...     space.out("job", number)
        >>> rc[0].apply_sync(lambda: space.in_("job", int))
        ('job', 0)
        >>> len(space)
        2
    """

    def __init__(self, client: ViewClient, name: str = "main") -> None:
        # Deferred, because engines import this module too, and have no views.
        from nsactors.views.view_client import check_client

        arg.check("TupleSpace", client=check_client(client), name=arg.text(name))
        self._client: ViewClient | None = client
        self.name = name
        self._service: Service = client.host(TupleSpaces(), "tuple spaces")

    def out(self, *fields: Any) -> None:
        """Put a tuple into the space.

        This does not wait until the tuple has arrived. But it is found by later calls of this process to the space,
        and by calls to engines that this process makes later. If this is called on an engine, it is also found by the
        calls that follow the running one on this engine.

        Raises:
            SerializationError: if a field cannot be pickled.
        """
        self._service.tell(Out(self.name, self._item(fields)))

    def in_(self, *template: Any, timeout: float | None = None) -> tuple[Any, ...]:
        """Take a tuple, and wait for it if there is none.

        Args:
            template: describes the tuple.
            timeout: seconds; None for no limit.

        Raises:
            TimeoutError: if no tuple matches in time.
            TypeError: if a value in the template cannot be compared, such as a list; give its type instead.
            ServiceClosed: if the space is closed during the wait.
        """
        arg.check("in_", timeout=arg.seconds(timeout))
        found = self._ask(template, timeout, takes=True, waits=True)
        assert found is not None, "a caller that waits is given a tuple"
        return found

    def rd(self, *template: Any, timeout: float | None = None) -> tuple[Any, ...]:
        """Return a copy of a tuple, which stays in the space; otherwise like :meth:`in_`."""
        arg.check("rd", timeout=arg.seconds(timeout))
        found = self._ask(template, timeout, takes=False, waits=True)
        assert found is not None, "a caller that waits is given a tuple"
        return found

    def inp(self, *template: Any) -> tuple[Any, ...] | None:
        """Take a tuple; None if there is none now."""
        return self._ask(template, None, takes=True, waits=False)

    def rdp(self, *template: Any) -> tuple[Any, ...] | None:
        """Return a copy of a tuple, which stays; None if there is none now."""
        return self._ask(template, None, takes=False, waits=False)

    def eval(self, *fields: Any) -> AsyncResult:
        """Compute a tuple on an engine that is free, and put it into the space.

        The tuple is put there once, even if the engine dies and another one computes it again.

        Args:
            fields: values, and functions without arguments that give a value; ``functools.partial`` binds arguments.

        Returns:
            A result that is done when the tuple is in the space, and fails if the tuple cannot be computed.

        Raises:
            CapabilityError: on an engine, unless the space was made there with a client of its own.

        Example:
            >>> space.eval("square", 12, lambda: 12**2)
            >>> space.in_("square", 12, int)
            ('square', 12, 144)
        """
        if self._client is None:
            raise CapabilityError(
                "find a free engine", "this engine", "make a TupleSpace with a client of its own there"
            )
        live = uuid.uuid4().hex
        self._service.call(Begin(self.name, live))
        result: AsyncResult = self._client.load_balanced_view().apply_async(_compute, self, live, fields)
        return result

    def collect(self, target: TupleSpace | str, *template: Any) -> int:
        """Move all tuples that match to another space, in one step; return their number."""
        return self._collect(target, template, copies=False)

    def copy_collect(self, target: TupleSpace | str, *template: Any) -> int:
        """Copy all tuples that match to another space, in one step; return their number."""
        return self._collect(target, template, copies=True)

    def __len__(self) -> int:
        """Return the number of tuples."""
        return self._count()[0]

    @property
    def waiting(self) -> int:
        """The number of callers that wait here for a tuple."""
        return self._count()[1]

    def close(self) -> None:
        """Empty the space; callers that wait in it get ``ServiceClosed``. Its name may be used again."""
        self._service.call(Forget(self.name))

    def __repr__(self) -> str:
        return f"<TupleSpace {self.name!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def _item(self, fields: tuple[Any, ...]) -> Item:
        return Item(header_of(fields), None if is_plain(fields) else self._service.pack(fields, "the tuple"))

    def _fields(self, item: Item) -> tuple[Any, ...]:
        fields: tuple[Any, ...] = item.header if item.body is None else self._service.unpack(item.body)
        return fields

    def _ask(
        self, template: tuple[Any, ...], timeout: float | None, *, takes: bool, waits: bool
    ) -> tuple[Any, ...] | None:
        ask = Ask(self.name, template_of(template), takes, waits)
        try:
            found = self._service.call(ask, timeout)
        except TimeoutError:
            raise TimeoutError(f"no tuple of {self.name!r} has matched in {timeout:g} s") from None
        return None if found is None else self._fields(found[1])

    def _collect(self, target: TupleSpace | str, template: tuple[Any, ...], *, copies: bool) -> int:
        call = "copy_collect" if copies else "collect"
        arg.check(call, target=arg.instance(target, (str, TupleSpace), "a tuple space, or the name of one"))
        name = target if isinstance(target, str) else target.name
        count: int = self._service.call(Collect(self.name, name, template_of(template), copies))
        return count

    def _count(self) -> tuple[int, int]:
        counts: tuple[int, int] = self._service.call(Count(self.name))
        return counts


def _compute(space: TupleSpace, live: str, fields: tuple[Any, ...]) -> None:
    """Compute a tuple on an engine for :meth:`TupleSpace.eval`."""
    service = space._service
    try:
        values = tuple(field() if callable(field) and not isinstance(field, type) else field for field in fields)
        item = space._item(values)
    except BaseException:
        service.call(Finish(live, None))
        raise
    service.call(Finish(live, item))
