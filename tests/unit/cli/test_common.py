"""What commands say when something goes wrong: one plain message, with advice for where they are typed."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from nsactors import Cluster
from nsactors.cli import clusters as engine_commands
from nsactors.cli import execute as execute_commands
from nsactors.cli import main
from nsactors.cli.common import PlainErrors, advice_at_a_shell
from nsactors.cli.execute import banner
from nsactors.errors import (
    ClusterStopped,
    ClusterUnreachable,
    EngineStartError,
    EngineStartWarning,
    NoEngines,
    NoSuchEngine,
    NsactorsError,
)


def typed(function: Callable[[], object]) -> Result:
    """Return the outcome of a command that calls this function."""
    group = PlainErrors()
    group.command("do")(function)
    return CliRunner().invoke(group, ["do"])


def fails_with(error: Exception) -> Callable[[], object]:
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/home/me/lab.json"), "/home/me/lab.json: No space left"),
        (TimeoutError("1 of 2 engines are there"), "1 of 2 engines are there"),
        (NsactorsError("it is so"), "it is so"),
    ],
)
def test_what_the_machine_or_the_cluster_refuses_is_said_in_a_sentence(error: Exception, said: str) -> None:
    done = typed(fails_with(error))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {said}")


def test_an_error_of_ours_keeps_its_traceback() -> None:
    assert isinstance(typed(fails_with(ValueError("a bug"))).exception, ValueError)


def test_nothing_is_said_where_nobody_reads_any_more() -> None:
    done = typed(fails_with(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert (done.exit_code, done.stderr) == (1, "")


@pytest.mark.filterwarnings("default")
def test_a_warning_is_told_without_the_line_of_code_that_gave_it() -> None:
    def command() -> None:
        warnings.warn(EngineStartWarning(EngineStartError(3, "no", after="Add it again")), stacklevel=1)

    assert typed(command).stderr == "Warning: engine 3 did not start: no\nAdd it again\n"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ClusterStopped(), "`nsactors start`"),
        (ClusterUnreachable("127.0.0.1:1", "gone"), "`nsactors logs lab` may say why, and `nsactors stop lab`"),
        (NoEngines(), "`nsactors engines add N`"),
        (NoSuchEngine(1, []), "`nsactors engines add N`"),
    ],
)
def test_advice_for_programs_becomes_advice_for_those_who_type(error: NsactorsError, advice: str) -> None:
    said = advice_at_a_shell(error, "lab")
    assert advice in said
    assert "Cluster(n=4)" not in said


@pytest.mark.parametrize("error", [NoEngines(targets="::9", ids=[0]), NoSuchEngine(9, [0, 1])])
def test_other_errors_are_told_as_they_are(error: NsactorsError) -> None:
    assert advice_at_a_shell(error) == str(error)


def test_a_prompt_without_engines_begins_with_how_to_start_some() -> None:
    assert "`nsactors engines add N` starts some" in banner("lab", [], "all")
    assert banner("lab", [0, 1], "all").startswith("lab: engines 0-1\nCells run on all of them.")
    assert "Cells run on engine 1." in banner("lab", [0, 1], [1])


def test_engines_that_do_not_start_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = f"import os; os.mkdir({str(tmp_path / 'once')!r})"
    with Cluster(n=1, backend="local", startup=once) as client:
        monkeypatch.setattr(engine_commands, "the_cluster", lambda name: SimpleNamespace(name="lab", options={}))
        monkeypatch.setattr(engine_commands, "attached", lambda name, purpose: nullcontext(client))
        done = CliRunner().invoke(main, ["engines", "add", "1"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: engine 1 did not start: its start-up code raised FileExistsError")
    assert done.stderr.endswith("Remove the cause, and add it again\n")


@pytest.mark.parametrize(
    "source", ["\ufeffword = 'é'".encode(), "# -*- coding: latin-1 -*-\nword = 'é'".encode("latin-1")]
)
def test_a_script_is_read_as_python_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: bytes) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(source)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with Cluster(n=1, backend="local") as client:
        monkeypatch.setattr(execute_commands, "attached", lambda name, purpose: nullcontext(client))
        done = CliRunner().invoke(main, ["run", str(script)])
        assert (done.exit_code, client[0]["word"]) == (0, "é")


@pytest.mark.parametrize("command", [["run"], ["start", "--startup"]])
@pytest.mark.parametrize("source", [b"word = '\xe9'", b"# -*- coding: klingon -*-\n"])
def test_a_file_that_python_cannot_read_is_refused(tmp_path: Path, command: list[str], source: bytes) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(source)
    done = CliRunner().invoke(main, [*command, str(script)])
    assert done.exit_code == 2
    assert f"{script} cannot be read as Python: " in done.output


@pytest.mark.parametrize(
    "command",
    [
        ["start", "--num-cpus", "nan"],
        ["start", "--idle-shutdown", "inf"],
        ["engines", "add", "1", "--num-gpus", "nan"],
        ["exec", "--timeout", "nan", "1"],
        ["exec", "--timeout", "-1", "1"],
        ["top", "--seconds", "nan"],
    ],
)
def test_a_number_that_is_none_is_refused_before_a_cluster_is_looked_for(command: list[str]) -> None:
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "Invalid value for" in done.output
