"""Output under stress: complete, in order, before a blocking call returns; bounded when it floods."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors import Cluster, DirectView
from nsactors.testing import TIMEOUT_S, Gate, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(300)]

MIXED = """
print("python 1")
libc.printf(b"c 1\\n")
os.system("echo child")
print("python 2")
libc.puts(b"c 2")
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[DirectView]:
    with Cluster(n=1) as rc:
        view = rc[0]
        view.execute("import ctypes, os, sys, getpass; libc = ctypes.CDLL(None)", block=True)
        yield view


def test_cells_print_from_python_c_and_a_child_completely_and_in_order(
    engine: DirectView, request: pytest.FixtureRequest
) -> None:
    for _ in range(1000 if request.config.getoption("--full-size") else 200):
        assert engine.execute(MIXED, block=True).stdout == "python 1\nc 1\nchild\npython 2\nc 2\n"


def test_c_code_that_holds_the_gil_while_it_writes_10_mb_does_not_hang(engine: DirectView) -> None:
    code = "data = b'y' * 10_000_000\nwritten = ctypes.PyDLL(None).write(1, data, len(data))"
    engine.execute(code, block=True)
    assert engine["written"] == 10_000_000


def test_output_of_a_long_cell_arrives_before_its_end_and_is_complete(engine: DirectView, gate: Gate) -> None:
    engine.push({"pass_through": gate.pass_through}, block=True)
    result = engine.execute("print('before'); pass_through(); print('after')")
    wait_until(lambda: result.stdout == "before\n")
    assert not result.done()
    gate.open()
    result.get(TIMEOUT_S)
    assert result.stdout == "before\nafter\n"


def test_a_flood_is_cut_in_the_middle_and_says_where_all_of_it_is(engine: DirectView) -> None:
    result = engine.execute("for i in range(500_000): print('line', i)", block=True)
    assert result.stdout.startswith("line 0\nline 1\n")
    assert result.stdout.endswith("line 499999\n")
    assert len(result.stdout) < 2_200_000
    path = result.stderr.partition("all of it is in ")[2].partition(".stdout")[0] + ".stdout"
    assert "MB of output left out" in result.stderr
    assert Path(path).read_text().endswith("line 499998\nline 499999\n")


@pytest.mark.parametrize("code", ["input()", "getpass.getpass()"])
def test_asking_for_the_keyboard_says_that_there_is_none(engine: DirectView, code: str) -> None:
    with pytest.raises(EOFError, match="an engine has no keyboard"):
        engine.execute(code).get(TIMEOUT_S)
    assert engine.apply_sync(abs, -1) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import pdb\npdb.set_trace()", "its client has no prompt"),
        ("import ray\nray.util.pdb.set_trace()", "its client has no prompt"),
        ("%debug", "engines have no debugger"),
    ],
)
def test_debuggers_are_passed_without_a_prompt(engine: DirectView, code: str, reason: str) -> None:
    result = engine.execute(f"{code}\nwent_on = True").get(TIMEOUT_S)
    assert f"was skipped: {reason}" in result.stderr
    assert engine["went_on"]


def test_a_child_that_reads_the_terminal_finds_none(engine: DirectView) -> None:
    result = engine.execute("status = os.system('read answer < /dev/tty')", block=True)
    assert engine["status"] != 0
    assert "/dev/tty" in result.stderr
