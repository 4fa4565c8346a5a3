"""Failing code, and what a client gets of it."""

import linecache
import pickle
from types import FrameType

from nsactors.errors import Failure, RemoteError
from nsactors.protocol.serialize import pack_whole


def capture(source: str, *, engine_id: int = 0, call: str = "execute", cell: int = 1, **namespace: object) -> Failure:
    """Run ``source`` as a cell of an engine and describe how it fails."""
    filename = f"<cell {cell}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        exec(compile(source, filename, "exec"), {"__name__": "__main__", **namespace})
    except BaseException as exc:
        return Failure.capture(exc, engine_id=engine_id, call=call, dumps=pack_whole, is_user_frame=_in_cell)
    raise AssertionError("the source did not fail")


def describe(exc: BaseException) -> Failure:
    """Raise ``exc`` and describe it."""
    try:
        raise exc
    except BaseException as caught:
        return Failure.capture(caught, engine_id=0, call="apply(f)", dumps=pack_whole)


def at_client(failure: Failure) -> RemoteError:
    """Let ``failure`` travel, and return what is raised."""
    travelled: Failure = pickle.loads(pickle.dumps(failure))
    return travelled.to_exception()


def remote(source: str, *, engine_id: int = 0, call: str = "execute", cell: int = 1) -> RemoteError:
    """Return what a client raises when ``source`` fails on an engine."""
    return at_client(capture(source, engine_id=engine_id, call=call, cell=cell))


def _in_cell(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith("<cell")
