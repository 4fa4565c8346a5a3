"""Memory of names, values and this process.

Sizes are read without running code of the values' classes, so a control thread can measure a namespace in use.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, GetSetDescriptorType, ModuleType
from typing import Any

from nsactors.protocol.engine_info import NameMemory, NamespaceMemory, ProcessMemory, Size
from nsactors.protocol.process import imported

SAMPLE = 1_000  # parts of a large container that are measured; the others are assumed to be like these
FEW = 10  # parts that are measured in any case
BUDGET = 10_000  # values measured in total, roughly: about 30 ms

# Objects that are not followed, because they refer, directly or not, to half of the process.
_ELSEWHERE = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, FrameType)
_PROMPT_NAMES = frozenset({"In", "exit", "quit", "get_ipython", "open"})  # every IPython has these
_SHARED = frozenset({"ray", "mmap"})  # packages whose buffers are shared memory

# Parameters of mallopt, and the variables by which glibc lets users set them. The greatest value that glibc accepts for
# the second parameter is 32 MB.
_MALLOC = ((-1, "MALLOC_TRIM_THRESHOLD_", 64 * 1024 * 1024), (-3, "MALLOC_MMAP_THRESHOLD_", 32 * 1024 * 1024))


def keep_freed_memory() -> bool:
    """Let this process keep up to 64 MB of freed memory for the next arrays; return whether that worked.

    By default the C library returns most freed memory immediately, and the kernel clears every page when it is
    requested again. This takes half of the time that NumPy needs for temporary arrays of some megabytes. A user's
    settings in the environment take precedence, and settings of other C libraries than glibc are not changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return False
    settings = [(parameter, os.environ.get(variable, ""), usual) for parameter, variable, usual in _MALLOC]
    return all(mallopt(parameter, int(own) if own.isdigit() else usual) for parameter, own, usual in settings)


def namespace_memory(names: Mapping[str, Any], top: int) -> NamespaceMemory:
    """Return the ``top`` largest of the user's names, and the size of all names; callable while the names change.

    Modules are left out, and so are names that begin with an underscore, such as IPython's last results, which ``Out``
    holds anyway.
    """
    made = {name: value for name, value in user_names(names).items() if not isinstance(value, ModuleType)}
    sized = [NameMemory(name, type_name_of(value), size_of([value], names)) for name, value in made.items()]
    sized.sort(key=lambda one: (-one.size.total, one.name))
    return NamespaceMemory(tuple(sized[:top]), len(sized[top:]), size_of(made.values(), names))


def user_names(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of a namespace that are the user's, not those of Python or of IPython's prompt."""
    return {
        name: value
        for name, value in list(names.items())
        if not name.startswith("_") and name not in _PROMPT_NAMES and (name != "Out" or value)
    }


def size_of(values: Iterable[object], namespace: object = None) -> Size:
    """Estimate the memory of values with all that they hold, each part counted once.

    Arrays count by ``nbytes``, and so do objects of compiled classes that have this attribute; other objects count by
    ``sys.getsizeof``. Large containers are sampled. Functions hold their defaults and the outer variables that they
    use, not the globals of their module. No Python code of the values' classes runs, so any thread can call this.

    Args:
        values: the values.
        namespace: a dictionary of names; a value that refers to it does not hold what the names refer to.
    """
    seen = {id(value): value for value in values}
    waiting = deque((value, 1.0) for value in seen.values())
    own = shared = 0.0
    looked_at = 0
    while waiting and looked_at < 2 * BUDGET:
        value, weight = waiting.popleft()
        looked_at += 1
        parts, count = ([], 0) if value is namespace else _parts(value)
        size = _size(value, alone=not count)
        own += weight * size.own
        shared += weight * size.shared
        room = max(FEW, min(SAMPLE, (BUDGET - looked_at) // (len(waiting) + 1)))
        # An odd step, since the parts of a dictionary are keys and values in turn.
        chosen = parts[:: (len(parts) // room) | 1] if len(parts) > room else parts
        weight *= count / max(1, len(chosen))
        for part in chosen:
            if id(part) not in seen and not isinstance(part, _ELSEWHERE):
                seen[id(part)] = part  # held, so that its id is not reused
                waiting.append((part, weight))
    return Size(round(own), round(shared))


def process_memory() -> ProcessMemory | None:
    """Return the memory of this process; None on systems that do not report it."""
    import psutil  # deferred: 35 ms, except on engines, where Ray has imported it

    try:
        memory = psutil.Process().memory_full_info()
    except psutil.Error:
        return None
    return ProcessMemory(memory.uss, memory.rss)


def _parts(value: object) -> tuple[list[Any], int]:
    """Return the objects that a value refers to, or a sample of them, and their number."""
    if _is_array(value):  # the garbage collector does not know the items of an array
        array: Any = value
        if not array.dtype.hasobject:
            return [], 0
        return array.ravel(order="K")[:: array.size // SAMPLE + 1].tolist(), array.size
    if isinstance(value, (ModuleType, FrameType)):
        return [], 0
    parts = gc.get_referents(value)
    if isinstance(value, FunctionType):
        parts = [part for part in parts if part is not value.__globals__ and part is not value.__builtins__]
    if len(parts) < FEW:
        parts = [part for part in parts if not isinstance(part, _ELSEWHERE)]
    return parts, len(parts)


def _size(value: object, *, alone: bool) -> Size:
    """Return the size of a value without its parts; ``alone`` if it has no parts."""
    kind = type(value)
    if _is_array(value):
        array: Any = value
        memory = type(_memory_of(array)).__module__.partition(".")[0]
        return Size(0, array.nbytes) if memory in _SHARED else Size(array.nbytes, 0)
    # A class's own `__sizeof__` may count the parts too, or fail.
    own = object.__sizeof__(value) if isinstance(kind.__sizeof__, FunctionType) else sys.getsizeof(value)
    nbytes = getattr(kind, "nbytes", None)
    return Size(max(own, nbytes.__get__(value)) if alone and isinstance(nbytes, GetSetDescriptorType) else own)


def _is_array(value: object) -> bool:
    numpy = imported("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _memory_of(array: Any) -> object:
    """Follow an array's bases to the object that owns its memory; the array itself if it is no view."""
    memory = array
    while (base := memory.obj if isinstance(memory, memoryview) else getattr(memory, "base", None)) is not None:
        memory = base
    return memory


def type_name_of(value: object) -> str:
    """Return the name of a value's class; for an array, also its type and shape."""
    name = type(value).__name__
    if _is_array(value):
        array: Any = value
        return f"{name} {array.dtype} {array.shape}".replace(",)", ")")
    return name
