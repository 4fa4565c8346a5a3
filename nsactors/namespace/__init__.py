"""A namespace and what it takes to run code in it.

``Namespace`` answers operations: execute, apply, push, pull, reset. Cells run in a *shell*: a full IPython where the
namespace has a process of its own, plain Python where several share one. ``gate`` says when user code is running, so
that an interrupt never lands in the machinery; ``output`` and ``capture`` collect what the code writes and shows.

::

    namespace      the operations                        host             the process or thread that it lives in
    shell          what is needed of a shell             bindings         which names are the user's
    ipython_shell  a full IPython                        plain_shell      plain Python
    tasks          batches of tasks, one item by one     task_results     what they return, packed
    gate           where user code begins and stops      failures         what it raised
    output         what it writes, request by request    capture          how that is caught
    cell_sources   source lines for tracebacks           memory           how much names and values take

What an engine does besides:

    questions      answers while it is busy              answering        what it has answered, for who asks later
    news           what it has to tell its controller    snapshot         names as bytes, and back
    journalling    a namespace with its journal          engine_journal   the journal through its incarnations
    journal_file   the journal on disk                   mpi_use          which requests used MPI; keeping it out
    contacts       which requests called services
"""

from nsactors.namespace.namespace import Namespace

__all__ = ["Namespace"]
