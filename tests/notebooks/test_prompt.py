"""IPython at a terminal, typed into through a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gates import wait_until
from tests.notebooks.prompt import Prompt

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


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


def test_a_name_is_explained_by_its_engine(prompt: Prompt) -> None:
    prompt.run("%px thing = {'a': 1}")
    assert "dict" in prompt.run("%px thing?")


def test_numbered_results_come_from_the_engines_history(prompt: Prompt) -> None:
    assert "first = 'ran'" in prompt.run("%result 1")
    assert "IndexError: engine 0 has run no cell 999" in prompt.run("%result 999")


def test_a_figure_is_saved_and_named(prompt: Prompt) -> None:
    prompt.run("%pn 0 import matplotlib.pyplot as plt; f = plt.figure(figsize=(1, 1)); p = plt.plot([1, 2])")
    assert "nsactors-figures/figure-001-engine-0.png" in prompt.run("!ls nsactors-figures/*")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%px", "UsageError: %px runs a line of code"),
        ("%pn 0", "UsageError: %pn names engines and code"),
        ("%pn two x", "UsageError: %pn: engines are named as"),
        ("%px --targts 0 x", "UsageError: %px has no option --targts"),
        ("%pxconfig now", "UsageError: %pxconfig takes options"),
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
    prompt.run("f = open('mine.py', 'w'); f.write('value = 1'); f.close(); import sys; sys.path.insert(0, '')")
    prompt.run("import mine")
    assert "on" in prompt.run("%pxreload")
    prompt.run("f = open('mine.py', 'w'); f.write('value = 22'); f.close()")
    assert prompt.run("%px import mine; print(mine.value)").endswith("] 22")


def test_a_flood_is_cut_and_said_to_be(prompt: Prompt) -> None:
    said = prompt.run("%pn 0 for i in range(100_000): print('line', i)")
    assert "lines left out here" in said
    assert said.endswith("[0] line 99999")
    assert prompt.run("%pn 0 print('alive')") == "[0] alive"


def test_names_of_engines_are_completed(prompt: Prompt) -> None:
    prompt.run("%px only_there = 1")
    assert "only_there" in prompt.run("get_ipython().complete('only_th', '%px only_th', 11)")


def test_results_are_awaited_at_the_prompt(prompt: Prompt) -> None:
    assert prompt.run("await rc[0].apply_async(divmod, 17, 5)").endswith("(3, 2)")
    assert prompt.run("print([n async for n in rc.load_balanced_view().map_async(abs, [-3, -1])])") == "[3, 1]"
    assert "engine 0 · apply(next) · StopIteration" in prompt.run("await rc[0].apply_async(next, iter([]))")


def test_a_view_shows_its_engines_and_what_they_do(prompt: Prompt) -> None:
    wait_until(lambda: "<DirectView: engine 0 idle>" in prompt.run("rc[:1]"))  # it says so in its next report


def test_a_cell_runs_here_too_if_asked(prompt: Prompt) -> None:
    prompt.run_cell("%%px --local --targets 0", "both = 6 * 7")
    assert prompt.run("print(both)") == "42"
    assert prompt.run("%pn 0 print(both)") == "[0] 42"


def test_control_c_sends_another_signal_if_asked(prompt: Prompt) -> None:
    prompt.run("%px import signal, threading; told = threading.Event()")
    prompt.run("%px before = signal.signal(signal.SIGUSR1, lambda *_: told.set())")
    prompt.child.sendline("%px --targets 0 --signal-on-interrupt SIGUSR1 print('waiting'); print(told.wait(20))")
    prompt.wait_for("[0] waiting")
    prompt.interrupt()
    assert prompt.until_prompt().endswith("[0] True")
