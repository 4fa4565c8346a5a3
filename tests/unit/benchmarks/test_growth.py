"""Growth of memory, by process."""

from rich.console import Console

from benchmarks.studies.growth import MEGABYTE, Reading, draw, grown

READINGS = [
    Reading("warm-up", {"client": 100 * MEGABYTE, "engine 0": 80 * MEGABYTE, "Ray's gcs_server": 30 * MEGABYTE}),
    Reading("calls", {"client": 190 * MEGABYTE, "engine 0": 85 * MEGABYTE, "Ray's gcs_server": 300 * MEGABYTE}),
    Reading("pushes", {"client": 110 * MEGABYTE, "engine 0": 79 * MEGABYTE, "Ray's gcs_server": 300 * MEGABYTE}),
]


def test_growth_is_where_a_process_ends_less_where_it_stood_after_the_warm_up() -> None:
    assert grown(READINGS) == {"client": 10 * MEGABYTE, "engine 0": -MEGABYTE}


def test_the_table_shows_each_process_after_each_step() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(draw(READINGS))
    text = captured.get()
    assert all(part in text for part in ("100.0 MB", "+90.0 MB", "+10.0 MB", "-1.0 MB", "Ray's gcs_server"))
