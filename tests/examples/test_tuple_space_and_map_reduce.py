"""The programs around tuple spaces and MapReduce give the known answers, on any number of engines."""

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
def test_programs_around_a_tuple_space_are_right_on_any_number_of_engines(run: Run, engines: int) -> None:
    status, text = run(EXAMPLES / "tuple_space.py", "--backend", "local", "--engines", engines)
    assert (status, text.count(": right")) == (0, 3), text


@pytest.mark.parametrize("engines", [4, *(pytest.param(n, marks=pytest.mark.full_size) for n in (1, 2, 7))])
def test_map_reduce_is_right_on_any_number_of_engines(run: Run, engines: int) -> None:
    options = ["--files", 60, "--decimals", 10_000, "--backend", "local", "--engines", engines]
    status, text = run(EXAMPLES / "map_reduce.py", *options)
    assert (status, text.count(": right")) == (0, 5), text
    assert "9999 pairs, 65 most (124), 88 least (80)" in text


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tuple_space", ["--limit", 1000, "--times", 20, "--meals", 5]),
        ("map_reduce", ["--decimals", 20_000]),
    ],
)
def test_both_are_right_on_ray(
    run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[object]
) -> None:
    # A client of engines that already run: starting engines takes longer than the example.
    monkeypatch.setattr(nsactors, "Cluster", lambda n, backend: cluster.connect_client_sync())
    status, text = run(EXAMPLES / f"{name}.py", *arguments, "--engines", 2)
    assert (status, "WRONG" in text) == (0, False), text


@pytest.mark.parametrize(
    ("name", "right", "wrong", "arguments"),
    [
        ("tuple_space", "1_000: (168,", "1_000: (169,", ["--limit", 1000, "--times", 1, "--meals", 1]),
        ("map_reduce", '"65", 124', '"65", 125', ["--files", 2, "--decimals", 10_000]),
    ],
)
def test_a_wrong_answer_is_told(
    run: Run, tmp_path: Path, name: str, right: str, wrong: str, arguments: list[object]
) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert right in source
    (tmp_path / f"{name}.py").write_text(source.replace(right, wrong))
    status, text = run(tmp_path / f"{name}.py", *arguments, "--backend", "local", "--engines", 1)
    assert (status, "WRONG" in text) == (1, True)
