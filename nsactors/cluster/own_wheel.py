"""The package of this process as a wheel, for machines that lack it or have another version.

No package index is asked: a machine gets the files that this process runs, also those of a checkout.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from nsactors._version import __version__

_PACKAGE = "nsactors"
_COPIED = ("METADATA", "entry_points.txt", "LICENSE")
_LEFT_OUT = (".pyc", ".pyo")
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format, so that equal files give equal wheels
_WHEEL = f"Wheel-Version: 1.0\nGenerator: {_PACKAGE} {__version__}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel_name() -> str:
    """Return the file name of the wheel."""
    return f"{_PACKAGE}-{__version__}-py3-none-any.whl"


def own_wheel() -> bytes:
    """Return the wheel of the package that this process runs.

    Equal files give equal wheels.

    Raises:
        OSError: if a file of the package cannot be read.
    """
    information = f"{_PACKAGE}-{__version__}.dist-info"
    files = {**dict(_package_files()), f"{information}/WHEEL": _WHEEL.encode()}
    files |= {f"{information}/{name}": content for name, content in _information().items()}
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{information}/RECORD"] = "\n".join([*record, f"{information}/RECORD,,", ""]).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def unpack_own_wheel(folder: Path) -> None:
    """Unpack the wheel of this process's package into a folder, in place of what the folder contains.

    With the folder in ``PYTHONPATH``, Python imports the package from it. A process that imports from the folder at
    this moment finds either all old files or all new ones.

    Args:
        folder: the folder; the folder above it must exist.

    Raises:
        OSError: if the files cannot be written.
    """
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(own_wheel())) as wheel:
            wheel.extractall(new)
        if folder.exists():
            previous = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            folder.rename(previous / folder.name)
            shutil.rmtree(previous, ignore_errors=True)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _package_files() -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of each file of the package, in the order of the paths."""
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix not in _LEFT_OUT:
            yield path.relative_to(root.parent).as_posix(), path.read_bytes()


def _information() -> dict[str, bytes]:
    """Return the installed metadata; if this version of the package is not installed, the least that is allowed."""
    try:
        installed = metadata.distribution(_PACKAGE)
    except metadata.PackageNotFoundError:
        installed = None
    if installed is None or installed.version != __version__:
        return {"METADATA": f"Metadata-Version: 2.4\nName: {_PACKAGE}\nVersion: {__version__}\n".encode()}
    found = {}
    for file in installed.files or ():
        if file.parts[0].endswith(".dist-info") and file.name in _COPIED:
            found["/".join(file.parts[1:])] = Path(str(file.locate())).read_bytes()
    return found


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
