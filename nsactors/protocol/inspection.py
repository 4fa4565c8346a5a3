"""Queries that look inside an engine, and their replies.

An engine answers them while it is busy, from its control thread or from a separate thread.
"""

from __future__ import annotations

from typing import NamedTuple

from nsactors._frozen import frozen
from nsactors.errors import Failure
from nsactors.protocol.engine_info import Size
from nsactors.protocol.serialize import Payload, StoredObject


class StackFrame(NamedTuple):
    """A function that a thread is executing, or whose call it has not finished.

    Attributes:
        file: the path of its source, or the name of a cell, such as ``"<cell 3>"``.
        line: the number of the line that runs, from 1; 0 if it is not known.
        function: the qualified name of the function.
        source: the text of the line; empty if it is not known.
        own: whether the code belongs to the user, not to a library.
    """

    file: str
    line: int
    function: str
    source: str = ""
    own: bool = True


class ThreadStack(NamedTuple):
    """The functions that a thread is in, the outermost first; empty if the thread runs no user code."""

    name: str
    frames: tuple[StackFrame, ...] = ()


class EngineStack(NamedTuple):
    """The code that an engine runs at one moment.

    Attributes:
        call: the label of the request, such as ``"apply(simulate)"``; empty if the engine is idle.
        client: the client that sent it.
        for_s: seconds that it has run; None if the engine is idle.
        threads: the thread that runs requests; if asked for, also the threads that user code has started. Empty if
            the stack could not be read.
        notes: the reason why the stack could not be read, or how it was read if the engine did not answer.
        waits: calls to services that its code waits for, such as ``"recv from 2 tag 5 for 12 s"``.
        program: for an embedded program, the thread that runs the program's own code; None if it runs a request, or
            waits in a library.
    """

    call: str = ""
    client: str = ""
    for_s: float | None = None
    threads: tuple[ThreadStack, ...] = ()
    notes: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    program: ThreadStack | None = None

    @property
    def frames(self) -> tuple[StackFrame, ...]:
        """The functions that the request is in, the outermost first."""
        return self.threads[0].frames if self.threads else ()

    @property
    def is_idle(self) -> bool:
        """True if the engine runs no request."""
        return self.for_s is None and bool(self.threads) and not self.frames


@frozen
class ReadStack:
    """Read the stack of the running request; with ``threads``, also those of the user's other threads.

    The query reply is an ``EngineStack``.
    """

    threads: bool = False


@frozen
class ReadProcesses:
    """Read the stacks of other processes of this machine, whose engines do not answer.

    The query reply has a ``ProcessStacks`` for each of the processes, in their order.

    Attributes:
        pids: the processes.
        signals: for each process the path of the file that it writes its stacks into when it gets a signal; empty to
            send none.
        native: also read the functions of C code; the process is stopped while they are read.
    """

    pids: tuple[int, ...]
    signals: tuple[str, ...] = ()
    native: bool = False


class ProcessStacks(NamedTuple):
    """The stacks of a process, read from outside.

    Attributes:
        threads: its threads, the main thread first; empty if they could not be read.
        note: in words, the reason why they could not be read, or a remark on the threads.
    """

    threads: tuple[ThreadStack, ...] = ()
    note: str = ""


@frozen
class Peek:
    """Evaluate an expression in the namespace, on a thread of its own.

    The query reply is a ``PeekResult``.

    Attributes:
        expression: the expression.
        limit_s: the time in seconds after which the evaluation is given up.
        as_text: reply with a text for people in place of the value.
    """

    expression: str
    limit_s: float
    as_text: bool = False


class PeekResult(NamedTuple):
    """The outcome of a peek.

    Attributes:
        value: the packed value, or a reference to a large one; None if there is a failure, or the limit was reached.
        failure: the error that the expression raised.
        printed: the text that it printed.
    """

    value: Payload | StoredObject | None = None
    failure: Failure | None = None
    printed: str = ""


@frozen
class ListVariables:
    """List the names of the namespace.

    The query reply is a tuple of ``Variable``, in the order of the names.
    """


class Variable(NamedTuple):
    """A name in a namespace, described without running code of its value's class.

    Attributes:
        name: the name.
        type_name: the class of its value; for an array, also the type of its items and its shape.
        text: a short text for the value, if its class is one of Python's own.
        size: its memory, with all that it holds.
    """

    name: str
    type_name: str
    text: str
    size: Size


@frozen
class StartProfile:
    """Begin to measure where the requests of a client spend their time; a repeated query changes nothing.

    Attributes:
        profile_id: a name, unique for ever.
        client: the client.
        how: ``"sample"``: read the stack at intervals. ``"calls"``: count and time every call to a function.
            ``"memory"``: record allocations.
        interval_s: the time between two samples in seconds.
    """

    profile_id: str
    client: str
    how: str
    interval_s: float


@frozen
class StopProfile:
    """End a profile. The query reply is an ``EngineProfile``, or a payload or stored object that holds one."""

    profile_id: str


class ProfiledFunction(NamedTuple):
    """A function in a profile.

    Attributes:
        file: the path of its source, or the name of a cell, such as ``"<cell 3>"``; empty for a built-in function.
        line: the number of its first line; 0 if it is not known.
        name: its qualified name.
        is_user_code: whether its code belongs to the user, not to a library.
        cell: a checksum of the source of the cell, which is the same on all engines; 0 for files, and if the source is
            not known.
    """

    file: str
    line: int
    name: str
    is_user_code: bool = True
    cell: int = 0


class StackSample(NamedTuple):
    """A stack that was sampled, with its weight.

    Attributes:
        functions: the numbers of its functions in the profile, the outermost first.
        weight: the seconds that were spent in it; in a profile of memory, the bytes that were allocated there.
        number: the number of samples, or of allocations.
    """

    functions: tuple[int, ...]
    weight: float
    number: int


class CallTimes(NamedTuple):
    """The calls to one function.

    Attributes:
        function: the number of the function in the profile.
        number: the number of calls.
        primitive: the number of calls that were not recursive.
        own_s: seconds in the function itself.
        total_s: seconds in the function and in those that it called.
        callers: for each caller its number, and the four figures of the calls that it made.
    """

    function: int
    number: int
    primitive: int
    own_s: float
    total_s: float
    callers: tuple[tuple[int, int, int, float, float], ...] = ()


class EngineProfile(NamedTuple):
    """A profile of one engine: samples, or calls."""

    functions: tuple[ProfiledFunction, ...] = ()
    samples: tuple[StackSample, ...] = ()
    calls: tuple[CallTimes, ...] = ()


Inspection = ReadStack | ReadProcesses | Peek | ListVariables | StartProfile | StopProfile
