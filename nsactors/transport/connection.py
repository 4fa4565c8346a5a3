"""What another process has to know to become a client of a cluster."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field

from nsactors.errors import ClusterUnreachable

__all__ = ["ConnectionInfo"]


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """How a cluster is reached: ``Client.connect(info)``, in any process of the same user.

    It holds no secret, but the path of one. :meth:`save` and :meth:`load` take it from process to process.

    Attributes:
        address: of the Ray cluster, ``host:port``.
        namespace: of the cluster in Ray.
        settings: what Ray is to find in the environment of who connects.
    """

    address: str
    namespace: str
    settings: dict[str, str] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file that only this user can read; folders that are missing are made so too."""
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        handle, written = tempfile.mkstemp(dir=folder)  # 0600, and never half written where others look
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(self), file, indent=2)
        os.replace(written, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConnectionInfo:
        """Read what :meth:`save` has written.

        Raises:
            ClusterUnreachable: if there is no such file, or something else is in it.
        """
        try:
            with open(path) as file:
                return cls(**json.load(file))
        except (OSError, TypeError, ValueError) as error:
            raise ClusterUnreachable(os.fspath(path), f"{type(error).__name__}: {error}") from None
