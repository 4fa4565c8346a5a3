"""The picture of who did what when: made from results, drawn in terminals and as SVG."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.lib.pretty import pretty
from rich.console import Console

from nsactors import Client, Cluster, LoadBalancedView, Timeline
from nsactors.results.display.schedule import Schedule, Stretch
from nsactors.testing import Gate, open_gate

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def rc() -> Iterator[Client]:
    with Cluster(n=2, backend="local") as client:
        yield client


@pytest.fixture
def lview(rc: Client) -> LoadBalancedView:
    return rc.load_balanced_view()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with open_gate(tmp_path / "gate") as gate:
        yield gate


def timeline(*stretches: Stretch, begin: float = 0.0, end: float = 4.0, engines: tuple[int, ...] = ()) -> Timeline:
    return Timeline(Schedule.of(stretches, begin, end, engines))


def drawn(picture: Timeline, width: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(picture)
    return [line.rstrip() for line in capture.get().splitlines()]


def shapes(picture: Timeline, name: str) -> list[ET.Element]:
    return list(ET.fromstring(picture._repr_svg_()).iter(f"{SVG}{name}"))


def test_a_terminal_shows_a_line_for_each_engine() -> None:
    picture = timeline(Stretch(0, 0.0, 4.0, "map(f)", 30), Stretch(1, 1.0, 3.0, "map(f)", 10), engines=(2,))
    assert drawn(picture) == [
        "map(f): 40 calls on 3 engines",
        "engine 0 ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇ 100%",
        "engine 1       ▄▇▇▇▇▇▇▇▇▇▇▇▇▄        50%",
        "engine 2                              0%",
        "         ╵0 s         ╵2 s",
        "makespan 4.00 s · serial time 6.00 s ·",
        "speed-up 1.50 · utilisation 50%",
    ]


def test_short_work_is_low_and_never_invisible() -> None:
    work = [Stretch(0, float(second), second + 0.5, "f") for second in range(25)]
    line = drawn(timeline(*work, Stretch(0, 25.0, 25.001, "f"), end=26.0))[1]
    assert line.split()[2] == "▄" * 25 + "▁"


def test_several_kinds_of_work_and_failures_are_explained() -> None:
    picture = timeline(Stretch(0, 0.0, 2.0, "map(f)"), Stretch(0, 2.0, 4.0, "apply(g)", failed=True))
    assert "■ map(f)   ■ apply(g)   ■ failed" in drawn(picture)
    assert {text.text for text in shapes(picture, "text")} >= {"map(f)", "apply(g)", "failed"}


def test_a_legend_ends_where_the_drawing_does() -> None:
    picture = timeline(*(Stretch(0, n / 40, (n + 1) / 40, f"apply(function_{n})") for n in range(40)))
    legend = [text for text in shapes(picture, "text") if text.attrib["y"] == "33"]
    assert legend[-1].text == f"and {40 - len(legend) + 1} more"
    assert all(float(text.attrib["x"]) < 800 for text in legend)


def test_many_engines_share_lines_in_a_terminal() -> None:
    picture = timeline(*(Stretch(number, 0.0, 4.0, "f") for number in range(64)))
    lines = drawn(picture, 60)
    assert len(lines) == 1 + 32 + 1 + 2
    assert lines[1].startswith("  engines 0-1 ▇")


@pytest.mark.parametrize("inline", [True, False])
def test_a_drawing_has_a_bar_with_a_description_for_each_stretch(inline: bool) -> None:
    picture = timeline(Stretch(0, 0.0, 2.5, "map(<f>)", 1_000), Stretch(3, 2.0, 4.0, "map(<f>)", failed=True))
    text = picture._repr_html_() if inline else picture._repr_svg_()
    titles = [rect.findtext(f"{SVG}title") for rect in ET.fromstring(text).iter(f"{SVG}rect")]
    assert [title for title in titles if title] == [
        "map(<f>), 1,000 items on engine 0: 2.50 s, from 0 s on",
        "map(<f>) on engine 3: 2.00 s, from 2.00 s on, failed",
    ]


def test_many_short_stretches_make_few_bars() -> None:
    picture = timeline(*(Stretch(0, number / 1e4, (number + 0.9) / 1e4, "f") for number in range(40_000)))
    assert len(shapes(picture, "rect")) < 10


def test_no_mixture_of_short_stretches_makes_more_bars_than_can_be_seen() -> None:
    work = (Stretch(0, n / 1e4, (n + 0.9) / 1e4, f"f{n % 7}", failed=n % 5 == 0) for n in range(40_000))
    assert len(shapes(timeline(*work), "rect")) < 1_000


def test_a_drawing_keeps_every_engine_in_sight() -> None:
    few, many = (ET.fromstring(timeline(*(Stretch(i, 0.0, 1.0, "f") for i in range(n)))._repr_svg_()) for n in (4, 128))
    assert int(few.attrib["viewBox"].split()[3]) < 200
    assert int(many.attrib["viewBox"].split()[3]) < 800


@pytest.mark.parametrize("picture", [timeline(end=0.0), timeline(end=0.0, engines=(0, 1))])
def test_nothing_can_be_drawn_too(picture: Timeline) -> None:
    assert "0 calls" in drawn(picture)[0]
    assert "0 calls" in picture._repr_html_()


def test_a_picture_is_saved_as_svg_and_as_nothing_else(tmp_path: Path) -> None:
    picture = timeline(Stretch(0, 0.0, 1.0, "f"))
    picture.save(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text() == picture._repr_svg_()
    with pytest.raises(ValueError, match=r"such as 'picture\.svg'"):
        picture.save(tmp_path / "picture.png")


def test_a_prompt_shows_the_picture_and_repr_its_numbers() -> None:
    picture = timeline(Stretch(0, 0.0, 2.0, "f"))
    assert "▇" in pretty(picture)
    expected = "1 call on 1 engine: makespan 4.00 s · serial time 2.00 s · speed-up 0.50 · utilisation 50%"
    assert repr(picture) == f"<Timeline of f: {expected}>"


def test_a_balanced_map_is_shown_by_its_parts(lview: LoadBalancedView) -> None:
    result = lview.map_async(abs, range(1000))
    result.get()
    picture = result.timeline()
    assert "map(abs): 1,000 items on" in repr(picture)
    assert sum(stretch.items for stretch in picture.stretches) == 1000
    assert 0 < picture.serial_time < picture.makespan * 2


@pytest.mark.parametrize("make", [lambda view: view.map_async(abs, range(10)), lambda view: view.apply_async(abs, 1)])
def test_calls_of_direct_views_are_shown_too(rc: Client, make: Callable[[Any], Any]) -> None:
    result = make(rc[:])
    result.get()
    assert result.timeline().engines == rc.ids


def test_several_results_make_one_picture(rc: Client, lview: LoadBalancedView) -> None:
    results = [lview.apply_async(abs, 1), rc[1].apply_async(len, "a"), lview.map_async(divmod, [1], [0])]
    for result in results:
        result.wait()
    picture = Timeline.of(results[0], results[1:], engines=rc.ids)
    assert {stretch.label for stretch in picture.stretches} == {"apply(abs)", "apply(len)", "map(divmod)"}
    assert [stretch.label for stretch in picture.stretches if stretch.failed] == ["map(divmod)"]
    assert picture.engines == rc.ids
    assert results[2].exception() is not None


def test_what_has_not_ended_is_told(rc: Client, lview: LoadBalancedView, gate: Gate) -> None:
    result = lview.map_async(lambda x: gate.pass_through(), range(3), chunksize=1)
    gate.wait_arrived(2)
    assert "0 calls on 0 engines, 3 have not ended" in repr(result.timeline())
    gate.open()
    result.get()
