"""Bulk-synchronous parallel programs: ``python examples/supersteps.py`` runs all of them.

A program is a function that each process calls with its own ``bsp``. It computes, sends data, and calls ``bsp.sync()``;
afterwards the data has arrived.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nsactors.models.bsp import Process

LINKS = {
    "A": "", "B": "C", "C": "B", "D": "AB", "E": "BDF", "F": "BE",
    "G": "BE", "H": "BE", "I": "BE", "J": "E", "K": "E",
}  # fmt: skip


def ring(bsp: Process) -> tuple[Any, Any]:
    """Put ``x`` into the right neighbour, and get the left neighbour's ``x``: the get returns the old value."""
    bsp["x"] = bsp.pid
    bsp.put((bsp.pid + 1) % bsp.nprocs, "x", bsp["x"] + 100)
    bsp.get((bsp.pid - 1) % bsp.nprocs, "x", into="y")
    bsp.sync()
    return bsp["x"], bsp["y"]


def prefix_sum(bsp: Process, values: list[int]) -> int:
    """Sum the values of all processes up to this one, in ceil(log2(nprocs)) supersteps (Hillis and Steele)."""
    total, distance = values[bsp.pid], 1
    while distance < bsp.nprocs:
        if bsp.pid + distance < bsp.nprocs:
            bsp.send(bsp.pid + distance, total)
        bsp.sync()
        total += sum(message.value for message in bsp.received)
        distance *= 2
    return total


def sum_of_squares(bsp: Process, upto: int) -> int:
    """Compute 1 + 4 + 9 + ... + upto * upto on every process."""
    part = sum(number * number for number in range(bsp.pid + 1, upto + 1, bsp.nprocs))
    for pid in range(bsp.nprocs):
        bsp.send(pid, part)
    bsp.sync()
    return sum(message.value for message in bsp.received)


def sample_sort(bsp: Process, keys: np.ndarray) -> np.ndarray:
    """Sort by parallel regular sampling (Shi and Schaeffer, 1992).

    Args:
        bsp: this process.
        keys: the distinct keys of all processes; each process sorts a part of them.

    Returns:
        The keys of this process in order. The keys of process 0 come first. No process has more than ``2 n / nprocs``.
    """
    p = bsp.nprocs
    mine = np.sort(np.array_split(keys, p)[bsp.pid])
    bsp.send(0, mine[np.arange(p) * len(mine) // p])
    bsp.sync()
    if bsp.pid == 0:
        samples = np.sort(np.concatenate([message.value for message in bsp.received]))
        for pid in range(p):
            bsp.put(pid, "pivots", samples[np.arange(1, p) * p + p // 2 - 1])
    bsp.sync()
    for pid, part in enumerate(np.split(mine, np.searchsorted(mine, bsp["pivots"], side="right"))):
        bsp.send(pid, part)
    bsp.sync()
    return np.sort(np.concatenate([message.value for message in bsp.received]))


def pagerank(bsp: Process, links: dict[str, str], damping: float = 0.85, supersteps: int = 80) -> dict[str, float]:
    """Compute the ranks of this process's pages.

    Args:
        bsp: this process.
        links: for each page, the pages that it links to; a page without links counts as linking to all pages.
        damping: the probability that a reader follows a link.
        supersteps: the number of supersteps.
    """
    pages = sorted(links)
    home = {page: number % bsp.nprocs for number, page in enumerate(pages)}
    ranks = {page: 1 / len(pages) for page in pages[bsp.pid :: bsp.nprocs]}
    for _ in range(supersteps):
        loose = sum(rank for page, rank in ranks.items() if not links[page])
        shares: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(bsp.nprocs)]
        for page, rank in ranks.items():
            for target in links[page]:
                shares[home[target]][target] += rank / len(links[page])
        for pid, share in enumerate(shares):
            bsp.send(pid, (loose, dict(share)))
        bsp.sync()
        everywhere = sum(loose for _, _, (loose, _) in bsp.received) / len(pages)
        ranks = {
            page: (1 - damping) / len(pages)
            + damping * (everywhere + sum(share.get(page, 0.0) for _, _, (_, share) in bsp.received))
            for page in ranks
        }
    return ranks


def main() -> None:
    """Run all programs, and print their results."""
    from nsactors import Cluster

    parser = argparse.ArgumentParser(description="Bulk-synchronous parallel programs on engines.")
    parser.add_argument("-n", type=int, default=4, help="number of engines")
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args()
    keys = np.random.default_rng(1).permutation(1_000_000)
    with Cluster(n=options.n, backend=options.backend) as rc:
        machine = rc[:].bsp()
        print("ring          ", machine.run(ring))
        print("prefix sums   ", machine.run(prefix_sum, list(range(1, options.n + 1))))
        print("sum of squares", machine.run(sum_of_squares, 1_000_000)[0])
        buckets = machine.run(sample_sort, keys)
        print("sample sort   ", np.array_equal(np.concatenate(buckets), np.sort(keys)), [len(b) for b in buckets])
        ranks = {page: rank for part in machine.run(pagerank, LINKS) for page, rank in part.items()}
        print("page rank     ", {page: f"{100 * ranks[page]:.1f} %" for page in sorted(ranks)})


if __name__ == "__main__":
    main()
