"""The command line: what it says of itself, and its exit status."""

import pytest
from click.testing import CliRunner

import nsactors
from nsactors.cli import main
from nsactors.cli.demo.script import Check, Step

RIGHT = Step("Add", "total = 1 + 1", (Check("total", "2"),))
WRONG = Step("Add", "total = 1 + 1", (Check("total", "3"),))


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
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, step: Step, status: int
) -> None:
    monkeypatch.setattr("nsactors.cli.demo.STEPS", (step,))
    assert runner.invoke(main, ["demo"]).exit_code == status


def test_an_unknown_command_is_a_usage_error(runner: CliRunner) -> None:
    result = runner.invoke(main, ["dmeo"])
    assert result.exit_code == 2
    assert "No such command 'dmeo'" in result.output
