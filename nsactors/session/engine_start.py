"""The start of engines, for which a client waits."""

from __future__ import annotations

import time

from nsactors.errors import EngineStartWarning, plural, warn_caller
from nsactors.results.display.live import open_screen
from nsactors.results.display.merging import arrange
from nsactors.results.display.screen import Progress
from nsactors.session.session import Session


class StartProgress:
    """The progress of a start, as a line of progress shows it.

    Args:
        engines: the number of engines to wait for.
    """

    def __init__(self, engines: int) -> None:
        self._engines = engines
        self._began = time.monotonic()
        self._awaited = "the cluster"
        self._session: Session | None = None

    def awaits(self, what: str) -> None:
        """Set the step that the start waits for, before there can be engines."""
        self._awaited = what

    def counts(self, session: Session, engines: int | None = None) -> None:
        """Count the engines of a session from now on; ``engines`` replaces the number to wait for."""
        self._session = session
        self._engines = self._engines if engines is None else engines

    def read(self) -> Progress:
        """Return the progress now."""
        label = f"starting {self._engines} {plural('engine', self._engines)}"
        elapsed_s = time.monotonic() - self._began
        if self._session is None:
            return Progress(label, 0, 0, elapsed_s, doing=f"waiting for {self._awaited}")
        there = min(len(self._session.directory.ids), self._engines)
        return Progress(label, there, self._engines, elapsed_s)


def wait_for_engines(session: Session, n: int | None, timeout_s: float | None, *, patient: bool) -> None:
    """Wait until ``n`` engines take requests; see ``Client.wait_for_engines``.

    This does not show the output of start-up code or the problems of other engines; :func:`tell_of_start` does.

    Args:
        session: the client's session.
        n: the number of engines; None for all that have been asked for.
        timeout_s: the limit; None for no limit.
        patient: whether to continue to wait for engines that have no place in the cluster.
    """
    session.check()
    directory = session.directory
    wanted = len(directory.ids) + len(directory.starting) if n is None else n
    enough = directory.wait_for(wanted, timeout_s, patient=patient)
    problems = {**directory.start_failures, **directory.waiting}
    if not enough:
        session.check()
        if {*directory.starting, *directory.away} - problems.keys() or not problems:
            raise TimeoutError(
                f"{len(directory.ids)} of {wanted} engines have joined after {timeout_s:g} s: "
                "`rc` shows which are starting"
            )
    if problems and (not directory.ids or not (enough or n is None)):
        newest = problems[max(problems)]
        session.unretrieved.heard([str(newest)])
        raise newest


def tell_of_start(session: Session) -> None:
    """Show the output of start-up code, and warn of engines that are missing.

    Call this after the wait, because output that is shown before the line of progress is removed would begin behind
    that line.
    """
    directory = session.directory
    if outputs := directory.take_startup_outputs():
        screen = open_screen(blocking=True)
        screen.show(arrange(sorted(outputs.items()), "type"))
        screen.close()
    for problem in directory.take_problems():
        session.unretrieved.heard([str(problem)])  # the same notice may have arrived before this wait
        warn_caller(EngineStartWarning(problem))
