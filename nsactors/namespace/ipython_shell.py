"""A full IPython for a namespace with a process of its own.

The classes replace the parts of IPython that belong to a terminal: displays and errors are sent to the client, and user
code runs where interrupts can reach it.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import CodeType, ModuleType
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets import Any as AnyTrait
from traitlets.config import Config

from nsactors.namespace.interrupts import CellEventLoop, run_user_code, user_traceback
from nsactors.namespace.output import OutputRecorder
from nsactors.namespace.plain_shell import KEPT_CELLS, CellSources, Completions, forget_input
from nsactors.protocol.messages import ClearOutput, Display, ExecuteResult

_DRAWS = "TTY_COMPATIBLE"


class _CellCompiler(CachingCompiler):
    """Name cells after their engine and number; each name belongs to one source for good."""

    engine_id = 0

    def __init__(self) -> None:
        super().__init__()
        self._last_number = 0
        self._taken = 0
        self._sources = CellSources()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compile a part of a cell."""
        code = super().__call__(*args, **kwargs)
        if isinstance(code, CodeType):
            self._sources.compiled(code)
        return code

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """Keep the source of a cell that is about to be compiled; return its file name."""
        name = super().cache(transformed_code, number, raw_code)
        for gone in self._sources.begin(name):
            self._filename_map.pop(gone, None)
        return name

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        # Silent cells do not raise the number: two in a row share it, and have different sources.
        self._taken = self._taken + 1 if number == self._last_number else 0
        self._last_number = number
        return f"<engine {self.engine_id}, cell {number}{f'.{self._taken}' if self._taken else ''}>"


_WIDGET = "application/vnd.jupyter.widget-view+json"
_NO_WIDGETS = (
    "(a widget on an engine has no connection to the notebook that could draw it: use tqdm.tqdm or rich for a bar, "
    "display(..., display_id=...) and its update() for a picture that changes, or make the widget in the notebook "
    "and set it from results)"
)


def drawable(data: dict[str, Any]) -> dict[str, Any]:
    """Drop the parts of a bundle that a notebook cannot draw, such as a widget, whose model only a kernel serves."""
    if _WIDGET not in data:
        return data
    rest = {mime: part for mime, part in data.items() if mime not in (_WIDGET, "text/html")}
    return {**rest, "text/plain": f"{rest.get('text/plain', 'a widget')} {_NO_WIDGETS}"}


def _output_of(part: DisplayHook | DisplayPublisher) -> OutputRecorder:
    shell: Any = part.shell
    output: OutputRecorder = shell.engine_output
    return output


class _EngineDisplayHook(DisplayHook):
    """Send the value of a last expression to the client instead of printing it."""

    def start_displayhook(self) -> None:
        """Do nothing: no text is printed here."""

    def write_output_prompt(self) -> None:
        """Do nothing: the client draws its own prompt."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        _output_of(self).show(ExecuteResult(self.prompt_count, drawable(format_dict), md_dict or {}))

    def finish_displayhook(self) -> None:
        """Do nothing: no text is printed here."""


class _EngineDisplayPublisher(DisplayPublisher):
    """Send displays to the client."""

    def publish(
        self,
        data: Any,
        metadata: Any = None,
        source: Any = None,
        *,
        transient: Any = None,
        update: Any = False,
        **kwargs: Any,
    ) -> None:
        _output_of(self).show(Display(drawable(data), metadata or {}, transient or {}, bool(update)))

    def clear_output(self, wait: bool = False) -> None:
        _output_of(self).show(ClearOutput(wait))


class _EngineInteractiveShell(InteractiveShell):
    """IPython's shell, with errors raised instead of printed and user code within reach of interrupts."""

    engine_output = AnyTrait()
    cell_loop = AnyTrait()

    async def run_code(self, code_obj: Any, result: ExecutionResult | None = None, *, async_: bool = False) -> bool:
        """Run a compiled cell."""
        # IPython's own method without its hooks for a terminal. Errors of any kind are kept for the reply.
        try:
            if async_:
                await self.cell_loop.user_code(eval(code_obj, self.user_global_ns, self.user_ns))
            else:
                run_user_code(exec, code_obj, self.user_global_ns, self.user_ns)
        except BaseException as error:
            if result is not None:
                result.error_in_exec = error
            if issubclass(type(error), self.custom_exceptions):  # set_custom_exc(); IPython handles its errors
                trace = user_traceback(error)
                BaseException.with_traceback(error, trace)
                run_user_code(self.CustomTB, type(error), error, trace)
            return True
        return False

    def system(self, cmd: str) -> None:
        """Run ``!cmd``: file descriptors capture its output, and an interrupt ends its process group."""
        command = self.var_expand(cmd, depth=1)
        process = subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            # Not process.wait(), which gives the child another quarter of a second after an interrupt.
            _, status = os.waitpid(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        process.returncode = self.user_ns["_exit_code"] = os.waitstatus_to_exitcode(status)

    @contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """Keep no copy of the output; IPython's own method keeps the output of all cells, for ``%notebook``."""
        yield

    def _format_exception_for_storage(self, exception: BaseException, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Keep the name of the error only; IPython's own method draws the traceback of each error, for ``%notebook``.

        The drawing of a RecursionError took four seconds.
        """
        return {"ename": type(exception).__name__, "evalue": "", "traceback": []}

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: errors are sent in the reply and drawn by the client."""

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: errors are sent in the reply and drawn by the client."""

    def ask_exit(self) -> None:
        """Print how to stop an engine, because ``exit`` in a cell does not stop it."""
        print("'exit' in a cell does nothing: rc.shutdown() stops engines.", file=sys.stderr)

    def debugger(self, force: bool = False) -> None:
        """Skip ``%debug``: an engine has no keyboard."""
        print("%debug was skipped: engines have no debugger", file=sys.stderr)

    def enable_gui(self, gui: str | None = None) -> None:
        """Do nothing: engines have no windows, and figures are shown at the client."""


class _EngineProfile(ProfileDir):
    """A profile without files: a full disk must not keep a shell from starting."""

    def _mkdir(self, path: str, mode: int | None = None) -> bool:
        with suppress(OSError):
            super()._mkdir(path, mode)
        return False  # True would create a README in it


@contextmanager
def _drawing() -> Iterator[None]:
    """Let ``rich`` draw bars as it does at a terminal: front ends that show an interactive cell can draw them.

    Other calls draw no bars: programs read their output, which would contain escape sequences.
    """
    before = os.environ.get(_DRAWS)
    os.environ.setdefault(_DRAWS, "1")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_DRAWS, None)


class IPythonShell:
    """The one IPython of this process.

    Args:
        engine_id: part of the file names of cells.
        module: stands for ``__main__``; its dictionary is the namespace.
        output: receives displays.
        cell_loop: runs top-level ``await``.
        folder: the folder for IPython's own files; the user's profile and history are not touched.
    """

    def __init__(
        self, engine_id: int, module: ModuleType, output: OutputRecorder, cell_loop: CellEventLoop, folder: str
    ) -> None:
        os.environ["IPYTHONDIR"] = folder
        # Figures are shown at the end of a cell, as in a notebook; a backend that the user chose stays.
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        # The client's front end draws figures: plotly would open a browser here, on the engine's machine.
        os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")
        compiler = type("_CellCompiler", (_CellCompiler,), {"engine_id": engine_id})
        config = Config()
        config.HistoryManager.hist_file = ":memory:"
        config.Completer.use_jedi = False  # the objects themselves tell more than an analysis of source
        self._shell = _EngineInteractiveShell.instance(
            config=config,
            engine_output=output,
            cell_loop=cell_loop,
            user_module=module,
            user_ns=module.__dict__,
            ipython_dir=folder,
            profile_dir=_EngineProfile(location=os.path.join(folder, "profile")),
            displayhook_class=_EngineDisplayHook,
            display_pub_class=_EngineDisplayPublisher,
            compiler_class=compiler,
            loop_runner=cell_loop.run,
            colors="nocolor",
        )
        # :meth:`close` calls it: as an atexit handler it would empty the namespace before the user's handlers run.
        atexit.unregister(self._shell.atexit_operations)
        self.names: dict[str, Any] = self._shell.user_ns

    @property
    def execution_count(self) -> int:
        """Return the number of the next cell."""
        return int(self._shell.execution_count)

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        self._shell.execution_count = value

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        """Run a cell; its error is raised here."""
        try:
            with nullcontext() if silent else _drawing():
                result = self._shell.run_cell(code, store_history=store_history and not silent, silent=silent)
        finally:
            self._forget_cell(self.execution_count - 1 - KEPT_CELLS)
        error = result.error_in_exec if result.error_before_exec is None else result.error_before_exec
        if error is not None:
            raise error

    def _forget_cell(self, number: int) -> None:
        """Drop an old cell: IPython keeps more than 1 kB of each, and all results that were shown.

        IPython itself limits ``Out``.
        """
        shell = self._shell
        history: Any = shell.history_manager
        getattr(history, "outputs", {}).clear()  # for %notebook; IPython 9.0 has neither attribute
        getattr(history, "exceptions", {}).pop(number, None)
        history.output_hist_reprs.pop(number, None)
        del history.db_input_cache[:-KEPT_CELLS]
        for inputs in (history.input_hist_parsed, history.input_hist_raw):
            forget_input(inputs, number)
        shell.user_ns.pop(f"_i{number}", None)
        for name in (f"_i{number}", f"_{number}"):
            shell.user_ns_hidden.pop(name, None)

    def reset(self) -> None:
        """Remove every name of the user, and the histories."""
        self._shell.reset(new_session=True, aggressive=False)

    def close(self) -> None:
        """Release histories and results, and remove temporary files, as IPython does at its exit."""
        self._shell.atexit_operations()

    def complete(self, code: str, cursor: int) -> Completions:
        """Return names that complete ``code`` at ``cursor``."""
        line = code[:cursor].rpartition("\n")[2]
        text, matches = self._shell.complete(None, line, len(line))
        return Completions(tuple(matches), cursor - len(text), cursor)

    def inspect(self, name: str, detail: int) -> str | None:
        """Describe ``name`` as ``name?`` does; None if it is not bound."""
        if not self._shell._ofind(name).found:
            return None
        text: str | None = self._shell.object_inspect_mime(name, detail_level=detail).get("text/plain")
        return text
