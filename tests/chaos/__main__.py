"""Whether anything is lost when engines die under load: ``python -m tests.chaos``.

Clients execute, push, call, map and pull, and keep books of their requests, while faults strike the cluster. Now and
then, and at the end, the contents of the engines are compared with the books.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from tests.chaos.faults import FAULTS, FullDisk
from tests.chaos.report import draw, overgrown
from tests.chaos.run import Plan, carry_out

__all__ = ["main"]

WARM_UP_S, WARM_UP_SHARE = 60.0, 0.2
DISK_SIZE = "2g"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a run and draw its figures; 1 if there is something to complain of."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    if options.disk is None and FullDisk.__name__ in options.faults and _can_mount():
        return _with_small_disk(arguments)
    seconds = options.minutes * 60 if options.minutes else None
    if seconds is None and options.kills is None:
        seconds = 180.0
    warm_up_s = WARM_UP_S if seconds is None else seconds * WARM_UP_SHARE
    plan = Plan(
        seed=options.seed,
        engines=options.engines,
        authors=options.clients,
        seconds=seconds,
        kills=options.kills,
        pause_s=options.pause,
        soaks=options.soak,
        disk=options.disk,
        faults={kind: weight for kind, weight in FAULTS.items() if kind.__name__ in options.faults},
    )
    figures = carry_out(plan)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(draw(figures, warm_up_s))
    grown = overgrown(figures, warm_up_s)
    for one in grown:
        console.print(f"[red]{one.kind}: {one.what} has grown by {one.share:.1%}")
    return 1 if figures.tally.complaints or grown else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of what is chosen; when it happens is left to chance")
    parser.add_argument("--minutes", type=float, help="how long (default: 3, unless --kills is given)")
    parser.add_argument("--kills", type=int, help="end after so many faults")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--soak", action="store_true", help="see whether processes grow")
    names = [kind.__name__ for kind in FAULTS]
    parser.add_argument("--faults", nargs="+", choices=names, default=names, help="what happens (default: all of it)")
    parser.add_argument("--disk", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _can_mount() -> bool:
    """Return whether this process may mount its own disks."""
    return shutil.which("unshare") is not None and not subprocess.run(["unshare", "-m", "true"], check=False).returncode


def _with_small_disk(arguments: Sequence[str]) -> int:
    """Carry out a run whose temporary files are on a disk of its own, which nobody else sees."""
    with TemporaryDirectory(prefix="nsc-", dir="/tmp") as disk:  # sockets below it have short paths
        mount = f'mount -t tmpfs -o size={DISK_SIZE} tmpfs {disk} && exec "$@"'
        run = [sys.executable, "-m", "tests.chaos", *arguments, "--disk", disk]
        environment = {**os.environ, "TMPDIR": disk}
        return subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", *run], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
