"""Snapshots tried where the tests run."""

from __future__ import annotations

from collections.abc import Callable

from nsactors.namespace.plain_shell import fresh_names
from nsactors.namespace.snapshot import restore
from nsactors.recovery.journal import Snapshot


class InProcess:
    """Tries snapshots in another namespace of this process."""

    def failures(self, path: str, snapshot: Snapshot) -> dict[str, str]:
        return restore(snapshot, fresh_names())


def at_once(run: Callable[[], None]) -> None:
    run()
