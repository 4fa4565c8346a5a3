"""How much memory values and names take."""

import gc
import mmap
import os
import platform
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nsactors.namespace.memory import namespace_memory, process_memory, size_of
from nsactors.protocol.engine_info import Size

MB = 1_000_000


def own(value: object) -> int:
    size = size_of([value])
    assert size.shared == 0
    return size.own


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


class Unruly:
    def __sizeof__(self) -> int:
        raise AssertionError("code of the user's was run")

    @property
    def nbytes(self) -> int:
        raise AssertionError("code of the user's was run")


def test_an_array_counts_by_its_nbytes() -> None:
    assert own(np.zeros(MB)) == 8 * MB


def test_a_small_value_counts_as_python_says() -> None:
    assert own("text") == sys.getsizeof("text")


def array(items: int = MB) -> Any:
    return np.zeros(items)


@pytest.mark.parametrize(
    "container",
    [
        [array()],
        (array(),),
        {"a": array()},
        {1: [{2: array()}]},
        deque([array()]),
        Holder(array()),
        Slotted(array()),
        np.array([array(), None], dtype=object),
        pd.DataFrame({"a": array()}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_an_array_counts_with_it(container: object) -> None:
    assert own(container) == pytest.approx(8 * MB, rel=0.01)


def test_a_table_of_texts_counts_with_them() -> None:
    table = pd.DataFrame({"s": [f"text {number}" for number in range(100_000)]})
    assert own(table) == pytest.approx(sys.getsizeof(table), rel=0.2)


def test_what_is_held_twice_counts_once() -> None:
    one = array()
    assert own([one, one, Holder(one)]) == pytest.approx(8 * MB, rel=0.01)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: list(range(MB)), 8 * MB + 28 * MB),
        (lambda: [[row * 1000 + item for item in range(1000)] for row in range(1000)], 8 * MB + 28 * MB),
        (lambda: [{"a": np.zeros(100), "b": row} for row in range(20_000)], None),
    ],
    ids=["list", "rows", "records"],
)
def test_large_containers_are_judged_by_a_sample(make: Callable[[], Any], size: int | None) -> None:
    container = make()
    exact = size or _all_parts(container)
    assert own(container) == pytest.approx(exact, rel=0.1)


def test_so_are_large_dictionaries() -> None:
    container = {number: float(number) for number in range(MB)}
    exact = sys.getsizeof(container) + sum(map(sys.getsizeof, [*container, *container.values()]))
    assert own(container) == pytest.approx(exact, rel=0.1)


def _all_parts(value: Any) -> int:
    seen, waiting, total = {id(value)}, [value], 0
    while waiting:
        part = waiting.pop()
        total += part.nbytes if isinstance(part, np.ndarray) else sys.getsizeof(part)
        for held in gc.get_referents(part):
            if id(held) not in seen and not isinstance(held, type):
                seen.add(id(held))
                waiting.append(held)
    return total


def test_memory_of_a_file_is_told_apart() -> None:
    with mmap.mmap(-1, 4096) as memory:
        view = np.frombuffer(memory, "u1")
        assert size_of([view[::2]]) == Size(own=0, shared=2048)
        del view


def test_no_code_of_the_users_is_run() -> None:
    assert own(Unruly()) < 1000


def test_functions_and_classes_do_not_lead_to_all_that_their_module_holds() -> None:
    assert own([own, Holder, sys]) < 1000


def defined(source: str, name: str) -> tuple[Any, dict[str, Any]]:
    """Define a name in a namespace that also has an array of 8 MB; return its value and the namespace."""
    names: dict[str, Any] = {"table": array()}
    exec(source, names)
    return names[name], names


@pytest.mark.parametrize(
    "source",
    [
        "def f(): return table.sum()",
        "f = lambda: table",
        "import functools\nf = functools.wraps(print)(lambda: table)",
        "import functools\n@functools.lru_cache\ndef f(x): return table[x]",
        "class f:\n    def sum(self): return table.sum()",
        "f = (table[0] for i in range(3))",
        "import sys; f = sys._getframe()",
        "import types; f = types.ModuleType('m'); f.table = table",
    ],
)
def test_what_is_defined_beside_an_array_does_not_hold_it(source: str) -> None:
    value, _ = defined(source, "f")
    assert own(value) < 20_000


def test_a_function_holds_its_defaults_its_attributes_and_the_outer_variables_that_it_uses() -> None:
    outer, default, attribute = array(), array(), array()

    def f(x: Any = default) -> Any:
        return x + outer

    f.table = attribute  # type: ignore[attr-defined]
    assert own(f) == pytest.approx(24 * MB, rel=0.01)


def test_a_name_for_the_namespace_is_not_charged_with_the_names() -> None:
    _, names = defined("here = globals()\nalso = [here]\ndef f(): return table", "here")
    sizes = {each.name: each.size.own for each in namespace_memory(names, top=9).names}
    assert sizes["table"] == 8 * MB
    assert all(sizes[name] < 20_000 for name in ("here", "also", "f"))


def test_a_value_that_holds_itself_is_measured() -> None:
    endless: list[Any] = [array()]
    endless.append(endless)
    assert own(endless) == pytest.approx(8 * MB, rel=0.01)


def test_names_come_in_order_of_size_and_those_left_out_are_counted() -> None:
    names = {"small": 1, "large": array(), "medium": array(1000)}
    memory = namespace_memory(names, top=2)
    assert [name.name for name in memory.names] == ["large", "medium"]
    assert memory.names[0].type_name == "ndarray float64 (1000000)"
    assert memory.others == 1


def test_a_value_under_two_names_counts_once_in_all() -> None:
    one = array()
    memory = namespace_memory({"a": one, "b": one}, top=9)
    assert [name.size.own for name in memory.names] == [8 * MB, 8 * MB]
    assert memory.size.own == 8 * MB


def test_modules_private_names_and_those_of_the_prompt_are_left_out() -> None:
    names = {"np": np, "_": array(), "__name__": "__main__", "In": [""], "Out": {}, "exit": 1, "mine": 1}
    assert [name.name for name in namespace_memory(names, top=9).names] == ["mine"]


def test_results_that_the_prompt_keeps_are_told() -> None:
    assert namespace_memory({"Out": {1: array()}}, top=9).names[0].name == "Out"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_what_a_process_has_alone_is_less_than_what_it_sees() -> None:
    memory = process_memory()
    assert memory is not None
    assert MB < memory.unique < memory.resident


ARRAYS = """
import resource, sys
import numpy as np
from nsactors.namespace.memory import keep_freed_memory
kept = keep_freed_memory()
for _ in range(3):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        a = np.ones(500_000)
        b = a + a
        del a, b
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 1_000)
"""


def test_memory_of_temporary_arrays_is_kept_for_the_next_ones() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc can be told to")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert run_python(ARRAYS, environment) == "True True"
    assert run_python(ARRAYS, {**environment, "MALLOC_TRIM_THRESHOLD_": "131072"}) == "True False"


def run_python(program: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
