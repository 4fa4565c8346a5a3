"""What engines are asked for with, as people write it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from nsactors import Cluster
from nsactors.cluster.options import engine_options, startup_cell, with_threads
from nsactors.errors import CapabilityError, UnknownOption
from nsactors.protocol.engine_info import EngineOptions, Recovery


def read(**options: Any) -> EngineOptions:
    return engine_options(EngineOptions(), options, in_threads=False)


@pytest.mark.parametrize(
    ("options", "read_as"),
    [
        ({}, EngineOptions()),
        ({"recovery": "none"}, EngineOptions(recovery=Recovery.NONE)),
        ({"recovery": "replay", "journal": "sync"}, EngineOptions(recovery=Recovery.REPLAY, ships_journal=True)),
        ({"on": "gpu-box"}, EngineOptions(node="gpu-box")),
        ({"on": {"zone": "!b"}}, EngineOptions(node_labels={"zone": "!b"})),
        ({"labels": {"licence": "solver"}}, EngineOptions(labels={"licence": "solver"})),
        ({"num_cpus": 2, "num_gpus": 0.5}, EngineOptions(num_cpus=2, num_gpus=0.5)),
        ({"memory": "2GB"}, EngineOptions(memory=2_000_000_000)),
        ({"resources": {"license": 1}}, EngineOptions(resources={"license": 1})),
        ({"environment": {"A": "b"}}, EngineOptions(environment={"A": "b"})),
    ],
)
def test_options_are_read_as_people_write_them(options: dict[str, Any], read_as: EngineOptions) -> None:
    assert read(**options) == read_as


def test_what_is_not_said_stays_as_it_is() -> None:
    usual = read(num_gpus=1, on="gpu-box")
    assert engine_options(usual, {"on": None}, in_threads=False) == read(num_gpus=1)


def test_a_machine_takes_the_place_of_labels() -> None:
    assert engine_options(read(on={"zone": "b"}), {"on": "vm"}, in_threads=False) == read(on="vm")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recovery": "retry"}, "recovery as one of 'none', 'restart', 'replay', not 'retry'"),
        ({"journal": "both"}, "journal as one of 'local', 'sync', not 'both'"),
        ({"journal": "sync"}, "journal as 'local', or 'sync' with recovery='replay'"),
        ({"journal": "sync", "recovery": "none"}, "journal as 'local', or 'sync' with recovery='replay'"),
        ({"num_cpus": -1}, "num_cpus as a finite number, 0 or more, not -1"),
        ({"num_cpus": float("nan")}, "num_cpus as a finite number, 0 or more, not nan"),
        ({"num_cpus": float("inf")}, "num_cpus as a finite number, 0 or more, not inf"),
        ({"num_gpus": 1.5}, "num_gpus as a whole number, or less than 1 to share a GPU, not 1.5"),
        ({"memory": "lots"}, "memory as a number of bytes, or text such as '2GB' or '512MiB', or None, not 'lots'"),
        ({"memory": -1}, "memory as a number of bytes"),
        ({"resources": {"GPU": 1}}, "resources as custom names, which 'GPU' is not: use num_gpus="),
        ({"resources": {"license": -1}}, "an amount is a finite number, 0 or more, not {'license': -1}"),
        ({"on": ""}, "on as a machine's name or address, or labels such as {'zone': 'b'}, or None, not ''"),
        ({"environment": {"A=B": "c"}}, "environment as names without '='"),
        ({"environment": {"": "c"}}, "environment as names without '='"),
        ({"environment": {"A": "b\0"}}, "names and values without null characters, not {'A': 'b\\x00'}"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        read(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"on": 3},
        {"on": {"zone": 1}},
        {"labels": "fast"},
        {"labels": {"disk": 1}},
        {"num_cpus": "2"},
        {"num_gpus": True},
        {"resources": "GPU"},
        {"memory": 1.5},
        {"journal": None},
        {"environment": "A=b"},
    ],
)
def test_what_is_of_another_type_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"takes {next(iter(options))} as "):
        read(**options)


def test_engines_without_a_journal_may_stand_beside_others_whose_journal_is_copied_at_once() -> None:
    usual = read(recovery="replay", journal="sync")
    assert engine_options(usual, {"recovery": "none"}, in_threads=False).recovery is Recovery.NONE


def test_numbers_of_numpy_are_read_as_pythons() -> None:
    options = read(num_cpus=np.float32(0.5), num_gpus=np.int64(2), resources={"license": np.int32(1)})
    assert options == EngineOptions(num_cpus=0.5, num_gpus=2, resources={"license": 1})
    assert {type(options.num_cpus), type(options.num_gpus)} == {float, int}


@pytest.mark.parametrize("option", ["on", "labels", "memory", "resources", "environment", "on_error"])
def test_none_asks_for_nothing(option: str) -> None:
    assert read(**{option: None}) == EngineOptions()


def test_none_takes_back_what_the_cluster_asks_for() -> None:
    usual = read(environment={"A": "b"}, labels={"disk": "fast"}, resources={"license": 1})
    asked = engine_options(usual, {"environment": None, "labels": None, "resources": None}, in_threads=False)
    assert asked == EngineOptions()


def test_threads_can_have_labels() -> None:
    assert engine_options(EngineOptions(), {"labels": {"a": "b"}}, in_threads=True).labels == {"a": "b"}


def test_environment_is_text() -> None:
    with pytest.raises(TypeError, match="all of them text"):
        read(environment={"THREADS": 2})


def test_an_unknown_option_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(UnknownOption, match="did you mean 'num_gpus'"):
        read(num_gpu=1)


def test_an_unknown_option_of_a_cluster_may_have_meant_one_of_its_own() -> None:
    with pytest.raises(UnknownOption, match="did you mean 'backend'"):
        Cluster(n=1, bakend="local")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options", [{"on": "vm"}, {"num_cpus": 1}, {"num_gpus": 1}, {"memory": "1GB"}, {"environment": {"A": "b"}}]
)
def test_engines_that_are_threads_cannot_have_what_processes_have(options: dict[str, Any]) -> None:
    with pytest.raises(CapabilityError, match=f"{next(iter(options))}=.*threads of this process.*backend='ray'"):
        Cluster(n=1, backend="local", **options)


def test_engines_that_are_threads_may_be_told_that_they_get_nothing() -> None:
    Cluster(n=1, backend="local", num_gpus=0, on=None)


def test_engines_that_count_for_cores_get_as_many_threads() -> None:
    assert with_threads(read(num_cpus=3), {}).environment["OMP_NUM_THREADS"] == "3"
    assert with_threads(read(num_cpus=0.5), {}).environment["OMP_NUM_THREADS"] == "1"


def test_engines_that_count_for_none_share_the_machine() -> None:
    assert with_threads(read(), {}).environment == {}


def test_the_number_of_threads_is_the_users_if_they_say_so() -> None:
    options = read(num_cpus=3, environment={"OMP_NUM_THREADS": "7"})
    assert with_threads(options, {"MKL_NUM_THREADS": "5"}).environment["OMP_NUM_THREADS"] == "7"
    assert with_threads(options, {"MKL_NUM_THREADS": "5"}).environment["MKL_NUM_THREADS"] == "5"


@pytest.mark.parametrize(
    "cell",
    ["", "x = 1", "import asyncio\nawait asyncio.sleep(0)", "%autoreload 2\nx = 1", "!true", "%%bash\ntrue", "  x = 1"],
)
def test_a_cell_is_start_up_code(cell: str) -> None:
    assert startup_cell(cell) is None


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("x = 1\nx = (", r"startup as a cell of Python \(line 2: '\(' was never closed\)"),
        ("%autoreload 2\nx = = 1", r"startup as a cell of Python \(line 2: invalid syntax\)"),
        ("x = '\0'", "startup as a cell of Python .*null bytes"),
    ],
)
def test_start_up_code_that_is_no_python_is_refused_at_the_call(cell: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cluster(n=1, startup=cell)
