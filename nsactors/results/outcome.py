"""Outcomes of requests: the value or error that a reply means, with hints."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

from nsactors.errors import DuplicateRequest, Failure, SerializationError, TaskAborted, TimeLimitExceeded
from nsactors.protocol.client_modules import is_installed
from nsactors.protocol.messages import Aborted, Expired, Failed, Ok, Outcome, Refused
from nsactors.protocol.process import current_shell
from nsactors.protocol.salvage import Broken, Salvage
from nsactors.protocol.serialize import Payload, unpack
from nsactors.protocol.tasks import MapItems, SomeValues
from nsactors.results.call import Call

_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_NO_NAME = re.compile(r"name '(\w+)' is not defined")


def with_hint(failure: Failure) -> Failure:
    """Return a failure; add a note if a module or name is missing that this process has."""
    hint = ""
    if failure.builtin_type == "ModuleNotFoundError" and (found := _NO_MODULE.match(failure.message)):
        hint = _about_module(found[1])
    elif failure.builtin_type == "NameError" and (found := _NO_NAME.match(failure.message)):
        hint = _about_name(found[1])
    return replace(failure, notes=(*failure.notes, hint)) if hint else failure


def _about_module(name: str) -> str:
    origin = _origin_of(name)
    if not origin:
        return ""
    here = f"This client has {name} in {origin}"
    if is_installed(origin):
        return f"{here}: also install it for the engine's Python"
    if origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return f"{here}: compiled modules are not sent, so build or install it on the engine's host"
    if name not in sys.modules:
        return (
            f"{here}, and has not imported it. Engines on other hosts get only modules that this client has imported: "
            f"`import {name}` here"
        )
    return (
        f"{here}, and has not sent it: engines on other hosts get only files under the script's folder, under the root "
        "of its project or in editable installs, and 10 MB in all; with modules='off' they get none"
    )


def _origin_of(name: str) -> str:
    """Return the file from which a module would be imported here, without importing anything."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    search: Any = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1) if spec is None else ():
        try:
            dotted = ".".join(parts[:end])  # importlib would import the part before the last dot
            spec = importlib.util.find_spec(dotted) if end == 1 else PathFinder.find_spec(dotted, search)
        except Exception:  # another library's finder
            return ""
        search = getattr(spec, "submodule_search_locations", None)
        if spec is None or (search is None and end < len(parts)):
            return ""
    origin = getattr(spec, "origin", None) or next(iter(getattr(spec, "submodule_search_locations", None) or ()), "")
    return origin if isinstance(origin, str) and origin not in ("built-in", "frozen") else ""


def _about_name(name: str) -> str:
    shell = current_shell()
    main = sys.modules.get("__main__")
    names: dict[str, Any] = vars(main) if shell is None and main is not None else getattr(shell, "user_ns", {})
    if name not in names or name.startswith("__") or name in getattr(shell, "user_ns_hidden", ()):
        return ""
    value = names[name]
    if type(value).__module__.partition(".")[0] == "nsactors":  # a result, view or client; engines had another value
        return ""
    if isinstance(value, ModuleType):
        statement = f"import {value.__name__}" + (f" as {name}" if name != value.__name__ else "")
        return f"{name} exists here, and not on the engine: also run `{statement}` there"
    return f"{name} exists here, and not on the engine: push it, as in rc[:].push({{{name!r}: {name}}})"


class FirstValues(NamedTuple):
    """The values of a chunk of a lazy map before its first item that failed, and the error of that item."""

    values: list[Any]
    error: Exception


def read_outcome(call: Call, outcome: Outcome, payload: Payload | None) -> tuple[Any, Exception | None]:
    """Return the value of a call, or the exception that its result raises."""
    match outcome:
        case Ok():
            return (None, None) if payload is None else _unpacked(call, payload)
        case Failed(failure):
            # unpack() turns classes of __main__ into those of this process, so that `except Mine` catches them here.
            return None, _raised(call, failure)
        case Aborted():
            return None, TaskAborted(call.engine_id, call.label)
        case Expired(limit_s, ran_s):
            return None, TimeLimitExceeded(call.engine_id, call.label, limit_s, ran_s)
        case Refused():
            return None, DuplicateRequest(call.engine_id, str(call.request_id))


def _raised(call: Call, failure: Failure) -> Exception:
    try:
        return with_hint(failure).with_sources().to_exception(lambda data: unpack(Payload(data)))
    except BaseException as error:
        return error_here(error, call.label, call.engine_id)


def _unpacked(call: Call, payload: Payload) -> tuple[Any, Exception | None]:
    if payload.buffers:  # for the progress line: most values without buffers are small, and none are counted
        call.nbytes = payload.nbytes
    try:
        value = unpack(payload, copy=call.copies)
    except BaseException as error:  # user code runs when objects are rebuilt, and may raise anything
        if call.items is None:
            return None, error_here(error, call.label, call.engine_id)
        return _read_apart(call, call.items, payload)
    if type(value) is list and value and type(value[0]) is SomeValues:
        return _completed(call, value[0], value[1:])
    return value, None


def _completed(call: Call, some: SomeValues, values: list[Any]) -> tuple[Any, Exception | None]:
    """Return the values of a piece of a map, with errors in place of the items that failed on the engine."""
    for place, failure in some.failures.items():
        values[place] = _raised(call, failure)
    return (values if some.ended is None else FirstValues(values, _raised(call, some.ended))), None


def _read_apart(call: Call, items: MapItems, payload: Payload) -> tuple[Any, Exception | None]:
    """Return the values of a piece of a map, some of which cannot be unpickled; only these items fail."""
    try:
        values = Salvage(payload, copy=call.copies).values()
    except BaseException as error:
        return None, error_here(error, call.label, call.engine_id)
    some = values.pop(0) if type(values[0]) is SomeValues else SomeValues({})
    for place, value in enumerate(values):
        if type(value) is not Broken:
            continue
        here = error_here(value.error, f"item {items.numbers[place]} of {call.label}", call.engine_id)
        if items.spares:
            values[place] = here
        else:
            return (FirstValues(values[:place], here), None) if items.lazily else (None, here)
    return _completed(call, some, values)


def error_here(error: BaseException, label: str, engine_id: int) -> Exception:
    """Return the error of a result that cannot be unpickled here."""
    if not issubclass(type(error), Exception):  # SystemExit must not end the thread that reads replies
        reason = f"{type(error).__name__} is raised when it is unpickled here"
        return SerializationError(f"the result of {label} on engine {engine_id}", reason)
    assert isinstance(error, Exception), "its class is one"
    with contextlib.suppress(TypeError):  # __notes__ of the user's class may be any object
        BaseException.add_note(error, f"The result of {label} on engine {engine_id} cannot be unpickled here.")
    return error
