"""Cells: numbered, kept in histories, with values, magics and top-level await (C1, C4, C6)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nsactors import Client
from nsactors.protocol.messages import Capability
from nsactors.testing import TIMEOUT_S, Gate


def test_the_value_of_a_last_expression_is_in_the_reply(rc: Client) -> None:
    reply = rc[0].execute("x = 20\nx + 1", silent=False).get(TIMEOUT_S)
    assert (reply.text, reply.execute_result["data"]["text/plain"]) == ("21", "21")


def test_a_silent_cell_shows_no_value(rc: Client) -> None:
    assert rc[0].execute("1 + 1").get(TIMEOUT_S).execute_result is None


def test_a_cell_that_ends_with_a_statement_has_no_value(rc: Client) -> None:
    reply = rc[0].execute("x = 1", silent=False).get(TIMEOUT_S)
    assert (reply.text, reply.execute_result) == ("", None)


def test_cells_are_numbered_by_engine(rc: Client) -> None:
    rc[0].execute("1", silent=False, block=True)
    replies = rc[:2].execute("2", silent=False).get(TIMEOUT_S)
    assert [(reply.engine_id, reply.execution_count) for reply in replies] == [(0, 2), (1, 1)]


def test_silent_cells_are_not_numbered(rc: Client) -> None:
    rc[0].execute("1", block=True)
    assert rc[0].execute("2", silent=False).get(TIMEOUT_S).execution_count == 1


def test_a_reply_shows_engine_number_and_value(rc: Client) -> None:
    assert repr(rc[1].execute("6 * 7", silent=False).get(TIMEOUT_S)) == "<ExecuteReply[1] engine 1: 42>"


def test_executing_on_all_engines_gives_one_reply_each(rc: Client) -> None:
    assert [reply.text for reply in rc.execute_all("'hi'").get(TIMEOUT_S)] == ["'hi'"] * 4


def test_the_i_th_result_of_an_engine_can_be_asked_for(rc: Client) -> None:
    for cell in ("'a'", "'b'"):
        rc[0].execute(cell, silent=False, block=True)
    assert rc[0].pull(["Out[1]", "Out[2]", "_"], block=True) == ["a", "b", "b"]


def test_the_i_th_result_of_an_engine_can_be_asked_for_by_another_client(
    rc: Client, connect: Callable[..., Client]
) -> None:
    rc[0].execute("6 * 7", silent=False, block=True)
    assert connect()[0].pull("Out[1]", block=True) == 42


def test_the_i_th_input_of_an_engine_can_be_asked_for(rc: Client) -> None:
    rc[0].execute("x = 'a'", silent=False, block=True)
    assert rc[0].pull("In[1]", block=True).strip() == "x = 'a'"


def test_a_missing_input_of_an_engine_is_an_index_error(rc: Client) -> None:
    with pytest.raises(IndexError):
        rc[0].execute("In[99]", block=True)


def test_a_cell_awaits_at_top_level(rc: Client) -> None:
    rc[0].execute("import asyncio\nx = await asyncio.sleep(0, 'slept')", block=True)
    assert rc[0].get("x") == "slept"


def test_a_last_expression_that_awaits_shows_its_value(rc: Client) -> None:
    reply = rc[0].execute("import asyncio\nawait asyncio.sleep(0, 5)", silent=False).get(TIMEOUT_S)
    assert reply.text == "5"


def test_a_task_left_by_one_cell_goes_on_in_the_next_that_awaits(rc: Client) -> None:
    rc[0].execute("import asyncio\nasync def job():\n    return 3\ntask = asyncio.ensure_future(job())", block=True)
    rc[0].execute("x = await task", block=True)
    assert rc[0].get("x") == 3


def test_a_failing_cell_keeps_what_it_had_done(rc: Client) -> None:
    with pytest.raises(ZeroDivisionError):
        rc[0].execute("x = 1\n1/0\nx = 2", block=True)
    assert rc[0].get("x") == 1


def test_a_cell_with_a_syntax_error_does_nothing(rc: Client) -> None:
    with pytest.raises(SyntaxError):
        rc[0].execute("x = 1\nx = = 2", block=True)
    with pytest.raises(NameError):
        rc[0].get("x")


def test_code_that_is_no_text_raises_at_the_call(rc: Client) -> None:
    with pytest.raises(TypeError, match="apply"):
        rc[0].execute(print)


@pytest.mark.needs(Capability.MAGICS)
def test_a_handler_that_a_cell_has_set_is_told_of_errors_and_its_own_do_no_harm(rc: Client) -> None:
    engine = rc[0]
    handler = "def handle(shell, kind, error, trace, tb_offset=None):\n    print('handled', error)\n    {}\n"
    setting = "get_ipython().set_custom_exc((ZeroDivisionError,), handle)"
    try:
        engine.execute(handler.format("pass") + setting, block=True)
        told, other = engine.execute("1 / 0"), engine.execute("int('x')")
        assert isinstance(told.exception(TIMEOUT_S), ZeroDivisionError)
        assert isinstance(other.exception(TIMEOUT_S), ValueError)
        assert (told.stdout, other.stdout) == ("handled division by zero\n", "")
        engine.execute(handler.format("raise SystemExit") + setting, block=True)
        assert isinstance(engine.execute("1 / 0").exception(TIMEOUT_S), ZeroDivisionError)
        again = engine.execute("1 / 0")
        assert isinstance(again.exception(TIMEOUT_S), ZeroDivisionError)
        assert again.stdout == ""  # IPython has taken it away
    finally:
        engine.execute("get_ipython().set_custom_exc((), None)", block=True)


@pytest.mark.needs(Capability.MAGICS)
def test_a_line_magic_works(rc: Client) -> None:
    reply = rc[0].execute("x = 3\n%who", block=True)
    assert "x" in reply.stdout


@pytest.mark.needs(Capability.MAGICS)
def test_timeit_prints_its_times(rc: Client) -> None:
    assert "loop" in rc[0].execute("%timeit -n1 -r1 1 + 1", block=True).stdout


@pytest.mark.needs(Capability.MAGICS, Capability.C_OUTPUT)
def test_a_shell_command_prints_and_its_output_can_be_assigned(rc: Client) -> None:
    assert rc[0].execute("!echo hello", block=True).stdout == "hello\n"
    rc[0].execute("lines = !echo hello", block=True)
    assert list(rc[0].get("lines")) == ["hello"]


@pytest.mark.needs(Capability.MAGICS, Capability.C_OUTPUT)
def test_a_bash_cell_runs_in_bash(rc: Client) -> None:
    assert rc[0].execute("%%bash\nfor i in 1 2; do echo $i; done", block=True).stdout == "1\n2\n"


@pytest.mark.needs(Capability.MAGICS, Capability.C_OUTPUT)
def test_a_shell_command_runs_on_the_host_of_the_engine(rc: Client) -> None:
    assert rc[0].execute("!hostname", block=True).stdout.strip() == socket.gethostname()


@pytest.mark.needs(Capability.MAGICS, Capability.PROCESS)
def test_cd_changes_the_folder_of_that_engine_alone(rc: Client, tmp_path: Path) -> None:
    before = rc[:2].apply_sync(os.getcwd)
    rc[0].execute(f"%cd {tmp_path}", block=True)
    try:
        assert rc[:2].apply_sync(os.getcwd) == [str(tmp_path), before[1]]
    finally:
        rc[0].execute(f"%cd {before[0]}", block=True)


@pytest.mark.needs(Capability.MAGICS)
def test_the_exit_of_a_cell_does_not_end_the_engine(rc: Client) -> None:
    rc[0].execute("exit", block=True)
    assert rc[0].apply_sync(abs, -1) == 1


def test_a_paused_engine_keeps_what_was_queued_and_takes_it_up_again(rc: Client, gate: Gate) -> None:
    view = rc[0]
    view.push({"pass_gate": gate.pass_through, "x": 0}, block=True)
    paused = view.execute("pass_gate()")
    gate.wait_arrived()
    queued = view.execute("x += 1"), view.pull("x")
    assert not any(result.done() for result in queued)
    gate.open()
    assert (paused.wait(TIMEOUT_S), queued[1].get(TIMEOUT_S)) == (True, 1)
