"""How much memory names, values and this process take."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, GetSetDescriptorType, ModuleType
from typing import Any

from nsactors.core.memory import NameMemory, NamespaceMemory, ProcessMemory, Size

__all__ = ["keep_freed_memory", "namespace_memory", "process_memory", "size_of"]

SAMPLE = 1_000  # parts of a large container: the others are taken to be like them
FEW = 10  # parts that are looked at in any case
BUDGET = 10_000  # values looked at, more or less: about 30 ms

# What leads from a value to half of the process.
_ELSEWHERE = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, FrameType)
_PROMPT_NAMES = frozenset({"In", "exit", "quit", "get_ipython", "open"})  # every IPython has these
_SHARED = frozenset({"ray", "mmap"})  # packages of what stands for shared memory

# Parameters of mallopt, and the variables by which glibc lets users set them. The most that it takes for the second one
# is 32 MB.
_MALLOC = ((-1, "MALLOC_TRIM_THRESHOLD_", 64 * 1024 * 1024), (-3, "MALLOC_MMAP_THRESHOLD_", 32 * 1024 * 1024))


def keep_freed_memory() -> bool:
    """Let this process keep up to 64 MB that have been freed, for the next arrays; whether that is done.

    By default the C library gives back most of it at once, and the kernel clears every page when it is asked for again:
    half of the time that NumPy needs for temporary arrays of some megabytes. A user's own settings in the environment
    go before, and other C libraries do as they like.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    settings = [(parameter, os.environ.get(variable, ""), usual) for parameter, variable, usual in _MALLOC]
    return all(mallopt(parameter, int(own) if own.isdigit() else usual) for parameter, own, usual in settings)


def namespace_memory(names: Mapping[str, Any], top: int) -> NamespaceMemory:
    """The ``top`` largest names that a user made, and what all of them hold; callable while they change.

    Modules are left out, and names that begin with an underscore: IPython's last results, which are in ``Out`` too.
    """
    made = {
        name: value
        for name, value in list(names.items())
        if not name.startswith("_") and name not in _PROMPT_NAMES and not isinstance(value, ModuleType)
        if name != "Out" or value
    }
    sized = [NameMemory(name, _type_name(value), size_of([value])) for name, value in made.items()]
    sized.sort(key=lambda one: (-one.size.total, one.name))
    return NamespaceMemory(tuple(sized[:top]), len(sized[top:]), size_of(made.values()))


def size_of(values: Iterable[object]) -> Size:
    """How much memory values take, with all that they hold, each part once: a good guess.

    Arrays count by their ``nbytes``, and so does what compiled code holds and gives such an attribute; anything else as
    ``sys.getsizeof`` says. Of large containers a sample is looked at. No Python code of the values' classes is run, so
    this can be called from any thread.
    """
    seen = {id(value): value for value in values}
    waiting = deque((value, 1.0) for value in seen.values())
    own = shared = 0.0
    looked_at = 0
    while waiting and looked_at < 2 * BUDGET:
        value, weight = waiting.popleft()
        looked_at += 1
        parts, count = _parts(value)
        size = _size(value, alone=not count)
        own += weight * size.own
        shared += weight * size.shared
        room = max(FEW, min(SAMPLE, (BUDGET - looked_at) // (len(waiting) + 1)))
        # An odd step: the parts of a dictionary are a key and a value in turn.
        chosen = parts[:: (len(parts) // room) | 1] if len(parts) > room else parts
        weight *= count / max(1, len(chosen))
        for part in chosen:
            if id(part) not in seen and not isinstance(part, _ELSEWHERE):
                seen[id(part)] = part  # held, so that its id stays its own
                waiting.append((part, weight))
    return Size(round(own), round(shared))


def process_memory() -> ProcessMemory | None:
    """What this process takes; None on systems that do not tell."""
    try:
        with open("/proc/self/smaps_rollup") as file:
            kilobytes = {name: int(number) for name, number in re.findall(r"(\w+):\s+(\d+) kB", file.read())}
    except OSError:
        return None
    unique = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return ProcessMemory(unique * 1024, kilobytes["Rss"] * 1024)


def _parts(value: object) -> tuple[list[Any], int]:
    """What a value refers to, or a sample of it; and how many that are."""
    if _is_array(value):  # whose items the garbage collector does not know
        array: Any = value
        if not array.dtype.hasobject:
            return [], 0
        return array.ravel(order="K")[:: array.size // SAMPLE + 1].tolist(), array.size
    parts = gc.get_referents(value)
    if len(parts) < FEW:
        parts = [part for part in parts if not isinstance(part, _ELSEWHERE)]
    return parts, len(parts)


def _size(value: object, *, alone: bool) -> Size:
    """The size of a value without its parts, of which it has none if it is ``alone``."""
    kind = type(value)
    if _is_array(value):
        array: Any = value
        memory = type(_memory_of(array)).__module__.partition(".")[0]
        return Size(0, array.nbytes) if memory in _SHARED else Size(array.nbytes, 0)
    # What a class says itself may count the parts too, or fail.
    own = object.__sizeof__(value) if isinstance(kind.__sizeof__, FunctionType) else sys.getsizeof(value)
    nbytes = getattr(kind, "nbytes", None)
    return Size(max(own, nbytes.__get__(value)) if alone and isinstance(nbytes, GetSetDescriptorType) else own)


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _memory_of(array: Any) -> object:
    """What an array is a view of, in the end; itself if it is none."""
    memory = array
    while (base := memory.obj if isinstance(memory, memoryview) else getattr(memory, "base", None)) is not None:
        memory = base
    return memory


def _type_name(value: object) -> str:
    name = type(value).__name__
    if _is_array(value):
        array: Any = value
        return f"{name} {array.dtype} {array.shape}".replace(",)", ")")
    return name
