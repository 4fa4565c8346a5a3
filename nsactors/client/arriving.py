"""Waiting for engines that have been asked for."""

from __future__ import annotations

from nsactors.client.session import Session
from nsactors.errors import EngineStartWarning, warn_caller

__all__ = ["wait_for_engines"]


def wait_for_engines(session: Session, n: int | None, timeout_s: float | None, *, patient: bool) -> None:
    """Wait until ``n`` engines take requests; see ``Client.wait_for_engines``.

    Args:
        session: the client's conversation.
        n: how many; None for all that have been asked for.
        timeout_s: None for as long as it takes.
        patient: whether to wait for those, too, that have no place in the cluster.
    """
    session.check()
    roster = session.roster
    wanted = len(roster.ids) + len(roster.starting) if n is None else n
    enough = roster.wait_for(wanted, timeout_s, patient=patient)
    problems = {**roster.start_failures, **roster.waiting}
    if not enough:
        session.check()
        if {*roster.starting, *roster.away} - problems.keys() or not problems:
            raise TimeoutError(f"{len(roster.ids)} of {wanted} engines are there after {timeout_s:g} s")
    if problems and (not roster.ids or not (enough or n is None)):
        newest = problems[max(problems)]
        session.ledger.heard([str(newest)])
        raise newest
    for problem in roster.take_problems():
        session.ledger.heard([str(problem)])  # it may have come before anybody waited
        warn_caller(EngineStartWarning(problem))
