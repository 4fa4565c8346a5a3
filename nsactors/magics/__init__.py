"""``%px`` and friends: cells that run on engines, from IPython and notebooks.

* ``options`` reads what stands behind ``%%px``; it is pure.
* ``parallel`` holds the magics; ``running`` carries out a cell; ``starting`` gets a cluster where there is none.
* ``reloading`` brings edits of local modules to the engines; ``results`` finds cells that have run, by number.
* ``sending_cells`` is ``%autopx`` and ``%px name?``; ``completion`` completes names that live on engines.
* ``extension`` ties all of it to a shell. How output is shown is in ``nsactors.results.live``.
"""

from nsactors.magics.extension import Extension, load, unload

__all__ = ["Extension", "load", "unload"]
