"""Why an engine that is an actor of Ray did not answer, in words for people."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from nsactors.errors import ProtocolError, StoreFull
from nsactors.transport.base import EngineGone, tail_of
from nsactors.transport.ray_store import is_full

__all__ = ["NODE_DIED", "Ending", "death_of", "failure_of"]

NODE_DIED = "its node died"


class Ending(NamedTuple):
    """How a process ended, and the last lines it wrote to stderr."""

    reason: str
    stderr_tail: str = ""


def failure_of(error: BaseException, engine_id: int, output_path: str | None, host: str) -> BaseException:
    """What the client is to raise for a call of an engine that has failed; what Ray has no part in, as it is.

    Args:
        error: what the call raised.
        engine_id: of the engine.
        output_path: see :func:`death_of`.
        host: see :func:`death_of`.
    """
    import ray

    match error:
        case ray.exceptions.RayActorError():
            return EngineGone(*death_of(error, output_path, host))
        case ray.exceptions.RayTaskError(cause=cause) if is_full(cause):
            return StoreFull(f"what engine {engine_id} was to answer")
        case ray.exceptions.RayTaskError():
            failure = ProtocolError(f"engine {engine_id} could not answer: {error.cause}")
            failure.__cause__ = error
            return failure
        case _:
            return error


def death_of(error: BaseException, output_path: str | None, host: str = "") -> Ending:
    """What Ray says of a dead actor, in words for people.

    Args:
        error: what a call to it raised.
        output_path: of its output files, if they are known.
        host: the machine where they are, if that is known: another one's cannot be read here.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    tail = tail_of(f"{output_path}.stderr") if output_path else ""
    if "creation task" in text:
        lines = text.strip().splitlines()
        return Ending(lines[-1].strip(), text.strip())
    there = f"; what it wrote last is in {output_path}.stderr on {host}" if _is_elsewhere(host) and not tail else ""
    if fatal := re.search(r"^Fatal Python error: (.+)$", tail, re.MULTILINE):
        return Ending(f"it crashed: {fatal.group(1)}", _user_part(tail[fatal.start() :]))
    if "ray.kill" in text:
        return Ending("it was killed by ray.kill", tail)
    if "not schedulable" in text or ("node" in text and "died" in text and "worker process" not in text):
        return Ending(NODE_DIED, tail)
    if "memory" in text and "OutOfMemory" in type(error).__name__:
        return Ending(f"it was killed because the machine ran out of memory{there}", tail)
    return Ending(f"its process ended unexpectedly (killed, or os._exit was called){there}", tail)


def _is_elsewhere(host: str) -> bool:
    return host not in ("", socket.gethostname())


def _user_part(crash: str) -> str:
    """Of the interpreter's last report, the lines down to where our own machinery called the user's code."""
    lines = crash.splitlines()
    machinery = next((i for i, line in enumerate(lines) if "nsactors/namespace/" in line), len(lines))
    return "\n".join(lines[:machinery])
