"""Clients and results as rich and notebooks show them; screens that need no IPython."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from IPython.lib.pretty import pretty
from rich.console import Console

from nsactors import Client, Cluster
from nsactors.protocol.messages import Display, ExecuteResult, RequestId
from nsactors.results import Call
from nsactors.results.display.merging import Shown, TextLine
from nsactors.results.display.notebook import document
from nsactors.results.display.outputs import cell_values, values_as_html, values_as_text
from nsactors.results.display.terminal import TerminalScreen
from nsactors.testing import Gate, open_gate


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=2, backend="local") as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with open_gate(tmp_path / "gate") as gate:
        yield gate


def drawn(thing: object) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_a_client_is_a_table_of_its_engines(rc: Client) -> None:
    assert drawn(rc).count("idle") == 2
    assert rc._repr_html_().count(">idle</td>") == 2


def test_a_view_is_a_table_of_its_engines_alone(rc: Client) -> None:
    assert drawn(rc[1]).count("idle") == 1
    assert rc[1]._repr_html_().count(">idle</td>") == 1


def test_a_view_tells_at_the_prompt_what_its_engines_do(rc: Client, gate: Gate) -> None:
    result = rc[0].apply_async(gate.pass_through)
    gate.wait_arrived()
    assert pretty(rc[:]) == "<DirectView: engine 0 busy (1 call open), engine 1 idle>"
    gate.open()
    result.get()
    assert pretty(rc[:]) == "<DirectView: engines 0-1 idle>"


def test_a_view_of_a_stopped_cluster_has_no_engines() -> None:
    with Cluster(n=1, backend="local") as client:
        view = client[:]
    assert pretty(view) == "<DirectView: no engines>"


def test_a_result_is_a_table_of_its_engines(rc: Client) -> None:
    result = rc[:].execute("1 / (len('a') - 1)", block=False)
    result.wait()
    assert drawn(result).count("ZeroDivisionError") == 2
    assert result._repr_html_().count(">ZeroDivisionError</td>") == 2
    result.exception()


def test_output_can_be_streamed_from_a_script(rc: Client) -> None:
    with redirect_stdout(io.StringIO()) as printed:
        result = rc[:].execute("print('hello')")
        with result.stream_output():
            result.get()
    assert printed.getvalue().count("hello") >= 1


def test_a_figure_is_saved_under_the_next_free_number(tmp_path: Path) -> None:
    screen = TerminalScreen(folder=tmp_path)
    with redirect_stdout(io.StringIO()) as printed:
        screen.show(
            [Shown((0,), Display({"image/svg+xml": "<svg/>"}, {})), Shown((0, 1), Display({"image/png": ""}, {}))]
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure-001-engine-0.svg", "figure-002-engine-0-1.png"]
    assert printed.getvalue().startswith("[0] figure saved as ")


def test_text_for_a_pipe_is_plain(tmp_path: Path) -> None:
    with redirect_stdout(io.StringIO()) as printed:
        TerminalScreen().show(
            [
                Shown((0, 1), TextLine("stdout", "[red]a\x1b[31mb\x1b[0m")),
                Shown((2,), ExecuteResult(3, {"text/plain": "7"}, {})),
            ]
        )
    assert printed.getvalue() == "[0-1] [red]ab\nOut[2:3]: 7\n"


def test_a_document_escapes_text_and_keeps_html_and_images() -> None:
    bundle = document(
        [
            Shown((0,), TextLine("stdout", "<b>")),
            Shown((0,), Display({"text/html": "<table></table>", "text/plain": "t"}, {})),
            Shown((1,), Display({"image/png": "AAAA", "text/plain": "<Figure>"}, {})),
        ],
        "running",
    )
    assert bundle["text/plain"] == "[0] <b>\n[0] t\n[1] <Figure>\nrunning"
    assert "<pre>[0] &lt;b&gt;</pre>" in bundle["text/html"]
    assert "<table></table>" in bundle["text/html"]
    assert 'src="data:image/png;base64,AAAA"' in bundle["text/html"]


def test_a_cell_that_has_ended_shows_its_value(rc: Client) -> None:
    result = rc[:].execute("6 * 7", silent=False, block=True)
    alike = [Call(RequestId("ann", i), i, "execute", True, done=True) for i in range(3)]
    for call, text in zip(alike, ("7", "8", "7"), strict=True):
        call.output.chunks.append(ExecuteResult(1, {"text/plain": text}, {}))
    values = cell_values(alike)
    assert values == [([0, 2], {"text/plain": "7"}), ([1], {"text/plain": "8"})]
    assert values_as_text(values, single=False) == "[0, 2] 7\n[1] 8"
    assert values_as_text(values[:1], single=True) == "7"
    assert values_as_html(values, single=False) is None
    assert pretty(result) == "[0-1] 42"
    assert pretty(rc[0].execute("6 * 7", silent=False, block=True)) == "42"


def test_a_frame_is_shown_as_one() -> None:
    html = values_as_html(
        [([0, 1], {"text/html": "<table></table>", "text/plain": "t"}), ([2], {"text/plain": "<"})], single=False
    )
    assert html == "<div>[0-1]</div><table></table><div>[2]</div><pre>&lt;</pre>"


def test_a_cell_without_a_value_shows_nothing_and_one_that_failed_says_so(rc: Client) -> None:
    assert rc[:].execute("a = 1", block=True).shows_nothing
    assert rc[0].execute("a = 1").get().shows_nothing
    failed = rc[:].execute("1 / 0", block=False)
    failed.exception()
    assert not failed.shows_nothing
    assert pretty(failed) == repr(failed) == "<AsyncResult(execute): failed>"
    assert not rc[:].apply_async(abs, -1).shows_nothing
