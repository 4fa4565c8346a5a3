"""Every block of code on every page is run by a test, or its syntax is checked and the page states this."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from nsactors.cli.command import main
from nsactors.testing import TIMEOUT_S
from tests.blocks import LOCAL_PAGES, PAGES, ROOT, Block, as_session, blocks_of, commands, files_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHOWN = {"text", ""}  # what is printed, and drawings
TYPED_ELSEWHERE = {"docs/tutorials/interactive.md"}  # by tests/notebooks/test_tutorial.py
COMMANDS_RUN = {"docs/how-to/background-clusters.md", "README.md"}  # by tests/cluster/test_docs.py, and by CI
SHELLS = {"cat", "cd", "echo", "export", "kubectl", "make", "pip", "python", "ray", "salloc"}
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_there_are_no_blocks_that_no_test_knows() -> None:
    known = {"pycon", "python", "ipython", "console", "sh", *SHOWN}
    assert [str(block) for block in BLOCKS if block.language not in known] == []
    assert {block.page for block in of("ipython")} <= TYPED_ELSEWHERE


def test_pages_say_which_commands_are_checked_for_syntax_only() -> None:
    unsaid = [block for block in of("console", "sh") if not block.syntax_only and block.page not in COMMANDS_RUN]
    assert [str(block) for block in unsaid] == []


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_is_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", of("console"), ids=str)
def test_commands_are_known_and_take_their_options(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(block):
        for name in (word for word in words if word.endswith((".py", ".yaml"))):
            (tmp_path / name).touch()  # the command looks whether it is there
        while "=" in words[0]:
            words = words[1:]  # noqa: PLW2901
        if "nsactors" in words:
            parse(words[words.index("nsactors") + 1 :])
        elif words[0] == "make":
            assert words[1] in TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
        else:
            assert words[0] in SHELLS


def parse(arguments: list[str]) -> None:
    """Parse the arguments of ``nsactors`` without running anything; what is wrong with them raises UsageError."""
    command: click.Command = main
    context = command.make_context("nsactors", arguments)
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command, context = found, found.make_context(name, arguments, context)
    context.close()  # with the files among its arguments


def test_a_wrong_option_is_found() -> None:
    parse(["start", "-n", "2"])
    with pytest.raises(click.UsageError, match="--enginse"):
        parse(["start", "--enginse", "2"])


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_shell_scripts_are_shell_scripts(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("page", LOCAL_PAGES)
def test_a_page_that_needs_no_ray_prints_what_it_says(page: str, tmp_path: Path) -> None:
    (tmp_path / "page").write_text(as_session(page), encoding="utf-8")
    run(["-m", "doctest", "-o", "ELLIPSIS", "page"], tmp_path)


def test_the_tests_on_a_page_pass(tmp_path: Path) -> None:
    files = files_of("docs/how-to/testing.md")
    assert {"conftest.py", "test_totals.py"} <= set(files)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    run(["-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:cacheprovider"], tmp_path)


def run(arguments: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The reading of pages, on an invented one.

PAGE = """Text.

```pycon
>>> 1 + 1
2
```

```python
@property
def f():
    return 1

f()
```

```text
seen
```

```console
$ nsactors start \\
    -n 2  # two
The cluster runs
```

<!-- Checked for syntax only, as it needs a library. -->

```python
import library
```
"""


def test_sessions_are_typed_where_they_stand_and_other_lines_are_blank() -> None:
    lines = as_session("page.md", PAGE).splitlines()
    assert lines[:7] == ["", "", "", ">>> 1 + 1", "2", "", ""]
    assert lines[8:12] == [">>> @property", "... def f():", "...     return 1", ""]
    assert lines[12].startswith(">>> _ = f()")
    assert lines[13] == "seen"
    assert "library" not in "\n".join(lines)


def test_commands_are_read_over_several_lines_without_remarks() -> None:
    block = next(block for block in blocks_of("page.md", PAGE) if block.language == "console")
    assert commands(block) == [["nsactors", "start", "-n", "2"]]


def test_a_block_is_checked_for_syntax_only_where_the_page_says_so() -> None:
    assert [block.syntax_only for block in blocks_of("page.md", PAGE)] == [False] * 4 + [True]
    everywhere = "<!-- The tests check the examples of this page for syntax only. -->\n\nText.\n\n```python\na\n```\n"
    assert [block.syntax_only for block in blocks_of("page.md", everywhere)] == [True]
