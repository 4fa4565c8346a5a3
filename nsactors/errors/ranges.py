"""How a set of engine ids is written for people."""

from collections.abc import Iterable

__all__ = ["engine_ranges"]


def engine_ranges(engine_ids: Iterable[int]) -> str:
    """Name engines briefly: ``[7, 0, 1, 2, 3]`` gives ``"engines 0-3, 7"``.

    Order and repetition do not matter. One id gives ``"engine 5"``, none gives ``"no engines"``.
    """
    ids = sorted(set(engine_ids))
    match ids:
        case []:
            return "no engines"
        case [only]:
            return f"engine {only}"
    runs: list[list[int]] = []
    for engine_id in ids:
        if runs and engine_id == runs[-1][-1] + 1:
            runs[-1].append(engine_id)
        else:
            runs.append([engine_id])
    return "engines " + ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
