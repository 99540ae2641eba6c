"""The sdist and the wheel hold the package and nothing else, and the installed wheel runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("models", "dataflow", "simulator", "reports", "rtl", "fpga", "commands")
SHIPPED = (
    ".py",
    ".yaml",
    ".js",
    ".j2",
    ".tcl",
    ".v",
    ".cc",
)  # kinds of file that belong to the package; a new kind is added here and to package-data


def tree() -> list[str]:
    """Files of the working tree, ignored ones left out; new files count before they are committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def package_files() -> set[str]:
    inside = {name for name in tree() if name.split("/")[0] in ROOMS and name.endswith(SHIPPED)}
    return inside | {"__init__.py", "__main__.py", "py.typed"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with both archives; `build` makes the wheel from the sdist, so a file missing in one is missing in both.

    The tree is copied first: setuptools writes build/ and an egg-info beside the sources.
    """
    out, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "nmsat"
    for name in tree():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def test_wheel_content(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = {name for name in names if ".dist-info/" in name}
    assert {name.removeprefix("nmsat/") for name in names if name not in metadata} == package_files()
    assert any(name.endswith("licenses/LICENSE") for name in metadata)
    assert len(names) == len(set(names))


def test_sdist_content(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    build_files = {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("nmsat.egg-info/")}
    assert names - made == package_files() | build_files


def test_wheel_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    assert re.search(r"^License-Expression: Apache-2\.0$", text, re.M)
    assert re.search(r"^Requires-Python: >=3\.11$", text, re.M)
    extras = set(re.findall(r"^Provides-Extra: (.+)$", text, re.M))
    assert {"onnx", "torch", "wasm", "cluster", "data", "test", "dev"} <= extras


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of a fresh environment with the wheel installed by pip.

    The dependencies are borrowed from this environment by a .pth file, so that nothing is downloaded. It is written
    after the installation, or pip would find (and replace) the nmsat that is installed here; and a folder named in a
    .pth file has its own .pth files ignored, so an editable nmsat here is not borrowed.
    """
    home = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin/python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home / "bin"


def output(cwd: Path, *command: str | Path) -> str:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_wheel_is_what_runs(installed, tmp_path):
    where = output(tmp_path, installed / "python", "-c", "import nmsat; print(nmsat.__file__)")
    assert Path(where.strip()).is_relative_to(installed.parent)


@pytest.mark.parametrize("command", [["nmsat"], ["python", "-m", "nmsat"]], ids=" ".join)
def test_installed_wheel_runs_from_another_folder(installed, tmp_path, command):
    start = [installed / command[0], *command[1:]]
    listed = output(tmp_path, *start, "list")
    for name in (*(ROOT / "models/zoo").glob("*.yaml"), *(ROOT / "models/accelerators").glob("*.yaml")):
        assert re.search(rf"^{re.escape(name.stem)} ", listed, re.M), name.stem
    assert "usage: nmsat" in output(tmp_path, *start, "--help")
    output(tmp_path, *start, "run", "digits-mlp", "-a", "sat_4x4", "--batch", "16", "-q")


def requirement(line: str) -> tuple[str, str, str]:
    match = re.match(r"([A-Za-z0-9_.-]+)(>=|==)([0-9.]+)", line)
    assert match, line
    return match[1], match[2], match[3]


def test_the_oldest_leg_pins_the_floor_of_every_dependency():
    """.ci/oldest.txt is what the claim ">=" in pyproject.toml rests on: each pin is of the floor's own series."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {name: version for name, _, version in map(requirement, project["dependencies"])}
    pins = {}
    for line in (ROOT / ".ci/oldest.txt").read_text().split():
        name, relation, version = requirement(line)
        assert relation == "==", line
        pins[name] = version
    assert pins.keys() == floors.keys()
    for name, floor in floors.items():
        assert f"{pins[name]}.".startswith(f"{floor}."), f"{name}: floor {floor}, pinned {pins[name]}"
