"""What a host does before its node starts: it has the package, or receives it."""

import base64
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from nsactors.cluster import node_over_ssh
from nsactors.cluster.own_wheel import own_wheel

PROGRAM = Path(node_over_ssh.__file__).read_text()

# Replaces the node's module: prints its own path, the folder that it must remove, and the text that it reads.
NODE = """
import os, sys
print(__file__, os.environ.get("NSACTORS_PACKAGE_FOLDER"), sys.argv[1:], repr(sys.stdin.read()))
"""


def package(version: str) -> dict[str, str]:
    return {
        "nsactors/__init__.py": "",
        "nsactors/_version.py": f'__version__ = "{version}"\n',
        "nsactors/cluster/__init__.py": "",
        "nsactors/cluster/node.py": NODE,
    }


def wheel_of(version: str) -> str:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as wheel:
        for name, text in package(version).items():
            wheel.writestr(name, text)
    return base64.b64encode(written.getvalue()).decode()


def run(folder: Path, sent: str, *, path: Path | None = None, version: str = "9.9") -> subprocess.CompletedProcess[str]:
    """Run the program as ssh does on a host, whose Python has no packages but those in ``path``."""
    (folder / "tmp").mkdir()
    environment = {"TMPDIR": str(folder / "tmp"), **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, version],
        input=sent,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def install(folder: Path, version: str) -> Path:
    for name, text in package(version).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_host_that_has_the_version_starts_its_own(tmp_path: Path) -> None:
    installed = install(tmp_path / "site", "9.9")
    done = run(tmp_path, "the plan\n", path=installed)
    here, said = done.stdout.splitlines()
    assert here == node_over_ssh.HERE
    assert said == f"{installed / 'nsactors/cluster/node.py'} None ['-'] 'the plan\\n'"


def test_a_host_with_another_version_starts_the_one_that_it_receives_and_the_plan_stays_unread(tmp_path: Path) -> None:
    installed = install(tmp_path / "site", "9.8")
    wheel = wheel_of("9.9")
    done = run(tmp_path, f"{len(wheel)}\n{wheel}the plan\n", path=installed)
    wanted, said = done.stdout.splitlines()
    assert wanted == node_over_ssh.WANTED
    (folder,) = (tmp_path / "tmp").iterdir()
    assert said == f"{folder}/package/nsactors/cluster/node.py {folder} ['-'] 'the plan\\n'"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_client_that_ends_before_it_has_sent_the_package_leaves_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "400\nbeginning")
    assert done.stdout == f"{node_over_ssh.WANTED}\n"
    assert done.returncode == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_node_removes_the_package_that_it_has_received(tmp_path: Path) -> None:
    wheel = base64.b64encode(own_wheel()).decode()
    packages = os.pathsep.join(entry for entry in sys.path if os.path.basename(entry) == "site-packages")
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, "9.9"],  # a version that is found nowhere
        input=f"{len(wheel)}\n{wheel}",  # and no plan: the client ends
        env={"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": packages},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{node_over_ssh.WANTED}\n", "")
    assert list((tmp_path / "tmp").iterdir()) == []
