"""The time of a small call, layer by layer: ``python -m benchmarks.studies.layers``.

Timers wrap functions of client and engine, by name, and calls to one engine are made one after the other. Each call is
divided into five parts: the client before it passes the request to Ray, Ray on the way to the engine, the engine, Ray
on the way back, the client after the reply. The sum of the parts is the whole. Within client and engine, the time of a
layer excludes the layers that it calls; time outside all layers is book-keeping.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.studies import tracing
from benchmarks.studies.tracing import Span
from benchmarks.systems.bare_ray import Engine, message_sizes
from benchmarks.systems.views import prepare_on_view

__all__ = ["CLIENT", "ENGINE", "ORDER", "Layer", "Profile", "as_markdown", "cut", "draw", "main"]

OPERATIONS = ("apply", "execute", "push", "pull")
ROUNDS, CALLS = 10, 100
BOOK_KEEPING = "book-keeping"
HAND_OVER = "ray.actor:ActorMethod._remote"


class Layer(NamedTuple):
    """Functions that do the same work; names without a function are ignored.

    Attributes:
        title: the work that they do.
        names: ``module:function`` or ``module:Class.method``.
        repeatable: whether calling them again with the same arguments changes nothing.
    """

    title: str
    names: tuple[str, ...]
    repeatable: bool = True


CLIENT = (
    Layer("find the targets", ("nsactors.protocol.targets:resolve",)),
    Layer("pickle the arguments", ("nsactors.protocol.serialize:pack_call", "nsactors.protocol.serialize:pack")),
    Layer(
        "encode the request",
        tuple(f"nsactors.protocol.wire:{name}" for name in ("seal", "encode", "encode_body", "stamp")),
    ),
    Layer("hand over to Ray", (HAND_OVER,), repeatable=False),
    Layer("decode the reply", ("nsactors.protocol.wire:decode_reply",)),
    Layer("unpickle the value", ("nsactors.protocol.serialize:unpack",)),
    Layer("settle the call", ("nsactors.results.call:Call.settle",), repeatable=False),
)
ENGINE = (
    Layer("decode the request", ("nsactors.protocol.wire:decode_request",)),
    Layer("order and repeats", ("nsactors.protocol.sequencing:RequestStream.take",), repeatable=False),
    Layer(
        "interrupt gate",
        (
            "nsactors.namespace.interrupts:InterruptHandler.enter",
            "nsactors.namespace.interrupts:InterruptHandler.leave",
        ),
        repeatable=False,
    ),
    Layer(
        "capture output",
        ("nsactors.namespace.output:OutputRecorder.begin", "nsactors.namespace.output:OutputRecorder.finish"),
        repeatable=False,
    ),
    Layer("unpickle the arguments", ("nsactors.protocol.serialize:unpack",), repeatable=False),
    Layer("run it in the namespace", ("nsactors.namespace.namespace:Namespace.run",), repeatable=False),
    Layer("IPython", ("nsactors.namespace.ipython_shell:IPythonShell.run_cell",), repeatable=False),
    Layer("pickle the value", ("nsactors.protocol.serialize:pack",)),
    Layer("encode the reply", ("nsactors.protocol.wire:seal", "nsactors.protocol.wire:encode")),
)


@dataclass(slots=True)
class Profile:
    """The seconds of each call by part and layer; ``hot`` has the layers that were repeated alone.

    ``unclocked`` has whole calls without timers, ``bare_ray`` has calls through bare Ray, and ``bare_hand_over`` has
    the time in which the latter are passed to Ray.
    """

    calls: list[dict[tuple[str, str], float]] = field(default_factory=list)
    hot: dict[tuple[str, str], float] = field(default_factory=dict)
    unclocked: list[float] = field(default_factory=list)
    bare_ray: list[float] = field(default_factory=list)
    bare_hand_over: list[float] = field(default_factory=list)

    def typical(self) -> dict[tuple[str, str], float]:
        """Return means over the calls without the fastest and the slowest quarter; the means add up."""
        by_length = sorted(self.calls, key=lambda call: sum(call.values()))
        quarter = len(by_length) // 4
        middle = by_length[quarter : len(by_length) - quarter]
        parts: dict[tuple[str, str], float] = defaultdict(float)
        for call in middle:
            for part, seconds in call.items():
                parts[part] += seconds / len(middle)
        return dict(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile small operations and draw a table for each."""
    options = _parse(arguments)
    from nsactors import Cluster

    console = Console(width=None if sys.stdout.isatty() else 120)
    profiles = {}
    with Cluster(n=1) as rc:
        for operation in options.only or OPERATIONS:
            profiles[operation] = profile = _profile(rc[0], operation, options.rounds)
            if not options.markdown:
                console.print(draw(operation, profile))
                console.print(_comparison(profile))
    if options.markdown:
        print(as_markdown(profiles))
    return 0


def _comparison(profile: Profile) -> str:
    plain, bare, hand_over = (
        1e6 * statistics.median(seconds) for seconds in (profile.unclocked, profile.bare_ray, profile.bare_hand_over)
    )
    return f"Without clocks {plain:.0f} µs; a bare Ray call {bare:.0f} µs, of which {hand_over:.0f} to hand over.\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.layers", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", action="append", choices=OPERATIONS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of {CALLS} calls each")
    parser.add_argument("--markdown", action="store_true", help="one table of all operations, for the documentation")
    return parser.parse_args(arguments)


def _profile(view: Any, operation: str, rounds: int) -> Profile:
    profile = Profile()
    run = prepare_on_view(view, operation, 1)
    assert run is not None, "a small operation"
    bare = _bare_call(operation)
    for _ in range(rounds):
        profile.unclocked += _timed(run)
        profile.bare_ray += _timed(bare)
        view.apply_sync(tracing.install, _names(ENGINE))
        tracing.install(_names(CLIENT))
        _timed(run)  # warm
        view.apply_sync(tracing.reset)
        tracing.reset()
        windows, bare_windows = list(_windows(run)), list(_windows(bare))
        here = tracing.collect()
        profile.bare_hand_over += [
            span.end - span.begin for window in bare_windows for span in _within(window, here) if span.name == HAND_OVER
        ]
        there = view.apply_sync(tracing.collect)
        hot_here = tracing.hot_seconds(_repeatable(CLIENT, windows, here))
        hot_there = view.apply_sync(tracing.hot_seconds, _repeatable(ENGINE, windows, there))
        tracing.uninstall()
        view.apply_sync(tracing.uninstall)
        profile.calls += cut(windows, here, there)
        profile.hot = _by_layer("client", CLIENT, hot_here) | _by_layer("engine", ENGINE, hot_there)
    return profile


def _bare_call(operation: str) -> Callable[[], object]:
    import ray

    actor: Any = ray.remote(Engine).options(num_cpus=0).remote()
    request, reply = message_sizes(operation)
    if operation == "execute":
        ray.get(actor.start_shell.remote())
    ray.get(actor.reply_with.remote(reply))
    method = actor.run_cell if operation == "execute" else actor.call
    return lambda: ray.get(method.remote(bytes(request)))


def _timed(run: Callable[[], object]) -> list[float]:
    return [end - begin for begin, end in _windows(run)]


def _windows(run: Callable[[], object]) -> Iterator[tuple[float, float]]:
    for _ in range(CALLS):
        begin = time.perf_counter()
        run()
        yield begin, time.perf_counter()


def cut(
    windows: Sequence[tuple[float, float]], here: Sequence[Span], there: Sequence[Span]
) -> list[dict[tuple[str, str], float]]:
    """Return the seconds of each call by part and layer.

    Args:
        windows: the begin and the end of each call.
        here: the spans of the client.
        there: the spans of the engine.
    """
    return [_cut_one(*window, _within(window, here), _within(window, there)) for window in windows]


def _within(window: tuple[float, float], spans: Sequence[Span]) -> list[Span]:
    begin, end = window
    return [span for span in spans if span.begin >= begin and span.end <= end]


def _cut_one(begin: float, end: float, here: list[Span], there: list[Span]) -> dict[tuple[str, str], float]:
    arrived, answered = min(span.begin for span in there), max(span.end for span in there)
    # Ray's function may not have returned yet when the engine has begun.
    before = [span._replace(end=min(span.end, arrived)) for span in here if span.begin < arrived]
    sent = max((span.end for span in before), default=begin)
    after = [span for span in here if span.begin >= answered]
    back = min((span.begin for span in after), default=end)
    parts = {("Ray", "to the engine"): arrived - sent, ("Ray", "back to the client"): back - answered}
    _share_out(parts, "client", CLIENT, before, sent - begin, "before")
    _share_out(parts, "engine", ENGINE, there, answered - arrived)
    _share_out(parts, "client", CLIENT, after, end - back, "after")
    return parts


def _share_out(
    parts: dict[tuple[str, str], float],
    place: str,
    layers: Sequence[Layer],
    spans: Sequence[Span],
    total: float,
    when: str = "",
) -> None:
    titles = {name: layer.title for layer in layers for name in layer.names}
    named = 0.0
    for span, own in tracing.own_seconds(spans):
        key = place, titles[span.name]
        parts[key] = parts.get(key, 0.0) + own
        named += own
    parts[place, f"{BOOK_KEEPING} {when}".strip()] = total - named


def _by_layer(place: str, layers: Sequence[Layer], seconds: Mapping[str, float]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = defaultdict(float)
    for layer in layers:
        for name in layer.names:
            if name in seconds:
                found[place, layer.title] += seconds[name]
    return dict(found)


def _names(layers: Sequence[Layer]) -> list[str]:
    return [name for layer in layers for name in layer.names]


def _repeatable(layers: Sequence[Layer], windows: Sequence[tuple[float, float]], spans: Sequence[Span]) -> list[str]:
    """Return the functions to repeat alone: those in the spans of calls, not only in calls of this profiler."""
    seen = {span.name for span in _within((windows[0][0], windows[-1][1]), spans)}
    return [name for layer in layers if layer.repeatable for name in layer.names if name in seen]


ORDER = (
    *(("client", layer.title) for layer in CLIENT[:4]),
    ("client", f"{BOOK_KEEPING} before"),
    ("Ray", "to the engine"),
    *(("engine", layer.title) for layer in ENGINE),
    ("engine", BOOK_KEEPING),
    ("Ray", "back to the client"),
    *(("client", layer.title) for layer in CLIENT[4:]),
    ("client", f"{BOOK_KEEPING} after"),
)


def draw(operation: str, profile: Profile) -> Table:
    """Return a table of the layers of one operation, in the order in which they run."""
    typical = profile.typical()
    whole = sum(typical.values())
    table = Table(title=f"{operation}: {1e6 * whole:.0f} µs in a typical call", title_justify="left")
    table.add_column("where")
    table.add_column("layer")
    table.add_column("in a call, µs", justify="right")
    table.add_column("share", justify="right")
    table.add_column("hot, µs", justify="right")
    last = ""
    for place, title in sorted(typical, key=ORDER.index):
        seconds, hot = typical[place, title], profile.hot.get((place, title))
        if place != last:
            table.add_section()
        table.add_row(
            place if place != last else "",
            title,
            _cell(seconds),
            f"{100 * seconds / whole:.0f} %",
            _cell(hot),
        )
        last = place
    return table


def as_markdown(profiles: Mapping[str, Profile]) -> str:
    """Return all operations side by side, in µs; the last column has the hot layers of the first operation."""
    typical = {operation: profile.typical() for operation, profile in profiles.items()}
    hot = next(iter(profiles.values())).hot
    lines = [
        ["where", "layer", *profiles, "hot"],
        ["---", "---", *["--:"] * (len(profiles) + 1)],
        *(
            [*part, *(_cell(parts.get(part)) for parts in typical.values()), _cell(hot.get(part))]
            for part in ORDER
            if any(part in parts for parts in typical.values())
        ),
        ["", "the whole", *(f"{1e6 * sum(parts.values()):.0f}" for parts in typical.values()), ""],
        ["", "without clocks", *(_median(profile.unclocked) for profile in profiles.values()), ""],
        ["", "bare Ray", *(_median(profile.bare_ray) for profile in profiles.values()), ""],
        ["", "of which to hand over", *(_median(profile.bare_hand_over) for profile in profiles.values()), ""],
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.1f}"


def _median(seconds: Sequence[float]) -> str:
    return f"{1e6 * statistics.median(seconds):.0f}"


if __name__ == "__main__":
    sys.exit(main())
