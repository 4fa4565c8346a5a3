"""ipyparallel's commands are those of nsactors."""

from __future__ import annotations

import pytest

from nsactors.ipyparallel.commands import command_for, run


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("ipcluster start -n 4", "start -n 4 --foreground"),
        ("ipcluster start --n=4 --daemonize", "start -n 4"),
        ("ipcluster start -n 4 --daemonize=False", "start -n 4 --foreground"),
        ("ipcluster start --cluster-id lab --daemonize=True", "start --name lab"),
        ("ipcluster start -n 8 --engines=slurm", "launch slurm --engines-per-node 8"),
        ("ipcluster start --engines MPI", "start --foreground"),
        ("ipcluster stop --cluster-id=lab", "stop lab"),
        ("ipcluster stop", "stop"),
        ("ipcluster engines -n 2 --cluster-id=lab", "engines --cluster lab add 2"),
        ("ipcluster list", "list"),
        ("ipcluster clean", "list"),
        ("ipcontroller --cluster-id=lab --ip=*", "start -n 0 --foreground --name lab"),
        ("ipengine --file=/a/ipcontroller-engine.json", "engines add 1"),
    ],
)
def test_a_command_has_its_counterpart(typed: str, words: str) -> None:
    program, *arguments = typed.split()
    assert command_for(program, arguments).words == tuple(words.split())


def test_flags_without_meaning_are_told() -> None:
    found = command_for("ipcluster", ["start", "--profile", "lab", "--log-level=10", "--debug", "-n", "2"])
    assert found.words == ("start", "-n", "2", "--foreground")
    assert found.left_out == ("--profile", "--log-level", "--debug")


@pytest.mark.parametrize(
    "typed", ["ipcluster dance", "ipcluster start --engines=ssh", "ipcluster start --engines=winhpc"]
)
def test_what_has_no_counterpart_is_refused(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = typed.split()
    assert run(program, arguments) == 2
    assert capsys.readouterr().err.startswith("ipcluster: ")
