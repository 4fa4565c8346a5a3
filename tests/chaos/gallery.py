"""Odd contents of a namespace, which change when requests run, and the conditions that they must always meet.

A step changes all contents together. So each engine can be asked whether its contents fit together, no matter who has
made the steps, and which processes were killed during them: all values are those after the same number of steps, and
identities do not change.
"""

__all__ = ["EXPENDABLE", "GALLERY", "STEP"]

STEP = "step()"

EXPENDABLE = frozenset({"Hostile", "gone", "hostile", "lazily", "lock"})
"""Names that no snapshot can hold: a class with such a property cannot be pickled either. They may be lost if that is
told, and are made anew otherwise."""

GALLERY = """
import enum, functools, os, random, threading, weakref
from dataclasses import dataclass
import numpy as np
import pandas as pd

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

@dataclass
class Item:
    steps: int = 0
    colour: Colour = Colour.RED

class Hostile:
    @property
    def __class__(self):
        raise RuntimeError("nobody may ask")

@functools.lru_cache(maxsize=None)
def square(x):
    return x * x

def make_counter():
    count = 0
    def up():
        nonlocal count
        count += 1
    def now():
        return count
    return up, now

def make_proxy():
    item = Item()
    return weakref.proxy(item)

up, now = make_counter()
item = Item()
alias = item
items = [item]
base = np.zeros(10_000)
view = base[100:200]
grid = base.reshape(100, 100)
fixed = np.arange(5.0)
fixed.flags.writeable = False
frame = pd.DataFrame({"kind": np.arange(20_000) % 10, "steps": 0})
before = frame["steps"]
large = np.arange(500_000.0)
draws, others = [], []
steps = 0
gone, hostile, lock, lazily = make_proxy(), Hostile(), threading.Lock(), (n for n in range(10**9))
np.random.seed(7)
random.seed(7)
os.environ["GALLERY_STEPS"] = "0"

def step():
    global steps
    up()
    item.steps += 1
    view[:] += 1
    frame.loc[frame.kind == steps % 10, "steps"] += 1
    draws.append(np.random.rand())
    others.append(random.random())
    os.environ["GALLERY_STEPS"] = str(steps + 1)
    steps += 1
    return steps

def right_draws():
    generator, other = np.random.RandomState(7), random.Random(7)
    return draws == [generator.rand() for _ in draws] and others == [other.random() for _ in others]

RIGHT = {
    "one object has three names": lambda: item is alias and items[0] is item,
    "an instance is one of its class": lambda: isinstance(item, Item) and type(item) is Item and item == Item(steps),
    "a member of an enum is itself": lambda: item.colour is Colour.RED and Colour(1) is Colour.RED,
    "two functions share a variable": lambda: now() == steps,
    "a decorated function works": lambda: square(12) == 144 and hasattr(square, "cache_info"),
    "a view shares memory with its base": lambda: np.shares_memory(view, base) and np.shares_memory(grid, base),
    "a view has the values of its base": lambda: (view == steps).all() and base.sum() == 100 * steps,
    "an array that was fixed is": lambda: not fixed.flags.writeable and base.flags.writeable,
    "a frame has as many steps": lambda: frame.steps.sum() == 2_000 * steps,
    "a column does not change with its frame": lambda: before.sum() == 0,
    "a large array is what it was": lambda: large[-1] == 499_999.0 and len(large) == 500_000,
    "generators went on where they were": lambda: len(draws) == len(others) == steps and right_draws(),
    "the environment is kept": lambda: os.environ["GALLERY_STEPS"] == str(steps),
}

def wrong():
    found = []
    for what, holds in RIGHT.items():
        try:
            if not holds():
                found.append(what)
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {error}")
    return found

def missing():
    return [name for name in ("gone", "hostile", "lazily", "lock") if name not in globals()]
"""
