"""Calls after the user's code has shut Ray down: each call of Ray's would start another cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import RayShutDown
from nsactors.transport.base import ClusterEnd
from nsactors.transport.ray.controller_channel import check_connected
from nsactors.transport.ray.transport import RayTransport

SHUT_DOWN: Any = SimpleNamespace(is_initialized=lambda: False)


def test_the_first_call_ends_the_cluster_for_this_process() -> None:
    stopped = ClusterEnd()
    for _ in range(2):
        with pytest.raises(RayShutDown):
            check_connected(SHUT_DOWN, stopped)
    assert isinstance(stopped.lost, RayShutDown)


@pytest.mark.parametrize(
    ("method", "arguments"), [("prepare", (None, None)), ("keep", (None,)), ("named_actor", ("",))]
)
def test_nothing_of_a_request_is_given_to_ray(method: str, arguments: tuple[Any, ...]) -> None:
    transport = RayTransport.__new__(RayTransport)
    transport._ray, transport.stopped = SHUT_DOWN, ClusterEnd()
    with pytest.raises(RayShutDown):
        getattr(transport, method)(*arguments)
