"""How a cluster is reached, from files that anything may have written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsactors import Client
from nsactors.errors import ClusterLost, ClusterNotFound, ClusterStopped, ClusterUnreachable, WrongValue
from nsactors.transport.base import ClusterEnd, ConnectionInfo, check_address

MALFORMED = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "cut off": '{"address": "127',
    "without an address": '{"namespace": "x"}',
    "an address of another type": '{"address": 5, "namespace": "x"}',
    "an address that is none": '{"address": "junk", "namespace": "x"}',
    "a port that is none": '{"address": "a:99999", "namespace": "x"}',
    "a strange field": '{"address": "a:1", "namespace": "x", "foo": 1}',
    "settings that are numbers": '{"address": "a:1", "namespace": "x", "settings": {"A": 5}}',
    "settings that are no table": '{"address": "a:1", "namespace": "x", "settings": []}',
    "a variable with =": '{"address": "a:1", "namespace": "x", "settings": {"A=B": "1"}}',
    "a variable with a null character": '{"address": "a:1", "namespace": "x", "settings": {"A": "\\u0000"}}',
    "very deep": "[" * 100_000,
    "no text": "\0\xff",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_file_that_is_no_cluster_s_is_said_to_be_none(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_bytes(MALFORMED[name].encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ClusterUnreachable) as caught:
        Client(path)
    assert str(caught.value).startswith(
        f"no cluster answers at {path}: ConnectionInfo.save() has not written this file ("
    )


@pytest.mark.parametrize(("path", "reason"), [("none.json", "No such file"), (".", "Is a directory")])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(ClusterUnreachable, match=rf"this file cannot be read \({reason}"):
        Client(tmp_path / path)


def test_a_path_with_a_null_character_is_one_of_no_file() -> None:
    with pytest.raises(ClusterUnreachable, match="null byte"):
        Client("a\0.json")


@pytest.mark.parametrize("name", ["", "a b", "\x1b[2J"])
def test_no_name_is_suggested_that_no_cluster_can_have(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", os.fspath(tmp_path))
    with pytest.raises(ClusterNotFound) as caught:
        Client(name)
    assert str(caught.value).endswith("start one with `nsactors start`")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "[::1]:6379", "head.example.org:1", "auto", "local", "ray://a:1"])
def test_what_ray_takes_for_an_address_is_one(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("address", ["", "junk", "a:", ":1", "a:b", "a:65536", "http://a"])
def test_an_address_that_is_none_is_refused_at_the_call(address: str) -> None:
    from nsactors import Cluster

    with pytest.raises(WrongValue, match=r"Cluster\(\) takes address as the host:port of a Ray cluster"):
        Cluster(n=1, address=address)
    with pytest.raises(ValueError, match="written host:port"):
        ConnectionInfo(address, "x")


# The end of a cluster, by value.


LOST = ClusterLost("Ray's GCS (process 4711)", "was killed by SIGKILL")


class User:
    """A user of a cluster that keeps the notices that it gets."""

    def __init__(self, *, has_something_to_lose: bool) -> None:
        self.has_something_to_lose = has_something_to_lose
        self.told: list[ClusterLost] = []

    def cluster_lost(self, lost: ClusterLost) -> None:
        self.told.append(lost)


def test_calls_after_a_loss_fail_with_its_reason_before_anybody_is_told() -> None:
    end, user = ClusterEnd(), User(has_something_to_lose=True)
    end.when_lost(user)
    end.check()
    assert end.lose(LOST)
    with pytest.raises(ClusterLost, match="GCS"):
        end.check()
    assert user.told == []
    end.tell_listeners()
    assert user.told == [LOST]


def test_a_loss_is_no_news_to_those_who_have_nothing_there() -> None:
    end, user = ClusterEnd(), User(has_something_to_lose=False)
    end.when_lost(user)
    assert not end.lose(LOST)


def test_servers_that_end_after_the_cluster_was_stopped_are_no_loss() -> None:
    end, user = ClusterEnd(), User(has_something_to_lose=True)
    end.when_lost(user)
    end.set()
    assert not end.lose(LOST)
    end.tell_listeners()
    assert user.told == []
    with pytest.raises(ClusterStopped) as stopped:
        end.check()
    assert not isinstance(stopped.value, ClusterLost)
