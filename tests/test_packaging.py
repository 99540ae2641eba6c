"""The wheel and the sdist hold the package and nothing else, and the installed wheel runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "nmsat"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in listed.stdout.split():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_content(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    rooms = ("models", "dataflow", "simulator", "reports", "rtl", "fpga")
    for room in rooms:
        for path in (ROOT / room).rglob("*"):
            if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts:
                assert f"nmsat/{path.relative_to(ROOT)}" in names
    assert {"nmsat/py.typed", "nmsat/__main__.py", "nmsat/__init__.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.split("/")[1] for name in names if name.startswith("nmsat/")}
    assert tops == {*rooms, "py.typed", "__main__.py", "__init__.py"}


def test_installed_wheel_runs(wheel, tmp_path):
    """A fresh environment borrows the dependencies by a .pth file, so that the test downloads nothing."""
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = tmp_path / "env/bin/python"
    where = subprocess.run(
        [python, "-c", "import nmsat; print(nmsat.__file__)"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    listed = subprocess.run(
        [python, "-m", "nmsat", "list"], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
    )
    assert "resnet18" in listed.stdout
    assert "sat_4x4" in listed.stdout
