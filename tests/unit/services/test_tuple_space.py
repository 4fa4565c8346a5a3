"""Who waits for which tuple, and who gets it."""

from __future__ import annotations

import itertools
from collections import Counter as Bag
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nsactors.errors import ServiceClosed
from nsactors.services.state_machine import Answer, CallId, ServiceInbox
from nsactors.services.tuple_index import header_of, matches, template_of
from nsactors.services.tuple_space import Ask, Begin, Collect, Count, Finish, Forget, Item, Out, Request, TupleSpaces


class Callers:
    """Callers of the machine, as a host would let them in; what they are answered is kept."""

    def __init__(self) -> None:
        self.desk = ServiceInbox(TupleSpaces())
        self.answers: dict[CallId, Answer] = {}
        self._last: Bag[str] = Bag()

    def call(self, caller: str, request: Request) -> CallId:
        before = self._last[caller]
        self._last[caller] += 1
        ticket = CallId(caller, before + 1)
        self.hear(self.desk.call(ticket, before, request, 0.0))
        return ticket

    def hear(self, answers: list[Answer]) -> list[Answer]:
        self.answers.update((answer.ticket, answer) for answer in answers)
        return answers

    def out(self, *fields: Any, space: str = "s", caller: str = "putter") -> None:
        self.call(caller, Out(space, Item(header_of(fields))))

    def ask(self, caller: str, *fields: Any, takes: bool = True, waits: bool = True, space: str = "s") -> CallId:
        return self.call(caller, Ask(space, template_of(fields), takes, waits))

    def got(self, ticket: CallId) -> Any:
        """Return the answer to a call: a tuple, None, or ``"nothing yet"``."""
        if ticket not in self.answers:
            return "nothing yet"
        value = self.answers[ticket].value
        return value if value is None else value[1].header

    def count(self, space: str = "s") -> tuple[int, int]:
        answer: tuple[int, int] = self.answers[self.call("counter", Count(space))].value
        return answer


@pytest.fixture
def callers() -> Callers:
    return Callers()


def test_a_tuple_is_taken_once(callers: Callers) -> None:
    callers.out("job", 1)
    first, second = callers.ask("a", "job", int), callers.ask("b", "job", int)
    assert (callers.got(first), callers.got(second)) == (("job", 1), "nothing yet")


def test_a_tuple_that_is_read_stays(callers: Callers) -> None:
    callers.out("job", 1)
    assert [callers.got(callers.ask(name, "job", int, takes=False)) for name in "ab"] == [("job", 1)] * 2
    assert callers.count() == (1, 0)


def test_the_oldest_tuple_comes_first(callers: Callers) -> None:
    for number in (3, 1, 2):
        callers.out("job", number)
    assert [callers.got(callers.ask("a", "job", int)) for _ in range(3)] == [("job", 3), ("job", 1), ("job", 2)]


def test_one_tuple_wakes_the_first_taker_and_no_other(callers: Callers) -> None:
    waiting = [callers.ask(name, "job", int) for name in "abc"]
    for number in (1, 2):
        callers.out("job", number)
    assert list(map(callers.got, waiting)) == [("job", 1), ("job", 2), "nothing yet"]


def test_one_tuple_wakes_all_readers_and_then_a_taker(callers: Callers) -> None:
    taker = callers.ask("taker", "job", int)
    readers = [callers.ask(name, "job", int, takes=False) for name in "ab"]
    callers.out("job", 1)
    assert list(map(callers.got, [taker, *readers])) == [("job", 1)] * 3
    assert callers.count() == (0, 0)


def test_a_taker_is_passed_over_by_tuples_it_does_not_want(callers: Callers) -> None:
    seven, other = callers.ask("a", "job", 7), callers.ask("b", "job", int)
    callers.out("job", 1)
    assert (callers.got(seven), callers.got(other)) == ("nothing yet", ("job", 1))
    callers.out("job", 7)
    assert callers.got(seven) == ("job", 7)


def test_who_does_not_want_to_wait_is_told_that_there_is_none(callers: Callers) -> None:
    assert callers.got(callers.ask("a", "job", int, waits=False)) is None
    assert callers.count() == (0, 0)


def test_who_waits_no_more_is_given_nothing(callers: Callers) -> None:
    ticket = callers.ask("a", "job", int)
    callers.hear(callers.desk.withdraw(ticket))
    callers.out("job", 1)
    assert callers.count() == (1, 0)


def test_what_a_dead_taker_was_given_goes_to_the_next(callers: Callers) -> None:
    callers.out("job", 1)
    callers.ask("dead", "job", int)
    waits = callers.ask("next", "job", int)
    callers.hear(callers.desk.leave("dead", died=True))
    assert callers.got(waits) == ("job", 1)


def test_what_a_dead_taker_had_waited_for_goes_to_the_next(callers: Callers) -> None:
    callers.ask("dead", "job", int)
    waits = callers.ask("next", "job", int)
    callers.out("job", 1)
    assert callers.got(waits) == "nothing yet"
    callers.hear(callers.desk.leave("dead", died=True))
    assert callers.got(waits) == ("job", 1)


def test_what_a_taker_has_received_does_not_come_back(callers: Callers) -> None:
    callers.out("job", 1)
    callers.desk.acknowledge(callers.ask("a", "job", int))
    callers.hear(callers.desk.leave("a", died=True))
    assert callers.count() == (0, 0)


def test_spaces_know_nothing_of_one_another(callers: Callers) -> None:
    callers.out("job", 1, space="t")
    assert callers.got(callers.ask("a", "job", int)) == "nothing yet"
    assert (callers.count("s"), callers.count("t")) == ((0, 1), (1, 0))


def test_collecting_moves_what_matches_and_wakes_who_waits_there(callers: Callers) -> None:
    for number in range(3):
        callers.out("job", number)
    callers.out("other", 0)
    waits = callers.ask("a", "job", 1, space="t")
    moved = callers.call("b", Collect("s", "t", template_of(("job", int)), copies=False))
    assert (callers.answers[moved].value, callers.got(waits)) == (3, ("job", 1))
    assert (callers.count("s"), callers.count("t")) == ((1, 0), (2, 0))


def test_copies_leave_the_tuples_where_they_are(callers: Callers) -> None:
    callers.out("job", 1)
    callers.call("a", Collect("s", "t", template_of(("job", int)), copies=True))
    assert (callers.count("s"), callers.count("t")) == ((1, 0), (1, 0))


def test_a_live_tuple_turns_into_one_tuple_however_often_it_is_computed(callers: Callers) -> None:
    callers.call("a", Begin("s", "live"))
    for caller in "bc":
        callers.call(caller, Finish("live", Item(("square", 9))))
    assert callers.count() == (1, 0)


def test_a_live_tuple_that_cannot_be_computed_leaves_nothing(callers: Callers) -> None:
    callers.call("a", Begin("s", "live"))
    for result in (None, Item(("square", 9))):
        callers.call("b", Finish("live", result))
    assert callers.count() == (0, 0)


def test_who_waits_in_a_space_that_is_closed_is_told_so(callers: Callers) -> None:
    callers.out("x")
    waits, elsewhere = callers.ask("a", "job"), callers.ask("b", "job", space="t")
    callers.call("c", Forget("s"))
    assert isinstance(callers.answers[waits].error, ServiceClosed)
    assert callers.got(elsewhere) == "nothing yet"
    assert callers.count() == (0, 0)


def test_it_is_told_in_words_what_somebody_waits_for(callers: Callers) -> None:
    callers.ask("a", "job", 7, int | None)
    callers.ask("b", object, takes=False)
    assert [waiting.what for waiting in callers.desk.waiting()] == [
        "in_('job', 7, None | int) of 's'",
        "rd(object) of 's'",
    ]


# Few kinds of tuples and many templates that match them, so that the tests find out who gets which tuple.
tuples = st.tuples(st.just("job"), st.sampled_from([0, 1, "a"]))
templates = st.tuples(st.sampled_from(["job", str]), st.sampled_from([0, 1, int, str, object]))
names = st.sampled_from(["s", "s", "s", "t"])


class Agendas(RuleBasedStateMachine):
    """Takers that come, go and die at random, beside a model that looks at everything.

    The model: a bag of all tuples that have been put, one of those that takers have received, what was given to takers
    and may still be lost on its way, and who waits, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.callers = Callers()
        self.names = map(str, itertools.count())
        self.put: Bag[Any] = Bag()
        self.received: Bag[Any] = Bag()
        self.given: dict[CallId, tuple[str, Any]] = {}
        self.waiting: dict[CallId, Ask] = {}

    @rule(space=names, fields=tuples)
    def put_one(self, space: str, fields: tuple[Any, ...]) -> None:
        wanted = [ticket for ticket, ask in self.waiting.items() if self.is_wanted(ask, space, fields)]
        readers = [ticket for ticket in wanted if not self.waiting[ticket].takes]
        takers = [ticket for ticket in wanted if self.waiting[ticket].takes]
        self.put[space, fields] += 1
        self.callers.out(*fields, space=space)
        assert self.served() == {*readers, *takers[:1]}

    @rule(space=names, wanted=templates, takes=st.booleans(), waits=st.booleans())
    def ask_for_one(self, space: str, wanted: tuple[Any, ...], takes: bool, waits: bool) -> None:
        ask = Ask(space, template_of(wanted), takes, waits)
        there = any(self.is_wanted(ask, *one) for one in +self.there())
        ticket = self.callers.call(next(self.names), ask)
        self.waiting[ticket] = ask
        assert self.served() == ({ticket} if there or not waits else set())
        assert (self.callers.got(ticket) in (None, "nothing yet")) == (not there)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.given)))
        self.callers.desk.acknowledge(ticket)
        self.received[self.given.pop(ticket)] += 1

    @precondition(lambda self: self.given or self.waiting)
    @rule(data=st.data(), dies=st.booleans())
    def give_up(self, data: st.DataObject, dies: bool) -> None:
        ticket = data.draw(st.sampled_from([*self.given, *self.waiting]))
        self.given.pop(ticket, None)
        self.waiting.pop(ticket, None)
        desk = self.callers.desk
        self.callers.hear(desk.leave(ticket.caller, died=True) if dies else desk.withdraw(ticket))
        self.served()

    @rule(wanted=templates, copies=st.booleans())
    def collect(self, wanted: tuple[Any, ...], copies: bool) -> None:
        template = template_of(wanted)
        found = {h: n for (space, h), n in (+self.there()).items() if space == "s" and matches(template, h)}
        ticket = self.callers.call("collector", Collect("s", "t", template, copies))
        assert self.callers.answers[ticket].value == sum(found.values())
        for header, n in found.items():
            self.put["t", header] += n
            self.put["s", header] -= 0 if copies else n
        self.served()

    @invariant()
    def as_many_were_put_as_were_taken_and_are_there(self) -> None:
        there = self.there()
        for space in ("s", "t"):
            tuples, waiting = self.callers.count(space)
            assert tuples == sum(n for (name, _), n in there.items() if name == space)
            assert waiting == sum(ask.space == space for ask in self.waiting.values())
        assert min(there.values(), default=0) >= 0

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        assert not [one for ask in self.waiting.values() for one in +self.there() if self.is_wanted(ask, *one)]

    def served(self) -> set[CallId]:
        """Those who wait no more, after what they were given has been checked."""
        done = {ticket for ticket in self.waiting if ticket in self.callers.answers}
        for ticket in done:
            ask, given = self.waiting.pop(ticket), self.callers.got(ticket)
            if given is not None:
                assert self.is_wanted(ask, ask.space, given)
                if ask.takes:
                    self.given[ticket] = ask.space, given
        return done

    def there(self) -> Bag[Any]:
        """The tuples that should be in the spaces now."""
        there = Bag(self.put)
        there.subtract(self.received)
        there.subtract(self.given.values())
        return there

    @staticmethod
    def is_wanted(ask: Ask, space: str, fields: Any) -> bool:
        return ask.space == space and matches(ask.template, header_of(fields))


Agendas.TestCase.settings = settings(stateful_step_count=30, deadline=None)
TestAgendas = Agendas.TestCase
