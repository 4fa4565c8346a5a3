"""Programs that coordinate through a tuple space: ``python examples/tuple_space.py --engines 4`` runs all of them.

After N. Carriero and D. Gelernter, How to Write Parallel Programs, 1990.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsactors.models.tuple_space import TupleSpace

KNOWN_PRIMES = {1_000: (168, 76_127), 10_000: (1_229, 5_736_396)}  # limit: the number of primes, and their sum


def search(space: TupleSpace, limit: int, grain: int) -> int:
    """Take ranges and find their primes, until there are no more ranges; return the number of ranges.

    The test of a number needs the primes up to its root, which other workers may still be looking for.
    """
    primes: list[int] = []
    upto = 0
    for done in itertools.count():
        _, start = space.in_("next", int)
        space.out("next", start + grain)
        if start > limit:
            return done
        while upto < start and upto * upto < start + grain:
            primes += space.rd("primes", upto, tuple)[2]
            upto += grain
        found: list[int] = []
        for number in range(max(2, start), min(start + grain, limit + 1)):
            smaller = itertools.takewhile(lambda p, n=number: p * p <= n, itertools.chain(primes, found))
            if all(number % prime for prime in smaller):
                found.append(number)
        space.out("primes", start, tuple(found))


def find_primes(rc: Any, space: TupleSpace, limit: int, grain: int = 100) -> list[int]:
    """Find the primes up to ``limit``, by a list of ranges in the space."""
    workers = rc[:].apply_async(search, space, limit, grain)
    space.out("next", 0)
    primes = [prime for start in range(0, limit + 1, grain) for prime in space.rd("primes", start, tuple)[2]]
    workers.get()
    space.in_("next", int)
    return primes


def count_up(space: TupleSpace, times: int) -> None:
    """Add to a counter; no other worker can add to it while the counter is out of the space."""
    for _ in range(times):
        _, value = space.in_("counter", int)
        space.out("counter", value + 1)


def dine(space: TupleSpace, seats: int, places: Sequence[int], meals: int) -> None:
    """Let philosophers at some places of a round table think and eat, each in a thread of its own.

    Each needs the forks at both sides. With one ticket less than seats, they cannot all wait with one fork in hand.
    """

    def live(place: int) -> None:
        for _ in range(meals):
            space.in_("ticket")
            space.in_("fork", place)
            space.in_("fork", (place + 1) % seats)
            space.out("eating", place)
            for neighbour in ((place - 1) % seats, (place + 1) % seats):
                if space.rdp("eating", neighbour):
                    raise AssertionError(f"{place} and {neighbour} eat at the same time")
            space.in_("eating", place)
            space.out("fork", place)
            space.out("fork", (place + 1) % seats)
            space.out("ticket")
            _, eaten = space.in_("meals", int)
            space.out("meals", eaten + 1)

    with ThreadPoolExecutor(max(1, len(places))) as threads:
        list(threads.map(live, places))


def have_dinner(rc: Any, space: TupleSpace, meals: int, seats: int = 5) -> int:
    """Let philosophers dine on all engines; return the number of their meals."""
    for place in range(seats):
        space.out("fork", place)
        if place:
            space.out("ticket")
    space.out("meals", 0)
    ids = rc.ids
    parts = [rc[i].apply_async(dine, space, seats, range(seats)[k :: len(ids)], meals) for k, i in enumerate(ids)]
    for part in parts:
        part.get()
    eaten: int = space.in_("meals", int)[1]
    return eaten


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all programs, print, and check."""
    parser = argparse.ArgumentParser(description="Programs around a tuple space.")
    parser.add_argument("--limit", type=int, default=10_000, help="the largest number to test for primes")
    parser.add_argument("--times", type=int, default=100, help="additions of each engine")
    parser.add_argument("--meals", type=int, default=100, help="meals of each philosopher")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster
    from nsactors.models.tuple_space import TupleSpace

    with Cluster(n=options.engines, backend=options.backend) as rc:
        space = TupleSpace(rc, "examples")
        primes = find_primes(rc, space, options.limit)
        space.out("counter", 0)
        rc[:].apply_sync(count_up, space, options.times)
        counted = space.in_("counter", int)[1]
        eaten = have_dinner(rc, space, options.meals)
        space.close()
        checks = [
            (
                f"{len(primes):,} primes up to {options.limit:,}, their sum is {sum(primes):,}",
                (len(primes), sum(primes)) == KNOWN_PRIMES.get(options.limit, (len(primes), sum(primes))),
            ),
            ("every engine has counted", counted == options.times * len(rc.ids)),
            (f"{eaten} meals, no two neighbours at a time", eaten == 5 * options.meals),
        ]
    for text, right in checks:
        print(f"{text}: {'right' if right else 'WRONG'}")
    return int(not all(right for _, right in checks))


if __name__ == "__main__":
    sys.exit(main())
