"""What comes back from engines: results that are futures, their output and timing."""

from nsactors.results.async_result import AsyncResult
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
    "next_settled",
    "result_of",
    "value_of",
]
