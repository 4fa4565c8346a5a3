"""The IPython extension: ``%px`` and related magics."""

from __future__ import annotations

import inspect
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from nsactors._frozen import frozen
from nsactors.client import Client
from nsactors.client.prompt import SessionClients, draw_errors
from nsactors.cluster.options import problem_of_cell
from nsactors.cluster.time_limits import time_in_words, time_left_of
from nsactors.errors import DebuggerUnavailable, plural
from nsactors.errors.formatting import reasons_by_engines, slice_in_words
from nsactors.magics.completion import CellSender, EngineCompleter, ask_engines
from nsactors.magics.inspection import profiled, show, show_peek, split_peek
from nsactors.magics.on_demand import AreaLine, ClusterOnDemand, ToolbarLine
from nsactors.magics.options import (
    CELL,
    CONFIG,
    HISTORY,
    RESULT,
    STACK,
    Options,
    OptionsError,
    leading_options,
    meant_option,
    parse,
    parse_targets,
)
from nsactors.magics.reloading import EditedModules
from nsactors.magics.scripts import show_scripts, write_script
from nsactors.protocol.control import Inspect
from nsactors.protocol.messages import ExecuteResult
from nsactors.protocol.targets import Targets, resolve
from nsactors.results import AsyncResult, Call, CallController
from nsactors.results.display.line import showing
from nsactors.results.display.live import LiveOutput, open_screen
from nsactors.results.display.merging import Shown, TextLine, arrange, engine_label
from nsactors.results.display.notebook import CellArea
from nsactors.results.display.screen import Screen
from nsactors.results.interrupting import wait_or_interrupt
from nsactors.session.own_modules import OwnModules
from nsactors.transport.registry import Registry
from nsactors.views.direct import DirectView


def submit(view: DirectView, code: str, options: Options) -> AsyncResult:
    """Send a cell to engines."""
    if options.journal is not None:
        view = view.with_flags(journal=options.journal)
    if options.breaks is not None:
        view = view.with_flags(breakpoints=options.breaks)
    return view.execute(code, silent=False, targets=options.targets, block=False, label="%px", timeout=options.limit_s)


def show_while_waiting(client: Client, result: AsyncResult, options: Options, screen: Screen) -> None:
    """Show output until every engine has replied; Ctrl-C interrupts the engines.

    Raises:
        RemoteError: the error of a cell that was sent to one engine, named by its id.
        CompositeError: the errors of a cell on several engines.
    """
    live = _live(result, options, screen)
    owner: CallController = client.session
    if options.signal_on_interrupt is not None:
        owner = _Signaller(client, options.signal_on_interrupt)
    try:
        asks_to_end = options.signal_on_interrupt is not None
        wait_or_interrupt(
            live.wait, result.calls, owner, None, may_succeed=asks_to_end, progress=False, settle=live.settle
        )
    finally:
        screen.close()
        live.let_go()
    result.get()


def show_in_background(client: Client, result: AsyncResult, options: Options, screen: Screen) -> None:
    """Show output as it is printed, and errors at the end, from a background thread."""
    errors = client.session.unretrieved
    errors.leave_to_display(result.calls)
    _live(result, options, screen, failures_told=errors.seen).follow()


def _live(
    result: AsyncResult,
    options: Options,
    screen: Screen,
    *,
    failures_told: Callable[[list[Call]], object] | None = None,
) -> LiveOutput:
    groupby = options.group_outputs or ("type" if options.stream is False else None)
    after = -1.0 if options.progress_after_s is None else options.progress_after_s
    return LiveOutput(
        result.calls, screen, label="px", progress_after_s=after, groupby=groupby, failures_told=failures_told
    )


@frozen
class _Signaller:
    """A ``CallController`` that sends a given signal on Ctrl-C; all else is passed on to the session."""

    client: Client
    number: int

    @property
    def detached(self) -> bool:
        return False

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        self.client.session.abort(calls, interrupt=interrupt)

    def interrupt(self, calls: Iterable[Call]) -> bool:
        engine_ids: Sequence[int] = sorted({call.engine_id for call in calls})
        if self.number:  # 0 leaves the engines alone
            self.client.send_signal(self.number, engine_ids)
        return True

    def check_process(self) -> None:
        self.client.session.check_process()

    def obstacles(self, calls: Iterable[Call]) -> dict[int, str]:
        return {}  # the engines may handle the signal in any way, so no engine counts as stuck

    def mark_retrieved(self, calls: Iterable[Call]) -> None:
        self.client.session.mark_retrieved(calls)

    @property
    def has_stops(self) -> bool:
        return self.client.session.has_stops

    def debug_stops(self, settle: Callable[[], object]) -> None:
        self.client.session.debug_stops(settle)

    def debug(self, calls: Iterable[Call]) -> None:
        self.client.session.debug(calls)

    def run_callback(self, function: Callable[[], object]) -> None:
        self.client.session.run_callback(function)

    def restart(self, engine_ids: Iterable[int]) -> None:
        self.client.session.restart(engine_ids)


def show_numbered(view: DirectView, targets: Targets, number: int) -> None:
    """Show the source and the value of the engines' cell ``number``; equal sources and values are shown once.

    Raises:
        UsageError: if an engine has run no cell of this number.
    """
    # Engines that are threads have these names from their first cell on.
    inputs, outputs = "globals().get('In', [''])", "globals().get('Out', {})"
    source = f"{inputs}[{number}] if 0 < {number} < len({inputs}) else None"
    value = f"repr({outputs}[{number}]) if {number} in {outputs} else None"
    found = view.pull(f"(len({inputs}), {source}, {value})", targets, block=False)
    values = found.get_dict()
    missing = {i: _numbers_in_words(count - 1) for i, (count, source, _) in values.items() if source is None}
    if missing:
        raise UsageError(f"%result: no cell {number} on {'; '.join(reasons_by_engines(missing))}")
    screen = open_screen(blocking=True)
    sources: dict[str, list[int]] = {}
    for engine_id, (_, source, _) in values.items():
        sources.setdefault(source.rstrip(), []).append(engine_id)
    for source, engines in sources.items():
        label = f"In{engine_label(engines)[:-1]}:{number}]:"
        first, *rest = source.splitlines() or [""]
        screen.notice("\n".join([f"{label} {first}", *(" " * len(label) + " " + line for line in rest)]))
    outs = {
        i: ExecuteResult(number, {"text/plain": text}, {}) for i, (_, _, text) in values.items() if text is not None
    }
    screen.show(arrange([(engine_id, [out]) for engine_id, out in outs.items()], "type"))
    if not outs:
        screen.show([Shown(tuple(values), TextLine("stdout", f"cell {number} has no value"))])
    screen.close()


def _numbers_in_words(last: int) -> str:
    return "no cell has run yet" if last < 1 else "the only cell is 1" if last == 1 else f"the cells are 1 to {last}"


def find_client(shell: Any) -> Client | None:
    """Return the newest open client that the user's names are bound to; None without one.

    The order of the names does not tell: a name that is bound again keeps its place, behind which IPython's own names
    of earlier values may be.
    """
    bound = [value for value in shell.user_ns.values() if isinstance(value, Client) and not value.session.closed]
    newest = SessionClients.of(shell).newest(bound)
    if isinstance(newest, Client):
        return newest
    return bound[-1] if bound else None  # made before this shell was


def bind_rc(names: dict[str, Any], client: Any) -> None:
    """Bind ``rc`` to a client, unless the user has another object of this name that is of use."""
    known = names.setdefault("rc", client)
    if isinstance(known, Client) and known.session.closed:
        names["rc"] = client


PROGRESS_AFTER_S = 2.0
ANSWER_S = 5.0


class ParallelMagics:
    """The magics of one view.

    Args:
        extension: the extension of the shell.
        suffix: the end of each magic's name, such as ``_even`` in ``%px_even``.
        activated: the view on which the magics run cells; None for all engines of the current client.
    """

    def __init__(self, extension: Extension, suffix: str, activated: DirectView | None = None) -> None:
        self.activated = activated
        self.defaults = Options(block=True, progress_after_s=PROGRESS_AFTER_S)
        self.last_result: AsyncResult | None = None
        self._extension = extension
        self._shell = extension.shell
        self._suffix = suffix
        self._edited: EditedModules | None = None

    def _names(self) -> dict[str, dict[str, Callable[..., Any]]]:
        line: dict[str, Callable[..., Any]] = {
            f"px{self._suffix}": self.px,
            f"autopx{self._suffix}": self.autopx,
            f"pxresult{self._suffix}": self.result,
            f"pxconfig{self._suffix}": self.pxconfig,
            f"pxreload{self._suffix}": self.pxreload,
            f"pxinfo{self._suffix}": self.pxinfo,
            f"pxhistory{self._suffix}": self.pxhistory,
            f"pxdebug{self._suffix}": self.pxdebug,
            f"pxstack{self._suffix}": self.pxstack,
            f"pxpeek{self._suffix}": self.pxpeek,
            f"pxwhos{self._suffix}": self.pxwhos,
        }
        if not self._suffix:
            line |= {"result": self.result, "pn": self.pn, "pxattach": self.pxattach}
        return {"line": line, "cell": {f"px{self._suffix}": self.cell_px}}

    def register(self) -> None:
        """Register the magics with the shell."""
        for kind, functions in self._names().items():
            for name, function in functions.items():
                self._shell.register_magic_function(function, kind, name)

    def unregister(self) -> None:
        """Remove the magics from the shell, except those that the user has replaced since."""
        for kind, functions in self._names().items():
            registered = self._shell.magics_manager.magics[kind]
            for name, function in functions.items():
                if name in registered and inspect.unwrap(registered[name]) == function:
                    del registered[name]

    def view(self) -> DirectView | None:
        """Return the view on which cells run now; None without a client."""
        if self.activated is not None:
            return self.activated
        client = self._extension.client_at_hand()
        return None if client is None else client.direct_view("all")

    @no_var_expand
    def px(self, line: str) -> AsyncResult | None:
        """Run a line on engines: ``%px import numpy``.

        Long options may stand before the code, as in ``%px --targets ::2 rank = 1``; see ``%%px?``. ``%px name?``
        describes a name on an engine.
        """
        written, code = leading_options(line)
        options, _ = _understood(written, CELL, "%px")
        if not code.strip():
            raise UsageError("%px runs a line of code on the engines, as in: %px import numpy")
        _check_code(code, "%px", f"{written} " if written else "")
        return self._execute(code, options)

    @no_var_expand
    def cell_px(self, line: str, cell: str) -> AsyncResult | None:
        """Run a cell on engines and show its output, labelled by engine.

        Options:
            -t, --targets ENGINES     the engines: 3, 0,2, ::2 or all
            -b, --block               wait for the cell (the default)
            -a, --noblock             return the result immediately; output is shown all the same
            --local                   also run the cell in this process
            -o, --out NAME            bind a name to the result
            --timeout SECONDS         interrupt the cell after so many seconds; none for no limit
            --no-journal              do not run the cell again when a namespace is recovered
            --no-break                do not stop at breakpoints
            --stream, --no-stream     show output as it is printed (the default), or all at the end
            --group-outputs HOW       show output at the end, by engine, order or type; -e and -r for the first two
            --profile[=calls]         show where the cell spends its time, by samples or by counting calls
            --profile-out FILE        also save it: x.prof, x.json for speedscope, x.svg or x.html
            --progress-after SECONDS  show a progress bar after so many seconds; -1 for none
            --signal-on-interrupt S   the signal that Ctrl-C sends to engines in place of SIGINT; 0 for none
            --verbose, --no-verbose   print the engines of each cell
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
            options = Options(targets=parse_targets(engines))
        except OptionsError as error:
            raise UsageError(f"%pn: {error}") from None
        _check_code(code.strip(), "%pn", f"--targets {engines} ")
        return self._execute(code.strip(), options)

    def result(self, line: str = "") -> None:
        """Show the output of the last ``%px`` again, or (``%result 7``) the source and value of the engines' cell 7.

        Without a number, it takes the options ``--group-outputs HOW`` and ``--out NAME``, as in ``%%px``.
        """
        options, others = _understood(line, RESULT, "%result")
        if others:
            view = self._view_or_complain()
            if len(others) > 1 or not re.fullmatch(r"-?[0-9]+", others[0]):
                raise UsageError(f"%result takes the number of a cell, not {' '.join(others)!r}")
            if options != Options():
                raise UsageError("%result takes the number of a cell, or options, but not both")
            return show_numbered(view, self.defaults.targets, int(others[0]))
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
        """Run every cell on the engines from now on; a second ``%autopx`` runs cells here again."""
        if line.strip():
            raise UsageError(f"%autopx takes nothing else, not {line.strip()!r}: a second %autopx ends the first")
        magic = f"px{self._suffix}"
        if self._extension.sends_cells_by == magic:
            self._extension.send_cells(None)
            print("%autopx disabled: cells run here again")
            return
        self._extension.send_cells(magic)
        print(f"%autopx{self._suffix} enabled: cells run on the engines, until %autopx{self._suffix} again")

    def pxconfig(self, line: str = "") -> None:
        """Set the defaults of ``%px``, written as in ``%%px``: ``%pxconfig -t 0,2``; without an option, show them."""
        options, others = _understood(line, CONFIG, "%pxconfig")
        if others:
            raise UsageError(f"%pxconfig takes options, not {others[0]!r}")
        self.defaults = options.over(self.defaults)
        if not line.strip():
            print(self._describe_defaults())

    def pxreload(self, line: str = "") -> None:
        """Reload edited modules before each ``%px``, here and on engines; ``%pxreload off`` ends that."""
        match line.strip():
            case "" | "on":
                self._edited = self._edited or EditedModules()
                print("%pxreload on: edits of local modules reach the engines with the next %px")
            case "off":
                if self._edited is not None:
                    self._edited.close()
                self._edited = None
            case other:
                raise UsageError(f"%pxreload takes on or off, not {other!r}")

    def pxattach(self, line: str = "") -> None:
        """Make ``rc`` a client of a cluster in the background: ``%pxattach lab``; the only one needs no name."""
        name = line.strip() or None
        client = Client(name)
        self._shell.user_ns["rc"] = client
        there = engine_label(client.ids) if client.ids else "no engines yet"
        print(f"Attached{f' to {name}' if name else ''}: {there}. They are `rc`.")

    def pxhistory(self, line: str = "") -> None:
        """Show the history of engines as a script: ``%pxhistory 0``; ``-f FILE`` writes it into a file.

        The script contains what the cluster's history has of all clients: cells, and pushes with their values if these
        are short. It also has the cells and pushes of earlier batch jobs that the cluster continues. It has no
        ``apply`` calls and no tasks.
        """
        options, others = _understood(line, HISTORY, "%pxhistory")
        view = self._view_or_complain()
        engine_ids = self._engines_named(view, others, "%pxhistory", "engines and -f FILE")
        if options.file is None:
            show_scripts(view.client, engine_ids)
        else:
            write_script(view.client, engine_ids, options.file)

    def pxdebug(self, line: str = "") -> None:
        """Debug the code at which engines are stopped, or else their last failures: ``%pxdebug``, ``%pxdebug 0,2``.

        ``--forget`` releases the frames of failures, ``--take`` takes over the debugger of engines that are stopped for
        another client. See ``rc.debug?``. After an error of engines, ``%debug`` opens the frames of that error.
        """
        words = line.split()
        forget, take = "--forget" in words, "--take" in words
        others = [word for word in words if word not in ("--forget", "--take")]
        takes = "engines and --forget or --take"
        if len(others) > 1 or any(word.startswith("-") for word in others) or (forget and take):
            raise UsageError(f"%pxdebug takes {takes}, not {' '.join(words)!r}")
        view = self._view_or_complain()
        engine_ids = self._engines_named(view, others, "%pxdebug", takes)
        try:
            view.client.debug(engine_ids, forget=forget, take=take)
        except DebuggerUnavailable as unavailable:
            raise UsageError(str(unavailable)) from None

    def pxstack(self, line: str = "") -> None:
        """Show the code that engines run now: ``%pxstack 0,2``. Equal stacks are shown once.

        Options:
            --threads  also show the threads that the user's code has started
            --native   also show functions of C code
            --disturb  send a signal to engines that cannot be read otherwise
        """
        options, others = _understood(line, STACK, "%pxstack")
        view = self._view_or_complain()
        engine_ids = self._engines_named(view, others, "%pxstack", "engines")
        flags = {"threads": options.threads, "native": options.native, "disturb": options.disturb}
        show(view.client.stack(engine_ids, **{name: bool(value) for name, value in flags.items()}))

    @no_var_expand
    def pxpeek(self, line: str = "") -> None:
        """Show an expression's value on busy engines: ``%pxpeek len(results)``, or ``%pxpeek 0,2 len(results)``.

        Equal values are shown once, and long ones are cut. The expression should change nothing; see
        ``DirectView.peek``.
        """
        engines, expression = split_peek(line)
        view = self._view_or_complain()
        show_peek(view.client, self._engines_named(view, engines, "%pxpeek", "engines"), expression)

    def pxwhos(self, line: str = "") -> None:
        """Show the names on engines with class, value and size, also while they work: ``%pxwhos 0,2``."""
        view = self._view_or_complain()
        show(view.client.variables(self._engines_named(view, line.split(), "%pxwhos", "engines")))

    def _engines_named(self, view: DirectView, words: list[str], magic: str, takes: str) -> list[int]:
        """Return the engines that a magic's line names; if it names none, the engines on which cells run."""
        if len(words) > 1:
            raise UsageError(f"{magic} takes {takes}, not {words[1]!r}")
        try:
            targets = parse_targets(words[0]) if words else self.defaults.targets
        except OptionsError as error:
            raise UsageError(f"{magic}: {error}") from None
        return view._resolve(targets)

    def pxinfo(self, line: str) -> None:
        """Describe a name on the first of the engines: ``%px name?`` and ``%px name??`` run this magic."""
        name, _, marks = line.strip().partition(" ")
        view = self._view_or_complain()
        targets = self.defaults.targets if self.defaults.targets is not None else view.targets
        engine_id = view.client.direct_view(targets)._resolve(None)[0]
        query = Inspect(name, 1 if marks == "2" else 0)
        reply = view.client.session.controller.query([engine_id], query, ANSWER_S).get(engine_id)
        if reply is None:
            print(f"Engine {engine_id} does not answer: code in C holds its interpreter.")
        elif reply.value is None:
            print(f"Object `{name}` not found on engine {engine_id}.")
        else:
            print(f"{engine_label([engine_id])}\n{reply.value}")

    def _execute(self, code: str, given: Options) -> AsyncResult | None:
        options = given.over(self.defaults)
        view = self._view_when_ready(code, options)
        if view is None:
            return None
        with profiled(view, options):
            return self._run(view, code, options)

    def _run(self, view: DirectView, code: str, options: Options) -> AsyncResult | None:
        if self._edited is not None:
            own = view.client.session.modules
            self._edited.reload(own if isinstance(own, OwnModules) else None)
        result = self._submit(view, code, options)
        if options.local:
            self._shell.run_cell(code)
        if options.block:
            show_while_waiting(view.client, result, options, open_screen(blocking=True))
            return None
        if options.stream is not False:
            self._follow(view.client, result, options)
        return result

    def _submit(self, view: DirectView, code: str, options: Options) -> AsyncResult:
        result = self.last_result = submit(view, code, options)
        if options.verbose:
            kind = "Parallel" if options.block else "Asynchronous parallel"
            print(f"{kind} execution on {engine_label(call.engine_id for call in result.calls)}")
        if options.out:
            self._shell.user_ns[options.out] = result
        return result

    def _follow(self, client: Client, result: AsyncResult, options: Options) -> None:
        where = engine_label(call.engine_id for call in result.calls)
        screen = open_screen(blocking=False, title=f"{where} running")
        if isinstance(screen, CellArea):
            self._extension.watch_area(screen)
        show_in_background(client, result, options, screen)

    def _view_when_ready(self, code: str, options: Options) -> DirectView | None:
        """Return the view for a cell; None if the cell is queued until the engines are ready."""
        on_demand = self._extension.on_demand
        if on_demand is not None and not on_demand.ready:
            self._await_engines(on_demand)
        elif self.view() is None:
            on_demand = self._extension.start_cluster()
            cores = on_demand.cluster.n
            print(f"No cluster yet: starting {cores} {plural('engine', cores)} on this machine's cores.", end=" ")
            if self._interactive() and options.profile is None and options.profile_out is None:
                print("The cell runs when they are ready; they will be `rc`.")
                self._queue(on_demand, code, options)
                return None
            print("They will be `rc`.", flush=True)
            self._await_engines(on_demand)
            bind_rc(self._shell.user_ns, on_demand.client)
        return self._view_or_complain()

    def _queue(self, on_demand: ClusterOnDemand, code: str, options: Options) -> None:
        screen = open_screen(blocking=False, title="waiting for engines")
        if isinstance(screen, CellArea):
            self._extension.watch_area(screen)
            on_demand.show_on(AreaLine(screen))
        elif (session := getattr(self._shell, "pt_app", None)) is not None:
            on_demand.show_on(ToolbarLine(session))

        def run(client: Any) -> None:
            bind_rc(self._shell.user_ns, client)
            result = self._submit(self.activated or client.direct_view("all"), code, options)
            show_in_background(client, result, options, screen)

        def give_up(reason: str) -> None:
            screen.notice(reason)
            screen.close()

        on_demand.when_ready(run, give_up)

    def _await_engines(self, on_demand: ClusterOnDemand) -> None:
        try:
            with showing(on_demand.progress, after_s=0.0, concludes=True):
                on_demand.wait()
        except KeyboardInterrupt:
            raise UsageError("Not waiting any longer: the engines go on starting, this cell was not run") from None

    def _interactive(self) -> bool:
        """Return whether a user is at a prompt, and so may go on while engines start."""
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
            "targets": slice_in_words(targets) if isinstance(targets, slice) else targets,
            "block": defaults.block,
            "stream": defaults.stream is not False,
            "progress-after": f"{defaults.progress_after_s:g} s",
            "signal-on-interrupt": defaults.signal_on_interrupt or "SIGINT",
            "timeout": "none" if defaults.limit_s is None else f"{defaults.limit_s:g} s",
            "verbose": bool(defaults.verbose),
            "journal": defaults.journal is not False,
            "break": defaults.breaks is not False,
        }
        if view is not None and (left_s := _time_left_s(view.client)) is not None:
            rows["job's time limit"] = f"in {time_in_words(left_s)}"
        return "\n".join(f"{name:20} {value}" for name, value in rows.items())


def _time_left_s(client: Client) -> float | None:
    namespace = client.session.transport.namespace
    return time_left_of(namespace, Registry().records(), time.time()) if namespace else None


def _understood(line: str, allowed: Any, magic: str) -> tuple[Options, list[str]]:
    try:
        return parse(line, allowed, magic)
    except OptionsError as error:
        raise UsageError(str(error)) from None


def _check_code(code: str, magic: str, before: str) -> None:
    """Refuse a line that is not valid code, if an option in it is the reason.

    A line of code may begin with a minus, so only long options in front of it are read as options.

    Args:
        code: the line.
        magic: the magic.
        before: the options that were read in front of the line.
    """
    if " -" not in f" {code}" or (meant := meant_option(code)) is None or problem_of_cell(code) is None:
        return
    raise UsageError(f"{magic} takes long options, before the code: %px {before}{meant}")


_KEY = "nsactors"


def load(shell: Any) -> Extension:
    """Add the magics to an IPython shell, unless it has them already."""
    known = shell.magics_manager.registry.get(_KEY)
    if isinstance(known, Extension):
        return known
    extension = shell.magics_manager.registry[_KEY] = Extension(shell)
    return extension


def unload(shell: Any) -> None:
    """Remove the magics from an IPython shell; a client that is made later does not add them again."""
    SessionClients.of(shell).adds_magics = False
    extension = shell.magics_manager.registry.pop(_KEY, None)
    if isinstance(extension, Extension):
        extension.close()


class Extension:
    """The magics of a shell, by suffix, and the state that they share.

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
        """Remove all magics, transforms and hooks from the shell."""
        self.send_cells(None)
        self._cleanups.remove(ask_engines)
        self.shell.Completer.custom_matchers.remove(self._completer.match)
        self.shell.events.unregister("post_run_cell", self._refresh_areas)
        self._undraw_errors()
        for magics in self._magics.values():
            magics.unregister()

    def activate(self, view: DirectView | None, suffix: str) -> None:
        """Make ``%px<suffix>`` and related magics run on ``view``; None stands for the current client."""
        if suffix in self._magics:
            self._magics[suffix].activated = view
            return
        magics = self._magics[suffix] = ParallelMagics(self, suffix, view)
        magics.register()

    def client_at_hand(self) -> Client | None:
        """Return the newest client that a name is bound to; else the session's newest, even if ``%px`` made it."""
        client = find_client(self.shell)
        if client is None and (self.on_demand is None or self.on_demand.ready):
            newest = SessionClients.of(self.shell).newest()
            client = newest if isinstance(newest, Client) else None
        return client

    def start_cluster(self) -> ClusterOnDemand:
        """Start a cluster, unless one is starting."""
        if self.on_demand is None or self.on_demand.ready:
            self.on_demand = ClusterOnDemand()
        return self.on_demand

    def send_cells(self, magic: str | None) -> None:
        """Run every cell with this magic; None runs cells here again."""
        if self._sender is not None:
            self._cleanups.remove(self._sender)
        self._sender = None if magic is None else CellSender(magic)
        if self._sender is not None:
            self._cleanups.append(self._sender)

    @property
    def sends_cells_by(self) -> str | None:
        """The magic that runs every cell; None if cells run here."""
        return None if self._sender is None else self._sender.magic

    def watch_area(self, area: CellArea) -> None:
        """Publish an output area of a notebook again after each cell, until it is closed."""
        self._areas.append(area)

    def _refresh_areas(self, *args: Any) -> None:
        # A program that executes a notebook without a browser receives output only while a cell runs.
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
