"""``%px``, ``%%px``, ``%pn``, ``%autopx``, ``%result``, ``%pxconfig`` and ``%pxattach``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from nsactors.client import Client
from nsactors.core.cluster import Inspect
from nsactors.magics.options import CELL, CONFIG, RESULT, Options, OptionsError, leading_options, parse, parse_targets
from nsactors.magics.reloading import SourceShipper
from nsactors.magics.results import show_numbered
from nsactors.magics.running import show_in_background, show_while_waiting, submit
from nsactors.magics.starting import ClusterOnDemand
from nsactors.results import AsyncResult
from nsactors.results.live import open_screen
from nsactors.results.live.grouping import engine_label
from nsactors.results.live.notebook import CellArea
from nsactors.views.direct import DirectView

if TYPE_CHECKING:
    from nsactors.magics.extension import Extension

__all__ = ["ParallelMagics"]

PROGRESS_AFTER_S = 2.0
ANSWER_S = 5.0


class ParallelMagics:
    """The magics for one view.

    Args:
        extension: what all of a shell's magics share.
        suffix: at the end of each name: ``%px_even``.
        activated: the view they run on; None for all engines of the client at hand.
    """

    def __init__(self, extension: Extension, suffix: str, activated: DirectView | None = None) -> None:
        self.activated = activated
        self.defaults = Options(block=True, progress_after_s=PROGRESS_AFTER_S)
        self.last_result: AsyncResult | None = None
        self._extension = extension
        self._shell = extension.shell
        self._suffix = suffix
        self._shipper: SourceShipper | None = None

    def _names(self) -> dict[str, dict[str, Callable[..., Any]]]:
        line: dict[str, Callable[..., Any]] = {
            f"px{self._suffix}": self.px,
            f"autopx{self._suffix}": self.autopx,
            f"pxresult{self._suffix}": self.result,
            f"pxconfig{self._suffix}": self.pxconfig,
            f"pxreload{self._suffix}": self.pxreload,
            f"pxinfo{self._suffix}": self.pxinfo,
        }
        if not self._suffix:
            line |= {"result": self.result, "pn": self.pn, "pxattach": self.pxattach}
        return {"line": line, "cell": {f"px{self._suffix}": self.cell_px}}

    def register(self) -> None:
        """Make the magics known to the shell."""
        for kind, functions in self._names().items():
            for name, function in functions.items():
                self._shell.register_magic_function(function, kind, name)

    def unregister(self) -> None:
        """Make the shell forget them."""
        for kind, functions in self._names().items():
            for name in functions:
                self._shell.magics_manager.magics[kind].pop(name, None)

    def view(self) -> DirectView | None:
        """The view that cells run on now; None while there is none."""
        if self.activated is not None:
            return self.activated
        client = self._extension.client_at_hand()
        return None if client is None else client.direct_view("all")

    @no_var_expand
    def px(self, line: str) -> AsyncResult | None:
        """Run a line on engines: ``%px import numpy``.

        Long options may stand before the code, as in ``%px --targets ::2 rank = 1``; see ``%%px?``. ``%px name?`` says
        what a name is on an engine.
        """
        written, code = leading_options(line)
        options, _ = _understood(written, CELL, "%px")
        if not code.strip():
            raise UsageError("%px runs a line of code on the engines, as in: %px import numpy")
        return self._execute(code, options)

    @no_var_expand
    def cell_px(self, line: str, cell: str) -> AsyncResult | None:
        """Run a cell on engines and show what they print, labelled by engine.

        Options:
            -t, --targets ENGINES     which: 3, 0,2, ::2 or all
            -b, --block               wait for it (the default)
            -a, --noblock             do not wait: its output comes all the same; the result is returned
            --local                   run it here too
            -o, --out NAME            keep the result under a name
            --timeout SECONDS         interrupt it after so long
            --no-journal              do not run it again when a namespace is recovered
            --stream, --no-stream     show output as it comes (the default), or all at the end
            --group-outputs HOW       all at the end, by engine, order or type; -e and -r for the first two
            --progress-after SECONDS  until a progress bar is shown; -1 for none
            --signal-on-interrupt S   what Ctrl-C sends to engines in place of SIGINT; 0 for nothing
            --verbose, --no-verbose   say where it runs
        """
        options, others = _understood(line, CELL, "%%px")
        if others:
            raise UsageError(f"%%px takes options on its first line, and code below it; this is neither: {others[0]}")
        return self._execute(cell, options)

    @no_var_expand
    def pn(self, line: str) -> AsyncResult | None:
        """Run a line on some engines: ``%pn 0 a = 5``, ``%pn 0,2 a = 5``, ``%pn ::2 a = 5``."""
        engines, _, code = line.strip().partition(" ")
        if not code.strip():
            raise UsageError("%pn names engines and code, as in: %pn 0 a = 5")
        try:
            return self._execute(code.strip(), Options(targets=parse_targets(engines)))
        except OptionsError as error:
            raise UsageError(f"%pn: {error}") from None

    def result(self, line: str = "") -> None:
        """Show the output of the last ``%px`` again, or (``%result 7``) what cell 7 of the engines was and gave.

        Options are ``--group-outputs HOW`` and ``--out NAME``, as for ``%%px``.

        Raises:
            IndexError: if an engine has run no cell with this number.
        """
        options, others = _understood(line, RESULT, "%result")
        if others:
            view = self._view_or_complain()
            if len(others) > 1 or not others[0].lstrip("-").isdigit():
                raise UsageError(f"%result takes the number of a cell, not {' '.join(others)!r}")
            return show_numbered(view, self.defaults.targets, int(others[0]), open_screen(blocking=True))
        if self.last_result is None:
            raise UsageError("%result shows the result of the last %px, and there was none yet")
        if options.out:
            self._shell.user_ns[options.out] = self.last_result
            return None
        shown = Options(group_outputs=options.group_outputs or "type")
        view = self._view_or_complain()
        show_while_waiting(view.client, self.last_result, shown, open_screen(blocking=True))
        return None

    def autopx(self, line: str = "") -> None:
        """Run every cell on the engines from now on; once more: run them here again."""
        magic = f"px{self._suffix}"
        if self._extension.sends_cells_by == magic:
            self._extension.send_cells(None)
            print("%autopx disabled: cells run here again")
            return
        self._extension.send_cells(magic)
        print(f"%autopx{self._suffix} enabled: cells run on the engines, until %autopx{self._suffix} again")

    def pxconfig(self, line: str = "") -> None:
        """Set what ``%px`` does unless told otherwise, by the options of ``%%px``; alone: show it."""
        options, others = _understood(line, CONFIG, "%pxconfig")
        if others:
            raise UsageError(f"%pxconfig takes options, not {others[0]!r}")
        self.defaults = options.over(self.defaults)
        if not line.strip():
            print(self._describe_defaults())

    def pxreload(self, line: str = "") -> None:
        """Send local modules that were edited to the engines before each ``%px``; ``%pxreload off`` ends that."""
        match line.strip():
            case "" | "on":
                self._shipper = self._shipper or SourceShipper()
                print("%pxreload on: edits of local modules reach the engines with the next %px")
            case "off":
                self._shipper = None
            case other:
                raise UsageError(f"%pxreload takes on or off, not {other!r}")

    def pxattach(self, line: str = "") -> None:
        """Make ``rc`` a client of a cluster in the background: ``%pxattach lab``, or alone where only one runs."""
        name = line.strip() or None
        client = Client(name)
        names = self._shell.user_ns
        names.pop("rc", None)  # the client that was bound last is the one that cells go to
        names["rc"] = client
        there = engine_label(client.ids) if client.ids else "no engines yet"
        print(f"Attached{f' to {name}' if name else ''}: {there}. They are `rc`.")

    def pxinfo(self, line: str) -> None:
        """Say what a name is on the first of the engines; behind ``%px name?`` and ``%px name??``."""
        name, _, marks = line.strip().partition(" ")
        view = self._view_or_complain()
        targets = self.defaults.targets if self.defaults.targets is not None else view.targets
        engine_id = view.client.direct_view(targets)._resolve(None)[0]
        question = Inspect(name, 1 if marks == "2" else 0)
        answer = view.client.session.transport.controller.ask([engine_id], question, ANSWER_S).get(engine_id)
        if answer is None:
            print(f"Engine {engine_id} does not answer: its interpreter is held by code in C.")
        elif answer.value is None:
            print(f"Object `{name}` not found on engine {engine_id}.")
        else:
            print(f"{engine_label([engine_id])}\n{answer.value}")

    def _execute(self, code: str, given: Options) -> AsyncResult | None:
        options = given.over(self.defaults)
        view = self._view_when_ready(code, options)
        if view is None:
            return None
        if self._shipper is not None:
            self._shipper.ship(view)
        result = self._submit(view, code, options)
        if options.local:
            self._shell.run_cell(code)
        if options.block:
            show_while_waiting(view.client, result, options, open_screen(blocking=True))
            return None
        if options.stream is not False:
            self._follow(result, options)
        return result

    def _submit(self, view: DirectView, code: str, options: Options) -> AsyncResult:
        result = self.last_result = submit(view, code, options)
        if options.verbose:
            kind = "Parallel" if options.block else "Asynchronous parallel"
            print(f"{kind} execution on {engine_label(call.engine_id for call in result.calls)}")
        if options.out:
            self._shell.user_ns[options.out] = result
        return result

    def _follow(self, result: AsyncResult, options: Options) -> None:
        where = engine_label(call.engine_id for call in result.calls)
        screen = open_screen(blocking=False, title=f"{where} running")
        if isinstance(screen, CellArea):
            self._extension.watch_area(screen)
        show_in_background(result, options, screen)

    def _view_when_ready(self, code: str, options: Options) -> DirectView | None:
        """The view to run on; None if there are no engines yet and the cell waits for them in line."""
        on_demand = self._extension.on_demand
        if on_demand is not None and not on_demand.ready:
            self._await_engines(on_demand)
        elif self.view() is None:
            on_demand = self._extension.start_cluster()
            cores = on_demand.cluster.n
            print(f"No cluster yet: starting {cores} engine{'s' * (cores != 1)} on the cores at hand.", end=" ")
            if self._interactive():
                print("The cell runs when they are there; they will be `rc`.")
                self._queue(on_demand, code, options)
                return None
            print("They will be `rc`.", flush=True)
            self._await_engines(on_demand)
            self._shell.user_ns.setdefault("rc", on_demand.client)
        return self._view_or_complain()

    def _queue(self, on_demand: ClusterOnDemand, code: str, options: Options) -> None:
        screen = open_screen(blocking=False, title="waiting for engines")
        if isinstance(screen, CellArea):
            self._extension.watch_area(screen)

        def run(client: Any) -> None:
            self._shell.user_ns.setdefault("rc", client)
            result = self._submit(self.activated or client.direct_view("all"), code, options)
            show_in_background(result, options, screen)

        def give_up(error: Exception) -> None:
            screen.notice(f"The cluster could not be started: {error}")
            screen.close()

        on_demand.when_ready(run, give_up)

    def _await_engines(self, on_demand: ClusterOnDemand) -> None:
        from rich.console import Console

        waiting = "waiting for the engines"
        spins = sys.stdout.isatty() and not hasattr(self._shell, "kernel")
        try:
            with Console(file=sys.stdout).status(waiting) if spins else nullcontext():
                on_demand.wait()
        except KeyboardInterrupt:
            raise UsageError("Not waiting any longer: the engines go on starting, this cell was not run") from None

    def _interactive(self) -> bool:
        """Whether somebody sits at a prompt that can come back."""
        return hasattr(self._shell, "kernel") or (sys.stdin.isatty() and sys.stdout.isatty())

    def _view_or_complain(self) -> DirectView:
        view = self.view()
        if view is None:
            raise UsageError("There is no cluster yet: start one with nsactors.Cluster(), or run a cell with %px")
        return view

    def _describe_defaults(self) -> str:
        defaults, view = self.defaults, self.view()
        targets = defaults.targets if defaults.targets is not None else view.targets if view is not None else "all"
        rows = {
            "targets": targets,
            "block": defaults.block,
            "stream": defaults.stream is not False,
            "progress-after": f"{defaults.progress_after_s:g} s",
            "signal-on-interrupt": defaults.signal_on_interrupt or "SIGINT",
            "timeout": "none" if defaults.timeout_s is None else f"{defaults.timeout_s:g} s",
            "verbose": bool(defaults.verbose),
        }
        return "\n".join(f"{name:20} {value}" for name, value in rows.items())


def _understood(line: str, allowed: Any, magic: str) -> tuple[Options, list[str]]:
    try:
        return parse(line, allowed, magic)
    except OptionsError as error:
        raise UsageError(str(error)) from None
