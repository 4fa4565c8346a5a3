"""What a client holds for tasks that wait."""

import pytest
from rich.console import Console

from benchmarks.studies.queued import Footprint, draw, main


def test_the_table_shows_bytes_for_each() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(draw([Footprint("single task", 1_000, 2_000_000, 2_500_000)]))
    assert all(part in captured.get() for part in ("single task", "1,000", "2,000", "2,500", "3,000"))


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_client_holds_little_for_what_waits(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--engines", "1", "--items", "1000", "--tasks", "100"])
    assert "item of a map" in capsys.readouterr().out
