"""Profiles of several engines are shown together and one by one, and saved in the forms of other tools."""

from __future__ import annotations

import json
import marshal
import pstats
import signal
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nsactors.errors import InvalidArgument, NsactorsError
from nsactors.inside.flames import WIDTH, flame_of, flame_svg, profile_stats
from nsactors.inside.profiles import FEW, Profile, Profiled
from nsactors.protocol.control import QueryReply
from nsactors.protocol.inspection import (
    CallTimes,
    EngineProfile,
    ProfiledFunction,
    StackSample,
    StartProfile,
    StopProfile,
)
from nsactors.protocol.serialize import pack
from nsactors.testing import TIMEOUT_S

CELL = ProfiledFunction("<cell 2>", 1, "<module>")
CELL3 = CELL._replace(file="<cell 3>")
STEP = ProfiledFunction("/home/me/model.py", 4, "step")
SORT = ProfiledFunction("/x/site-packages/numpy/fromnumeric.py", 900, "sort", is_user_code=False)
FUNCTIONS = (CELL, STEP, SORT)
FIRST = EngineProfile(FUNCTIONS, (StackSample((0, 1, 2), 3.0, 300), StackSample((0, 1), 1.0, 100)))
SECOND = EngineProfile(FUNCTIONS, (StackSample((0, 1, 2), 1.0, 100), StackSample((0, 1, 1), 1.0, 100)))
CALLED = EngineProfile(
    FUNCTIONS[:2], calls=(CallTimes(0, 1, 1, 0.5, 2.0), CallTimes(1, 3, 2, 1.5, 1.5, ((0, 3, 2, 1.5, 1.5),)))
)


@pytest.fixture
def profile() -> Profile:
    return Profile("sample", {0: FIRST, 3: SECOND})


def test_own_and_total_times_are_those_of_all_engines_and_recursion_counts_once(profile: Profile) -> None:
    found = {one.name: (one.own_s, one.total_s, one.number) for one in profile.functions()}
    assert found == {"sort": (4.0, 4.0, 400), "step": (2.0, 6.0, 600), "<module>": (0.0, 6.0, 600)}
    assert [one.name for one in profile.functions()] == ["sort", "step", "<module>"]
    assert (profile.total_s, profile.samples) == (6.0, 600)


def test_each_engine_has_a_profile_of_its_own(profile: Profile) -> None:
    assert {i: one.total_s for i, one in profile.by_engine.items()} == {0: 4.0, 3: 2.0}
    assert "engine 3: 2.0 s in 200 samples" in repr(profile.by_engine[3])


def test_the_table_has_shares_and_the_engine_with_the_most(profile: Profile) -> None:
    lines = repr(profile).splitlines()
    assert lines[0] == "profile of engines 0, 3: 6.0 s in 600 samples"
    row = next(line.split() for line in lines if " sort " in line)
    assert row[:7] == ["4.0", "s", "67%", "4.0", "s", "400", "sort"]
    assert row[-4:] == ["engine", "0:", "3.0", "s"]
    assert "numpy/fromnumeric.py, line 900" in repr(profile)


def test_a_profile_of_few_samples_says_so() -> None:
    few = Profile("sample", {0: EngineProfile((CELL,), (StackSample((0,), 0.1, FEW - 1),))})
    assert "few samples" in repr(few)
    assert "few samples" not in repr(Profile("sample", {0: FIRST}))


def one_sample(*functions: ProfiledFunction) -> EngineProfile:
    return EngineProfile(functions, (StackSample(tuple(range(len(functions))), 1.0, FEW),))


def test_the_same_cell_with_another_number_is_the_same_code(tmp_path: Path) -> None:
    profile = Profile("sample", {0: one_sample(CELL._replace(cell=7)), 1: one_sample(CELL3._replace(cell=7))})
    assert [(one.place, one.total_s) for one in profile.functions()] == [("<cell 2>, line 1", 2.0)]
    assert len(flame_of(profile._data.values()).children) == 1
    profile.save(tmp_path / "x.json")
    assert len(json.loads((tmp_path / "x.json").read_text())["shared"]["frames"]) == 1


@pytest.mark.parametrize("cells", [(7, 8), (0, 0)])
def test_cells_with_other_code_or_whose_code_is_not_known_are_told_apart(cells: tuple[int, int]) -> None:
    first, second = CELL._replace(cell=cells[0]), CELL3._replace(cell=cells[1])
    profile = Profile("sample", {0: one_sample(first), 1: one_sample(second)})
    assert sorted(one.place for one in profile.functions()) == ["<cell 2>, line 1", "<cell 3>, line 1"]


def test_other_code_of_the_same_number_has_the_name_of_its_engine() -> None:
    profile = Profile("sample", {0: one_sample(CELL._replace(cell=7)), 1: one_sample(CELL._replace(cell=8))})
    assert sorted(one.place for one in profile.functions()) == ["<cell 2, engine 1>, line 1", "<cell 2>, line 1"]
    assert list(pstats_of(profile)) == [("<cell 2>", 1, "<module>"), ("<cell 2, engine 1>", 1, "<module>")]


def pstats_of(profile: Profile) -> Any:
    return marshal.loads(profile_stats(profile._data.values()))


def test_calls_are_a_table_too() -> None:
    profile = Profile("calls", {0: CALLED, 1: CALLED})
    assert [(one.name, one.number, one.own_s) for one in profile.functions()] == [
        ("step", 6, 3.0),
        ("<module>", 2, 1.0),
    ]
    assert repr(profile).startswith("calls on engines 0-1: 4.0 s")
    assert "<svg" not in profile._repr_html_()


def test_an_empty_profile_says_why() -> None:
    assert "no profile yet" in repr(Profile("sample"))


def test_the_flame_graph_is_a_picture_with_nothing_from_elsewhere(profile: Profile) -> None:
    svg = flame_svg(flame_of([FIRST, SECOND]), "a <title>")
    boxes = {box[0].text: box[1] for box in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g")}
    (sort,) = [box for told, box in boxes.items() if told and told.startswith("sort ")]
    assert float(sort.attrib["width"]) == pytest.approx(WIDTH * 4 / 6, abs=1)
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "<svg" in profile._repr_html_()
    assert "<script" not in profile._repr_html_()


def test_a_prof_file_is_read_by_pstats(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "x.prof"
    profile.save(path)
    stats: Any = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    sort = ("/x/site-packages/numpy/fromnumeric.py", 900, "sort")
    step = ("/home/me/model.py", 4, "step")
    assert stats[sort] == (400, 400, 4.0, 4.0, {step: (400, 400, 4.0, 4.0)})
    Profile("calls", {0: CALLED}).save(path)
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    assert stats[step] == (2, 3, 1.5, 1.5, {("<cell 2>", 1, "<module>"): (2, 3, 1.5, 1.5)})


def test_a_speedscope_file_has_all_engines_and_each_of_them(profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "x.speedscope.json"
    profile.save(path)
    saved = json.loads(path.read_text())
    assert [one["name"] for one in saved["profiles"]] == ["all engines", "engine 0", "engine 3"]
    assert [one["endValue"] for one in saved["profiles"]] == [6.0, 4.0, 2.0]
    names = [frame["name"] for frame in saved["shared"]["frames"]]
    assert [[names[i] for i in sample] for sample in saved["profiles"][1]["samples"]] == [
        ["<module>", "step", "sort"],
        ["<module>", "step"],
    ]


@pytest.mark.parametrize(("name", "begins"), [("x.svg", "<svg"), ("x.html", "<!doctype html>")])
def test_flame_graphs_are_saved(profile: Profile, tmp_path: Path, name: str, begins: str) -> None:
    profile.save(tmp_path / name)
    assert (tmp_path / name).read_text().startswith(begins)


@pytest.mark.parametrize(
    ("how", "name"), [("sample", "x.txt"), ("sample", "x"), ("calls", "x.json"), ("calls", "x.svg")]
)
def test_forms_that_are_not_there_are_refused(how: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"a name that ends in \.prof"):
        Profile(how, {0: CALLED}).save(tmp_path / name)


class Session:
    """Replies to the queries of a profile."""

    def __init__(self, started: dict[int, str | None], stopped: dict[int, EngineProfile | str]) -> None:
        self.controller: Any = self
        self.directory: Any = {0: None, 1: object(), 2: object()}
        self.started, self.stopped = started, stopped
        self.asked: list[str] = []
        self.ids: list[str] = []

    def query(self, engine_ids: Any, query: StartProfile | StopProfile, timeout_s: float) -> dict[int, QueryReply]:
        self.asked.append(type(query).__name__)
        self.ids.append(query.profile_id)
        if isinstance(query, StartProfile):
            return {i: QueryReply(0, None, error) for i, error in self.started.items()}
        return {
            i: QueryReply(0, None, one) if isinstance(one, str) else QueryReply(0, pack(one).copied())
            for i, one in self.stopped.items()
        }


def test_engines_without_a_profile_are_told_with_the_reason() -> None:
    session = Session({0: None, 1: "RuntimeError: 4 profiles", 2: None}, {2: FIRST})
    with Profiled(session, "me", [0, 1, 2], "sample", 0.01) as profile:
        assert "engine 1: 4 profiles" in repr(profile)
    assert profile.problems == {1: "4 profiles", 0: "it has left"}
    assert list(profile.by_engine) == [2]
    assert "engine 1: 4 profiles" in repr(profile)


def test_without_any_engine_the_block_does_not_begin() -> None:
    session = Session({0: "RuntimeError: 4 profiles"}, {})
    with pytest.raises(
        NsactorsError, match="no engine can be profiled: engine 0: 4 profiles; engine 1: it did not reply"
    ):
        Profiled(session, "me", [0, 1], "sample", 0.01).__enter__()
    assert session.asked == ["StartProfile", "StopProfile"]


def test_a_reason_of_several_engines_is_told_once() -> None:
    missing = "RuntimeError: memray is not installed there"
    with pytest.raises(
        NsactorsError, match="no engine can be profiled: engines 0, 2: memray is not installed there; engine 1: it did"
    ):
        Profiled(Session({0: missing, 2: missing}, {}), "me", [0, 1, 2], "memory", 0.01).__enter__()
    with Profiled(Session({0: missing, 1: missing, 2: None}, {2: FIRST}), "me", [0, 1, 2], "memory", 0.01) as profile:
        pass
    assert repr(profile).count("memray is not") == 1
    assert "engines 0-1: memray is not installed there" in repr(profile)


def test_the_profile_is_there_after_an_error_in_the_block() -> None:
    session = Session({0: None}, {0: FIRST})
    with pytest.raises(KeyError), Profiled(session, "me", [0], "sample", 0.01) as profile:
        raise KeyError
    assert profile.total_s == 4.0


def test_each_entry_of_a_block_makes_a_profile_of_its_own() -> None:
    session = Session({0: None}, {0: FIRST})
    block = Profiled(session, "me", [0], "sample", 0.01)
    with block as first, block as inside:
        session.stopped = {0: CALLED}
    with block as last:
        pass
    assert first is not inside is not last
    began_first, began_inside, ended_inside, ended_first, began_last, ended_last = session.ids
    assert (began_first, began_inside, began_last) == (ended_first, ended_inside, ended_last)
    assert len({began_first, began_inside, began_last}) == 3


def test_ctrl_c_while_a_profile_is_fetched_ends_it_on_the_engines_all_the_same() -> None:
    session = Session({0: None}, {0: FIRST})
    waits, ended = threading.Event(), threading.Event()
    query = session.query

    def slow(engine_ids: Any, query_: StartProfile | StopProfile, timeout_s: float) -> dict[int, QueryReply]:
        if isinstance(query_, StopProfile):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert waits.wait(TIMEOUT_S)
            ended.set()
        return query(engine_ids, query_, timeout_s)

    session.query = slow  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), Profiled(session, "me", [0], "sample", 0.01) as profile:
        pass
    assert not ended.is_set()
    waits.set()
    assert ended.wait(TIMEOUT_S)
    assert "Ctrl-C" in profile.problems[0]
