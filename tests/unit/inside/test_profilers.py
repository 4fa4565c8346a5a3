"""Profilers of an engine: samples count for the time since the last one, calls below the machinery are counted."""

from __future__ import annotations

import cProfile
import linecache
import os
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import pytest

from nsactors.inside import profilers
from nsactors.inside.profilers import (
    MACHINERY,
    CallProfiler,
    MemoryProfiler,
    Profilers,
    add_sample,
    allocations_profile,
    called_profile,
    sampled_profile,
)
from nsactors.inside.profiles import Profile
from nsactors.namespace import interrupts
from nsactors.namespace.interrupts import CellEventLoop, run_user_code
from nsactors.protocol.inspection import EngineProfile
from nsactors.protocol.messages import EngineRequest, Execute, RequestId
from nsactors.testing import TIMEOUT_S, wait_until

MINE, OTHERS = EngineRequest(RequestId("me", 0), Execute("")), EngineRequest(RequestId("other", 0), Execute(""))


def inner(n: int) -> int:
    return sum(range(n))


def outer(n: int) -> int:
    return inner(n) + inner(n)


def names(profile: EngineProfile) -> set[str]:
    return {function.name for function in profile.functions}


def test_equal_stacks_are_one_with_the_sum_of_their_times() -> None:
    stacks: dict[Any, list[float]] = {}
    places = [(inner.__code__, 5), (outer.__code__, 9)]
    add_sample(stacks, places, 0.5)
    add_sample(stacks, [(inner.__code__, 6), (outer.__code__, 9)], 0.25)
    add_sample(stacks, None, 0.125)
    profile = sampled_profile(stacks)
    assert [(sample.weight, sample.number) for sample in profile.samples] == [(0.75, 2), (0.125, 1)]
    assert [[profile.functions[i].name for i in sample.functions] for sample in profile.samples] == [
        ["outer", "inner"],
        [MACHINERY],
    ]


def test_many_different_stacks_and_deep_ones_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profilers, "MOST_STACKS", 2)
    monkeypatch.setattr(profilers, "OUTERMOST", 1)
    monkeypatch.setattr(profilers, "MOST_DEPTH", 4)
    stacks: dict[Any, list[float]] = {}
    add_sample(stacks, [(inner.__code__, 1)] * 100, 1.0)
    assert [len(one) for one in stacks] == [4]
    add_sample(stacks, [(outer.__code__, 1)], 1.0)
    for depth in (2, 3):
        add_sample(stacks, [*[(inner.__code__, 1)] * depth, (outer.__code__, 1)], 1.0)
    assert stacks[(outer.__code__,)] == [3.0, 3]


def test_a_sampler_sees_requests_of_its_client_alone() -> None:
    running: list[Any] = [None]
    arrived, leave, told = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        leave.wait(TIMEOUT_S)

    def serve() -> None:
        run_user_code(hold)
        told.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert arrived.wait(TIMEOUT_S)
    kept = Profilers(thread.ident or 0, CellEventLoop(), lambda: running[0])
    for request, seen in ((None, False), ((OTHERS, 0.0), False), ((MINE, 0.0), True)):
        running[0] = request
        kept.start(f"a profile of {seen}", "me", "sample", 0.001)
        if seen:
            sampler: Any = kept._open[f"a profile of {seen}"]
            wait_until(lambda sampler=sampler: bool(sampler._stacks))
        profile = kept.stop(f"a profile of {seen}")
        kept._stopped.clear()
        assert any(name.endswith("hold") for name in names(profile)) is seen
    leave.set()
    thread.join(TIMEOUT_S)


def test_calls_of_the_client_are_counted_without_the_machinery() -> None:
    profiler = CallProfiler("me")
    for request in (OTHERS, MINE):
        profiler.begin(request)
        run_user_code(outer, 10)
        profiler.end()
    profile = profiler.stop()
    counts = {profile.functions[called.function].name: called.number for called in profile.calls}
    assert (counts["outer"], counts["inner"]) == (1, 2)
    assert "run_user_code" not in counts
    (called,) = [called for called in profile.calls if profile.functions[called.function].name == "inner"]
    assert [(profile.functions[caller].name, number) for caller, number, *_ in called.callers] == [("outer", 2)]


def test_a_request_runs_unmeasured_beside_another_profiler_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def enable(self) -> None:
            raise ValueError("Another profiling tool is already active")

    monkeypatch.setattr("nsactors.inside.profilers.cProfile.Profile", Refused)
    profiler = CallProfiler("me")
    profiler.begin(MINE)
    profiler.end()
    with pytest.raises(RuntimeError, match="another profiler is at work"):
        profiler.stop()


def test_showing_and_pickling_values_is_no_work_of_the_users() -> None:
    border = next(iter(profilers._BORDERS))
    cell, show, draw = (
        ("<engine 0, cell 1>", 1, "<module>"),
        ("/x/IPython/core/displayhook.py", 9, "__call__"),
        ("d", 1, "draw"),
    )
    part, mine = (f"{profilers._PACKAGE}views/map_parts.py", 5, "run"), ("/home/me/model.py", 4, "step")

    def by(*callers: Any) -> Any:
        return (1, 1, 1.0, 1.0, dict.fromkeys(callers, (1, 1, 1.0, 1.0)))

    stats = {border: by(), cell: by(border), show: by(cell), draw: by(show), part: by(border), mine: by(part)}
    assert names(called_profile(stats)) == {"<module>", "step"}


def test_a_profile_without_code_of_the_user_is_empty() -> None:
    profile = cProfile.Profile()
    profile.runcall(outer, 10)
    profile.snapshot_stats()
    stats: Any = profile.stats  # type: ignore[attr-defined]
    assert called_profile(stats) == EngineProfile()


def test_starting_and_stopping_may_be_repeated() -> None:
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    kept.start("a", "me", "calls", 0.01)
    kept.start("a", "me", "calls", 0.01)
    with pytest.raises(RuntimeError, match="counted for the client me already"):
        kept.start("b", "other", "calls", 0.01)
    assert kept.stop("a") == kept.stop("a") == EngineProfile()
    assert kept.calls is None
    kept.start("a", "me", "calls", 0.01)  # a repetition that comes late
    assert kept.calls is None
    with pytest.raises(RuntimeError, match="its process is new, or its profile had not begun"):
        kept.stop("unknown")


class SlowMemoryProfiler:
    """A profiler of memory whose package takes long to import."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.made.append(self)
        self.is_importing.set()
        assert self.is_imported.wait(TIMEOUT_S)

    def stop(self) -> EngineProfile:
        self.made.remove(self)
        return EngineProfile()

    made: ClassVar[list[SlowMemoryProfiler]]
    is_importing: ClassVar[threading.Event]
    is_imported: ClassVar[threading.Event]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[SlowMemoryProfiler]:
    SlowMemoryProfiler.made = []
    SlowMemoryProfiler.is_importing, SlowMemoryProfiler.is_imported = threading.Event(), threading.Event()
    monkeypatch.setattr(profilers, "MemoryProfiler", SlowMemoryProfiler)
    return SlowMemoryProfiler


def not_begun(end: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="had not begun"):
        end()


@pytest.mark.parametrize("how", ["stop", "client leaves"])
def test_a_profile_of_memory_whose_end_comes_while_it_begins_does_not_begin(
    slow: type[SlowMemoryProfiler], how: str
) -> None:
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    told: list[str] = []

    def start() -> None:
        try:
            kept.start("a", "me", "memory", 0.01)
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    assert slow.is_importing.wait(TIMEOUT_S)
    kept.start("a", "me", "memory", 0.01)  # a repetition
    if how == "stop":
        not_begun(lambda: kept.stop("a"))
    else:
        kept.forget("other")
        kept.forget("me")
    slow.is_imported.set()
    thread.join(TIMEOUT_S)
    assert told == ["it ended before it had begun"]
    assert (slow.made, kept._open) == ([], {})


def test_a_profile_whose_end_has_come_does_not_begin(slow: type[SlowMemoryProfiler]) -> None:
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    slow.is_imported.set()
    for number in range(Profilers.MOST_ENDED + 1):
        not_begun(lambda number=number: kept.stop(str(number)))
    with pytest.raises(RuntimeError, match="ended before it had begun"):
        kept.start("1", "me", "memory", 0.01)
    assert len(kept._ended) == Profilers.MOST_ENDED
    kept.start("2000", "me", "memory", 0.01)
    assert [one.client for one in slow.made] == ["me"]
    assert kept.stop("2000") == kept.stop("2000") == EngineProfile()
    assert slow.made == []


def test_a_profile_of_memory_that_cannot_begin_can_be_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(client: str) -> None:
        raise RuntimeError("memray is not installed there")

    monkeypatch.setattr(profilers, "MemoryProfiler", refuse)
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not installed"):
            kept.start("a", "me", "memory", 0.01)


def test_the_profiles_of_a_client_that_leaves_end() -> None:
    others = set(threading.enumerate())
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    for profile_id, how in (("a", "calls"), ("b", "sample")):
        kept.start(profile_id, "me", how, 0.01)
    kept.start("c", "other", "sample", 0.01)
    kept.forget("me")
    assert (kept.calls, list(kept._open)) == (None, ["c"])
    kept.forget("other")
    assert kept._stopped == {}  # nobody will ask for them
    assert "nsactors-sampler" not in {thread.name for thread in set(threading.enumerate()) - others}


def test_profiles_that_have_ended_are_not_kept_for_ever() -> None:
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    for number in range(Profilers.MOST + 1):
        kept.start(str(number), "me", "calls", 0.01)
        kept.stop(str(number))
    assert list(kept._stopped) == [str(number) for number in range(1, Profilers.MOST + 1)]


def test_there_are_not_too_many_profiles() -> None:
    kept = Profilers(threading.get_ident(), CellEventLoop(), lambda: None)
    for number in range(Profilers.MOST):
        kept.start(str(number), "me", "sample", 0.01)
    with pytest.raises(RuntimeError, match=f"{Profilers.MOST} profiles"):
        kept.start("one more", "me", "sample", 0.01)
    kept.forget("me")


def test_calls_of_other_threads_are_not_counted() -> None:
    profiler = CallProfiler("me")
    begins, ran = threading.Event(), threading.Event()

    def others() -> None:
        begins.wait(TIMEOUT_S)
        for _ in range(1000):
            divmod(7, 2)
        ran.set()

    def own() -> None:
        begins.set()
        for _ in range(2000):
            abs(-1)
        assert ran.wait(TIMEOUT_S)

    thread = threading.Thread(target=others)
    thread.start()
    profiler.begin(MINE)
    run_user_code(own)
    profiler.end()
    thread.join()
    found = profiler.stop()
    calls = {found.functions[called.function].name: called.number for called in found.calls}
    assert calls["<built-in method builtins.abs>"] == 2000
    assert "<built-in method builtins.divmod>" not in calls
    assert "test_calls_of_other_threads_are_not_counted.<locals>.others" not in calls


USER_CODE = ("run_user_code", interrupts.__file__, 60)
ACTOR = ("handle", "/x/nsactors/engine_actor.py", 300)
CELL = "<engine 3, cell 2>"


class Record(NamedTuple):
    size: int
    n_allocations: int
    frames: list[tuple[str, str, int]]  # the outermost first

    def stack_trace(self) -> list[tuple[str, str, int]]:
        return self.frames[::-1]


RECORDS = [
    Record(3_000_000, 2, [ACTOR, USER_CODE, ("<module>", CELL, 5), ("load", "/home/ann/data.py", 7)]),
    Record(1_000_000, 1, [ACTOR, USER_CODE, ("<module>", CELL, 5)]),
    Record(500_000, 1, [ACTOR, USER_CODE, ("<module>", CELL, 5)]),
    Record(9_000_000, 9, [ACTOR]),
    Record(9_000_000, 9, [("poll", "/x/controller.py", 1)]),
]


def test_only_allocations_of_requests_count_with_the_lines_that_made_them() -> None:
    profile = Profile("memory", {3: allocations_profile(RECORDS)})
    assert {(f.name, f.place, f.own_s, f.total_s, f.number) for f in profile.functions()} == {
        ("load", "/home/ann/data.py, line 7", 3e6, 3e6, 2),
        ("<module>", "<cell 2>, line 5", 1.5e6, 4.5e6, 4),
    }


def test_a_cell_has_the_same_checksum_on_all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    def checksums(name: str, source: str) -> set[int]:
        monkeypatch.setitem(linecache.cache, name, (len(source), None, source.splitlines(keepends=True), name))
        border = next(iter(profilers._BORDERS))
        stats: Any = {border: (1, 1, 1.0, 1.0, {}), (name, 1, "f"): (1, 1, 1.0, 1.0, {border: (1, 1, 1.0, 1.0)})}
        found = [
            sampled_profile({(compile(source, name, "exec"),): [1.0, 1]}),
            called_profile(stats),
            allocations_profile([Record(1, 1, [ACTOR, USER_CODE, ("f", name, 1)])]),
        ]
        return {function.cell for profile in found for function in profile.functions}

    first, again, other = (
        checksums("<engine 0, cell 2>", "f()\n"),
        checksums("<engine 1, cell 3>", "f()\n"),
        checksums("<engine 0, cell 4>", "g()\n"),
    )
    assert first == again != other
    assert len(first) == len(other) == 1
    assert 0 not in first | other


def test_files_and_cells_without_a_source_have_no_checksum() -> None:
    assert {f.cell for f in allocations_profile(RECORDS).functions} == {0}


def test_sizes_are_shown_and_saved_in_bytes(tmp_path: Path) -> None:
    profile = Profile("memory", {3: allocations_profile(RECORDS)})
    lines = repr(profile).splitlines()
    assert lines[0] == "memory of engine 3 at its peak: 4.5 MB in 4 allocations"
    assert lines[1].split() == ["own", "total", "allocations", "function", "place"]
    assert lines[3].split()[:6] == ["3.0", "MB", "67%", "3.0", "MB", "2"]
    profile.save(tmp_path / "x.json")
    assert '"unit": "bytes"' in (tmp_path / "x.json").read_text()
    profile.save(tmp_path / "x.svg")
    assert "load (/home/ann/data.py, line 7): 3.0 MB, 66.7%" in (tmp_path / "x.svg").read_text()
    with pytest.raises(ValueError, match=r"as \.prof files hold times"):
        profile.save(tmp_path / "x.prof")


@pytest.fixture
def memray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package memray, of which this needs a small part."""
    fake: Any = types.ModuleType("memray")
    fake.opened = []

    class Tracker:
        def __init__(self, destination: str, file_format: str) -> None:
            self.path = destination

        def __enter__(self) -> Self:
            fake.opened.append(self.path)
            return self

        def __exit__(self, *_: object) -> None:
            fake.opened.remove(self.path)

    class FileReader:
        def __init__(self, path: str) -> None:
            assert os.path.exists(path)
            fake.read = path

        def get_high_watermark_allocation_records(self, *, merge_threads: bool) -> list[Record]:
            return RECORDS if merge_threads else []

    fake.Tracker, fake.FileReader = Tracker, FileReader
    fake.FileDestination = lambda path, overwrite: path
    fake.FileFormat = types.SimpleNamespace(AGGREGATED_ALLOCATIONS="aggregated")
    monkeypatch.setitem(sys.modules, "memray", fake)
    return fake


def test_allocations_are_recorded_until_the_profile_ends(memray: Any) -> None:
    memory_profilers = Profilers(0, CellEventLoop(), lambda: None)
    memory_profilers.start("p", "ann", "memory", 0.01)
    assert len(memray.opened) == 1
    profile = memory_profilers.stop("p")
    assert (memray.opened, os.path.exists(memray.read)) == ([], False)
    assert sum(sample.weight for sample in profile.samples) == 4.5e6


def test_where_memory_cannot_be_recorded_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="its memory is that of the whole process"):
        Profilers(0, CellEventLoop(), lambda: None, shares_process=True).start("p", "ann", "memory", 0.01)
    monkeypatch.setitem(sys.modules, "memray", None)
    with pytest.raises(RuntimeError, match="pip install nsactors\\[memory\\]"):
        MemoryProfiler("ann")
