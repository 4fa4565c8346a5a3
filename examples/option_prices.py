"""European and Asian options by simulation: ``python examples/option_prices.py --engines 4``.

Every task has a seed of its own, so the prices are the same to the last bit on any number of engines. The option on the
geometric average, which has a price in closed form, is a control variate for the option on the arithmetic average.

A. Kemna and A. Vorst, A pricing method for options based on average asset values, Journal of Banking and Finance 14,
1990.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SPOT = STRIKE = 100.0
VOLATILITY, RATE, DAYS = 0.25, 0.05, 260  # volatility and rate per year, and trading days of a year
TASKS = 32


class Prices(NamedTuple):
    """Prices of a call and a put on the final price, and on the geometric and arithmetic average price of the days."""

    european: tuple[float, float]
    geometric: tuple[float, float]
    arithmetic: tuple[float, float]


# Known prices: in closed form, or from very long simulations.
KNOWN = Prices((12.335999, 7.458941), (6.551043, 4.640311), (6.8745, 4.4456))
PARITY = 2.427588  # the exact difference between the arithmetic call and put


def simulate(seed: int, paths: int) -> Any:
    """Return the mean discounted gains: an array of call and put for the three kinds of options."""
    rng = np.random.default_rng(seed)
    drift = (RATE - VOLATILITY**2 / 2) / DAYS
    steps = drift + VOLATILITY / math.sqrt(DAYS) * rng.standard_normal((paths, DAYS))
    logarithms = np.cumsum(steps, axis=1)
    average = np.exp(logarithms).mean(axis=1)
    outcomes = SPOT * np.array([np.exp(logarithms[:, -1]), np.exp(logarithms.mean(axis=1)), average])
    gains = np.array([np.maximum(outcomes - STRIKE, 0), np.maximum(STRIKE - outcomes, 0)])
    return math.exp(-RATE) * gains.mean(axis=2).T


def prices(view: Any, paths: int) -> Prices:
    """Compute the prices from ``paths`` paths, on a load-balanced view."""
    european, geometric, arithmetic = np.mean(view.map_sync(simulate, range(TASKS), [paths // TASKS] * TASKS), axis=0)
    corrected = arithmetic - geometric + KNOWN.geometric
    return Prices(tuple(european.tolist()), tuple(geometric.tolist()), tuple(corrected.tolist()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate on engines, print and check."""
    parser = argparse.ArgumentParser(description="Prices of options by simulation, on engines.")
    parser.add_argument("--paths", type=int, default=64_000, help=f"number of simulated paths, {TASKS} or more")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster

    with Cluster(n=options.engines, backend=options.backend) as rc:
        found = prices(rc.load_balanced_view(), options.paths)
    # Four standard errors: the standard deviation of a gain is some 18, and with the control variate some 0.5.
    limits = (72 / math.sqrt(options.paths), 72 / math.sqrt(options.paths), 2 / math.sqrt(options.paths) + 0.001)
    right = True
    for kind, limit in zip(Prices._fields, limits, strict=True):
        mine, known = getattr(found, kind), getattr(KNOWN, kind)
        near = all(abs(a - b) <= limit for a, b in zip(mine, known, strict=True))
        right &= near
        print(f"{kind:<10}  call {mine[0]:.6f}  put {mine[1]:.6f}  {'right' if near else f'WRONG: {known}'}")
    difference = found.arithmetic[0] - found.arithmetic[1]
    print(f"call - put of the arithmetic average: {difference:.6f}, exactly {PARITY}")
    return 0 if right and abs(difference - PARITY) <= limits[2] else 1


if __name__ == "__main__":
    sys.exit(main())
