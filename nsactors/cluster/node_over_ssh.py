"""Start a node on a host that ssh reaches; the host need not have this package.

The client passes the text of this file to the host's Python, and its own version as an argument:
``python -c TEXT VERSION``. So this file imports nothing of the package. Lines go to and fro on stdin and stdout:

1. The host prints ``HERE`` if it has the package in this version, otherwise ``WANTED``.
2. After ``WANTED``, the client sends its wheel as text in base64: first the length of this text and a line break, and
   then the text.
3. The host's Python runs ``python -m nsactors.cluster.node -``, which reads the plan from the same stdin.

The wheel is unpacked into a private folder, which the node removes at its end. If the node is killed, the next process
that makes such a folder removes this one, as it does all folders of killed processes; see ``system.private_files``.
"""

from __future__ import annotations

import base64
import fcntl
import importlib.util
import io
import os
import re
import sys
import tempfile
import zipfile

HERE = "nsactors: here"
WANTED = "nsactors: wanted"
FOLDER = "NSACTORS_PACKAGE_FOLDER"
OLDEST = (3, 11)


def version_here() -> str | None:
    """Return the version of the package that Python would import; None if there is none."""
    spec = importlib.util.find_spec("nsactors")
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            with open(os.path.join(folder, "_version.py"), encoding="utf-8") as file:
                match = re.search(r'^__version__ = "(.+)"', file.read(), re.MULTILINE)
        except OSError:
            continue
        if match:
            return match.group(1)
    return None


def receive() -> bytes:
    """Return the wheel that the client sends on stdin; bytes behind it stay unread."""
    line = b""
    while not line.endswith(b"\n"):
        line += read(1)
    rest = int(line)
    text = b""
    while rest > len(text):
        text += read(rest - len(text))
    return base64.b64decode(text)


def read(count: int) -> bytes:
    """Read at most ``count`` bytes of stdin, and none ahead: the next program reads the rest."""
    found = os.read(0, min(count, 1 << 16))
    if not found:
        raise SystemExit(1)  # the client has ended
    return found


def unpack(wheel: bytes) -> str:
    """Unpack a wheel into a new private folder, and return the folder's path."""
    folder = tempfile.mkdtemp(prefix=f"nsa-{os.getpid()}-")
    # The lock tells other processes that the folder is in use. It outlasts ``exec``.
    token = os.open(os.path.join(folder, "token"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(token, fcntl.LOCK_EX)
    os.write(token, b"package")
    os.set_inheritable(token, True)
    packages = os.path.join(folder, "package")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        archive.extractall(packages)
    return folder


def main(version: str) -> None:
    """Run the node in place of this program; receive the package first, if this host does not have it.

    Args:
        version: the version of the client.
    """
    if sys.version_info < OLDEST:
        raise SystemExit(f"nsactors needs Python 3.11 or later: {sys.executable} is {sys.version.split()[0]}")
    environment = dict(os.environ)
    if version_here() == version:
        print(HERE, flush=True)
    else:
        print(WANTED, flush=True)
        environment[FOLDER] = unpack(receive())
        paths = [os.path.join(environment[FOLDER], "package"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.execve(sys.executable, [sys.executable, "-m", "nsactors.cluster.node", "-"], environment)


if __name__ == "__main__":
    main(sys.argv[1])
