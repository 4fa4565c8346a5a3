"""The exception raised at a client: the user's own, and a RemoteError."""

import copy
import dataclasses
import json
import pickle
import threading
import traceback

import pytest

from nsactors.errors import EngineLost, Failure, RemoteError
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
    assert caught.value.original is None  # type: ignore[attr-defined]


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
    outer = at_client(Failure.capture(inner, engine_id=8, call="execute", dumps=pickle.dumps))
    assert isinstance(outer, ZeroDivisionError)
    assert outer.engine_id == 8
    assert isinstance(outer.original, RemoteError)
    assert outer.original.engine_id == 1
    assert [note.partition(",")[0] for note in outer.__notes__] == ["on engine 1", "on engine 8"]


def test_our_own_errors_travel_too() -> None:
    error = at_client(describe(EngineLost(3, "execute", "killed")))
    assert isinstance(error, EngineLost)
    assert error.reason == "killed"


def test_print_traceback_prints_without_colours_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    remote("1 / 0").print_traceback()
    printed = capsys.readouterr().out
    assert "ZeroDivisionError: division by zero" in printed
    assert "\x1b" not in printed
