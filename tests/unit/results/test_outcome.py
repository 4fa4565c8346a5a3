"""What a client says of modules and names that an engine lacks, and that it has itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nsactors.errors import Failure
from nsactors.protocol.messages import RequestId
from nsactors.results.outcome import with_hint

table = [1, 2, 3]


def hint(error: Exception) -> str:
    """The note that a client adds to this error of an engine; empty if it adds none."""
    failure = Failure.capture(error, engine_id=0, call="apply(f)")
    notes = with_hint(failure).notes
    assert notes[: len(failure.notes)] == failure.notes
    return "".join(notes[len(failure.notes) :])


def missing(name: str) -> str:
    return hint(ModuleNotFoundError(f"No module named {name!r}", name=name))


def test_a_module_that_is_beside_the_program_is_said_to_be_imported_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack_hint").mkdir()
    (tmp_path / "pack_hint/__init__.py").touch()
    (tmp_path / "pack_hint/late.py").write_text("raise AssertionError('it is only looked for')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert missing("pack_hint.late") == (
        f"This client has pack_hint.late in {tmp_path / 'pack_hint/late.py'}, and has not imported it. Engines on "
        "other hosts get only modules that this client has imported: `import pack_hint.late` here"
    )
    assert "pack_hint" not in sys.modules


def test_an_installed_package_is_said_to_be_installed_there() -> None:
    assert missing("pytest") == f"This client has pytest in {pytest.__file__}: also install it for the engine's Python"


def test_a_compiled_module_is_said_not_to_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fast_hint.abi3.so").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "compiled modules are not sent" in missing("fast_hint")


@pytest.mark.parametrize("name", ["nowhere_to_be_found", "pytest.nowhere", "sys.nothing"])
def test_nothing_is_said_of_what_is_not_here_either(name: str) -> None:
    assert missing(name) == ""


def test_a_name_of_the_prompt_is_said_to_be_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules[__name__])
    assert hint(NameError("name 'table' is not defined", name="table")) == (
        "table exists here, and not on the engine: push it, as in rc[:].push({'table': table})"
    )
    assert hint(NameError("name 'pytest' is not defined")) == (
        "pytest exists here, and not on the engine: also run `import pytest` there"
    )
    assert hint(NameError("name 'tabel' is not defined")) == ""
    monkeypatch.setattr(sys.modules[__name__], "table", RequestId("ann", 1))  # as a result or a view is of nsactors
    assert hint(NameError("name 'table' is not defined")) == ""
    assert hint(UnboundLocalError("cannot access local variable 'table'")) == ""
    assert hint(ValueError("name 'table' is not defined")) == ""
