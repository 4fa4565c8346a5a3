"""Ray's cluster launcher with the example for AWS, and a stand-in for Amazon's service; nothing leaves this process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nsactors.cluster.ray_launcher import example

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.ray,
    pytest.mark.cluster,
    pytest.mark.full_size,
    pytest.mark.timeout(600),
    pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="needs nsactors[doors]"),
]

# `ray up`, two nodes as the autoscaler adds them, and `ray down`. In place of ssh, commands are written down.
PROGRAM = r"""
import json, sys
from types import SimpleNamespace
import boto3
import moto
import yaml
from ray.autoscaler import tags
from ray.autoscaler._private import commands
from ray.autoscaler._private.aws import config as aws
from ray.autoscaler._private.aws import node_provider

path, ran = sys.argv[1], []

class Commands:
    def run(self, command=None, *arguments, **options):
        ran.append(command)
        return ""
    def run_init(self, *arguments, **options):
        return False
    def run_rsync_up(self, source, target, options=None):
        ran.append(f"send {target}")
    def remote_shell_command_str(self):
        return "ssh"

node_provider.AWSNodeProvider.get_command_runner = lambda self, *arguments, **options: Commands()
aws.time = SimpleNamespace(sleep=lambda seconds: None)  # for roles to become known everywhere

def kinds(region, *arguments):
    # Of those of the example alone: the stand-in takes a minute to describe all.
    service = boto3.client("ec2", region)
    return service.describe_instance_types(InstanceTypes=["m6i.large", "c6i.2xlarge"])["InstanceTypes"]

node_provider.list_ec2_instances = kinds

def instances():
    pages = boto3.client("ec2", "eu-central-1").describe_instances()["Reservations"]
    found = [instance for page in pages for instance in page["Instances"]]
    named = [({tag["Key"]: tag["Value"] for tag in instance["Tags"]}, instance) for instance in found]
    return sorted(
        (name[tags.TAG_RAY_NODE_KIND], name[tags.TAG_RAY_USER_NODE_TYPE], one["InstanceType"], one["State"]["Name"])
        for name, one in named
        if name[tags.TAG_RAY_CLUSTER_NAME] == "nsactors"
    )

seen = {}
with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
    config = commands.create_or_update_cluster(path, None, None, False, False, True, no_config_cache=True)
    seen["up"] = instances()
    provider = node_provider.AWSNodeProvider(config["provider"], config["cluster_name"])
    engines = {
        tags.TAG_RAY_NODE_KIND: tags.NODE_KIND_WORKER,
        tags.TAG_RAY_USER_NODE_TYPE: "engines",
        tags.TAG_RAY_LAUNCH_CONFIG: "x",
        tags.TAG_RAY_NODE_STATUS: tags.STATUS_UNINITIALIZED,
    }
    for _ in range(2):  # one at a time: where Ray asks for one or two, Amazon starts two, and the stand-in one
        provider.create_node(config["available_node_types"]["engines"]["node_config"], engines, 1)
    seen["grown"] = instances()
    group = boto3.client("ec2", "eu-central-1").describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["ray-autoscaler-nsactors"]}]
    )["SecurityGroups"]
    open_to_all = [rule["FromPort"] for rule in group[0]["IpPermissions"] if rule["IpRanges"]]
    seen["ports open to all"] = open_to_all
    provider.terminate_nodes(provider.non_terminated_nodes({tags.TAG_RAY_NODE_KIND: tags.NODE_KIND_WORKER})[:1])
    seen["lost"] = instances()
    commands.teardown_cluster(path, True, False, None, False)
    seen["down"] = instances()
seen["ran"] = ran
print("\n" + json.dumps(seen))
"""
HEAD, ENGINES = ["head", "head", "m6i.large"], ["worker", "engines", "c6i.2xlarge"]


def test_ray_starts_and_stops_instances_by_the_example_for_aws(tmp_path: Path) -> None:
    (tmp_path / "aws.yaml").write_text(example("aws"))
    (tmp_path / ".ray" / "nsactors").mkdir(parents=True)
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))} | {
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "aws.yaml")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["up"] == [[*HEAD, "running"]]
    assert seen["grown"] == [[*HEAD, "running"], [*ENGINES, "running"], [*ENGINES, "running"]]
    assert seen["ports open to all"] == [22]
    assert [state for *_, state in seen["lost"]].count("running") == 2
    assert {state for *_, state in seen["down"]} <= {"stopped", "terminated"}
    commands = "\n".join(filter(None, seen["ran"]))
    assert "send ~/.ray/auth_token" in commands
    assert "pip install --quiet" in commands
    assert "RAY_AUTH_MODE=token" in commands
    assert "0" * 64 not in commands
