"""How a process gets into a Ray that others have started, which it knows by address alone.

A Ray with token authentication wants to be told so *before* it is imported: without, ``ray.init`` tries for 20 s and
says nothing of tokens, even if there is one where it looks. So the cluster is asked first.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsactors.errors import AccessRefused, ClusterUnreachable
from nsactors.transport.access import check_access

__all__ = ["entry_settings"]

_OWN_TOKEN = "RAY_AUTH_TOKEN"


def entry_settings(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What has to be in the environment of this process, and is not, for the Ray at an address.

    Args:
        address: as ``ray.init`` takes it; of what is no ``host:port`` nothing is known.
        environment: of this process. The token is where Ray looks for it: ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH``,
            or ``~/.ray/auth_token``.

    Raises:
        AccessRefused: if it wants a token, and there is none or a wrong one.
        ClusterUnreachable: if nobody answers.
    """
    if address.startswith("ray://"):
        raise ClusterUnreachable(address, "Ray Client is no way to a cluster for nsactors; name the head as host:port")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return {}
    settings = {}
    if "RAY_AUTH_MODE" not in environment:
        try:
            check_access(address, environment)
        except AccessRefused:
            settings = {"RAY_AUTH_MODE": "token"}
        else:
            return {}
    if _OWN_TOKEN not in environment:
        check_access(address, {**environment, **settings})
    return settings
