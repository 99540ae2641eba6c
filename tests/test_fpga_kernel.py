"""kernel.xml as a test list: every argument is written and read through AXI4-Lite at the offsets that it gives."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nmsat.fpga.board import Board
from nmsat.fpga.generate import generate
from nmsat.models.accelerator import Accelerator
from nmsat.rtl.testbench.small_top import small_top

SMALL = Accelerator.load("sat_4x4")


@pytest.fixture(autouse=True)
def _beside_this_file(monkeypatch):
    """The simulator's Python gets this process' path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def files():
    return generate(Board.load("vcu1525"), SMALL, design=small_top(SMALL, array=False)).files


def exercise(files: dict[str, str], folder: Path) -> dict[str, list[str]]:
    """Faults by register, found by cocotb on Icarus."""
    from cocotb_tools.runner import get_runner

    sources = []
    for name in ("rtl/nmsat_top.v", "rtl/nmsat_kernel.v", "vitis/kernel.xml"):
        (folder / Path(name).name).write_text(files[name])
        sources.append(folder / Path(name).name)
    runner = get_runner("icarus")
    logging.getLogger(type(runner).__qualname__).addHandler(logging.NullHandler())
    runner.build(
        sources=sources[:2],
        hdl_toplevel="nmsat_kernel",
        build_dir=folder,
        timescale=("1ns", "1ps"),
        log_file=folder / "build.log",
    )
    environment = {"KERNEL_XML": str(sources[2]), "RESULT": str(folder / "result.json")}
    runner.test(
        test_module="fpga_kernel_cocotb", hdl_toplevel="nmsat_kernel", build_dir=folder, test_dir=folder,
        timescale=("1ns", "1ps"), extra_env=environment, log_file=folder / "test.log", results_xml=str(folder / "results.xml"),
    )  # fmt: skip
    return json.loads((folder / "result.json").read_text())


def test_every_register_of_kernel_xml(files, tmp_path):
    found = exercise(files, tmp_path)
    arguments = [a.get("name") for a in ElementTree.fromstring(files["vitis/kernel.xml"]).iter("arg")]
    assert list(found) == [*arguments, "control", "interrupt", "outside"]
    assert {name: faults for name, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ('offset="0x030"', 'offset="0x0F0"', "descriptor_limit"),  # nothing is there
        ('offset="0x028"', 'offset="0x020"', "range_low"),  # two arguments at one place
        ('range="0x1000"', 'range="0x40"', "outside"),  # registers beyond the window
    ],
)
def test_a_wrong_kernel_xml_is_seen(files, tmp_path, old, new, broken):
    assert old in files["vitis/kernel.xml"]
    found = exercise({**files, "vitis/kernel.xml": files["vitis/kernel.xml"].replace(old, new)}, tmp_path)
    assert found[broken]


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ("(m_axi_awaddr)", "()", None),  # not this test's business
        (
            ".s_axi_control__wdata(s_axi_control_wdata)",
            ".s_axi_control__wdata({s_axi_control_wdata[31:8], 8'd0})",
            "program",
        ),
        (
            ".s_axi_control__araddr(s_axi_control_araddr)",
            ".s_axi_control__araddr(s_axi_control_araddr ^ 12'd4)",
            "control",
        ),
        (".interrupt(interrupt)", ".interrupt()", "interrupt"),
    ],
)
def test_a_wrong_wrapper_is_seen(files, tmp_path, old, new, broken):
    assert old in files["rtl/nmsat_kernel.v"]
    found = exercise({**files, "rtl/nmsat_kernel.v": files["rtl/nmsat_kernel.v"].replace(old, new)}, tmp_path)
    assert found[broken] if broken else not any(found.values())
