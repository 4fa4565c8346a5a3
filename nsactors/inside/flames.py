"""Flame graphs: pictures, and files for other tools."""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from nsactors.protocol.inspection import CallTimes, EngineProfile, ProfiledFunction, StackSample

WIDTH, ROW = 1_200, 17
LEAST = 0.001  # boxes with a smaller share of the width are left out
MOST_ROWS = 60
CHARACTER = 6.6  # the width of a letter

Stack = tuple[ProfiledFunction, ...]
Key = tuple[str, int, str]


@dataclass(slots=True)
class Flame:
    """A function in a flame graph, and the weight of its samples when it was called from its parent.

    Weights are seconds, or bytes in a profile of memory.
    """

    function: ProfiledFunction | None
    weight: float = 0.0
    children: dict[ProfiledFunction, Flame] = field(default_factory=dict)


def stacks_of(profile: EngineProfile) -> list[tuple[Stack, StackSample]]:
    """Return the functions of each sample."""
    functions = profile.functions
    return [(tuple(functions[i] for i in sample.functions), sample) for sample in profile.samples]


def flame_of(profiles: Iterable[EngineProfile]) -> Flame:
    """Return the root of a flame graph of several engines' samples."""
    root = Flame(None)
    for profile in profiles:
        for functions, sample in stacks_of(profile):
            at = root
            at.weight += sample.weight
            for function in functions:
                at = at.children.setdefault(function, Flame(function))
                at.weight += sample.weight
    return root


def flame_svg(root: Flame, title: str, words: Callable[[float], str] = "{:.2f} s".format) -> str:
    """Return a flame graph as a picture: the outermost functions are at the top, and widths are weights.

    Args:
        root: the flame graph.
        title: its title.
        words: returns the text for a weight.
    """
    boxes: list[str] = []
    rows = 1
    waiting: list[tuple[Flame, float, int]] = [(root, 0.0, 0)]
    total = root.weight or 1.0
    while waiting:
        flame, left, row = waiting.pop()
        width = flame.weight / total
        if width < LEAST or row >= MOST_ROWS:
            continue
        rows = max(rows, row + 1)
        boxes.append(_box(flame, left * WIDTH, row, width * WIDTH, width, title, words))
        for child in sorted(flame.children.values(), key=lambda one: -one.weight):
            waiting.append((child, left, row + 1))
            left += child.weight / total
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {rows * ROW}" width="100%" '
        f'style="font:11px monospace;background:#fff;max-width:{WIDTH}px" role="img">'
        f"<title>{escape(title)}</title>{''.join(boxes)}</svg>"
    )


def _box(
    flame: Flame, x: float, row: int, width: float, share: float, title: str, words: Callable[[float], str]
) -> str:
    function = flame.function
    name = title if function is None else function.name
    where = "" if function is None or not function.file else f" ({function.file}, line {function.line})"
    colour = "#ddd" if function is None else _colour(function)
    told = escape(f"{name}{where}: {words(flame.weight)}, {share:.1%}")
    room = int(width / CHARACTER) - 1
    text = name if len(name) <= room else f"{name[: room - 1]}…" if room > 3 else ""
    label = f'<text x="{x + 3:.1f}" y="{row * ROW + 12}" fill="#000">{escape(text)}</text>' if text else ""
    return (
        f'<g><title>{told}</title><rect x="{x:.1f}" y="{row * ROW}" width="{max(0.5, width - 0.5):.1f}" '
        f'height="{ROW - 1}" fill="{colour}" rx="1"/>{label}</g>'
    )


def _colour(function: ProfiledFunction) -> str:
    """Return a colour that stays the same for a function: warm for the user's own code, cool for libraries."""
    shade = sum(map(ord, function.name)) % 30
    return (
        f"hsl({25 + shade},85%,{65 + shade % 10}%)"
        if function.is_user_code
        else f"hsl({190 + shade},35%,{74 + shade % 8}%)"
    )


def speedscope(profiles: Mapping[int, EngineProfile], name: str, exporter: str, unit: str = "seconds") -> str:
    """Return samples in the form that speedscope reads: a profile of all engines together, and one of each engine."""
    numbers: dict[ProfiledFunction, int] = {}

    def part(title: str, members: Sequence[EngineProfile]) -> dict[str, Any]:
        samples, weights = [], []
        for profile in members:
            for functions, sample in stacks_of(profile):
                samples.append([numbers.setdefault(one, len(numbers)) for one in functions])
                weights.append(sample.weight)
        end = sum(weights)
        kind = {"type": "sampled", "name": title, "unit": unit, "startValue": 0, "endValue": end}
        return {**kind, "samples": samples, "weights": weights}

    parts = [part("all engines", list(profiles.values()))] if len(profiles) > 1 else []
    parts += [part(f"engine {engine_id}", [profile]) for engine_id, profile in sorted(profiles.items())]
    frames = [{"name": one.name, **({"file": one.file, "line": one.line} if one.file else {})} for one in numbers]
    return json.dumps(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "shared": {"frames": frames},
            "profiles": parts,
            "name": name,
            "activeProfileIndex": 0,
            "exporter": exporter,
        }
    )


@dataclass(slots=True)
class Figures:
    """The figures of a function in all engines.

    Attributes:
        count: the number of calls; for samples, the number of samples that found the function on the stack.
        primitive: the number of calls that were not recursive.
        own: the weight of the function itself: seconds, or bytes in a profile of memory.
        total: the weight of the function and of those that it called.
    """

    count: int = 0
    primitive: int = 0
    own: float = 0.0
    total: float = 0.0

    def add(self, count: int, primitive: int, own: float, total: float) -> None:
        """Add further figures."""
        self.count += count
        self.primitive += primitive
        self.own += own
        self.total += total


Callers = dict[ProfiledFunction, dict[ProfiledFunction, Figures]]


def figures_of(profiles: Iterable[EngineProfile]) -> tuple[dict[ProfiledFunction, Figures], Callers]:
    """Return the figures of each function, and the figures of the calls to it by each caller."""
    figures: dict[ProfiledFunction, Figures] = {}
    callers: Callers = {}
    for profile in profiles:
        for called in profile.calls:
            _add_call(profile, called, figures, callers)
        for functions, sample in stacks_of(profile):
            for i, function in enumerate(functions):
                own = sample.weight if i == len(functions) - 1 else 0.0
                is_first = function not in functions[:i]  # in a recursion it counts once
                total, count = (sample.weight, sample.number) if is_first else (0.0, 0)
                figures.setdefault(function, Figures()).add(count, count, own, total)
                if i and is_first:
                    edges = callers.setdefault(function, {})
                    edges.setdefault(functions[i - 1], Figures()).add(count, count, own, total)
    return figures, callers


def _add_call(
    profile: EngineProfile, called: CallTimes, figures: dict[ProfiledFunction, Figures], callers: Callers
) -> None:
    function = profile.functions[called.function]
    figures.setdefault(function, Figures()).add(called.number, called.primitive, called.own_s, called.total_s)
    for number, count, primitive, own_s, total_s in called.callers:
        edges = callers.setdefault(function, {})
        edges.setdefault(profile.functions[number], Figures()).add(count, primitive, own_s, total_s)


def profile_stats(profiles: Iterable[EngineProfile]) -> bytes:
    """Return the bytes of a ``.prof`` file, which ``pstats`` and viewers of its files read."""
    figures, callers = figures_of(profiles)

    def row(one: Figures) -> tuple[int, int, float, float]:
        return one.primitive, one.count, one.own, one.total

    stats = {
        _key(function): (*row(one), {_key(caller): row(by) for caller, by in callers.get(function, {}).items()})
        for function, one in figures.items()
    }
    return marshal.dumps(stats)


def _key(function: ProfiledFunction) -> Key:
    return function.file or "~", function.line, function.name
