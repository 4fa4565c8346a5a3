"""The module of errors by the name that it has in ipyparallel, for ``import nsactors.error``."""

import sys

from nsactors import errors

# Not its names under another roof: both names give one module.
sys.modules[__name__] = errors
