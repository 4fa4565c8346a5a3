"""How a process gets into a Ray that it knows by address alone."""

from collections.abc import Mapping

import pytest

from nsactors.errors import AccessRefused, ClusterUnreachable
from nsactors.transport import ray_entry
from nsactors.transport.ray_entry import entry_settings

ADDRESS = "10.0.0.1:6379"


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The tokens that the Ray takes, by the settings that lead to them; empty: it takes everybody."""
    taken: set[str] = set()

    def check(address: str, settings: Mapping[str, str]) -> None:
        assert address == ADDRESS
        token = settings.get("RAY_AUTH_TOKEN_PATH", "") if settings.get("RAY_AUTH_MODE") == "token" else ""
        if taken and token not in taken:
            raise AccessRefused(address, "the token is wrong" if token else "it wants a token")

    monkeypatch.setattr(ray_entry, "check_access", check)
    return taken


def test_a_ray_without_a_token_needs_nothing(tokens: set[str]) -> None:
    assert entry_settings(ADDRESS, {}) == {}


def test_a_ray_that_wants_a_token_is_known_before_ray_is_imported(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings(ADDRESS, {"RAY_AUTH_TOKEN_PATH": "right"}) == {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("environment", [{}, {"RAY_AUTH_TOKEN_PATH": "wrong"}, {"RAY_AUTH_MODE": "token"}])
def test_without_the_right_token_it_is_said_at_once(tokens: set[str], environment: dict[str, str]) -> None:
    tokens.add("right")
    with pytest.raises(AccessRefused, match="token"):
        entry_settings(ADDRESS, environment)


def test_a_token_in_the_environment_is_ray_s_to_use(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings(ADDRESS, {"RAY_AUTH_TOKEN": "secret"}) == {"RAY_AUTH_MODE": "token"}


def test_what_the_user_has_said_stays(tokens: set[str]) -> None:
    tokens.add("right")
    assert entry_settings(ADDRESS, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "right"}) == {}


@pytest.mark.parametrize("address", ["auto", "local"])
def test_nothing_is_asked_of_an_address_that_names_no_port(tokens: set[str], address: str) -> None:
    tokens.add("right")
    assert entry_settings(address, {}) == {}


def test_ray_client_is_refused_with_what_to_do() -> None:
    with pytest.raises(ClusterUnreachable, match="name the head as host:port"):
        entry_settings("ray://10.0.0.1:10001", {})
