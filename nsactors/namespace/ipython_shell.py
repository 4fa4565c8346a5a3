"""A full IPython for a namespace that has a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, ModuleType
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets import Any as AnyTrait
from traitlets.config import Config

from nsactors.core.messages import ClearOutput, Display, ExecuteResult
from nsactors.namespace.cell_sources import CellSources
from nsactors.namespace.gate import CellLoop, run_user_code
from nsactors.namespace.output import Output
from nsactors.namespace.shell import KEPT_CELLS, Completions, forget_input

__all__ = ["IPythonShell"]


class _CellCompiler(CachingCompiler):
    """Names cells after their engine and number; a name once given to some source stays with it."""

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
        """Keep the source of a cell that is about to be compiled; its file name."""
        name = super().cache(transformed_code, number, raw_code)
        for gone in self._sources.begin(name):
            self._filename_map.pop(gone, None)
        return name

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        # Silent cells do not count upwards: two of them in a row have one number and different source.
        self._taken = self._taken + 1 if number == self._last_number else 0
        self._last_number = number
        return f"<engine {self.engine_id}, cell {number}{f'.{self._taken}' if self._taken else ''}>"


def _output_of(part: DisplayHook | DisplayPublisher) -> Output:
    shell: Any = part.shell
    output: Output = shell.engine_output
    return output


class _EngineDisplayHook(DisplayHook):
    """Sends the value of a last expression to the client instead of printing it."""

    def start_displayhook(self) -> None:
        """Nothing is printed here."""

    def write_output_prompt(self) -> None:
        """The client draws its own prompt."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        _output_of(self).show(ExecuteResult(self.prompt_count, format_dict, md_dict or {}))

    def finish_displayhook(self) -> None:
        """Nothing is printed here."""


class _EngineDisplayPublisher(DisplayPublisher):
    """Sends displays to the client."""

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
        _output_of(self).show(Display(data, metadata or {}, transient or {}, bool(update)))

    def clear_output(self, wait: bool = False) -> None:
        _output_of(self).show(ClearOutput(wait))


class _EngineInteractiveShell(InteractiveShell):
    """IPython's shell, with its errors handed over instead of printed and user code behind the interrupt gate."""

    engine_output = AnyTrait()
    cell_loop = AnyTrait()

    async def run_code(self, code_obj: Any, result: ExecutionResult | None = None, *, async_: bool = False) -> bool:
        """Run a compiled cell."""
        # As IPython's own, less its hooks for a terminal. Errors of any kind are kept for the reply.
        try:
            if async_:
                await self.cell_loop.user_code(eval(code_obj, self.user_global_ns, self.user_ns))
            else:
                run_user_code(exec, code_obj, self.user_global_ns, self.user_ns)
        except BaseException as error:
            if result is not None:
                result.error_in_exec = error
            return True
        return False

    def system(self, cmd: str) -> None:
        """Run ``!cmd``: its output is captured by descriptor, and an interrupt ends its whole process group."""
        command = self.var_expand(cmd, depth=1)
        process = subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            # Not process.wait(): interrupted, it gives the child another quarter of a second.
            _, status = os.waitpid(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        process.returncode = self.user_ns["_exit_code"] = os.waitstatus_to_exitcode(status)

    @contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """IPython's own keeps all that cells print, for ``%notebook``."""
        yield

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Errors travel in the reply and are drawn by the client."""

    def showsyntaxerror(self, *args: Any, **kwargs: Any) -> None:
        """Errors travel in the reply and are drawn by the client."""

    def ask_exit(self) -> None:
        """``exit`` in a cell does not end the engine."""
        print("An engine is ended by rc.shutdown(); 'exit' in a cell does nothing.", file=sys.stderr)

    def enable_gui(self, gui: str | None = None) -> None:
        """Engines have no windows; figures are shown at the client."""


class IPythonShell:
    """The one IPython of this process.

    Args:
        engine_id: named in the file names of cells.
        module: stands for ``__main__``; its dictionary is the namespace.
        output: where displays go.
        cell_loop: runs top-level ``await``.
        folder: for IPython's own files; the user's profile and history are not touched.
    """

    def __init__(self, engine_id: int, module: ModuleType, output: Output, cell_loop: CellLoop, folder: str) -> None:
        os.environ["IPYTHONDIR"] = folder
        # Figures are shown at the end of a cell, as in a notebook; a backend that the user chose stays.
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        compiler = type("_CellCompiler", (_CellCompiler,), {"engine_id": engine_id})
        config = Config()
        config.HistoryManager.hist_file = ":memory:"
        config.Completer.use_jedi = False  # the objects are here: looking at them beats analysing their source
        self._shell = _EngineInteractiveShell.instance(
            config=config,
            engine_output=output,
            cell_loop=cell_loop,
            user_module=module,
            user_ns=module.__dict__,
            ipython_dir=folder,
            profile_dir=ProfileDir(location=os.path.join(folder, "profile")),
            displayhook_class=_EngineDisplayHook,
            display_pub_class=_EngineDisplayPublisher,
            compiler_class=compiler,
            loop_runner=cell_loop.run,
            colors="nocolor",
        )
        self.names: dict[str, Any] = self._shell.user_ns

    @property
    def execution_count(self) -> int:
        """The number of the next cell."""
        return int(self._shell.execution_count)

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        self._shell.execution_count = value

    def run_cell(self, code: str, *, silent: bool, store_history: bool) -> None:
        """Run a cell; what it raised is raised here."""
        try:
            result = self._shell.run_cell(code, store_history=store_history and not silent, silent=silent)
        finally:
            self._forget_cell(self.execution_count - 1 - KEPT_CELLS)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            raise error

    def _forget_cell(self, number: int) -> None:
        """Forget a cell that came long ago: IPython keeps more of each than 1 kB, and all results that were shown.

        ``Out`` is its own affair: it has a limit there.
        """
        shell = self._shell
        history: Any = shell.history_manager
        getattr(history, "outputs", {}).clear()  # for %notebook; IPython 9.0 has neither
        getattr(history, "exceptions", {}).pop(number, None)
        history.output_hist_reprs.pop(number, None)
        del history.db_input_cache[:-KEPT_CELLS]
        for inputs in (history.input_hist_parsed, history.input_hist_raw):
            forget_input(inputs, number)
        shell.user_ns.pop(f"_i{number}", None)
        for name in (f"_i{number}", f"_{number}"):
            shell.user_ns_hidden.pop(name, None)

    def reset(self) -> None:
        """Forget every name the user made, and the histories."""
        self._shell.reset(new_session=True, aggressive=False)

    def complete(self, code: str, cursor: int) -> Completions:
        """Names that complete ``code`` at ``cursor``."""
        line = code[:cursor].rpartition("\n")[2]
        text, matches = self._shell.complete(None, line, len(line))
        return Completions(tuple(matches), cursor - len(text), cursor)

    def inspect(self, name: str, detail: int) -> str | None:
        """What ``name`` is, as ``name?`` shows it."""
        found = self._shell.object_inspect_mime(name, detail_level=detail) if self._exists(name) else {}
        return found.get("text/plain")

    def _exists(self, name: str) -> bool:
        return bool(self._shell._ofind(name).found)
