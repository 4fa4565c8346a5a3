"""Values pickled together, unpickled one by one if some cannot be unpickled.

Results of many tasks travel as one pickle, which is faster. If one result raises an exception when it is rebuilt, the
pickle is read again with the unpickler that is written in Python. This unpickler can continue after an error: it leaves
out the objects that cannot be made, and all containers of them.
"""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any

from nsactors.protocol.serialize import Payload, class_finder, received


class Broken:
    """Replaces an object that cannot be unpickled.

    Args:
        error: the exception.
        first: the first of the operands from which the object would have been made.
    """

    __slots__ = ("error", "first")

    def __init__(self, error: BaseException, first: Any = None) -> None:
        self.error = error
        self.first = first


class Salvage:
    """The values of a payload that contains a list.

    Args:
        payload: the payload.
        scope: the namespace of an engine, for functions and classes of ``__main__``.
        copy: make writable arrays.

    Raises:
        Exception: if the payload is not a pickle of a list.
    """

    def __init__(self, payload: Payload, *, scope: dict[str, Any] | None = None, copy: bool = False) -> None:
        buffers = received(payload.buffers, copy=copy)
        find_class, finish = class_finder(payload, scope=scope, copy=copy)
        self._unpickler = _Salvager(bytes(payload.data), buffers, find_class)
        self._values: list[Any] = self._unpickler.load()
        finish()

    def value(self, index: int) -> Any:
        """Return a value; a :class:`Broken` if it, or a part of it, cannot be made."""
        value = self._values[index]
        return self._unpickler.broken(value) or value

    def values(self) -> list[Any]:
        """Return all values, each as :meth:`value` does."""
        return [self._unpickler.broken(value) or value for value in self._values]

    def items(self, index: int) -> list[Any]:
        """Return the items of a value that is a list, each as :meth:`value` does."""
        return [self._unpickler.broken(item) or item for item in self._values[index]]

    def columns(self) -> list[list[Any]]:
        """Return all values, which are lists, as :meth:`items` does."""
        return [self.items(index) for index in range(len(self._values))]


def _operation(code: bytes) -> Callable[[Callable[[_Salvager], None]], Callable[[_Salvager], None]]:
    """Register the decorated function for an opcode of pickles."""

    def register(function: Callable[[_Salvager], None]) -> Callable[[_Salvager], None]:
        _OPERATIONS[code[0]] = function
        return function

    return register


_PythonUnpickler: Any = pickle._Unpickler  # the unpickler in C cannot continue after an error
_OPERATIONS: dict[int, Any] = dict(_PythonUnpickler.dispatch)


class _Salvager(_PythonUnpickler):  # type: ignore[misc]
    """An unpickler that continues when making an object fails. Containers of broken objects count as broken."""

    dispatch = _OPERATIONS

    def __init__(self, data: bytes, buffers: Iterable[Any], find_class: Callable[[str, str], Any]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._find_class = find_class
        self._spoilt: dict[int, tuple[Any, Broken]] = {}  # by id; the object is held so that no other one gets its id

    def find_class(self, module: str, name: str) -> Any:
        return self._find_class(module, name)

    def broken(self, value: Any) -> Broken | None:
        """Return the error of a value; None if it is whole."""
        if type(value) is Broken:
            return value
        known = self._spoilt.get(id(value))
        return None if known is None else known[1]

    def _first_broken(self, values: Iterable[Any]) -> Broken | None:
        return next((broken for value in values if (broken := self.broken(value)) is not None), None)

    def _push(self, operands: Iterable[Any], make: Callable[[], Any], first: Any = None) -> None:
        """Push the object made of operands, or a Broken if an operand is broken; ``first`` is the first operand."""
        made: Any = self._first_broken(operands)
        if made is None:
            try:
                made = make()
            except BaseException as error:
                made = Broken(error, first)
        elif first is not None:
            made = Broken(made.error, first)
        self.stack.append(made)

    def _change(self, operands: Iterable[Any], change: Callable[[Any], Any]) -> None:
        """Change the object on top of the stack with operands."""
        target = self.stack[-1]
        # A Broken replaces an object that does not exist. A spoilt object exists, and can still be changed.
        if self.broken(target) is not None and type(target) is Broken:
            return
        broken = self._first_broken(operands)
        try:
            change(target)
        except BaseException as error:
            broken = broken or Broken(error)
        if broken is not None:
            self._spoilt.setdefault(id(target), (target, broken))

    def _pop(self) -> Any:
        return self.stack.pop()


@_operation(pickle.GLOBAL)
def _global(self: _Salvager) -> None:
    module, name = (str(self.readline()[:-1], "utf-8") for _ in range(2))
    self._push((), lambda: self.find_class(module, name))


@_operation(pickle.STACK_GLOBAL)
def _stack_global(self: _Salvager) -> None:
    name, module = self._pop(), self._pop()
    self._push((), lambda: self.find_class(module, name))


@_operation(pickle.REDUCE)
def _reduce(self: _Salvager) -> None:
    args, function = self._pop(), self._pop()
    first = args.first if type(args) is Broken else args[0] if args else None
    self._push((function, args), lambda: function(*args), first)


@_operation(pickle.NEWOBJ)
def _new_object(self: _Salvager) -> None:
    args, cls = self._pop(), self._pop()
    self._push((cls, args), lambda: cls.__new__(cls, *args))


@_operation(pickle.NEWOBJ_EX)
def _new_object_with_keywords(self: _Salvager) -> None:
    kwargs, args, cls = self._pop(), self._pop(), self._pop()
    self._push((cls, args, kwargs), lambda: cls.__new__(cls, *args, **kwargs))


@_operation(pickle.BUILD)
def _build(self: _Salvager) -> None:
    state = self._pop()
    load = _PythonUnpickler.dispatch[pickle.BUILD[0]]

    def build(target: Any) -> None:
        if self.broken(state) is None:
            depth = len(self.stack)
            self.stack.append(state)
            try:
                load(self)
            finally:
                del self.stack[depth:]

    self._change((state,), build)


@_operation(pickle.POP)
def _drop(self: _Salvager) -> None:
    dropped = self.stack[-1] if self.stack else None
    if type(dropped) is Broken and dropped.first is not None:
        # A function that sets the state of its first argument, such as a class, is called for that effect alone.
        self._spoilt.setdefault(id(dropped.first), (dropped.first, dropped))
    _PythonUnpickler.dispatch[pickle.POP[0]](self)


@_operation(pickle.TUPLE)
def _tuple(self: _Salvager) -> None:
    items = self.pop_mark()
    self._push(items, lambda: tuple(items))


def _short_tuple(self: _Salvager, *, size: int) -> None:
    items = self.stack[-size:]
    del self.stack[-size:]
    self._push(items, lambda: tuple(items), items[0])


for _size, _code in ((1, pickle.TUPLE1), (2, pickle.TUPLE2), (3, pickle.TUPLE3)):
    _operation(_code)(functools.partial(_short_tuple, size=_size))


@_operation(pickle.FROZENSET)
def _frozenset(self: _Salvager) -> None:
    items = self.pop_mark()
    self._push(items, lambda: frozenset(items))


@_operation(pickle.APPEND)
def _append(self: _Salvager) -> None:
    value = self._pop()
    self._change((value,), lambda target: target.append(value))


@_operation(pickle.APPENDS)
def _appends(self: _Salvager) -> None:
    items = self.pop_mark()

    def extend(target: Any) -> None:
        if hasattr(target, "extend"):
            target.extend(items)
        else:
            for item in items:
                target.append(item)

    self._change(items, extend)


@_operation(pickle.ADDITEMS)
def _add_items(self: _Salvager) -> None:
    items = self.pop_mark()

    def add(target: Any) -> None:
        if isinstance(target, set):
            target.update(items)
        else:
            for item in items:
                target.add(item)

    self._change(items, add)


@_operation(pickle.SETITEM)
def _set_item(self: _Salvager) -> None:
    value, key = self._pop(), self._pop()
    self._change((key, value), lambda target: target.__setitem__(key, value))


@_operation(pickle.SETITEMS)
def _set_items(self: _Salvager) -> None:
    items = self.pop_mark()

    def set_all(target: Any) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = value

    self._change(items, set_all)
