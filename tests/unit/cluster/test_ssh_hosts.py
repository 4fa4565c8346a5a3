"""Lists of hosts, as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.cluster.ssh_hosts import Host, SshHosts, hosts_from_text
from nsactors.errors import LaunchError

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.none() | st.integers(0, 999)), min_size=1, unique_by=lambda item: item[0]))
def test_what_is_listed_is_what_is_found(items: list[tuple[str, int | None]]) -> None:
    text = ", ".join(name if engines is None else f"{name}:{engines}" for name, engines in items)
    assert hosts_from_text(text) == [Host(name, engines) for name, engines in items]


def test_a_user_and_an_address_may_be_named() -> None:
    assert hosts_from_text("ann@b:4,[fd00::2]:2") == [Host("ann@b", 4), Host("fd00::2", 2)]


@pytest.mark.parametrize("text", ["", "a,", "a:", "a:b", "a b", "a@", "fd00::2", "-oProxyCommand=x", "ann@-x"])
def test_what_is_no_list_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hosts are listed as in 'a,b:4'"):
        hosts_from_text(text)


def test_a_host_is_not_listed_twice() -> None:
    with pytest.raises(ValueError, match="the host a is listed twice"):
        hosts_from_text("a,b,a:2")


def test_this_machine_is_known_by_its_usual_names() -> None:
    assert [host.is_here for host in hosts_from_text("localhost:2,127.0.0.1,other")] == [True, True, False]


def test_a_machine_without_ssh_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LaunchError, match=r"no engines on a: ssh cannot be started here: .*'ssh'"):
        SshHosts(hosts_from_text("a")).__enter__()
