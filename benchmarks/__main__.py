"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from benchmarks.operations.catalogue import GROUPS, OPERATIONS, SCALE, Operation, find
from benchmarks.operations.process import Beside, SystemFailed, SystemProcess, import_turn
from benchmarks.operations.report import as_json, draw, draw_cpu, draw_growth, fitted
from benchmarks.operations.rounds import Cell, Driver, Results, measure_in_rounds
from benchmarks.operations.stats import turn_order
from benchmarks.systems import SYSTEMS, is_installed

RESULTS = Path(__file__).parent / "results"
ROUNDS, QUICK_ROUNDS = 20, 4
WIDE = 400  # columns of a file, where each operation has one line
STARTED_REPEATEDLY = 8  # the largest number of engines that are started repeatedly
_IMPORTED_BY = ("nsactors", "ray", "ipyparallel", "dask")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, draw a table, write JSON; return the exit status."""
    options = _parse(arguments)
    console = Console(stderr=not sys.stdout.isatty())
    load_average = os.getloadavg()
    results = Results()
    status = 0
    try:
        _measure(options, results, console)
    except KeyboardInterrupt:
        console.print("Interrupted: what was measured so far follows.")
        status = 130
    except SystemFailed as failure:
        console.print(str(failure), markup=False)
        status = 1
    if results.turns:
        _show(results, Console(width=None if sys.stdout.isatty() else WIDE))
        path = _save(results, options, load_average)
        console.print(f"Every timing is in {path}.")
        _plot(results, path, console)
    return status


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds instead of {ROUNDS}")
    parser.add_argument("--rounds", type=int, help="how many rounds")
    parser.add_argument("--n", type=_counts, help="numbers of engines, such as 1,4,16,64; the default is 1,4")
    operations = f"{', '.join(GROUPS)}, or {', '.join(o.name for o in OPERATIONS)}"
    parser.add_argument("--only", action="append", default=[], metavar="OPERATION", help=operations)
    parser.add_argument("--systems", type=_names, default=tuple(SYSTEMS), help=",".join(SYSTEMS))
    options = parser.parse_args(arguments)
    options.n = options.n or (SCALE if options.only == ["scale"] else (1, 4))
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    try:
        options.operations = find(tuple(options.only))
    except ValueError as error:
        parser.error(str(error))
    return options


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(sorted({int(part) for part in text.split(",")}))
    if counts[0] < 1:
        raise ValueError("at least one engine")
    return counts


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - SYSTEMS.keys():
        raise argparse.ArgumentTypeError(f"no such systems: {', '.join(sorted(unknown))}")
    return names


def _measure(options: argparse.Namespace, results: Results, console: Console) -> None:
    systems = []
    for name in options.systems:
        if not is_installed(name):
            console.print(f"{SYSTEMS[name].title} is left out: {SYSTEMS[name].library} is not installed.")
        elif SYSTEMS[name].beside in ("", *options.systems):
            systems.append(name)
    cold = {operation.name: operation for operation in options.operations if operation.cold}
    warm = [operation for operation in options.operations if not operation.cold]
    engines = max(options.n)
    if "import" in cold:
        _measure_imports(systems, cold["import"].rounds(options.rounds), results, console)
    starts = cold["start"].rounds(options.rounds) if "start" in cold else 0
    if engines > STARTED_REPEATEDLY and warm:
        starts = min(starts, 1)  # a minute each
    # The processes that stay for the other operations give the last sample.
    _measure_starts(systems, engines, starts - bool(warm), results, console)
    if warm:
        _measure_warm(systems, warm, options, results, console, note_starts=bool(starts))


def _measure_imports(systems: list[str], rounds: int, results: Results, console: Console) -> None:
    importing = [name for name in systems if name in _IMPORTED_BY]
    for number in range(rounds if importing else 0):
        console.print(f"import, round {number + 1} of {rounds}")
        for name in turn_order(importing, number):
            results.add(Cell("import", 0, name), import_turn(SYSTEMS[name].library))


def _measure_starts(systems: list[str], engines: int, rounds: int, results: Results, console: Console) -> None:
    for number in range(rounds):
        console.print(f"start, round {number + 1} of {rounds}")
        for name in turn_order([name for name in systems if _starts(name)], number):
            try:
                with contextlib.closing(SystemProcess(name, engines)) as process:
                    results.add(Cell("start", engines, name), process.start)
            except SystemFailed as failure:  # on a busy machine: the timings of the other systems are still valid
                console.print(str(failure), markup=False)


def _start(name: str, engines: int, console: Console) -> SystemProcess | None:
    """Start a system that stays; if two attempts fail, for example on a busy machine, return None."""
    for consequence in ("Once more.", f"{SYSTEMS[name].title} is left out."):
        try:
            return SystemProcess(name, engines)
        except SystemFailed as failure:
            console.print(str(failure), consequence, sep="\n", markup=False)
    return None


def _starts(name: str) -> bool:
    return name != "serial" and not SYSTEMS[name].beside


def _measure_warm(
    systems: list[str],
    operations: list[Operation],
    options: argparse.Namespace,
    results: Results,
    console: Console,
    *,
    note_starts: bool,
) -> None:
    engines = max(options.n)
    with contextlib.ExitStack() as stack:
        processes: dict[str, SystemProcess] = {}
        for name in (name for name in systems if not SYSTEMS[name].beside):
            console.print(f"starting {SYSTEMS[name].title}")
            process = _start(name, engines, console)
            if process is None:
                continue
            processes[name] = stack.enter_context(contextlib.closing(process))
            if note_starts and _starts(name):
                results.add(Cell("start", engines, name), processes[name].start)
        drivers: dict[str, Driver] = {
            name: Beside(name, processes[host]) if (host := SYSTEMS[name].beside) else processes[name]
            for name in systems
            if (SYSTEMS[name].beside or name) in processes
        }
        if not drivers:
            raise SystemFailed("No system has started.")
        measure_in_rounds(
            drivers,
            operations,
            options.n,
            options.rounds,
            results,
            lambda number: console.print(f"round {number + 1} of {options.rounds}"),
        )


def _show(results: Results, console: Console) -> None:
    for table in (draw(results), draw_cpu(results), draw_growth(results)):
        if table.row_count:
            console.print(fitted(table, console))


def _plot(results: Results, path: Path, console: Console) -> None:
    if len({cell.engines for cell in results.turns if cell.engines}) <= 2:
        return  # two points make no curve
    if importlib.util.find_spec("matplotlib") is None:
        console.print("There is no picture: matplotlib is not installed.")
        return
    from benchmarks.operations.plot import plot

    for suffix in (".svg", ".png"):
        plot(results, path.with_suffix(suffix))
    console.print(f"Cost against the number of engines is drawn in {path.with_suffix('.svg')}.")


def _save(results: Results, options: argparse.Namespace, load_average: tuple[float, float, float]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now():%Y-%m-%dT%H%M%S}.json"
    asked = {"rounds": options.rounds, "n": options.n, "systems": options.systems}
    path.write_text(json.dumps(as_json(results, asked, load_average), indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
