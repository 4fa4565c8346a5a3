"""Peeks: expressions that are evaluated while a request runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from contextvars import Context, copy_context
from types import FunctionType, ModuleType
from typing import Any

from nsactors.errors import bytes_in_words
from nsactors.errors.formatting import qualified_name
from nsactors.namespace.debuggers import DebuggerBypass
from nsactors.namespace.interrupts import capture_failure, raise_in_thread, run_user_code
from nsactors.namespace.memory import size_of, type_name_of, user_names
from nsactors.namespace.output import printing_to
from nsactors.protocol.inspection import Peek, PeekResult, Variable
from nsactors.protocol.serialize import ObjectStore, Payload, StoredObject, pack
from nsactors.protocol.wire import copied_or_stored

MOST = 4  # peeks at a time; one that hangs in C code occupies a thread until that code returns
MOST_BYTES = 100_000_000  # the largest value: packing a larger one would keep the engine's own code waiting
PRINTED_CHARS = 10_000
TEXT_CHARS = 2_000  # the longest text of a value
TEXT_ITEMS = 50
SHORT_CHARS = 60  # the longest text of a value in the list of variables

_PLAIN = (int, float, complex, bool, type(None))
_COLLECTIONS = (list, tuple, dict, set, frozenset)


class _GivenUp(BaseException):
    """Raised in the thread of a peek that has reached its time limit."""


class TooManyPeeks(Exception):
    """An engine begins no more peeks, because several have reached their time limits and still run."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} peeks hang on this engine, and it begins no more until one of them has ended")


class Peeks:
    """Evaluates expressions in a namespace, each on a thread of its own. Create it on the thread that runs requests.

    Args:
        engine_id: the engine.
        names: the namespace.
        store: the store for large values.
    """

    def __init__(self, engine_id: int, names: dict[str, Any], store: ObjectStore) -> None:
        self._engine_id = engine_id
        self._names = names
        self._store = store
        self._context: Context = copy_context()  # so that classes that are pickled belong to this namespace
        self._lock = threading.Lock()
        self._count = 0

    def begin(self, peek: Peek, finish: Callable[[PeekResult], object]) -> None:
        """Begin a peek; ``finish`` is called once, with its outcome, from another thread.

        Raises:
            TooManyPeeks: if too many peeks hang.
        """
        with self._lock:
            if self._count >= MOST:
                raise TooManyPeeks(self._count)
            self._count += 1
        evaluation = _Evaluation(peek, finish)
        context = self._context.copy()

        def run() -> None:
            try:
                context.run(evaluation.run, self._evaluate)
            finally:
                with self._lock:
                    self._count -= 1

        evaluation.start(run, f"engine-{self._engine_id}-peek")

    def _evaluate(self, peek: Peek) -> PeekResult:
        printed: list[str] = []
        # A debugger, or a call to input(), would wait for ever.
        with closing(DebuggerBypass(threading.get_ident())), printing_to(printed):
            try:
                result = PeekResult(self._value(peek))
            except _GivenUp:
                raise
            except BaseException as error:  # even SystemExit, which is an outcome like others
                result = PeekResult(failure=capture_failure(error, self._engine_id, f"peek({peek.expression})"))
        return result._replace(printed="".join(printed)[:PRINTED_CHARS])

    def _value(self, peek: Peek) -> Any:
        value = run_user_code(eval, compile(peek.expression, "<peek>", "eval"), self._names)
        if peek.as_text:
            value = run_user_code(text_of_value, value)
        return self._packed(value, peek.expression)

    def _packed(self, value: Any, expression: str) -> Payload | StoredObject:
        # Measure the value before it is packed: pickling a list of many items holds the engine's interpreter lock.
        if (nbytes := size_of([value]).total) > MOST_BYTES:
            raise ValueError(
                f"{expression} has {bytes_in_words(nbytes)}, too much for a peek, which must not delay the engine: "
                "peek at a part of it, or pull it when the engine is free"
            )
        payload: Payload = run_user_code(pack, value, what=expression, ref_types=self._store.ref_types)
        return copied_or_stored(payload, self._store.put)


class _Evaluation:
    """One peek, which ends once: with its value, or at its time limit."""

    def __init__(self, peek: Peek, finish: Callable[[PeekResult], object]) -> None:
        self._peek = peek
        self._finish = finish
        self._lock = threading.Lock()
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._timer = threading.Timer(peek.limit_s, self._give_up)
        self._timer.daemon = True

    def start(self, run: Callable[[], None], name: str) -> None:
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._timer.start()
        self._thread.start()

    def run(self, evaluate: Callable[[Peek], PeekResult]) -> None:
        with suppress(_GivenUp):
            result = evaluate(self._peek)
            with self._lock:
                is_late, self._is_over = self._is_over, True
            if not is_late:
                self._timer.cancel()
                self._finish(result)

    def _give_up(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            assert self._thread is not None
            raise_in_thread(self._thread.ident or 0, _GivenUp)
        self._finish(PeekResult())


def text_of_value(value: object) -> str:
    """Return a value as text for people, cut if it is long."""
    from IPython.lib.pretty import pretty

    if type(value) in (str, bytes):
        text = repr(value[: TEXT_CHARS + 1])  # type: ignore[index]
    else:
        text = pretty(value, max_width=100, max_seq_length=TEXT_ITEMS)
    return text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]} … (the rest is left out)"


def variables_of(names: dict[str, Any]) -> tuple[Variable, ...]:
    """Describe the user's names in a namespace; callable from any thread."""
    return tuple(
        Variable(name, type_name_of(value), short_text(value), size_of([value], names))
        for name, value in sorted(user_names(names).items())
    )


def short_text(value: Any) -> str:
    """Return a short text for a value of one of Python's own classes; empty for others, whose code must not run."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        text = repr(value[:SHORT_CHARS])
        return text if len(value) <= SHORT_CHARS else f"{text}… ({len(value):,} in all)"
    if kind is int and value.bit_length() > 4 * SHORT_CHARS:
        return f"a number of {value.bit_length():,} bits"
    if kind in _PLAIN:
        return repr(value)
    if kind in _COLLECTIONS:
        return f"{len(value):,} {'item' if len(value) == 1 else 'items'}"
    if kind is ModuleType or isinstance(value, ModuleType):
        return str(vars(value).get("__name__", ""))
    if kind is FunctionType:
        return f"{value.__qualname__}()"
    return qualified_name(value) if isinstance(value, type) else ""
