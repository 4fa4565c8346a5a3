"""``nsactors demo``: a tour on real input that checks each of its answers.

* ``script`` says what is shown, as values: code, and what must hold afterwards.
* ``running`` runs a step and judges it.
* ``drawing`` draws what came of it.
* ``show`` does one after the other.
"""

from nsactors.cli.demo.script import STEPS
from nsactors.cli.demo.show import make_console, run_demo

__all__ = ["STEPS", "make_console", "run_demo"]
