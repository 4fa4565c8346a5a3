"""Ray's own cluster launcher, and a cluster of ours on what it has brought up."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nsactors.errors import LaunchError
from nsactors.transport.private_files import write_private

__all__ = ["RayLauncher"]

HEAD = "localhost:6379"
_MODE = "RAY_AUTH_MODE=token"


class RayLauncher:
    """A Ray cluster described by a file of Ray's cluster launcher.

    Args:
        config: the file.
        token_path: where Ray's commands look for the token.

    Raises:
        LaunchError: if there is no such file, or its Ray would let in whoever reaches it.
    """

    def __init__(self, config: Path, token_path: Path | None = None) -> None:
        try:
            text = config.read_text()
        except OSError as error:
            raise LaunchError(f"{config} cannot be read: {error.strerror}") from None
        if _MODE not in text or "auth_token" not in text:
            raise LaunchError(
                f"{config} starts a Ray that lets in whoever reaches it: put {_MODE} before its `ray start` commands, "
                "and ~/.ray/auth_token into its file_mounts"
            )
        self._config = config
        self._token_path = token_path or Path("~/.ray/auth_token").expanduser()

    def bring_up(self) -> None:
        """Create the cluster, or change what runs to what the file says now; what Ray says of it is shown.

        Raises:
            LaunchError: if that fails.
        """
        if not self._token_path.exists():
            write_private(self._token_path, secrets.token_hex(32))
        self._ray("up", "--yes", "--no-config-cache", str(self._config))

    def run_on_head(self, command: Sequence[str]) -> None:
        """Run a command on the head node; what it says is shown.

        Raises:
            LaunchError: if that fails.
        """
        self._ray("exec", "--no-config-cache", str(self._config), shlex.join(command))

    def _ray(self, *command: str) -> None:
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *command], env=environment, check=False)
        if done.returncode:
            raise LaunchError(f"ray {shlex.join(command)} ended with status {done.returncode}: what it says is above")
