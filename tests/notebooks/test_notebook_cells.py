"""One notebook, run from top to bottom without a browser: what stands under each cell afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

# Equal lines of engines are shown once however far apart they come, and no progress where they are slow to.
START = """
import functools
from nsactors.results.live import watching
watching.Merger = functools.partial(watching.Merger, hold_s=30.0)
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
CELLS = {
    "start": START,
    "alike": "%px print('hello'); 3 * 7",
    "apart": "rc[:].scatter('rank', range(3), flatten=True, block=True)\n%px print('rank', rank)",
    "setup": "%px import os; os.chdir({folder!r})",
    "first": ASYNC.format(name="first", options="--out first --targets 0"),
    "second": ASYNC.format(name="second", options="--out second --targets 1,2"),
    "other work": "1 + 1",
    "go": "pathlib.Path('go').touch()\nfirst.wait(30), second.wait(30)",
    "figure": f"%%px --targets 0{FIGURE}",
    "figure, not waited for": f"%%px --noblock --out drawn --targets 0,1{FIGURE}",
    "drawn": "drawn.wait(30)",
    "frame": "%%px --targets 0\nimport pandas\npandas.DataFrame({'a': [1, 2]})",
    "bar": "%%px\nimport sys\nfor i in range(0, 101, 10):\n    sys.stderr.write(f'\\r{i}% done')",
    "updated": "%%px -t 0\nh = display({'text/plain': 'old'}, raw=True, display_id=True)\n"
    "h.update({'text/plain': 'new'}, raw=True)",
    "error": "%px 1 / 0",
    "syntax": "%px 1 +",
    "awaited": "import asyncio\nlview = rc.load_balanced_view()\n"
    "await asyncio.gather(*[lview.apply_async(pow, 2, n) for n in range(4)])",
    "iterated": "[n async for n in lview.map_async(abs, [-3, -1])]",
    "autopx": "%autopx",
    "sent": "here = 'engine'\nhere",
    "autopx off": "%autopx",
    "not here": "'here' in globals()",
    "stop": "cluster.stop_cluster_sync()",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell."""
    folder = tmp_path_factory.mktemp("notebook")
    sources = {name: source.replace("{folder!r}", repr(str(folder))) for name, source in CELLS.items()}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources.values()])
    root = str(Path(__file__).parents[2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", root)
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = nbclient.NotebookClient(
            notebook,
            timeout=90,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def text_of(outputs: list[Any]) -> str:
    """Everything that can be read under a cell."""
    return "\n".join(str(o.get("text") or o.get("data", {}).get("text/plain", "")) for o in outputs)


def images_of(outputs: list[Any]) -> int:
    in_html = sum(o.get("data", {}).get("text/html", "").count("<img ") for o in outputs)
    return in_html + sum("image/png" in o.get("data", {}) for o in outputs)


def test_what_all_engines_print_is_shown_once(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["alike"]).split("\n") == ["[0-2] hello", "", "Out[0-2:1]: 21"]


def test_what_differs_is_labelled_by_engine(cells: dict[str, list[Any]]) -> None:
    assert sorted(text_of(cells["apart"]).split("\n")) == ["", "[0] rank 0", "[1] rank 1", "[2] rank 2"]


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
    assert [o.text for o in cells["bar"] if o.output_type == "stream"] == ["[0-2] 100% done\n"]


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


def test_autopx_sends_cells_until_it_is_turned_off(cells: dict[str, list[Any]]) -> None:
    assert "Out[0-2" in text_of(cells["sent"])
    assert text_of(cells["not here"]) == "False"


def test_nothing_of_ray_is_heard(cells: dict[str, list[Any]]) -> None:
    assert text_of(cells["start"]) == ""
