"""IPython magics: ``%px`` and related magics run cells on engines, from IPython and notebooks.

::

    extension   the IPython extension: ``%px`` and related magics
    on_demand   the cluster that the first ``%px`` starts
    options     the options of magics, and their parser
    completion  completion of names on engines, and ``%autopx``
    inspection  what a prompt shows of engines: values (``%pxpeek``), and profiles (``%px --profile``)
    reloading   edited modules of the user, loaded again here and on the engines
    scripts     the history of engines as scripts: ``%pxhistory``

"""

from nsactors.magics.extension import Extension, load, unload

__all__ = ["Extension", "load", "unload"]
