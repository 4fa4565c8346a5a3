"""Mailboxes and collectives: messages between numbered members, and operations of all members.

A *mailbox* belongs to a member: others put messages into it, and it takes those that match a pattern, in the order of
their arrival. In a *collective*, such as a barrier, a broadcast or an exchange between all, every member contributes
parcels for the others; when all have done so, each member gets the parcels that are for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nsactors.errors import MeetingFailed, MemberLost
from nsactors.services.state_machine import Answer, CallId, StateMachine

EVERYONE = -1


class MailboxMember(NamedTuple):
    """A sender and receiver of messages.

    Attributes:
        group: the group of members; one state machine can serve several groups.
        rank: a number from 0, unique in the group.
    """

    group: str
    rank: int


class MailboxMessage(NamedTuple):
    """A message in a mailbox.

    Attributes:
        source: the rank of its sender.
        tag: a number that the sender chose.
        parcel: its contents.
        arrival: its number in the order of arrival.
        mailbox: the owner of the mailbox.
    """

    source: int
    tag: int
    parcel: Any
    arrival: int
    mailbox: MailboxMember


class Put(NamedTuple):
    """Put a message into the mailbox of ``to``; the answer comes immediately."""

    sender: MailboxMember
    to: int
    tag: int
    parcel: Any


class Take(NamedTuple):
    """Take the first message that matches.

    Attributes:
        member: the owner of the mailbox.
        source: the rank of the sender; None for any.
        tag: the tag; None for any.
        leaves: leave the message in the mailbox.
        waits: wait for a message; otherwise, the answer is None if none matches.
    """

    member: MailboxMember
    source: int | None
    tag: int | None
    leaves: bool = False
    waits: bool = True


class Collective(NamedTuple):
    """Contribute parcels and wait for the others' parcels; the answer is a list by rank, with None for no parcel.

    Attributes:
        member: the member.
        size: the size of the group.
        what: the operation, which must be the same for all members.
        parcels: the parcels by the rank that gets them, or ``EVERYONE``.
        round: the number of the program that the operation belongs to. A call of a later round fails the calls of
            earlier rounds, which failed programs have left behind.
    """

    member: MailboxMember
    size: int
    what: str
    parcels: Mapping[int, Any]
    round: int = 0


@dataclass(slots=True)
class _Mailbox:
    """Messages by the number of their arrival, and calls that wait for one, in the order of the calls."""

    messages: dict[int, MailboxMessage] = field(default_factory=dict)
    waiting: dict[CallId, Take] = field(default_factory=dict)


class Mailboxes(StateMachine):
    """Delivers messages, and completes collectives. Messages with the same sender and tag stay in order."""

    def __init__(self) -> None:
        self._mailboxes: defaultdict[MailboxMember, _Mailbox] = defaultdict(_Mailbox)
        self._collectives: defaultdict[str, dict[CallId, Collective]] = defaultdict(dict)
        self._members: defaultdict[str, set[MailboxMember]] = defaultdict(set)  # by caller
        self._lost: set[MailboxMember] = set()
        self._arrivals = 0

    def handle(self, ticket: CallId, request: Any) -> Iterator[Answer]:
        """Carry out a :class:`Put`, :class:`Take` or :class:`Collective`."""
        member = request[0]
        self._members[ticket.caller].add(member)
        self._lost.discard(member)  # a new process has taken the place of the one that died
        match request:
            case Put(sender, to, tag, parcel):
                yield Answer(ticket)
                self._arrivals += 1
                receiver = MailboxMember(sender.group, to)
                message = MailboxMessage(sender.rank, tag, parcel, self._arrivals, receiver)
                self._mailboxes[receiver].messages[message.arrival] = message
                yield from self._deliver(receiver)
            case Take(waits=False):
                found = self._find(request)
                yield Answer(ticket) if found is None else self._taken(ticket, request, found)
            case Take():
                self._mailboxes[member].waiting[ticket] = request
                yield from self._deliver(member)
            case Collective():
                calls = self._collectives[member.group]
                for earlier in [t for t, call in calls.items() if call.member == member]:
                    del calls[earlier]  # given up by the member, which takes part in one collective at a time
                    yield Answer(earlier)
                calls[ticket] = request
                yield from self._complete(member.group)

    def withdraw(self, ticket: CallId) -> Iterable[Answer]:
        """Forget a waiting call."""
        for mailbox in self._mailboxes.values():
            mailbox.waiting.pop(ticket, None)
        for calls in self._collectives.values():
            calls.pop(ticket, None)
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        """Put a message back into its place."""
        message: MailboxMessage = answer.value
        mailbox = self._mailboxes[message.mailbox]
        # Keep the order of arrival: messages of one sender must not overtake each other.
        mailbox.messages = dict(sorted({**mailbox.messages, message.arrival: message}.items()))
        return self._deliver(message.mailbox)

    def gone(self, caller: str) -> Iterator[Answer]:
        """Fail the calls that wait for a member that has died."""
        for member in self._members.pop(caller, ()):
            self._lost.add(member)
            for other in [m for m in self._mailboxes if m.group == member.group]:
                yield from self._deliver(other)
            yield from self._complete(member.group)

    def describe(self, request: Any) -> str:
        """Return a text such as ``recv from 2 tag 5`` or ``barrier with 0, 3``."""
        match request:
            case Take(_, source, tag, leaves):
                sender = "any rank" if source is None else source
                return f"{'probe' if leaves else 'recv'} from {sender}" + ("" if tag is None else f" tag {tag}")
            case Collective(member, size, what):
                here = {call.member.rank for call in self._collectives[member.group].values()}
                return f"{what} with {', '.join(str(rank) for rank in range(size) if rank not in here)}"
        return "an answer"

    def _find(self, take: Take) -> int | None:
        for arrival, message in self._mailboxes[take.member].messages.items():
            if take.source in (None, message.source) and take.tag in (None, message.tag):
                return arrival
        return None

    def _taken(self, ticket: CallId, take: Take, arrival: int) -> Answer:
        messages = self._mailboxes[take.member].messages
        return Answer(ticket, messages[arrival]) if take.leaves else Answer(ticket, messages.pop(arrival), takes=True)

    def _deliver(self, member: MailboxMember) -> Iterator[Answer]:
        """Answer calls that wait for messages in the mailbox, in the order of the calls."""
        waiting = self._mailboxes[member].waiting
        for ticket, take in list(waiting.items()):
            found = self._find(take)
            if found is not None:
                del waiting[ticket]
                yield self._taken(ticket, take, found)
            # Fail the call only if no message of the lost member is left: messages that it sent are delivered first.
            elif take.source is not None and MailboxMember(member.group, take.source) in self._lost:
                del waiting[ticket]
                yield Answer(ticket, error=MemberLost(take.source, self.describe(take)))

    def _complete(self, group: str) -> Iterator[Answer]:
        """Complete a collective if all members have called it, or fail it if a member has died."""
        calls = self._collectives[group]
        if not calls:
            return
        by_rank = sorted(calls.values(), key=lambda call: call.member.rank)
        whats = {call.member.rank: call.what for call in by_rank}
        newest = max(call.round for call in by_rank)
        if outdated := {ticket: call for ticket, call in calls.items() if call.round < newest}:
            for ticket, call in outdated.items():
                del calls[ticket]
                yield Answer(ticket, error=MeetingFailed(call.what, whats))
            by_rank = [call for call in by_rank if call.round == newest]
        lost = sorted(member.rank for member in self._lost if member.group == group)
        agreed = len({call.what for call in by_rank}) == 1
        if not lost and len(by_rank) < by_rank[0].size:
            return
        self._collectives[group] = {}
        for ticket, call in calls.items():
            rank = call.member.rank
            if lost:
                yield Answer(ticket, error=MemberLost(lost[0], call.what, collective=True))
            elif not agreed:
                yield Answer(ticket, error=MeetingFailed(call.what, whats))
            else:
                yield Answer(ticket, [c.parcels.get(rank, c.parcels.get(EVERYONE)) for c in by_rank])
