"""Additions of a client to an IPython prompt.

Errors of engines are drawn in a form of their own, and unretrieved errors are reported; a note explains errors that
come from read-only arrays; edits of modules are named if they have not been loaded. The first client adds ``%px`` and
related magics.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import warnings
import weakref
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Protocol

from nsactors.errors import CompositeError, NsactorsError, RemoteError, printable, suggest_name
from nsactors.errors.rendering import render_lines, show_uncaught_briefly, user_part
from nsactors.protocol.classes import is_on_engine
from nsactors.protocol.process import current_shell
from nsactors.protocol.read_only import note_on_read_only
from nsactors.results import AsyncResult, ExecuteReply
from nsactors.results.interrupting import Presses
from nsactors.session.own_modules import OwnModules
from nsactors.session.session import Session
from nsactors.session.unretrieved import UnretrievedErrors

MAGICS = {
    "line": (
        *("px", "autopx", "pxresult", "pxconfig", "pxreload", "pxinfo", "pxhistory", "pxattach", "result", "pn"),
        *("pxdebug", "pxstack", "pxpeek", "pxwhos"),
    ),
    "cell": ("px",),
}
"""The names of the magics that the IPython extension adds, by kind."""

_CLIENTS = "nsactors.clients"  # the key of a session's clients in the registry of its magics
_DRAWN = (NsactorsError, ValueError, BufferError, AttributeError)
_FRAMES_OF_ENGINES = (
    "These are the frames here that made the call. What an engine has bound can be looked at with %px and pull()."
)


class SessionClient(Protocol):
    """The part of a client that a session knows."""

    session: Session


class SessionClients:
    """The clients of an IPython session, in the order in which they were made; they are not kept alive.

    Attributes:
        adds_magics: whether the next client adds the magics; False once one has done so, or the user has removed them.
    """

    def __init__(self) -> None:
        self.adds_magics = True
        self._clients: weakref.WeakValueDictionary[int, SessionClient] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()

    @classmethod
    def of(cls, shell: Any) -> SessionClients:
        """Return the clients of a shell."""
        registry = shell.magics_manager.registry
        if not isinstance(known := registry.get(_CLIENTS), cls):
            known = registry[_CLIENTS] = cls()
        return known

    def add(self, client: SessionClient) -> None:
        """Add the newest client."""
        self._clients[next(self._numbers)] = client

    def newest(self, among: Collection[object] | None = None) -> SessionClient | None:
        """Return the newest client that is open; None without one.

        Args:
            among: the objects to choose from; by default all clients.
        """
        numbered = [
            (number, client)
            for number, client in self._clients.items()
            if not client.session.closed and (among is None or any(client is one for one in among))
        ]
        return max(numbered, key=lambda pair: pair[0])[1] if numbered else None


def join_session(client: SessionClient) -> None:
    """Add a client to the clients of the IPython session, if there is a session.

    The first client adds ``%px`` and related magics. If the user has a magic of one of these names, none is added.
    Code that runs on an engine belongs to no session, even if its process has a shell: the user's shell if engines are
    threads, otherwise the engine's own.
    """
    shell = None if is_on_engine() else current_shell()
    if shell is None:
        return
    clients = SessionClients.of(shell)
    clients.add(client)
    if not clients.adds_magics:
        return
    clients.adds_magics = False
    manager = shell.magics_manager
    taken = {kind: {*manager.magics[kind], *getattr(manager, "lazy_magics", ())} for kind in MAGICS}
    if not any(name in taken[kind] for kind, names in MAGICS.items() for name in names):
        try:
            # IPython loads the extension by name, because this package must not import magics, which use clients.
            shell.extension_manager.load_extension("nsactors")
        except Exception as error:  # shells that others have derived from IPython's may lack a part
            warnings.warn(f"%px is not available, because this shell cannot have it: {error!r}", stacklevel=3)


def join_prompt(
    ledger: UnretrievedErrors,
    modules: OwnModules | None = None,
    requests: Callable[[], int] = lambda: 0,
    debug: Callable[[BaseException], bool] = lambda error: False,
) -> Callable[[], None]:
    """Draw errors of engines, and report unretrieved errors after every cell, if this process has an IPython prompt.

    Without an IPython prompt, uncaught errors of several engines are drawn in the same form; and where the interpreter
    prompts for statements, edits are named before the next statement.

    Args:
        ledger: the unretrieved errors.
        modules: finds modules that have been edited and not loaded since, after a cell that used engines.
        requests: returns the number of requests sent to engines.
        debug: opens the debugger on the frames of an error of engines; returns False if there are none.

    Returns:
        A function that ends the reports.
    """
    shell = current_shell()
    if shell is None:
        show_uncaught_briefly()  # for good, because the client is closed by the time that its error reaches the top
        is_interactive = hasattr(sys, "ps1") or sys.flags.interactive
        return _tell_of_edits_at_prompt(modules, requests) if modules is not None and is_interactive else lambda: None

    _show_no_empty_values(shell)  # for good, because cells may have ended before the client was closed
    end_telling = None if modules is None else _tell_of_edits(shell, modules, ledger, requests)

    def report(*args: Any) -> None:
        if text := ledger.report():
            write_notice(text)

    def end() -> None:
        shell.events.unregister("post_run_cell", report)
        if end_telling is not None:
            end_telling()
        end_debugging()

    shell.events.register("post_run_cell", report)
    draw_errors(shell)  # for good, because the user may look at an error again after the client is closed
    end_debugging = _debug_engines(shell, debug)
    return end


def write_notice(text: str) -> None:
    """Write errors and notices to stderr, with the control characters of engines escaped."""
    print(printable(text), file=sys.stderr)


def _tell_of_edits(
    shell: Any, modules: OwnModules, ledger: UnretrievedErrors, requests: Callable[[], int]
) -> Callable[[], None]:
    """Name edits that have not been loaded, after a cell that used engines; return a function that ends this."""
    sent = requests()

    def look(*args: Any) -> None:
        nonlocal sent
        sent = requests()
        modules.look_for_edits()

    def tell(*args: Any) -> None:
        if requests() != sent and (edits := modules.tell_edits()):
            ledger.tell(edits)
        # Make look() the last hook before a cell: by now there may be a hook of %autoreload, which loads edits.
        shell.events.unregister("pre_run_cell", look)
        shell.events.register("pre_run_cell", look)

    def end() -> None:
        shell.events.unregister("pre_run_cell", look)
        shell.events.unregister("post_run_cell", tell)

    shell.events.register("pre_run_cell", look)
    shell.events.register("post_run_cell", tell)
    return end


class _TellingPrompt:
    """A prompt of the plain interpreter, which calls ``str(sys.ps1)`` whenever it asks for a statement.

    Clients share this object. If each wrapped the prompt of another, a client that is closed could not remove its own.
    """

    def __init__(self, usual: object) -> None:
        self.usual = usual
        self.tell: list[Callable[[], object]] = []

    def __str__(self) -> str:
        for tell in [*self.tell]:
            with contextlib.suppress(Exception):  # there must be a prompt, even if the client has ended
                tell()
        return str(self.usual)


def _tell_of_edits_at_prompt(modules: OwnModules, requests: Callable[[], int]) -> Callable[[], None]:
    """Name edits that have not been loaded, after a statement that used engines; return a function that ends this."""
    sent = requests()

    def tell() -> None:
        nonlocal sent
        if (now := requests()) != sent:
            sent = now
            modules.look_for_edits()
            if edits := modules.tell_edits():
                write_notice(f"nsactors: {edits}")

    present: object = getattr(sys, "ps1", ">>> ")
    prompt = present if isinstance(present, _TellingPrompt) else _TellingPrompt(present)
    prompt.tell.append(tell)
    sys.ps1 = prompt

    def end() -> None:
        prompt.tell.remove(tell)
        if not prompt.tell and sys.ps1 is prompt:
            sys.ps1 = prompt.usual

    return end


class _DisplayHook:
    """Shows values at a prompt, except results of engines' cells that have no value; these get no ``Out`` either.

    IPython writes the prompt of a value before it asks the value for its text.
    """

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __call__(self, value: Any = None) -> None:
        if isinstance(value, AsyncResult | ExecuteReply) and value.shows_nothing:
            self._usual.update_user_ns(value)  # the value is `_` nevertheless
            self._usual.fill_exec_result(value)
        else:
            self._usual(value)


def _show_no_empty_values(shell: Any) -> None:
    trap = getattr(shell, "display_trap", None)
    if trap is not None and trap.hook is shell.displayhook:  # otherwise the user shows values in a way of their own
        trap.hook = _DisplayHook(shell.displayhook)


def draw_errors_at_prompt() -> None:
    """Let IPython's prompt, if this process has one, show every error of nsactors as the error draws itself, for good.

    Called before the steps that lead to a client: their errors say what to do next, and need no frames of nsactors.
    """
    if (shell := current_shell()) is not None:
        draw_errors(shell)


def draw_errors(shell: Any) -> Callable[[], None]:
    """Let ``shell`` show every error of engines as the error draws itself; return a function that undoes this.

    IPython lets exceptions draw themselves, except syntax errors and exception groups. Errors that may come from a
    read-only array get a note if the array came from an engine; errors about an attribute that an object of nsactors
    does not have are shown without the frame of ``suggest_name``.
    """
    if shell.custom_exceptions:
        return lambda: None  # the user shows errors in a way of their own
    shell.set_custom_exc(_DRAWN, _show)
    end_explaining = _explain_debugger(shell)

    def end() -> None:
        end_explaining()
        if shell.custom_exceptions == _DRAWN:
            shell.set_custom_exc((), None)

    return end


def _show(
    shell: Any, kind: type[Exception], error: Exception, traceback: TracebackType, tb_offset: int | None = None
) -> list[str]:
    if not issubclass(kind, NsactorsError):
        if (note := note_on_read_only(error, traceback, on_engine=False)) is not None:
            with contextlib.suppress(TypeError):  # the user's class may have anything in __notes__
                error.add_note(note)
        # This is what IPython does by default.
        shell.showtraceback(
            (kind, error, _without_suggestion(traceback)), tb_offset=tb_offset, running_compiled_code=True
        )
        return []
    # If Ctrl-C is pressed repeatedly, some may arrive here. An error here would end IPython's use of this function.
    with Presses():
        lines = render_lines(error, says_where=not _from_magic(traceback))  # the place is the cell above the error
        # Both kinds of shell show errors with this method: at a terminal it prints, in a notebook it sends a message.
        shell._showtraceback(kind, error, lines)
        _remember(shell, error, traceback)
    if shell.call_pdb:
        shell.debugger(force=True)
    return lines


def _without_suggestion(traceback: TracebackType) -> TracebackType:
    """Return a traceback without the frames of ``suggest_name`` at its end."""
    frames: list[TracebackType] = []
    at: TracebackType | None = traceback
    while at is not None:
        frames.append(at)
        at = at.tb_next
    if len(frames) < 2 or frames[-1].tb_frame.f_code is not suggest_name.__code__:
        return traceback
    frames.pop()
    if len(frames) > 1 and frames[-1].tb_frame.f_code.co_name == "__getattr__":  # it has called suggest_name()
        frames.pop()
    shorter: TracebackType | None = None
    for frame in reversed(frames):
        shorter = TracebackType(shorter, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return shorter or traceback


def _explain_debugger(shell: Any) -> Callable[[], None]:
    """Let the shell's debugger say, after an error of engines, whose frames it opens; return a function that ends this.

    The method is replaced rather than ``%debug``, because IPython loads magics by name when they are first used.
    """
    usual = shell.debugger

    def debugger(force: bool = False) -> None:
        opens = force or shell.call_pdb
        if opens and isinstance(getattr(sys, "last_value", None), RemoteError | CompositeError):
            print(_FRAMES_OF_ENGINES)
        usual(force=force)

    shell.debugger = debugger

    def end() -> None:
        if vars(shell).get("debugger") is debugger:
            del shell.debugger

    return end


class _EngineDebugger:
    """A shell's method ``debugger`` that opens the frames on engines after their error.

    Clients share this object. If each wrapped the method of another, a client that is closed could not remove its own.
    """

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.usual = shell.debugger
        self.open_frames: list[Callable[[BaseException], bool]] = []

    def __call__(self, force: bool = False) -> None:
        opens = force or self.shell.call_pdb
        if not opens or not self._opened(getattr(sys, "last_value", None)):
            self.usual(force=force)

    def _opened(self, error: object) -> bool:
        """Open the frames; return False if there are none on engines. The newest client is asked first."""
        return isinstance(error, RemoteError | CompositeError) and any(
            open_frames(error) for open_frames in reversed(self.open_frames)
        )


def _debug_engines(shell: Any, debug: Callable[[BaseException], bool]) -> Callable[[], None]:
    """Let the shell's debugger open the frames on engines after their error; return a function that ends this."""
    debugger = shell.debugger if isinstance(shell.debugger, _EngineDebugger) else _EngineDebugger(shell)
    debugger.open_frames.append(debug)
    shell.debugger = debugger

    def end() -> None:
        debugger.open_frames.remove(debug)
        if not debugger.open_frames and shell.debugger is debugger:
            shell.debugger = debugger.usual

    return end


def _remember(shell: Any, error: Exception, traceback: TracebackType) -> None:
    """Let ``%debug`` open this error and no older one, in the frame that made the call; ``%tb`` shows it again.

    IPython does so for the errors that it draws itself. Frames of an engine are not objects in this process, and frames
    of this package explain nothing.
    """
    where = user_part(traceback) or traceback
    BaseException.with_traceback(error, where)  # the user's class may forbid assignment
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, where
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    shell.InteractiveTB.tb = where  # IPython prefers this to ``sys.last_traceback``


def _from_magic(traceback: TracebackType | None) -> bool:
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith("nsactors.magics"):
            return True
        traceback = traceback.tb_next
    return False
