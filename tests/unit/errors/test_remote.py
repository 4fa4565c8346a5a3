"""The exception raised at a client: the user's own, and a RemoteError."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
import threading
import traceback
import types
from types import CodeType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.errors import (
    CompositeError,
    EngineLost,
    Failure,
    RemoteError,
    engine_ranges,
    group_failures,
    keyboard_interrupt,
)
from nsactors.errors.exception_state import LeftOut
from nsactors.protocol.serialize import pack_whole
from tests.unit.errors.raising import at_client, capture, describe, remote

CANONICAL = {
    ZeroDivisionError: "1 / 0",
    NameError: "undefined",
    IndexError: "[][1]",
    KeyError: "{}['k']",
    AssertionError: "assert 1 == 2, 'not equal'",
    ImportError: "from math import nothing",
    Exception: "raise Exception('plain')",
    SyntaxError: "if 1\n    pass",
    IndentationError: "if 1:\npass",
    RecursionError: "f = lambda: f()\nf()",
    OSError: "open('/no/such/file')",
    UnicodeDecodeError: "b'\\xff'.decode('utf-8')",
}


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Composing(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(f"failed: {name}")


class Slotted(Exception):
    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    size: int


class Untidy(Exception):
    """Has names of its own where RemoteError has some, and a hook for subclasses."""

    call = "mine"
    subclasses: list[type] = []  # noqa: RUF012

    def __init_subclass__(cls, *, required: int) -> None:
        Untidy.subclasses.append(cls)


class Sealed(type):
    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
        if any(isinstance(base, Sealed) for base in bases):
            raise RuntimeError("final")
        return super().__new__(cls, name, bases, body)


class Final(Exception, metaclass=Sealed):
    pass


class CustomOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)
        self.path = path


class SelfPickling(Exception):
    def __init__(self, left: int, right: int) -> None:
        super().__init__("both")
        self.left, self.right = left, right

    def __reduce__(self) -> tuple[type, tuple[int, int]]:
        return SelfPickling, (self.left, self.right)


class MyGroup(ExceptionGroup[Exception]):
    pass


@pytest.mark.parametrize("cls", CANONICAL, ids=lambda cls: cls.__name__)
def test_a_remote_failure_is_caught_by_its_own_class(cls: type[Exception]) -> None:
    with pytest.raises(cls) as caught:
        raise remote(CANONICAL[cls], engine_id=5)
    assert isinstance(caught.value, RemoteError)
    assert caught.value.engine_id == 5


@pytest.mark.parametrize("cls", CANONICAL, ids=lambda cls: cls.__name__)
def test_text_and_arguments_are_those_of_the_original(cls: type[Exception]) -> None:
    error = remote(CANONICAL[cls])
    if cls is Exception:
        assert str(error) == "Exception: plain"
        return
    assert str(error) == str(error.original)
    assert repr(error.args) == repr(error.original.args)  # type: ignore[union-attr]


@pytest.mark.parametrize("cls", CANONICAL, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize(
    "clone",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_a_remote_error_survives_being_cloned(cls: type[Exception], clone: object) -> None:
    error = remote(CANONICAL[cls])
    twin = clone(error)  # type: ignore[operator]
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.failure == error.failure
    assert twin.__notes__ == error.__notes__


@pytest.mark.parametrize(
    "exc",
    [KeywordOnly(code=3), Composing("x"), Slotted(4), Frozen(5), CustomOSError("/a"), SelfPickling(1, 2)],
    ids=lambda exc: type(exc).__name__,
)
def test_a_users_exception_arrives_as_itself(exc: Exception) -> None:
    with pytest.raises(type(exc)) as caught:
        raise at_client(describe(exc))
    assert str(caught.value) == str(exc)
    assert caught.value.args == exc.args
    assert type(caught.value.original) is type(exc)  # type: ignore[attr-defined]
    pickle.loads(pickle.dumps(caught.value))


def test_attributes_of_a_users_exception_arrive() -> None:
    assert at_client(describe(KeywordOnly(code=3))).code == 3  # type: ignore[attr-defined]
    assert at_client(describe(Slotted(4))).size == 4  # type: ignore[attr-defined]
    assert at_client(describe(Frozen(5))).size == 5  # type: ignore[attr-defined]
    assert at_client(describe(SelfPickling(1, 2))).right == 2  # type: ignore[attr-defined]


def test_a_class_defined_in_a_cell_is_caught_as_the_nearest_builtin_where_it_is_unknown() -> None:
    failure = capture("class Odd(ValueError): pass\nraise Odd('hm')")

    def loads(data: bytes) -> object:
        raise ModuleNotFoundError("no module named 'theirs'")

    error = failure.to_exception(loads)
    assert isinstance(error, ValueError)
    assert (error.ename, str(error)) == ("Odd", "hm")


def test_the_c_fields_of_an_os_error_arrive() -> None:
    error = remote("open('/no/such/file')")
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.filename) == (2, "/no/such/file")


def test_the_c_fields_of_a_unicode_error_arrive() -> None:
    error = remote("b'ab\\xff'.decode('utf-8')")
    assert isinstance(error, UnicodeDecodeError)
    assert (error.encoding, error.object, error.start, error.end) == ("utf-8", b"ab\xff", 2, 3)


def test_the_c_fields_of_a_syntax_error_arrive() -> None:
    error = remote("a = 1\nif a\n    b")
    assert isinstance(error, SyntaxError)
    assert (error.filename, error.lineno, error.msg) == ("<cell 1>", 2, "expected ':'")


def test_the_name_an_import_error_missed_arrives() -> None:
    error = remote("import no_such_module")
    assert isinstance(error, ModuleNotFoundError)
    assert error.name == "no_such_module"


def test_the_fields_of_a_library_exception_arrive() -> None:
    error = remote("import json\njson.loads('{bad')")
    assert isinstance(error, json.JSONDecodeError)
    assert (error.lineno, error.pos) == (1, 1)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("next(iter([]))", "StopIteration"),
        ("raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_control_flow_does_not_act_at_the_client(source: str, text: str) -> None:
    error = remote(source)
    assert type(error) is RemoteError
    assert str(error) == text


def test_the_code_of_a_system_exit_is_found_on_the_original() -> None:
    assert remote("raise SystemExit(3)").original.code == 3  # type: ignore[union-attr]


def test_an_unpicklable_builtin_exception_is_still_caught_by_its_class() -> None:
    with pytest.raises(ValueError, match="held") as caught:
        raise at_client(describe(ValueError("held", threading.Lock())))
    assert caught.value.args == ("held", LeftOut("lock", "cannot pickle '_thread.lock' object"))


def test_a_class_that_refuses_subclasses_gives_a_plain_remote_error() -> None:
    error = at_client(describe(Final("sealed")))
    assert type(error) is RemoteError
    assert str(error) == "Final: sealed"
    assert isinstance(error.original, Final)


def test_a_users_subclass_hook_is_not_run() -> None:
    assert isinstance(at_client(describe(Untidy("x"))), Untidy)
    assert Untidy.subclasses == []


def test_our_names_win_and_the_users_are_on_the_original() -> None:
    error = at_client(describe(Untidy("x")))
    assert error.call == "apply(f)"
    assert error.original.call == "mine"  # type: ignore[union-attr]


def test_the_class_is_made_once() -> None:
    assert type(remote("1 / 0")) is type(remote("2 / 0"))


def test_the_names_ipyparallel_users_know_are_there() -> None:
    error = remote("1 / 0", engine_id=2)
    assert (error.ename, error.evalue) == ("ZeroDivisionError", "division by zero")
    assert error.engine_info == {"engine_id": 2, "method": "execute"}
    assert 'File "<cell 1>", line 1, in <module>\n    1 / 0' in error.traceback


def test_cause_and_notes_arrive() -> None:
    error = remote(
        "try:\n    {}['k']\nexcept KeyError as e:\n    v = ValueError('v'); v.add_note('mine')\n    raise v from e"
    )
    assert isinstance(error.__cause__, KeyError)
    assert str(error.__cause__) == "'k'"
    assert error.__notes__[0] == "mine"
    assert "direct cause" in error.traceback


def test_from_none_hides_the_context() -> None:
    error = remote("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('v') from None")
    assert error.__suppress_context__
    assert isinstance(error.__context__, ZeroDivisionError)
    assert "ZeroDivisionError" not in error.traceback


def test_an_implicit_context_is_shown() -> None:
    error = remote("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('v')")
    assert "During handling of the above exception" in error.traceback


def test_pythons_own_traceback_names_engine_call_and_source_line() -> None:
    text = "".join(traceback.format_exception(remote("x = 1\nx / 0", engine_id=7, call="apply(f)")))
    assert text.startswith("ZeroDivisionError: division by zero\n")
    assert "on engine 7, in apply(f), at <cell 1>, line 2: x / 0" in text


def test_the_members_of_a_remote_group_are_caught_by_class() -> None:
    seen = []
    try:
        raise remote("raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError('k')])])")
    except* KeyError as group:
        seen += group.exceptions
    except* ValueError as group:
        seen += group.exceptions
    assert len(seen) == 2


def test_a_users_group_keeps_class_and_members() -> None:
    error = at_client(describe(MyGroup("g", [KeywordOnly(code=1)])))
    assert isinstance(error, MyGroup)
    assert error.message == "g"
    assert error.exceptions[0].code == 1  # type: ignore[attr-defined]


def test_a_group_with_an_unpicklable_member_is_still_a_group() -> None:
    error = at_client(describe(ExceptionGroup("g", [ValueError(threading.Lock()), KeyError("k")])))
    assert isinstance(error, ExceptionGroup)
    assert [type(member).__name__ for member in error.exceptions] == ["ValueError", "KeyError"]


def test_a_group_with_control_flow_does_not_act_at_the_client() -> None:
    assert type(at_client(describe(BaseExceptionGroup("g", [SystemExit(1)])))) is RemoteError


def test_an_error_from_an_engine_of_an_engine_names_both() -> None:
    inner = remote("1 / 0", engine_id=1)
    outer = at_client(Failure.capture(inner, engine_id=8, call="execute", dumps=pack_whole))
    assert isinstance(outer, ZeroDivisionError)
    assert outer.engine_id == 8
    assert isinstance(outer.original, RemoteError)
    assert outer.original.engine_id == 1
    assert [note.partition(",")[0] for note in outer.__notes__] == ["on engine 1", "on engine 8"]


def test_our_own_errors_travel_too() -> None:
    error = at_client(describe(EngineLost(3, "execute", "killed")))
    assert isinstance(error, EngineLost)
    assert error.reason == "killed"


def test_print_traceback_prints_without_colours_into_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))  # imported, though this is no kernel
    remote("1 / 0").print_traceback()
    printed = capsys.readouterr().out
    assert "ZeroDivisionError: division by zero" in printed
    assert "\x1b" not in printed


# Equal failures of many engines are reported once.


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "no engines"),
        ([5], "engine 5"),
        ([0, 1], "engines 0-1"),
        ([0, 1, 2, 3, 7], "engines 0-3, 7"),
        ([9, 2, 2, 1], "engines 1-2, 9"),
    ],
)
def test_engine_ids_are_written_as_ranges(ids: list[int], text: str) -> None:
    assert engine_ranges(ids) == text


@given(st.sets(st.integers(0, 50), min_size=2))
def test_the_ranges_hold_exactly_the_ids(ids: set[int]) -> None:
    found: set[int] = set()
    for part in engine_ranges(ids).removeprefix("engines ").split(", "):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    assert found == ids


def test_equal_failures_form_one_group_whatever_their_cells_are_called() -> None:
    (group,) = group_failures(remote("1 / 0", engine_id=i, cell=10 - i) for i in (2, 0, 1))
    assert group.engine_ids == (0, 1, 2)
    assert group.first.engine_id == 2  # type: ignore[attr-defined]
    assert group.summary == "ZeroDivisionError: division by zero  [engines 0-2]  <cell 8>, line 1: 1 / 0"


def test_equal_syntax_errors_form_one_group_though_their_messages_name_the_cell() -> None:
    assert len(group_failures(remote("f(]", engine_id=i, cell=i) for i in range(3))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("raise ValueError(1)", "raise ValueError(2)"),
        ("raise ValueError(1)", "raise TypeError(1)"),
        ("1 / 0", "\n1 / 0"),
        ("1 / 0", "2 / 0"),
        ("raise ValueError(1)", "raise ValueError(1) from KeyError()"),
    ],
)
def test_failures_that_differ_are_kept_apart_in_order(one: str, other: str) -> None:
    first, second = group_failures([remote(one, engine_id=1), remote(other, engine_id=0), remote(one, engine_id=3)])
    assert first.engine_ids == (1, 3)
    assert second.engine_ids == (0,)


def test_engines_lost_in_the_same_way_form_one_group_that_names_them_all() -> None:
    lost = [EngineLost(i, "apply(f)", "killed by signal 9", f"pid {i}") for i in (0, 1)]
    (group,) = group_failures(lost)
    assert group.summary == ("EngineLost: engines 0-1 died while running apply(f): killed by signal 9  [engines 0-1]")


def test_many_failures_of_one_engine_are_counted() -> None:
    (group,) = group_failures(remote("1 / 0", engine_id=4) for _ in range(12))
    assert "[engine 4, 12 times]" in group.summary


def test_an_exception_of_no_engine_can_be_grouped() -> None:
    (group,) = group_failures([ValueError("v"), ValueError("v")])
    assert group.summary == "ValueError: v  [2 times]"


def test_an_error_that_many_items_have_in_common_counts_for_each() -> None:
    lost = EngineLost(1, "map(f)", "killed")
    (group,) = group_failures([lost] * 104)
    assert group.summary.endswith("[engine 1, 104 times]")


def test_only_the_first_line_of_a_long_message_is_in_the_summary() -> None:
    (group,) = group_failures([remote("raise ValueError('first\\nsecond')")])
    assert group.evalue == "first ..."


# Failures of several engines, raised as one.


@pytest.fixture
def composite() -> CompositeError:
    zero = [remote("1 / 0", engine_id=i, cell=3) for i in (0, 1, 2, 3, 7)]
    key = remote("{}['k']", engine_id=5, cell=3)
    lost = EngineLost(6, "execute", "killed by signal 9 (SIGKILL)")
    return CompositeError("execute failed on 7 of 8 engines", [*zero, key, lost])


def test_the_text_has_one_line_per_group(composite: CompositeError) -> None:
    assert str(composite).splitlines() == [
        "execute failed on 7 of 8 engines",
        "ZeroDivisionError: division by zero  [engines 0-3, 7]  <cell 3>, line 1: 1 / 0",
        "KeyError: 'k'  [engine 5]  <cell 3>, line 1: {}['k']",
        "EngineLost: engine 6 died while running execute: killed by signal 9 (SIGKILL)  [engine 6]",
    ]


def test_the_text_of_very_different_failures_is_bounded() -> None:
    error = CompositeError("", [ValueError(n) for n in range(100)])
    assert len(str(error).splitlines()) == 11
    assert str(error).endswith("90 more kinds of failure, in .groups")


def test_except_star_picks_by_class(composite: CompositeError) -> None:
    engine_ids: list[int] = []
    rest: list[Exception] = []
    try:
        raise composite
    except* ZeroDivisionError as group:
        engine_ids += [error.engine_id for error in group.exceptions]  # type: ignore[attr-defined]
    except* Exception as group:
        rest += group.exceptions
    assert engine_ids == [0, 1, 2, 3, 7]
    assert [type(error).__name__ for error in rest] == ["KeyError", "EngineLost"]


def test_it_is_caught_as_an_exception_group(composite: CompositeError) -> None:
    with pytest.raises(ExceptionGroup):
        raise composite


def test_split_gives_composites_again(composite: CompositeError) -> None:
    remote_ones, others = composite.split(RemoteError)
    assert isinstance(remote_ones, CompositeError)
    assert isinstance(others, CompositeError)
    assert len(remote_ones.exceptions) == 6


@pytest.mark.parametrize(
    "clone",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_it_survives_being_cloned(composite: CompositeError, clone: object) -> None:
    twin = clone(composite)  # type: ignore[operator]
    assert type(twin) is CompositeError
    assert str(twin) == str(composite)
    assert isinstance(twin.exceptions[0], ZeroDivisionError)


def test_elist_has_the_entries_ipyparallel_users_know(composite: CompositeError) -> None:
    ename, evalue, text, engine_info = composite.elist[5]
    assert (ename, evalue) == ("KeyError", "'k'")
    assert text.endswith("KeyError: 'k'")
    assert engine_info["engine_id"] == 5
    assert composite.elist[6][3] == {"engine_id": 6, "method": "execute"}


def test_one_failure_can_be_raised_alone(composite: CompositeError) -> None:
    with pytest.raises(KeyError):
        composite.raise_exception(5)


@pytest.mark.parametrize("excid", [7, -1])
def test_raising_a_failure_that_is_not_there_is_an_index_error(composite: CompositeError, excid: int) -> None:
    with pytest.raises(IndexError, match="below 7"):
        composite.raise_exception(excid)


def test_print_traceback_shows_each_group_once(composite: CompositeError, capsys: pytest.CaptureFixture[str]) -> None:
    composite.print_traceback()
    assert capsys.readouterr().out.count("ZeroDivisionError: division by zero") == 2  # its line, and its panel


def test_print_traceback_of_one_failure_shows_it_alone(
    composite: CompositeError, capsys: pytest.CaptureFixture[str]
) -> None:
    composite.print_traceback(5)
    printed = capsys.readouterr().out
    assert "KeyError" in printed
    assert "ZeroDivisionError" not in printed


def test_the_repr_names_the_failures() -> None:
    assert repr(CompositeError("both", [ValueError(1)])) == "CompositeError('both', [ValueError(1)])"


# KeyboardInterrupt as a client raises it.


def raised_in(depth: int) -> KeyboardInterrupt:
    def compiled(number: int) -> CodeType:
        return compile("raise error" if number == depth else "go_on()", f"<part {number}>", "exec")

    def go_on(number: int) -> None:
        exec(compiled(number), {"go_on": lambda: go_on(number + 1), "error": error})

    error = keyboard_interrupt("left running: engine 0")
    with pytest.raises(KeyboardInterrupt) as caught:
        go_on(1)
    return caught.value


def test_ipython_shows_it_in_one_line() -> None:
    error = keyboard_interrupt("left running: engine 0", "and more")
    assert error._render_traceback_() == ["KeyboardInterrupt: left running: engine 0; and more"]  # type: ignore[attr-defined]


def test_the_users_own_code_is_named_where_it_is_deep() -> None:
    lines = raised_in(3)._render_traceback_()  # type: ignore[attr-defined]
    assert [line for line in lines if "<part" in line] == [f"  <part {n}>, line 1: " for n in (1, 2, 3)]


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_it_survives_being_copied(copied: object) -> None:
    again = copied(keyboard_interrupt("left running: engine 0"))  # type: ignore[operator]
    assert again._render_traceback_() == ["KeyboardInterrupt: left running: engine 0"]


def of_item(number: int, engine_id: int = 0, text: object = "a") -> RemoteError:
    error = ValueError("bad")
    return Failure.capture(error, engine_id=engine_id, call="map(f)", item=(number, (text,))).to_exception()


def test_the_item_of_a_map_is_named_in_a_note() -> None:
    error = of_item(17, text=42)
    assert str(error) == "bad"
    assert error.__notes__ == ["on engine 0, in map(f)\nitem 17 of map(f) is 42"]
    assert pickle.loads(pickle.dumps(error)).failure.item == (17, "42")


def test_failures_of_several_items_are_one_group_that_names_them() -> None:
    error = CompositeError("map(f) failed", [of_item(3), of_item(17), of_item(18, engine_id=1)])
    (group,) = error.groups
    assert group.items == "items 3, 17-18"
    assert str(error) == "map(f) failed\nValueError: bad  [engines 0-1, 3 times, items 3, 17-18]"
