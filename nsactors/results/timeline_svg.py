"""A timeline as SVG, for notebooks and files."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from nsactors.core.durations import seconds_in_words
from nsactors.core.timeline import Bar, Schedule, bars, tick_label, ticks

__all__ = ["drawing"]

WIDTH = 820
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 44, 28, 46
_LEGEND = 18
_PLOT = WIDTH - _LEFT - _RIGHT
_ROW, _LEAST_ROW = 20, 4
_HEIGHT_OF_ROWS = 640
_SHORTEST = 3.0  # pixels: what is shorter is drawn together with its neighbours
_LEAST = 0.75  # pixels: what is shorter could not be seen
_TICK = 90
# Told apart by colour-blind people, and on white and on dark grey alike (after Wong, Nature Methods 8, 2011).
_COLOURS = ("#3a86c8", "#e69f00", "#009e73", "#cc79a7", "#8c7ae6", "#56b4e9")
_FAILED = "#d1242f"
_STYLE = 'font-family="system-ui, sans-serif" font-size="12"'


def drawing(schedule: Schedule, title: str, numbers: str, *, inline: bool) -> str:
    """An SVG document.

    Args:
        schedule: what to draw.
        title: above it.
        numbers: below it.
        inline: it stands in a page and takes the page's colours; otherwise it is black on white.
    """
    row = max(_LEAST_ROW, min(_ROW, _HEIGHT_OF_ROWS // max(1, len(schedule.engine_ids))))
    legend = list(_legend(schedule))
    top = _TOP + _LEGEND * bool(legend)
    height = top + row * len(schedule.engine_ids) + _BOTTOM
    page = "" if inline else f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    colour = "currentColor" if inline else "#1f2328"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'style="max-width: 100%; height: auto" role="img" {_STYLE} fill="{colour}">',
        f"<title>{escape(f'{title}. {numbers}')}</title>{page}",
        f'<text x="{_LEFT}" y="16" font-weight="600">{escape(title)}</text>',
        *legend,
        *_axis(schedule, top, height - _BOTTOM, colour),
        *_lines(schedule, top, row),
        *_bars(schedule, top, row),
        f'<text x="{_LEFT}" y="{height - 8}">{escape(numbers)}</text>',
        "</svg>",
    ]
    return "\n".join(parts)


def _axis(schedule: Schedule, top: int, bottom: int, colour: str) -> Iterator[str]:
    span = schedule.makespan
    times = ticks(span, _PLOT // _TICK)
    for seconds in times:
        x = _LEFT + (_PLOT * seconds / span if span else 0)
        yield f'<path d="M{x:.1f} {top - 4}V{bottom + 4}" stroke="{colour}" stroke-opacity=".15"/>'
        yield (
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle" font-size="11" opacity=".7">'
            f"{tick_label(seconds, times[-1])}</text>"
        )


def _lines(schedule: Schedule, top: int, row: int) -> Iterator[str]:
    """What stands left and right of each engine's bars: its id, and the part of the time that it worked."""
    every = max(1, -(-14 // row))  # where lines are low, not each can have a text
    busy = dict.fromkeys(schedule.engine_ids, 0.0)
    for stretch in schedule.stretches:
        busy[stretch.engine_id] += stretch.seconds
    for number, engine_id in enumerate(schedule.engine_ids):
        if number % every:
            continue
        y = top + row * number + min(row, _ROW) / 2 + 4
        share = busy[engine_id] / schedule.makespan if schedule.makespan else 0.0
        yield f'<text x="{_LEFT - 8}" y="{y:.1f}" text-anchor="end">{engine_id}</text>'
        yield f'<text x="{WIDTH - 6}" y="{y:.1f}" text-anchor="end" font-size="11" opacity=".7">{share:.0%}</text>'


def _bars(schedule: Schedule, top: int, row: int) -> Iterator[str]:
    if not schedule.makespan:
        return
    scale = _PLOT / schedule.makespan
    lines = {engine_id: number for number, engine_id in enumerate(schedule.engine_ids)}
    colours = {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(schedule.labels)}
    gap = 4 if row > 2 * _LEAST_ROW else 1
    # A gap between neighbours tells them apart, where they are wide enough to lose it.
    for bar in bars(schedule, _SHORTEST / scale):
        first = bar.first
        x, width = _LEFT + (first.start - schedule.begin) * scale, (bar.stop - first.start) * scale
        shown = max(_LEAST, width - 1 if width > _SHORTEST else width)
        fill = _FAILED if bar.failed else colours[first.label]
        y = top + row * lines[first.engine_id]
        yield (
            f'<rect x="{x:.2f}" y="{y}" width="{shown:.2f}" height="{row - gap}" rx="1" fill="{fill}">'
            f"<title>{escape(_description(bar, schedule.begin))}</title></rect>"
        )


def _description(bar: Bar, begin: float) -> str:
    first = bar.first
    times = f"{seconds_in_words(bar.seconds)}, from {seconds_in_words(max(0.0, first.start - begin))} on"
    items = f", {bar.items:,} items" if bar.items > 1 else ""
    failed = "" if not bar.failed else ", failed" if bar.stretches == 1 else ", some of it failed"
    return f"{', '.join(sorted(bar.labels))}{items} on engine {first.engine_id}: {times}{failed}"


def _legend(schedule: Schedule) -> Iterator[str]:
    labels = schedule.labels
    entries = [(label, _COLOURS[n % len(_COLOURS)]) for n, label in enumerate(labels)] if len(labels) > 1 else []
    if any(stretch.failed for stretch in schedule.stretches):
        entries.append(("failed", _FAILED))
    x = float(_LEFT)
    for number, (label, colour) in enumerate(entries):
        width = 40 + 6.5 * len(label)
        if x + width > WIDTH:
            yield f'<text x="{x:.0f}" y="33">and {len(entries) - number} more</text>'
            return
        yield f'<rect x="{x:.0f}" y="24" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 15:.0f}" y="33">{escape(label)}</text>'
        x += width
