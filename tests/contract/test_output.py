"""What engines print and show reaches the client that asked, in order and whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nsactors import Client, DirectView
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate, wait_until

c_output = pytest.mark.needs(Capability.C_OUTPUT)
rich_display = pytest.mark.needs(Capability.RICH_DISPLAY)


def test_what_each_engine_prints_is_found_under_its_position(rc: Client) -> None:
    rc[:].scatter("rank", range(4), flatten=True, block=True)
    assert rc[:].execute("print('I am', rank)", block=True).stdout == [f"I am {i}\n" for i in range(4)]


def test_what_one_engine_prints_is_one_text(rc: Client) -> None:
    assert rc[0].execute("print('hello')", block=True).stdout == "hello\n"


def test_standard_error_is_kept_apart(rc: Client) -> None:
    result = rc[0].execute("import sys; print('out'); print('err', file=sys.stderr)", block=True)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


def test_what_a_function_prints_is_captured(rc: Client) -> None:
    result = rc[0].apply_async(print, "from a function")
    result.get(TIMEOUT_S)
    assert result.stdout == "from a function\n"


def test_output_is_whole_when_a_blocking_call_returns(rc: Client) -> None:
    for _ in range(20):
        result = rc[0].execute("for i in range(500): print(i)", block=True)
        assert result.stdout == "".join(f"{i}\n" for i in range(500))


def test_a_megabyte_of_output_arrives_whole(rc: Client) -> None:
    assert rc[0].execute("for i in range(1000): print('x' * 1023)", block=True).stdout == ("x" * 1023 + "\n") * 1000


def test_text_is_unicode(rc: Client) -> None:
    assert rc[0].execute("print('☃ ü')", block=True).stdout == "☃ ü\n"


def test_output_belongs_to_the_call_that_printed_it(rc: Client) -> None:
    results = [rc[0].execute(f"print({n})") for n in range(10)]
    for result in results:
        result.get(TIMEOUT_S)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(10)]


def test_output_goes_to_the_client_that_asked(rc: Client, connect: Callable[..., Client]) -> None:
    mine, others = rc[0].execute("print('mine')"), connect()[0].execute("print('yours')")
    mine.get(TIMEOUT_S)
    others.get(TIMEOUT_S)
    assert (mine.stdout, others.stdout) == ("mine\n", "yours\n")


def test_a_failing_cell_has_printed_what_it_printed(rc: Client) -> None:
    result = rc[0].execute("print('before'); 1/0; print('after')")
    with pytest.raises(ZeroDivisionError):
        result.get(TIMEOUT_S)
    assert result.stdout == "before\n"


def test_output_arrives_while_the_cell_still_runs(rc: Client, gate: Gate) -> None:
    rc[0].push({"pass_gate": gate.pass_through}, block=True)
    result = rc[0].execute("print('under way'); pass_gate()")
    gate.wait_arrived()
    wait_until(lambda: result.stdout)
    assert (result.stdout, result.done()) == ("under way\n", False)


def test_reading_from_standard_input_is_an_error_and_no_hang(rc: Client) -> None:
    with pytest.raises((EOFError, OSError, RuntimeError)):
        rc[0].execute("input()").get(TIMEOUT_S)


@c_output
def test_what_c_code_writes_is_captured_in_order(rc: Client) -> None:
    code = "import os\nprint('one')\nos.write(1, b'two\\n')\nprint('three')"
    assert rc[0].execute(code, block=True).stdout == "one\ntwo\nthree\n"


@c_output
def test_what_the_c_library_buffers_is_captured(rc: Client) -> None:
    assert rc[0].execute("import ctypes; ctypes.CDLL(None).puts(b'from C')", block=True).stdout == "from C\n"


@c_output
def test_what_a_child_process_writes_is_captured(rc: Client) -> None:
    result = rc[0].execute("import subprocess; subprocess.run('echo out; echo err >&2', shell=True)", block=True)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@c_output
def test_the_order_of_the_two_streams_is_kept(rc: Client) -> None:
    code = "import sys\nfor i in range(3):\n    print(i)\n    print(-i, file=sys.stderr)"
    result = rc[0].execute(code, block=True)
    assert (result.stdout, result.stderr) == ("0\n1\n2\n", "0\n-1\n-2\n")


@rich_display
def test_what_a_cell_displays_is_in_its_outputs(rc: Client) -> None:
    result = rc[0].execute("from IPython.display import HTML, display; display(HTML('<b>x</b>'))", block=True)
    assert [output["data"]["text/html"] for output in result.outputs] == ["<b>x</b>"]


@rich_display
def test_the_value_of_a_cell_has_its_rich_forms(rc: Client) -> None:
    code = "class Bold:\n    def _repr_html_(self): return '<b>x</b>'\nBold()"
    assert rc[0].execute(code, silent=False).get(TIMEOUT_S).execute_result["data"]["text/html"] == "<b>x</b>"


def test_outputs_are_shown_with_their_engines_equal_ones_once(
    dv: DirectView, capsys: pytest.CaptureFixture[str]
) -> None:
    dv.with_flags(output="keep").execute("print('same')").display_outputs()
    shown = capsys.readouterr().out
    assert (shown.count("same"), "0-3" in shown or "0 to 3" in shown) == (1, True), shown


def test_outputs_are_shown_engine_by_engine(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    rc[:2].scatter("rank", range(2), flatten=True, block=True)
    rc[:2].execute("print('I am', rank)", block=True).display_outputs("engine")
    shown = capsys.readouterr().out
    assert shown.index("I am 0") < shown.index("I am 1")


def test_an_unknown_grouping_of_outputs_is_refused(rc: Client) -> None:
    with pytest.raises(ValueError, match="'engine'"):
        rc[0].execute("1", block=True).display_outputs("nonsense")
