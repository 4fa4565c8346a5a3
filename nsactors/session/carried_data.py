"""Warnings about large variables that calls carry with them."""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from nsactors.errors.exceptions import SerializationError
from nsactors.errors.warnings import LargeCaptureWarning
from nsactors.protocol.serialize import Payload, pack

LIMIT_BYTES = 50_000_000

_WORDS = {
    "argument": "the argument `{}`",
    "attribute": "the attribute `{}` of its object",
    "closure": "the variable `{}` of the function around it",
    "default": "the default value of `{}`",
    "global": "the global `{}`",
}


_INSTEAD_OF_PUSHED = (
    "`{0}` was pushed, and the function uses the pushed value; to send no other, delete `{0}` here, or pass "
    "Reference({0!r}) as an argument"
)


class _Part(NamedTuple):
    """A value that a call carries: the function that refers to it, kind and name of the reference, and the value."""

    function: object
    kind: str
    name: str
    value: object


class CarriedData:
    """Finds calls that carry a lot of data, and warns once about each variable of each function.

    Args:
        ref_types: exact types of references to stored objects, which count as empty.
    """

    def __init__(self, ref_types: tuple[type, ...] = ()) -> None:
        self._ref_types = ref_types
        self._told: set[tuple[object, str, str, bool]] = set()
        self._pushed: set[str] = set()

    def pushed(self, names: Iterable[str]) -> None:
        """Note that names were bound on engines, where functions use these values and not those that they carry."""
        self._pushed.update(names)

    def notice(
        self,
        payload: Payload,
        function: Callable[..., Any] | object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[LargeCaptureWarning]:
        """Return the warnings about a call. If its payload is not large, there are none, and this costs nothing.

        Args:
            payload: the packed call.
            function: the function.
            args: its positional arguments; none if they are expected to be large.
            kwargs: its keyword arguments; none if they are expected to be large.

        Returns:
            A warning for each of the largest parts; the other parts together are below the limit.
        """
        if (not payload.buffers and len(payload.data) <= LIMIT_BYTES) or payload.nbytes <= LIMIT_BYTES:
            return []
        # Each part is packed once more to measure it, which does not copy the memory of arrays.
        parts = [*self._carried(function, set()), *_arguments(function, args, kwargs or {})]
        sized = [(self._nbytes(part.value), part) for part in parts if self._key(function, part) not in self._told]
        total = sum(nbytes for nbytes, _ in sized)
        warnings = []
        for nbytes, part in sorted(sized, key=lambda item: item[0], reverse=True):
            if total <= LIMIT_BYTES:
                break
            total -= nbytes
            self._told.add(self._key(function, part))
            words = _WORDS[part.kind].format(part.name)
            if part.function is not function:
                words += f" of `{_name(part.function)}`"
            warnings.append(LargeCaptureWarning(_name(function), words, nbytes, self._instead(part)))
        return warnings

    def _key(self, function: object, part: _Part) -> tuple[object, str, str, bool]:
        # The key contains the code, which is equal if the cell that defines the function was run again.
        return getattr(function, "__code__", type(function)), part.kind, part.name, self._is_pushed(part)

    def _is_pushed(self, part: _Part) -> bool:
        return part.kind == "global" and part.name in self._pushed

    def _instead(self, part: _Part) -> str:
        return _INSTEAD_OF_PUSHED.format(part.name) if self._is_pushed(part) else _instead(part)

    def _carried(self, function: object, seen: set[int]) -> Iterator[_Part]:
        """Yield the variables that travel with ``function``, and with the functions that it calls."""
        seen.add(id(function))
        # The function is small, or engines import it, so that the data of its module is not sent.
        if self._nbytes(function) <= LIMIT_BYTES // 2:
            return
        for part in _variables(function):
            if not isinstance(part.value, FunctionType | MethodType | functools.partial):
                yield part
            elif id(part.value) not in seen:
                yield from self._carried(part.value, seen)

    def _nbytes(self, value: object) -> int:
        try:
            return pack(value, ref_types=self._ref_types).nbytes
        except SerializationError:  # the object that has this value leaves the value out when it is pickled
            return 0


def _variables(function: object) -> Iterator[_Part]:
    match function:
        case FunctionType():
            names, code = function.__globals__, function.__code__
            yield from (_Part(function, "global", n, names[n]) for n in sorted(_globals_used(code)) if n in names)
            for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
                yield _Part(function, "closure", name, _contents(cell))
            parameters = code.co_varnames[: code.co_argcount]
            defaults = function.__defaults__ or ()
            last = parameters[len(parameters) - len(defaults) :]
            by_name = {**dict(zip(last, defaults, strict=True)), **(function.__kwdefaults__ or {})}
            yield from (_Part(function, "default", name, value) for name, value in by_name.items())
        case functools.partial():
            yield _Part(function, "attribute", "func", function.func)
            yield from _arguments(function.func, function.args, function.keywords)
        case MethodType():
            yield from _attributes(function, function.__self__)
        case _:
            yield from _attributes(function, function)


def _attributes(function: object, owner: object) -> Iterator[_Part]:
    yield from (_Part(function, "attribute", name, value) for name, value in getattr(owner, "__dict__", {}).items())


def _arguments(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[_Part]:
    import inspect

    try:
        named = dict(inspect.signature(function).bind_partial(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # the function's parameters are not known, or the arguments do not fit them
        named = {**{str(position): value for position, value in enumerate(args, 1)}, **kwargs}
    yield from (_Part(function, "argument", name, value) for name, value in named.items())


@functools.cache
def _globals_used(code: CodeType) -> frozenset[str]:
    """Return the globals that code and the functions within it look up; ``co_names`` would add attributes."""
    used = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    return frozenset(used.union(*(_globals_used(inner) for inner in code.co_consts if isinstance(inner, CodeType))))


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return None


def _name(function: object) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _instead(part: _Part) -> str:
    if part.kind == "attribute":
        call = f"obj.{_name(part.function)}" if isinstance(part.function, MethodType) else "obj"
        return f"push the object once, view.push({{'obj': obj}}), and call Reference({call!r}) in its place"
    name = part.name if part.name.isidentifier() else "data"
    return f"push it once, view.push({{{name!r}: {name}}}), and pass Reference({name!r}) as an argument"
