"""Let the zygote fork a worker: ``python -I -S worker_stub.py SOCKET SCRIPT ARGUMENT...``.

The raylet runs this in place of ``python SCRIPT ARGUMENT...``. The process that the zygote forks takes over everything
that this process was given, and this process ends. If there is no zygote, or it refuses, this process becomes the
worker itself, as if the raylet had run the script. A worker that has a runtime environment of Ray needs another
environment for the interpreter or for libraries. Such workers, and workers that spill objects, never ask the zygote.

This file is run by path, without ``site``: it imports nothing of the package, and little else.
"""

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOL_SOCKET, socket  # importing `socket` would take as long as all the rest

# On a busy machine, the zygote may still be importing Ray: 10 s were too few at a load of 19 on two cores. Ray gives a
# worker 60 s to register.
OFFER_S = 30.0
TAKING_S = 30.0  # from the offer to the worker's answer, which takes milliseconds
OFFER, REQUEST, TAKEN = b"o", b"r", b"t"


def _is_usual(arguments: list[str]) -> bool:
    """Return whether a worker is like all other workers."""
    options = dict(argument.partition("=")[::2] for argument in arguments)
    return (
        options.get("--runtime-env-hash", "0") == "0"
        and options.get("--worker-type", "WORKER") == "WORKER"
        and "--enable-resource-isolation" not in options
        and "--worker-preload-modules" not in options
    )


def _replaced(path: str) -> bool:
    """Return whether a worker that the zygote has forked replaces this process."""
    zygote = socket(AF_UNIX)
    try:
        zygote.settimeout(OFFER_S)
        try:
            zygote.connect(path)
            offer = zygote.recv(4096)
        except TimeoutError:
            # The zygote is stopped or hangs: later workers need not wait for it.
            try:  # noqa: SIM105 (importing `contextlib` takes long, too)
                os.unlink(path)
            except OSError:
                pass
            return False
        except OSError:
            return False
        if offer != OFFER:
            print("nsactors: plain start of a worker:", offer.decode(errors="replace"), file=sys.stderr)
            return False
        # The worker itself answers. If the connection ends, there is no worker, and there will be none, since only the
        # zygote and the worker hold the other end. If no answer comes, there may be a worker. Ray would count two
        # processes as one worker, so this process gives up, and Ray starts another.
        zygote.settimeout(TAKING_S)
        try:
            standard = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in (0, 1, 2))
            zygote.sendmsg([REQUEST], [(SOL_SOCKET, SCM_RIGHTS, standard)])
            return zygote.recv(1) == TAKEN
        except TimeoutError:
            sys.exit(1)
        except OSError:
            return False
    finally:
        zygote.close()


if __name__ == "__main__":
    path, *command = sys.argv[1:]
    if not (_is_usual(command) and _replaced(path)):
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *command])
