"""Machines in namespaces are apart from one another, obey, and leave nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsactors.testing import wait_until
from tests.cluster.machines import Machine, MachineProcess, Switch, why_not

REASON = why_not()

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

PING = ["python3", "-c", "import socket; socket.create_connection(('10.77.0.2', 80), timeout=1)"]
SERVE = ["python3", "-uc", "import socket; s = socket.create_server(('', 80)); print('up')\nwhile True: s.accept()"]


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    switch = Switch(tmp_path)
    yield switch
    switch.end()


@pytest.fixture
def pair(switch: Switch, tmp_path: Path) -> Iterator[list[Machine]]:
    with contextlib.ExitStack() as at_end:
        machines = []
        for number in (1, 2):
            machine = Machine(f"machine-{number}", tmp_path, f"10.77.0.{number}")
            at_end.callback(machine.end)
            switch.plug_in(machine, f"port{number}")
            machines.append(machine)
        yield machines


def output(process: MachineProcess) -> str:
    with process:
        written, errors = process.communicate()
    assert process.returncode == 0, errors
    return written


def start_server(machine: Machine) -> MachineProcess:
    server = machine.popen(SERVE)
    assert server.read_line() == "up"
    return server


def reaches(machine: Machine) -> bool:
    with machine.popen(PING) as process:
        process.communicate()
    return process.returncode == 0


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_each_machine_has_a_name_and_files_of_its_own(pair: list[Machine], tmp_path: Path) -> None:
    (tmp_path / "seen by all").touch()
    for machine in pair:
        written = output(machine.popen(["sh", "-c", "hostname; ls; touch private /dev/shm/private"]))
        assert written == f"{machine.name}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["seen by all"]
    assert not Path("/dev/shm/private").exists()


def test_a_process_ends_with_the_status_that_it_has(pair: list[Machine]) -> None:
    with pair[0].popen(["sh", "-c", "exit 3"]) as process:
        assert process.wait() == 3
    with pair[0].popen(["sleep", "60"]) as process:
        wait_until(pair[0].processes)
        process.kill()
        assert process.wait() == 128 + signal.SIGKILL


def test_a_cable_that_is_pulled_out_cuts_a_machine_off_until_it_is_put_in_again(
    pair: list[Machine], switch: Switch
) -> None:
    with start_server(pair[1]) as server:
        wait_until(lambda: reaches(pair[0]))
        switch.set_link("port2", "down")
        assert not reaches(pair[0])
        switch.set_link("port2", "up")
        wait_until(lambda: reaches(pair[0]))
        server.kill()


def test_what_goes_over_the_cable_is_counted_at_both_ends(pair: list[Machine]) -> None:
    size = 10_000_000
    receive = "import socket; s = socket.create_server(('', 80)); print('up', flush=True); c, _ = s.accept()"
    send = f"import socket; socket.create_connection(('10.77.0.2', 80)).sendall(bytes({size}))"
    with pair[1].popen(["python3", "-c", f"{receive}\nwhile c.recv(1 << 20): pass"]) as receiver:
        assert receiver.read_line() == "up"
        output(pair[0].popen(["python3", "-c", send]))
        receiver.wait()
    received, sent = pair[1].traffic()[0], pair[0].traffic()[1]
    assert size < received < 1.1 * size
    assert size < sent < 1.1 * size


def test_a_frozen_machine_stands_still_and_a_thawed_one_goes_on(pair: list[Machine]) -> None:
    with pair[0].popen(["sh", "-c", "sleep 60 & sleep 60"]) as process:
        wait_until(lambda: len(pair[0].processes()) == 3)
        processes = pair[0].processes()
        pair[0].freeze()
        wait_until(lambda: {state(pid) for pid in processes} == {"T"})
        pair[0].thaw()
        wait_until(lambda: {state(pid) for pid in processes} == {"S"})
        pair[0].end()
        assert process.wait() == 128 + signal.SIGKILL
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_machine_goes_with_the_process_that_has_made_it(tmp_path: Path, frozen: bool) -> None:
    program = f"""
from pathlib import Path
from tests.cluster.machines import Machine
machine = Machine("machine", Path({str(tmp_path)!r}), "10.77.0.1")
process = machine.popen(["sh", "-c", "echo begun; sleep 60"])
process.read_line()
if {frozen}:
    machine.freeze()
print(machine.pid, process.pid, *machine.processes(), flush=True)
process.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        ids = [int(pid) for pid in maker.stdout.readline().split()]
        assert len(ids) >= 3
        os.kill(maker.pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ids))
