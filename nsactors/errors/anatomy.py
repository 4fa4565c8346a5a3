"""Taking exceptions apart and putting them together again, without running any code of their class.

Python pickles an exception as its class and ``args`` and calls the class again to load it. That fails for
an ``__init__`` with required keywords, and doubles the text where ``__init__`` composes the message
(``"failed: failed: x"``). Here an object is made by the C constructor of its built-in base, and its fields
are set directly: ``args``, ``__dict__``, slots, and what built-in classes keep in C (``errno``, ``lineno``,
``start`` ...). The same parts dress the class that is raised at the client.
"""

import builtins
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, TypeVar

__all__ = ["Parts", "Portable", "assemble", "builtin_base", "dismantle"]

_E = TypeVar("_E", bound=BaseException)

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: classes made at run time, by a class statement or by C code
# BaseExceptionGroup takes its fields through __new__ alone.
_NO_FIELDS: tuple[type, ...] = (object, BaseException, BaseExceptionGroup)


@dataclass(frozen=True, slots=True)
class Parts:
    """What an exception consists of, apart from its class.

    ``new_args`` go to ``__new__`` (exception groups need their message and members there), ``fields`` are
    the values kept outside ``__dict__``, ``state`` is the ``__dict__`` without notes.
    """

    args: tuple[Any, ...]
    new_args: tuple[Any, ...] = ()
    fields: tuple[tuple[str, Any], ...] = ()
    state: tuple[tuple[str, Any], ...] = ()


def dismantle(exc: BaseException, wrap: Callable[[BaseException], Any] | None = None) -> Parts:
    """Return the parts of ``exc``; ``wrap`` is applied to the members of a group."""
    state = tuple((name, value) for name, value in exc.__dict__.items() if name != "__notes__")
    if isinstance(exc, BaseExceptionGroup):
        members = tuple(exc.exceptions) if wrap is None else tuple(wrap(member) for member in exc.exceptions)
        args: tuple[Any, ...] = (exc.message, members)
        return Parts(args, args, _fields(exc), state)
    return Parts(exc.args, (), _fields(exc), state)


def assemble(cls: type[_E], parts: Parts) -> _E:
    """Make an instance of ``cls`` from ``parts``, calling neither its ``__init__`` nor its ``__new__``.

    Raises:
        TypeError: if the built-in base of ``cls`` cannot be made from these parts.
    """
    exc: _E = _static_base(cls).__new__(cls, *parts.new_args)
    # Not setattr: a frozen dataclass would refuse.
    object.__setattr__(exc, "args", parts.args)
    for name, value in parts.fields:
        with suppress(AttributeError):  # hidden by a read-only property of a subclass
            object.__setattr__(exc, name, value)
    exc.__dict__.update(parts.state)
    return exc


def builtin_base(cls: type[BaseException]) -> type[BaseException]:
    """Return the nearest built-in class that ``cls`` is or derives from."""
    found: type[BaseException] = next(base for base in cls.__mro__ if getattr(builtins, base.__name__, None) is base)
    return found


class Portable:
    """Stands for an exception in a pickle; what is loaded is the exception itself.

    Classes that define their own ``__reduce__`` are left to it.
    """

    def __init__(self, exc: BaseException) -> None:
        self._exc = exc

    def __reduce__(self) -> tuple[Any, ...]:
        if _pickles_itself(type(self._exc)):
            return _itself, (self._exc,)
        return assemble, (type(self._exc), dismantle(self._exc, wrap=Portable))


def _itself(exc: BaseException) -> BaseException:
    return exc


def _pickles_itself(cls: type[BaseException]) -> bool:
    def owner(method: str) -> type:
        return next(base for base in cls.__mro__ if method in vars(base))

    return any(owner(method).__module__ != "builtins" for method in ("__reduce__", "__reduce_ex__"))


def _static_base(cls: type) -> Any:
    # Python refuses any __new__ but that of the base that lays out the C struct.
    while cls.__flags__ & _HEAP_TYPE and cls.__base__ is not None:
        cls = cls.__base__
    return cls


def _fields(exc: BaseException) -> tuple[tuple[str, Any], ...]:
    found: dict[str, Any] = {}
    for owner in type(exc).__mro__:
        if owner in _NO_FIELDS:
            continue
        for name, member in vars(owner).items():
            # AttributeError.obj is left out: it may be anything, of any size.
            if name in found or name.startswith("__") or (owner is AttributeError and name == "obj"):
                continue
            if isinstance(member, MemberDescriptorType | GetSetDescriptorType):
                with suppress(AttributeError, TypeError):  # an empty slot, or a UnicodeError without fields
                    found[name] = member.__get__(exc, type(exc))
    # OSError distinguishes "no file name" from None when it writes its message.
    return tuple((name, value) for name, value in found.items() if value is not None)
