"""Carrying out a cell on engines and showing what it prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nsactors.client import Client
from nsactors.magics.options import Options
from nsactors.results import AsyncResult, Call, CallOwner
from nsactors.results.live import LiveOutput
from nsactors.results.live.screen import Screen
from nsactors.results.waiting import wait_or_interrupt
from nsactors.views.direct import DirectView

__all__ = ["show_in_background", "show_while_waiting", "submit"]


def submit(view: DirectView, code: str, options: Options) -> AsyncResult:
    """Send a cell to engines."""
    if options.journal is not None:
        view = view.with_flags(journal=options.journal)
    return view.execute(
        code, silent=False, targets=options.targets, block=False, label="%px", timeout=options.timeout_s
    )


def show_while_waiting(client: Client, result: AsyncResult, options: Options, screen: Screen) -> None:
    """Show output until every engine has answered; Ctrl-C interrupts them.

    Raises:
        RemoteError: what the cell raised, if it ran on one engine given by its id.
        CompositeError: what it raised on several.
    """
    live = _live(result, options, screen)
    owner: CallOwner = client.session
    if options.signal_on_interrupt is not None:
        owner = _Signaller(client, options.signal_on_interrupt)
    try:
        wait_or_interrupt(live.wait, result.calls, owner, None)
    finally:
        screen.close()
    result.get()


def show_in_background(result: AsyncResult, options: Options, screen: Screen) -> None:
    """Show output as it comes, while other things go on."""
    _live(result, options, screen, tells_failures=True).follow()


def _live(result: AsyncResult, options: Options, screen: Screen, *, tells_failures: bool = False) -> LiveOutput:
    groupby = options.group_outputs or ("type" if options.stream is False else None)
    after = -1.0 if options.progress_after_s is None else options.progress_after_s
    return LiveOutput(
        result.calls, screen, label="px", progress_after_s=after, groupby=groupby, tells_failures=tells_failures
    )


@dataclass(frozen=True, slots=True)
class _Signaller:
    """Stands for a client whose user wants Ctrl-C to send another signal than SIGINT."""

    client: Client
    number: int

    @property
    def goes_on(self) -> bool:
        return False

    def abort(self, calls: Iterable[Call], *, interrupt: bool) -> None:
        self.client.session.abort(calls, interrupt=interrupt)

    def interrupt(self, calls: Iterable[Call]) -> bool:
        engine_ids: Sequence[int] = sorted({call.engine_id for call in calls})
        if self.number:  # 0 leaves the engines alone
            self.client.send_signal(self.number, engine_ids)
        return True

    def asked(self, calls: Iterable[Call]) -> None:
        self.client.session.asked(calls)

    def call_back(self, function: Callable[[], object]) -> None:
        self.client.session.call_back(function)

    def restart(self, engine_ids: Iterable[int]) -> None:
        self.client.session.restart(engine_ids)
