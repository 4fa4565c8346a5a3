"""The examples of task farming give right answers, on any number of engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import nsactors
from nsactors import Cluster

SIZES = [1, 4, *(pytest.param(n, marks=pytest.mark.full_size) for n in (2, 7))]
EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("engines", SIZES)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("queens", [4, 8]), ("pi_digits", [0, 1000]), ("option_prices", ["--paths", 3200])],
)
def test_answers_are_right_and_the_same_on_any_number_of_engines(
    run: Run, name: str, arguments: list[object], engines: int
) -> None:
    path = EXAMPLES / f"{name}.py"
    status, text = run(path, *arguments, "--backend", "local", "--engines", engines)
    assert status == 0
    assert text == run(path, *arguments, "--backend", "local", "--engines", 1)[1]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("queens", [10], "10 queens: 724 ways  right"),
        ("pi_digits", [10_000], "after 10,000 digits: 8AC8FCFB8016CB  right"),
        ("option_prices", ["--paths", 32_000], "arithmetic  call 6.8"),
        ("embarrassingly_parallel", [], "13176389 pairs: right"),
        ("task_profiler", ["--tasks", 24, "--longest", 0.05, "--least", 0], "24 items on 2 engines"),
    ],
)
def test_answers_are_right_on_ray(
    run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[object], expected: str
) -> None:
    # A client of engines that already run: starting engines takes longer than all of the examples.
    monkeypatch.setattr(nsactors, "Cluster", lambda n, backend: cluster.connect_client_sync())
    status, text = run(EXAMPLES / f"{name}.py", *arguments, "--engines", 2)
    assert (status, expected in text) == (0, True), text


def test_the_profile_is_drawn_into_a_file(run: Run, tmp_path: Path) -> None:
    options = ["--tasks", 8, "--longest", 0.02, "--least", 0, "--engines", 2, "--backend", "local"]
    status, _ = run(EXAMPLES / "task_profiler.py", *options, "--save", tmp_path / "tasks.svg")
    assert status == 0
    assert (tmp_path / "tasks.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("name", "arguments", "right", "wrong"),
    [
        ("queens", [4], "KNOWN = {4: 2,", "KNOWN = {4: 3,"),
        ("pi_digits", [0], '0: "2', '0: "3'),
        ("option_prices", ["--paths", 3200], "(6.8745,", "(7.8745,"),
    ],
)
def test_a_wrong_answer_is_told(
    run: Run, tmp_path: Path, name: str, arguments: list[object], right: str, wrong: str
) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert right in source
    (tmp_path / f"{name}.py").write_text(source.replace(right, wrong))
    status, text = run(tmp_path / f"{name}.py", *arguments, "--backend", "local", "--engines", 1)
    assert (status, "WRONG" in text) == (1, True)
