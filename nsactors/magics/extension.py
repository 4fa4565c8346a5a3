"""What ``%load_ext nsactors`` adds to a shell."""

from __future__ import annotations

from typing import Any

from nsactors.client import Client
from nsactors.client.prompt import draw_errors
from nsactors.core.targets import resolve
from nsactors.magics.completion import EngineCompleter
from nsactors.magics.parallel import ParallelMagics
from nsactors.magics.sending_cells import CellSender, ask_engines
from nsactors.magics.starting import ClusterOnDemand, find_client
from nsactors.results.live.notebook import CellArea
from nsactors.views.direct import DirectView

__all__ = ["Extension", "load", "unload"]

_KEY = "nsactors"


def load(shell: Any) -> Extension:
    """Add the magics to an IPython shell; nothing happens if they are there."""
    known = shell.magics_manager.registry.get(_KEY)
    if isinstance(known, Extension):
        return known
    extension = shell.magics_manager.registry[_KEY] = Extension(shell)
    return extension


def unload(shell: Any) -> None:
    """Take them away again."""
    extension = shell.magics_manager.registry.pop(_KEY, None)
    if isinstance(extension, Extension):
        extension.close()


class Extension:
    """The magics of a shell, by suffix, and what they have in common.

    Args:
        shell: an ``InteractiveShell``, at a terminal or in a notebook's kernel.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.on_demand: ClusterOnDemand | None = None
        self._magics: dict[str, ParallelMagics] = {}
        self._areas: list[CellArea] = []
        self._sender: CellSender | None = None
        self._completer = EngineCompleter(self._locate, lambda: self.sends_cells_by)
        self._cleanups = shell.input_transformer_manager.cleanup_transforms
        self._cleanups.append(ask_engines)
        shell.Completer.custom_matchers.append(self._completer.match)
        shell.events.register("post_run_cell", self._refresh_areas)
        self._undraw_errors = draw_errors(shell)
        self.activate(None, "")

    def close(self) -> None:
        """Take everything away from the shell."""
        self.send_cells(None)
        self._cleanups.remove(ask_engines)
        self.shell.Completer.custom_matchers.remove(self._completer.match)
        self.shell.events.unregister("post_run_cell", self._refresh_areas)
        self._undraw_errors()
        for magics in self._magics.values():
            magics.unregister()

    def activate(self, view: DirectView | None, suffix: str) -> None:
        """Let ``%px<suffix>`` and the others run on ``view``; None stands for the client at hand."""
        if suffix in self._magics:
            self._magics[suffix].activated = view
            return
        magics = self._magics[suffix] = ParallelMagics(self, suffix, view)
        magics.register()

    def client_at_hand(self) -> Client | None:
        """The client in the user's names, or that of the cluster which ``%px`` has started."""
        client = find_client(self.shell.user_ns)
        if client is None and self.on_demand is not None and self.on_demand.ready and not self.on_demand.failed:
            client = self.on_demand.client
        return None if client is None or client.session.closed else client

    def start_cluster(self) -> ClusterOnDemand:
        """Start a cluster, if none is on the way."""
        if self.on_demand is None or self.on_demand.ready:
            self.on_demand = ClusterOnDemand()
        return self.on_demand

    def send_cells(self, magic: str | None) -> None:
        """Run every cell with this magic, or (None) here again."""
        if self._sender is not None:
            self._cleanups.remove(self._sender)
        self._sender = None if magic is None else CellSender(magic)
        if self._sender is not None:
            self._cleanups.append(self._sender)

    @property
    def sends_cells_by(self) -> str | None:
        """The magic that runs every cell; None if they run here."""
        return None if self._sender is None else self._sender.magic

    def watch_area(self, area: CellArea) -> None:
        """Keep an area of a notebook up to date."""
        self._areas.append(area)

    def _refresh_areas(self, *args: Any) -> None:
        # Who executes a notebook without a browser hears only what is said while a cell runs.
        for area in self._areas:
            area.publish()
        self._areas = [area for area in self._areas if not area.closed]

    def _locate(self, magic: str) -> tuple[Client, int] | None:
        magics = self._magics.get(magic.removeprefix("px") if magic != "pn" else "")
        view = magics.view() if magics is not None else None
        if magics is None or view is None or not view.client.ids:
            return None
        targets = magics.defaults.targets if magics.defaults.targets is not None else view.targets
        return view.client, resolve(targets, view.client.ids)[0]
