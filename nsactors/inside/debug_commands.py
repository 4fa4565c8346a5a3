"""The debugger on an engine: Python's own, with a client in place of a keyboard.

:class:`FrameViewer` looks at the frames of a failure, :class:`StopDebugger` stops a running request at breakpoints.
"""

from __future__ import annotations

import ast
import bdb
import contextlib
import ctypes
import dis
import inspect
import itertools
import keyword
import pdb
import re
import symtable
import sys
import threading
from collections.abc import Callable, MutableMapping
from types import CellType, CodeType, FrameType, FunctionType, MethodType, TracebackType
from typing import Any, Literal

from nsactors.errors.exception_state import name_of, text_of
from nsactors.errors.failure import bounded_repr, lines_of
from nsactors.inside.debug_conversation import Conversation, StopConversation
from nsactors.namespace.interrupts import (
    calls_user_code,
    is_user_code,
    protected,
    raise_in_thread,
    run_user_code,
)
from nsactors.namespace.output import printing_to

LINES_AROUND = 3
NAMES_SHOWN = 200
REPR_CHARS = 200
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_SUSPENDS = ("YIELD_VALUE", "RESUME")  # the first before Python 3.13, the second from Python 3.13 on
_ASSIGNS = re.compile(r"\s*[^\W\d]\w*\s*([-+*/%&|^@]|//|\*\*|<<|>>)?=(?!=)")
_USES = re.compile(r"([^\W\d]\w*)(?!\w)(?!\s*#)(.+)", re.DOTALL)
_WITHOUT_ARGUMENTS = re.compile(
    "a(rgs)?|bt|c(ont(inue)?)?|exit|here|ll|locals|longlist|n(ext)?|q(uit)?|r(eturn|etval|v)?|s(tep)?|w(here)?"
)
_ENDS = ("q()", "quit()", "exit()")  # people type these to leave
_CHANGES = (ast.Call, ast.NamedExpr, ast.Await)  # expressions that may change something
SKIPPED = ("nsactors.*", "IPython.*", "ray.*")  # modules that stepping passes over


def place_of(frame: FrameType, lineno: int) -> str:
    """Describe a place: ``f() <cell 2>:3``."""
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
    return f"{name if name == '<module>' else f'{name}()'} {code.co_filename}:{lineno}"


def shown_lines(filename: str, lineno: int, names: dict[str, Any]) -> str:
    """Return the lines of a file around a place, with an arrow; empty without the source."""
    lines = lines_of(filename, names)
    if not 0 < lineno <= len(lines):
        return ""
    first, last = max(1, lineno - LINES_AROUND), min(len(lines), lineno + LINES_AROUND)
    width = len(str(last))
    return "".join(
        f"{'--->' if number == lineno else '    '} {number:>{width}} {lines[number - 1].rstrip()}\n"
        for number in range(first, last + 1)
    )


class ClientDebugger(pdb.Pdb):
    """Python's debugger, with a client in place of a keyboard and a terminal.

    IPython's debugger is not used: it makes a shell for the process, and colours what it prints.

    Args:
        conversation: its input and output.
        title: the first line of the output.

    Attributes:
        edits: whether a command may have changed variables.
    """

    serves_client = True  # so that it is not skipped, as all other debuggers on an engine are

    def __init__(self, conversation: Conversation, title: str = "") -> None:
        readline: Any = sys.modules.get("readline")
        delimiters = None if readline is None else readline.get_completer_delims()
        super().__init__(stdin=conversation, stdout=conversation, nosigint=True, readrc=False)  # type: ignore[arg-type]
        if delimiters is not None:  # pdb has changed them for its own prompt, which this process does not have
            readline.set_completer_delims(delimiters)
        self.prompt = ""
        self.breaks = {}  # forget the breakpoints of other debuggers: Python keeps one list for the process
        self._own_breaks: set[tuple[str, int]] = set()
        self.conversation = conversation
        self._title = title
        self.edits = False
        conversation.describe = self._describe

    def reset(self) -> None:
        """Forget frames and stops.

        bdb's own method is not used: it checks the whole of Python's source cache, and raises if two threads do so at
        the same time.
        """
        self.botframe = None
        self._set_stopinfo(None, None)  # type: ignore[attr-defined]
        self.forget()

    def set_break(self, filename: str, lineno: int, *args: Any, **kwargs: Any) -> Any:
        """Set a breakpoint; return the reason if that is not possible."""
        problem = super().set_break(filename, lineno, *args, **kwargs)
        if not problem:
            self._own_breaks.add((self.canonic(filename), lineno))
        return problem

    def clear_own_breaks(self) -> None:
        """Clear the breakpoints that have been set at this prompt."""
        while self._own_breaks:
            with contextlib.suppress(KeyError):  # it has been cleared, perhaps by another engine of this process
                self.clear_break(*self._own_breaks.pop())
        self.breaks = {}

    def set_quit(self) -> None:
        """Let the debugger end. Unlike bdb's own method, this lets tracers of the user's program go on."""
        self._set_stopinfo(self.botframe, None)  # type: ignore[attr-defined]
        self.quitting = True

    def break_here(self, frame: FrameType) -> bool:
        """Return whether there is a breakpoint at the line of a frame."""
        try:
            return bool(super().break_here(frame))
        except KeyError:  # another engine of this process has cleared the last one of this line
            return False

    def _describe(self) -> tuple[str, tuple[str, ...]]:
        if not self.stack:
            return "", ()
        frame, lineno = self.stack[self.curindex]
        names = dict.fromkeys(f.f_code.co_filename for f, _ in self.stack)
        return place_of(frame, lineno), tuple(name for name in names if not lines_of(name))

    def print_stack_entry(self, frame_lineno: tuple[FrameType, int], prompt_prefix: str = "") -> None:
        """Show a place and the lines around it."""
        frame, lineno = frame_lineno
        if self._title:
            self.message(self._title)
            self._title = ""
        self.message(place_of(frame, lineno))
        self.conversation.write(shown_lines(frame.f_code.co_filename, lineno, frame.f_globals))
        below = len(self.stack) - 1 - self.curindex
        if frame is self.curframe and below and not is_user_code(self.stack[self.curindex + 1][0].f_code):
            self.message(f"({below} {'frames' if below > 1 else 'frame'} of libraries below: d)")

    def print_stack_trace(self) -> None:
        """Show all places, the current one marked, outermost first."""
        for frame, lineno in self.stack:
            mark = ">" if frame is self.curframe else " "
            line = "".join(lines_of(frame.f_code.co_filename, frame.f_globals)[lineno - 1 : lineno]).strip()
            self.message(f"{mark} {place_of(frame, lineno)}{f'  {line}' if line else ''}")

    # Commands. Only this thread's output belongs to the conversation, while an engine's other threads print as before.
    # pdb itself would redirect the output of the whole process.

    def onecmd(self, line: str) -> bool:
        """Carry out a command; no error of user code ends the debugger.

        Code is not a command, even if it begins with the name of a command: ``r = 5``, ``q[0]``, ``n + 1``.
        """
        if self._is_code(line.strip()):
            line = f"!{line}"
        elif line.strip() in _ENDS:
            line = "quit"
        try:
            with printing_to(self.conversation.text):
                return bool(run_user_code(super().onecmd, line))
        except (bdb.BdbQuit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.error(f"{name_of(type(error))}: {text_of(error)}")
            return False

    def _is_code(self, line: str) -> bool:
        if _ASSIGNS.match(line):
            return True
        if (found := _USES.match(line)) is None or not _compiles(line):
            return False
        word, rest = found.groups()
        assert self.curframe is not None, "the debugger is at a frame"
        is_known = word in self.curframe_locals or word in self.curframe.f_globals
        if _WITHOUT_ARGUMENTS.fullmatch(word):
            return is_known or line not in _ENDS
        # Other commands have arguments that Python could read as operands: `p -x`, `p (x)`.
        return rest[0] in ".[(" and (is_known or word == "list")

    def emptyline(self) -> bool:
        """Repeat the last command."""
        return bool(super().emptyline())

    def default(self, line: str) -> None:
        """Evaluate an expression and show its value, or execute a statement."""
        text = line.removeprefix("!").strip()
        try:
            tree = ast.parse(text, "<debugger>")
            is_expression = len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr)
            if (value := self._run(text, "eval" if is_expression else "exec")) is not None:
                self.message(repr(value))
        except BaseException as error:
            self._tell(error)

    def _run(self, text: str, mode: Literal["eval", "exec"]) -> Any:
        """Evaluate an expression in the current frame and return its value, or execute statements."""
        assert self.curframe is not None, "the debugger is at a frame"
        code = compile(text, "<debugger>", mode)
        self.edits = self.edits or mode == "exec" or any(isinstance(n, _CHANGES) for n in ast.walk(ast.parse(text)))
        # Before Python 3.13, this copies the variables of the frame; each copy can be written back once.
        names = self.curframe_locals = self.curframe.f_locals
        global_names = self.curframe.f_globals
        try:
            if names is not global_names and any(isinstance(const, CodeType) for const in code.co_consts):
                return _run_in_scope(text, mode, global_names, names)
            return eval(code, global_names, names)
        finally:
            # Write back only if the code may assign: the copy has old values of variables that a call has changed.
            if mode == "exec" or any(isinstance(node, ast.NamedExpr) for node in ast.walk(ast.parse(text))):
                self._write_back()

    def _write_back(self) -> None:
        """Write changed and deleted local variables back to the frame, where ``curframe_locals`` is a copy."""
        if sys.version_info < (3, 13):
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(self.curframe), ctypes.c_int(1))

    def _getval(self, arg: str) -> Any:
        """Evaluate the expression that is the argument of a command."""
        try:
            return self._run(arg, "eval")
        except BaseException as error:
            self._tell(error)
            raise

    def _tell(self, error: BaseException) -> None:
        if issubclass(type(error), bdb.BdbQuit):
            raise error
        text = text_of(error)
        self.error(f"{name_of(type(error))}: {text}" if text else name_of(type(error)))

    def do_here(self, arg: str) -> None:
        """``here``: show the current place again."""
        self.print_stack_entry(self.stack[self.curindex])

    def do_locals(self, arg: str) -> None:
        """``locals``: show the local variables of the current frame, one per line."""
        if arg:
            self.default(f"locals {arg}")
            return
        describe = bounded_repr(REPR_CHARS)
        names = {n: v for n, v in list(self.curframe_locals.items()) if not n.startswith(("__", "."))}
        for name in itertools.islice(names, NAMES_SHOWN):
            self.message(f"{name} = {describe(names[name])}")
        if len(names) > NAMES_SHOWN:
            self.message(f"... ({len(names) - NAMES_SHOWN} more names)")
        if not names:
            self.message("(no local variables)")

    def do__complete(self, arg: str) -> None:
        """``_complete TEXT``: show the names and attributes that complete a text, for the client's prompt."""
        found = self._complete_expression(arg, arg, 0, len(arg))
        for name in sorted(found)[:NAMES_SHOWN]:
            self.message(name)

    def do_quit(self, arg: str) -> bool:
        """``q(uit)``: leave the debugger."""
        self.set_quit()
        return True

    do_q = do_exit = do_EOF = do_quit

    def _refuse(self, arg: str) -> None:
        """Not available: this command of pdb needs a keyboard on the engine, or a program that pdb started."""
        self.error("this command is not available on an engine")

    do_interact = do_debug = do_commands = do_run = do_restart = _refuse

    def do_clear(self, arg: str) -> Any:
        """``cl(ear) [filename:lineno | bpnumber ...]``: clear breakpoints; without arguments, all of them."""
        if arg:
            return super().do_clear(arg)
        self.clear_own_breaks()
        self.message("all breakpoints are cleared")
        return None

    do_cl = do_clear


class FrameViewer(ClientDebugger):
    """A debugger for frames that have ended."""

    def __init__(self, conversation: Conversation, title: str = "") -> None:
        super().__init__(conversation, title)
        self._lock = threading.Lock()
        self._thread: int | None = None  # while it carries out a command

    def onecmd(self, line: str) -> bool:
        """Carry out a command, which :meth:`interrupt` interrupts."""
        self._thread = threading.get_ident()
        try:
            return super().onecmd(line)
        finally:
            self._thread = None
            with contextlib.suppress(KeyboardInterrupt):
                with self._lock:  # no interrupt is on its way from here on
                    pass
                # An interrupt that has arrived is raised where a function begins: here, and not at the prompt. To drop
                # the interrupt instead (PyThreadState_SetAsyncExc without an exception) slows Python 3.11 down for
                # ever, or hangs it.
                _do_nothing()

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the command that is carried out; another thread calls this.

        A signal would stop the main thread, which runs a request.
        """
        with self._lock:
            if self._thread is not None:
                raise_in_thread(self._thread, KeyboardInterrupt)

    def setup(self, f: FrameType | None, tb: TracebackType | None) -> None:
        """Take frames over, and begin at the innermost frame of the user's code."""
        super().setup(f, tb)
        index = self.curindex
        while index > 0 and not is_user_code(self.stack[index][0].f_code):
            index -= 1
        if is_user_code(self.stack[index][0].f_code) and index != self.curindex:
            self._look_at(index)

    def _look_at(self, index: int) -> None:
        self.curindex = index
        self.curframe = self.stack[index][0]
        with contextlib.suppress(AttributeError):  # a property from Python 3.13 on
            self.curframe_locals = self.curframe.f_locals
        self.lineno = None

    def _over(self, arg: str) -> None:
        """Not available: the code has ended. Its frames can be looked at, but it cannot go on."""
        self.error("the code has ended, so it cannot go on: up, down, locals and expressions look at its frames")

    do_step = do_s = do_next = do_n = do_until = do_unt = do_return = do_r = do_jump = do_j = _over
    do_break = do_b = do_tbreak = _over  # type: ignore[assignment]

    def do_continue(self, arg: str) -> bool:
        """``c(ont(inue))``: leave the debugger."""
        return self.do_quit(arg)

    do_c = do_cont = do_continue


class StopDebugger(ClientDebugger):
    """A debugger for a request that stops at breakpoints; it runs on the thread of the request.

    A conversation lasts from a stop until the code goes on by itself. Frames that call user code are never traced.

    Args:
        converse: begins a conversation at a place, with the client of the request.
        conversation: the first conversation.
    """

    conversation: StopConversation

    def __init__(self, converse: Callable[[str], StopConversation], conversation: StopConversation) -> None:
        super().__init__(conversation)
        self.skip = set(SKIPPED)
        self._converse = converse
        self._is_at_work = False
        self._between: tuple[str, bool] | None = None
        self._is_interrupted = False
        self._others: Any = None  # the tracer of the user's program, which goes on afterwards
        self._traced: list[tuple[FrameType, Any]] = []
        self._has_raised = False
        self._goes_on = False  # whether the code goes on after the present command

    @property
    def is_at_work(self) -> bool:
        """True while it carries out a command at its prompt."""
        return self._is_at_work

    def stop_at(self, frame: FrameType) -> None:
        """Prompt the client at a frame, and then trace as its command says."""
        self.reset()
        at: FrameType | None = frame
        while at is not None and not calls_user_code(at):
            if not self._is_own(at.f_trace):
                self._traced.append((at, at.f_trace))
            at.f_trace = self.trace_dispatch
            self.botframe = at
            at = at.f_back
        self._set_stopinfo(None, None)  # type: ignore[attr-defined]
        self.interaction(frame, None)
        if self.quitting:
            self._raise()
        if self._traces:
            if not self._is_own(tracer := sys.gettrace()):
                self._others = tracer
            sys.settrace(self.trace_dispatch)
        else:
            self._stop_tracing()

    def _is_own(self, tracer: object) -> bool:
        return isinstance(tracer, MethodType) and tracer.__self__ is self

    def _stop_tracing(self) -> None:
        """Let the user's tracer go on, if there is one."""
        if self._is_own(sys.gettrace()):
            sys.settrace(self._others)
        for frame, tracer in self._traced:
            if self._is_own(frame.f_trace):
                frame.f_trace = tracer
        self._traced.clear()

    @property
    def _traces(self) -> bool:
        return self.stoplineno != -1 or bool(self.breaks)

    def _raise(self) -> None:
        self._stop_tracing()
        self._has_raised = True
        if self._is_interrupted:
            raise KeyboardInterrupt
        raise bdb.BdbQuit

    @protected  # except during commands: an interrupt between two commands would leave the client without a reply
    def interaction(self, frame: FrameType | None, traceback: Any) -> None:
        """Prompt the client."""
        if self.conversation.ended:
            assert frame is not None, "code has stopped in a frame"
            self.conversation = self._converse(place_of(frame, frame.f_lineno))
            self.conversation.describe = self._describe
            self.stdin = self.stdout = self.conversation  # type: ignore[assignment]
        self._is_at_work = True
        try:
            # Announce the stop only now: an error from here on, such as RecursionError, ends the conversation.
            self.conversation.announce()
            super().interaction(frame, traceback)
        except BaseException:
            self._end()
            raise
        finally:
            self._is_at_work = False

    def onecmd(self, line: str) -> bool:
        """Carry out a command; if the code goes on by itself then, the conversation ends."""
        self._goes_on = False
        goes_on = super().onecmd(line)
        # The conversation ends here, where no interrupt can arrive: an interrupted command is followed by a prompt.
        if self._goes_on:
            self._end()
        return goes_on

    def finish(self) -> None:
        """Trace nothing more, because the request has ended."""
        self._stop_tracing()
        if self._has_raised and sys.gettrace() is None:
            sys.settrace(self._others)  # Python has dropped it, because a tracer had raised
        self.clear_own_breaks()
        self._end()

    def _end(self) -> None:
        if not self.conversation.ended:
            self.conversation.end()

    # Tracing, as bdb calls it.

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Handle an event of a traced frame."""
        try:
            return super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            self._raise()

    def dispatch_call(self, frame: FrameType, arg: Any) -> Any:
        """Decide whether to trace a function that is called."""
        if self._between is not None:
            # IPython runs each statement of a cell as a separate code object: go on tracing in the next of this cell.
            filename, steps = self._between
            if frame.f_code.co_filename != filename or frame.f_code.co_name != "<module>":
                return None
            self._between, self.botframe = None, frame
            if steps:
                self.set_step()
            else:
                self._set_stopinfo(frame, None, -1)  # type: ignore[attr-defined]
            return self.trace_dispatch
        return super().dispatch_call(frame, arg)

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        """End tracing when the user's outermost frame returns, unless the next statement of its cell follows."""
        if frame is not self.botframe:
            return super().dispatch_return(frame, arg)
        if _is_suspended(frame):
            return self.trace_dispatch
        steps = self.stoplineno != -1 and self.stopframe in (None, frame)
        if frame.f_code.co_name == "<module>" and (steps or self.breaks):
            self._between = frame.f_code.co_filename, steps
        else:
            self._stop_tracing()
            self._end()
        return self.trace_dispatch

    # Commands.

    def do_continue(self, arg: str) -> bool:
        """``c(ont(inue))``: let the code go on until the next breakpoint."""
        if self.conversation.lost:
            self.clear_own_breaks()  # there is no client to stop for
            print(f"[nsactors: the debugger was left: {self.conversation.lost}]", file=sys.stderr)
        self._set_stopinfo(self.botframe, None, -1)  # type: ignore[attr-defined]
        if not self.breaks:
            self._stop_tracing()
        self._goes_on = True
        return True

    do_c = do_cont = do_continue

    def do_jump(self, arg: str) -> Any:
        """``j(ump) LINE``: go on at another line of the same frame."""
        self.edits = True
        return super().do_jump(arg)

    do_j = do_jump

    def do_quit(self, arg: str) -> bool:
        """``q(uit)``: end the request with an error, BdbQuit."""
        self.set_quit()
        self._goes_on = True
        return True

    do_q = do_exit = do_EOF = do_quit

    def do__interrupt(self, arg: str) -> bool:
        """``_interrupt``: end the request with KeyboardInterrupt."""
        self._is_interrupted = True
        self.error("the request has been interrupted")  # in place of a reply to a line that was on its way
        return self.do_quit(arg)


def _do_nothing() -> None:
    pass


def _compiles(text: str) -> bool:
    try:
        compile(text, "<debugger>", "exec")
    except Exception:
        return False
    return True


def _run_in_scope(text: str, mode: str, global_names: dict[str, Any], names: MutableMapping[str, Any]) -> Any:
    """Run code as the body of a function inside another function, whose variables are ``names``.

    Comprehensions, lambdas and functions in the code find local and global names this way, and refer to the global
    variables of the program themselves; a joined dictionary would have copies.
    """
    body = f"return {text}" if mode == "eval" else text
    table = symtable.symtable(f"def inner():\n  {body}", "<debugger>", "exec").get_children()[0]
    symbols = {symbol.get_name(): symbol for symbol in table.get_symbols()}
    own = {name for name in names if name.isidentifier() and not keyword.iskeyword(name)}
    own |= {name for name, symbol in symbols.items() if symbol.is_assigned() or symbol.is_imported()}
    own -= {name for name, symbol in symbols.items() if symbol.is_declared_global()}
    listed = ", ".join(sorted(own))
    header = f"  nonlocal {listed}\n" if own else ""
    code = compile(f"def outer({listed}):\n def inner():\n{header}  {body}", "<debugger>", "exec")
    for _ in range(2):  # outer, then inner
        code = next(const for const in code.co_consts if isinstance(const, CodeType))
    before = dict(names)
    cells = {name: CellType(before[name]) if name in before else CellType() for name in code.co_freevars}
    try:
        return FunctionType(code, global_names, closure=tuple(cells.values()))()
    finally:
        for name, cell in cells.items():
            try:
                value = cell.cell_contents
            except ValueError:  # the cell is empty: the code has deleted the variable, or has not assigned it
                if name in before:
                    del names[name]
            else:
                if name not in before or value is not before[name]:
                    names[name] = value


def _is_suspended(frame: FrameType) -> bool:
    """Return whether a frame is of a coroutine or generator that is now suspended: tracing has no event for that."""
    code = frame.f_code
    return bool(code.co_flags & _SUSPENDABLE) and dis.opname[code.co_code[frame.f_lasti]] in _SUSPENDS
