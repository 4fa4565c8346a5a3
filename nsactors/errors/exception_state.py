"""The state of an exception: get it, pickle as much of it as can travel, restore it.

Python pickles an exception as its class and ``args``, and calls the class again to load it. That fails for an
``__init__`` with required keywords, and doubles the text where ``__init__`` composes the message
(``"failed: failed: x"``). Here the C constructor of the built-in base makes the object, and its fields are set
directly: ``args``, ``__dict__``, slots, and the fields that built-in classes keep in C (``errno``, ``lineno``,
``start`` ...). The class that is raised at the client gets the same state.

Fields are read and set with the descriptors of the built-in classes, never with ``getattr``: the class may define a
property of the same name, or a ``__getattribute__``, which returns something else or raises.
"""

import builtins
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any, NamedTuple, TypeVar

from nsactors._frozen import frozen
from nsactors.errors.formatting import bytes_in_words

_E = TypeVar("_E", bound=BaseException)

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: classes made at run time, by a class statement or by C code
# BaseExceptionGroup takes its fields through __new__ only.
_NO_FIELDS: tuple[type, ...] = (object, BaseException, BaseExceptionGroup)

# `BaseException.args` and the like are not used: mypy gives a descriptor the type of the attribute that it returns.
_BASE: Any = vars(BaseException)
_GROUP: Any = vars(BaseExceptionGroup)
_TYPE: Any = vars(type)


@frozen
class Parts:
    """The state of an exception, without its class.

    Attributes:
        args: its ``args``.
        new_args: the arguments of ``__new__``; for an exception group, its message and members.
        fields: the values stored outside ``__dict__``, by name.
        state: its ``__dict__`` without the notes.
    """

    args: tuple[Any, ...]
    new_args: tuple[Any, ...] = ()
    fields: tuple[tuple[str, Any], ...] = ()
    state: tuple[tuple[str, Any], ...] = ()


def get_state(exc: BaseException, wrap: Callable[[BaseException], Any] | None = None) -> Parts:
    """Return the state of ``exc``; ``wrap`` is applied to the members of a group."""
    state = tuple((name, value) for name, value in dict_of(exc).items() if name != "__notes__")
    if issubclass(type(exc), BaseExceptionGroup):
        members = members_of(exc) if wrap is None else tuple(wrap(member) for member in members_of(exc))
        args: tuple[Any, ...] = (_GROUP["message"].__get__(exc), members)
        return Parts(args, args, _fields(exc), state)
    return Parts(_BASE["args"].__get__(exc), (), _fields(exc), state)


def restore_state(cls: type[_E], parts: Parts) -> _E:
    """Make an instance of ``cls`` from ``parts``, without calling its own ``__init__`` and ``__new__``.

    Raises:
        TypeError: if the built-in base of ``cls`` cannot be made from these parts.
    """
    exc: _E = _static_base(cls).__new__(cls, *parts.new_args)
    _BASE["args"].__set__(exc, parts.args)
    state = dict_of(exc)
    for name, value in parts.fields:
        field = _field(cls, name)
        if field is None:  # a slot of a class that could not travel
            state[name] = value
        else:
            with suppress(AttributeError, TypeError):  # read-only here
                field.__set__(exc, value)
    state.update(parts.state)
    return exc


def bases_of(cls: type) -> tuple[type, ...]:
    """Return ``cls`` and its bases in the order of resolution, bypassing its metaclass."""
    bases: tuple[type, ...] = _TYPE["__mro__"].__get__(cls)
    return bases


def builtin_base(cls: type[BaseException]) -> type[BaseException]:
    """Return the nearest built-in class that ``cls`` is or derives from."""
    found: type[BaseException] = next(
        base for base in bases_of(cls) if vars(builtins).get(_TYPE["__name__"].__get__(base)) is base
    )
    return found


def name_of(cls: type) -> str:
    """Return the name of a class."""
    return text_of(_TYPE["__name__"].__get__(cls))


def module_of(cls: type) -> str:
    """Return the name of the module that a class gives as its own."""
    return text_of(_TYPE["__module__"].__get__(cls))


def text_of(value: object) -> str:
    """Return ``str(value)`` as a plain string, or a description of the value if its own code fails."""
    try:
        text = str(value)
    except BaseException as error:  # interrupts cannot happen here: the interrupt handler holds them back
        return f"<{name_of(type(value))} whose __str__ raised {name_of(type(error))}>"
    return str.__str__(text)  # the text may be an instance of a subclass that cannot travel


def dict_of(exc: BaseException) -> dict[str, Any]:
    """Return the ``__dict__`` of ``exc``."""
    found: dict[str, Any] = _BASE["__dict__"].__get__(exc)
    return found


def traceback_of(exc: BaseException) -> TracebackType | None:
    """Return the ``__traceback__`` of ``exc``."""
    found: TracebackType | None = _BASE["__traceback__"].__get__(exc)
    return found


def cause_of(exc: BaseException) -> BaseException | None:
    """Return the ``__cause__`` of ``exc``."""
    found: BaseException | None = _BASE["__cause__"].__get__(exc)
    return found


def context_of(exc: BaseException) -> BaseException | None:
    """Return the ``__context__`` of ``exc``."""
    found: BaseException | None = _BASE["__context__"].__get__(exc)
    return found


def suppresses_context(exc: BaseException) -> bool:
    """Return the ``__suppress_context__`` of ``exc``."""
    return bool(_BASE["__suppress_context__"].__get__(exc))


def members_of(exc: BaseException) -> tuple[BaseException, ...]:
    """Return the members of a group; empty for other exceptions."""
    if not issubclass(type(exc), BaseExceptionGroup):
        return ()
    return tuple(_GROUP["exceptions"].__get__(exc))


def set_links(
    exc: BaseException, cause: BaseException | None, context: BaseException | None, *, suppress_context: bool
) -> None:
    """Set the cause and the context of ``exc``."""
    if cause is not None:
        _BASE["__cause__"].__set__(exc, cause)
    if context is not None:
        _BASE["__context__"].__set__(exc, context)
    _BASE["__suppress_context__"].__set__(exc, suppress_context)


class Portable:
    """Stands for an exception in a pickle, which loads as the exception itself.

    Args:
        exc: the exception. If its class defines ``__reduce__``, that method pickles it.
        cls: the class to load it as, instead of its own.
        parts: the state to load it with, instead of its own.
    """

    def __init__(self, exc: BaseException, cls: type[BaseException] | None = None, parts: Parts | None = None) -> None:
        self._exc = exc
        self._cls = cls
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        if self._parts is not None:
            return restore_state, (self._cls or type(self._exc), self._parts)
        if _pickles_itself(type(self._exc)):
            return _itself, (self._exc,)
        return restore_state, (type(self._exc), get_state(self._exc, wrap=Portable))


def _itself(exc: BaseException) -> BaseException:
    return exc


def _pickles_itself(cls: type[BaseException]) -> bool:
    def owner(method: str) -> type:
        return next(base for base in bases_of(cls) if method in _names_of(base))

    return any(_TYPE["__module__"].__get__(owner(method)) != "builtins" for method in ("__reduce__", "__reduce_ex__"))


def _names_of(cls: type) -> Mapping[str, Any]:
    names: Mapping[str, Any] = _TYPE["__dict__"].__get__(cls)
    return names


def _static_base(cls: type) -> Any:
    # Python accepts only the __new__ of the base that lays out the C struct.
    while _TYPE["__flags__"].__get__(cls) & _HEAP_TYPE:  # ends at object, which is not a heap type
        cls = _TYPE["__base__"].__get__(cls)
    return cls


def _fields(exc: BaseException) -> tuple[tuple[str, Any], ...]:
    found: dict[str, Any] = {}
    for owner in bases_of(type(exc)):
        if _has_no_fields(owner):
            continue
        for name, member in _names_of(owner).items():
            # AttributeError.obj is left out: it may be any object, of any size.
            if name in found or name.startswith("__") or (owner is AttributeError and name == "obj"):
                continue
            if type(member) in (MemberDescriptorType, GetSetDescriptorType):
                with suppress(AttributeError, TypeError):  # an empty slot, or a UnicodeError without fields
                    found[name] = member.__get__(exc, type(exc))
    # Leave out None: an OSError whose file name was set to None has another message than one without a file name.
    return tuple((name, value) for name, value in found.items() if value is not None)


def _has_no_fields(cls: type) -> bool:
    return any(cls is one for one in _NO_FIELDS)  # not `in`: a metaclass may compare classes as it likes


def _field(cls: type, name: str) -> Any:
    """Return the descriptor that keeps a field of instances of ``cls``; None if there is none."""
    for owner in bases_of(cls):
        member = _names_of(owner).get(name)
        if not _has_no_fields(owner) and type(member) in (MemberDescriptorType, GetSetDescriptorType):
            return member
    return None


Dumps = Callable[[object, int], bytes]
"""Pickles a value that loads with ``pickle.loads``, into at most the given number of bytes; raises to refuse."""

# Limit of one failure with all its causes and members: its pickle is sent and stored beside small values.
PICKLED_BYTES = 10_000_000
_PARTS = 100  # the most parts that are examined one by one, if they cannot travel together
_REASON_CHARS = 200


class LeftOut:
    """Replaces an argument in the ``args`` of an exception that could not travel.

    Args:
        type_name: the class of the missing argument.
        reason: why it could not travel.
    """

    def __init__(self, type_name: str, reason: str) -> None:
        self.type_name = type_name
        self.reason = reason

    def __repr__(self) -> str:
        return f"<{self.type_name} left out: {self.reason}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeftOut) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.type_name, self.reason))


class Pickled(NamedTuple):
    """The pickle of an exception.

    Attributes:
        data: loads as the exception, or as much of it as could travel; None if nothing can be pickled.
        left_out: sentences about the missing parts.
    """

    data: bytes | None
    left_out: tuple[str, ...] = ()


def pickle_exception(exc: BaseException, dumps: Dumps, room: int = PICKLED_BYTES) -> Pickled:
    """Pickle ``exc`` without the attributes that cannot be pickled or loaded, or are too large.

    Every exception that the user's code raises during the pickling is caught, even ``SystemExit``.

    Args:
        exc: the exception; its causes and context are pickled apart.
        dumps: pickles it and its parts.
        room: the largest size in bytes.
    """
    data = _dump(Portable(exc), dumps, room)
    if isinstance(data, bytes):
        return Pickled(data)
    reduction = _Reduction(dumps, room)
    reduced = reduction.portable(exc)
    left_out = tuple(reduction.left_out)
    # Parts take slightly less room one by one than together: a limit of `room` could refuse even the reduced exception.
    data = _dump(reduced, dumps, 2 * room)
    if isinstance(data, bytes):
        return Pickled(data, left_out)
    return Pickled(None, (*left_out, f"it travels without its class and attributes: {data.text}"))


class _Refused(NamedTuple):
    text: str


_TOO_LARGE = _Refused(f"an exception carries at most {bytes_in_words(PICKLED_BYTES)}")


def _dump(value: object, dumps: Dumps, room: int) -> bytes | _Refused:
    """Pickle a value, and check that the pickle loads."""
    if room <= 0:
        return _TOO_LARGE
    try:
        data = dumps(value, room)
        loaded = pickle.loads(data)
    except BaseException as error:
        return _Refused(text_of(error)[:_REASON_CHARS] or name_of(type(error)))
    # A class with its own __reduce__ may load as any object.
    if isinstance(value, Portable) and not issubclass(type(loaded), BaseException):
        return _Refused(f"it is loaded as {name_of(type(loaded))}, which is no exception")
    return data


class _Reduction:
    """An exception, or the tree of a group, without the parts that cannot travel.

    Args:
        dumps: pickles parts.
        room: the largest size of all parts, in bytes.
    """

    def __init__(self, dumps: Dumps, room: int) -> None:
        self._dumps = dumps
        self._room = room
        self._within = ""
        self.left_out: list[str] = []

    def portable(self, exc: BaseException) -> Portable:
        """Return a stand-in for ``exc`` that can be pickled, and note the missing parts in ``left_out``."""
        cls = self._class_of(exc)
        members = tuple(self._member(number, member) for number, member in enumerate(members_of(exc), 1))
        whole = get_state(exc)
        args = () if members else whole.args
        values = [*args, *(value for _, value in whole.fields), *(value for _, value in whole.state)]
        refused = self._refused(values)
        kept_args = tuple(
            LeftOut(name_of(type(value)), refused[place].text) if place in refused else value
            for place, value in enumerate(args)
        )
        for place, value in enumerate(kept_args):
            if place in refused:
                self._note(f"args[{place}]", value.type_name, refused[place])
        fields = self._kept(whole.fields, len(args), refused)
        state = self._kept(whole.state, len(args) + len(whole.fields), refused)
        if members:
            group = (whole.args[0], members)
            return Portable(exc, cls, Parts(group, group, fields, state))
        return Portable(exc, cls, Parts(kept_args, (), fields, state))

    def _member(self, number: int, exc: BaseException) -> Portable:
        data = _dump(Portable(exc), self._dumps, self._room)
        if isinstance(data, bytes):
            self._room -= len(data)
            return Portable(exc)
        before, self._within = self._within, f"{self._within}member {number}: "
        try:
            return self.portable(exc)
        finally:
            self._within = before

    def _class_of(self, exc: BaseException) -> type[BaseException]:
        """Return the class, or its first base that can travel, so that ``except`` clauses for that base still match."""
        built_in = builtin_base(type(exc))
        for cls in bases_of(type(exc)):
            if cls is built_in:
                break
            if issubclass(cls, BaseException):
                data = _dump(cls, self._dumps, self._room)
                if isinstance(data, bytes):
                    return cls
                self._note("the class", name_of(cls), data)
        return built_in

    def _refused(self, values: list[Any]) -> dict[int, _Refused]:
        """Return why values cannot travel, by index; the smallest values get the room first."""
        refused: dict[int, _Refused] = {}
        sizes: list[tuple[int, int]] = []
        for place, value in enumerate(values):
            if place >= _PARTS:
                refused[place] = _Refused(f"an exception has more than {_PARTS} parts")
                continue
            data = _dump(value, self._dumps, self._room)
            if isinstance(data, bytes):
                sizes.append((len(data), place))
            else:
                refused[place] = data
        # Take the smallest values first, so that one large value does not displace many small ones.
        for size, place in sorted(sizes):
            if size <= self._room:
                self._room -= size
            else:
                refused[place] = _TOO_LARGE
        return refused

    def _kept(
        self, named: tuple[tuple[str, Any], ...], first: int, refused: dict[int, _Refused]
    ) -> tuple[tuple[str, Any], ...]:
        for place, (name, value) in enumerate(named, first):
            if place in refused:
                self._note(f".{name}", name_of(type(value)), refused[place])
        return tuple(item for place, item in enumerate(named, first) if place not in refused)

    def _note(self, part: str, type_name: str, refused: _Refused) -> None:
        self.left_out.append(f"{self._within}{part} ({type_name}) was left out: {refused.text}")
