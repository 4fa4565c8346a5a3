"""A client at work: it asks engines for effects, keeps books of them, and goes through the books now and then."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nsactors import AsyncResult, Client, Reference
from nsactors.errors import EngineLost
from nsactors.results import Call
from tests.chaos.books import Book, Effect, Fate, Holding
from tests.chaos.gallery import GALLERY, STEP
from tests.chaos.tally import Tally

__all__ = ["PREPARATION", "Author", "RunFailed"]

ANSWER_LIMIT_S = 90.0  # an engine may be restarted several times before it answers
ATTEMPTS = 20
WINDOW = 30  # results that are awaited at a time
SAFE_AGAIN_S = 0.5  # a disk is full for some seconds
MAP_ITEMS = 4  # for each engine
ARRAY_ITEMS = 30_000  # 240 kB go by way of the object store

# What engines need before anybody works.
PREPARATION = (
    GALLERY
    + """
import time
ledger = []
def note(author, number):
    ledger.append((author, number))
    return number
"""
)

# Takes all that is an author's away from an engine.
CLEANING = """
ledger[:] = [entry for entry in ledger if entry[0] != {0!r}]
for _name in [name for name in globals() if name.startswith({0!r} + "_")]:
    del globals()[_name]
"""
NOTES = "[number for author, number in ledger if author == {0!r}]"
NAMES = "{{name: int(np.max(value)) for name, value in globals().items() if name.startswith({0!r} + '_')}}"


class RunFailed(Exception):
    """Something took so long that it makes no sense to go on."""


class _Asked(NamedTuple):
    """A result that is awaited.

    Attributes:
        kind: of request.
        result: of one call or several.
        effects: of each of its calls.
        raises: what it is expected to end with.
        values: what each of its calls is expected to give.
        depends: the effect without which it raises NameError.
    """

    kind: str
    result: AsyncResult
    effects: Sequence[Sequence[Effect]] = ()
    raises: type[Exception] | None = None
    values: Sequence[Any] | None = None
    depends: Effect | None = None


class Author:
    """One client.

    Args:
        name: a word without underscore; its names on engines begin with it.
        rc: nobody else's.
        chance: chooses what it does.
        tally: where it tells how that went.
        page: how many effects it asks for before it goes through the books.
    """

    def __init__(self, name: str, rc: Client, chance: random.Random, tally: Tally, page: int = 400) -> None:
        self.name = name
        self.rc = rc
        self._chance = chance
        self._tally = tally
        self._page = page
        self._book = Book()
        self._number = 0
        self._awaited: deque[_Asked] = deque()
        self._last_push: dict[int, Effect] = {}
        self._pause = threading.Event()
        self._requests: dict[Callable[[int], _Asked], int] = {
            self._cell: 30,
            self._call: 20,
            self._push: 20,
            self._array: 5,
            self._read: 15,
            self._failing_cell: 5,
            self._slow_cell: 3,
            self._map: 4,
            self._step: 15,
        }

    def work(self, over: threading.Event) -> None:
        """Go on until ``over`` is set, or something takes too long, which sets it."""
        try:
            while not over.is_set():
                (ask,) = self._chance.choices(list(self._requests), list(self._requests.values()))
                self._awaited.append(ask(self._chance.choice(self.rc.ids)))
                if len(self._awaited) >= WINDOW:
                    self._take_answer()
                if len(self._book) >= self._page:
                    self._audit()
            self._audit()
        except Exception as error:
            self._tally.complain(f"{self.name} gave up: {type(error).__name__}: {error}")
            over.set()

    def _cell(self, engine_id: int) -> _Asked:
        (effect,) = self._effects(engine_id)
        return _Asked("cell", self._execute(engine_id, f"note({self.name!r}, {effect.number})"), [[effect]])

    def _slow_cell(self, engine_id: int) -> _Asked:
        (effect,) = self._effects(engine_id)
        code = f"note({self.name!r}, {effect.number})\ntime.sleep({self._chance.uniform(0, 0.1)})"
        return _Asked("slow cell", self._execute(engine_id, code), [[effect]])

    def _failing_cell(self, engine_id: int) -> _Asked:
        (effect,) = self._effects(engine_id)
        result = self._execute(engine_id, f"note({self.name!r}, {effect.number})\n1/0")
        return _Asked("failing cell", result, [[effect]], raises=ZeroDivisionError)

    def _call(self, engine_id: int) -> _Asked:
        (effect,) = self._effects(engine_id)
        result = self.rc[engine_id].apply_async(Reference("note"), self.name, effect.number)
        return _Asked("call", result, [[effect]], values=[effect.number])

    def _push(self, engine_id: int) -> _Asked:
        return self._pushed("push", engine_id, lambda number: number)

    def _array(self, engine_id: int) -> _Asked:
        return self._pushed("push of an array", engine_id, lambda number: np.full(ARRAY_ITEMS, number))

    def _pushed(self, kind: str, engine_id: int, value: Callable[[int], Any]) -> _Asked:
        (effect,) = self._effects(engine_id, is_named=True)
        self._last_push[engine_id] = effect
        values = {f"{self.name}_{effect.number}": value(effect.number)}
        return _Asked(kind, self.rc[engine_id].push(values, block=False), [[effect]])

    def _read(self, engine_id: int) -> _Asked:
        """Return the value that was pushed last, perhaps a moment ago."""
        pushed = self._last_push.get(engine_id)
        if pushed is None:
            return _Asked("pull", self.rc[engine_id].pull("note.__name__", block=False), values=["note"])
        result = self.rc[engine_id].pull(f"int(np.max({self.name}_{pushed.number}))", block=False)
        return _Asked("pull", result, values=[pushed.number], depends=pushed)

    def _map(self, engine_id: int) -> _Asked:
        ids = self.rc.ids
        parts = [self._effects(engine_id, MAP_ITEMS) for engine_id in ids]
        numbers = [effect.number for part in parts for effect in part]
        result = self.rc[ids].map_async(Reference("note"), [self.name] * len(numbers), numbers)
        return _Asked("map", result, parts, values=[[effect.number for effect in part] for part in parts])

    def _step(self, engine_id: int) -> _Asked:
        """All odd contents of a namespace change together."""
        return _Asked("step", self._execute(engine_id, STEP))

    def _effects(self, engine_id: int, count: int = 1, *, is_named: bool = False) -> list[Effect]:
        effects = [Effect(engine_id, self._number + k, is_named) for k in range(count)]
        self._number += count
        for effect in effects:
            self._book.ask(effect)
        return effects

    def _execute(self, engine_id: int, code: str) -> AsyncResult:
        result: AsyncResult = self.rc[engine_id].execute(code, block=False)
        return result

    def _take_answer(self) -> None:
        """Wait for what was asked first of what is not answered, and enter it."""
        asked = self._awaited.popleft()
        if not asked.result.wait(ANSWER_LIMIT_S):
            raise RunFailed(f"{asked.kind} has no outcome after {ANSWER_LIMIT_S:g} s: {asked.result!r}")
        asked.result.exception()  # it has been seen
        calls = asked.result.calls
        self._tally.count(asked.kind, [type(call.error).__name__ if call.error else "ok" for call in calls])
        for k, call in enumerate(calls):
            for effect in asked.effects[k] if asked.effects else ():
                self._book.end(effect, _fate(call))
            if complaint := self._wrong(asked, k, call.value, call.error):
                self._tally.complain(f"{self.name}: {call.label} on engine {call.engine_id} {complaint}")

    def _wrong(self, asked: _Asked, position: int, value: Any, error: Exception | None) -> str:
        match error:
            case EngineLost():
                return ""
            case NameError() if asked.depends is not None and self._book.fate(asked.depends) in (
                Fate.LOST,
                Fate.UNSAFE,
            ):
                return ""
            case _ if error is not None and asked.raises is not None and isinstance(error, asked.raises):
                return ""
            case None if asked.raises is None:
                expected = asked.values[position] if asked.values else value
                return "" if value == expected else f"gave {value!r} in place of {expected!r}"
            case None:
                return "raised nothing"
            case _:
                return f"raised {type(error).__name__}: {error}"

    def _audit(self) -> None:
        """Go through the books, and begin a new page."""
        while self._awaited:
            self._take_answer()
        view = self.rc[self.rc.ids]
        questions = [NOTES.format(self.name), NAMES.format(self.name), "wrong()", "missing()"]
        answers = self._insist(lambda: view.pull(questions, block=False))
        holdings = {}
        for engine_id, (notes, names, wrong, missing) in answers.items():
            for complaint in wrong:
                self._tally.complain(f"{self.name}: on engine {engine_id} it does not hold that {complaint}")
            if untold := set(missing) - self._tally.told_lost(engine_id):
                self._tally.complain(f"{self.name}: engine {engine_id} has lost {untold} without a word")
            numbers = [int(name.partition("_")[2]) for name in names]
            if numbers != list(names.values()):
                self._tally.complain(f"{self.name}: names on engine {engine_id} have values of others: {names}")
            holdings[engine_id] = Holding(notes, numbers)
        for error in self._book.errors(holdings):
            self._tally.complain(f"{self.name}: {error}")
        self._tally.audited(len(self._book))
        self._return_items(sorted(answers))
        # Where the journal has no room, a cleaning goes with its engine, and what it took away comes back.
        self._insist(lambda: view.execute(CLEANING.format(self.name), block=False), is_safe=True)
        self._book.close()
        self._last_push.clear()

    def _return_items(self, engine_ids: Sequence[int]) -> None:
        """Bring an instance of a class that an engine has defined here and back: it must be one of that class."""
        for engine_id in engine_ids:
            engine, name = self.rc[engine_id], f"returned_{self.name}"
            item = self._insist(lambda engine=engine: engine.pull("item", block=False))[engine_id]
            self._insist(lambda engine=engine, name=name, item=item: engine.push({name: item}, block=False))
            is_one = self._insist(lambda engine=engine, name=name: engine.pull(f"type({name}) is Item", block=False))
            if is_one != {engine_id: True}:
                self._tally.complain(f"{self.name}: an item of engine {engine_id} is no Item when it comes back")

    def _insist(self, ask: Callable[[], AsyncResult], *, is_safe: bool = False) -> dict[int, Any]:
        """Ask a question that may be asked twice until every engine has answered; return the values by engine.

        Args:
            ask: sends it.
            is_safe: only an answer counts that survives its engine.
        """
        values: dict[int, Any] = {}
        for _ in range(ATTEMPTS):
            result = ask()
            if not result.wait(ANSWER_LIMIT_S):
                raise RunFailed(f"no answer after {ANSWER_LIMIT_S:g} s: {result!r}")
            result.exception()
            calls = result.calls
            self._tally.count("audit", [type(call.error).__name__ if call.error else "ok" for call in calls])
            values |= {
                call.engine_id: call.value
                for call in calls
                if call.error is None and not (is_safe and _fate(call) is Fate.UNSAFE)
            }
            if errors := [call.error for call in calls if not isinstance(call.error, EngineLost | None)]:
                raise errors[0]
            if len(values) == len(calls):
                return values
            if is_safe:
                self._pause.wait(SAFE_AGAIN_S)
        raise RunFailed(f"engines died {ATTEMPTS} times in a row while they were asked for their books")


def _fate(call: Call) -> Fate:
    if isinstance(call.error, EngineLost):
        return Fate.LOST
    lines = call.text("stderr").splitlines()
    warned = [line for line in lines if line.startswith("[nsactors: ") and "journal" in line and " lost" in line]
    return Fate.UNSAFE if warned else Fate.KEPT
