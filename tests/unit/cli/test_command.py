"""The command line: what it says of itself, and its exit status."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

import nsactors
from nsactors.cli import main
from nsactors.cli.demo import Check, DemoStep
from nsactors.client.activity import EngineActivity
from nsactors.transport.registry import ProgramAddress, Registry

RIGHT = DemoStep("Add", "total = 1 + 1", (Check("total", "2"),))
WRONG = DemoStep("Add", "total = 1 + 1", (Check("total", "3"),))


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_the_version_is_the_packages(runner: CliRunner) -> None:
    result = runner.invoke(main, ["--version"])
    assert result.output == f"nsactors, version {nsactors.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_help_lists_the_commands_and_says_how_to_begin(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(main, arguments)
    assert result.exit_code == 0
    assert "demo" in result.output
    assert "from nsactors import Cluster" in result.output


def test_the_help_of_the_demo_says_what_its_exit_status_means(runner: CliRunner) -> None:
    assert "Exits with status 1" in " ".join(runner.invoke(main, ["demo", "--help"]).output.split())


@pytest.mark.parametrize(("step", "status"), [(RIGHT, 0), (WRONG, 1)])
def test_the_demo_exits_with_1_if_an_answer_is_wrong(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, step: DemoStep, status: int
) -> None:
    monkeypatch.setattr("nsactors.cli.demo.STEPS", (step,))
    assert runner.invoke(main, ["demo"]).exit_code == status


def test_an_unknown_command_is_a_usage_error(runner: CliRunner) -> None:
    result = runner.invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "No such command 'dmeo'" in result.output


def test_every_command_has_a_help_of_its_own_and_stands_in_the_reference(runner: CliRunner) -> None:
    reference = (Path(__file__).parents[3] / "docs" / "reference" / "command.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert command.help, name
        assert runner.invoke(main, [name, "--help"]).exit_code == 0
        assert f"| `nsactors {name}" in reference, name


@pytest.mark.parametrize("command", ["start", "stop"])
def test_every_option_stands_in_the_reference(command: str) -> None:
    reference = (Path(__file__).parents[3] / "docs" / "reference" / "command.md").read_text(encoding="utf-8")
    parameters = [parameter for parameter in main.commands[command].params if isinstance(parameter, click.Option)]
    options = [option for parameter in parameters if not parameter.hidden for option in parameter.opts]
    assert [option for option in options if f"| `{option}" not in reference] == []


def test_the_commands_do_not_import_what_they_may_not_need() -> None:
    program = "import sys, nsactors.cli; print([m for m in ('ray', 'numpy', 'IPython', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "lab"],
        ["status", "-c", "lab"],
        ["stop", "-c", "lab"],
        ["logs", "--cluster", "lab"],
        ["interrupt", "-c", "lab"],
        ["top", "lab"],
        ["exec", "-c", "lab", "1"],
        ["engines", "-c", "lab"],
        ["engines", "list", "-c", "lab"],
    ],
)
def test_every_command_takes_the_name_of_a_cluster_as_an_option(
    runner: CliRunner, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = runner.invoke(main, arguments)
    assert (result.exit_code, result.stderr[:42]) == (1, "Error: no cluster 'lab' of yours runs here")


@pytest.mark.parametrize("command", ["status", "interrupt", "exec", "engines list"])
def test_a_command_that_needs_a_name_shows_how_to_give_it(
    runner: CliRunner, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    arguments = [*command.split(), *(["1 + 1"] if command == "exec" else [])]
    Registry().reserve("sim", program=ProgramAddress())
    assert f"To use the program 'sim', give its name, as in `nsactors {command} -c sim`" in said(runner, arguments)
    Registry().reserve("sim-2", program=ProgramAddress())
    assert f"To use one of the programs 'sim' and 'sim-2', give its name, as in `nsactors {command}" in said(
        runner, arguments
    )
    for name in ("lab", "other"):
        Registry().reserve(name)
    assert f"2 clusters of yours run: 'lab', 'other'. Name one, as in `nsactors {command} -c lab`" in said(
        runner, arguments
    )


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        (["", "", ""], "nothing runs on engines 0-2"),
        (["x = 1", "", ""], "interrupted: engine 0"),
        (["x = 1", "", "f()"], "interrupted: engines 0, 2"),
    ],
)
def test_an_interrupt_names_the_engines_that_ran_something(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, sources: list[str], text: str
) -> None:
    class FakeClient:
        def activity(self) -> SimpleNamespace:
            return SimpleNamespace(engines=[EngineActivity(i, runs=source) for i, source in enumerate(sources)])

        def interrupt(self, targets: object) -> list[int]:
            return [0, 1, 2]

    monkeypatch.setattr("nsactors.cli.clusters.attached", lambda name, purpose: nullcontext(FakeClient()))
    assert runner.invoke(main, ["interrupt"]).output == f"{text}\n"


def said(runner: CliRunner, arguments: list[str]) -> str:
    result = runner.invoke(main, arguments, prog_name="nsactors")
    assert result.exit_code == 1
    return result.stderr


def test_code_may_follow_the_name_of_a_cluster(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    Registry().reserve("lab")
    assert runner.invoke(main, ["exec", "lab", "1"]).stderr.startswith("Error: the cluster 'lab' is still starting")
    for arguments in (["print", "x"], ["x", "=", "1"], ["lab", "x", "1"]):
        result = runner.invoke(main, ["exec", *arguments])
        assert (result.exit_code, "CODE is one argument: put it in quotes" in result.stderr) == (2, True)
    assert runner.invoke(main, ["exec", "-c", "lab", "lab", "1"]).exit_code == 1
    assert "one cluster at a time" in runner.invoke(main, ["exec", "-c", "other", "lab", "1"]).stderr


@pytest.mark.parametrize("arguments", [["status"], ["stop"], ["exec", "1"], ["interrupt"], ["logs"], ["engines"]])
def test_without_a_cluster_it_is_said_how_to_start_one(
    runner: CliRunner, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = runner.invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr == "Error: no cluster of yours runs here: start one with `nsactors start`\n"


def test_where_no_cluster_runs_the_list_is_empty(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert runner.invoke(main, ["list", "--json"]).output == "[]\n"
    assert "nsactors start" in runner.invoke(main, ["list"]).output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "-n", "-1"],
        ["start", "--idle-shutdown", "0"],
        ["start", "--name", "../lab"],
        ["start", "--memory", "lots"],
        ["start", "--hosts", "a:b:c"],
        ["start", "--address", "here:1", "--tls"],
        ["start", "--address", "junk"],
        ["start", "--name", ""],
        ["top", "lab", "--cluster", "other"],
        ["engines", "lab"],
        ["exec", "-t", "some", "1"],
        ["exec"],
        ["run", "/no/such/script.py"],
        ["engines", "remove"],
        ["engines", "add", "1", "--num-cpus", "-1"],
        ["launch", "slurm", "--name", "a b"],
        ["launch", "slurm", "--object-store-memory", "foo"],
        ["launch", "ray", "cluster.yaml", "--num-cpus", "-1"],
    ],
)
def test_what_is_called_wrongly_is_a_usage_error(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_every_command_says_in_a_whole_line_what_it_is_for(runner: CliRunner) -> None:
    lines = runner.invoke(main, ["--help"]).output.partition("Commands:\n")[2].splitlines()
    assert len(lines) == len(main.commands)
    assert [line for line in lines if "..." in line] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["top", "nope"],
        ["top", "-c", "nope"],
        ["console", "nope"],
        ["engines", "-c", "nope"],
        ["engines", "list", "-c", "nope"],
        ["engines", "-c", "other", "add", "1", "--cluster", "nope"],
        ["logs", "nope"],
        ["status", "nope"],
    ],
)
def test_a_cluster_is_named_where_people_name_it(
    runner: CliRunner, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    result = runner.invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no cluster 'nope' of yours runs here")


def test_a_group_says_how_its_cluster_is_named(runner: CliRunner) -> None:
    assert "as in: nsactors engines --cluster lab" in runner.invoke(main, ["engines", "lab"]).stderr


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of signals are put back: a command that ends its process does not."""
    known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


def test_a_ray_that_does_not_answer_is_told_in_the_command_s_own_words(runner: CliRunner, signals: None) -> None:
    said = runner.invoke(main, ["start", "--foreground", "--address", "no-such-host.invalid:1"]).stderr
    assert "no Ray cluster answers at no-such-host.invalid:1" in said
    assert "without --address" in said
    assert "Cluster(n=4)" not in said
