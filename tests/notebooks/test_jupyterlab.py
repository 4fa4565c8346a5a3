"""Asynchronous cells in JupyterLab, as a browser shows them."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from nsactors.testing import wait_until
from tests.notebooks.jupyterlab import CHROMIUM, CHROMIUM_DRIVER, LONG_S, Seen, open_lab

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (CHROMIUM and CHROMIUM_DRIVER and find_spec("jupyterlab") and find_spec("selenium")),
        reason="needs chromium, chromium-driver, jupyterlab and selenium",
    ),
]

# Both cells wait for a file that the test makes: they are certain to run at the same time.
ASYNC = """%%px --noblock --out {name} --targets {targets}
print("{name} begins")
while not go.exists():
    time.sleep(0.05)
print("{name} ends")
plt.figure(figsize=(1, 1))
plt.plot([1, rank]);"""
CELLS = [
    "%load_ext nsactors\nimport nsactors\ncluster = nsactors.Cluster(n=4)\nrc = cluster.start_and_connect_sync()",
    "%%px\nimport matplotlib.pyplot as plt, pathlib, time\ngo = pathlib.Path({go!r})",
    "rc.scatter_all('rank', range(4), flatten=True)\n'ready'",
    ASYNC.format(name="first", targets="0,1"),
    ASYNC.format(name="second", targets="2,3"),
    "'other work'",
    "first.wait(200), second.wait(200)",
    "cluster.stop_cluster_sync()\n'stopped'",
]
READY, FIRST, SECOND, OTHER, WAITED, STOPPED = range(2, 8)
PICTURES = "NSACTORS_TEST_PICTURES"
"""Names a folder for pictures of the browser, for those who want to look."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    """The output under each cell, while asynchronous cells ran and after their end."""
    import nbformat  # it takes seconds to import, for which every process that collects tests would wait

    folder = tmp_path_factory.mktemp("lab")
    go = folder / "go"
    sources = [source.replace("{go!r}", repr(str(go))) for source in CELLS]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )
    nbformat.write(notebook, folder / "two.ipynb")
    stages: dict[str, list[Seen]] = {}
    with open_lab(folder / "two.ipynb") as lab:

        def take(stage: str) -> None:
            stages[stage] = [lab.seen(cell) for cell in range(len(CELLS))]
            if PICTURES in os.environ:
                lab.browser.save_screenshot(f"{os.environ[PICTURES]}/{stage}.png")

        lab.click_first_cell()
        lab.run_cells(OTHER + 1)
        wait_until(
            lambda: all("begins" in lab.seen(cell).text for cell in (FIRST, SECOND)) and lab.seen(OTHER).text, LONG_S
        )
        take("running")
        go.touch()
        wait_until(lambda: all(lab.seen(cell).images == 2 for cell in (FIRST, SECOND)), LONG_S)
        lab.run_cells(2)
        wait_until(lambda: "stopped" in lab.seen(STOPPED).text, LONG_S)
        take("done")
    return stages


@pytest.mark.parametrize(("cell", "name"), [(FIRST, "first"), (SECOND, "second")])
def test_lines_appear_under_their_cell_while_it_runs(seen: dict[str, list[Seen]], cell: int, name: str) -> None:
    text = seen["running"][cell].text
    assert f"{name} begins" in text
    assert " ends" not in text


@pytest.mark.parametrize(("cell", "name", "other"), [(FIRST, "first", "second"), (SECOND, "second", "first")])
def test_each_cell_has_all_its_lines_and_no_others(
    seen: dict[str, list[Seen]], cell: int, name: str, other: str
) -> None:
    text = seen["done"][cell].text
    assert f"{name} begins" in text
    assert f"{name} ends" in text
    assert f"{other} " not in text


@pytest.mark.parametrize(("cell", "labels"), [(FIRST, ["[0]", "[1]"]), (SECOND, ["[2]", "[3]"])])
def test_each_engines_figure_is_under_its_cell(seen: dict[str, list[Seen]], cell: int, labels: list[str]) -> None:
    assert seen["done"][cell].images == 2
    assert all(label in seen["done"][cell].text for label in labels)


def test_other_cells_stay_clean(seen: dict[str, list[Seen]]) -> None:
    for cell, text in ((READY, "'ready'"), (OTHER, "'other work'"), (WAITED, "(True, True)")):
        assert seen["done"][cell].text.endswith(text)
        assert "begins" not in seen["done"][cell].text
        assert seen["done"][cell].images == 0
