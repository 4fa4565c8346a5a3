"""Each engine owns one namespace and runs one stream of instructions in it (NS1 to NS5, RQ3, RQ7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nsactors import Client, DirectView
from nsactors.errors import InvalidName
from nsactors.testing import TIMEOUT_S, Gate


def test_a_name_bound_on_one_engine_is_unknown_on_another(rc: Client) -> None:
    rc[0].push({"x": 1}, block=True)
    with pytest.raises(NameError, match="x"):
        rc[1].pull("x", block=True)


@pytest.mark.once
def test_a_name_bound_by_a_cell_on_one_engine_is_unknown_to_a_cell_on_another(rc: Client) -> None:
    rc[0].execute("x = 1", block=True)
    with pytest.raises(NameError, match="x"):
        rc[1].execute("x", block=True)


def test_names_persist_from_call_to_call(rc: Client) -> None:
    view = rc[0]
    for cell in ("a = 5", "b = 10", "c = a + b"):
        view.execute(cell, block=True)
    assert view.execute("print(c)", block=True).stdout == "15\n"


def test_definitions_persist_from_call_to_call(dv: DirectView) -> None:
    dv.execute("import math\ndef area(r):\n    return math.pi * r**2\nclass Circle: pass")
    assert dv.pull("round(area(1), 2), Circle.__name__") == [(3.14, "Circle")] * 4


def test_requests_of_one_client_run_first_in_first_out(rc: Client) -> None:
    view = rc[0]
    view["seen"] = []
    for number in range(100):
        view.execute(f"seen.append({number})")
    assert view.get("seen") == list(range(100))


def test_streams_of_two_clients_are_serialised_and_each_keeps_its_order(
    rc: Client, connect: Callable[..., Client]
) -> None:
    rc[0].push({"seen": []}, block=True)
    clients = {"first": rc, "second": connect()}
    for number in range(30):
        for name, client in clients.items():
            client[0].execute(f"seen.append(({name!r}, {number}))")
    for client in clients.values():
        assert client.wait(timeout=TIMEOUT_S)
    seen = rc[0].get("seen")
    assert {name: [n for who, n in seen if who == name] for name in clients} == {name: [*range(30)] for name in clients}


def test_no_statement_of_one_client_runs_inside_a_cell_of_another(
    rc: Client, connect: Callable[..., Client], gate: Gate
) -> None:
    rc[0].push({"pass_gate": gate.pass_through, "x": 0}, block=True)
    cell = rc[0].execute("before = x; pass_gate(); after = x")
    gate.wait_arrived()
    other = connect()[0].execute("x = 1")
    gate.open()
    cell.get(TIMEOUT_S)
    other.get(TIMEOUT_S)
    assert rc[0].get(["before", "after", "x"]) == [0, 0, 1]


def test_different_code_on_different_engines_overlaps_in_time(rc: Client, gate: Gate) -> None:
    rc[:].push({"pass_gate": gate.pass_through}, block=True)
    results = [rc[i].execute(f"pass_gate(); x = {i}") for i in rc.ids]
    gate.wait_arrived(len(results))  # all of them are inside at once
    gate.open()
    for result in results:
        result.get(TIMEOUT_S)
    assert rc["x"] == [0, 1, 2, 3]


def test_engine_code_reads_files(dv: DirectView, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("17")
    dv["path"] = str(tmp_path / "data")
    dv.execute("from pathlib import Path; x = int(Path(path).read_text())")
    assert dv["x"] == [17] * 4


def test_a_file_of_the_client_is_run_on_every_engine(dv: DirectView, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def twice(x):\n    return 2 * x\ny = twice(21)")
    dv.run(script)
    assert dv["y"] == [42] * 4


@pytest.mark.once
@pytest.mark.parametrize(
    "source",
    ["\ufeffword = 'é'".encode(), "# -*- coding: latin-1 -*-\nword = 'é'".encode("latin-1"), "word = 'é'".encode()],
)
def test_a_file_is_read_as_python_reads_it(dv: DirectView, tmp_path: Path, source: bytes) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(source)
    dv.run(script)
    assert dv["word"] == ["é"] * 4


@pytest.mark.once
def test_running_a_file_that_is_not_there_raises_before_anything_is_sent(dv: DirectView, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dv.run(tmp_path / "missing.py")


@pytest.mark.once
def test_clearing_removes_the_names_of_the_chosen_engines_only(rc: Client) -> None:
    rc["x"] = 1
    rc.clear(targets=[0, 1], block=True)
    assert rc[2:].pull("x", block=True) == [1, 1]
    with pytest.raises(NameError):
        rc[0].pull("x", block=True)


@pytest.mark.once
def test_a_cleared_engine_works_on(rc: Client) -> None:
    rc[0].execute("x = 1", block=True)
    rc[0].clear(block=True)
    rc[0].execute("import math; x = math.factorial(5)", block=True)
    assert rc[0].get("x") == 120


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["a b", "1a", "", "class", "a.b", 3])
def test_pushing_under_what_is_no_name_raises_at_the_call(dv: DirectView, name: object) -> None:
    with pytest.raises(InvalidName):
        dv.push({name: 1, "good": 2})
    with pytest.raises(NameError):
        dv.pull("good", targets=0)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["a b", "", "x =", 3])
def test_pulling_what_is_no_expression_raises_at_the_call(dv: DirectView, name: object) -> None:
    with pytest.raises(InvalidName):
        dv.pull([name])


@pytest.mark.once
def test_an_expression_can_be_pulled(dv: DirectView) -> None:
    dv["a"] = [3, 1, 2]
    assert dv.pull("sorted(a)[0] + len(a)") == [4] * 4


@pytest.mark.once
def test_several_names_are_pulled_as_a_list_for_each_engine(dv: DirectView) -> None:
    dv.push({"a": 1, "b": 2})
    assert dv.pull(["a", "b"]) == [[1, 2]] * 4


def test_pulling_a_missing_name_raises_name_error_with_the_name(rc: Client) -> None:
    with pytest.raises(NameError) as caught:
        rc[0].pull("nowhere", block=True)
    assert caught.value.name == "nowhere"


@pytest.mark.once
def test_pushing_what_is_no_dictionary_raises_at_the_call(dv: DirectView) -> None:
    with pytest.raises(TypeError, match="dictionary"):
        dv.push(["x"])
