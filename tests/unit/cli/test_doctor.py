"""What ``nsactors doctor`` finds, and what it says to do."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nsactors.cli.doctor import (
    Finding,
    Level,
    check_mpi,
    check_packages,
    doctor,
    environment,
    examine,
    loopback,
    memory,
    open_files,
    shared_memory,
    starts,
    temporary_folder,
)
from nsactors.mpi import Library
from nsactors.mpi import launcher as launcher_module
from nsactors.system import private_files

# The command has the module's name.
doctor_module = importlib.import_module("nsactors.cli.doctor")


@pytest.mark.parametrize(("ray", "levels"), [("2.60.3", []), ("2.61.0", [Level.NOTE]), ("3.0.0", [Level.NOTE])])
def test_a_ray_that_was_never_tried_is_noted(ray: str, levels: list[Level], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    versions, *others = check_packages({"python": "3.11.7", "ray": ray})
    assert versions.found == f"python 3.11.7, ray {ray}"
    assert [finding.level for finding in others] == levels
    assert all("clusters start slower" in finding.found for finding in others)


def test_of_a_ray_that_was_never_tried_engines_start_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsactors.transport.ray.zygote_process.installed_ray", lambda: "2.99.0")
    assert starts({}).found == "start slower, each by itself: forking was tried with Ray 2.60, not with Ray 2.99.0"


def test_little_memory_is_noted() -> None:
    assert memory(500_000_000).level is Level.NOTE
    assert memory(8_000_000_000).level is Level.GOOD
    assert memory(None).level is Level.GOOD


def test_a_container_with_little_shared_memory_is_told_how_to_be_started() -> None:
    finding = shared_memory(64_000_000)
    assert finding.level is Level.WRONG
    assert "--shm-size" in finding.advice


def test_in_place_of_a_path_that_is_too_long_for_sockets_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    finding = temporary_folder(str(folder))
    assert finding.level is not Level.WRONG
    assert f"free in /tmp, for {folder} is too long a path for sockets" in finding.found
    monkeypatch.setattr(private_files, "SHORT_FOLDERS", ())
    finding = temporary_folder(str(folder))
    assert finding.level is Level.WRONG
    assert finding.advice.startswith("set TMPDIR to a folder of yours")


def test_a_folder_that_is_not_there_cannot_be_written_to(tmp_path: Path) -> None:
    assert temporary_folder(str(tmp_path / "gone")).level is Level.WRONG


def test_few_open_files_are_noted() -> None:
    assert [open_files(limit).level for limit in (1_024, 65_536, None)] == [Level.NOTE, Level.GOOD, Level.GOOD]


def test_this_machine_answers_itself() -> None:
    assert loopback().level is Level.GOOD


def test_another_ray_that_will_be_used_is_noted() -> None:
    (finding,) = environment({"RAY_ADDRESS": "10.0.0.1:6379"})
    assert finding.level is Level.NOTE
    assert "10.0.0.1:6379" in finding.found


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"http_proxy": "http://proxy"}, ["export no_proxy=127.0.0.1,localhost"]),
        ({"http_proxy": "http://proxy", "no_proxy": "a.b"}, ["export no_proxy=a.b,127.0.0.1,localhost"]),
        ({"http_proxy": "http://proxy", "no_proxy": "localhost"}, []),
        ({"http_proxy": "http://proxy", "NO_PROXY": "*"}, []),
        ({}, []),
    ],
)
def test_a_proxy_that_this_machine_is_called_through_is_noted(variables: dict[str, str], advice: list[str]) -> None:
    assert [finding.advice for finding in environment(variables)] == advice


def test_the_mpi_library_is_named_with_its_file() -> None:
    finding = check_mpi("4.1.2", Library("MPICH", "5.0.2", "/env/lib/libmpi.so.12", "mpich"))
    assert finding.level is Level.GOOD
    assert finding.found == "mpi4py 4.1.2 with MPICH 5.0.2 of the wheel mpich, /env/lib/libmpi.so.12"


def test_open_mpi_is_named_with_the_launcher_that_starts_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library("Open MPI", "4.1.4", "/usr/lib/libmpi.so.40")
    monkeypatch.setattr(launcher_module, "launcher_of", lambda library: ("/usr/bin/orterun", "--oversubscribe"))
    assert check_mpi("4.1.2", library).found.endswith("; /usr/bin/orterun starts the ranks")
    monkeypatch.setattr(launcher_module, "launcher_of", lambda library: ())
    finding = check_mpi("4.1.2", library)
    assert (finding.level, finding.advice) == (Level.NOTE, "install it (Debian: openmpi-bin)")


def test_an_mpi_library_that_does_not_load_is_noted_with_the_words_of_mpi4py() -> None:
    finding = check_mpi("4.1.2", "RuntimeError: cannot load MPI library")
    assert finding.level is Level.NOTE
    assert "cannot load MPI library" in finding.found
    assert "MPI4PY_LIBMPI" in finding.advice


def test_every_finding_that_is_not_good_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    findings = [*examine(), memory(0), shared_memory(None), open_files(1)]
    assert all(finding.advice for finding in findings if finding.level is not Level.GOOD)


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    found: list[Finding] = []
    monkeypatch.setattr(doctor_module, "examine", lambda: found)
    return found


def call(*arguments: str) -> Any:
    return CliRunner().invoke(doctor, ["--no-trial", *arguments])


def test_what_is_wrong_makes_it_fail_and_is_shown_with_what_to_do(findings: list[Finding]) -> None:
    findings += [Finding("a", Level.GOOD, "is fine"), Finding("b", Level.WRONG, "is broken", "mend it")]
    result = call()
    assert result.exit_code == 1
    assert result.output.splitlines() == ["✓ a: is fine", "✗ b: is broken", "  → mend it"]


def test_notes_are_no_failure(findings: list[Finding]) -> None:
    findings.append(Finding("a", Level.NOTE, "is odd", "look"))
    assert call().exit_code == 0


def test_scripts_read_json(findings: list[Finding]) -> None:
    findings.append(Finding("a", Level.NOTE, "is odd", "look"))
    assert json.loads(call("--json").output) == [{"subject": "a", "level": "note", "found": "is odd", "advice": "look"}]


def test_programs_for_ipyparallel_are_read_instead_of_the_machine(tmp_path: Path) -> None:
    program = tmp_path / "a.py"
    program.write_text("import ipyparallel as ipp\nrc = ipp.Client(profile='mpi')\n")
    (tmp_path / "b.py").write_text("import ipyparallel as ipp\nrc = ipp.Client()\n")
    found = CliRunner().invoke(doctor, ["--ipyparallel", str(tmp_path), "--json"])
    assert found.exit_code == 0
    line, total = json.loads(found.stdout)
    assert line["subject"] == f"{program}:2"
    assert line["found"].startswith("Client(profile=...) does nothing")
    assert total["found"].startswith("2 files read, 2 of them for ipyparallel: 1 line needs a look;")
    plain = CliRunner().invoke(doctor, ["--ipyparallel", str(tmp_path / "b.py")]).stdout
    assert "1 file read, 1 of them for ipyparallel: 0 lines need" in plain
    assert CliRunner().invoke(doctor, ["--ipyparallel", str(tmp_path / "c.py")]).exit_code == 2
