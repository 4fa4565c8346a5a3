"""What can go wrong, how it travels, and how it is shown.

* ``tree`` holds the exceptions nsactors raises; its docstring draws them all.
* ``failure`` describes, as a value, what user code raised on an engine; ``frames`` its traceback.
* ``remote`` makes of it the exception raised at a client; ``anatomy`` does so without running user code.
* ``composite`` holds the failures of many engines; ``grouping`` tells equal ones once.
* ``text`` and ``drawing`` show them, as Python does and with rich.

This is the leftmost layer: it imports nothing else of nsactors, and neither Ray nor IPython.
"""

from nsactors.errors.composite import CompositeError
from nsactors.errors.drawing import draw, render_text
from nsactors.errors.failure import Failure
from nsactors.errors.frames import FrameSummary
from nsactors.errors.grouping import FailureGroup, engine_ranges, group_failures
from nsactors.errors.remote import RemoteError
from nsactors.errors.tree import (
    CapabilityError,
    ClientClosed,
    ClusterStopped,
    ClusterUnreachable,
    ConnectionLost,
    DuplicateRequest,
    EngineError,
    EngineLost,
    EngineStartError,
    InvalidName,
    InvalidTarget,
    NoEngines,
    NoSuchEngine,
    NsactorsError,
    ProtocolError,
    RayImportedFirst,
    SerializationError,
    TargetError,
    TaskAborted,
    TimeLimitExceeded,
    UnknownFlag,
)

__all__ = [
    "CapabilityError",
    "ClientClosed",
    "ClusterStopped",
    "ClusterUnreachable",
    "CompositeError",
    "ConnectionLost",
    "DuplicateRequest",
    "EngineError",
    "EngineLost",
    "EngineStartError",
    "Failure",
    "FailureGroup",
    "FrameSummary",
    "InvalidName",
    "InvalidTarget",
    "NoEngines",
    "NoSuchEngine",
    "NsactorsError",
    "ProtocolError",
    "RayImportedFirst",
    "RemoteError",
    "SerializationError",
    "TargetError",
    "TaskAborted",
    "TimeLimitExceeded",
    "UnknownFlag",
    "draw",
    "engine_ranges",
    "group_failures",
    "render_text",
]
