"""A grid search of scikit-learn, in which each choice of parameters is tried on an engine.

``python examples/grid_search.py --engines 4``. Only three lines concern engines. The answer is compared with the answer
of a plain loop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

GRID = {"C": [0.1, 1.0, 10.0], "gamma": [0.0001, 0.001, 0.01]}
IMAGES = 600


def search(jobs: int | None) -> Any:
    """Find the parameters that classify handwritten digits best, by cross-validation."""
    images, digits = load_digits(return_X_y=True)
    return GridSearchCV(SVC(), GRID, n_jobs=jobs, cv=3).fit(images[:IMAGES], digits[:IMAGES])


def main(arguments: Sequence[str] | None = None) -> int:
    """Search on engines and in this process, print and compare."""
    parser = argparse.ArgumentParser(description="A grid search of scikit-learn, on engines.")
    parser.add_argument("--engines", type=int, default=4)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster

    with Cluster(n=options.engines, backend=options.backend) as rc:
        rc.load_balanced_view().register_joblib_backend()
        with joblib.parallel_config(backend="nsactors"):
            spread = search(-1)
    serial = search(None)
    scores = [found.cv_results_["mean_test_score"] for found in (spread, serial)]
    same = spread.best_params_ == serial.best_params_ and np.array_equal(*scores)
    print(f"{len(scores[0])} choices tried: {spread.best_params_} tells {spread.best_score_:.1%} of the digits")
    print(f"a plain loop says {'the same' if same else f'something else: {serial.best_params_}'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
