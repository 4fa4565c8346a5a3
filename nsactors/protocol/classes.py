"""Classes of ``__main__`` on engines: one object per namespace and definition.

A class is one object in each namespace: in the ``__main__`` of a client, and in the namespace of each engine. When a
pickled class arrives, the object that it becomes is the first of these:

    if the class was made here                    the class itself
    if its name is bound in the namespace         the class of that name, provided that the definitions are equal
    if it has arrived before                      the class that was made then
    if a class here has the same definition       that class, unless it stands for another class of the sender
    otherwise                                     a new class

An arriving pickle never changes a class that the namespace defined itself, except that it adds missing attributes. A
class made from a pickle is updated when its original is sent again with changes.

A process may contain several namespaces, of engines and of the client: the namespace of the current thread is searched
(see :func:`enter_namespace`). The module relies on private names of cloudpickle; without them, classes load as
cloudpickle makes them.

Definitions are compared by their digests (:mod:`~nsactors.protocol.definitions`).
"""

from __future__ import annotations

import itertools
import os
import sys
import types
import uuid
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from cloudpickle import cloudpickle

from nsactors.protocol.definitions import definition_digest, note_digest, value_digest

_TABLE = "__nsactors_classes__"  # the name of the class table in a namespace
_MAIN = "__main__"
MAX_COMPARED_BYTES = 10_000  # the limit for comparing an attribute of a class, each time the class arrives
_HOOK = "__init_subclass__"
_LOCAL = "<locals>"  # part of the qualified name of a class made in a function
_DATA = (int, float, complex, str, bytes, bool, type(None), tuple, frozenset, list, dict, set)

Scope = dict[str, Any]
_thread_scope: ContextVar[Scope | None] = ContextVar("nsactors_scope", default=None)  # new threads have none


class ClassTag(NamedTuple):
    """The identity of a class in messages.

    Attributes:
        origin: the class table of the namespace that defined it.
        number: its number in that table.
        name: its qualified name.
        digest: the digest of its definition; None if it has none.
    """

    origin: bytes
    number: int
    name: str
    digest: bytes | None


class _Known:
    """The state of a class object in its namespace.

    Attributes:
        tag: its identity in messages.
        is_home: whether a class statement of this namespace made it, rather than a pickle.
        complete: whether it has its attributes.
        origins: the origins of all tags that stand for it.
        told: the digests of its attributes, as they last arrived from its origin.
    """

    __slots__ = ("complete", "is_home", "origins", "tag", "told")

    def __init__(self, tag: ClassTag, *, is_home: bool) -> None:
        self.tag = tag
        self.is_home = self.complete = is_home
        self.origins = {tag.origin}
        self.told: dict[str, bytes | None] = {}


_known: weakref.WeakKeyDictionary[type, _Known] = weakref.WeakKeyDictionary()


def _new_origin() -> bytes:
    return uuid.uuid4().bytes


class ClassTable:
    """The classes of one namespace that were sent or have arrived.

    Args:
        scope: the namespace; None for the names of the module that is ``__main__`` at the time.

    Attributes:
        origin: identifies the table; the table of a forked child has another origin than the table of its parent.
        is_clients: whether unpickled functions keep globals of their own, instead of those of the namespace.
    """

    def __init__(self, scope: Scope | None) -> None:
        self.origin = _new_origin()
        self.is_clients = scope is None
        self._scope = scope
        self._numbers = itertools.count()
        self._by_tag: weakref.WeakValueDictionary[tuple[bytes, int], type] = weakref.WeakValueDictionary()
        self._by_digest: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()
        _tables.add(self)

    def known(self, cls: type) -> _Known:
        """Return the state of a class. A class without a state was made here, and gets one now."""
        if (known := _known.get(cls)) is not None:
            return known
        tag = ClassTag(self.origin, next(self._numbers), cls.__qualname__, definition_digest(cls))
        with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
            known = _known.setdefault(cls, _Known(tag, is_home=True))
        self._note(cls, known.tag)
        return known

    def find(self, tag: ClassTag, module: object) -> type | None:
        """Return the class that a tag stands for in this namespace, or None."""
        known = self._by_tag.get(tag[:2])
        if known is not None and tag.origin == self.origin:
            return known
        found = None
        if tag.digest is not None and module == _MAIN:
            found = (known or self._bound(tag)) if _LOCAL in tag.name else self._named(tag)
        if found is None:
            found = known or self._alike(tag)
        if found is not None:
            self.known(found).origins.add(tag.origin)
            self._by_tag[tag[:2]] = found
        return found

    def add(self, cls: type, tag: ClassTag) -> type:
        """Register a class made from a pickle; return it, or the class that another thread registered first."""
        with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
            if (other := self._by_tag.get(tag[:2])) is not None:
                return other
            self._by_tag[tag[:2]] = cls
        note_digest(cls, tag.digest)
        _known[cls] = _Known(tag, is_home=False)
        self._note(cls, tag)
        return cls

    def _note(self, cls: type, tag: ClassTag) -> None:
        self._by_tag[tag[:2]] = cls
        if tag.digest is not None:
            self._by_digest[tag.digest] = cls

    @property
    def _names(self) -> Scope:
        return vars(sys.modules[_MAIN]) if self._scope is None else self._scope

    def _named(self, tag: ClassTag) -> type | None:
        """Return the class that is bound to the name in a tag, if its definition is that of the tag."""
        first, *rest = tag.name.split(".")
        found = self._names.get(first)
        for name in rest:
            found = vars(found).get(name) if isinstance(found, type) else None
        return found if isinstance(found, type) and definition_digest(found) == tag.digest else None

    def _bound(self, tag: ClassTag) -> type | None:
        """Return the class made by a function: the only class bound here that has the name and definition of a tag."""
        values = list(self._names.values())
        found = {value for value in values if isinstance(value, type) and value.__qualname__ == tag.name}
        alike = [cls for cls in found if definition_digest(cls) == tag.digest]
        return alike[0] if len(alike) == 1 and self._may_be(alike[0], tag) else None

    def _alike(self, tag: ClassTag) -> type | None:
        found = None if tag.digest is None else self._by_digest.get(tag.digest)
        return found if found is not None and self._may_be(found, tag) else None

    def _may_be(self, cls: type, tag: ClassTag) -> bool:
        """Return whether no other tag of the same origin stands for this class."""
        return tag.origin not in self.known(cls).origins


_tables: weakref.WeakSet[ClassTable] = weakref.WeakSet()
_main_table = ClassTable(None)


def _renew_origins() -> None:
    for table in _tables:
        table.origin = _new_origin()


os.register_at_fork(after_in_child=_renew_origins)


def table_of(scope: Scope | None) -> ClassTable:
    """Return the class table of a namespace; None means the namespace of the current thread."""
    scope = _thread_scope.get() if scope is None else scope
    if scope is None or scope is vars(sys.modules[_MAIN]):
        return _main_table
    table = scope.get(_TABLE)
    if not isinstance(table, ClassTable):
        table = scope[_TABLE] = ClassTable(scope)
    return table


def enter_namespace(scope: Scope, *, is_programs: bool = False) -> None:
    """Make ``scope`` the namespace of this thread, or of the process if it is the ``__main__`` of an engine.

    Args:
        scope: the names.
        is_programs: whether the names belong to a program that goes on beside its engine.
    """
    if scope is vars(sys.modules[_MAIN]) and not is_programs:
        _main_table.is_clients = False
    else:
        _thread_scope.set(scope)


def leave_namespace(scope: Scope) -> None:
    """Remove the class table from a namespace."""
    scope.pop(_TABLE, None)


def is_on_engine() -> bool:
    """Return whether this thread, or this process, runs the code of an engine."""
    return _thread_scope.get() is not None or not _main_table.is_clients


def reduce_class(cls: Any, reduced: Any) -> Any:
    """Return the reduction of a class for pickle, made from the reduction that cloudpickle gives."""
    make, (*description, _, _), (attributes, slots), *_ = reduced
    known = table_of(None).known(cls)
    members: dict[str, dict[str, Any]] = {}
    if make is cloudpickle._make_skeleton_enum:
        # cloudpickle iterates over the members, which omits aliases; and it drops attributes that methods of the class
        # set on members.
        description[3] = {name: member._value_ for name, member in cls.__members__.items()}
        members = {member._name_: _own_attributes(member) for member in cls}
        for name in cls.__members__:
            attributes.pop(name, None)
    elif (names := vars(cls).get("__slots__")) is not None and not issubclass(cls, tuple):
        # Without its slots, instances gain a __dict__ and cannot be sent back; named tuples accept no __slots__.
        description[3]["__slots__"] = names
        for name in (names,) if isinstance(names, str) else names:
            attributes.pop(f"_{cls.__name__.lstrip('_')}{name}", None)  # private names are mangled
    attributes.pop("__slotnames__", None)  # a cache of copyreg, set when the first instance is pickled
    state = attributes, slots, members, known.is_home
    return make_class, (make, description, tuple(known.tag)), state, None, None, set_class_state


def _own_attributes(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if not (name.startswith("_") and name.endswith("_"))}


def make_class(
    make: Callable[..., type],
    description: list[Any],
    tag: tuple[Any, ...],
    scope: Scope | None = None,
    *,
    again: bool = False,
) -> type:
    """Return the class that a tag stands for in a namespace. If the class is made here, it gets its attributes later.

    Args:
        make: makes a new class of ``description`` and cloudpickle's number for it.
        description: the arguments of ``make`` that describe the class.
        tag: the identity of the class.
        scope: the namespace; None for the namespace of the current thread.
        again: whether the class was in this namespace before. The user's metaclass and ``__init_subclass__`` are then
            not called again, because their effects are among its attributes.
    """
    tag = ClassTag(*tag)
    table = table_of(scope)
    is_enum = make is cloudpickle._make_skeleton_enum
    module = description[4] if is_enum else description[3].get("__module__")
    if (found := table.find(tag, module)) is not None:
        return found
    made = _made_again(make, description) if again else _made(make, description)
    made.__qualname__ = tag.name
    return table.add(made, tag)


def _made(make: Callable[..., type], description: list[Any]) -> type:
    try:
        made: type = make(*description, None, None)
        return made
    except TypeError:
        if make is cloudpickle._make_skeleton_enum:
            raise
    # A metaclass, or __init_subclass__ of a base, requires keywords of the class statement, which are lost. The
    # effects of both are among the attributes, so make the class without calling either of them.
    metaclass, name, bases, attributes = description
    bases = types.resolve_bases(bases)
    try:
        made = type.__new__(metaclass, name, bases, attributes)
    except TypeError:
        made = type.__new__(metaclass, name, (_Blank,), attributes)
        made.__bases__ = bases
    return made


def _made_again(make: Callable[..., type], description: list[Any]) -> type:
    """Make a class like :func:`_made`, without calling code of ``__main__``: its effects are in the attributes."""
    if make is cloudpickle._make_skeleton_enum:
        return _made(make, description)
    metaclass, name, bases, attributes = description
    resolved = types.resolve_bases(bases)
    if resolved is not bases:
        attributes = {**attributes, "__orig_bases__": bases}  # read by Generic
    library: Any = next(cls for cls in metaclass.__mro__ if cls.__module__ != _MAIN)
    hooks = {
        cls: vars(cls)[_HOOK]
        for base in resolved
        for cls in base.__mro__
        if cls.__module__ == _MAIN and _HOOK in vars(cls)
    }
    for cls in hooks:
        type.__delattr__(cls, _HOOK)
    try:
        made: type = library.__new__(metaclass, name, resolved, attributes)
        return made
    finally:
        for cls, hook in hooks.items():
            type.__setattr__(cls, _HOOK, hook)


class _Blank:
    """A base class until the real bases are set."""


def set_class_state(cls: type, state: Any, scope: Scope | None = None) -> type:
    """Set the attributes that a class was sent with, except those that this namespace has defined or changed itself."""
    attributes, slots, members, is_from_home = state
    table = table_of(scope)
    known = table.known(cls)
    # Methods unpickled outside the namespace would have other globals.
    follows = is_from_home and not known.is_home and (scope is not None or table.is_clients)
    if known.complete and not follows:
        attributes = {name: value for name, value in attributes.items() if name not in vars(cls)}
    elif not known.is_home:
        attributes = {name: value for name, value in attributes.items() if _has_news(known, name, value)}
    cloudpickle._class_setstate(cls, (attributes, slots))
    if not known.complete:
        for name, own in members.items():
            vars(cls._member_map_[name]).update(own)  # type: ignore[attr-defined]
    known.complete = True
    return cls


def _has_news(known: _Known, name: str, value: object) -> bool:
    """Return whether an attribute has changed at the origin of a class. If not, a local change of the value stays."""
    if type(value) not in _DATA or (name.startswith("__") and name.endswith("__")):
        return True
    digest = value_digest(value, MAX_COMPARED_BYTES)
    if known.complete and digest is not None and known.told.get(name) == digest:
        return False
    known.told[name] = digest
    return True
