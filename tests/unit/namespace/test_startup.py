"""Reports of start-up code that fails."""

from __future__ import annotations

import pickle

from nsactors.namespace.startup import StartupFailed
from nsactors.transport.ray.failures import death_of

FAILED = StartupFailed("its start-up code raised ZeroDivisionError: division by zero", 'one\nTraceback:\n  "f(0)"')


def test_a_failure_is_read_from_the_text_that_ray_makes_of_it() -> None:
    text = f"The actor died because of an error raised in its creation task, ray::E()\n  File x\nX: {FAILED}"
    ending = death_of(RuntimeError(text), None)
    assert (ending.reason, ending.stderr_tail) == (FAILED.reason, FAILED.output)


def test_another_failure_of_a_creation_is_none() -> None:
    assert StartupFailed.found_in("creation task\nImportError: no module named 'x'") is None


def test_it_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(FAILED))
    assert (again.reason, again.output) == (FAILED.reason, FAILED.output)
