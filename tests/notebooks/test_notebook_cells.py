"""One notebook, run from top to bottom without a browser: what stands under each cell afterwards."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

# Equal lines of engines are shown once however far apart they come, and no progress where they are slow to.
START = """
import functools
from nsactors.results.display import live as awaited
awaited.Merger = functools.partial(awaited.Merger, hold_s=30.0)
%load_ext nsactors
%pxconfig --progress-after -1
import nsactors, pathlib, time
cluster = nsactors.Cluster(n=3)
rc = cluster.start_and_connect_sync()
"""
# Each waits for a file that a later cell makes: they are certain to run at the same time.
ASYNC = """%%px --noblock {options}
import pathlib, time
print("{name} begins")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
print("{name} ends")
"""
FIGURE = """
import matplotlib.pyplot as plt
figure = plt.figure(figsize=(1, 1))
plt.plot([1, 2])
"""
WATCH = """
import threading
from IPython.display import DisplayHandle
seen, update = threading.Event(), DisplayHandle.update

def note(self, obj, **kwargs):
    update(self, obj, **kwargs)
    if "KeyError" in obj.data:
        seen.set()

DisplayHandle.update = note
rc.watch()
"""
CELLS = {
    "start": START,
    "alike": "%px print('hello'); 3 * 7",
    "apart": "rc[:].scatter('rank', range(3), flatten=True, block=True)\n%px print('rank', rank)",
    "setup": "%px import os; os.chdir({folder!r})",
    "first": ASYNC.format(name="first", options="--out first --targets 0"),
    "second": ASYNC.format(name="second", options="--out second --targets 1,2"),
    "other work": "1 + 1",
    "go": "pathlib.Path('go').touch()\nfirst.wait(200), second.wait(200)",
    "figure": f"%%px --targets 0{FIGURE}",
    "figure, not waited for": f"%%px --noblock --out drawn --targets 0,1{FIGURE}",
    "drawn": "drawn.wait(200)",
    "frame": "%%px --targets 0\nimport pandas\npandas.DataFrame({'a': [1, 2]})",
    "bar": "%%px\nimport sys\nfor i in range(0, 101, 10):\n    sys.stderr.write(f'\\r{i}% done')",
    "updated": "%%px -t 0\nh = display({'text/plain': 'old'}, raw=True, display_id=True)\n"
    "h.update({'text/plain': 'new'}, raw=True)",
    "error": "%px 1 / 0",
    "syntax": "%px 1 +",
    "awaited": "import asyncio\nlview = rc.load_balanced_view()\n"
    "await asyncio.gather(*[lview.apply_async(pow, 2, n) for n in range(4)])",
    "printed by items": "def speak(item):\n"
    "    for line in range(3):\n"
    "        print(f'item {item} line {line}')\n"
    "    if item % 10 == 0:\n"
    "        raise ValueError(item)\n"
    "done = lview.map_sync(speak, range(1_000), return_exceptions=True)\n"
    "sum(isinstance(one, ValueError) for one in done)",
    "printed by calls": "rc[:].apply_sync(print, 'hello')",
    "printed by an awaited call": "await rc[0].apply_async(print, 'hello')",
    "waited for in silence": "late = rc[0].apply_async(print, 'late')\nlate.wait(200)",
    "then displayed": "late.display_outputs()\nlate.display_outputs()",
    "cleared": "%%px\nfrom IPython.display import clear_output\nfor step in range(5):\n"
    "    clear_output(wait=True)\n    print('step', step)",
    "figures": "%%px\nimport time\nimport matplotlib.pyplot as plt\ntime.sleep((2 - rank) / 5)\n"
    "plt.figure(figsize=(1, 1))\nplt.plot([rank])\nNone",
    "error, not waited for": "%px --noblock --out failed 1 / 0",
    "it has failed": "failed.wait(200)",
    "nothing more is said": "time.sleep(0.5)\nNone",
    "iterated": "[n async for n in lview.map_async(abs, [-3, -1])]",
    "autopx": "%autopx",
    "sent": "here = 'engine'\nhere",
    "autopx off": "%autopx",
    "not here": "'here' in globals()",
    "history": "rc.history()[-5:]",
    "map": "m = lview.map_async(abs, range(-200, 0)); m.wait(200); m",
    "nothing": "rc.tasks()",
    "watch": WATCH,
    "watched": "%pn 0 {}['watched']",
    "seen": "seen.wait(200)",
    "stop": "cluster.stop_cluster_sync()",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell."""
    import nbclient  # these take seconds to import, for which every process that collects tests would wait
    import nbformat

    folder = tmp_path_factory.mktemp("notebook")
    sources = {name: source.replace("{folder!r}", repr(str(folder))) for name, source in CELLS.items()}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources.values()])
    root = str(Path(__file__).parents[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", root)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = nbclient.NotebookClient(
            notebook,
            timeout=250,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def text_of(outputs: list[Any]) -> str:
    """Everything that can be read under a cell."""
    return "\n".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs)


DISPLAYED = ["[stdout: engine 0]", "late", ""]  # a kernel may send the lines in one message, or in two


def by_engine(text: str) -> dict[int, list[str]]:
    """The lines of each engine; how many engines share a line depends on when each of them has printed it."""
    lines: dict[int, list[str]] = defaultdict(list)
    for line in filter(None, text.splitlines()):
        first, last, printed = re.fullmatch(r"\[(\d)(?:-(\d))?\] (.*)", line).groups()  # type: ignore[union-attr]
        for engine in range(int(first), int(last or first) + 1):
            lines[engine].append(printed)
    return lines


def images_of(outputs: list[Any]) -> int:
    in_html = sum(o.get("data", {}).get("text/html", "").count("<img ") for o in outputs)
    return in_html + sum("image/png" in o.get("data", {}) for o in outputs)


def test_what_all_engines_print_is_shown_once(cells: dict[str, list[Any]]) -> None:
    *printed, value = cells["alike"]
    assert by_engine(text_of(printed)) == {0: ["hello"], 1: ["hello"], 2: ["hello"]}
    assert text_of([value]) == "Out[0-2:1]: 21"


def test_what_differs_is_labelled_by_engine(cells: dict[str, list[Any]]) -> None:
    lines = text_of(cells["apart"]).splitlines()  # a kernel may send them in several messages
    assert sorted(filter(None, lines)) == ["[0] rank 0", "[1] rank 1", "[2] rank 2"]


@pytest.mark.parametrize(("name", "engines"), [("first", ["[0]"]), ("second", ["[1]", "[2]", "[1-2]"])])
def test_output_of_asynchronous_cells_stands_under_each(
    cells: dict[str, list[Any]], name: str, engines: list[str]
) -> None:
    lines = cells[name][0].data["text/plain"].splitlines()
    assert {line.split(" ", 1)[1] for line in lines} == {f"{name} begins", f"{name} ends"}
    assert {line.split(" ", 1)[0] for line in lines} <= set(engines)


def test_other_cells_stay_clean(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["other work"]) == "2"
    assert text_of(cells["go"]) == "(True, True)"


def test_a_figure_is_an_image_under_its_cell(cells: dict[str, list[Any]]) -> None:
    assert images_of(cells["figure"]) == 1


def test_figures_of_an_asynchronous_cell_are_images_under_it(cells: dict[str, list[Any]]) -> None:
    assert images_of(cells["figure, not waited for"]) in (1, 2)
    assert images_of(cells["drawn"]) == 0


def test_a_data_frame_keeps_its_html(cells: dict[str, list[Any]]) -> None:
    (output,) = cells["frame"]
    assert "<table" in output.data["text/html"]
    assert "Out[0" in output.data["text/html"]


def test_of_a_progress_bar_the_last_state_is_kept(cells: dict[str, list[Any]]) -> None:
    bars = "".join(o.text for o in cells["bar"] if o.output_type == "stream")
    assert by_engine(bars) == {engine: ["100% done"] for engine in range(3)}


def test_a_display_is_updated_in_place(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["updated"]) == "[0] new"


@pytest.mark.parametrize(("name", "kind"), [("error", "ZeroDivisionError"), ("syntax", "SyntaxError")])
def test_errors_are_drawn_as_composites(cells: dict[str, list[Any]], name: str, kind: str) -> None:
    (output,) = (o for o in cells[name] if o.output_type == "error")
    assert output.ename == "CompositeError"
    drawn = "\n".join(output.traceback)
    assert kind in drawn
    assert "magics" not in drawn


def test_results_are_awaited_in_cells(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["awaited"]) == "[1, 2, 4, 8]"
    assert text_of(cells["iterated"]) == "[3, 1]"


def test_requests_and_the_parts_of_a_map_are_html_tables(cells: dict[str, list[Any]]) -> None:
    for name, words in (("history", ("started", "outcome")), ("map", ("items", "done"))):
        (output,) = cells[name]
        assert "<table>" in output.data["text/html"]
        assert all(word in output.data["text/html"] for word in words)
    assert text_of(cells["nothing"]) == "no tasks"


def test_the_activity_under_a_cell_is_kept_up_to_date_after_it(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["seen"]) == "True"
    (output,) = cells["watch"]
    assert "KeyError: execute" in output.data["text/html"]


def test_of_a_thousand_items_every_line_arrives_once_and_in_order(cells: dict[str, list[Any]]) -> None:
    *printed, value = cells["printed by items"]
    assert value.data["text/plain"] == "100"
    lines: dict[int, list[int]] = defaultdict(list)
    for line in "".join(output.text for output in printed).splitlines():
        item, number = map(int, re.fullmatch(r"\[[012]\] item (\d+) line (\d)", line).groups())  # type: ignore[union-attr]
        lines[item].append(number)
    assert lines == {item: [0, 1, 2] for item in range(1_000)}


def test_what_calls_print_is_shown_to_who_waits_for_them(cells: dict[str, list[Any]]) -> None:
    *printed, _ = cells["printed by calls"]
    assert by_engine(text_of(printed)) == {engine: ["hello"] for engine in range(3)}
    assert text_of(cells["printed by an awaited call"]) == "[0] hello\n"
    assert text_of(cells["waited for in silence"]) == "True"
    assert text_of(cells["then displayed"]).split("\n") in (DISPLAYED, [DISPLAYED[0], "", *DISPLAYED[1:]])


def test_what_engines_clear_goes(cells: dict[str, list[Any]]) -> None:
    (output,) = cells["cleared"]
    assert by_engine(output.data["text/plain"]) == {engine: ["step 4"] for engine in range(3)}


def test_figures_come_in_the_order_of_the_engines(cells: dict[str, list[Any]]) -> None:
    assert images_of(cells["figures"]) == 3
    assert [o.text for o in cells["figures"] if o.output_type == "stream"] == ["[0]\n", "[1]\n", "[2]\n"]


def test_an_error_that_nobody_waits_for_is_shown_once(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["error, not waited for"]).count("ZeroDivisionError") == 1
    assert text_of(cells["it has failed"]) == "True"
    assert text_of(cells["nothing more is said"]) == ""


def test_autopx_sends_cells_until_it_is_turned_off(cells: dict[str, list[Any]]) -> None:
    assert "Out[0-2" in text_of(cells["sent"])
    assert text_of(cells["not here"]) == "False"


def test_nothing_of_ray_is_heard(cells: dict[str, list[Any]]) -> None:
    # Of ours there is one line, if the start took long enough to show how far it was.
    assert re.fullmatch(r"(starting 3 engines: 3/3 engines, [\d.]+ s)?", text_of(cells["start"]).strip())
