"""What the demo shows: each step's code, typed as at a prompt, and what must hold after it."""

from dataclasses import dataclass

__all__ = ["STEPS", "Check", "Step"]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold after a step.

    Attributes:
        got: a Python expression over the names of the demo; ``error`` is the exception that the step raised.
        expected: a Python expression for what it must equal, type included.
        what: what people call it; empty takes ``got``.
    """

    got: str
    expected: str
    what: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A few lines of code, and what must hold after them.

    Attributes:
        title: what it shows.
        code: Python, run exactly as it is shown, in one namespace for all steps.
        checks: what must hold afterwards.
        remark: a sentence for the reader.
        raises: name of the class of exception that it must raise; empty if none.
        columns: headings of a table; if given, the value of the code's last expression is a dictionary of its rows.
    """

    title: str
    code: str
    checks: tuple[Check, ...] = ()
    remark: str = ""
    raises: str = ""
    columns: tuple[str, ...] = ()


_PROMPT = (
    Step(
        "Start four engines",
        """
from nsactors import Cluster

cluster = Cluster(n=4)
cluster.start_cluster_sync()           # Ray and the controller
rc = cluster.start_and_connect_sync()  # the engines
rc
""",
        (Check("rc.ids", "[0, 1, 2, 3]"),),
        "An engine is a process that owns a namespace. rc, the client, drives them all.",
    ),
    Step(
        "Who is connected",
        """
import os, platform

def who():
    return os.getpid(), platform.node(), platform.python_version()

engines = rc[:].apply_async(who).get_dict()
engines
""",
        (
            Check(
                "len({pid for pid, *_ in engines.values()} | {os.getpid()})", "5", "different processes, this one too"
            ),
            Check(
                "{version for *_, version in engines.values()}",
                "{platform.python_version()}",
                "the engines' Python is the one here",
            ),
        ),
        "Functions typed at the prompt travel to the engines by value.",
        columns=("engine", "pid", "host", "python"),
    ),
    Step(
        "A statement on all engines",
        """
rc[:].execute("import math; a = 5", block=True)
rc["a"]
""",
        (Check('rc["a"]', "[5, 5, 5, 5]"),),
    ),
    Step(
        "Another on some of them",
        """
result = rc[[0, 1]].execute("c = a*math.pi; print(c)", block=True)
result.display_outputs()
""",
        (Check("result.stdout", r"['15.707963267948966\n', '15.707963267948966\n']", "printed on engines 0 and 1"),),
        "Names stay between calls, and output comes back to the prompt.",
    ),
    Step(
        "The others have no such name",
        """
rc[2:].execute("print(c)", block=True)
""",
        (
            Check("[e.engine_id for e in error.exceptions]", "[2, 3]", "failed on engines"),
            Check(
                "[isinstance(e, NameError) for e in error.exceptions]", "[True, True]", "each is a NameError here too"
            ),
        ),
        "Equal failures of several engines are shown once.",
        raises="CompositeError",
    ),
    Step(
        "A function on every engine",
        """
sums = rc[:].apply_sync(lambda: sum(x**4 for x in range(1000)))
sums
""",
        (Check("sums", "[199500333333300] * 4"),),
    ),
)

_DATA = (
    Step(
        "Push and pull",
        """
thing = {"none": None, "text": "π", "nested": [1, (2.5, {3})]}
rc["thing"] = thing
rc[0].push({"b": 10}, block=True)
rc[0].pull(["b", "a + b", "thing['nested']"], block=True)
""",
        (
            Check('rc["thing"]', "[thing] * 4", "came back unchanged from every engine"),
            Check('rc[0]["a + b"]', "15"),
        ),
        "Values go to one engine or to all; what is pulled may be an expression.",
    ),
    Step(
        "Scatter and gather",
        """
rc[:].scatter("xdata", range(64), block=True)
rc[:].execute("ydata = [x**10 for x in xdata]", block=True)
ydata = rc[:].gather("ydata", block=True)
ydata[:6]
""",
        (
            Check("ydata", "[x**10 for x in range(64)]", "equals the serial answer"),
            Check("ydata[-1]", "984930291881790849"),
            Check('[len(part) for part in rc["xdata"]]', "[16, 16, 16, 16]", "items on each engine"),
        ),
    ),
    Step(
        "Map a function over a million numbers",
        """
powers = rc[:].map_sync(lambda x: x**10, range(10**6))
len(powers)
""",
        (
            Check("powers[-1]", "999990000044999880000209999748000209999880000044999990000001"),
            Check("sum(powers)", "90908590909924242424241424242424243424242424241924242424242500000"),
        ),
    ),
    Step(
        "Count the words of Python's standard library",
        r"""
import re, sysconfig, time
from collections import Counter
from pathlib import Path
from nsactors import Reference

def count_words(files):
    counts = Counter()
    for file in files:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
        counts.update(re.findall(r"\w+", text))
    return counts

library = Path(sysconfig.get_paths()["stdlib"])
files = [str(file) for file in sorted(library.rglob("*.py"))
         if not {"site-packages", "dist-packages"} & {*file.parts}]

begin = time.perf_counter()
rc[:].scatter("files", files, dist="r", block=True)  # dealt out in turn
words = Counter()
for part in rc[:].apply_async(count_words, Reference("files")):
    words.update(part)
middle = time.perf_counter()
serial = count_words(files)
end = time.perf_counter()

print(len(files), "files,", words.total(), "words:", words.most_common(3))
{"4 engines": f"{middle - begin:.2f}", "one process": f"{end - middle:.2f}"}
""",
        (
            Check("sorted(words.items())", "sorted(serial.items())", "equals the serial answer"),
            Check("words.total() > 100_000", "True", "more than 100,000 words"),
        ),
        "Each engine reads its own share; the serial count, last, finds the files warm.",
        columns=("counted by", "seconds"),
    ),
)

_FAILURES = (
    Step(
        "Three engines fail alike",
        """
rc[:].scatter("divisor", [2, 0, 0, 0], flatten=True, block=True)

def divide():
    return 10 / divisor

rc[:].apply_sync(divide)
""",
        (
            Check("[e.engine_id for e in error.exceptions]", "[1, 2, 3]", "failed on engines"),
            Check("len(error.groups)", "1", "kinds of failure shown"),
            Check(
                "[isinstance(e, ZeroDivisionError) for e in error.exceptions]",
                "[True] * 3",
                "each is the built-in error",
            ),
        ),
        "The function sees the engine's names.",
        raises="CompositeError",
    ),
    Step(
        "An engine is killed while it works",
        """
import signal

others = rc[:3].apply_async(lambda: sum(range(10**7)))
busy = rc[3].execute("import time; print('at work'); time.sleep(60)")
while not busy.stdout:  # output arrives as it is printed
    busy.wait(0.05)
pid, *_ = engines[3]
os.kill(pid, signal.SIGKILL)
busy.get()
""",
        (
            Check("error.engine_id", "3", "the engine named by the error"),
            Check("rc.ids", "[0, 1, 2, 3]", "it is on its way back"),
        ),
        "The call it was running fails at once, and says why.",
        raises="EngineLost",
    ),
    Step(
        "The others work on",
        """
print(others.get())
rc[:3].apply_async(who).get_dict()
""",
        (
            Check("others.get()", "[49999995000000] * 3", "what they were computing meanwhile"),
            Check("rc[:3].apply_async(who).get_dict()", "{i: engines[i] for i in (0, 1, 2)}", "the same processes"),
            Check('rc[:3]["a"]', "[5, 5, 5]", "their names are still there"),
        ),
        columns=("engine", "pid", "host", "python"),
    ),
    Step(
        "A new process takes its place",
        """
rc[[3]].apply_async(who).get_dict()
""",
        (Check("rc[3].apply_sync(who)[0] == pid", "False", "another process, under the same id"),),
        "Its namespace is empty. Cluster(recovery='replay') would bring it back.",
        columns=("engine", "pid", "host", "python"),
    ),
)

STEPS = (*_PROMPT, *_DATA, *_FAILURES)
"""All steps, in order; each uses names that earlier ones have bound."""
