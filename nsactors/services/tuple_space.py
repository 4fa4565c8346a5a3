"""Tuple spaces: which waiting call gets which tuple.

At any time, a space contains each tuple that was put into it and not taken; a tuple that its taker did not receive is
put back.

The model is that of "Generative communication in Linda" (Gelernter, 1985).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from nsactors.errors import ServiceClosed
from nsactors.services.state_machine import Answer, CallId, StateMachine
from nsactors.services.tuple_index import Formal, Header, Opaque, Template, TemplateIndex, TupleIndex


class Item(NamedTuple):
    """A tuple: its header, and its pickle if the header does not contain all of it."""

    header: Header
    body: Any = None


class Out(NamedTuple):
    """Put a tuple into a space: all calls that wait to read it get it, and the first call that waits to take it."""

    space: str
    item: Item


class Ask(NamedTuple):
    """Look for a tuple; the answer is an item, or None if there is none and ``waits`` is False.

    Attributes:
        space: the space.
        template: the template that the tuple must match.
        takes: remove the tuple from the space.
        waits: wait until there is one.
    """

    space: str
    template: Template
    takes: bool
    waits: bool


class Collect(NamedTuple):
    """Move, or copy, all tuples that match from one space to another; the answer is their number."""

    space: str
    target: str
    template: Template
    copies: bool


class Begin(NamedTuple):
    """Announce, under a new id, that a tuple for a space is being computed."""

    space: str
    live: str


class Finish(NamedTuple):
    """Put a computed tuple into its space, if ``item`` is not None; a second one for the same id is dropped."""

    live: str
    item: Item | None


class Count(NamedTuple):
    """Count the tuples in a space, and the calls that wait there."""

    space: str


class Forget(NamedTuple):
    """Empty a space; calls that wait there fail, since it is closed."""

    space: str


Request = Out | Ask | Collect | Begin | Finish | Count | Forget


class TupleSpaces(StateMachine):
    """Spaces by name; each is made when it is first named."""

    def __init__(self) -> None:
        self._spaces: dict[str, _Space] = {}
        self._waiting: dict[CallId, tuple[Ask, int]] = {}
        self._live: dict[str, str] = {}

    def handle(self, ticket: CallId, request: Request) -> list[Answer]:
        """Carry out a request."""
        match request:
            case Out(space, item):
                return [*self._out(space, item), Answer(ticket)]
            case Ask():
                return list(self._ask(ticket, request))
            case Collect(space, target, template, copies):
                found = self._space(space).find_all(template, takes=not copies)
                answers = [answer for item in found for answer in self._out(target, item)]
                return [*answers, Answer(ticket, len(found))]
            case Begin(space, live):
                self._live[live] = space
                return [Answer(ticket)]
            case Finish(live, item):
                home = self._live.pop(live, None)
                # A task that was repeated after the death of an engine may finish twice: only the first result counts.
                answers = [] if home is None or item is None else self._out(home, item)
                return [*answers, Answer(ticket)]
            case Count(space):
                waiting = sum(ask.space == space for ask, _ in self._waiting.values())
                return [Answer(ticket, (len(self._space(space)), waiting))]
            case Forget(space):
                closed = [waiter for waiter, (ask, _) in self._waiting.items() if ask.space == space]
                for waiter in closed:
                    self.withdraw(waiter)
                self._spaces.pop(space, None)
                return [*(Answer(waiter, error=ServiceClosed(space)) for waiter in closed), Answer(ticket)]

    def withdraw(self, ticket: CallId) -> list[Answer]:
        """Forget a waiting call."""
        ask, number = self._waiting.pop(ticket)
        self._space(ask.space).queue(ask).remove(number, ask.template)
        return []

    def give_back(self, answer: Answer) -> list[Answer]:
        """Put back a tuple that its taker did not receive; the next call that waits for it gets it."""
        space, item = answer.value
        return self._out(space, item)

    def describe(self, request: Request) -> str:
        """Return a text such as ``in_('job', int) of 'main'``."""
        if not isinstance(request, Ask):
            return super().describe(request)
        fields = ", ".join(map(_in_words, request.template))
        return f"{'in_' if request.takes else 'rd'}({fields}) of {request.space!r}"

    def _out(self, space: str, item: Item) -> list[Answer]:
        home = self._space(space)
        # Answer readers before takers, because even a tuple that is taken immediately was in the space for readers.
        readers = list(home.readers.matching(item.header))
        taker = next(home.takers.matching(item.header), None)
        for ticket in readers if taker is None else [*readers, taker]:
            self.withdraw(ticket)
        answers = [Answer(reader, (space, item)) for reader in readers]
        if taker is None:
            home.add(item)
        else:
            answers.append(Answer(taker, (space, item), takes=True))
        return answers

    def _ask(self, ticket: CallId, ask: Ask) -> Iterator[Answer]:
        home = self._space(ask.space)
        item = home.find(ask.template, takes=ask.takes)
        if item is not None:
            yield Answer(ticket, (ask.space, item), takes=ask.takes)
        elif ask.waits:
            self._waiting[ticket] = ask, home.queue(ask).add(ask.template, ticket)
        else:
            yield Answer(ticket, None)

    def _space(self, name: str) -> _Space:
        return self._spaces.setdefault(name, _Space())


class _Space:
    """The tuples of a space, and the calls that wait for more."""

    def __init__(self) -> None:
        self.readers: TemplateIndex[CallId] = TemplateIndex()
        self.takers: TemplateIndex[CallId] = TemplateIndex()
        self._tuples = TupleIndex()
        self._items: dict[int, Item] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._items)

    def queue(self, ask: Ask) -> TemplateIndex[CallId]:
        return self.takers if ask.takes else self.readers

    def add(self, item: Item) -> None:
        self._number += 1
        self._items[self._number] = item
        self._tuples.add(self._number, item.header)

    def find(self, template: Template, *, takes: bool) -> Item | None:
        number = self._tuples.first(template)
        return None if number is None else self._get(number, takes=takes)

    def find_all(self, template: Template, *, takes: bool) -> list[Item]:
        return [self._get(number, takes=takes) for number in self._tuples.all(template)]

    def _get(self, number: int, *, takes: bool) -> Item:
        if not takes:
            return self._items[number]
        self._tuples.remove(number)
        return self._items.pop(number)


def _in_words(field: Any) -> str:
    match field:
        case Formal(names):
            return " | ".join(sorted(name.removeprefix("builtins.").replace("NoneType", "None") for name in names))
        case Opaque(lineage):
            return f"<{lineage[0]}>"
        case _:
            return repr(field)
