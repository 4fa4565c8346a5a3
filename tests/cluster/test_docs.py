"""The sessions shown in the documentation, typed again: what they print must be what the pages say."""

import pathlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.blocks import LOCAL_PAGES, PAGES, as_session, blocks_of
from tests.cluster.background import CommandLine
from tests.cluster.pages import Typed, Typist

pytestmark = [pytest.mark.ray, pytest.mark.timeout(350)]

COMMANDS = "docs/how-to/background-clusters.md"
ELSEWHERE = {*LOCAL_PAGES, "docs/how-to/ipyparallel.md", COMMANDS}  # run by the quick half, and below
SESSIONS = [page for page in PAGES if page not in ELSEWHERE and ">>> " in as_session(page)]
# Pages that ask for a Ray of another kind than the others, or leave their cluster to the end of the process.
BY_THEMSELVES = ["docs/how-to/memory.md", "docs/how-to/compiled-code.md"]


@pytest.fixture(scope="module")
def type_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, pathlib.Path], Typed]]:
    """Types a page; most of them in one process, whose Ray stays up."""
    with ExitStack() as stack:
        shared: list[Typist] = []

        def type_page(page: str, typed: pathlib.Path) -> Typed:
            if page in BY_THEMSELVES:
                with Typist(tmp_path_factory.mktemp("page"), keeps_ray=False) as typist:
                    return typist.type(typed)
            if not shared or shared[-1].has_ended:
                shared.append(stack.enter_context(Typist(tmp_path_factory.mktemp("pages"), keeps_ray=True)))
            return shared[-1].type(typed)

        yield type_page


@pytest.mark.parametrize("page", SESSIONS)
def test_a_page_prints_what_it_says(
    page: str, type_page: Callable[[str, pathlib.Path], Typed], tmp_path: pathlib.Path
) -> None:
    typed = tmp_path / pathlib.Path(page).name
    typed.write_text(as_session(page), encoding="utf-8")
    found = type_page(page, typed)
    assert found == Typed(failed=0, differences="", errors=""), found.differences


# These differ from one run to the next: hosts, numbers, and the width of columns.
HOST = re.compile(rf"\b(?:vm|{re.escape(socket.gethostname())})\b")
NUMBER, RULE, BLANKS = re.compile(r"\d+"), re.compile("─+"), re.compile(r"\s+")
OF_OTHERS = re.compile("clients:|simulate")  # another client's work, which is not there


def plain(text: str) -> list[str]:
    """The lines of a text, with constants for what changes."""
    constant = BLANKS.sub(" ", RULE.sub("─", NUMBER.sub("0", HOST.sub("HOST", text.replace("\n", "\0")))))
    return [line.strip() for line in constant.split("\0") if line.strip()]


def command_lines(block: str) -> tuple[str, str, dict[str, str]]:
    """The commands of a block, their output, and the files that ``cat`` shows."""
    script: list[str] = []
    shown: list[str] = []
    files: dict[str, str] = {}
    for line in block.splitlines():
        if line.startswith("$ "):
            script.append(line.removeprefix("$ "))
            continue
        shown.append(line)
        if script[-1].startswith("cat "):
            name = script[-1].removeprefix("cat ")
            files[name] = files.get(name, "") + f"{line}\n"
    return "\n".join(script), "\n".join(shown), files


@pytest.fixture
def command(tmp_path: pathlib.Path) -> Iterator[CommandLine]:
    """The command; the cluster of the page is stopped at the end, if it is still there."""
    command = CommandLine(tmp_path)
    yield command
    if command.json("list"):
        command("stop")


def test_commands_print_what_the_page_says(command: CommandLine, tmp_path: pathlib.Path) -> None:
    for block in blocks_of(COMMANDS):
        if block.syntax_only or block.language not in {"console", "python"}:
            continue
        if block.language == "python":
            done = command.python(block.text)
            assert (done.returncode, done.stderr) == (0, ""), str(block)
            continue
        script, shown, files = command_lines(block.text)
        for name, text in files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        printed = command.shell(script, cwd=tmp_path)
        missing = [line for line in plain(shown) if line not in plain(printed) and not OF_OTHERS.search(line)]
        assert not missing, f"{block} prints {printed}"
