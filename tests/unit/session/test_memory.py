"""The tables that ``rc.memory()`` shows."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from nsactors.protocol.engine_info import EngineMemory, NameMemory, NamespaceMemory, ProcessMemory, Size, StoreMemory
from nsactors.session.memory import ClusterMemory

MB = 1_000_000
STORE = StoreMemory("host-a", "node-1", capacity=200 * MB, used=50 * MB, spilled=0)


def holding(mb: int, unique: int = 90, store: StoreMemory | None = STORE, others: int = 0) -> EngineMemory:
    name = NameMemory("table", "ndarray", Size(0, mb * MB))
    namespace = NamespaceMemory((name,), others, Size(MB, mb * MB))
    return EngineMemory(namespace, ProcessMemory(unique * MB, 2 * unique * MB), store)


def row(memory: ClusterMemory, text: str) -> str:
    return next(line for line in str(memory).splitlines() if text in line)


def test_engines_that_hold_the_same_share_their_rows() -> None:
    memory = ClusterMemory({0: holding(80), 1: holding(80, unique=95), 2: holding(40)})
    assert "engines 0-1" in row(memory, "80 MB")
    assert "engine 2" in row(memory, "40 MB")
    assert "90 MB - 95 MB" in row(memory, "the process")


def test_bars_compare_names() -> None:
    memory = ClusterMemory({0: holding(80), 1: holding(40)})
    assert row(memory, "80 MB").count("█") == 2 * row(memory, "40 MB").count("█") == 12


def test_names_that_are_not_shown_are_counted() -> None:
    assert row(ClusterMemory({0: holding(80, others=4)}), "5 names")


def test_an_engine_that_does_not_answer_is_named() -> None:
    assert "engine 1" in row(ClusterMemory({0: holding(80)}, silent=(1,)), "no answer")


def test_each_store_is_shown_once() -> None:
    other = STORE._replace(node="host-b", node_id="node-2")
    memory = ClusterMemory({0: holding(1), 1: holding(1), 2: holding(1, store=other)})
    assert [store.node for store in memory.stores] == ["host-a", "host-b"]
    assert row(memory, "host-a").split("│")[2:4] == [" 50 MB ", " 200 MB "]


def test_what_does_not_fit_into_the_store_is_on_disk() -> None:
    full = STORE._replace(used=260 * MB, spilled=10 * MB)
    memory = ClusterMemory({0: holding(1, store=full)})
    assert (full.free, full.on_disk) == (0, 70 * MB)
    assert "200 MB │ 200 MB │   70 MB" in row(memory, "host-a")


def test_without_a_store_there_is_no_table_of_stores() -> None:
    assert "store" not in str(ClusterMemory({0: holding(80, store=None)}))


def test_an_empty_namespace_has_a_row_too() -> None:
    empty = EngineMemory(NamespaceMemory((), 0, Size()))
    assert "engine 3" in row(ClusterMemory({3: empty}), "0 names")


def shown_at_the_prompt(memory: ClusterMemory) -> str:
    shown: list[str] = []
    printer: Any = SimpleNamespace(text=shown.append)
    memory._repr_pretty_(printer, cycle=False)
    return "".join(shown)


def test_a_prompt_shows_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    memory = ClusterMemory({0: holding(80)})
    assert shown_at_the_prompt(memory) == str(memory)


def test_the_row_of_all_names_is_bold_at_a_terminal_and_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    memory = ClusterMemory({0: holding(80)})
    line = next(line for line in shown_at_the_prompt(memory).splitlines() if "1 name" in line)
    assert "\x1b[1m1 name" in line
    assert 'font-weight:bold">1 name<' in memory._repr_html_()
    assert 'color:grey">the process<' in memory._repr_html_()


def test_rich_and_notebooks_show_both_tables() -> None:
    memory = ClusterMemory({0: holding(80)})
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(memory)
    assert "what engines hold" in capture.get()
    assert memory._repr_html_().count("<table>") == 2


# What a call carries besides its function's code: found by name, told once.
