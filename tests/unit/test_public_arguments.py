"""No public call takes an argument that its signature excludes: each is refused at once, by name, at no cost to others.

The walk finds public functions and methods by itself, and what their parameters take by their annotations. What cannot
be seen there, a range or a few words, is in the tables below; so is how a call that needs arguments is made.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nsactors
from nsactors import Client, Cluster, Dependency, Timeline
from nsactors.cluster.options import EngineKeywords
from nsactors.errors import InvalidArgument, TargetError
from nsactors.models import bsp, communicator, inputs, map_reduce, stencil, tuple_space
from nsactors.mpi import World
from nsactors.results import AsyncMapResult, AsyncResult, BalancedMapResult
from nsactors.services.mailboxes import Collective, Mailboxes, MailboxMember
from nsactors.services.service import Service, ServiceFuture
from nsactors.session.memory import ClusterMemory
from nsactors.testing import TIMEOUT_S
from nsactors.transport.base import ConnectionInfo
from nsactors.views.executor import ExecutorFuture, ViewExecutor
from nsactors.views.flags import Flags, TaskFlags

AT_ONCE_S = 0.5


class Hostile:
    """An object whose every method that others may call raises."""

    def _fail(self, *args: Any) -> Any:
        raise RuntimeError("looked at")

    __repr__ = __str__ = __eq__ = __bool__ = __len__ = __index__ = __float__ = _fail  # type: ignore[assignment]
    __hash__ = object.__hash__


def function(*args: Any) -> None:
    """A function that nothing must call."""


VALUES: dict[str, Any] = {
    "None": None,
    "nan": math.nan,
    "inf": math.inf,
    "-1": -1,
    "0": 0,
    "-0.5": -0.5,
    "True": True,
    "'x'": "x",
    "'5'": "5",
    "b'x'": b"x",
    "object()": object(),
    "[]": [],
    "{}": {},
    "[nan]": [math.nan],
    "a class": Hostile,
    "a function": function,
    "np.float64(0.5)": np.float64(0.5),
    "np.int64(-1)": np.int64(-1),
    "np.bool_": np.True_,
    "np.array": np.array([0.5, 1.5]),
    "hostile": Hostile(),
}

# What may be given by annotation, as far as types say it.
Accepts = Callable[[Any], bool]


def is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def is_no_special_number(value: Any) -> bool:
    return not is_number(value) or math.isfinite(value)


def is_iterable(value: Any) -> bool:
    return hasattr(type(value), "__iter__")


def is_target(value: Any) -> bool:
    return value is None or is_whole(value) or (isinstance(value, list) and not value)


def is_seed(value: Any) -> bool:
    return is_flag(value) or (is_whole(value) and value >= 0)


def never(value: Any) -> bool:
    return False


def anything(value: Any) -> bool:
    return True


def or_none(accepts: Accepts) -> Accepts:
    return lambda value: value is None or accepts(value)


def at_least(least: float) -> Accepts:
    return lambda value: is_finite(value) and value >= least


BY_ANNOTATION: dict[str, Accepts] = {
    "Any": anything,
    "object": anything,
    "bool": is_flag,
    "str": is_text,
    "int": is_whole,
    "float": is_number,
    "Targets": is_target,
    "None": lambda value: value is None,
    "Mapping": lambda value: isinstance(value, Mapping),
    "dict": lambda value: isinstance(value, Mapping),
    "Iterable": is_iterable,
    "Sequence": is_iterable,
    "Callable": callable,
    "Seed": is_seed,
    "Partitioner": callable,
    "Operation": callable,
    "Update": callable,
    "Reducer": callable,
    "Source": callable,
    "Path": is_text,
    "os.PathLike": is_text,
    "np.ndarray": lambda value: isinstance(value, np.ndarray),
    "type": lambda value: isinstance(value, type),
}

# What annotations do not say: by parameter, or by function and parameter.
RANGES: dict[str, Accepts] = {
    "timeout": at_least(0),
    "timeout_s": at_least(0),
    "time_limit": at_least(0),
    "retries": at_least(0),
    "interval": lambda value: is_finite(value) and value > 0,
    "n": at_least(0),
    "top": at_least(0),
    "last": at_least(0),
    "chunksize": at_least(1),
    "max_outstanding": at_least(1),
    "partitions": at_least(1),
    "halo": at_least(1),
    "times": at_least(0),
    "size": at_least(1),
    "overlap": at_least(0),
    "num_cpus": at_least(0),
    "num_gpus": at_least(0),
    "memory": at_least(0),
    "object_store_memory": never,  # not so little
    "how": never,
    "dist": callable,  # a partitioner; of the others, none of the words
    "groupby": never,
    "return_when": never,
    "backend": never,
    "recovery": never,
    "journal": is_flag,  # the flag of a view; the option of an engine is one of two words
    "pid": lambda value: value == 0,
    "rank": lambda value: value == 0,
    "root": lambda value: value == 0,
    "dest": lambda value: value in (0, communicator.PROC_NULL),
    "source": lambda value: value in (0, communicator.PROC_NULL),
    "tag": at_least(-1),
    "recvtag": at_least(-1),
    "Communicator.send.tag": at_least(0),
    "Communicator.isend.tag": at_least(0),
    "Communicator.sendrecv.sendtag": at_least(0),
    "Communicator.scatter.sendobj": lambda value: is_iterable(value) and len(value) == 1,
    "Communicator.alltoall.sendobj": lambda value: is_iterable(value) and len(value) == 1,
    "Process.send.tag": anything,
    "policy": lambda value: value is None,
    "after": lambda value: value is None or (is_iterable(value) and not len(value)),
    "follow": lambda value: value is None or (is_iterable(value) and not len(value)),
    "seq": is_iterable,
    "Client.map_all.sequences": is_iterable,
    "Client.__getitem__.key": lambda value: is_text(value) or is_target(value),
    "MapReduce.run.source": lambda value: callable(value) or is_iterable(value),
    "number": never,
    "excid": is_whole,  # out of range it is an IndexError, as that of any sequence
    "index": lambda value: value in (0, -1),
    "edge": is_number,
    "require.objects": lambda value: is_text(value) or callable(value),
    "jobs": lambda value: value is None or (isinstance(value, list | dict) and not value),
    "Client.get_result.jobs": lambda value: (
        is_whole(value) or is_text(value) or (isinstance(value, list | dict) and not value)
    ),
    "Client.resume.jobs": lambda value: (
        value is None or is_whole(value) or is_text(value) or (isinstance(value, list | dict) and not value)
    ),
    "resources": lambda value: isinstance(value, Mapping),
    "AsyncResult.__getitem__.key": lambda value: is_text(value) or value in (0, -1),
}
# What is of use although the type excludes it.
WIDER: dict[str, Accepts] = {"increment.by": is_flag}  # counts what holds
# Where a negative time limit stands for none, as in ipyparallel.
ENDLESS = {
    "AsyncResult.get",
    "AsyncResult.get_dict",
    "AsyncMapResult.get_dict",
    "AsyncResult.wait",
    "AsyncResult.wait_for_output",
    "AsyncResult.wait_interactive",
    "AsyncResult.result",
    "AsyncResult.exception",
    "Client.wait",
    "Client.wait_for_engines",
    "EngineView.wait",
    "ViewExecutor.map",
}

CLASSES: list[type] = [
    *(value for name in nsactors.__all__ if inspect.isclass(value := getattr(nsactors, name))),
    AsyncMapResult,
    BalancedMapResult,
    ClusterMemory,
    ConnectionInfo,
    ExecutorFuture,
    ServiceFuture,
    Service,
    ViewExecutor,
    World,
    bsp.BSP,
    bsp.Process,
    communicator.Communicator,
    communicator.Request,
    communicator.Status,
    map_reduce.MapReduce,
    map_reduce.Output,
    map_reduce.Step,
    stencil.Stencil,
    tuple_space.TupleSpace,
]
FUNCTIONS: list[Callable[..., Any]] = [
    nsactors.as_completed,
    nsactors.depend,
    nsactors.keep,
    nsactors.require,
    communicator.communicators,
    map_reduce.increment,
    inputs.chunks,
    inputs.csv_rows,
    inputs.items,
    inputs.names,
    inputs.parquet_rows,
    inputs.text_files,
    inputs.text_lines,
]

# Calls and parameters that are left out, and why.
PASSED_ON = "it goes to the user's function as it is"
OF_MAP = "the options of map(), which checks them"
BY_THE_LIBRARY = "made by the library and not by users"
BY_SCHEDULERS = "schedulers call it, and users override it"
ERROR = "an error is made to be raised, and is not to fail for its text"
STDLIB = "the standard library's own: for those that carry out a call"
EXEMPT = {
    "EngineView.map_async.options": OF_MAP,
    "EngineView.map_sync.options": OF_MAP,
    "Client.map_all.options": OF_MAP,
    "Client.scatter_all.options": "the options of scatter(), which checks them",
    "Client.gather_all.options": "the options of gather(), which checks them",
    "Client.connect.options": "the options of Client(), which checks them",
    "csv_rows.options": "pyarrow's own, which are read where the files are",
    "AsyncResult.__init__": BY_THE_LIBRARY,
    "AsyncMapResult.__init__": BY_THE_LIBRARY,
    "BalancedMapResult.__init__": BY_THE_LIBRARY,
    "Communicator.__init__": BY_THE_LIBRARY,
    "Dependency.for_scheduler": BY_THE_LIBRARY,
    "ExecutorFuture.__init__": BY_THE_LIBRARY,
    "LoadBalancedView.task_of": BY_THE_LIBRARY,
    "Output.__init__": BY_THE_LIBRARY,
    "Output.forget": BY_THE_LIBRARY,
    "Partitioner.__init__": "a form for type checkers, of which nothing is made",
    "ServiceFuture.__init__": BY_THE_LIBRARY,
    "ServiceFuture.send": BY_THE_LIBRARY,
    "Process.__init__": BY_THE_LIBRARY,
    "Request.__init__": BY_THE_LIBRARY,
    "SchedulingPolicy.choose_engine": BY_SCHEDULERS,
    "SchedulingPolicy.priority": BY_SCHEDULERS,
    "Service.__init__": BY_THE_LIBRARY,
    "Service.unpack.parcel": BY_THE_LIBRARY,
    "Timeline.__init__": BY_THE_LIBRARY,
    "ViewExecutor.__init__": BY_THE_LIBRARY,
    "World.cut_off": BY_THE_LIBRARY,
    "World.engine_joined": BY_THE_LIBRARY,
    "World.engine_leaving": BY_THE_LIBRARY,
    "World.engine_left": BY_THE_LIBRARY,
    "AsyncResult.set_exception": STDLIB,
    "AsyncResult.set_result": STDLIB,
    "UnmetDependency.__init__": ERROR,
    "RemoteError.__init__": ERROR,
    "RemoteValue.__init__": BY_THE_LIBRARY,
    "ClusterMemory.__init__": BY_THE_LIBRARY,
    "ConnectionInfo.__init__": BY_THE_LIBRARY,
    "CompositeError.derive": STDLIB,
    "ConnectionInfo.from_dict": "reads what any file may hold: anything else is a ValueError, which load() reports",
}
# Parameters that take any object, by the reason.
TAKE_ANYTHING = {
    name: reason
    for reason, names in {
        PASSED_ON: """
            DirectView.apply.args DirectView.apply.kwargs DirectView.apply_async.args DirectView.apply_async.kwargs
            DirectView.apply_sync.args DirectView.apply_sync.kwargs LoadBalancedView.apply.args
            LoadBalancedView.apply.kwargs LoadBalancedView.apply_async.args LoadBalancedView.apply_async.kwargs
            LoadBalancedView.apply_sync.args LoadBalancedView.apply_sync.kwargs ViewExecutor.submit.args
            ViewExecutor.submit.kwargs BSP.run.args Process.run.args depend.args depend.kwargs
            DirectView.map.keywords DirectView.imap.keywords LoadBalancedView.map.keywords
            LoadBalancedView.imap.keywords EngineView.profile.args EngineView.profile.kwargs
        """,
        "it is a value, which is sent as it is": """
            DirectView.__setitem__.value Client.__setitem__.value Service.pack.value Process.__setitem__.value
            Process.put.value Process.send.value Communicator.send.obj Communicator.isend.obj
            Communicator.sendrecv.sendobj Communicator.bcast.obj Communicator.gather.sendobj
            Communicator.allgather.sendobj Communicator.reduce.sendobj Communicator.allreduce.sendobj
            Communicator.scan.sendobj TupleSpace.out.fields TupleSpace.eval.fields keep.value require.values
        """,
        "what it may be is for the service to say": "Service.call.request Service.ask.request Service.tell.request",
        "an index of any kind, or a tag that is compared": "Process.put.at Process.get.at Process.send.tag",
        "fields of any kind: what cannot be compared is a TypeError of its own": """
            TupleSpace.in_.template TupleSpace.rd.template TupleSpace.inp.template TupleSpace.rdp.template
            TupleSpace.collect.template TupleSpace.copy_collect.template
        """,
        "it is not used": "AsyncResult.wait_interactive.widget Communicator.recv.buf Communicator.irecv.buf "
        "Communicator.sendrecv.recvbuf",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True)
class Given:
    """One parameter of a public call, which is given one value after the other."""

    call: str
    parameter: str
    accepts: Accepts
    give: Callable[[Stage, Any], object]

    @property
    def name(self) -> str:
        return f"{self.call}.{self.parameter}"


class Stage:
    """The objects whose methods are called: a cluster of two engines in this process, and the results of calls."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.cluster = Cluster(n=2, backend="local")
        self.rc = stack.enter_context(self.cluster)
        self.dv = self.rc[:]
        self.lv = self.rc.load_balanced_view()
        result, single = self.dv.apply_async(abs, 1), self.lv.apply_async(abs, 1)
        mapped, balanced = self.dv.map_async(abs, [1, 2]), self.lv.map_async(abs, [1, 2])
        self.rc.wait(timeout=TIMEOUT_S)
        self.dv["x"] = 1
        service = self.rc.host(Mailboxes())
        output = map_reduce.MapReduce(self.rc, 1).run([1], map_reduce.Step(lambda record: [(record, 1)]))
        self.objects: dict[type, Any] = {
            Client: self.rc,
            Cluster: self.cluster,
            nsactors.DirectView: self.dv,
            nsactors.BroadcastView: self.rc.broadcast_view(),
            nsactors.LoadBalancedView: self.lv,
            AsyncResult: result,
            AsyncMapResult: mapped,
            BalancedMapResult: balanced,
            ExecutorFuture: single,
            ViewExecutor: self.lv.executor,
            Timeline: result.timeline(),
            nsactors.RemoteValue: self.rc[0].pull("x", as_ref=True, block=True),
            nsactors.CompositeError: nsactors.CompositeError("two", [ValueError("one"), ValueError("other")]),
            Dependency: Dependency(),
            ConnectionInfo: ConnectionInfo("127.0.0.1:1", "x"),
            Service: service,
            ServiceFuture: service.ask(Collective(MailboxMember("world", 0), 1, "barrier", {})),
            World: World.__new__(World),
            bsp.BSP: bsp.BSP(self.dv),
            bsp.Process: bsp.Process({}, service, 0, 1),
            communicator.Communicator: communicator.Communicator(service, 0, 1),
            communicator.Request: communicator.Request(None, function),
            map_reduce.MapReduce: map_reduce.MapReduce(self.rc, 1),
            map_reduce.Output: output,
            stencil.Stencil: stencil.Stencil(self.dv, np.zeros(4)),
            tuple_space.TupleSpace: tuple_space.TupleSpace(self.rc),
        }
        file = folder / "file"
        file.write_text("")
        # An argument that does, for each parameter without a default: only the one that is looked at is wrong.
        self.usual: dict[str, Any] = {
            "array": np.zeros(4),
            "client": self.rc,
            "cluster": self.rc.session.transport,
            "code": "pass",
            "condition": function,
            "counter": "x",
            "engine_ids": 0,
            "fields": ("x",),
            "filename": str(file),
            "index": 0,
            "info": self.rc.session.transport,
            "into": "x",
            "iterables": ([1],),
            "machine": Mailboxes(),
            "n": 0,
            "ns": {"x": 1},
            "names": "x",
            "number": 2,
            "paths": (str(file),),
            "path": str(file),
            "requests": [],
            "results": (result,),
            "parcel": service.pack(1),
            "sendobj": [1],
            "seq": [1],
            "sequence": [1],
            "sequences": ([1],),
            "size": 1,
            "source": [1],
            "steps": (map_reduce.Step(function),),
            "target": "x",
            "template": ("x",),
            "view": self.dv,
            "iterable": [1],
            "as_completed.results": [],
            "Client.push_all.names": {"x": 1},
            "LoadBalancedView.map_of.sequences": [[1]],
            "DataView.gather.key": "x",
        }

    def default(self, call: str, parameter: inspect.Parameter) -> Any:
        key = f"{call}.{parameter.name}"
        if key in self.usual or parameter.name in self.usual:
            return self.usual.get(key, self.usual.get(parameter.name))
        accepts = accepted(call, parameter.name, parameter.annotation)
        return next(value for value in ("x", 1, 0, False, function, [1]) if accepts(value))


def parts_of(annotation: Any) -> list[str]:
    """The members of a union, without what stands in brackets."""
    plain, depth = "", 0
    for character in annotation.__name__ if isinstance(annotation, type) else str(annotation):
        depth += character == "["
        plain += character * (depth == 0)
        depth -= character == "]"
    return [part.strip() for part in plain.split("|")]


def accepted(call: str, name: str, annotation: Any) -> Accepts:
    """Which values a parameter takes: those of its type that are in its range."""
    parts = parts_of(annotation)
    wider = WIDER.get(f"{call}.{name}", never)
    by_type = [BY_ANNOTATION.get(part, never) for part in parts if part != "None"]
    usual = is_no_special_number if "float" in parts else anything
    in_range = RANGES.get(f"{call}.{name}", RANGES.get(name, usual))
    if name in ("timeout", "timeout_s") and call in ENDLESS:
        in_range = is_finite
    optional = "None" in parts

    def accepts(value: Any) -> bool:
        if value is None:
            return optional or any(accepts(None) for accepts in by_type)
        if wider(value):
            return True
        return any(accepts(value) for accepts in by_type) and ((is_text(value) and name == "memory") or in_range(value))

    return accepts


def made(result: object) -> None:
    """Do what a call has only prepared: coroutines and context managers begin when they are used."""
    if inspect.iscoroutine(result):
        asyncio.run(result)
    elif hasattr(result, "gen") and hasattr(result, "__enter__"):
        with result:
            pass


def arguments(
    stage: Stage, call: str, signature: inspect.Signature, given: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        name, kind = parameter.name, parameter.kind
        if kind is parameter.VAR_KEYWORD:
            continue
        if kind is parameter.VAR_POSITIONAL:
            args += [given[name]] if name in given else stage.usual.get(name, ())
        elif name in given or parameter.default is parameter.empty:
            value = given[name] if name in given else stage.default(call, parameter)
            # What follows cannot be given by name where there are any number of positional ones.
            if kind is parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        elif kind is not parameter.KEYWORD_ONLY:
            args.append(parameter.default)
    return args, kwargs | {name: value for name, value in given.items() if name not in signature.parameters}


def of_call(call: str, signature: inspect.Signature, bound: Callable[[Stage], Callable[..., Any]]) -> Iterator[Given]:
    """The parameters of a call."""

    def given(name: str, annotation: Any) -> Given:
        def give(stage: Stage, value: Any) -> None:
            args, kwargs = arguments(stage, call, signature, {name: value})
            made(bound(stage)(*args, **kwargs))

        return Given(call, name, accepted(call, name, annotation), give)

    for parameter in signature.parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD or f"{call}.{parameter.name}" in EXEMPT:
            yield given(parameter.name, parameter.annotation)
        elif parameter.name == "flags":
            flags = TaskFlags if call.startswith(("LoadBalancedView", "Client.load_balanced_view")) else Flags
            for field in fields(flags):
                if field.name not in signature.parameters:
                    yield given(field.name, field.type)
        elif "EngineKeywords" in str(parameter.annotation):
            for name, annotation in EngineKeywords.__annotations__.items():
                yield given(name, annotation.__forward_arg__)
        else:
            yield given(parameter.name, parameter.annotation)


def public_parameters() -> Iterator[Given]:
    """Every parameter of every public call, those that are inherited once."""
    seen: set[int] = set()
    for cls in CLASSES:
        for home in cls.__mro__:
            if not home.__module__.startswith("nsactors"):
                continue
            for name, member in vars(home).items():
                if name.startswith("_") and name not in ("__init__", "__getitem__", "__setitem__"):
                    continue
                if inspect.getattr_static(cls, name) is not member or id(member) in seen:
                    continue
                seen.add(id(member))
                call = f"{home.__name__}.{name}"
                if isinstance(member, property) and member.fset is not None:
                    accepts = accepted(call, name, inspect.signature(member.fget).return_annotation)
                    yield Given(call, name, accepts, partial(_set, cls, name))
                elif callable(member) or isinstance(member, classmethod | staticmethod):
                    yield from of_call(call, *_bound(cls, name))
    for each in FUNCTIONS:
        yield from of_call(each.__name__, inspect.signature(each), partial(_itself, each))


def _set(cls: type, name: str, stage: Stage, value: Any) -> None:
    setattr(stage.objects[cls], name, value)


def _itself(call: Callable[..., Any], stage: Stage) -> Callable[..., Any]:
    return call


def _bound(cls: type, name: str) -> tuple[inspect.Signature, Callable[[Stage], Callable[..., Any]]]:
    if name == "__init__":
        return inspect.signature(cls), partial(_itself, cls)
    member = inspect.getattr_static(cls, name)
    if isinstance(member, classmethod | staticmethod):
        return inspect.signature(getattr(cls, name)), partial(_itself, getattr(cls, name))
    signature = inspect.signature(member)
    _, *others = signature.parameters.values()
    return signature.replace(parameters=others), lambda stage: getattr(stage.objects[cls], name)


PARAMETERS = {given.name: given for given in public_parameters()}


def is_exempt(given: Given) -> bool:
    return given.call in EXEMPT or given.name in EXEMPT or given.name in TAKE_ANYTHING


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(stack, tmp_path_factory.mktemp("arguments"))


def remark(stage: Stage, given: Given, value: Any) -> str | None:
    """Return the fault in the error with which a call refuses a value; None if there is no fault."""
    begun = time.monotonic()
    try:
        given.give(stage, value)
    except (InvalidArgument, TargetError) as error:
        # A target is a word of its own, and a name is said to be one.
        words = {given.parameter, "target"} if isinstance(error, TargetError) else {given.parameter}
        if not any(word in str(error) for word in words):
            return f"does not name the parameter: {error}"
    except BaseException as error:
        return type(error).__name__
    else:
        return "accepted"
    took_s = time.monotonic() - begun
    return f"took {took_s:.1f} s" if took_s > AT_ONCE_S else None


@pytest.mark.parametrize("name", [name for name, given in PARAMETERS.items() if not is_exempt(given)])
def test_a_parameter_refuses_what_its_type_excludes(stage: Stage, name: str) -> None:
    given = PARAMETERS[name]
    wrong = {shown: value for shown, value in VALUES.items() if not given.accepts(value)}
    assert wrong, "it takes anything: say so in TAKE_ANYTHING, and why"
    remarks = {shown: said for shown, value in wrong.items() if (said := remark(stage, given, value)) is not None}
    for shown in [shown for shown, said in remarks.items() if said.startswith("took")]:  # machines have pauses
        if remark(stage, given, wrong[shown]) is None:
            del remarks[shown]
    assert not remarks


def test_after_all_that_every_way_to_the_engines_is_open(stage: Stage) -> None:
    assert stage.rc.ids == [0, 1]
    assert stage.dv.apply_sync(abs, -1) == [1, 1]
    assert stage.rc.broadcast_view().apply_sync(abs, -1) == [1, 1]
    assert stage.lv.map_sync(abs, range(-4, 0)) == [4, 3, 2, 1]
    assert list(stage.lv.executor.map(abs, [-1, -2])) == [1, 2]
    assert stage.lv.with_flags(detached=True).apply_sync(abs, -1) == 1
    assert stage.dv["x"] == [1, 1]
    assert (stage.dv.targets, stage.dv.block, stage.lv.targets) == ([0, 1], False, "all")
    assert stage.rc.wait(timeout=TIMEOUT_S)


def test_what_is_left_out_is_there() -> None:
    known = {*PARAMETERS, *(given.call for given in PARAMETERS.values())}
    assert {*EXEMPT, *TAKE_ANYTHING} <= known
