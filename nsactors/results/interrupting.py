"""Waits for engines: Ctrl-C interrupts both the wait and the engines."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import NoReturn, Self, TypeVar

from nsactors.errors import TaskAborted, engine_ranges, is_for_users, keyboard_interrupt
from nsactors.errors.formatting import reasons_by_engines
from nsactors.protocol.process import current_shell
from nsactors.results.call import NOWHERE, Call, CallController
from nsactors.results.display.live import AwaitedOutput
from nsactors.results.display.progress import wait_showing

QUICK_STOP_S = 0.5  # nothing is printed about an engine that stops within this time
GRACE_S = 5.0
STEP_S = 0.05
MOST_UNSEEN = 2

# A Jupyter server that restarts or ends a kernel sends SIGINT, and immediately after it the shutdown request. The
# request arrived within 8 ms of the signal, and within 25 ms on a machine that was loaded to five times its capacity.
SHUTDOWN_FOLLOWS_S = 0.2

Wait = Callable[[float | None], bool]
Ask = Callable[[str], str]
Clock = Callable[[], float]
IsEnding = Callable[[], bool]
T = TypeVar("T")


def interruptible(wait: Callable[[], T], on_interrupt: Callable[[Presses], T]) -> T:
    """Return ``wait()``; after Ctrl-C, return ``on_interrupt(presses)``, which must count further presses.

    Every wait that interrupts engines goes through this loop.
    """
    presses: Presses | None = None
    is_interrupted = False
    while True:
        try:
            if is_interrupted:
                presses = presses or Presses()
                return on_interrupt(presses)
            return wait()
        except KeyboardInterrupt as error:
            # `on_interrupt` runs outside of this block, because an error raised here would have Ray's traceback as its
            # context. Programs that run other programs often pass Ctrl-C on to them, so that it arrives twice. The
            # second one may raise before presses are counted, and then it means the same as the first.
            if is_interrupted and (is_for_users(error) or (presses is not None and presses.have_begun)):
                raise
            is_interrupted = True


class _Stopped(Exception):
    """Ends a wait because an engine has stopped at a breakpoint; the blocks that it leaves remove what they drew."""


def stopping(wait: Wait, owner: CallController) -> Wait:
    """Return a wait for use within :func:`debugging`; it ends when an engine stops at a breakpoint."""
    if threading.current_thread() is not threading.main_thread():
        return wait  # only the main thread prompts a user

    def wait_or_stop(timeout_s: float | None) -> bool:
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if wait(min(STEP_S, max(0.0, deadline - time.monotonic()))):
                return True
            if owner.has_stops:
                raise _Stopped
            if time.monotonic() >= deadline:
                return False

    return wait_or_stop


def debugging(run: Callable[[], T], owner: CallController, settle: Callable[[], object] = lambda: None) -> T:
    """Return ``run()``; while engines are stopped at breakpoints, the user is at the prompt of their debuggers.

    Args:
        run: waits with a function that :func:`stopping` has returned.
        owner: opens the debuggers.
        settle: shows the output so far; called before each prompt.
    """
    while True:
        try:
            return run()
        except _Stopped:
            settle()
        owner.debug_stops(settle)


def wait_or_interrupt(
    wait: Wait,
    calls: Sequence[Call],
    owner: CallController,
    timeout_s: float | None,
    ask: Ask | None = None,
    *,
    may_succeed: bool = False,
    keeps_errors: bool = False,
    progress: bool = True,
    output: AwaitedOutput | None = None,
    settle: Callable[[], object] = lambda: None,
) -> bool:
    """Wait; Ctrl-C interrupts those of ``calls`` that run, and cancels those that have not begun.

    If engines do not stop, or Ctrl-C is pressed again, the user is asked whether to wait, to leave the engines running,
    or to kill and restart them.

    Args:
        wait: waits for at most the given seconds, and returns whether the calls have ended.
        calls: the calls for which to wait.
        owner: interrupts, aborts and restarts.
        timeout_s: seconds; None or negative: as long as it takes.
        ask: asks the user a question; the default is ``input`` where a user can answer.
        may_succeed: Ctrl-C asks the code to end by itself, so a success after Ctrl-C is no reason to raise.
        keeps_errors: the caller does not raise the errors of ``calls``, so KeyboardInterrupt is raised after Ctrl-C.
        progress: show a line of progress if the wait takes long; False for a wait that draws by itself.
        output: shows the output of ``calls`` during the wait.
        settle: if ``wait`` itself shows the output of ``calls``: shows all output so far, and leaves the screen to a
            prompt.

    Returns:
        Whether the calls have ended. After Ctrl-C they have ended, with errors that name the place of the interrupt.

    Raises:
        KeyboardInterrupt: after Ctrl-C, if there are no such errors. This is so if all calls have succeeded or were
            cancelled before they began, if engines cannot be interrupted, and if engines were left running, for example
            with detached tasks. With ``keeps_errors``, after every Ctrl-C.
    """
    limit_s = None if timeout_s is None or timeout_s < 0 else timeout_s
    deadline = math.inf if limit_s is None else time.monotonic() + limit_s
    shown = stopping(wait, owner)
    if output is not None:
        shown, wait, settle = output.around(shown), output.around(wait), output.settle
    again = False

    def wait_once() -> bool:
        nonlocal again
        left_s = max(0.0, deadline - time.monotonic()) if again and limit_s is not None else limit_s
        again = True
        return wait_showing(shown, calls, left_s, output) if progress else shown(left_s)

    def wait_or_stop() -> bool:
        return interruptible(
            wait_once,
            lambda presses: interrupt_and_wait(
                wait, calls, owner, ask, may_succeed=may_succeed, keeps_errors=keeps_errors, presses=presses
            ),
        )

    try:
        return debugging(wait_or_stop, owner, settle)
    finally:
        if output is not None:
            output.settle()


def interrupt_and_wait(
    wait: Wait,
    calls: Sequence[Call],
    owner: CallController,
    ask: Ask | None = None,
    *,
    may_succeed: bool = False,
    keeps_errors: bool = False,
    presses: Presses | None = None,
    is_ending: IsEnding | None = None,
    clock: Clock = time.monotonic,
) -> bool:
    """Interrupt calls as Ctrl-C does, and wait for their end; see :func:`wait_or_interrupt`.

    Args:
        wait: see :func:`wait_or_interrupt`.
        calls: see :func:`wait_or_interrupt`.
        owner: see :func:`wait_or_interrupt`.
        ask: see :func:`wait_or_interrupt`.
        may_succeed: see :func:`wait_or_interrupt`.
        keeps_errors: see :func:`wait_or_interrupt`.
        presses: counts further presses.
        is_ending: returns whether this process has been asked to end; the engines are then not interrupted. The default
            asks the kernel, if this process is the kernel of a notebook.
        clock: returns the time in seconds.
    """
    if owner.detached:
        raise _going_on(calls)
    with presses or Presses() as counted:
        stop = _Stop(wait, calls, owner, ask or user_input(), counted, clock)
        if stop.is_for_this_process(is_ending or _kernel_is_ending()):
            raise _going_on(calls)
        there = stop.run(may_succeed=may_succeed, keeps_errors=keeps_errors)
    return there


class Presses:
    """Counts presses of Ctrl-C while engines are interrupted, instead of raising KeyboardInterrupt.

    An exception could be raised anywhere in the main thread: inside Ray, while something is drawn, or while a lock is
    held. A press is noticed within a step of the wait. If :meth:`take` is not called before a third press, the third
    press raises.

    Attributes:
        have_begun: whether the counting of presses has begun.
    """

    def __init__(self) -> None:
        self._count = self._seen = 0
        self._takes = False
        self.have_begun = False

    def __enter__(self) -> Self:
        assert signal.getsignal(signal.SIGINT) != self._on_sigint, "these presses are being counted already"
        on_main_thread = threading.current_thread() is threading.main_thread()
        # Keep another handler, which has been set for a reason, for example on engines.
        self._takes = on_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._takes:
            signal.signal(signal.SIGINT, self._on_sigint)
        self.have_begun = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._takes:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_sigint(self, *_: object) -> None:
        self.add()
        if self._count - self._seen > MOST_UNSEEN:
            raise KeyboardInterrupt

    def add(self) -> None:
        """Count a press that has raised KeyboardInterrupt."""
        self._count += 1

    def take(self) -> bool:
        """Return whether there was a press since the last call to this method."""
        fresh, self._seen = self._count > self._seen, self._count
        return fresh

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Let Ctrl-C raise KeyboardInterrupt within the block, as in ``input``."""
        self.__exit__()
        try:
            yield
        finally:
            if self._takes:
                signal.signal(signal.SIGINT, self._on_sigint)


def unless_interrupted(function: Callable[[], T]) -> T:
    """Return ``function()``, which runs to its end on a thread of its own, even if Ctrl-C ends the wait for it.

    Raises:
        KeyboardInterrupt: after Ctrl-C, while the function continues.
    """

    def interrupt() -> NoReturn:
        raise keyboard_interrupt()

    return aside(function, interrupt)


def aside(function: Callable[[], T], on_press: Callable[[], object], presses: Presses | None = None) -> T:
    """Return ``function()``, which runs to its end on a thread of its own, where Ctrl-C does not raise.

    Args:
        function: the function.
        on_press: called after each Ctrl-C while the function runs; an exception that it raises ends the wait.
        presses: counts presses of Ctrl-C while the caller is within its block; None to count them during this call
            only.
    """
    if presses is None:
        with Presses() as own:
            return aside(function, on_press, own)
    # Return a future that is already done, because Ctrl-C could break the lock of a future for which a thread waits.
    # Thread.join cannot be used either, because Ctrl-C in it marks the thread as ended on Python 3.11.
    ended: list[Future[T]] = []
    woken: SimpleQueue[None] = SimpleQueue()

    def run() -> None:
        done: Future[T] = Future()
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)
        ended.append(done)
        woken.put(None)

    try:
        threading.Thread(target=run, name="nsactors-aside", daemon=True).start()
    except RuntimeError:  # the interpreter ends, or there are too many threads
        run()
    while not ended:
        try:
            woken.get(timeout=STEP_S)
        except Empty:
            pass
        except KeyboardInterrupt:  # where SIGINT has another handler
            presses.add()
        if presses.take() and not ended:
            on_press()
    return ended[0].result()


class _Aside:
    """Runs a function on a thread of its own, where Ctrl-C does not raise."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="nsactors-interrupt", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except Exception as error:
            self._error = error

    @property
    def has_ended(self) -> bool:
        """True if the function has returned or raised."""
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise the error of the function, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error


class _Stop:
    """One Ctrl-C, until the engines have stopped or the user has decided about them."""

    def __init__(
        self, wait: Wait, calls: Sequence[Call], owner: CallController, ask: Ask | None, presses: Presses, clock: Clock
    ) -> None:
        self._wait = wait
        self._calls = calls
        self._owner = owner
        self._ask = ask
        self._presses = presses
        self._clock = clock
        self._told, self._over = threading.Event(), threading.Event()
        self._can_interrupt = True
        self._obstacles: Mapping[int, str] = {}

    def is_for_this_process(self, is_ending: IsEnding | None) -> bool:
        """Return whether the interrupt is part of the end of this process, such as a restart of its kernel."""
        if is_ending is None:
            return False
        began = self._clock()
        while self._clock() - began < SHUTDOWN_FOLLOWS_S:
            if is_ending():
                return True
            if self._step():
                return False  # the calls have ended
        return is_ending()

    def run(self, *, may_succeed: bool, keeps_errors: bool) -> bool:
        """Interrupt the engines and wait for them; return whether the calls have ended."""
        waited_for = _running(self._calls)
        telling = _Aside(self._tell)
        self._let_tell(telling)
        try:
            there = self._wait_for_end(telling) or self._let_user_decide()
        finally:
            self._over.set()
        errors = [call.error for call in waited_for if call.error is not None]
        if errors and all(isinstance(error, TaskAborted) for error in errors):
            # An error of a request that never ran would contain less.
            raise _stopped("cancelled before it ran", waited_for)
        if errors and keeps_errors:  # without this, the program would continue with the errors as values
            for call in waited_for:
                call.when_settled(lambda ended: self._owner.mark_retrieved([ended]))
            raise _stopped("interrupted", waited_for)
        if not (
            errors or may_succeed
        ):  # the calls ended a moment before, or caught the interrupt; without this error, a loop would go on
            raise keyboard_interrupt()
        return there

    def _tell(self) -> None:
        # Abort first: a call that is not cancelled when abort returns has begun, so it can be interrupted.
        self._owner.abort(_running(self._calls), interrupt=False)
        self._can_interrupt = self._owner.interrupt(_running(self._calls))
        self._told.set()
        if self._can_interrupt and not self._over.wait(QUICK_STOP_S):
            self._obstacles = self._owner.obstacles(_running(self._calls))

    def _let_tell(self, telling: _Aside) -> None:
        """Leave the interpreter to the other thread for as long as it may need; drawing a flood would starve it."""
        for _ in range(int(QUICK_STOP_S / STEP_S)):
            try:
                if self._told.wait(STEP_S) or telling.has_ended:
                    return
            except KeyboardInterrupt:
                self._presses.add()

    def _wait_for_end(self, telling: _Aside) -> bool:
        """Wait as long as an interrupt may take; return False if the user must be asked."""
        began, said, pressed = self._clock(), False, False
        while not self._step():
            telling.check()
            pressed = self._presses.take() or pressed
            if not self._can_interrupt and _running(self._calls):
                raise _not_interrupted(self._calls)
            passed_s = self._clock() - began
            if passed_s < QUICK_STOP_S:
                continue  # a second Ctrl-C so soon has no further meaning: most engines stop before a user can read
            if pressed or passed_s > QUICK_STOP_S + GRACE_S:
                return False
            if not said:
                _say(f"interrupting {_engines(self._calls)} ... (Ctrl-C again to leave or kill)")
                said = True
            obstacles, self._obstacles = self._obstacles, {}
            for line in reasons_by_engines(obstacles):
                _say(line)
        return True

    def _let_user_decide(self) -> bool:
        while True:
            self._presses.take()
            match self._choice():
                case "w":
                    while not self._presses.take():
                        if self._step():
                            return True
                case "k":
                    self._restart()
                    give_up = self._clock() + GRACE_S
                    while self._clock() < give_up:
                        if self._step():
                            return True
                    raise _left_running(self._calls)
                case _:
                    raise _left_running(self._calls)

    def _restart(self) -> None:
        ids = {call.engine_id for call in _running(self._calls)}
        restarting = _Aside(lambda: self._owner.restart(ids))
        while not restarting.has_ended:
            self._step()
            self._presses.take()
        restarting.check()

    def _step(self) -> bool:
        try:
            return self._wait(STEP_S)
        except KeyboardInterrupt:  # where SIGINT has another handler
            self._presses.add()
            return False

    def _choice(self) -> str:
        if self._ask is None:
            return "l"
        try:
            with self._presses.raising():
                answer = self._ask(
                    f"{_engines(self._calls)} did not stop. [w]ait, [l]eave running, [k]ill and restart? "
                )
        except (KeyboardInterrupt, EOFError):
            return "l"
        return answer.strip().lower()[:1] or "w"


def _stopped(how: str, calls: Sequence[Call]) -> KeyboardInterrupt:
    ids = sorted({call.engine_id for call in calls} - {NOWHERE})
    where = f" on {engine_ranges(ids)}" if ids else ""
    return keyboard_interrupt(f"{how}{where}: {', '.join(dict.fromkeys(call.label for call in calls))}")


def _left_running(calls: Sequence[Call]) -> KeyboardInterrupt:
    return keyboard_interrupt(
        f"left running: {_engines(calls)}. rc.interrupt() tries again; "
        "rc.shutdown(ids, restart=True) ends them and starts new ones"
    )


def _not_interrupted(calls: Sequence[Call]) -> KeyboardInterrupt:
    return keyboard_interrupt(f"left running: {_engines(calls)}. Engines that are threads cannot be interrupted")


def _going_on(calls: Sequence[Call]) -> KeyboardInterrupt:
    return keyboard_interrupt(
        *(
            f"{call.label} goes on: rc.get_result({str(call.request_id)!r}) waits for it again, "
            "and abort() of that result cancels it"
            for call in _running(calls)
        )
    )


def user_input() -> Ask | None:
    """Return ``input``, if a user can answer: at a terminal, or in a notebook whose front end can ask."""
    shell = current_shell()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        return input if getattr(kernel, "_allow_stdin", False) else None
    return input if sys.stdin is not None and sys.stdin.isatty() else None


class UserPrompt:
    """Finds out for every request whether a user can be prompted; see :func:`user_input`.

    The terminal is checked only once, because the check takes a system call.
    """

    def __init__(self) -> None:
        self._kernel = getattr(current_shell(), "kernel", None)
        self._at_terminal = self._kernel is None and user_input() is not None

    def can_ask(self) -> bool:
        """Return whether a user can be prompted now."""
        return self._at_terminal if self._kernel is None else bool(getattr(self._kernel, "_allow_stdin", False))


def _kernel_is_ending() -> IsEnding | None:
    """Return a function that returns whether the kernel has been asked to shut down; None if this is no kernel."""
    shell = current_shell()
    if not hasattr(shell, "kernel"):
        return None
    return lambda: bool(getattr(shell, "exit_now", False))  # set on the control thread, while a cell runs on this one


def _running(calls: Sequence[Call]) -> list[Call]:
    return [call for call in calls if not call.done]


def _engines(calls: Sequence[Call]) -> str:
    ids = {call.engine_id for call in _running(calls)} - {NOWHERE}
    return engine_ranges(sorted(ids)) if ids else "the engines"


def _say(text: str) -> None:
    print(f"nsactors: {text}", file=sys.stderr, flush=True)
