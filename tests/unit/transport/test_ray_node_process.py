"""Nodes of a Ray of several machines: their options and settings, by value."""

import json
import os
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from nsactors.errors import AccessRefused, ClusterUnreachable
from nsactors.transport.ray import node_process, runtime
from nsactors.transport.ray.lean_start import reserve_port
from nsactors.transport.ray.node_process import (
    NodePlan,
    RayNode,
    health_checks,
    node_options,
    own_address,
    ray_settings,
)
from tests.unit.transport.test_ray_access import REFUSED, serving

TOKEN = "0123456789abcdef"
PLAN = NodePlan(TOKEN, 4, "10.0.0.1:6379", 8, 100_000_000, {"rack": "b"})


def test_a_node_that_cannot_reach_the_head_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_process, "WAY_BACK_S", 0.0)
    with closing(reserve_port("127.0.0.1")) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(ClusterUnreachable, match=f"at {address}: .* has no way to the cluster's head"):
            RayNode(replace(PLAN, address=address)).__enter__()


def test_a_node_with_a_wrong_token_is_told_so_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_process, "_check_way_back", lambda address: None)
    with serving(REFUSED) as head, pytest.raises(AccessRefused, match="the token is wrong"):
        RayNode(replace(PLAN, address=head.address)).__enter__()
    assert f"Bearer {TOKEN}".encode() in head.mark_retrieved


def test_a_head_that_does_not_answer_is_given_up_long_before_20_seconds() -> None:
    assert node_process.WAY_BACK_S + node_process.PAUSE_S + node_process.CONNECT_S < 15


def options(plan: NodePlan) -> dict[str, str]:
    words = node_options(plan, "10.0.0.2", 40_123, "/tmp/nsa-1-x")
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def test_a_node_joins_with_its_address_its_cores_and_its_labels() -> None:
    given = options(PLAN)
    assert given["address"] == "10.0.0.1:6379"
    assert given["node-ip-address"] == "10.0.0.2"
    assert given["num-cpus"] == "8"
    assert given["labels"] == "rack=b,nsactors-engines=4"
    assert given["object-store-memory"] == "100000000"
    assert "head" not in given


def test_a_head_listens_on_the_port_that_was_found_for_it() -> None:
    given = options(NodePlan(TOKEN, 0, None, 0))
    assert given["port"] == "40123"
    assert json.loads(given["system-config"]) == health_checks()
    assert "address" not in given


def test_a_machine_that_hangs_is_given_up_within_three_seconds_unless_people_want_more_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = health_checks()
    each_ms = checks["health_check_period_ms"] + checks["health_check_timeout_ms"]
    assert checks["health_check_initial_delay_ms"] + checks["health_check_failure_threshold"] * each_ms < 2_500
    monkeypatch.setenv("RAY_health_check_failure_threshold", "40")
    assert health_checks() == {**checks, "health_check_failure_threshold": 40}


@pytest.mark.parametrize("plan", [PLAN, NodePlan(TOKEN, 0, None, 0)], ids=["other", "head"])
def test_no_node_takes_a_port_that_another_on_its_machine_would_take(plan: NodePlan) -> None:
    given = options(plan)
    fixed = {name: value for name, value in given.items() if name.endswith("port") and name != "port"}
    assert set(fixed.values()) == {"0"}
    assert {"min-worker-port", "max-worker-port"} <= fixed.keys()


@pytest.mark.parametrize("plan", [PLAN, NodePlan(TOKEN, 0, None, 0)], ids=["other", "head"])
def test_the_token_is_in_no_command_and_in_no_repr(plan: NodePlan) -> None:
    assert TOKEN not in " ".join(node_options(plan, "10.0.0.2", 40_123, "/tmp/nsa-1-x"))
    assert TOKEN not in repr(plan)


def test_what_depends_on_the_machine_is_filled_in_there() -> None:
    assert NodePlan(TOKEN, None).with_cores(6) == NodePlan(TOKEN, 6, None, 6)
    assert NodePlan(TOKEN, 2, None, 3).with_cores(6) == NodePlan(TOKEN, 2, None, 3)


def test_a_plan_travels_as_one_line_and_in_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "node.json")
    text = (tmp_path / "node.json").read_text()
    assert text.splitlines() == [text]
    assert NodePlan.from_json(text) == PLAN
    assert stat.S_IMODE(os.stat(tmp_path / "node.json").st_mode) == 0o600


def test_settings_hold_the_path_of_the_token_and_let_other_machines_in() -> None:
    settings = ray_settings("/home/ann/token")
    assert settings["RAY_AUTH_MODE"] == "token"
    assert settings["RAY_AUTH_TOKEN_PATH"] == "/home/ann/token"
    assert settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"


@pytest.mark.parametrize(("version", "are_there"), [("2.60.4", True), ("2.61.0", False), (None, False)])
def test_settings_that_could_harm_are_left_out_for_a_ray_that_was_never_tried(
    version: str | None, are_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "installed_ray", lambda: version)
    settings = ray_settings("/home/ann/token")
    assert (runtime.PRESETS_OF_TRIED_RAY.keys() <= settings.keys()) is are_there
    assert runtime.PRESETS.keys() <= settings.keys()
    if not are_there:
        assert runtime.PRESETS_OF_TRIED_RAY.keys().isdisjoint(settings)


def test_the_own_address_is_the_one_that_leads_to_the_other_machine() -> None:
    assert own_address("127.0.0.1:6379") == "127.0.0.1"
