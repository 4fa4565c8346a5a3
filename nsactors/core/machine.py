"""Services: state machines that a cluster hosts, whose answers may come later.

A *machine* decides who gets what; a mailbox, a barrier and a tuple space are machines. Its *desk* stands between it and
those who call: it keeps the calls of each party in order, knows who waits, and sees that what was taken by somebody
who never received it comes back.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nsactors.errors import ServiceOverloaded

__all__ = ["Answer", "Desk", "Desks", "Machine", "Ticket", "Waiting", "name_of"]

MOST_WAITING = 8_000  # each of them holds a place of the host's; it has 20,000
REMEMBERED = 1_000


class Ticket(NamedTuple):
    """One call.

    Attributes:
        party: who calls; unique, and begins with what people know it by, as in ``"engine 3/8f2c19"``.
        number: of this call among those of its party; they count up.
    """

    party: str
    number: int


class Answer(NamedTuple):
    """What a call is answered.

    Attributes:
        ticket: the call.
        value: what it returns.
        error: raised in place of that, if there is one.
        takes: the value has left the machine, and goes back to it if the caller does not receive it.
    """

    ticket: Ticket
    value: Any = None
    error: Exception | None = None
    takes: bool = False


class Waiting(NamedTuple):
    """A call that has not been answered.

    Attributes:
        ticket: the call.
        what: in words.
        since: when it was made.
    """

    ticket: Ticket
    what: str
    since: float


class Machine(ABC):
    """What a service does: requests in, answers out. It has no clock, no threads and no way to wait.

    Example:
        >>> class Counter(Machine):
        ...     count = 0
        ...
        ...     def handle(self, ticket, request):
        ...         self.count += request
        ...         return [Answer(ticket, self.count)]
        >>> service = rc.host(Counter())
        >>> service.call(5)
        5
    """

    @abstractmethod
    def handle(self, ticket: Ticket, request: Any) -> Iterable[Answer]:
        """Answer this call, or others that have been waiting, or both. A call that is not answered waits.

        What this raises is raised by the call.
        """

    def withdraw(self, ticket: Ticket) -> Iterable[Answer]:
        """Forget a call that waits: its caller does so no more."""
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        """Take back a value that was taken and has not been received."""
        return ()

    def gone(self, party: str) -> Iterable[Answer]:
        """The process of a party has ended without taking its leave; its calls have been withdrawn."""
        return ()

    def describe(self, request: Any) -> str:
        """What somebody waits for who has made this request, in words such as ``"recv from 2 tag 5"``."""
        return "an answer"


@dataclass(slots=True)
class _Party:
    """What a desk knows of one caller.

    Attributes:
        upto: the highest number that has been handled.
        early: calls that came before others that were made before them: number, predecessor, request, time.
        withdrawn: numbers of calls that were taken back before they came.
    """

    upto: int = 0
    early: list[tuple[int, int, Any, float]] = field(default_factory=list)
    withdrawn: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Desk:
    """Hands the calls of many parties to one machine.

    Every method returns the answers that can be given now.

    Args:
        machine: what answers.
        waiting: how many calls wait, if there are more than those of this desk.
    """

    def __init__(self, machine: Machine, waiting: Callable[[], int] | None = None) -> None:
        self._machine = machine
        self._all_waiting = waiting or self.count_waiting
        self._parties: dict[str, _Party] = {}
        self._open: dict[Ticket, tuple[Any, float]] = {}
        self._taken: dict[Ticket, Answer] = {}

    @property
    def parties(self) -> list[str]:
        """Who has called and not left."""
        return list(self._parties)

    def call(self, ticket: Ticket, after: int, request: Any, now: float) -> list[Answer]:
        """A call has come.

        Args:
            ticket: the call.
            after: the number of the one that its party made before it. Calls overtake each other on their way.
            request: for the machine.
            now: seconds on the host's clock.
        """
        party = self._parties.setdefault(ticket.party, _Party())
        party.early.append((ticket.number, after, request, now))
        answers: list[Answer] = []
        # Numbers may be missing: a caller may be interrupted between taking one and using it.
        while due := [call for call in party.early if call[1] <= party.upto]:
            call = min(due, key=lambda call: call[0])
            party.early.remove(call)
            party.upto = max(party.upto, call[0])
            answers += self._serve(party, Ticket(ticket.party, call[0]), call[2], call[3])
        return answers

    def _serve(self, party: _Party, ticket: Ticket, request: Any, now: float) -> list[Answer]:
        if ticket.number in party.withdrawn:
            return [_withdrawn(ticket)]
        self._open[ticket] = request, now
        try:
            answers = self._settle(self._machine.handle(ticket, request))
        except Exception as error:  # the machine's own: whoever caused it is told
            answers = self._settle([Answer(ticket, error=error)])
        if ticket in self._open and self._all_waiting() > MOST_WAITING:
            answers += self._settle(self._machine.withdraw(ticket))
            answers += self._settle([Answer(ticket, error=ServiceOverloaded(MOST_WAITING))])
        return answers

    def acknowledge(self, ticket: Ticket) -> None:
        """What was taken by this call has been received."""
        self._taken.pop(ticket, None)

    def withdraw(self, ticket: Ticket) -> list[Answer]:
        """The caller waits no more; what it has taken and not acknowledged goes back."""
        if ticket in self._open:
            del self._open[ticket]
            return [*self._settle(self._machine.withdraw(ticket)), _withdrawn(ticket)]
        if (answer := self._taken.pop(ticket, None)) is not None:
            return self._settle(self._machine.give_back(answer))
        self._parties.setdefault(ticket.party, _Party()).withdrawn.append(ticket.number)
        return []

    def leave(self, party: str, *, died: bool = False) -> list[Answer]:
        """A party calls no more, because it does not want to or because its process has ended."""
        if self._parties.pop(party, None) is None:
            return []
        answers = []
        for ticket in [t for known in (self._open, self._taken) for t in known if t.party == party]:
            answers += self.withdraw(ticket)
        if died:
            answers += self._settle(self._machine.gone(party))
        return answers

    def close(self, make_error: Callable[[], Exception]) -> list[Answer]:
        """The service ends: everybody who waits is told, each by an error of its own."""
        return self._settle([Answer(ticket, error=make_error()) for ticket in self._open])

    def count_waiting(self) -> int:
        """How many calls wait here."""
        return len(self._open)

    def waiting(self) -> list[Waiting]:
        """The calls that have not been answered, in the order in which they were made."""
        return [Waiting(ticket, self._machine.describe(request), at) for ticket, (request, at) in self._open.items()]

    def _settle(self, answers: Iterable[Answer]) -> list[Answer]:
        settled = list(answers)
        for answer in settled:
            self._open.pop(answer.ticket, None)
            if answer.takes:
                self._taken[answer.ticket] = answer
        return settled


class Desks(dict[str, Desk]):
    """Services by keys, none of which is used again: who calls one that was closed reaches no later one of its name."""

    def __init__(self) -> None:
        super().__init__()
        self._serials = itertools.count(1)

    def open(self, name: str, make: Callable[[], Machine]) -> str:
        """The key of the service of this name, which is made if there is none."""
        for key in self:
            if name_of(key) == name:
                return key
        key = f"{name}#{next(self._serials)}"
        self[key] = Desk(make(), lambda: sum(desk.count_waiting() for desk in self.values()))
        return key


def name_of(key: str) -> str:
    """The name of the service that has this key."""
    return key.rpartition("#")[0]


def _withdrawn(ticket: Ticket) -> Answer:
    """For whoever still waits for it: a thread of an engine that has ended."""
    return Answer(ticket, error=RuntimeError("this call has been withdrawn"))
