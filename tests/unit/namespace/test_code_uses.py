"""What code uses that is another each time: told from its names, without running it."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest

from nsactors.namespace.code_uses import (
    attributes_set_by_call,
    attributes_set_by_cell,
    inputs_of_call,
    inputs_of_cell,
)

CLOCK, BITS, FILES, NETWORK, PROGRAMS, PROCESS = (
    "the clock",
    "random bits of the system",
    "files",
    "the network",
    "other programs",
    "the process",
)


def names_after(*cells: str) -> dict[str, Any]:
    """The namespace when these have run; what they would do outside of it is left out."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(cell, names)
    return names


def found(cell: str, setup: str = "") -> tuple[str, ...]:
    """Return the inputs that a cell uses. The cell is not run, except its imports and earlier ones."""
    imports = "\n".join(line for line in cell.splitlines() if line.startswith(("import ", "from ")))
    return inputs_of_cell(cell, names_after(setup, imports))


@pytest.mark.parametrize(
    ("cell", "source"),
    [
        ("import time\nt = time.time()", CLOCK),
        ("import time as clock\nt = clock.perf_counter()", CLOCK),
        ("from time import time as now\nt = now()", CLOCK),
        ("import datetime\nt = datetime.datetime.now()", CLOCK),
        ("from datetime import date\nt = date.today()", CLOCK),
        ("import pandas as pd\nt = pd.Timestamp.now()", CLOCK),
        ("import uuid\nname = uuid.uuid4().hex", BITS),
        ("from os import urandom\nkey = urandom(8)", BITS),
        ("import secrets\nkey = secrets.token_hex()", BITS),
        ("import random\ng = random.SystemRandom()", BITS),
        ("import random\ng = random.Random()", BITS),
        ("import random\nrandom.seed()", BITS),
        ("text = open('data').read()", FILES),
        ("with open('data', 'rb') as f: a = f.read()", FILES),
        ("from pathlib import Path\ntext = Path('data').read_text()", FILES),
        ("import os\nnames = [n for n in os.listdir('.') if n]", FILES),
        ("import os.path\nis_there = os.path.exists('data')", FILES),
        ("import glob\nnames = glob.glob('*')", FILES),
        ("import numpy as np\na = np.load('a.npy')", FILES),
        ("import pandas as pd\ndf = pd.read_csv('a.csv')", FILES),
        ("from pandas import read_parquet\ndf = read_parquet('a')", FILES),
        ("import urllib.request\npage = urllib.request.urlopen('http://localhost')", NETWORK),
        ("import socket\ns = socket.create_connection(('localhost', 1))", NETWORK),
        ("from sklearn.datasets import fetch_openml\nX = fetch_openml('iris')", NETWORK),
        ("import subprocess\nout = subprocess.check_output(['ls'])", PROGRAMS),
        ("import os\nos.system('ls')", PROGRAMS),
        ("files = !ls", PROGRAMS),
        ("%%bash\nls", PROGRAMS),
        ("import os\npid = os.getpid()", PROCESS),
    ],
)
def test_what_a_cell_uses_is_told(cell: str, source: str) -> None:
    assert found(cell) == (source,)


@pytest.mark.parametrize(
    "cell",
    [
        "import time, datetime, uuid, secrets, os, random, glob, socket, subprocess",
        "import time\ntime.sleep(0)",
        "from time import sleep\nsleep(0)",
        "import datetime\nday = datetime.date(2020, 1, 1)",
        "import random\nx = random.random(); random.seed(5); g = random.Random(5)",
        "import numpy as np\nx = np.random.default_rng().random(); np.random.seed()",
        "with open('out', 'w') as file: file.write('text')",
        "import os\nos.environ['A'] = '1'; os.makedirs('a', exist_ok=True); p = os.path.join('a', 'b')",
        "import uuid\nu = uuid.UUID(int=5)",
        "now = 5\nload = now + 1\nread_me = load",
        "record = {'time': 5}; record['time'] += 1; x = record.get('now')",
        "def later():\n    import time\n    return time.time()",
        "this is no python",
        "x = 1",
    ],
)
def test_what_is_the_same_each_time_is_not_told(cell: str) -> None:
    assert found(cell) == ()


FUNCTIONS = """
import time
class Timer:
    def __init__(self): self.at = time.time()
    def restart(self): self.at = time.time()
timer = Timer()
def stamp(): return time.time()
def outer(): return [stamp() for _ in range(2)]
def made():
    def inner(): return stamp()
    return inner
closure = made()
import functools
@functools.lru_cache
def cached(): return stamp()
bound = timer.restart
later = functools.partial(stamp)
table = {"stamp": stamp}
plain = 5
"""


@pytest.mark.parametrize(
    "cell",
    [
        "t = stamp()",
        "t = outer()",
        "t = closure()",
        "t = cached()",
        "t = Timer()",
        "timer.restart()",
        "bound()",
        "t = later()",
        "t = table['stamp']()",
        "t = [f() for f in [outer]]",
        "def f(): return stamp()\nt = f()",
    ],
)
def test_the_users_functions_are_looked_into(cell: str) -> None:
    names = names_after(FUNCTIONS, *([cell] if cell.startswith("def") else []))
    assert inputs_of_cell(cell, names) == (CLOCK,)


def test_functions_that_are_only_named_in_passing_are_told_too_and_data_is_not() -> None:
    names = names_after(FUNCTIONS)
    assert inputs_of_cell("plain += 1", names) == ()
    assert inputs_of_cell("plain = len(str(plain))", names) == ()


def test_a_users_module_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = types.ModuleType("mine")
    exec(compile("import time\ndef stamp(): return time.time()", "/home/ann/mine.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "mine", module)
    assert inputs_of_cell("t = mine.stamp()", {"mine": module}) == (CLOCK,)
    assert inputs_of_cell("from mine import stamp\nt = stamp()", {"stamp": vars(module)["stamp"]}) == (CLOCK,)


def test_names_of_a_function_are_not_those_of_the_namespace() -> None:
    names = names_after("import time\ndef f(time): return time.time()")
    assert inputs_of_cell("x = f(clock)", names) == ()


def made(source: str) -> Callable[..., Any]:
    names = names_after("import time, os\nlog = []\ncount = 0")
    exec(source, names)
    function: Callable[..., Any] = names["f"]
    return function


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    global count\n    count = time.time()",
        "def f(): log.append(time.time())",
        "def f(): os.stamp = time.time()",
    ],
)
def test_a_call_that_may_leave_something_is_told(source: str) -> None:
    function = made(source)
    assert inputs_of_call(function, (), {}, function.__globals__) == (CLOCK,)
    assert inputs_of_call(functools.partial(map, function), ([1],), {}, function.__globals__) == (CLOCK,)


def test_a_call_that_only_returns_something_is_not_told() -> None:
    import time

    function = made("def f(out=None): return time.time()")
    names = function.__globals__
    assert inputs_of_call(function, (), {}, names) == ()
    assert inputs_of_call(time.time, (), {}, names) == ()
    assert inputs_of_call(function, (names["log"],), {}, names) == (CLOCK,), "it may change its argument"


def test_an_object_that_answers_everything_is_left_alone() -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("it was asked")

        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("it was asked")

    assert inputs_of_cell("x = odd.time", {"odd": Odd()}) == ()
    assert inputs_of_call(Odd(), (Odd(),), {}, {"odd": Odd()}) == ()


@pytest.mark.parametrize(
    ("cell", "attributes"),
    [
        ("import numpy as np\nnp.mine = 5", ("numpy.mine",)),
        ("import os.path\nos.path.mine: int = 5", ("posixpath.mine",)),
        ("import numpy as np\nnp.mine += 5", ("numpy.mine",)),
        ("import string\nstring.table['a'] += 5", ("string.table[...]",)),
        ("import numpy as np\ndel np.mine", ("numpy.mine",)),
        ("import numpy as np\nsetattr(np, 'mine', 5)", ("numpy.?",)),
        ("import string\nstring.table['a'] = 5", ("string.table[...]",)),
        ("import string\nstring.settings.deep = 5", ("string.settings.deep",)),
        ("import pandas as pd\npd.DataFrame.mine = len", ("pandas.DataFrame.mine",)),
        ("from pandas import DataFrame\nDataFrame.mine = len", ("pandas.DataFrame.mine",)),
        ("import numpy as np\ndef f():\n    np.mine = 5", ("numpy.mine",)),
        ("def f():\n    import numpy\n    numpy.mine = 5", ("numpy.mine",)),
        ("import os, sys\nos.environ['A'] = '1'; sys.path[0] = ''", ()),
        ("import pandas as pd\npd.options.display.max_rows = 5", ()),
        ("import matplotlib as plt\nplt.rcParams['lines.linewidth'] = 5", ()),
        ("class A: pass\na = A()\na.x = 5\nA.y = 5", ()),
        ("import numpy as np\nx = np.ones(3)\nx[0] = 5\nx.shape = (3,)", ()),
        ("import numpy as np\nprint(np.e == 3, end='')", ()),
        ("x = 1", ()),
    ],
)
def test_attributes_of_modules_that_a_cell_sets_are_named(cell: str, attributes: tuple[str, ...]) -> None:
    imports = "\n".join(line for line in cell.splitlines() if line.startswith(("import ", "from ")))
    found = attributes_set_by_cell(cell, names_after(imports))
    assert tuple(name.replace("pandas.core.frame", "pandas") for name in found) == attributes


def test_attributes_of_modules_that_a_called_function_sets_are_named() -> None:
    assert attributes_set_by_call(made("def f(): os.mine = 5")) == ("os.mine",)
    assert attributes_set_by_call(made("def f(): log[0] = os.sep")) == ()
    assert attributes_set_by_call(len) == ()


def test_data_may_be_nested_as_deeply_as_it_likes() -> None:
    names = names_after("import time\nnested = [time.time]\nfor _ in range(100_000): nested = [nested]")
    assert inputs_of_cell("first = nested\nt = time.time()", names) == (CLOCK,)
    assert inputs_of_call(len, (names["nested"],), {}, names) == ()


def test_functions_that_call_each_other_may_be_many() -> None:
    cells = ["import time\ndef f0(): return time.time()"]
    cells += [f"def f{number}(): return f{number - 1}()" for number in range(1, 1_000)]
    assert inputs_of_cell("t = f999()", names_after(*cells)) == (CLOCK,)


@pytest.mark.parametrize(
    "odd",
    [
        "class M(type):\n    def __getattribute__(cls, name): raise ValueError\nC = M('C', (), {})",
        "class M(type):\n    @property\n    def __module__(cls): raise ValueError\nclass C(metaclass=M): pass",
        "class C: pass\nC.__module__ = 5",
    ],
)
def test_classes_are_looked_at_without_asking_them(odd: str) -> None:
    names = names_after("import time, json", odd, "c = object.__new__(C)")
    assert inputs_of_cell("first = c, C\nt = time.time()", names) == (CLOCK,)
    assert attributes_set_by_cell("first = c, C\nC.x = 1\njson.limit = 5", names) == ("json.limit",)


def test_what_cannot_be_looked_at_is_named() -> None:
    names = names_after("import types\nnameless = types.ModuleType('nameless')\ndel nameless.__name__")
    assert inputs_of_cell("first = nameless.load()", names) == ("objects that cannot be inspected",)
    assert attributes_set_by_cell("nameless.x = 5", names) == ("objects that cannot be inspected",)
