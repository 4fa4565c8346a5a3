"""Components of a namespace: what is pickled together, what is not, and what it is when it is loaded again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.snapshot import restore, take
from nsactors.recovery.journal import Snapshot


def namespace(code: str) -> dict[str, Any]:
    names = fresh_names()
    exec(compile(code, "<test>", "exec", dont_inherit=True), names)
    return names


def loaded(code: str, *, left_out: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """A namespace restored from a snapshot of one that has run ``code``."""
    snapshot = take(namespace(code))
    assert snapshot.left_out.keys() == set(left_out)
    names = fresh_names()
    assert restore(snapshot, names) == {}
    return names


def components(snapshot: Snapshot) -> set[frozenset[str]]:
    return {frozenset(part.names) for part in snapshot.parts}


# One bad name


BAD = {
    "lock": "import threading\nbad = threading.Lock()",
    "generator": "bad = (i for i in range(3))",
    "connection to a database": "import sqlite3\nbad = sqlite3.connect(':memory:')\nbad.close()",
    "socket": "import socket\nbad = socket.socket()\nbad.close()",
    "proxy of what is gone": "import weakref\nclass C: pass\nc = C()\nbad = weakref.proxy(c)\ndel c",
    "proxy of what is there": "import weakref\nclass C: pass\nc = C()\nbad = weakref.proxy(c)",
    "class that raises when it is asked for": (
        "class C:\n    @property\n    def __class__(self): raise RuntimeError('no')\nbad = C()\ndel C"
    ),
    "reduction that exits": "class C:\n    def __reduce__(self): raise SystemExit\nbad = C()",
    "reduction that interrupts": "class C:\n    def __reduce__(self): raise KeyboardInterrupt\nbad = C()",
    "error without a text": (
        "class E(Exception):\n    def __str__(self): raise ValueError\n"
        "class C:\n    def __reduce__(self): raise E\nbad = C()"
    ),
    "reduction to the name of something else": "class C:\n    def __reduce__(self): return 'good'\nbad = C()",
    "library": "import ctypes\nbad = ctypes.CDLL(None)",
    "part of a memory": "bad = memoryview(b'abc')[1:]",
    "attributes of a class": "class C: pass\nbad = vars(C)",
    "recursion": "bad = []\nfor _ in range(100_000): bad = [bad]",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_pickled_costs_no_other_name(kind: str) -> None:
    names = loaded(f"{BAD[kind]}\ngood = [1]\nalso = [good]", left_out={"bad"})
    assert names["also"][0] is names["good"]
    assert names["good"] == [1]


ODD = {
    "metaclass whose classes have no hash": (
        "class M(type):\n    def __hash__(self): raise ValueError\nclass C(metaclass=M): pass\nodd = C()"
    ),
    "metaclass whose classes cannot be compared": (
        "class M(type):\n    def __eq__(self, other): raise ValueError\nclass C(metaclass=M): pass\nodd = C()"
    ),
    "size that raises": "class C:\n    def __sizeof__(self): raise ValueError\nodd = C()",
    "module whose attributes raise": (
        "import types\nclass C(types.ModuleType):\n    @property\n    def __dict__(self): raise ValueError\n"
        "odd = C('odd')"
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_raises_when_it_is_looked_at_costs_no_other_name(kind: str) -> None:
    snapshot = take(namespace(f"good = [1]\n{ODD[kind]}\nalso = [good, odd]\nbesides = [odd]\nlast = [good]"))
    names = fresh_names()
    restore(snapshot, names)
    assert names["last"][0] is names["good"]
    assert names["good"] == [1]


def test_what_refers_to_a_name_that_is_left_out_is_left_out_with_it() -> None:
    code = "import threading\nclass C: lock = threading.Lock()\nc = C()\nd = [1]"
    snapshot = take(namespace(code))
    assert components(snapshot) == {frozenset({"d"})}
    assert snapshot.left_out == {
        "C": "TypeError: cannot pickle '_thread.lock' object",
        "c": "it needs C (TypeError: cannot pickle '_thread.lock' object)",
    }


def test_a_component_that_does_not_load_costs_no_other_one() -> None:
    code = "class E(Exception):\n    def __init__(self, a, b): super().__init__(a)\nbad = E(1, 2)\nworse = [bad]\n"
    snapshot, names = take(namespace(code + "good = [1]")), fresh_names()
    failed = restore(snapshot, names)
    assert failed.keys() == {"bad", "worse"}
    assert "missing 1 required positional argument" in failed["bad"]
    assert (names["good"], isinstance(names["E"], type)) == ([1], True)


@pytest.mark.parametrize("action", ["raise SystemExit", "raise KeyboardInterrupt", "raise BaseException"])
def test_loading_that_raises_what_ends_programs_costs_no_other_name(action: str) -> None:
    code = f"class C:\n    def __reduce__(self): return exec, ({action!r},)\nbad = C()\ngood = [1]"
    names = fresh_names()
    assert restore(take(namespace(code)), names).keys() == {"bad"}
    assert names["good"] == [1]


def test_names_of_this_process_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    monkeypatch.setattr(__main__, "C", dict, raising=False)
    monkeypatch.setattr(__main__, "other", 5, raising=False)
    names = namespace("class C:\n    def __reduce__(self): return 'other'\nother = C()")
    monkeypatch.setattr(__main__, "other", names["other"])
    restored = fresh_names()
    assert restore(take(names), restored) == {"other": "UnpicklingError: it needs other, which was not restored"}


def test_components_that_are_to_be_skipped_are_not_loaded() -> None:
    names, began = fresh_names(), list[str]()
    snapshot = take(namespace("import math\na = [1]\nb = [2]"))
    assert restore(snapshot, names, skipped={"a": "it ends the engine"}, loads=began.append) == {
        "a": "it ends the engine"
    }
    assert began == ["math", "b"]
    assert names["b"] == [2]


# What belongs together


def test_names_that_share_what_can_change_are_one_component_and_others_are_not() -> None:
    snapshot = take(namespace("a = [1]\nb = {'a': a}\nc = (a,)\nd = [2]\nt = ('text', 1)\ne = [t]\nf = [t]"))
    assert {frozenset("abc"), frozenset("d"), frozenset("e"), frozenset("f")} <= components(snapshot)


def test_what_is_large_is_not_copied_into_each_component() -> None:
    snapshot = take(namespace("text = 'x' * 100_000\na = [text]\nb = [text]"))
    assert components(snapshot) == {frozenset({"text", "a", "b"})}
    assert snapshot.nbytes < 150_000


def test_one_object_with_two_names_stays_one() -> None:
    names = loaded("a = ('x', 1)\nb = a\nclass C: pass\nc = d = C()\nf = g = lambda: 1")
    assert names["a"] == names["b"]
    assert names["c"] is names["d"]
    assert names["f"] is names["g"]


def test_a_class_its_instances_and_what_derives_from_it_stay_related() -> None:
    code = """
class A:
    made = []
    def __init__(self): self.made.append(self)
class B(A): pass
a, b = A(), B()
method = a.__init__
"""
    names = loaded(code)
    assert (type(names["a"]), type(names["b"]), names["B"].__base__) == (names["A"], names["B"], names["A"])
    assert names["A"].made == [names["a"], names["b"]]
    assert names["method"].__self__ is names["a"]


def test_a_class_inside_of_a_class_stays_one() -> None:
    names = loaded("class A:\n    class B: pass\nx, y = A.B(), A.B()")
    assert type(names["x"]) is type(names["y"]) is names["A"].B


def test_a_metaclass_that_knows_its_classes_does_so_again() -> None:
    code = """
class Meta(type):
    classes = []
    def __new__(meta, name, bases, body):
        cls = super().__new__(meta, name, bases, body)
        meta.classes.append(cls)
        return cls
class A(metaclass=Meta): pass
a = A()
"""
    names = loaded(code)
    assert names["Meta"].classes == [names["A"]]
    assert type(names["a"]) is names["A"]


def test_values_of_library_classes_made_in_main_stay_what_they_are() -> None:
    code = """
import abc, collections, dataclasses, enum, operator
from functools import partial
class Color(enum.Enum): RED = 1
@dataclasses.dataclass(frozen=True)
class Point: x: int = 0
Pair = collections.namedtuple("Pair", "a b")
class Slots: __slots__ = ("a",)
class Base(abc.ABC): pass
Base.register(int)
color, point, pair, slots = [Color.RED], [Point(3)], [Pair(1, 2)], Slots()
slots.a = color
pick, add = operator.itemgetter(1), partial(Point, 4)
"""
    names = loaded(code)
    assert names["color"][0] is names["Color"].RED
    assert names["point"] == [names["Point"](3)]
    assert type(names["pair"][0]) is names["Pair"]
    assert names["slots"].a is names["color"]
    assert issubclass(int, names["Base"])
    assert (names["pick"]("ab"), names["add"]()) == ("b", names["Point"](4))


def test_decorated_functions_and_types_come_back() -> None:
    code = """
from functools import cached_property, lru_cache, singledispatch
from typing import NewType, ParamSpec
@lru_cache
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
class C:
    @lru_cache
    def double(self): return 2
    @cached_property
    def triple(self): return 3
c, X, P = C(), NewType("X", int), ParamSpec("P")
def f(x: X) -> X: return x
calls = [fib]
"""
    names = loaded(code)
    assert (names["fib"](20), names["c"].double(), names["c"].triple) == (6765, 2, 3)
    assert names["f"].__annotations__ == {"x": names["X"], "return": names["X"]}
    assert names["calls"] == [names["fib"]]


def test_two_closures_over_one_variable_share_it_and_functions_that_call_each_other_do() -> None:
    code = """
def counter():
    n = 0
    def count():
        nonlocal n
        n += 1
    return count, lambda: n
count, get = counter()
count()
def parity():
    def even(n): return n == 0 or odd(n - 1)
    def odd(n): return n != 0 and even(n - 1)
    return even, odd
even, odd = parity()
"""
    names = loaded(code)
    names["count"]()
    assert (names["get"](), names["even"](10), names["odd"](10)) == (2, True, False)


def test_a_class_that_comes_back_is_not_entered_once_more_wherever_it_was_entered() -> None:
    code = """
from typing import Generic, TypeVar
entered, made = [], []
T = TypeVar("T")
class Base(Generic[T]):
    names = []
    def __init_subclass__(cls, **options):
        super().__init_subclass__()
        Base.names.append(cls.__name__)
        entered.append(cls)
class A(Base[int]): pass
class B(Base): pass
class Meta(type):
    def __init__(cls, *args): made.append(cls)
class C(metaclass=Meta): pass
a = A()
"""
    names = loaded(code)
    assert names["Base"].names == ["A", "B"]
    assert names["entered"] == [names["A"], names["B"]]
    assert names["made"] == [names["C"]]
    assert names["A"].__orig_bases__ == (names["Base"][int],)
    type("D", (names["Base"],), {})
    assert names["Base"].names == ["A", "B", "D"]


def test_views_are_views_of_what_they_were_views_of() -> None:
    code = """
import types
from collections import OrderedDict
d, o, memory = {"a": 1}, OrderedDict(a=1), bytearray(b"abc")
keys, values, items, ordered = d.keys(), d.values(), d.items(), o.keys()
proxy, view = types.MappingProxyType(d), memoryview(memory)
"""
    names = loaded(code)
    names["d"]["b"], names["o"]["b"], names["memory"][0] = 2, 2, 90
    assert (list(names["keys"]), list(names["values"]), list(names["ordered"])) == (["a", "b"], [1, 2], ["a", "b"])
    assert (list(names["items"]), dict(names["proxy"])) == ([("a", 1), ("b", 2)], {"a": 1, "b": 2})
    assert bytes(names["view"]) == b"Zbc"


def test_an_exception_keeps_its_cause_and_its_context() -> None:
    code = """
try:
    try: 1 / 0
    except ZeroDivisionError as error: raise KeyError("k") from error
except KeyError as error: caught = error
try:
    try: 1 / 0
    except ZeroDivisionError: int("x")
except ValueError as error: later = error
caught.add_note("note")
"""
    names = loaded(code)
    assert isinstance(names["caught"].__cause__, ZeroDivisionError)
    assert (names["caught"].args, names["caught"].__notes__) == (("k",), ["note"])
    assert isinstance(names["later"].__context__, ZeroDivisionError)
    assert names["later"].__cause__ is None


def test_names_with_underscores_are_the_users_unless_python_has_given_them() -> None:
    names = loaded("__version__, _private = '1.0', [1]\nx: int = 3")
    assert (names["__version__"], names["_private"], names["__annotations__"]) == ("1.0", [1], {"x": int})


def test_code_that_runs_while_data_is_loaded_finds_functions_and_constants() -> None:
    code = """
data = [1]
class C:
    def __setstate__(self, state): self.size = helper() + LIMIT
c = C()
c.size = 0
def helper(): return math.floor(2.5)
LIMIT = 40
import math
"""
    assert loaded(code)["c"].size == 42


def test_state_of_generators_of_random_numbers_and_iterators_is_kept() -> None:
    names = loaded("import random\nr = random.Random(3)\nr.random()\ni = iter([1, 2, 3])\nnext(i)")
    expected = namespace("import random\nr = random.Random(3)\nr.random()")
    assert (names["r"].random(), next(names["i"])) == (expected["r"].random(), 2)


# Arrays and tables


def test_arrays_that_overlap_do_so_again_and_others_do_not() -> None:
    code = """
import numpy as np
base = np.arange(12.0)
part, turned, back = base[2:5], base.reshape(3, 4).T, base[::-2]
items = [base[:3], {"tail": (base[6:],)}]
left, right = np.arange(10)[:5], np.arange(10)[5:]
alone = np.arange(3)
"""
    names = loaded(code)
    names["base"][:] = -1
    for view in (names["part"], names["turned"], names["back"], names["items"][0], names["items"][1]["tail"][0]):
        assert (view == -1).all()
    assert names["turned"].shape == (4, 3)
    assert names["alone"].tolist() == [0, 1, 2]
    assert components(take(namespace(code))) >= {frozenset({"left"}), frozenset({"right"}), frozenset({"alone"})}


def test_arrays_in_objects_of_the_users_overlap_again() -> None:
    code = """
import collections, dataclasses, types
import numpy as np
base = np.arange(12.0)
class Plain:
    def __init__(self, part): self.part = part
class Slotted:
    __slots__ = ("part",)
@dataclasses.dataclass
class Data:
    part: object
Pair = collections.namedtuple("Pair", "part rest")
slotted = Slotted()
slotted.part = base[1:]
holders = [Plain(base[2:]), Data(base[::2]), Pair(base[:4], 0), types.SimpleNamespace(part=base[::-1])]
nested = Plain(collections.deque([collections.defaultdict(list, x=base[3:])]))
"""
    names = loaded(code)
    names["base"][:] = -1
    parts = [names["slotted"].part, names["nested"].part[0]["x"], *(holder.part for holder in names["holders"])]
    assert [set(part.tolist()) for part in parts] == [{-1}] * 6


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_arrays_of_the_users_classes_overlap_again_and_keep_their_attributes() -> None:
    code = """
import numpy as np
class Tagged(np.ndarray): pass
tagged = np.arange(4.0).view(Tagged)
tagged.tag = ["x"]
tag, view, bare = tagged.tag, tagged[1:], tagged.view(np.ndarray)
alone = np.arange(2).view(Tagged)
alone.tag = 5
matrix = np.matrix([[1, 2], [3, 4]])
of_matrix = np.asarray(matrix)
table = np.zeros(3, [("a", "f8"), ("b", "i4")])
record = table.view(np.recarray)
"""
    names = loaded(code)
    names["bare"][:] = -1
    names["matrix"][0, 0] = 9
    names["table"]["a"][1] = 5
    assert names["tagged"].tolist() == [-1] * 4
    assert names["view"].tolist() == [-1] * 3
    assert {type(names[name]) for name in ("tagged", "view", "alone")} == {names["Tagged"]}
    assert names["tagged"].tag is names["tag"]
    assert names["alone"].tag == 5
    assert names["of_matrix"][0, 0] == 9
    assert names["record"].a[1] == 5


def test_views_of_an_array_without_a_name_take_no_more_than_their_memory() -> None:
    snapshot = take(namespace("import numpy as np\nx = np.zeros(1_000_000)\na, b = x[:10], x[5:20]\ndel x"))
    assert snapshot.nbytes < 2_000


def test_arrays_are_read_only_where_they_were() -> None:
    code = """
import numpy as np
free, fixed = np.arange(3), np.arange(3)
fixed.flags.writeable = False
view = free[:2]
view.flags.writeable = False
"""
    names = loaded(code)
    flags = {name: names[name].flags.writeable for name in ("free", "fixed", "view")}
    assert flags == {"free": True, "fixed": False, "view": False}
    names["free"][0] = 7
    assert names["view"][0] == 7


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10), st.sampled_from([1, 2, -1, -3])), max_size=5))
def test_slices_are_equal_and_share_what_they_shared(slices: list[tuple[int, int, int]]) -> None:
    base = np.arange(10)
    views = [base[start : start + length][::step] for start, length, step in slices]
    names = {**fresh_names(), **{f"v{k}": view for k, view in enumerate(views)}}
    restored = fresh_names()
    assert restore(take(names), restored) == {}
    again = [restored[f"v{k}"] for k in range(len(views))]
    assert all(np.array_equal(one, other) for one, other in zip(views, again, strict=True))
    assert [np.shares_memory(a, b) for a in views for b in views] == [
        np.shares_memory(a, b) for a in again for b in again
    ]


def test_pandas_copies_before_it_writes_as_ever() -> None:
    code = """
import numpy as np, pandas as pd
array = np.arange(3.0)
df = pd.DataFrame({"a": array, "b": list("xyz"), "c": pd.Categorical(list("xyx")), "d": pd.array([1, 2, 3], "Int64")})
renamed = df.rename(columns=str.upper)
columns = {name: df[name] for name in df}
"""
    names = loaded(code)
    before = names["df"].copy(deep=True)
    for place, name in enumerate(before):
        names["renamed"].iloc[0, place] = before.iloc[1, place]
        names["columns"][name].iloc[2] = before.iloc[1, place]
    names["array"][:] = -1
    pd.testing.assert_frame_equal(names["df"], before)
    assert names["columns"]["a"].tolist() == [0, 1, 1]


def test_tables_that_have_an_index_in_common_are_components_of_their_own() -> None:
    snapshot = take(namespace("import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}, index=['x', 'y'])\nmore = df * 2"))
    assert components(snapshot) == {frozenset({"df"}), frozenset({"more"})}


def test_an_index_with_a_name_of_its_own_stays_that_of_its_table() -> None:
    names = loaded("import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}, index=['x', 'y'])\nindex = df.index")
    assert names["df"].index is names["index"]


def test_figures_estimators_and_arrow_tables_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    code = """
import numpy as np, pyarrow as pa
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression
figure = Figure()
axes = figure.subplots()
(line,) = axes.plot([1, 2])
x = np.arange(4.0)[:, None]
model = LinearRegression().fit(x, 2 * x[:, 0])
table = pa.table({"a": [1, 2]})
"""
    names = loaded(code)
    assert names["axes"].figure is names["figure"]
    assert names["axes"].lines[0] is names["line"]
    assert names["model"].predict([[10.0]]) == pytest.approx([20.0])
    assert names["table"]["a"].to_pylist() == [1, 2]


SHARED_BY_MANY = """
class Node:
    def __getstate__(self):
        counts.append(1)
        return vars(self)

counts = []
nodes = [Node() for _ in range(20_000)]
for i in range(20):
    globals()[f"user_{i}"] = [i, nodes]
"""


def test_what_many_names_share_is_not_pickled_for_each_of_them() -> None:
    names = namespace(SHARED_BY_MANY)
    snapshot = take(names)
    assert len(names["counts"]) <= 3 * 20_000  # for two names to find out, and for all of them together
    assert any({"nodes", *(f"user_{i}" for i in range(20))} <= set(part.names) for part in snapshot.parts)
    restored = fresh_names()
    assert restore(snapshot, restored) == {}
    assert all(restored[f"user_{i}"][1] is restored["nodes"] for i in range(20))
