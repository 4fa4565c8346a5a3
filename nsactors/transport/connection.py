"""What another process has to know to become a client of a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nsactors.errors import ClusterUnreachable
from nsactors.transport.private_files import read_private, write_private

__all__ = ["ConnectionInfo"]


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """How a cluster is reached: ``Client.connect(info)``, in any process of the same user.

    It holds no secret, but the path of one. :meth:`save` and :meth:`load` take it from process to process.

    Attributes:
        address: of the Ray cluster, ``host:port``.
        namespace: of the cluster in Ray.
        settings: what Ray is to find in the environment of who connects.
        versions: of Python and packages there; who connects compares them with its own.
    """

    address: str
    namespace: str
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a file that only this user can read; folders that are missing are made so too."""
        write_private(path, json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ConnectionInfo:
        """Read what :meth:`save` has written.

        Raises:
            ClusterUnreachable: if there is no such file, or something else is in it.
            AccessRefused: if it is another user's.
        """
        try:
            return cls.from_dict(json.loads(read_private(path)))
        except (FileNotFoundError, IsADirectoryError, ValueError) as error:
            raise ClusterUnreachable(os.fspath(path), f"{type(error).__name__}: {error}") from None

    @classmethod
    def from_dict(cls, fields: Any) -> ConnectionInfo:
        """What :func:`dataclasses.asdict` has made of one.

        Raises:
            ValueError: if that is something else.
        """
        if not isinstance(fields, Mapping):
            raise ValueError(f"a connection is a table, not {type(fields).__name__}")
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(str(error)) from None
