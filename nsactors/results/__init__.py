"""Handles on work in progress: calls, futures, results of engines and of maps.

::

    call          calls: one request and its reply, or a task and its result
    outcome       outcomes of requests: the value or error that a reply means, with hints
    async_result  ``AsyncResult``: the handle on the calls to one or more engines
    as_completed  results in the order in which they end, for threads and for coroutines
    map_result    results of maps, ordered by input
    interrupting  waiting for engines so that Ctrl-C reaches them
    display/      display of results: live output, progress and timelines

"""

from nsactors.results.as_completed import as_completed
from nsactors.results.async_result import AsyncResult, receive
from nsactors.results.call import (
    NOWHERE,
    OUTPUTS,
    Call,
    CallController,
    EngineOutput,
    ExecuteReply,
    MapCall,
    MapPiece,
    Metadata,
    OutputGoes,
    RequestOptions,
    TaskCall,
)
from nsactors.results.display.live import AwaitedOutput
from nsactors.results.map_result import AsyncMapResult, BalancedMapResult, next_settled

__all__ = [
    "NOWHERE",
    "OUTPUTS",
    "AsyncMapResult",
    "AsyncResult",
    "AwaitedOutput",
    "BalancedMapResult",
    "Call",
    "CallController",
    "EngineOutput",
    "ExecuteReply",
    "MapCall",
    "MapPiece",
    "Metadata",
    "OutputGoes",
    "RequestOptions",
    "TaskCall",
    "as_completed",
    "next_settled",
    "receive",
]
