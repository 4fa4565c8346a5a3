"""Options of engines: their keywords, checks, and conversion into ``EngineOptions``."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict

from nsactors.errors import CapabilityError, UnknownOption, WrongType, WrongValue, bytes_from_words
from nsactors.protocol import arguments as arg
from nsactors.protocol.engine_info import EngineOptions, Recovery
from nsactors.protocol.serialize import pack_small
from nsactors.system.resources import thread_environment
from nsactors.transport.base import check_address

_OF_PROCESSES = ("on", "num_cpus", "num_gpus", "memory", "resources", "environment")


class EngineKeywords(TypedDict, total=False):
    """Options of engines, which also hold for their later incarnations.

    None for ``on``, ``labels``, ``memory``, ``resources``, ``environment`` and ``on_error`` is the same as no option.

    Attributes:
        recovery: the action when an engine dies. ``"restart"`` (the default) starts a new process under its id, with an
            empty namespace; ``"replay"`` also restores the namespace from a journal of its requests; ``"none"`` removes
            the engine.
        journal: ``"local"`` (the default) writes the journal on the engine's machine, and copies it to another machine
            in the background; ``"sync"`` sends a reply only after the copy.
        on: the engine's machine, by its name, address or Ray's id; or labels that it must have, such as
            ``{"zone": "b"}``, ``{"zone": "!b"}`` or ``{"zone": "in(b, c)"}``. By default engines are spread evenly.
        labels: labels by which tasks of load-balanced views select these engines, such as ``{"licence": "solver"}``, in
            addition to the labels of their machines.
        num_cpus: the cores that each engine reserves in Ray, and its threads for linear algebra. The default, 0,
            reserves none, so that engines start even on busy machines.
        num_gpus: the number of GPUs of each engine, which sees no others; with a fraction, engines share a GPU. By
            default an engine sees all GPUs.
        memory: the memory that each engine reserves in Ray, in bytes or as text such as ``"2GB"``. The engine may use
            more.
        resources: the amounts of custom resources that each engine reserves, such as ``{"license": 1}``.
        environment: environment variables, set before an engine imports NumPy or runs user code.
        on_error: a function that an engine calls with every exception that a cell, call or task raises, before the
            reply is sent: to save the inputs, for example. It is pickled when it is given. Its output belongs to the
            request; an exception that it raises is printed to this output. It is not called for interrupts and exits.
        breakpoints: ``"ask"`` (the default) stops requests at ``breakpoint()`` and ``pdb.set_trace()``, and opens the
            debugger at their client; ``"pass"`` makes them do nothing, for all clients.
    """

    recovery: str
    journal: str
    on: str | Mapping[str, str] | None
    labels: Mapping[str, str] | None
    num_cpus: float
    num_gpus: float
    memory: int | str | None
    resources: Mapping[str, float] | None
    environment: Mapping[str, str] | None
    on_error: Callable[[Exception], object] | None
    breakpoints: str


def engine_options(
    usual: EngineOptions,
    options: Mapping[str, object],
    *,
    in_threads: bool,
    others: Iterable[str] = (),
    call: str = "Cluster",
) -> EngineOptions:
    """Return ``usual`` with some options changed.

    Args:
        usual: the options to change.
        options: the changes, as :class:`EngineKeywords`.
        in_threads: the engines are threads of this process.
        others: other options of the caller, to suggest in place of an unknown one.
        call: the name of the public call, for error messages.

    Raises:
        UnknownOption: if there is no such option.
        InvalidArgument: if an option has a wrong value.
        CapabilityError: if threads cannot have an option.
    """
    known = EngineKeywords.__annotations__
    for name in options:
        if name not in known:
            raise UnknownOption(name, [*known, *others])
    arg.check(call, **{name: _TAKES[name](value) for name, value in options.items()})
    if in_threads and (asked := [f"{name}=" for name in _OF_PROCESSES if options.get(name)]):
        advice = "its engines are threads of this process; use Cluster(backend='ray') for that"
        raise CapabilityError(f"start engines with {', '.join(asked)}", "the local transport", advice)
    read = {field: value for name in options for field, value in _READ[name](options[name]).items()}
    changed = replace(usual, **read)
    if options.get("journal") == "sync" and changed.recovery is not Recovery.REPLAY:
        raise WrongValue(
            call, "journal", "sync", "'local', or 'sync' with recovery='replay', because there is no journal otherwise"
        )
    return changed


def with_threads(options: EngineOptions, environment: Mapping[str, str]) -> EngineOptions:
    """Return ``options`` with variables that limit an engine's threads to its cores, if it reserves any.

    Args:
        options: the options of the engines.
        environment: the variables of this process; a limit that the user has set stays as it is.
    """
    if not options.num_cpus:
        return options
    threads = thread_environment(int(options.num_cpus), 1, environment)
    return replace(options, environment={**threads, **options.environment})


def memory_size(value: object, *, or_none: bool = True) -> arg.Unfit | None:
    """Check an amount of memory: a number of bytes, or a text for :func:`bytes_from_words`."""
    if value is None and or_none:
        return None
    takes = "a number of bytes, or text such as '2GB' or '512MiB'" + ", or None" * or_none
    if isinstance(value, str):
        try:
            bytes_from_words(value)
        except ValueError:
            return arg.Unfit(value, takes, WrongValue)
        return None
    unfit = arg.whole(value, at_least=0)
    return None if unfit is None else arg.Unfit(value, takes, unfit.error)


def startup_cell(value: object) -> arg.Unfit | None:
    """Check the syntax of a cell of Python, or of IPython if it is installed."""
    if not isinstance(value, str):
        return arg.Unfit(value, "text: a cell of Python", WrongType)
    problem = problem_of_cell(value)
    return None if problem is None else arg.Unfit(value, f"a cell of Python ({problem})", WrongValue)


def problem_of_cell(cell: str) -> str | None:
    """Return the reason why a cell is not valid Python, or IPython if that is installed; None if the cell is valid."""
    problem = _problem_of(cell)
    if problem is not None and (transform := _transform_of_ipython()) is not None:
        problem = _problem_of(transform(cell))  # magics, and commands of the system's shell
    return problem


def _problem_of(cell: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the engines issue them when they compile the cell
            compile(cell, "<startup>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:  # null characters
        return str(error)
    return None


def _transform_of_ipython() -> Callable[[str], str] | None:
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:
        return None
    transform: Callable[[str], str] = TransformerManager().transform_cell
    return transform


def ray_address(value: object) -> arg.Unfit | None:
    """Check the address of a Ray cluster, as ``check_address`` does; None is allowed."""
    if value is None:
        return None
    takes = "the host:port of a Ray cluster, such as '10.0.0.1:6379', or 'auto', or None"
    if not isinstance(value, str):
        return arg.Unfit(value, takes, WrongType)
    try:
        check_address(value)
    except ValueError:
        return arg.Unfit(value, takes, WrongValue)
    return None


def _journal_kind(value: object) -> arg.Unfit | None:
    return arg.choice(value, ("local", "sync"))


def _recovery_kind(value: object) -> arg.Unfit | None:
    return arg.choice(value, [str(choice) for choice in Recovery])


def _break_kind(value: object) -> arg.Unfit | None:
    return arg.choice(value, ("ask", "pass"))


def _machine(value: object) -> arg.Unfit | None:
    takes = "a machine's name or address, or labels such as {'zone': 'b'}, or None"
    if value is None or (isinstance(value, str) and value):
        return None
    if isinstance(value, str) or (isinstance(value, Mapping) and not value):
        return arg.Unfit(value, takes, WrongValue)
    return arg.texts(value, takes)


def _texts_of_engines(value: object) -> arg.Unfit | None:
    return arg.texts(value, "a dictionary of names and values", or_none=True)


def _gpus(value: object) -> arg.Unfit | None:
    if (unfit := arg.number(value, at_least=0)) is not None:
        return unfit
    count: Any = value
    if count > 1 and count != int(count):
        return arg.Unfit(value, "a whole number, or less than 1 to share a GPU", WrongValue)
    return None


def _named_resources(value: object) -> arg.Unfit | None:
    takes = "a dictionary of names and amounts, such as {'license': 1}"
    if (unfit := arg.amounts(value, takes, or_none=True)) is not None or value is None:
        return unfit
    assert isinstance(value, Mapping)
    for name, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")):
        if name in value:
            return arg.Unfit(value, f"custom names, which {name!r} is not: use {option}=", WrongValue)
    return None


def _variables(value: object) -> arg.Unfit | None:
    if (unfit := arg.texts(value, "a dictionary of names and values", or_none=True)) is not None or value is None:
        return unfit
    assert isinstance(value, Mapping)
    for name, text in value.items():
        if not name or "=" in name or "\0" in name or "\0" in text:
            return arg.Unfit(value, "names without '=', and names and values without null characters", WrongValue)
    return None


# The check of each option, and the fields of EngineOptions that it sets.
_TAKES: dict[str, Callable[[object], arg.Unfit | None]] = {
    "recovery": _recovery_kind,
    "journal": _journal_kind,
    "on": _machine,
    "labels": _texts_of_engines,
    "num_cpus": partial(arg.number, at_least=0),
    "num_gpus": _gpus,
    "memory": memory_size,
    "resources": _named_resources,
    "environment": _variables,
    "on_error": partial(arg.function, or_none=True),
    "breakpoints": _break_kind,
}
_READ: dict[str, Callable[[Any], dict[str, Any]]] = {
    "recovery": lambda value: {"recovery": Recovery(value)},
    "journal": lambda value: {"ships_journal": value == "sync"},
    "on": lambda value: {
        "node": value if isinstance(value, str) else None,
        "node_labels": dict(value) if isinstance(value, Mapping) else {},
    },
    "labels": lambda value: {"labels": dict(value or {})},
    "num_cpus": lambda value: {"num_cpus": arg.plain(value)},
    "num_gpus": lambda value: {"num_gpus": arg.plain(value)},
    "memory": lambda value: {"memory": None if value is None else bytes_from_words(value)},
    "resources": lambda value: {"resources": {name: arg.plain(amount) for name, amount in (value or {}).items()}},
    "environment": lambda value: {"environment": dict(value or {})},
    "on_error": lambda value: {"on_error": None if value is None else pack_small(value, "on_error")},
    "breakpoints": lambda value: {"breakpoints": value == "ask"},
}
