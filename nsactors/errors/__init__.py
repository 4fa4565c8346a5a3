"""What can go wrong, how it travels, and how it is shown.

* ``tree`` holds the exceptions nsactors raises; its docstring draws them all.
* ``base`` is what all of them are; ``tasks`` holds those of load-balanced tasks, ``joining`` those of getting in.
* ``services`` holds those of services that a cluster hosts, ``launching`` that of starting one on other machines.
* ``mpi`` holds those of MPI worlds.
* ``failure`` describes, as a value, what user code raised on an engine; ``frames`` its traceback.
* ``remote`` makes of it the exception raised at a client; ``anatomy`` does so without running user code.
* ``composite`` holds the failures of many engines; ``grouping`` tells equal ones once.
* ``warnings`` holds the warnings, for what works and costs more than it need.
* ``text`` and ``drawing`` show them, as Python does and with rich.
* ``ranges``, ``sizes`` and ``wording`` are parts of their messages: engines, bytes, sentences that several have.

This is the leftmost layer: it imports nothing else of nsactors, and neither Ray nor IPython.
"""

from nsactors.errors.composite import CompositeError
from nsactors.errors.drawing import draw, render_text
from nsactors.errors.failure import Failure
from nsactors.errors.frames import FrameSummary
from nsactors.errors.grouping import FailureGroup, engine_ranges, group_failures
from nsactors.errors.joining import (
    AccessRefused,
    ClusterNameTaken,
    ClusterNotFound,
    ClusterNotReady,
    RayImportedFirst,
    VersionMismatch,
)
from nsactors.errors.launching import LaunchError
from nsactors.errors.mpi import MpiError, MpiInUse, MpiUnavailable, WorldBroken, WorldNotFormed
from nsactors.errors.remote import RemoteError
from nsactors.errors.services import MeetingFailed, MemberLost, ServiceClosed, ServiceError, ServiceOverloaded
from nsactors.errors.sizes import bytes_from_words, bytes_in_words
from nsactors.errors.tasks import (
    ImpossibleDependency,
    InvalidDependency,
    SchedulerLost,
    SchedulerOverloaded,
    TaskLost,
    TaskTimeout,
    UnmetDependency,
)
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
    ObjectLost,
    ProtocolError,
    ResultUnavailable,
    SerializationError,
    StoreFull,
    TargetError,
    TaskAborted,
    TimeLimitExceeded,
    UnknownFlag,
    UnknownOption,
)
from nsactors.errors.warnings import (
    EngineStartWarning,
    LargeCaptureWarning,
    NsactorsWarning,
    SpillWarning,
    VersionWarning,
    warn_caller,
)

__all__ = [
    "AccessRefused",
    "CapabilityError",
    "ClientClosed",
    "ClusterNameTaken",
    "ClusterNotFound",
    "ClusterNotReady",
    "ClusterStopped",
    "ClusterUnreachable",
    "CompositeError",
    "ConnectionLost",
    "DuplicateRequest",
    "EngineError",
    "EngineLost",
    "EngineStartError",
    "EngineStartWarning",
    "Failure",
    "FailureGroup",
    "FrameSummary",
    "ImpossibleDependency",
    "InvalidDependency",
    "InvalidName",
    "InvalidTarget",
    "LargeCaptureWarning",
    "LaunchError",
    "MeetingFailed",
    "MemberLost",
    "MpiError",
    "MpiInUse",
    "MpiUnavailable",
    "NoEngines",
    "NoSuchEngine",
    "NsactorsError",
    "NsactorsWarning",
    "ObjectLost",
    "ProtocolError",
    "RayImportedFirst",
    "RemoteError",
    "ResultUnavailable",
    "SchedulerLost",
    "SchedulerOverloaded",
    "SerializationError",
    "ServiceClosed",
    "ServiceError",
    "ServiceOverloaded",
    "SpillWarning",
    "StoreFull",
    "TargetError",
    "TaskAborted",
    "TaskLost",
    "TaskTimeout",
    "TimeLimitExceeded",
    "UnknownFlag",
    "UnknownOption",
    "UnmetDependency",
    "VersionMismatch",
    "VersionWarning",
    "WorldBroken",
    "WorldNotFormed",
    "bytes_from_words",
    "bytes_in_words",
    "draw",
    "engine_ranges",
    "group_failures",
    "render_text",
    "warn_caller",
]
