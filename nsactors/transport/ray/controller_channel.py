"""The controller's actor, as other processes find and call it."""

from __future__ import annotations

import itertools
import time
from typing import Any

from nsactors.errors import ClusterStopped, ClusterUnreachable, ConnectionLost, RayShutDown, keyboard_interrupt
from nsactors.protocol.process import OwnProcess
from nsactors.system.resources import versions_here
from nsactors.transport.base import ClusterEnd, ConnectionInfo
from nsactors.transport.ray.failures import result_of
from nsactors.transport.ray.runtime import ray_runtime

PAUSES_S = (0.02, 0.1, 0.2, 0.4)  # the pauses between calls to a controller that restarts


def namespace_of(cluster: str) -> str:
    """Return the Ray namespace of a cluster's actors."""
    return f"nsactors-{cluster}"


def connection_info(ray: Any, namespace: str) -> ConnectionInfo:
    """Return the connection info of the cluster in a namespace of the Ray that this process is connected to."""
    address = ray.get_runtime_context().gcs_address
    return ConnectionInfo(address, namespace, ray_runtime.settings_for_others(), versions_here())


def check_connected(ray: Any, stopped: ClusterEnd) -> None:
    """Raise the error of a cluster that has ended, or whose Ray the user's code has shut down.

    In either case, a call would make Ray start another cluster.
    """
    stopped.check()
    if not ray.is_initialized():
        raise shut_down(stopped)


def shut_down(stopped: ClusterEnd) -> ClusterStopped:
    """Let all calls to a cluster fail, as the user's code has shut Ray down; return the error for this call."""
    stopped.lose(RayShutDown())
    stopped.tell_listeners()
    return stopped.error()


class RayControllerChannel:
    """Call the controller actor.

    Args:
        controller: its handle.
        stopped: set when the cluster has ended for this process; a later call would make Ray start another cluster.
    """

    def __init__(self, controller: Any, stopped: ClusterEnd | None = None) -> None:
        self._controller = controller
        self._stopped = stopped or ClusterEnd()
        self._process = OwnProcess()

    def call(self, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the controller; see ``ControllerChannel``."""
        import ray

        self._process.check()
        give_up = time.monotonic() + timeout_s
        for pause_s in itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1])):
            check_connected(ray, self._stopped)
            try:
                return self._call_once(method, args, max(0.0, give_up - time.monotonic()))
            except KeyboardInterrupt:
                raise keyboard_interrupt() from None
            except ray.exceptions.GetTimeoutError:
                break
            except ray.exceptions.ActorUnavailableError:  # the controller died, and restarts
                if time.monotonic() + pause_s > give_up:
                    break
                self._stopped.wait(pause_s)
        raise ClusterUnreachable("the controller", f"no answer to {method} in {timeout_s:g} s")

    def _call_once(self, method: str, args: tuple[Any, ...], timeout_s: float) -> Any:
        import ray

        try:
            return result_of(getattr(self._controller, method).remote(*args), timeout_s)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError, ConnectionLost):
            raise
        except ray.exceptions.ActorHandleNotFoundError:  # the handle is from an earlier connection to Ray
            raise shut_down(self._stopped) from None
        except ray.exceptions.RayActorError:
            raise ClusterStopped from None
        except Exception as error:
            if self._stopped.is_set():
                raise self._stopped.error() from error  # Ray ended during the call, which raises many kinds of errors
            if isinstance(error, ray.exceptions.RaySystemError):
                raise ClusterUnreachable("the controller", str(error)) from error
            raise
