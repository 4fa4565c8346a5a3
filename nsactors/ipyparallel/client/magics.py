"""``%px`` and related magics on a view of this package.

At a terminal and in a notebook the magics of nsactors show output as it is printed. Elsewhere, and if output is
grouped, output is printed when the cell has ended, labelled as in ipyparallel.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand
from IPython.core.magic_arguments import MagicArgumentParser

import nsactors
from nsactors.ipyparallel.client.asyncresult import AsyncResult
from nsactors.ipyparallel.client.view import DirectView
from nsactors.ipyparallel.error import AlreadyDisplayedError, CompositeError, RemoteError
from nsactors.ipyparallel.translation import translating

__all__ = ["ParallelMagics"]

NAMES = ("px", "pxresult", "pxconfig", "autopx")
NO_SIGNAL = 0
INTERRUPT_WAIT_S = 5.0


class ParallelMagics:
    """The magics of a view: ``%px``, ``%%px``, ``%pxresult``, ``%pxconfig``, ``%autopx``.

    Args:
        shell: the IPython shell.
        view: the view on which cells run; its ``block`` is the default for waiting.
        suffix: the end of each magic's name, such as ``_even`` in ``%px_even``.
    """

    def __init__(self, shell: Any, view: DirectView, suffix: str = "") -> None:
        self.shell = shell
        self.view = view
        self.suffix = suffix
        self.verbose = False
        self.stream_output = not os.environ.get("IPP_NONINTERACTIVE")  # set where notebooks are built
        self.signal_on_interrupt: Any = "SIGINT"
        self.progress_after_seconds = 2.0
        self.last_result: AsyncResult | None = None
        view.core.activate(suffix)
        self._line = {name: self._below("line", name) for name in NAMES}
        self._cell = self._below("cell", "px")

    def _below(self, kind: str, name: str) -> Callable[..., Any]:
        """Return a magic of nsactors, also after a magic of this package has replaced it."""
        function: Callable[..., Any] = self.shell.magics_manager.magics[kind][f"{name}{self.suffix}"]
        below: Callable[..., Any] = inspect.unwrap(function)
        return below

    def register(self) -> None:
        """Register the magics with the shell."""
        for name, function in (("px", self.px), ("pxresult", self.result), ("pxconfig", self.pxconfig)):
            self._register(function, "line", name, self._line[name])
        self._register(self.autopx, "line", "autopx", self._line["autopx"])
        self._register(self.cell_px, "cell", "px", self._cell)
        if not self.suffix:
            self._register(self.result, "line", "result", self._line["pxresult"])

    def _register(self, function: Callable[..., Any], kind: str, name: str, below: Callable[..., Any]) -> None:
        @no_var_expand
        def magic(*args: Any) -> Any:
            return function(*args)

        magic.__doc__ = below.__doc__
        magic.__wrapped__ = below  # type: ignore[attr-defined]  # found when another view is activated
        self.shell.register_magic_function(magic, kind, f"{name}{self.suffix}")

    def px(self, line: str = "") -> AsyncResult | None:
        """Run a line on the engines."""
        return self._run(_options(""), line)

    def cell_px(self, line: str = "", cell: str | None = None) -> AsyncResult | None:
        """Run a cell on the engines; ``%%px?`` lists the options."""
        given = _options(self.shell.var_expand(line))
        if given.local:
            self.shell.run_cell(cell)
        return self._run(given, cell or "")

    def result(self, line: str = "") -> None:
        """Show again the output of the last cell, or of the cell with a given number."""
        given, others = _parser().parse_known_args(line.split())
        if others:
            with translating():
                self._line["pxresult"](line)
            return
        if self.last_result is None:
            raise UsageError("%pxresult recalls last %px result, which has not yet been used.")
        if given.save_name:
            self.shell.user_ns[given.save_name] = self.last_result
            return
        self.last_result.get()
        self.last_result.display_outputs(given.groupby or "type")

    def pxconfig(self, line: str = "") -> None:
        """Set the default options of cells, with the options of ``%%px``; without an option, show the defaults."""
        given = _options(line)
        if given.targets is not None:
            self.view.targets = self._targets(given.targets)
        if given.block is not None:
            self.view.block = given.block
        for name in ("verbose", "stream_output", "signal_on_interrupt", "progress_after_seconds"):
            if getattr(given, name) is not None:
                setattr(self, name, getattr(given, name))
        if not line.strip():
            self._line["pxconfig"]("")

    def autopx(self, line: str = "") -> None:
        """Run every cell on the engines from now on; a second ``%autopx`` runs cells here again."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            self._line["autopx"](line)
        print(said.getvalue().partition(":")[0])

    def _targets(self, text: str) -> Any:
        if text == "all":
            return "all"
        try:
            if ":" in text:
                return self.view.client.ids[slice(*(int(part) if part else None for part in text.split(":")))]
            ids = [int(part) for part in text.strip("[]()").split(",") if part.strip()]
        except ValueError:
            raise UsageError(f"engines are written as 3 or 0,2 or ::2 or all, not {text!r}") from None
        return ids if "," in text or "[" in text else ids[0]

    def _run(self, given: Any, code: str) -> AsyncResult | None:
        targets = self.view.targets if given.targets is None else self._targets(given.targets)
        blocks = self.view.block if given.block is None else given.block
        streams = self.stream_output if given.stream_output is None else given.stream_output
        verbose = self.verbose if given.verbose is None else given.verbose
        if verbose:
            print(f"{'Parallel' if blocks else 'Async parallel'} execution on engine(s): {targets}")
        live = hasattr(self.shell, "kernel") or sys.stdout.isatty()
        if live and streams and given.groupby is None:
            return self._run_live(given, code, targets, blocks)
        result = self.last_result = self.view.execute(code, silent=False, targets=targets, block=False)
        if given.save_name:
            self.shell.user_ns[given.save_name] = result
        if not blocks:
            return result
        if not self._wait(result, targets, given):
            return None
        result.display_outputs(given.groupby or "type", labels=streams and given.groupby is None)
        try:
            result.get()
        except CompositeError as error:
            if not streams or given.groupby is not None:
                raise
            raise _displayed(error) from None
        return None

    def _wait(self, result: AsyncResult, targets: Any, given: Any) -> bool:
        """Wait until the cell ends, and return whether it has; Ctrl-C ends the wait, and sends the chosen signal."""
        try:
            concurrent.futures.wait([result])
        except KeyboardInterrupt:
            chosen = self.signal_on_interrupt if given.signal_on_interrupt is None else given.signal_on_interrupt
            print(f"Received Keyboard Interrupt. Sending signal {chosen} to engines...", file=sys.stderr)
            number = int(chosen) if str(chosen).isdigit() else int(signal.Signals[str(chosen)])
            if number != NO_SIGNAL:
                self.view.client.send_signal(number, targets)
                concurrent.futures.wait([result], INTERRUPT_WAIT_S)
                if result.done():
                    result.display_outputs(given.groupby or "type")
            return False
        return True

    def _run_live(self, given: Any, code: str, targets: Any, blocks: bool) -> AsyncResult | None:
        """Show the output with nsactors, as it is printed."""
        words = [f"--targets {','.join(map(str, targets)) if isinstance(targets, list) else targets}"]
        words += ["--block" if blocks else "--noblock", f"--progress-after {self.progress_after_seconds}"]
        words.append(f"--signal-on-interrupt {given.signal_on_interrupt or self.signal_on_interrupt}")
        kept = "_px_result_"
        with translating():
            try:
                self._cell(" ".join([*words, f"--out {kept}"]), code)
            finally:
                made = self.shell.user_ns.pop(kept, None)
                if isinstance(made, nsactors.AsyncResult):
                    self.last_result = AsyncResult(self.view.client, made, "execute", targets)
                    self.view.client.enter(self.last_result)
                    if given.save_name:
                        self.shell.user_ns[given.save_name] = self.last_result
        return None if blocks else self.last_result


def _displayed(group: CompositeError) -> AlreadyDisplayedError:
    """Print errors as ipyparallel does, the first few with tracebacks; return the error to raise in their place."""
    for number, each in enumerate(group.exceptions):
        at_length = isinstance(each, RemoteError) and number < group.tb_limit
        print("\n".join(each.render_traceback()) if at_length else each, file=sys.stderr)  # type: ignore[attr-defined]
    return AlreadyDisplayedError(group)


def _parser() -> MagicArgumentParser:
    parser = MagicArgumentParser("%%px", add_help=False)
    option = parser.add_argument
    option("-b", "--block", dest="block", action="store_const", const=True)
    option("-a", "--noblock", dest="block", action="store_const", const=False)
    option("--stream", dest="stream_output", action="store_const", const=True)
    option("--no-stream", dest="stream_output", action="store_const", const=False)
    option("-t", "--targets")
    option("--verbose", dest="verbose", action="store_const", const=True)
    option("--no-verbose", dest="verbose", action="store_const", const=False)
    option("--progress-after", dest="progress_after_seconds", type=float)
    option("--signal-on-interrupt", dest="signal_on_interrupt")
    option("--local", action="store_true")
    option("-r", dest="groupby", action="store_const", const="order")
    option("-e", dest="groupby", action="store_const", const="engine")
    option("--group-outputs", dest="groupby", choices=["engine", "order", "type"])
    option("-o", "--out", dest="save_name")
    return parser


def _options(line: str) -> Any:
    return _parser().parse_argstring(line)
