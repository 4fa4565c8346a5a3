"""Errors: in parallel as in serial, and never silent (ER2 to ER8)."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nsactors
from nsactors import Client, CompositeError, DirectView, Reference, RemoteError
from nsactors.errors import EngineLost, SerializationError
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate

CANONICAL_NINE = {
    "1/0": ZeroDivisionError,
    "nowhere": NameError,
    "[][1]": IndexError,
    "{}['k']": KeyError,
    "assert 1 == 2": AssertionError,
    "import no_such_module": ImportError,
    "raise Exception('plain')": Exception,
    "x = = 1": SyntaxError,
    "if 1:\nx = 1": IndentationError,
}
nine = pytest.mark.parametrize(("code", "error"), CANONICAL_NINE.items(), ids=lambda v: getattr(v, "__name__", ""))


@pytest.mark.sampled
@nine
def test_what_a_cell_raises_is_caught_by_its_own_class(rc: Client, code: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        rc[0].execute(code, block=True)
    assert (isinstance(caught.value, RemoteError), caught.value.engine_id) == (True, 0)


@pytest.mark.sampled
@nine
def test_what_a_function_raises_is_caught_by_its_own_class(rc: Client, code: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        rc[0].apply_sync(lambda: exec(code, {}))
    assert (isinstance(caught.value, RemoteError), caught.value.call) == (True, "apply(<lambda>)")


@pytest.mark.sampled
@nine
def test_what_all_engines_raise_is_one_composite_of_all(rc: Client, code: str, error: type[Exception]) -> None:
    with pytest.raises(CompositeError) as caught:
        rc[:].execute(code, block=True)
    assert [isinstance(each, error) for each in caught.value.exceptions] == [True] * 4


@pytest.mark.once
def test_a_composite_is_an_exception_group(rc: Client) -> None:
    engines = []
    try:
        rc[:2].execute("1/0", block=True)
    except* ZeroDivisionError as group:
        engines = [error.engine_id for error in group.exceptions]
    assert engines == [0, 1]


def test_equal_failures_of_many_engines_are_told_once_with_the_engines(rc: Client) -> None:
    rc[0].push({"d": 1}, block=True)
    rc[1:].push({"d": 0}, block=True)
    with pytest.raises(CompositeError) as caught:
        rc[:].execute("1/d", block=True)
    text = str(caught.value)
    assert (text.count("ZeroDivisionError"), "3 of 4" in text, "1-3" in text or "1 to 3" in text) == (1, True, True), (
        text
    )


def test_a_call_to_many_waits_for_all_before_it_raises(rc: Client, gate: Gate) -> None:
    rc[0].push({"f": 5}, block=True)
    rc[1].push({"f": gate.pass_through}, block=True)
    result = rc[:2].execute("f(); y = 1")
    gate.wait_arrived()
    with pytest.raises(TimeoutError):
        result.get(0)
    gate.open()
    with pytest.raises(CompositeError):
        result.get(TIMEOUT_S)
    assert rc[1].get("y") == 1


def test_the_first_failure_can_be_had_before_the_others_are_done(rc: Client, gate: Gate) -> None:
    rc[0].push({"f": 5}, block=True)
    rc[1].push({"f": gate.pass_through}, block=True)
    result = rc[:2].execute("f()")
    gate.wait_arrived()
    with pytest.raises(CompositeError) as caught:
        result.get(TIMEOUT_S, return_when="FIRST_EXCEPTION")
    assert (len(caught.value.exceptions), result.done()) == (1, False)


@pytest.mark.once
def test_exceptions_can_be_had_in_place_of_values(rc: Client) -> None:
    rc[:].scatter("d", [1, 0, 2, 0], flatten=True, block=True)
    values = rc[:].pull("2 // d").get(TIMEOUT_S, return_exceptions=True)
    assert [type(value).__name__ for value in values] == ["int", "ZeroDivisionError", "int", "ZeroDivisionError"]


@pytest.mark.once
def test_a_failed_result_raises_at_every_call(rc: Client) -> None:
    result = rc[0].execute("1/0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            result.get(TIMEOUT_S)


def test_type_arguments_and_attributes_survive(rc: Client) -> None:
    code = "error = OSError(2, 'not here', '/a'); error.extra = [1]; raise error"
    with pytest.raises(FileNotFoundError) as caught:
        rc[0].execute(code, block=True)
    error = caught.value
    assert (error.errno, error.strerror, error.filename, error.args, error.extra) == (
        2, "not here", "/a", (2, "not here"), [1],
    )  # fmt: skip


@pytest.mark.once
def test_notes_survive(rc: Client) -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        rc[0].execute("error = ValueError('bad'); error.add_note('a hint'); raise error", block=True)
    assert "a hint" in caught.value.__notes__


@pytest.mark.once
def test_causes_survive(rc: Client) -> None:
    with pytest.raises(RuntimeError) as caught:
        rc[0].execute("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('so') from e", block=True)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.once
def test_contexts_survive(rc: Client) -> None:
    with pytest.raises(KeyError) as caught:
        rc[0].execute("try:\n    1/0\nexcept ZeroDivisionError:\n    {}['k']", block=True)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_exception_groups_survive(rc: Client) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        rc[0].execute("raise ExceptionGroup('two', [ValueError(1), KeyError(2)])", block=True)
    assert [type(error).__name__ for error in caught.value.exceptions] == ["ValueError", "KeyError"]


def test_the_text_names_engine_call_and_the_line_of_the_user(rc: Client) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        rc[2].execute("x = 1\ny = x / (x - 1)  # here", block=True)
    text = "\n".join(caught.value.__notes__)
    assert all(part in text for part in ("engine 2", "execute", "line 2", "y = x / (x - 1)  # here")), text


def test_the_remote_traceback_shows_every_frame_of_the_user(rc: Client) -> None:
    rc[0].execute("def inner():\n    return 1/0\ndef outer():\n    return inner()", block=True)
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].execute("outer()", block=True)
    text = caught.value.traceback
    assert all(part in text for part in ("in outer", "in inner", "return 1/0")), text


@pytest.mark.sampled
@pytest.mark.parametrize(
    "call",
    [
        lambda view, fail: view.execute("fail(1)", block=True),
        lambda view, fail: view.apply_sync(fail, 1),
        lambda view, fail: view.pull("fail(1)", block=True),
        lambda view, fail: view.map_sync(fail, [1]),
    ],
    ids=["execute", "apply", "pull", "map"],
)
def test_the_remote_traceback_shows_no_machinery(rc: Client, call: Callable[..., Any]) -> None:
    def fail(x: object) -> None:
        raise ValueError(x)

    rc[0].push({"fail": fail}, block=True)
    with pytest.raises((ValueError, CompositeError)) as caught:
        call(rc[0], fail)
    assert os.path.dirname(nsactors.__file__) not in _remote_text(caught.value)


def _remote_text(error: BaseException) -> str:
    errors = error.exceptions if isinstance(error, CompositeError) else [error]
    return "\n".join(each.traceback for each in errors if isinstance(each, RemoteError))


def test_a_class_of_main_that_is_raised_on_an_engine_is_caught_here(
    rc: Client, from_main: Callable[[str], SimpleNamespace]
) -> None:
    main = from_main("class Odd(Exception):\n    pass\ndef f():\n    raise Odd('seven')")
    with pytest.raises(main.Odd, match="seven"):
        rc[0].apply_sync(main.f)


def test_what_an_exception_cannot_bring_along_is_named_and_the_rest_arrives(rc: Client) -> None:
    code = (
        "import threading\nclass Own(ValueError): pass\n"
        "error = Own('bad'); error.lock, error.code = threading.Lock(), 7; raise error"
    )
    with pytest.raises(ValueError, match="bad") as caught:
        rc[0].execute(code, block=True)
    error: Any = caught.value
    assert (error.ename, type(error.original).__name__, error.code) == ("Own", "Own", 7)
    assert not hasattr(error, "lock")
    assert ".lock (lock) was left out: cannot pickle '_thread.lock' object" in error.__notes__


ARRAYS = "import numpy as np, pandas as pd\nclass Own(Exception): pass\ndef own(*args):\n    return Own(*args)\n"


@pytest.mark.sampled
@pytest.mark.parametrize(
    "made",
    [
        "np.arange(3)",
        "pd.DataFrame({'a': [1, 2]})",
        "pd.Series([1.5, None])",
        "bytearray(b'abc')",
        "np.ma.array([1, 2], mask=[1, 0])",
    ],
)
def test_an_exception_brings_its_arrays_and_frames_along(rc: Client, made: str) -> None:
    rc[0].execute(f"{ARRAYS}held = {made}", block=True)
    here: Any = {"np": np, "pd": pd}
    with pytest.raises(RemoteError) as caught:
        rc[0].execute("raise own(held) from own(0, held)", block=True)
    error: Any = caught.value
    for link, position in ((error, 0), (error.__cause__, 1)):
        assert link.ename == "Own"
        assert type(link.args[position]) is type(eval(made, here))
        assert repr(link.args[position]) == repr(eval(made, here))
    assert error.original.args[0] is not None


def test_an_exception_carries_so_much_and_no_more(rc: Client) -> None:
    rc[0].execute(ARRAYS, block=True)
    with pytest.raises(RemoteError) as caught:
        rc[0].execute("error = own('large')\nerror.data, error.code = np.ones(2_000_000), 7\nraise error", block=True)
    error: Any = caught.value
    assert (type(error.original).__name__, error.code) == ("Own", 7)
    assert ".data (ndarray) was left out: it takes more than 10 MB" in error.__notes__


BROKEN = {
    "__str__": "def __str__(self): raise SystemExit",
    "a __str__ that is no text": "def __str__(self): return 5",
    "__repr__": "def __repr__(self): raise SystemExit",
    "__len__": "def __len__(self): return 0",
    "__bool__": "def __bool__(self): raise ValueError",
    "__eq__": "def __eq__(self, other): raise ValueError",
    "__hash__": "def __hash__(self): raise ValueError",
    "__reduce__": "def __reduce__(self): raise SystemExit",
    "a __reduce__ that is interrupted": "def __reduce__(self): raise KeyboardInterrupt",
    "a __reduce__ to something else": "def __reduce__(self): return int, ()",
    "a __reduce__ that lacks arguments": "def __reduce__(self): return Own, ()\n    def __init__(self, text): pass",
    "__traceback__": "__traceback__ = property(lambda self: 1 / 0)",
    "a __traceback__ that is none": "__traceback__ = 5",
    "__cause__": "__cause__ = property(lambda self: 1 / 0)",
    "__notes__": "__notes__ = property(lambda self: 1 / 0)",
    "args": "args = property(lambda self: 1 / 0)",
    "__dict__": "__dict__ = property(lambda self: 1 / 0)",
    "__getattribute__": "def __getattribute__(self, name): raise SystemExit",
    "__setattr__": "def __setattr__(self, name, value): raise ValueError",
    "methods of its own": "def with_traceback(self, tb): 1 / 0\n    def add_note(self, text): 1 / 0",
}


@pytest.mark.sampled
@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_an_exception_with_awkward_parts_is_caught_by_its_class(rc: Client, body: str) -> None:
    classes = f"class Base(Exception): pass\nclass Own(Base):\n    {body}\n"
    rc[0].execute(f"{classes}def f(item): raise Own('bad')", block=True)
    lview = rc.load_balanced_view(targets=[0])
    for result in (rc[0].execute("f(0)"), rc[0].apply_async(Reference("f"), 0), lview.apply_async(Reference("f"), 0)):
        error: Any = result.exception(TIMEOUT_S)
        assert (error.ename, type(error.original).__name__) == ("Own", "Own")
        assert error.failure.where.endswith("raise Own('bad')")
        assert CompositeError("all", [error, error]).groups[0].ename == "Own"
        assert repr(error)
    with pytest.raises(CompositeError):
        rc[:2].execute(f"{classes}raise Own('bad')", block=True)
    assert rc[0].apply_sync(abs, -1) == 1


def test_a_class_that_cannot_travel_gives_way_to_its_base(rc: Client) -> None:
    code = (
        "import threading\nlock = threading.Lock()\nclass Own(LookupError):\n    used = property(lambda self: lock)\n"
    )
    with pytest.raises(LookupError) as caught:
        rc[0].execute(f"{code}error = Own('bad')\nerror.code = 7\nraise error", block=True)
    error: Any = caught.value
    assert (error.ename, error.args, error.code) == ("Own", ("bad",), 7)
    assert error.__notes__[0].startswith("the class (Own) was left out: ")
    assert rc[0].apply_sync(abs, -1) == 1


def test_a_class_that_cannot_be_made_here_gives_way_to_its_built_in_base(rc: Client) -> None:
    code = "class Own(LookupError):\n    __class__ = property(lambda self: 1 / 0)\nraise Own('bad')"
    with pytest.raises(LookupError, match="bad") as caught:
        rc[0].execute(code, block=True)
    error: Any = caught.value
    assert error.ename == "Own"
    assert "__class__ must be set to a class" in error.__notes__[0]
    assert rc[0].apply_sync(abs, -1) == 1


def test_locals_that_exit_when_they_are_shown_cost_nothing(rc: Client) -> None:
    code = "class Local:\n    def __repr__(self): raise SystemExit\ndef f():\n    held = Local()\n    1 / 0\nf()"
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].execute(code, block=True)
    shown = dict(caught.value.failure.frames[-1].locals)  # type: ignore[attr-defined]
    assert shown["held"] == "<Local whose __repr__ raised SystemExit>"
    assert rc[0].apply_sync(abs, -1) == 1


def test_endless_recursion_is_a_recursion_error(rc: Client) -> None:
    with pytest.raises(RecursionError):
        rc[0].execute("def f(): return f()\nf()", block=True)
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.sampled
@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit('over')", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("call", ["execute", "apply"])
def test_control_flow_is_a_remote_error_and_the_engine_goes_on(rc: Client, code: str, call: str) -> None:
    with pytest.raises(RemoteError) as caught:
        rc[0].execute(code, block=True) if call == "execute" else rc[0].apply_sync(lambda: exec(code, {}))
    assert not isinstance(caught.value, (SystemExit, KeyboardInterrupt))
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.once
def test_a_stop_iteration_does_not_end_a_loop_at_the_client(rc: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        rc[0].apply_sync(next, iter([]))
    assert (caught.value.ename, isinstance(caught.value, StopIteration)) == ("StopIteration", False)


def test_a_result_that_cannot_be_serialised_says_where(rc: Client) -> None:
    with pytest.raises(SerializationError, match=r"\['k'\]"):
        rc[0].apply_sync(lambda: {"k": __import__("threading").Lock()})


def test_a_result_that_cannot_be_loaded_here_is_an_error_of_that_call(rc: Client) -> None:
    def make() -> Any:
        class Fragile:
            def __reduce__(self) -> Any:
                return int, ("not a number",)

        return Fragile()

    with pytest.raises(ValueError, match="not a number"):
        rc[0].apply_sync(make)
    assert rc[0].apply_sync(abs, -1) == 1


def test_an_argument_that_cannot_be_loaded_on_the_engine_is_an_error_of_that_call(rc: Client) -> None:
    class Fragile:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    with pytest.raises(ValueError, match="not a number"):
        rc[0].apply_sync(abs, Fragile())
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.needs(Capability.PROCESS)
@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import ctypes; ctypes.string_at(0)",
    ],
    ids=["os._exit", "SIGKILL", "segfault"],
)
def test_the_death_of_a_process_is_an_engine_lost(victim: DirectView, code: str) -> None:
    with pytest.raises(EngineLost) as caught:
        victim.execute(code).get(TIMEOUT_S)
    assert (caught.value.engine_id, caught.value.call) == (victim.targets, "execute")


@pytest.mark.needs(Capability.PROCESS)
def test_a_segfault_is_called_by_its_name(victim: DirectView) -> None:
    with pytest.raises(EngineLost, match="Segmentation fault"):
        victim.execute("import ctypes; ctypes.string_at(0)").get(TIMEOUT_S)


@pytest.mark.needs(Capability.PROCESS)
def test_the_last_words_of_an_engine_are_told(victim: DirectView) -> None:
    victim.execute("import os, sys; print('an earlier cell', file=sys.stderr)", block=True)
    with pytest.raises(EngineLost, match="last words") as caught:
        victim.execute("print('last words', file=sys.stderr); os._exit(1)").get(TIMEOUT_S)
    assert caught.value.stderr_tail == "last words"
    assert "It does not restart" in str(caught.value)


@pytest.mark.needs(Capability.PROCESS)
def test_what_was_queued_on_an_engine_that_dies_is_lost_with_it(victim: DirectView, gate: Gate) -> None:
    victim.push({"pass_gate": gate.pass_through}, block=True)
    running = victim.execute("import os; pass_gate(); os.write(2, b'last words'); os._exit(1)")
    gate.wait_arrived()
    queued = victim.apply_async(abs, -1)
    gate.open()
    ran, waited = (result.exception(TIMEOUT_S) for result in (running, queued))
    assert isinstance(ran, EngineLost)
    assert isinstance(waited, EngineLost)
    assert (ran.call, ran.began, ran.stderr_tail) == ("execute", True, "last words")
    assert (waited.call, waited.began, waited.running, waited.stderr_tail) == ("apply(abs)", False, "execute", "")


def test_failures_in_many_threads_at_once_are_each_their_own(rc: Client) -> None:
    found: dict[int, str] = {}

    def fail(number: int) -> None:
        try:
            rc[number % 4].execute(f"raise ValueError({number})").get(TIMEOUT_S)
        except ValueError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=fail, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert found == {n: str(n) for n in range(12)}


@pytest.mark.once
def test_a_remote_error_draws_itself_where_python_shows_it(rc: Client) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].execute("1/0", block=True)
    shown = "".join(traceback.format_exception(caught.value))
    assert "on engine 0, in execute" in shown


@pytest.mark.once
def test_an_error_of_a_name_that_is_not_there_has_no_frames_of_this_package(rc: Client) -> None:
    with pytest.raises(NameError) as caught:
        rc[0].apply_sync(abs, Reference("nowhere"))
    assert caught.value.failure.frames == ()  # type: ignore[attr-defined]
    assert str(caught.value).startswith("name 'nowhere' is not defined")


def test_the_item_of_a_map_that_failed_is_named(rc: Client) -> None:
    def fail(x: int, y: int = 0, rng: Any = None) -> None:
        if x == 17:
            raise ValueError("bad")

    direct, balanced = rc[:], rc.load_balanced_view()
    results: list[Callable[[], Any]] = [
        lambda: direct.map_sync(fail, range(40)),
        lambda: direct.map_sync(fail, range(40), dist="r"),
        lambda: direct.map_sync(fail, range(40), seed=1),
        lambda: balanced.map_sync(fail, range(40)),
        lambda: balanced.map_sync(fail, range(40), chunksize=5),
        lambda: balanced.map_sync(fail, range(40), seed=1),
    ]
    for run in results:
        with pytest.raises(CompositeError) as caught:
            run()
        assert ", item 17]" in str(caught.value)
        (error,) = caught.value.exceptions
        assert "\nitem 17 of map(fail) is 17\n" in error.__notes__[-1]
    for view in (direct, balanced):
        spared = view.map_sync(fail, range(40), range(40), return_exceptions=True)[17]
        assert "\nitem 17 of map(fail) is (17, 17)\n" in spared.__notes__[-1]
        with pytest.raises(ValueError, match="bad") as raised:
            list(view.imap(fail, range(40), chunksize=4))
        assert "\nitem 17 of map(fail) is 17\n" in raised.value.__notes__[-1]


def test_a_part_of_a_sequence_is_not_named_as_an_item(rc: Client) -> None:
    def fail(part: Any) -> None:
        raise ValueError("bad")

    with pytest.raises(CompositeError) as caught:
        rc.load_balanced_view().parallel(chunksize=5, block=True)(fail)(range(10))
    assert "item" not in str(caught.value).splitlines()[1].partition("  /")[0]
