"""Calls to the controller actor, also while it is being brought back."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from nsactors.errors import ClusterStopped, ClusterUnreachable

__all__ = ["RayLine"]

PAUSES_S = (0.02, 0.1, 0.2, 0.4)  # between calls to a controller that is being brought back


class RayLine:
    """Calls the controller actor.

    Args:
        controller: its handle.
        stopped: set when this process has stopped the cluster. A call afterwards would make Ray start another one.
    """

    def __init__(self, controller: Any, stopped: threading.Event | None = None) -> None:
        self._controller = controller
        self._stopped = stopped or threading.Event()

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the controller; see ``ControllerLine``."""
        import ray

        give_up = time.monotonic() + timeout_s
        for pause_s in itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])):
            if self._stopped.is_set():
                raise ClusterStopped
            try:
                return self._call_once(method, args, max(0.0, give_up - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                break
            except ray.exceptions.ActorUnavailableError:  # it died, and is being brought back
                if time.monotonic() + pause_s > give_up:
                    break
                self._stopped.wait(pause_s)
        raise ClusterUnreachable("the controller", f"no answer to {method} in {timeout_s:g} s")

    def _call_once(self, method: str, args: tuple[Any, ...], timeout_s: float) -> Any:
        import ray

        try:
            return ray.get(getattr(self._controller, method).remote(*args), timeout=timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
            raise
        except ray.exceptions.RayActorError:
            raise ClusterStopped from None
        except Exception as error:
            if self._stopped.is_set():
                raise ClusterStopped from error  # Ray went while this was under way, and has many words for that
            if isinstance(error, ray.exceptions.RaySystemError):
                raise ClusterUnreachable("the controller", str(error)) from error
            raise
