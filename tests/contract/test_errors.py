"""Errors: in parallel as in serial, and never silent (ER2 to ER8)."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import nsactors
from nsactors import Client, CompositeError, DirectView, RemoteError
from nsactors.core.messages import Capability
from nsactors.errors import EngineLost, SerializationError
from tests.gates import TIMEOUT_S, Gate

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


@nine
def test_what_a_cell_raises_is_caught_by_its_own_class(rc: Client, code: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        rc[0].execute(code, block=True)
    assert (isinstance(caught.value, RemoteError), caught.value.engine_id) == (True, 0)


@nine
def test_what_a_function_raises_is_caught_by_its_own_class(rc: Client, code: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        rc[0].apply_sync(lambda: exec(code, {}))
    assert (isinstance(caught.value, RemoteError), caught.value.call) == (True, "apply(<lambda>)")


@nine
def test_what_all_engines_raise_is_one_composite_of_all(rc: Client, code: str, error: type[Exception]) -> None:
    with pytest.raises(CompositeError) as caught:
        rc[:].execute(code, block=True)
    assert [isinstance(each, error) for each in caught.value.exceptions] == [True] * 4


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


def test_exceptions_can_be_had_in_place_of_values(rc: Client) -> None:
    rc[:].scatter("d", [1, 0, 2, 0], flatten=True, block=True)
    values = rc[:].pull("2 // d").get(TIMEOUT_S, return_exceptions=True)
    assert [type(value).__name__ for value in values] == ["int", "ZeroDivisionError", "int", "ZeroDivisionError"]


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


def test_notes_survive(rc: Client) -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        rc[0].execute("error = ValueError('bad'); error.add_note('a hint'); raise error", block=True)
    assert "a hint" in caught.value.__notes__


def test_causes_survive(rc: Client) -> None:
    with pytest.raises(RuntimeError) as caught:
        rc[0].execute("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('so') from e", block=True)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


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


def test_an_exception_that_cannot_be_serialised_is_of_the_nearest_built_in_class(rc: Client) -> None:
    code = (
        "import threading\nclass Own(ValueError): pass\nerror = Own('bad'); error.lock = threading.Lock(); raise error"
    )
    with pytest.raises(ValueError, match="bad") as caught:
        rc[0].execute(code, block=True)
    assert (caught.value.ename, caught.value.original) == ("Own", None)


def test_an_exception_that_cannot_even_be_shown_is_an_error_all_the_same(rc: Client) -> None:
    with pytest.raises(RemoteError):
        rc[0].execute("class Own(Exception):\n    def __str__(self): raise ValueError\nraise Own", block=True)


def test_endless_recursion_is_a_recursion_error(rc: Client) -> None:
    with pytest.raises(RecursionError):
        rc[0].execute("def f(): return f()\nf()", block=True)
    assert rc[0].apply_sync(abs, -1) == 1


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit('over')", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("call", ["execute", "apply"])
def test_control_flow_is_a_remote_error_and_the_engine_goes_on(rc: Client, code: str, call: str) -> None:
    with pytest.raises(RemoteError) as caught:
        rc[0].execute(code, block=True) if call == "execute" else rc[0].apply_sync(lambda: exec(code, {}))
    assert not isinstance(caught.value, (SystemExit, KeyboardInterrupt))
    assert rc[0].apply_sync(abs, -1) == 1


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
    with pytest.raises(EngineLost, match="last words"):
        victim.execute("import os, sys; print('last words', file=sys.stderr); os._exit(1)").get(TIMEOUT_S)


@pytest.mark.needs(Capability.PROCESS)
def test_what_was_queued_on_an_engine_that_dies_is_lost_with_it(victim: DirectView, gate: Gate) -> None:
    victim.push({"pass_gate": gate.pass_through}, block=True)
    running = victim.execute("import os; pass_gate(); os._exit(1)")
    gate.wait_arrived()
    queued = victim.apply_async(abs, -1)
    gate.open()
    for result in (running, queued):
        assert isinstance(result.exception(TIMEOUT_S), EngineLost)


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


def test_a_remote_error_draws_itself_where_python_shows_it(rc: Client) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        rc[0].execute("1/0", block=True)
    shown = "".join(traceback.format_exception(caught.value))
    assert "on engine 0, in execute" in shown
