"""A cluster on Ray, without Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nsactors.errors import ClusterStopped
from nsactors.transport.ray import transport
from nsactors.transport.ray.transport import RayBackend


@pytest.mark.parametrize("is_left", [True, False])
def test_a_stop_during_which_ray_ends_makes_no_call_that_would_start_another_ray(
    monkeypatch: pytest.MonkeyPatch, is_left: bool
) -> None:
    killed: list[object] = []
    released: list[bool] = []
    ray = SimpleNamespace(is_initialized=lambda: ray.is_left, kill=killed.append, is_left=True)

    def shut_down(grace_s: float) -> list[str]:
        ray.is_left = is_left
        raise ClusterStopped

    monkeypatch.setattr(transport, "ControllerClient", lambda channel: SimpleNamespace(shut_down=shut_down))
    monkeypatch.setattr(transport, "stop_actors", lambda ray, namespace: killed.append(namespace))
    monkeypatch.setattr(transport, "ray_runtime", SimpleNamespace(release=lambda: released.append(True)))
    controller: Any = object()
    backend = RayBackend.__new__(RayBackend)
    backend._ray, backend._controller, backend._namespace = ray, controller, "nsactors-1"
    backend._stopped, backend._stop_grace_s = transport.ClusterEnd(), 1.0
    assert backend.stop() == []
    assert killed == ([controller, "nsactors-1"] if is_left else [])
    assert released == [True]
