"""The state machine of a service, and the inbox that passes calls to it.

A *state machine* turns requests into answers, now or later; a mailbox, a barrier and a tuple space are state machines.
An *inbox* stands between the machine and its callers. The inbox keeps the calls of each caller in order, knows which
calls wait, and gives a value back to the machine if the caller that took the value did not receive it.
"""

from __future__ import annotations

import itertools
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from nsactors.errors import ServiceError, ServiceOverloaded
from nsactors.errors.reporting import print_traceback

MOST_WAITING = 8_000  # each waiting call occupies one of the host's 20,000 places for concurrent calls
REMEMBERED = 1_000

T = TypeVar("T")


class CallId(NamedTuple):
    """One call.

    Attributes:
        caller: the name of the caller; unique, and begins with the name that users know, such as ``"engine 3/8f2c19"``.
        number: the number of the call; each caller numbers its calls upwards.
    """

    caller: str
    number: int


class Answer(NamedTuple):
    """The answer to a call.

    Attributes:
        ticket: the call.
        value: the value that the call returns.
        error: an exception that the call raises instead.
        takes: whether the value has left the machine; it is given back if the caller does not receive it.
    """

    ticket: CallId
    value: Any = None
    error: Exception | None = None
    takes: bool = False


class Waiting(NamedTuple):
    """A call that has not been answered.

    Attributes:
        ticket: the call.
        what: a description of the expected answer.
        since: the time of the call.
    """

    ticket: CallId
    what: str
    since: float


class Unreadable(NamedTuple):
    """Stands for a request that cannot be read: its call raises ``error``."""

    error: Exception


class StateMachine(ABC):
    """The behaviour of a service: requests in, answers out. It has no clock and no threads, and cannot wait.

    Example:
        >>> class Counter(StateMachine):
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
    def handle(self, ticket: CallId, request: Any) -> Iterable[Answer]:
        """Answer this call, or others that have been waiting, or both. A call without an answer waits.

        An exception raised here is raised by the call; ``SystemExit`` and the like become a ``ServiceError``. The host
        only prints exceptions of the other methods.
        """

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        """Forget a waiting call, because its caller does not wait any more."""
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        """Put back a value that a caller took and has not received."""
        return ()

    def gone(self, caller: str) -> Iterable[Answer]:
        """Handle the death of a caller's process; its calls have been withdrawn."""
        return ()

    def describe(self, request: Any) -> str:
        """Describe the answer that the call with this request waits for, such as ``"recv from 2 tag 5"``."""
        return "an answer"


@dataclass(slots=True)
class _Caller:
    """The state of one caller.

    Attributes:
        upto: the highest number that has been handled.
        early: calls that arrived before their predecessors: number, predecessor, request, time.
        withdrawn: numbers of calls that were withdrawn before they arrived.
    """

    upto: int = 0
    early: list[tuple[int, int, Any, float]] = field(default_factory=list)
    withdrawn: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class ServiceInbox:
    """Passes the calls of many callers to one state machine.

    Every method returns the answers that can be given now.

    Args:
        machine: the state machine.
        waiting: returns the number of calls that wait in all inboxes of the host, if there are several.
    """

    def __init__(self, machine: StateMachine, waiting: Callable[[], int] | None = None) -> None:
        self._machine = machine
        self._all_waiting = waiting or self.count_waiting
        self._callers: dict[str, _Caller] = {}
        self._open: dict[CallId, tuple[Any, float]] = {}
        self._taken: dict[CallId, Answer] = {}

    @property
    def callers(self) -> list[str]:
        """The names of the callers that have not left."""
        return list(self._callers)

    def call(self, ticket: CallId, after: int, request: Any, now: float) -> list[Answer]:
        """Handle a call.

        Args:
            ticket: the call.
            after: the number of the caller's previous call. Calls may overtake each other on their way.
            request: the request for the machine.
            now: the time in seconds on the host's clock.
        """
        caller = self._callers.setdefault(ticket.caller, _Caller())
        caller.early.append((ticket.number, after, request, now))
        answers: list[Answer] = []
        # Numbers may be missing: a caller may be interrupted between taking one and using it.
        while due := [call for call in caller.early if call[1] <= caller.upto]:
            call = min(due, key=lambda call: call[0])
            caller.early.remove(call)
            caller.upto = max(caller.upto, call[0])
            answers += self._serve(caller, CallId(ticket.caller, call[0]), call[2], call[3])
        return answers

    def _serve(self, caller: _Caller, ticket: CallId, request: Any, now: float) -> list[Answer]:
        if ticket.number in caller.withdrawn:
            return [withdrawn(ticket)]
        if isinstance(request, Unreadable):
            return [Answer(ticket, error=request.error)]
        self._open[ticket] = request, now
        try:
            answers = self._record(self._machine.handle(ticket, request))
        except BaseException as error:  # raised by the machine, for the caller; SystemExit would end all services
            answers = self._record([Answer(ticket, error=error if isinstance(error, Exception) else described(error))])
        # Check this after the machine has handled the call: only then is it known whether the call waits.
        if ticket in self._open and self._all_waiting() > MOST_WAITING:
            answers += self._notify(self._machine.withdraw, ticket)
            answers += self._record([Answer(ticket, error=ServiceOverloaded(MOST_WAITING))])
        return answers

    def acknowledge(self, ticket: CallId) -> None:
        """Record that the caller has received the value that this call took."""
        self._taken.pop(ticket, None)

    def withdraw(self, ticket: CallId) -> list[Answer]:
        """Withdraw a call; a value that it took and did not acknowledge is given back."""
        if ticket in self._open:
            del self._open[ticket]
            return [*self._notify(self._machine.withdraw, ticket), withdrawn(ticket)]
        if (answer := self._taken.pop(ticket, None)) is not None:
            return self._notify(self._machine.give_back, answer)
        # The withdrawal has overtaken its call.
        self._callers.setdefault(ticket.caller, _Caller()).withdrawn.append(ticket.number)
        return []

    def leave(self, caller: str, *, died: bool = False) -> list[Answer]:
        """Remove a caller that will make no further calls, because it has left or its process has died."""
        if self._callers.pop(caller, None) is None:
            return []
        answers = []
        # Give back also those values that the caller took and did not acknowledge.
        for ticket in [t for known in (self._open, self._taken) for t in known if t.caller == caller]:
            answers += self.withdraw(ticket)
        if died:
            answers += self._notify(self._machine.gone, caller)
        return answers

    def close(self, make_error: Callable[[], Exception]) -> list[Answer]:
        """End the service: answer each waiting call with an error of its own."""
        return self._record([Answer(ticket, error=make_error()) for ticket in self._open])

    def count_waiting(self) -> int:
        """Return the number of waiting calls."""
        return len(self._open)

    def waiting(self) -> list[Waiting]:
        """Return the calls without an answer, in the order in which they were made."""
        return [Waiting(ticket, self._describe(request), at) for ticket, (request, at) in self._open.items()]

    def _describe(self, request: Any) -> str:
        try:
            return self._machine.describe(request)
        except BaseException:
            print_traceback()
            return "an answer"

    def _notify(self, method: Callable[[T], Iterable[Answer]], event: T) -> list[Answer]:
        """Call a method of the machine for which no caller waits: its errors must not reach the host or other calls."""
        try:
            return self._record(method(event))
        except BaseException:
            print_traceback()
            return []

    def _record(self, answers: Iterable[Answer]) -> list[Answer]:
        settled = list(answers)
        for answer in settled:
            self._open.pop(answer.ticket, None)
            if answer.takes:
                self._taken[answer.ticket] = answer
        return settled


class ServiceInboxes(dict[str, ServiceInbox]):
    """Inboxes by keys that are never reused: calls to a closed service reach no later service of the same name."""

    def __init__(self) -> None:
        super().__init__()
        self._serials = itertools.count(1)

    def open(self, name: str, make: Callable[[], StateMachine]) -> str:
        """Return the key of the service of this name, making the service if there is none."""
        for key in self:
            if name_of(key) == name:
                return key
        key = f"{name}#{next(self._serials)}"
        self[key] = ServiceInbox(make(), lambda: sum(inbox.count_waiting() for inbox in self.values()))
        return key


def name_of(key: str) -> str:
    """Return the name of the service with this key."""
    return key.rpartition("#")[0]


def withdrawn(ticket: CallId) -> Answer:
    """Return the answer to a withdrawn call, for a thread that still waits for it in an engine that has ended."""
    return Answer(ticket, error=RuntimeError("this call has been withdrawn"))


def described(error: BaseException) -> ServiceError:
    """Return an error for the caller in place of one that it cannot receive."""
    return ServiceError("".join(traceback.format_exception_only(error)).strip())
