"""What comes back from engines: results that are futures, their output and timing.

::

    async_result   the result of a call to engines       map_result     of a map, as one sequence
    call           one request to one engine             call_group     several, taken together
    task_calls     tasks, as the calls that they are     balanced_map   the result of a load-balanced map
    lean_future    what all of them are                  taking         the shortest way to a value
    waiting        waiting so that Ctrl-C reaches engines
    showing        progress and output                   live           output while it is printed
    transfers      progress of what takes long           forms          results as rich and notebooks show them
    progress       how far calls are, and how fast       asynchronous   waiting in coroutines
    timeline       who did what when, drawn in terminals (timeline_text) and notebooks (timeline_svg)
"""

from nsactors.results.async_result import AsyncResult
from nsactors.results.asynchronous import as_completed
from nsactors.results.balanced_map import BalancedMapResult
from nsactors.results.call import NOWHERE, Call, CallOwner, ExecuteReply, Metadata, Terms
from nsactors.results.map_result import AsyncMapResult, next_settled
from nsactors.results.taking import result_of, value_of
from nsactors.results.task_calls import MapCall, MapPiece, TaskCall

__all__ = [
    "NOWHERE",
    "AsyncMapResult",
    "AsyncResult",
    "BalancedMapResult",
    "Call",
    "CallOwner",
    "ExecuteReply",
    "MapCall",
    "MapPiece",
    "Metadata",
    "TaskCall",
    "Terms",
    "as_completed",
    "next_settled",
    "result_of",
    "value_of",
]
