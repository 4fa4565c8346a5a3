"""IPython at a terminal, typed into through a pseudo-terminal."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.notebooks.prompt import Prompt

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """A session in which ``%px`` has started engines by itself."""
    prompt = Prompt(tmp_path_factory.mktemp("prompt"))
    try:
        prompt.run("%load_ext nsactors")
        prompt.run("%pxconfig --progress-after -1")  # it would stand beside the output where that is slow to come
        assert "No cluster yet: starting" in prompt.run("%px first = 'ran'")
        prompt.run("%px import time, os; n = 2")
        yield prompt
        prompt.leave()
    finally:
        prompt.close()


def test_the_cell_that_started_the_cluster_has_run_first(prompt: Prompt) -> None:
    assert "'ran'" in prompt.run("%pn 0 first")


def test_the_engines_have_a_name_here(prompt: Prompt) -> None:
    assert "0" in prompt.run("rc.ids")


def test_a_line_is_labelled_by_its_engine(prompt: Prompt) -> None:
    assert prompt.run("%pn 0 print('hello')") == "[0] hello"


def test_control_c_interrupts_a_cell_and_keeps_names(prompt: Prompt) -> None:
    prompt.child.sendline("%pn 0 kept = 5; print('sleeping'); time.sleep(60)")
    prompt.wait_for("[0] sleeping")
    prompt.interrupt()
    assert "KeyboardInterrupt" in prompt.until_prompt()
    assert prompt.run("%pn 0 print(kept)") == "[0] 5"


def test_control_c_interrupts_a_shell_command(prompt: Prompt) -> None:
    prompt.child.sendline("%pn 0 !echo started; sleep 100")
    prompt.wait_for("[0] started")
    prompt.interrupt()
    assert "KeyboardInterrupt" in prompt.until_prompt()
    assert prompt.run("%pn 0 print(n)") == "[0] 2"


def test_output_of_work_that_nobody_waits_for_comes_at_the_prompt(prompt: Prompt) -> None:
    prompt.run("ar = %px --noblock --targets 0 print('later')")
    assert "True" in prompt.run("ar.wait()")
    prompt.child.sendline("")
    prompt.child.expect(r"In \[\d+\]: ")
    assert prompt.run("ar.get().stdout").endswith("'later\\n'")


def test_autopx_runs_cells_on_engines(prompt: Prompt) -> None:
    assert "enabled" in prompt.run("%autopx")
    assert "Out[0" in prompt.run("os.getpid() > 0")
    assert "disabled" in prompt.run("%autopx")
    assert "NameError" in prompt.run("kept")


def test_the_debugger_opens_the_frames_of_engines(prompt: Prompt) -> None:
    prompt.run("older = {}['of this process']")
    prompt.run("%px def halve(x): part = x + 1; return part / 0")
    assert "ZeroDivisionError" in prompt.run("%px halve(n)")
    prompt.child.sendline("%debug")
    prompt.wait_for("ipdb engine 0> ")
    assert "halve() <cell " in prompt.child.before
    assert "older" not in prompt.child.before
    for typed, answer in (("all part", "3"), ("up", "halve(n)"), ("n", "the code has ended")):
        prompt.child.sendline(typed)
        prompt.wait_for("ipdb engine 0> ")
        assert answer in prompt.child.before
    prompt.interrupt()
    prompt.wait_for("ipdb engine 0> ")
    assert prompt.child.before.strip().endswith("KeyboardInterrupt")
    prompt.run("q")
    assert "[0] 2" in prompt.run("%pn 0 print(n)")
    prompt.child.sendline("%pxdebug 0")
    prompt.wait_for("ipdb engine 0> ")
    prompt.run("q")
    prompt.run("%pxdebug --forget")
    assert "UsageError: no debugger was opened" in prompt.run("%pxdebug")


def test_requests_are_a_table_at_the_prompt(prompt: Prompt) -> None:
    assert "outcome" in prompt.run("rc.history()[-3:]")


def test_a_name_is_explained_by_its_engine(prompt: Prompt) -> None:
    prompt.run("%px thing = {'a': 1}")
    assert "dict" in prompt.run("%px thing?")


def test_the_stacks_of_engines_are_a_table_at_the_prompt(prompt: Prompt) -> None:
    assert "idle" in prompt.run("%pxstack 0")


def test_values_of_engines_are_peeked_at_with_equal_ones_once(prompt: Prompt) -> None:
    prompt.run("%px peeked = [1, 2]")
    assert "[0-1] 2" in prompt.run("%pxpeek len(peeked)")
    assert "[1] [1, 2]" in prompt.run("%pxpeek 1 peeked")
    assert "peeked" in prompt.run("%pxwhos 0")


def test_a_cell_is_profiled(prompt: Prompt) -> None:
    prompt.run("%px def busy(): return abs(-1)")
    said = prompt.run("%px --profile=calls busy()")
    assert "calls on engines 0-1" in said
    assert "busy" in said.partition("calls on engines 0-1")[2]  # other names are folded in a narrow table


def test_numbered_results_come_from_the_engines_history(prompt: Prompt) -> None:
    assert "first = 'ran'" in prompt.run("%result 1")
    assert "UsageError: %result: no cell 999 on engine" in prompt.run("%result 999")


def test_what_an_engine_has_run_is_written_as_a_script(prompt: Prompt) -> None:
    prompt.run("%pn 0 !true")
    said = prompt.run("%pxhistory 0 -f history.py")
    assert "The history of engine 0 is in history.py: run it with ipython history.py" in said
    shown = prompt.run("!cat history.py")
    assert "first = 'ran'" in shown
    assert "get_ipython().system('true')" in shown
    assert "history.py exists already" in prompt.run("%pxhistory 0 -f history.py")
    assert "history-1.py" in prompt.run("%pxhistory -f history-{engine}.py")


def test_a_figure_is_saved_and_named(prompt: Prompt) -> None:
    prompt.run("%pn 0 import matplotlib.pyplot as plt; f = plt.figure(figsize=(1, 1)); p = plt.plot([1, 2])")
    assert "nsactors-figures/figure-001-engine-0.png" in prompt.run("!ls nsactors-figures/*")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%px", "UsageError: %px runs a line of code"),
        ("%pn 0", "UsageError: %pn names engines and code"),
        ("%pn two x", "UsageError: %pn: engines are written as"),
        ("%px --targts 0 x", "UsageError: %px has no option --targts"),
        ("%px -t 0 x = 1", "UsageError: %px takes long options, before the code: %px --targets 0 x = 1"),
        (
            "%px --block x = 1 --targets 0",
            "UsageError: %px takes long options, before the code: %px --block --targets 0",
        ),
        ("%pn 0 -a f()", "UsageError: %pn takes long options, before the code: %px --targets 0 --noblock f()"),
        ("%pxstack --all", "UsageError: %pxstack has no option --all"),
        ("%pxstack 0 1", "UsageError: %pxstack takes engines, not '1'"),
        ("%pxpeek", "UsageError: %pxpeek takes an expression"),
        ("%pxpeek 0 x = 1", "InvalidName"),
        ("%px --profile=x 1", "UsageError: %px --profile: a profile is made by sample, calls or memory, not by 'x'"),
        ("%px --profile-out x.txt 1", "UsageError: %px --profile-out takes a name that ends in .prof"),
        ("%px --noblock --profile 1", "UsageError: %px --profile waits for the cell"),
        ("%pxconfig now", "UsageError: %pxconfig takes options"),
        ("%result 1 -e", "UsageError: %result takes the number of a cell, or options, but not both"),
        ("%autopx off", "UsageError: %autopx takes nothing else"),
        ("%pxhistory 0 -f no/x.py", "UsageError: %pxhistory -f cannot write 'no/x.py': No such file"),
        ("%px --targets 99 x", "NoSuchEngine"),
    ],
)
def test_a_mistake_is_told_in_one_line(prompt: Prompt, line: str, message: str) -> None:
    assert message in prompt.run(line)


def test_views_get_magics_of_their_own(prompt: Prompt) -> None:
    prompt.run("rc[:1].activate('_one')")
    prompt.run("%pxconfig_one --progress-after -1")
    assert prompt.run("%px_one print('mine')") == "[0] mine"


def test_an_edited_module_reaches_the_engines_with_the_next_cell(prompt: Prompt) -> None:
    prompt.run("f = open('mine.py', 'w'); f.write('value = 1'); f.close()")
    prompt.run("import mine")
    assert prompt.run("%px import mine; print(mine.value)").endswith("] 1")
    prompt.run("f = open('mine.py', 'w'); f.write('value = 22'); f.close()")
    said = prompt.run("%px print(mine.value)")
    assert "] 1" in said
    assert "mine: edited since imported here, and engines run what was imported" in said
    assert "on" in prompt.run("%pxreload")
    assert prompt.run("%px print(mine.value)").endswith("] 22")
    prompt.run("%pxreload off")
    prompt.run("%load_ext autoreload")
    prompt.run("%autoreload 2")
    prompt.run("f = open('mine.py', 'w'); f.write('value = 333'); f.close()")
    assert prompt.run("%px print(mine.value)").endswith("] 333")
    prompt.run("%autoreload 0")


def test_a_name_that_only_the_prompt_has_is_said_to_be_pushed(prompt: Prompt) -> None:
    prompt.run("only_here = 1")
    assert "only_here exists here, and not on the engine: push it" in prompt.run("%px only_here")


def test_a_flood_is_cut_and_said_to_be(prompt: Prompt) -> None:
    said = prompt.run("%pn 0 for i in range(100_000): print('line', i)")
    assert "lines left out here" in said
    assert said.endswith("[0] line 99999")
    assert prompt.run("%pn 0 print('alive')") == "[0] alive"


def test_of_a_thousand_items_every_line_arrives_once_and_in_order(prompt: Prompt) -> None:
    speak = (
        "def speak(item):\n"
        "    for line in range(3): print('item', item, 'line', line)\n"
        "    if item % 10 == 0: raise ValueError(item)"
    )
    prompt.run(f"exec({speak!r})")
    said = prompt.run("len(rc.load_balanced_view().map_sync(speak, range(1_000), return_exceptions=True))")
    *printed, value = said.splitlines()
    assert value.endswith(": 1000")
    lines: dict[int, list[int]] = defaultdict(list)
    for line in printed:
        if found := re.fullmatch(r"\[\d+\] item (\d+) line (\d)", line):
            lines[int(found[1])].append(int(found[2]))
    assert lines == {item: [0, 1, 2] for item in range(1_000)}


def test_a_million_lines_of_tasks_are_cut_and_take_little_memory(prompt: Prompt) -> None:
    prompt.run("import psutil; rss = lambda: psutil.Process().memory_info().rss; before = rss()")
    prompt.run("flood = lambda item: print(*(f'item {item} line {n}' for n in range(1_000)), sep='\\n')")
    said = prompt.run("result = rc.load_balanced_view().map_async(flood, range(1_000)); result.get()[:1]")
    assert "lines left out here" in said
    assert prompt.run("print(rss() - before < 200_000_000)") == "True"
    assert prompt.run("print(sum(text.count('line') for text in result.stdout))") == "1000000"
    prompt.run("del result")


def test_a_value_of_all_engines_is_one_line(prompt: Prompt) -> None:
    said = prompt.run("%px time.sleep(os.getpid() % 3 / 5); 6 * 7")
    assert re.fullmatch(r"Out\[0(-\d+)?(:\d+)?\]: 42", said)


def test_bars_of_several_lines_are_drawn_while_they_move(prompt: Prompt, tmp_path: Path) -> None:
    go = tmp_path / "go"
    prompt.run(f"%pn 0 import rich.progress, pathlib; go = pathlib.Path({str(go)!r})")
    bars = "with rich.progress.Progress() as p: a, b = p.add_task('first'), p.add_task('second')"
    prompt.child.sendline(
        f"%pn 0 {bars}; [time.sleep(0.05) for _ in iter(go.exists, True)]; p.update(b, completed=100)"
    )
    prompt.wait_for("second")
    go.touch()
    assert re.search(r"\[0\] first [^\[\n]*0%.*\n\[0\] second [^\[\n]*100%", prompt.until_prompt())


def test_names_of_engines_are_completed(prompt: Prompt) -> None:
    prompt.run("%px only_there = 1")
    assert "only_there" in prompt.run("get_ipython().complete('only_th', '%px only_th', 11)")


def test_results_are_awaited_at_the_prompt(prompt: Prompt) -> None:
    assert prompt.run("await rc[0].apply_async(divmod, 17, 5)").endswith("(3, 2)")
    assert prompt.run("print([n async for n in rc.load_balanced_view().map_async(abs, [-3, -1])])") == "[3, 1]"
    assert "engine 0 · apply(next) · StopIteration" in prompt.run("await rc[0].apply_async(next, iter([]))")


def test_a_view_shows_its_engines_and_what_they_do(prompt: Prompt) -> None:
    wait_until(lambda: "<DirectView: engine 0 idle>" in prompt.run("rc[:1]"))  # the engine reports this a moment later


def test_a_cell_runs_here_too_if_asked(prompt: Prompt) -> None:
    prompt.run_cell("%%px --local --targets 0", "both = 6 * 7")
    assert prompt.run("print(both)") == "42"
    assert prompt.run("%pn 0 print(both)") == "[0] 42"


def test_control_c_sends_another_signal_if_asked(prompt: Prompt) -> None:
    prompt.run("%px import signal, threading; told = threading.Event()")
    prompt.run("%px before = signal.signal(signal.SIGUSR1, lambda *_: told.set())")
    prompt.child.sendline("%px --targets 0 --signal-on-interrupt SIGUSR1 print('waiting'); print(told.wait(100))")
    prompt.wait_for("[0] waiting")
    prompt.interrupt()
    assert prompt.until_prompt().endswith("[0] True")
