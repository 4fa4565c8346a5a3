"""The module of errors by the name that it has in ipyparallel, for ``import nsactors.error``."""

import sys

from nsactors import errors

# The module itself, not another one with the same contents: both names give one module.
sys.modules[__name__] = errors
