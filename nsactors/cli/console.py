"""``nsactors console``: a prompt whose cells run on engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsactors.cli.common import attached, cluster_option, targets_option, the_cluster

if TYPE_CHECKING:
    from nsactors.client import Client
    from nsactors.core.targets import Targets

__all__ = ["banner", "console"]

BANNER = """\
{cluster}: {engines}
Cells run on {where}. %pn 0 x = 5 is for one engine, %autopx for cells of this process and back;
`rc` is the client here. TAB completes names of the engines, name? tells of them; Ctrl-D leaves, and they stay.
"""


@click.command()
@cluster_option
@targets_option
def console(name: str | None, targets: Targets) -> None:
    """A prompt whose cells run on the engines of a cluster.

    It is IPython, with its history and completion: what is typed runs on the engines, and output comes back labelled
    while it is printed. Others may work on the same engines meanwhile. Leaving it leaves the engines as they are.
    """
    with attached(name, "console") as client:
        _run(client, Path(name).stem if name else the_cluster(None).name, targets)


def banner(cluster: str, ids: Sequence[int], targets: Targets) -> str:
    """What a prompt begins with.

    Args:
        cluster: its name.
        ids: of the engines that are there.
        targets: which of them cells are for.

    Raises:
        TargetError: if it has no such engines.
    """
    from nsactors.core.targets import resolve
    from nsactors.errors import engine_ranges

    there = engine_ranges(ids) if ids else "there is no engine yet, and `nsactors engines add N` starts some"
    where = "all of them" if targets == "all" else engine_ranges(resolve(targets, ids))
    return BANNER.format(cluster=cluster, engines=there, where=where)


def _run(client: Client, cluster: str, targets: Targets) -> None:
    from IPython.terminal.ipapp import TerminalIPythonApp
    from traitlets.config import Config

    from nsactors.magics import load

    client.wait_for_engines()
    config = Config()
    config.TerminalInteractiveShell.banner1 = banner(cluster, client.ids, targets)
    config.TerminalInteractiveShell.confirm_exit = False
    app: Any = TerminalIPythonApp.instance(config=config, user_ns={"rc": client})
    app.initialize(argv=[])
    extension = load(app.shell)
    if targets != "all":
        extension.activate(client.direct_view(targets), "")
    extension.send_cells("px")
    app.shell.prompts = _prompts(app.shell, cluster, lambda: extension.sends_cells_by is not None)
    app.start()


def _prompts(shell: Any, cluster: str, is_remote: Callable[[], bool]) -> Any:
    """Prompts that say where a cell will run."""
    from IPython.terminal.prompts import Prompts

    class ClusterPrompts(Prompts):
        def in_prompt_tokens(self) -> Any:
            tokens: Any = super().in_prompt_tokens()  # type: ignore[no-untyped-call]
            return [(tokens[0][0], f"{cluster} " if is_remote() else "here "), *tokens]

    return ClusterPrompts(shell)
