"""Support for tests of code that uses engines: without Ray, without sleeps, and without processes left behind.

::

    gates        gates, which hold engine code at a point until a test lets it go on; waiting for a condition
    processes    a check that no process is left behind
    plugin       fixtures for pytest, loaded with ``pytest_plugins = ["nsactors.testing.plugin"]``

Only ``plugin`` imports pytest.
"""

from nsactors.testing.gates import TIMEOUT_S, Gate, open_gate, wait_until
from nsactors.testing.processes import no_process_left_behind

__all__ = ["TIMEOUT_S", "Gate", "no_process_left_behind", "open_gate", "wait_until"]
