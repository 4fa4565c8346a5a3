"""The package as a wheel: what is in it, and where it is unpacked."""

import base64
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nsactors
from nsactors.cluster.own_wheel import own_wheel, unpack_own_wheel, wheel_name

PACKAGE = Path(nsactors.__file__).parent
INFORMATION = f"nsactors-{nsactors.__version__}.dist-info"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The files of the wheel by their paths."""
    with zipfile.ZipFile(io.BytesIO(own_wheel())) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def test_a_wheel_holds_every_file_of_the_package(files: dict[str, bytes]) -> None:
    sources = {f"nsactors/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*") if path.suffix in (".py", ".sh")}
    assert sources <= files.keys()
    assert files["nsactors/py.typed"] == (PACKAGE / "py.typed").read_bytes()
    assert not [name for name in files if "__pycache__" in name]


def test_a_wheel_has_the_name_and_metadata_that_installers_look_for(files: dict[str, bytes]) -> None:
    assert wheel_name() == f"nsactors-{nsactors.__version__}-py3-none-any.whl"
    assert f"\nVersion: {nsactors.__version__}\n".encode() in files[f"{INFORMATION}/METADATA"]
    assert b"Tag: py3-none-any\n" in files[f"{INFORMATION}/WHEEL"]


def test_a_wheel_records_the_digest_of_each_of_its_files(files: dict[str, bytes]) -> None:
    record = dict(line.split(",", 1) for line in files[f"{INFORMATION}/RECORD"].decode().splitlines())
    assert record.keys() == files.keys()
    assert record.pop(f"{INFORMATION}/RECORD") == ","
    for name, noted in record.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        assert noted == f"sha256={digest},{len(files[name])}"


def test_equal_files_give_equal_wheels() -> None:
    assert own_wheel() == own_wheel()


def test_an_unpacked_wheel_is_imported_from_its_folder(tmp_path: Path) -> None:
    unpack_own_wheel(tmp_path / "package")
    code = "import nsactors, importlib.metadata as m; print(nsactors.__file__, m.version('nsactors'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "package")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "package" / "nsactors" / "__init__.py"), nsactors.__version__]


def test_a_folder_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    (folder / "nsactors").mkdir(parents=True)
    (folder / "nsactors" / "of_an_earlier_version.py").touch()
    unpack_own_wheel(folder)
    assert (folder / "nsactors" / "__init__.py").exists()
    assert not (folder / "nsactors" / "of_an_earlier_version.py").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
