"""What the controller asks of whoever starts the processes of engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nsactors.core.cluster import EngineSpec

__all__ = ["CannotStart", "Death", "Launcher", "Process"]

Process = tuple[int, int]  # an engine's id and incarnation


class CannotStart(Exception):
    """An engine cannot be started as it was asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Death:
    """How an engine's process ended, and the last lines it wrote to stderr; ``displaced`` if its node is gone."""

    reason: str
    stderr_tail: str = ""
    displaced: bool = False


class Launcher(Protocol):
    """Starts and ends the processes of engines."""

    def launch(self, spec: EngineSpec) -> Any:
        """Start an engine; its address.

        Raises:
            CannotStart: if it never can, as it was asked for.
        """
        ...

    def obstacles(self, spec: EngineSpec, address: Any) -> AsyncIterator[str]:
        """What keeps an engine from being started, as often as that changes; ends when it is, or when it is dead."""
        ...

    async def watch(self, spec: EngineSpec, address: Any) -> Death:
        """Wait until the engine at this address is dead."""
        ...

    def kill(self, address: Any) -> None:
        """End an engine whatever it is doing."""
        ...

    def take_over(self, hosts: Mapping[Process, str]) -> Mapping[Process, Any]:
        """Go on from where another process has left off.

        Args:
            hosts: the machines where engines are, or were before they died.

        Returns:
            The addresses of all engines of the cluster whose processes are alive.
        """
        ...
