"""Run programs that take an executor, a view or a client of ipyparallel.

``python -m benchmarks.studies.ipyparallel_programs`` runs all programs, or those whose names follow. Each is used as
its own documentation says, with ``import ipyparallel`` meaning ``nsactors.ipyparallel``, on two engines. A table shows
which are right, which failed, and which are not installed. ``pip install nevergrad emcee adaptive hyperopt pyabc
bluepyopt pymor qutip scikit-learn``, in a new environment, installs most of them.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import Any

import nsactors.ipyparallel as ipp

ENGINES = 2


def joblib(rc: Any) -> bool:
    """The backend of a view."""
    import joblib

    rc.load_balanced_view().register_joblib_backend()
    with joblib.parallel_config(backend="ipyparallel"):
        return list(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in range(-5, 0))) == [5, 4, 3, 2, 1]


def scikit_learn(rc: Any) -> bool:
    """A search through joblib."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    rc.load_balanced_view().register_joblib_backend()
    with joblib.parallel_config(backend="ipyparallel"):
        found = GridSearchCV(SVC(), {"C": [0.1, 1, 10]}, n_jobs=-1).fit(*load_iris(return_X_y=True))
    return bool(
        found.best_params_["C"]
        == GridSearchCV(SVC(), {"C": [0.1, 1, 10]}).fit(*load_iris(return_X_y=True)).best_params_["C"]
    )


def nevergrad(rc: Any) -> bool:
    """An executor."""
    import nevergrad

    optimizer = nevergrad.optimizers.OnePlusOne(parametrization=2, budget=30, num_workers=2)
    found = optimizer.minimize(lambda x: float(((x - 0.5) ** 2).sum()), executor=rc.executor(), batch_mode=False)
    return bool(abs(found.value - 0.5).max() < 1)


def emcee(rc: Any) -> bool:
    """A pool, which is an object with ``map``."""
    import emcee
    import numpy as np

    class Pool:
        map = staticmethod(lambda function, items: rc[:].map_sync(function, list(items)))

    sampler = emcee.EnsembleSampler(8, 2, lambda x: -0.5 * float((x**2).sum()), pool=Pool())
    sampler.run_mcmc(np.random.default_rng(0).normal(size=(8, 2)), 20)
    return sampler.get_chain().shape == (20, 8, 2)


def adaptive(rc: Any) -> bool:
    """A client, and an executor."""
    import adaptive

    counts = []
    for executor in (rc, rc.executor()):
        learner = adaptive.Learner1D(lambda x: x**2, (-1, 1))
        adaptive.BlockingRunner(learner, npoints_goal=20, executor=executor)
        counts.append(len(learner.data))
    return min(counts) >= 20


def hyperopt(rc: Any) -> bool:
    """Its own class for ipyparallel."""
    import numpy as np
    from hyperopt import hp, rand
    from hyperopt.ipy import IPythonTrials

    trials = IPythonTrials(rc)
    space, rng = hp.uniform("x", -5, 5), np.random.default_rng(0)
    found = trials.fmin(lambda x: (x - 1) ** 2, space, algo=rand.suggest, max_evals=10, rstate=rng)
    return -5 <= found["x"] <= 5


def pyabc(rc: Any) -> bool:
    """A sampler on an executor."""
    import os
    import tempfile

    import pyabc
    from pyabc.sampler import ConcurrentFutureSampler

    prior = pyabc.Distribution(m=pyabc.RV("uniform", 0, 1))
    abc = pyabc.ABCSMC(
        lambda parameters: {"y": parameters["m"]},
        prior,
        lambda x, x_0: abs(x["y"] - x_0["y"]),
        population_size=10,
        sampler=ConcurrentFutureSampler(rc.executor()),
    )
    with tempfile.TemporaryDirectory() as folder:
        abc.new(f"sqlite:///{os.path.join(folder, 'runs.db')}", {"y": 0.5})
        return int(abc.run(max_nr_populations=2).max_t) == 1


def bluepyopt(rc: Any) -> bool:
    """``map_function`` of a load-balanced view."""
    import bluepyopt

    class Evaluator(bluepyopt.evaluators.Evaluator):  # type: ignore[misc]
        def __init__(self) -> None:
            parameters = [bluepyopt.parameters.Parameter("x", bounds=[-5, 5])]
            super().__init__([bluepyopt.objectives.Objective("square")], parameters)

        def evaluate_with_lists(self, values: Any = None, **others: Any) -> list[float]:
            return [values[0] ** 2]

        def init_simulator_and_evaluate_with_lists(self, values: Any = None, **others: Any) -> list[float]:
            return self.evaluate_with_lists(values)

    optimisation = bluepyopt.deapext.optimisations.DEAPOptimisation(
        evaluator=Evaluator(), offspring_size=4, map_function=rc.load_balanced_view().map_sync
    )
    population, *_ = optimisation.run(max_ngen=2)
    return len(population) > 0


def pymor(rc: Any) -> bool:
    """Its own pool, which makes a client."""
    from pymor.parallel.ipython import IPythonPool

    pool = IPythonPool(connection_info=rc.core)
    return len(pool) == ENGINES and list(pool.map(abs, [-1, -2, -3])) == [1, 2, 3]


def qutip(rc: Any) -> bool:
    """Its own map for notebooks."""
    from qutip.ipynbtools import parallel_map

    return list(parallel_map(abs, [-1, -2, -3], client=rc)) == [1, 2, 3]


def pygmo(rc: Any) -> bool:
    """Its evaluator of batches."""
    import pygmo

    pygmo.ipyparallel_bfe.init_view()
    problem = pygmo.problem(pygmo.rosenbrock(2))
    return len(pygmo.bfe(pygmo.ipyparallel_bfe())(problem, [0.0, 0.0, 1.0, 1.0])) == 2


PROGRAMS: tuple[Callable[[Any], bool], ...] = (
    joblib,
    scikit_learn,
    nevergrad,
    emcee,
    adaptive,
    hyperopt,
    pyabc,
    bluepyopt,
    pymor,
    qutip,
    pygmo,
)


def main() -> int:
    """Run all programs and print the table; return 1 if an installed program failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.ipyparallel_programs")
    parser.add_argument("only", nargs="*", help="names of programs")
    only = parser.parse_args().only
    ipp.install()
    failed = 0
    with ipp.Cluster(n=ENGINES) as rc:
        for program in PROGRAMS:
            if only and program.__name__ not in only:
                continue
            try:
                outcome = "runs" if program(rc) else "gives something else"
            except ModuleNotFoundError as error:
                outcome = f"is not installed: {error.name}"
            except Exception as error:
                traceback.print_exc()
                outcome = f"{type(error).__name__}: {error}".splitlines()[0]
            failed += outcome != "runs" and "not installed" not in outcome
            print(f"{program.__name__:15} {outcome}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
