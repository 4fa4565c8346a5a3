"""Lists of hosts, as people type them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsactors.cluster.ssh_hosts import Host, SshHosts, by_srun, by_ssh, hosts_from_text, reached
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


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Slurm's command, which lists two nodes whatever it is asked."""
    path = tmp_path / "scontrol"
    path.write_text("#!/bin/sh\nprintf 'n1\\nn2\\n'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


@pytest.mark.parametrize(
    ("here", "hosts"),
    [({}, [Host("n1", 4), Host("n2", 4)]), ({"SLURMD_NODENAME": "n2"}, [Host("n1", 4), Host("localhost", 4)])],
)
@pytest.mark.usefixtures("scontrol")
def test_slurm_stands_for_the_nodes_of_the_allocation(here: dict[str, str], hosts: list[Host]) -> None:
    environment = {"SLURM_JOB_NODELIST": "n[1-2]", **here}
    assert reached(hosts_from_text("slurm:4"), environment) == (hosts, by_srun)


def test_other_hosts_are_reached_over_ssh() -> None:
    assert reached([Host("a"), Host("ann@slurm")], {"SLURM_JOB_NODELIST": "n1"}) == (
        [Host("a"), Host("ann@slurm")],
        by_ssh,
    )


def test_slurm_is_the_only_host_of_its_list() -> None:
    with pytest.raises(ValueError, match="'slurm' stands for all nodes of an allocation"):
        reached(hosts_from_text("slurm,a"), {"SLURM_JOB_NODELIST": "n1"})


def test_without_an_allocation_it_is_said_how_to_get_one() -> None:
    with pytest.raises(LaunchError, match="in no allocation of Slurm: `salloc --nodes=2` makes one"):
        reached(hosts_from_text("slurm"), {})


def test_what_scontrol_refuses_is_told_in_its_words(scontrol: Path) -> None:
    scontrol.write_text("#!/bin/sh\necho 'Invalid hostlist: n[1' >&2; exit 1\n")
    with pytest.raises(LaunchError, match=r"does not list the nodes n\[1\nLast lines it wrote:\n    Invalid hostlist"):
        reached(hosts_from_text("slurm"), {"SLURM_JOB_NODELIST": "n[1"})
