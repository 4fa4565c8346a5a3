"""Arguments of ipyparallel that have no effect here, and warnings about them."""

from __future__ import annotations

import warnings

__all__ = ["OF_CLIENTS", "OF_CLUSTERS", "CompatibilityWarning", "warn_once"]

# Of a client, about the connection to its controller.
OF_CLIENTS = ("context", "debug", "ipython_dir", "paramiko", "password", "profile_dir", "sshkey", "sshserver")

# Of a cluster, about processes that are not needed here.
OF_CLUSTERS = (
    "config",
    "controller_args",
    "controller_ip",
    "controller_launcher_class",
    "controller_location",
    "delay",
    "engine_timeout",
    "load_profile",
    "log",
    "log_level",
    "parent",
    "profile_config",
    "profile_dir",
    "send_engines_connection_env",
)


class CompatibilityWarning(UserWarning):
    """An argument of ipyparallel has no effect here."""


def warn_once(text: str) -> None:
    """Issue a ``CompatibilityWarning``, which Python shows once for each calling line."""
    warnings.warn(text, CompatibilityWarning, stacklevel=3)
