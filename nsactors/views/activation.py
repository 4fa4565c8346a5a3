"""Magics that run on a view."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nsactors.errors import NsactorsError

if TYPE_CHECKING:
    from nsactors.views.direct import DirectView

__all__ = ["activate"]


def activate(view: DirectView, suffix: str) -> None:
    """Let the magics with this suffix run on ``view``; see ``DirectView.activate``."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        raise NsactorsError("activate() adds magics such as %px to IPython, and this is plain Python: use execute()")
    # Through IPython, which knows the extension by name: magics are built on views and not the other way round.
    shell.extension_manager.load_extension("nsactors")
    shell.magics_manager.registry["nsactors"].activate(view, suffix)
