"""A run: authors at work on a cluster, faults that strike it, and the complaints at the end."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nsactors import Client, Cluster
from nsactors.namespace.plain_shell import KEPT_CELLS
from nsactors.protocol.stored_replies import LIMIT_REPLIES
from tests.chaos.author import PREPARATION, Author
from tests.chaos.faults import FAULTS, Fault, Scene
from tests.chaos.readings import Reading, read
from tests.chaos.recoveries import Recoveries, Recovery
from tests.chaos.tally import Tally

__all__ = ["Figures", "Plan", "carry_out"]

BACK_LIMIT_S = 120.0
SETTLING_S = 60.0  # a bound: what is reported in rounds comes later on a busy machine
BARE_EVERY = 5  # faults
READING_EVERY_S = 5.0
FILL_AT_A_TIME = 100
FILL_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run. The run ends after ``seconds`` or after ``kills`` faults, whichever comes first.

    Attributes:
        seed: the seed of all random choices. The moments at which faults strike are not chosen.
        engines: the number of engines.
        authors: the number of clients.
        seconds: the duration; None: as long as it takes.
        kills: the number of faults; None: as many as there is time for.
        pause_s: the mean time between two faults.
        soaks: the sizes of processes are read during the run, and engine 0 is never killed: most other engines live
            only for seconds.
        faults: the kinds of faults, and their relative frequencies.
        disk: a small disk that holds everything that the cluster writes, and may be filled.
    """

    seed: int = 0
    engines: int = 4
    authors: int = 3
    seconds: float | None = None
    kills: int | None = None
    pause_s: float = 1.0
    soaks: bool = False
    faults: Mapping[type[Fault], int] = field(default_factory=lambda: FAULTS)
    disk: Path | None = None


@dataclass(slots=True)
class Figures:
    """What has happened."""

    tally: Tally = field(default_factory=Tally)
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: Sequence[Recovery] = ()
    bare_starts: list[float] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    took_s: float = 0.0


def carry_out(plan: Plan) -> Figures:
    """Start a cluster, and let it all happen."""
    figures = Figures()
    began = time.monotonic()
    with _complaining(figures.tally), ExitStack() as clients:
        cluster = Cluster(n=plan.engines, recovery="replay")
        clients.callback(cluster.stop_cluster_sync)
        rc = cluster.start_and_connect_sync()
        rc[:].execute(PREPARATION, block=True)
        connection = Path(clients.enter_context(TemporaryDirectory(prefix="nsachaos-")), "cluster.json")
        cluster.connection_info().save(connection)
        spared = frozenset({0} if plan.soaks else ())
        scene = Scene(
            rc, random.Random(f"{plan.seed} faults"), Recoveries(rc, figures.tally), connection, spared, plan.disk
        )
        faults = {kind(): weight for kind, weight in plan.faults.items()}
        authors = [
            Author(
                f"a{k}",
                clients.enter_context(cluster.connect_client_sync(f"a{k}", report=_nothing)),
                random.Random(f"{plan.seed} author {k}"),
                figures.tally,
            )
            for k in range(plan.authors)
        ]
        if plan.soaks:
            _fill([rc, *(author.rc for author in authors)])
        over = threading.Event()
        threads = [threading.Thread(target=author.work, args=[over]) for author in authors]
        for thread in threads:
            thread.start()
        try:
            _strike(plan, faults, scene, figures, over)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        figures.recoveries = scene.recoveries.done
        _look_back(plan, scene, figures)
        if scene.rc.ids:
            for fault in faults:
                figures.tally.complaints += fault.look_back(scene)
        rc.session.unretrieved.report()  # it has been seen, and need not be printed when the cluster stops
    figures.took_s = time.monotonic() - began
    return figures


def _fill(clients: Sequence[Client]) -> None:
    """Ask for as much as is ever kept, by number: what fills up later, the sooner the less busy the machine, grows."""
    for rc in clients:
        view = rc[:]
        asked = [partial(view.execute, "None", silent=False, block=False)] * (KEPT_CELLS // len(clients))
        asked += [partial(view.pull, "note.__name__", block=False)] * (LIMIT_REPLIES // len(clients))
        for first in range(0, len(asked), FILL_AT_A_TIME):
            for result in [ask() for ask in asked[first : first + FILL_AT_A_TIME]]:
                result.get(FILL_LIMIT_S)
    clients[0][:].snapshot(block=True)  # or each recovery would repeat all of this


def _strike(plan: Plan, faults: Mapping[Fault, int], scene: Scene, figures: Figures, over: threading.Event) -> None:
    """One fault after the other."""
    began = time.monotonic()
    next_reading = began
    bare = _bare_actor()  # once: Ray keeps each class that it is given
    end = None if plan.seconds is None else began + plan.seconds
    kinds, weights = list(faults), list(faults.values())
    while (end is None or time.monotonic() < end) and (plan.kills is None or figures.faults.total() < plan.kills):
        if over.wait(scene.chance.uniform(0, 2 * plan.pause_s)):
            return
        (fault,) = scene.chance.choices(kinds, weights)
        if fault.strike(scene):
            figures.faults[type(fault).__name__] += 1
            # Not in a soak: what Ray keeps of them would be taken for growth of the client.
            if figures.faults.total() % BARE_EVERY == 0 and not plan.soaks:
                figures.bare_starts.append(_bare_start(bare))
        if plan.soaks and time.monotonic() >= next_reading:
            engines = scene.rc.session.directory.known
            spared = {engines[engine_id].pid for engine_id in scene.spared & engines.keys()}
            figures.readings.append(read(time.monotonic() - began, spared))
            next_reading = time.monotonic() + READING_EVERY_S


def _look_back(plan: Plan, scene: Scene, figures: Figures) -> None:
    """When everything has been answered."""
    tally = figures.tally
    if not scene.recoveries.wait(BACK_LIMIT_S):
        tally.complain(f"engines {sorted(scene.recoveries.awaited)} are not back after {BACK_LIMIT_S:g} s")
    if scene.rc.ids != list(range(plan.engines)):
        tally.complain(f"of {plan.engines} engines there are {scene.rc.ids}")
    if tally.outcomes["EngineLost"] > figures.faults.total():
        tally.complain("more requests were lost than engines: not only what was running when its engine died")
    tally.complaints += scene.recoveries.flawed
    pause, deadline = threading.Event(), time.monotonic() + SETTLING_S
    while running := [entry for entry in scene.rc.history() if entry.completed is None]:
        if time.monotonic() > deadline:
            tally.complain(f"the history says that these are running: {running}")
            break
        pause.wait(0.1)
    for key, count in Counter((entry.engine_id, entry.request) for entry in scene.rc.history()).items():
        if count > 1:
            tally.complain(f"the history has {key} {count} times")


def _nothing(text: str) -> None:
    """For what clients tell when they are closed: that engines were recovered."""


class _Bare:
    """An actor that does nothing."""

    def answer(self) -> None:
        """Return as soon as the actor runs."""


def _bare_start(actor_class: Any) -> float:
    """Return the time that Ray takes to start an actor that does nothing, until its first answer."""
    import ray

    began = time.monotonic()
    actor = actor_class.remote()
    ray.get(actor.answer.remote())
    took_s = time.monotonic() - began
    ray.kill(actor)
    return took_s


def _bare_actor() -> Any:
    import ray

    return ray.remote(_Bare).options(num_cpus=0, enable_task_events=False)


@contextmanager
def _complaining(tally: Tally) -> Iterator[None]:
    """What ends any thread is a complaint."""
    before = threading.excepthook
    threading.excepthook = lambda args: tally.complain(f"{args.thread} was ended by {args.exc_value!r}")
    try:
        yield
    finally:
        threading.excepthook = before
