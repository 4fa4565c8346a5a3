"""Mailboxes and meetings, by value."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import MeetingFailed, MemberLost
from nsactors.services.mailboxes import EVERYONE, Collective, Mailboxes, MailboxMember, Put, Take
from nsactors.services.state_machine import Answer, CallId, ServiceInbox


class Group:
    """Members 0, 1, 2 ... that meet at a desk."""

    def __init__(self) -> None:
        self.desk = ServiceInbox(Mailboxes())
        self.calls: defaultdict[int, int] = defaultdict(int)
        self.answers: dict[CallId, Answer] = {}

    def ask(self, rank: int, request: Any) -> CallId:
        self.calls[rank] += 1
        ticket = CallId(f"engine {rank}/x", self.calls[rank])
        self._note(self.desk.call(ticket, 0, request, now=0.0))
        return ticket

    def put(self, rank: int, to: int, tag: int, parcel: Any) -> None:
        self.answers.pop(self.ask(rank, Put(MailboxMember("g", rank), to, tag, parcel)))

    def take(self, rank: int, source: int | None = None, tag: int | None = None, **how: bool) -> CallId:
        return self.ask(rank, Take(MailboxMember("g", rank), source, tag, **how))

    def meet(
        self, rank: int, size: int, what: str = "barrier", parcels: dict[int, Any] | None = None, round: int = 0
    ) -> CallId:
        return self.ask(rank, Collective(MailboxMember("g", rank), size, what, parcels or {}, round))

    def withdraw(self, ticket: CallId) -> None:
        self._note(self.desk.withdraw(ticket))

    def die(self, rank: int) -> None:
        self._note(self.desk.leave(f"engine {rank}/x", died=True))

    def got(self, ticket: CallId) -> Any:
        value = self.answers[ticket].value
        return None if value is None else value.parcel

    def error(self, ticket: CallId) -> Exception | None:
        return self.answers[ticket].error

    def _note(self, answers: list[Answer]) -> None:
        self.answers.update({answer.ticket: answer for answer in answers})


@pytest.fixture
def group() -> Group:
    return Group()


def test_a_letter_waits_for_who_takes_it(group: Group) -> None:
    group.put(0, to=1, tag=5, parcel="hello")
    assert group.got(group.take(1, source=0, tag=5)) == "hello"


def test_who_takes_waits_for_a_letter_that_matches(group: Group) -> None:
    taker = group.take(1, source=0, tag=5)
    group.put(0, to=1, tag=4, parcel="another tag")
    group.put(2, to=1, tag=5, parcel="another sender")
    group.put(0, to=2, tag=5, parcel="another receiver")
    assert taker not in group.answers
    group.put(0, to=1, tag=5, parcel="hello")
    assert group.got(taker) == "hello"


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=20), st.data())
def test_letters_of_one_sender_with_one_tag_do_not_overtake(sent: list[tuple[int, int]], data: st.DataObject) -> None:
    group = Group()
    left = [(source, tag, number) for number, (source, tag) in enumerate(sent)]
    for source, tag, number in left:
        group.put(source, to=9, tag=tag, parcel=number)
    while left:
        source = data.draw(st.sampled_from([None, 0, 1, 2]))
        tag = data.draw(st.sampled_from([None, 0, 1]))
        first = next((m for m in left if source in (None, m[0]) and tag in (None, m[1])), None)
        taken = group.got(group.take(9, source, tag, waits=False))
        assert taken == (None if first is None else first[2])
        if first is not None:
            left.remove(first)


def test_takers_are_served_in_the_order_in_which_they_came(group: Group) -> None:
    first, second = group.take(1), group.take(1)
    group.put(0, to=1, tag=0, parcel="a")
    group.put(0, to=1, tag=0, parcel="b")
    assert (group.got(first), group.got(second)) == ("a", "b")


def test_a_letter_that_is_looked_at_stays(group: Group) -> None:
    assert group.got(group.take(1, leaves=True, waits=False)) is None
    looker = group.take(1, leaves=True)
    group.put(0, to=1, tag=0, parcel="a")
    assert group.got(looker) == "a"
    assert group.got(group.take(1)) == "a"


def test_a_letter_that_was_not_received_is_back_in_its_place(group: Group) -> None:
    for number in range(3):
        group.put(0, to=1, tag=0, parcel=number)
    first, second = group.take(1), group.take(1)
    group.withdraw(second)
    group.withdraw(first)
    assert [group.got(group.take(1)) for _ in range(3)] == [0, 1, 2]


def test_at_a_meeting_each_gets_what_is_meant_for_it(group: Group) -> None:
    first = group.meet(0, 2, "alltoall", {0: "0 to 0", 1: "0 to 1"})
    assert first not in group.answers
    second = group.meet(1, 2, "alltoall", {0: "1 to 0", 1: "1 to 1"})
    assert group.answers[first].value == ["0 to 0", "1 to 0"]
    assert group.answers[second].value == ["0 to 1", "1 to 1"]


def test_what_is_meant_for_everyone_goes_to_everyone(group: Group) -> None:
    group.meet(0, 2, "bcast", {EVERYONE: "news"})
    second = group.meet(1, 2, "bcast")
    assert group.answers[second].value == ["news", None]


def test_meetings_follow_each_other(group: Group) -> None:
    for _ in range(3):
        first, second = group.meet(0, 2), group.meet(1, 2)
        assert group.answers[first].error is group.answers[second].error is None


def test_members_that_do_different_things_together_are_all_told_so(group: Group) -> None:
    first, second, third = group.meet(0, 3, "barrier"), group.meet(1, 3, "bcast from 0"), group.meet(2, 3, "barrier")
    for ticket in (first, second, third):
        error = group.error(ticket)
        assert isinstance(error, MeetingFailed)
        assert "ranks 0, 2: barrier; rank 1: bcast from 0" in str(error)


def test_a_call_that_an_earlier_round_left_behind_is_not_part_of_a_later_one(group: Group) -> None:
    left = group.meet(0, 3, "failed", round=1)
    first, second = group.meet(1, 3, round=2), group.meet(2, 3, round=2)
    assert isinstance(group.error(left), MeetingFailed)
    late = group.meet(0, 3, round=1)
    assert isinstance(group.error(late), MeetingFailed)
    assert not {first, second} & group.answers.keys()
    third = group.meet(0, 3, round=2)
    assert [group.error(ticket) for ticket in (first, second, third)] == [None] * 3


def test_a_member_that_gave_a_meeting_up_comes_to_the_next_one_once(group: Group) -> None:
    given_up = group.meet(0, 2)
    again = group.meet(0, 2)
    assert given_up in group.answers
    assert again not in group.answers
    group.meet(1, 2)
    assert group.answers[again].error is None


def test_an_interrupted_member_is_missed_until_it_comes_again(group: Group) -> None:
    group.withdraw(group.meet(0, 2))
    second = group.meet(1, 2)
    assert second not in group.answers
    group.meet(0, 2)
    assert group.answers[second].error is None


def test_who_waits_for_a_member_that_dies_is_told(group: Group) -> None:
    group.put(2, to=0, tag=0, parcel="alive")
    from_it, from_anybody, together = group.take(0, source=2, tag=7), group.take(0, tag=8), group.meet(1, 3)
    group.die(2)
    received, met = group.error(from_it), group.error(together)
    assert isinstance(received, MemberLost)
    assert isinstance(met, MemberLost)
    assert str(received).startswith("recv from 2 tag 7: rank 2 has died, and will send nothing more. Repeat it when")
    assert ": rank 2 has died, and this operation needs every rank. Repeat it when" in str(met)
    assert from_anybody not in group.answers
    assert group.got(group.take(0, source=2)) == "alive"
    assert isinstance(group.error(group.take(0, source=2)), MemberLost)


def test_whoever_takes_the_place_of_one_that_died_is_a_member_again(group: Group) -> None:
    group.put(2, to=0, tag=0, parcel="alive")
    group.die(2)
    assert group.got(group.take(0)) == "alive"
    group.put(2, to=0, tag=1, parcel="again")
    assert group.got(group.take(0, source=2)) == "again"
    waiting = group.take(0, source=2)
    assert waiting not in group.answers


def test_groups_at_one_desk_do_not_meet_each_other(group: Group) -> None:
    group.ask(0, Put(MailboxMember("other", 0), 1, 0, "elsewhere"))
    assert group.got(group.take(1, waits=False)) is None
    group.ask(5, Collective(MailboxMember("other", 0), 2, "barrier", {}))
    first = group.meet(1, 2)
    assert first not in group.answers


def test_what_a_member_waits_for_is_told_in_words(group: Group) -> None:
    group.take(0, source=2, tag=5)
    group.take(1)
    group.take(2, source=1, leaves=True)
    group.meet(3, 6, "barrier")
    group.meet(5, 6, "barrier")
    assert [waiting.what for waiting in group.desk.waiting()] == [
        "recv from 2 tag 5",
        "recv from any rank",
        "probe from 1",
        "barrier with 0, 1, 2, 4",
        "barrier with 0, 1, 2, 4",
    ]
