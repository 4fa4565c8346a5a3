"""Clusters on machines that Ray's cluster launcher starts."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nsactors._version import __version__
from nsactors.cluster.batch import AtTemplate
from nsactors.cluster.node_over_ssh import OLDEST
from nsactors.cluster.own_wheel import own_wheel, wheel_name
from nsactors.errors import LaunchError
from nsactors.system.private_files import private_folder_at, write_private

HEAD = "localhost:6379"
EXAMPLES = ("aws", "azure", "gcp", "kuberay", "local")
_MODE = "RAY_AUTH_MODE=token"


def example(name: str) -> str:
    """Return the text of an example of a cluster, with the versions of Python and packages that are installed here.

    Args:
        name: one of ``EXAMPLES``.
    """
    text = (importlib.resources.files("nsactors.cluster") / "examples" / f"{name}.yaml").read_text()
    return AtTemplate(text).substitute(
        minimum=".".join(map(str, OLDEST)),
        python=f"{sys.version_info.major}{sys.version_info.minor}",
        ray=importlib.metadata.version("ray"),
        version=__version__,
    )


class RayLauncher:
    """A Ray cluster described by a file of Ray's cluster launcher.

    Args:
        config: the path of the file.
        token_path: the path from which Ray's commands read the token.

    Raises:
        LaunchError: if there is no such file, or its Ray would accept connections without a token.
    """

    def __init__(self, config: Path, token_path: Path | None = None) -> None:
        try:
            text = config.read_text()
        except OSError as error:
            raise LaunchError(f"{config} cannot be read: {error.strerror}") from None
        if _MODE not in text or "auth_token" not in text:
            raise LaunchError(
                f"{config} starts a Ray cluster that needs no token: put {_MODE} before its `ray start` commands, "
                "and ~/.ray/auth_token into its file_mounts"
            )
        self._config = config
        self._token_path = token_path or Path("~/.ray/auth_token").expanduser()

    def bring_up(self) -> None:
        """Start the cluster, or update a running one to the file, with Ray's output shown.

        Beside the token, the folder ``nsactors`` gets the wheel of this package, for ``file_mounts``: machines can
        install this version, whether or not a package index has it.

        Raises:
            LaunchError: if ``ray up`` fails.
        """
        if not self._token_path.exists():
            write_private(self._token_path, secrets.token_hex(32))
        wheels = private_folder_at(self._token_path.parent / "nsactors")
        for former in wheels.glob("*.whl"):
            former.unlink()
        (wheels / wheel_name()).write_bytes(own_wheel())
        self._ray("up", "--yes", "--no-config-cache", str(self._config))

    def run_on_head(self, command: Sequence[str]) -> None:
        """Run a command on the head node, with its output shown.

        Raises:
            LaunchError: if the command fails.
        """
        self._ray("exec", "--no-config-cache", str(self._config), shlex.join(command))

    def _ray(self, *command: str) -> None:
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *command], env=environment, check=False)
        if done.returncode:
            raise LaunchError(f"ray {shlex.join(command)} ended with status {done.returncode}: its output is above")
