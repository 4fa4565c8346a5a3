"""What engines are asked for with, as people write it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypedDict

from nsactors.cluster.resources import thread_environment
from nsactors.core.cluster import EngineOptions, Recovery
from nsactors.errors import CapabilityError, UnknownOption, bytes_from_words

__all__ = ["EngineKeywords", "engine_options", "with_threads"]

_OF_PROCESSES = ("on", "num_cpus", "num_gpus", "memory", "resources", "environment")


class EngineKeywords(TypedDict, total=False):
    """What engines can be asked for with; it holds for the processes that take their place, too.

    Attributes:
        recovery: what becomes of an engine that dies. ``"restart"`` (the default): a new process takes its id, with an
            empty namespace; ``"replay"``: and its namespace is made again from a journal of what it ran; ``"none"``:
            it is gone.
        journal: ``"local"`` (the default) keeps that journal on the engine's machine, and copies it to another one as
            it goes; ``"sync"`` answers a request only when it is there.
        on: the machine, by its name, address or Ray's id; or what labels of it must be, such as ``{"zone": "b"}``,
            ``{"zone": "!b"}`` or ``{"zone": "in(b, c)"}``. The default is any, evenly.
        labels: by which tasks of load-balanced views find these engines, such as ``{"licence": "solver"}``, besides the
            labels of their machines.
        num_cpus: cores that each engine counts for, which are its threads for linear algebra, too. The default, 0,
            takes part in no count: engines then start however busy the machines are.
        num_gpus: GPUs that each engine gets, and it sees no others; a fraction shares one. Without any it sees all.
        memory: that each engine counts for, in bytes or as text such as ``"2GB"``. It is no limit.
        resources: that the cluster names itself, and how much of each, such as ``{"license": 1}``.
        environment: variables, set before an engine imports NumPy or runs anything of yours.
    """

    recovery: str
    journal: str
    on: str | Mapping[str, str] | None
    labels: Mapping[str, str]
    num_cpus: float
    num_gpus: float
    memory: int | str | None
    resources: Mapping[str, float]
    environment: Mapping[str, str]


def engine_options(
    usual: EngineOptions, options: Mapping[str, object], *, in_threads: bool, others: Iterable[str] = ()
) -> EngineOptions:
    """``usual`` with some options changed, as people write them.

    Args:
        usual: what is not changed.
        options: the changes, as :class:`EngineKeywords`.
        in_threads: the engines are threads of this process.
        others: options of the caller's own, which may have been meant by one that does not exist.

    Raises:
        UnknownOption: if there is no such option.
        ValueError: if one cannot be what it was given as; TypeError if it is of another type.
        CapabilityError: if threads cannot have that.
    """
    known = EngineKeywords.__annotations__
    for name in options:
        if name not in known:
            raise UnknownOption(name, [*known, *others])
    if in_threads and (asked := [f"{name}=" for name in _OF_PROCESSES if options.get(name)]):
        advice = "its engines are threads of this process; use Cluster(backend='ray') for that"
        raise CapabilityError(f"start engines with {', '.join(asked)}", "local", advice)
    return replace(usual, **{field: value for name in options for field, value in _READ[name](options[name]).items()})


def with_threads(options: EngineOptions, environment: Mapping[str, str]) -> EngineOptions:
    """``options`` for engines with as many threads as cores, if they count for any.

    Args:
        options: as they were asked for.
        environment: of this process: variables that the user has set are passed on as they are.
    """
    if not options.num_cpus:
        return options
    threads = thread_environment(int(options.num_cpus), 1, environment)
    return replace(options, environment={**threads, **options.environment})


def _recovery(value: Any) -> dict[str, Any]:
    try:
        return {"recovery": Recovery(value)}
    except ValueError:
        choices = ", ".join(repr(str(choice)) for choice in Recovery)
        raise ValueError(f"recovery is one of {choices}, not {value!r}") from None


def _journal(value: Any) -> dict[str, Any]:
    if value not in ("local", "sync"):
        raise ValueError(f"journal is 'local' or 'sync', not {value!r}")
    return {"ships_journal": value == "sync"}


def _on(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"node": None, "node_labels": {}}
        case str() if value:
            return {"node": value, "node_labels": {}}
        case Mapping() if value and _is_text(value):
            return {"node": None, "node_labels": dict(value)}
    raise TypeError(f"on is a machine's name or address, or labels such as {{'zone': 'b'}}, not {value!r}")


def _labels(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not _is_text(value):
        raise TypeError(f"labels are names and values, all of them text, not {value!r}")
    return {"labels": dict(value)}


def _num_cpus(value: Any) -> dict[str, Any]:
    return {"num_cpus": _amount("num_cpus", value)}


def _num_gpus(value: Any) -> dict[str, Any]:
    count = _amount("num_gpus", value)
    if count > 1 and count != int(count):
        raise ValueError(f"num_gpus is whole, or less than 1 to share a GPU, not {value!r}")
    return {"num_gpus": count}


def _memory(value: Any) -> dict[str, Any]:
    return {"memory": None if value is None else bytes_from_words(value)}


def _resources(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"resources are names and amounts, such as {{'license': 1}}, not {value!r}")
    for name, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")):
        if name in value:
            raise ValueError(f"{name!r} is no resource that a cluster names itself: use {option}=")
    return {"resources": {str(name): _amount(f"resource {name!r}", amount) for name, amount in value.items()}}


def _environment(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not _is_text(value):
        raise TypeError(f"environment is names and values, all of them text, not {value!r}")
    return {"environment": dict(value)}


def _is_text(mapping: Mapping[Any, Any]) -> bool:
    return all(isinstance(text, str) for item in mapping.items() for text in item)


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number, not {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is 0 or more, not {value!r}")
    return value


_READ = {
    "recovery": _recovery,
    "journal": _journal,
    "on": _on,
    "labels": _labels,
    "num_cpus": _num_cpus,
    "num_gpus": _num_gpus,
    "memory": _memory,
    "resources": _resources,
    "environment": _environment,
}
