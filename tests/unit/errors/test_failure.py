"""Describing, as a value, what went wrong."""

import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import Failure
from nsactors.errors.failure import FailedAt, set_item, take_item
from tests.unit.errors.raising import capture, describe


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


def test_a_failure_is_equal_after_a_pickle_round_trip() -> None:
    failure = capture("def f(x):\n    return 1 / x\nf(0)", engine_id=3)
    assert pickle.loads(pickle.dumps(failure)) == failure


def test_the_frames_start_at_the_users_code() -> None:
    failure = capture("def f(x):\n    return 1 / x\nf(0)")
    assert [(f.filename, f.lineno, f.name, f.line) for f in failure.frames] == [
        ("<cell 1>", 3, "<module>", "f(0)"),
        ("<cell 1>", 2, "f", "return 1 / x"),
    ]


def test_all_frames_are_kept_if_none_is_the_users() -> None:
    try:
        describe_me = int("x")
    except ValueError as exc:
        failure = Failure.capture(exc, engine_id=0, call="execute", is_user_frame=lambda frame: False)
        assert [frame.line for frame in failure.frames] == ['describe_me = int("x")']
    else:
        pytest.fail(str(describe_me))


def test_columns_count_characters_in_a_line_that_is_not_ascii() -> None:
    frame = capture("é = 'ü'; x = é + 1 / 0").frames[-1]
    assert (frame.col, frame.end_col) == (17, 22)


def test_the_failing_line_stands_among_its_neighbours() -> None:
    frame = capture("a = 1\n\nb = 2\n1 / 0\nc = 3\n").frames[-1]
    assert frame.context == ((1, "a = 1"), (2, ""), (3, "b = 2"), (4, "1 / 0"), (5, "c = 3"))


def test_locals_are_short_and_survive_a_broken_repr() -> None:
    source = "def f():\n    big = [0] * 10**6\n    odd = broken\n    1 / 0\nf()"
    names = dict(capture(source, broken=BrokenStr()).frames[-1].locals)
    assert len(names["big"]) <= 100
    assert names["odd"].startswith("<BrokenStr instance")


def test_the_namespace_itself_is_not_sent_as_locals() -> None:
    assert capture("x = 1\n1 / 0").frames[-1].locals == ()


def test_where_is_the_users_line_even_if_a_library_failed() -> None:
    failure = capture("import json\njson.loads('{')")
    assert failure.where == "<cell 1>, line 2: json.loads('{')"
    assert failure.frames[-1].filename.endswith("decoder.py")


def test_a_deep_recursion_keeps_both_ends_and_says_how_much_is_missing() -> None:
    frames = capture("def f(n):\n    return f(n + 1)\nf(0)").frames
    gaps = [frame.omitted for frame in frames if frame.omitted]
    assert len(frames) == 41
    assert len(gaps) == 1
    assert gaps[0] > 500


@pytest.mark.parametrize("source", ["a = 1\nif a\n    b", "if 1:\nx = 1", "f(]"])
def test_a_syntax_error_points_into_the_source_and_not_at_the_compiler(source: str) -> None:
    failure = capture(source)
    (frame,) = failure.frames
    assert frame.filename == "<cell 1>"
    assert frame.line == source.splitlines()[frame.lineno - 1].strip()
    assert frame.col is not None


def test_a_syntax_error_in_nested_code_shows_both_places() -> None:
    failure = capture("exec('1 +')")
    assert [(frame.filename, frame.line) for frame in failure.frames] == [
        ("<cell 1>", "exec('1 +')"),
        ("<string>", "1 +"),
    ]


def test_a_syntax_error_made_by_hand_has_no_place() -> None:
    assert capture("raise SyntaxError('by hand')").frames[-1].line == "raise SyntaxError('by hand')"


def test_a_broken_str_does_not_break_the_report() -> None:
    assert describe(BrokenStr()).message == "<BrokenStr whose __str__ raised RuntimeError>"


def test_a_huge_message_is_cut_and_says_so() -> None:
    message = describe(ValueError("x" * 10_000_000)).message
    assert len(message) < 101_000
    assert message.endswith("(9900000 more characters)")


def test_notes_that_are_no_strings_become_strings() -> None:
    exc = ValueError()
    exc.__notes__ = ["first", 2]  # type: ignore[list-item]
    assert describe(exc).notes == ("first", "2")


def test_notes_that_are_no_list_are_left_out() -> None:
    exc = ValueError()
    exc.__notes__ = 3  # type: ignore[assignment]
    assert describe(exc).notes == ()


def test_a_note_that_cannot_be_pickled_does_not_cost_the_exception() -> None:
    exc = ValueError()
    exc.__notes__ = [threading.Lock()]  # type: ignore[list-item]
    assert describe(exc).pickled is not None


def test_an_explicit_cause_is_kept_once() -> None:
    failure = capture("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('v') from e")
    assert failure.cause is not None
    assert failure.cause.type_name == "ZeroDivisionError"
    assert failure.context is None


def test_a_suppressed_context_is_kept_and_marked() -> None:
    failure = capture("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('v') from None")
    assert failure.context is not None
    assert failure.suppress_context


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    failure = describe(first)
    assert failure.cause is not None
    assert failure.cause.message == "second"
    assert failure.cause.cause is None


@given(st.integers(min_value=0, max_value=2_000))
def test_a_chain_of_any_length_is_bounded_and_can_be_pickled(length: int) -> None:
    newest: BaseException = ValueError("oldest")
    for number in range(length):
        link = ValueError(number)
        link.__context__ = newest
        newest = link
    failure: Failure | None = Failure.capture(newest, engine_id=0, call="execute")
    pickle.dumps(failure)
    links = 0
    while failure is not None:
        links, failure = links + 1, failure.context
    assert links == min(length + 1, 21)


def test_a_group_of_thousands_is_bounded() -> None:
    failure = describe(ExceptionGroup("many", [ValueError(n) for n in range(5_000)]))
    assert 100 <= len(failure.members) <= 200


def test_members_of_nested_groups_are_described() -> None:
    failure = describe(ExceptionGroup("outer", [ValueError(1), ExceptionGroup("inner", [KeyError("k")])]))
    assert [member.type_name for member in failure.members] == ["ValueError", "ExceptionGroup"]
    assert failure.members[1].members[0].summary == "KeyError: 'k'"


def test_an_exception_that_holds_a_lock_leaves_the_lock_behind() -> None:
    failure = describe(ValueError("held", threading.Lock()))
    assert failure.notes == ("args[1] (lock) was left out: cannot pickle '_thread.lock' object",)
    assert failure.pickled is not None
    assert pickle.loads(failure.pickled).args[0] == "held"


@pytest.mark.parametrize(
    "exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(1), StopAsyncIteration()]
)
def test_control_flow_is_recognised(exc: BaseException) -> None:
    assert describe(exc).control_flow


def test_an_ordinary_exception_is_no_control_flow() -> None:
    assert not describe(ValueError()).control_flow


def failure_of(item: FailedAt | None) -> Failure:
    return Failure.capture(ValueError("bad"), engine_id=1, call="map(f)", item=item)


def test_the_item_of_a_map_is_described() -> None:
    assert failure_of((17, (42,))).item == (17, "42")
    assert failure_of((17, (1, "a"))).item == (17, "(1, 'a')")
    assert failure_of((17, ())).item == (17, "")
    assert failure_of(None).item is None


@pytest.mark.parametrize("value", ["x" * 1000, "a\nb\x1b[31m", list(range(10_000))])
def test_an_item_is_one_short_line(value: object) -> None:
    found = failure_of((0, (value,))).item
    assert found is not None
    assert len(found.text) <= 100
    assert found.text.isprintable()


def test_an_item_that_cannot_be_shown_is_named_all_the_same() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise SystemExit

    found = failure_of((3, (Bad(),))).item
    assert found is not None
    assert (found.number, "whose __repr__ raised SystemExit" in found.text) == (3, True)


def test_failures_that_differ_only_in_their_items_are_equal() -> None:
    assert failure_of((1, ())) == failure_of((2, ()))


def test_the_note_of_an_item_is_taken_from_its_error_once() -> None:
    error = ValueError("bad")
    set_item(error, (3, ("x",)))
    assert (take_item(error), take_item(error)) == ((3, ("x",)), None)
    assert vars(error) == {}
