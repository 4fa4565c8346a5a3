"""Mailboxes and meetings: a machine for messages between numbered members, and for what they do together.

A *mailbox* belongs to a member: others put letters into it, and it takes those that match a pattern, in the order in
which they came. At a *meeting* every member hands in something for the others, and when all have done so each goes
home with what was meant for it: a barrier, a broadcast, an exchange of everything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nsactors.core.machine import Answer, Machine, Ticket
from nsactors.errors import MeetingFailed, MemberLost

__all__ = ["EVERYONE", "Letter", "Mailboxes", "Meet", "Member", "Put", "Take"]

EVERYONE = -1


class Member(NamedTuple):
    """Who sends and receives.

    Attributes:
        group: which members meet each other; one machine can serve several groups.
        rank: a number from 0, unique in the group.
    """

    group: str
    rank: int


class Letter(NamedTuple):
    """What lies in a mailbox.

    Attributes:
        source: the rank of its sender.
        tag: a number.
        parcel: the contents.
        arrival: letters are numbered as they arrive.
        mailbox: whose it is in.
    """

    source: int
    tag: int
    parcel: Any
    arrival: int
    mailbox: Member


class Put(NamedTuple):
    """Put a letter into the mailbox of ``to``; answered at once."""

    sender: Member
    to: int
    tag: int
    parcel: Any


class Take(NamedTuple):
    """Take the first letter that matches.

    Attributes:
        member: whose mailbox it is.
        source: the rank of the sender; None: anybody.
        tag: None: any.
        leaves: leave it in the mailbox.
        waits: wait for one; otherwise the answer is None if there is none.
    """

    member: Member
    source: int | None
    tag: int | None
    leaves: bool = False
    waits: bool = True


class Meet(NamedTuple):
    """Hand in parcels and wait for those of the others; the answer is a list by rank, None where there is none.

    Attributes:
        member: who comes.
        size: how many there are in the group.
        what: for; all members must say the same.
        parcels: by the rank that they are for, or ``EVERYONE``.
    """

    member: Member
    size: int
    what: str
    parcels: Mapping[int, Any]


@dataclass(slots=True)
class _Mailbox:
    """Letters by the number of their arrival, and who waits for one, in the order in which they began to."""

    letters: dict[int, Letter] = field(default_factory=dict)
    waiting: dict[Ticket, Take] = field(default_factory=dict)


class Mailboxes(Machine):
    """Carries letters between members, and lets them meet. Letters of one sender with one tag do not overtake."""

    def __init__(self) -> None:
        self._mailboxes: defaultdict[Member, _Mailbox] = defaultdict(_Mailbox)
        self._meetings: defaultdict[str, dict[Ticket, Meet]] = defaultdict(dict)
        self._members: defaultdict[str, set[Member]] = defaultdict(set)  # by party
        self._lost: set[Member] = set()
        self._arrivals = 0

    def handle(self, ticket: Ticket, request: Any) -> Iterator[Answer]:
        """Carry out a :class:`Put`, :class:`Take` or :class:`Meet`."""
        member = request[0]
        self._members[ticket.party].add(member)
        self._lost.discard(member)  # whoever takes the place of one that has died begins anew
        match request:
            case Put(sender, to, tag, parcel):
                yield Answer(ticket)
                self._arrivals += 1
                receiver = Member(sender.group, to)
                letter = Letter(sender.rank, tag, parcel, self._arrivals, receiver)
                self._mailboxes[receiver].letters[letter.arrival] = letter
                yield from self._serve(receiver)
            case Take(waits=False):
                found = self._find(request)
                yield Answer(ticket) if found is None else self._hand_over(ticket, request, found)
            case Take():
                self._mailboxes[member].waiting[ticket] = request
                yield from self._serve(member)
            case Meet():
                meeting = self._meetings[member.group]
                for earlier in [t for t, meet in meeting.items() if meet.member == member]:
                    del meeting[earlier]  # nobody comes twice: it has given that one up
                    yield Answer(earlier)
                meeting[ticket] = request
                yield from self._hold(member.group)

    def withdraw(self, ticket: Ticket) -> Iterable[Answer]:
        """Forget a member that waits."""
        for mailbox in self._mailboxes.values():
            mailbox.waiting.pop(ticket, None)
        for meeting in self._meetings.values():
            meeting.pop(ticket, None)
        return ()

    def give_back(self, answer: Answer) -> Iterable[Answer]:
        """Put a letter back where it was."""
        letter: Letter = answer.value
        mailbox = self._mailboxes[letter.mailbox]
        mailbox.letters = dict(sorted({**mailbox.letters, letter.arrival: letter}.items()))
        return self._serve(letter.mailbox)

    def gone(self, party: str) -> Iterator[Answer]:
        """Tell those who wait for a member that has died."""
        for member in self._members.pop(party, ()):
            self._lost.add(member)
            for other in [m for m in self._mailboxes if m.group == member.group]:
                yield from self._serve(other)
            yield from self._hold(member.group)

    def describe(self, request: Any) -> str:
        """Such as ``recv from 2 tag 5`` or ``barrier with 0, 3``."""
        match request:
            case Take(_, source, tag, leaves):
                sender = "anybody" if source is None else source
                return f"{'probe' if leaves else 'recv'} from {sender}" + ("" if tag is None else f" tag {tag}")
            case Meet(member, size, what):
                here = {meet.member.rank for meet in self._meetings[member.group].values()}
                return f"{what} with {', '.join(str(rank) for rank in range(size) if rank not in here)}"
        return "an answer"

    def _find(self, take: Take) -> int | None:
        for arrival, letter in self._mailboxes[take.member].letters.items():
            if take.source in (None, letter.source) and take.tag in (None, letter.tag):
                return arrival
        return None

    def _hand_over(self, ticket: Ticket, take: Take, arrival: int) -> Answer:
        letters = self._mailboxes[take.member].letters
        return Answer(ticket, letters[arrival]) if take.leaves else Answer(ticket, letters.pop(arrival), takes=True)

    def _serve(self, member: Member) -> Iterator[Answer]:
        """Give letters to those who wait for them, first come first served."""
        waiting = self._mailboxes[member].waiting
        for ticket, take in list(waiting.items()):
            found = self._find(take)
            if found is not None:
                del waiting[ticket]
                yield self._hand_over(ticket, take, found)
            elif take.source is not None and Member(member.group, take.source) in self._lost:
                del waiting[ticket]
                yield Answer(ticket, error=MemberLost(take.source, self.describe(take)))

    def _hold(self, group: str) -> Iterator[Answer]:
        """Let a meeting end, if everybody is here or will never be."""
        meeting = self._meetings[group]
        if not meeting:
            return
        meets = sorted(meeting.values(), key=lambda meet: meet.member.rank)
        lost = sorted(member.rank for member in self._lost if member.group == group)
        agreed = len({meet.what for meet in meets}) == 1
        if not lost and len(meets) < meets[0].size:
            return
        self._meetings[group] = {}
        for ticket, meet in meeting.items():
            rank = meet.member.rank
            if lost:
                yield Answer(ticket, error=MemberLost(lost[0], meet.what))
            elif not agreed:
                yield Answer(ticket, error=MeetingFailed(meet.what, {m.member.rank: m.what for m in meets}))
            else:
                yield Answer(ticket, [m.parcels.get(rank, m.parcels.get(EVERYONE)) for m in meets])
