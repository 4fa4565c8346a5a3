"""Programs written for ipyparallel are read for lines that need a hand."""

from __future__ import annotations

import json
import pathlib

import pytest

from nsactors.ipyparallel.__main__ import main
from nsactors.ipyparallel.reading import Reader, findings_in


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from ipyparallel.cluster.launcher import LocalLauncher", "ipyparallel.cluster.launcher is not provided"),
        ("from ipyparallel.util import connect", "ipyparallel.util.connect is not provided"),
        ("from IPython.parallel import Client", "older name"),
        ("rc = ipp.Client(profile='mpi')", "Client(profile=...) does nothing"),
        ("c = Cluster(engines='slurm')", "nsactors launch"),
        ("rc[:].apply(f).wait_for_send()", "does nothing"),
        ("rc._build_targets('all')", "private"),
        ("ipp.bind_kernel()", "%connect_info"),
    ],
)
def test_a_line_that_needs_a_hand_is_found(source: str, said: str) -> None:
    (finding,) = findings_in(f"import sys\n\n{source}")
    assert finding.line == 3
    assert said in finding.text


@pytest.mark.parametrize(
    "source",
    [
        "import ipyparallel as ipp\nfrom ipyparallel import error\nfrom ipyparallel.client.view import DirectView",
        "rc = ipp.Cluster(n=4, engines='MPI').start_and_connect_sync()",
        "from ipyparallel import *\nrc = Client()\nrc[:].apply_sync(abs, -1)",
        "%px import numpy\n!ls\nrc.load_balanced_view()",
        "for n in (1, 2):\n    %px import numpy\n    taken = %timeit -o rc[:].apply_sync(abs, n)\nfiles = !ls\nrc?",
        "%%bash\necho $((1 + 1)",
    ],
)
def test_what_runs_as_it_is_is_passed_over(source: str) -> None:
    assert findings_in(source) == []


def test_the_lines_of_a_cell_for_engines_are_read() -> None:
    (finding,) = findings_in("%%px --local\nimport ipyparallel\nrc = %who_ls\nview.spin()")
    assert finding.line == 4


def test_what_is_no_python_is_said_to_be_unknown() -> None:
    assert "cannot be read" in findings_in("rc = (")[0].text


def test_a_folder_of_programs_and_notebooks_is_read(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text("\ufeffimport ipyparallel\nrc.spin()\n")
    (tmp_path / "b.py").write_text("thing.spin()\n")  # knows nothing of ipyparallel
    cells = [
        {"cell_type": "markdown", "source": ["x"]},
        {"cell_type": "code", "source": ["import ipyparallel\n", "v.purge_results(1)"]},
    ]
    (tmp_path / "c.ipynb").write_text(json.dumps({"cells": cells}))
    with pytest.raises(SystemExit) as ended:
        main(["doctor", str(tmp_path)])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{tmp_path}/a.py:2: spin does nothing: answers come by themselves",
        f"{tmp_path}/c.ipynb, cell 2:2: purge_results is not needed: nothing grows",
        "3 files read, 2 of them for ipyparallel: 2 lines need a look; everything else runs as it is",
    ]


def test_the_summary_tells_of_folders_without_programs_and_without_ipyparallel(tmp_path: pathlib.Path) -> None:
    reader = Reader()
    assert list(reader.read(tmp_path)) == []
    assert reader.summary() == "0 files read: there is no .py, .ipy or .ipynb file"
    (tmp_path / "a.py").write_text("x = 1\n")
    assert list(reader.read(tmp_path)) == []
    assert reader.summary() == "1 file read, 0 of them for ipyparallel"
