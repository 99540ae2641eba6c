"""Board files: what ships, the conflicts between sources, what is refused; clock manager; the platform built from a board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.fpga.board import Board
from nmsat.fpga.bringup import Blinker, Bringup
from nmsat.fpga.clocking import Mmcm, mmcm_for
from nmsat.fpga.platform import BoardPlatform
from nmsat.models.accelerator import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.models.yaml_io import read_yaml

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ("u200", "vcu1525")


@pytest.fixture(scope="module", params=BOARDS)
def board(request):
    return Board.load(request.param)


def text_of(name: str) -> str:
    return (ROOT / f"fpga/boards/{name}.yaml").read_text()


def test_what_ships():
    assert tuple(Board.names()) == BOARDS


def test_every_source_is_used_and_explained(board):
    used = {source for _, source in board.cited()}
    assert used <= set(board.sources)
    assert set(board.sources) - used <= {"V"}  # a second witness of C's PCIe facts
    assert all(len(text) > 20 for text in board.sources.values())


def test_the_facts_both_cards_share():
    first, second = (Board.load(name) for name in BOARDS)
    differ = {key for key in Board.model_fields if getattr(first, key) != getattr(second, key)}
    assert differ == {"name", "description", "sources", "part", "board_part", "vitis_platform"}


@pytest.mark.parametrize(
    ("signal", "pin"),
    [
        ("default_300mhz_clk0_p", "AY37"), ("default_300mhz_clk0_n", "AY38"), ("default_300mhz_clk1_p", "AW20"),
        ("default_300mhz_clk1_n", "AW19"), ("default_300mhz_clk2_p", "F32"), ("default_300mhz_clk2_n", "E32"),
        ("default_300mhz_clk3_p", "J16"), ("default_300mhz_clk3_n", "H16"), ("user_clk_p", "AU19"), ("user_clk_n", "AV19"),
        ("reset", "AL20"), ("leds.0", "BC21"), ("leds.1", "BB21"), ("leds.2", "BA20"), ("switches.0", "AN22"),
        ("switches.1", "AM19"), ("switches.2", "AL19"), ("switches.3", "AP20"), ("pcie.perst_n", "BD21"),
        ("pcie.refclk_p", "AM11"), ("pcie.refclk_n", "AM10"),
    ],
)  # fmt: skip
def test_pins(board, signal, pin):
    assert dict(board.pins())[signal] == pin


def test_memory_bandwidth_is_the_accelerator_s(board):
    assert board.ddr.mb_s == Accelerator.load("sat").dram_mb_s
    assert board.ddr.gib * len(board.ddr.channels) == Accelerator.load("sat").dram_gib


# One test a line "conflict:" in the files.
def test_conflict_system_clocks_are_lvds(board):
    assert {clock.io_standard for clock in board.clocks} == {"LVDS"}
    assert all(clock.dqs_bias for clock in board.clocks[:4])


def test_conflict_no_uart(board):
    assert {"BB20", "BF18"}.isdisjoint(dict(board.pins()).values())


def test_conflict_a_pin_used_twice_is_refused(tmp_path):
    data = read_yaml(ROOT / "fpga/boards/vcu1525.yaml")
    data["clocks"][4]["p"] = data["switches"]["pins"][0] = "AU20"  # the fault of sqrl_xcu1525
    path = tmp_path / "board.yaml"
    path.write_text(json.dumps(data))
    with pytest.raises(
        NmsatError, match=r"switches\.0: must be a pin of its own, not 'AU20', which is also user_clk_p$"
    ):
        Board.load(path)


def test_conflict_memory_is_registered(board):
    assert board.ddr.registered


def test_conflict_the_regions_bind(board):
    assert sum(board.usable.lut_by_slr) == 869_268 < board.usable.lut < board.device.lut


def test_every_conflict_has_its_test():
    tests = [name for name in globals() if name.startswith("test_conflict_")]
    assert {text_of(name).count("\n# conflict: ") for name in BOARDS} == {len(tests)}


def changed(tmp_path, *path_and_value):
    *path, value = path_and_value
    data = read_yaml(ROOT / "fpga/boards/vcu1525.yaml")
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    file = tmp_path / "board.yaml"
    file.write_text(json.dumps(data))
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("format", "nmsat-board/2"), "format: must be 'nmsat-board/1', not 'nmsat-board/2'"),
        (("colour", "green"), "colour: must be a known key; known: .*board_part.*"),
        (("part", "source", None), r"part\.source: must be given"),
        (("part", "source", "rumour"), r"part: must name one of sources \(B, .*\), not 'rumour'"),
        (("clocks", 0, "p", "AYY37"), r"clocks\.0\.p: must .*, not 'AYY37'"),
        (
            ("clocks", 0, "p", "AY38"),
            "default_300mhz_clk0_n: must be a pin of its own, not 'AY38', which is also default_300mhz_clk0_p",
        ),
        (("clocks", 0, "io_standard", "HSTL"), r"clocks\.0\.io_standard: must .*, not 'HSTL'"),
        (("clocks", 1, "name", "default_300mhz_clk0"), "clocks: must have different names, not .*"),
        (("leds", "pins", ["AL20", "BB21"]), r"leds\.0: must be a pin of its own, not 'AL20', which is also reset"),
        (("pcie", "rx_p", ["AF2"]), r"pcie\.rx_p: must be 16 pins, one a lane, not 1"),
        (("pcie", "slr", 3), r"pcie\.slr: must be below 3, not 3"),
        (("ddr", "channels", 2, "clock", "x"), r"ddr\.channels\.2\.clock: must be a clock of this board, not 'x'"),
        (("ddr", "channels", 2, "slr", 3), r"ddr\.channels\.2\.slr: must be below 3, not 3"),
        (("usable", "lut_by_slr", [1, 2]), r"usable\.lut_by_slr: must be 3 numbers, one an SLR, not 2"),
        (("usable", "lut_by_slr", [1, 2, 394081]), r"usable\.lut_by_slr\.2: must be 1 to 394080, not 394081"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, change, message):
    path = changed(tmp_path, *change)
    with pytest.raises(NmsatError, match=rf"^{path}: {message}$"):
        Board.load(path)


def test_unknown_board():
    with pytest.raises(NmsatError, match=r"^board 'vcu118': must be one of u200, vcu1525, or a \.yaml or \.yml file$"):
        Board.load("vcu118")


# Clock manager. The specification's own example is 300 / 3 x 10, / 4 or / 5.
@pytest.mark.parametrize(("output", "divider"), [(250, 4), (200, 5)])
def test_the_known_settings_are_legal(board, output, divider):
    Mmcm(Fraction(300), Fraction(output), 3, Fraction(10), Fraction(divider)).check(board.mmcm)


@pytest.mark.parametrize(
    ("clock_mhz", "settings"),
    [(200, (1, 4, 6)), (250, (1, 5, 6)), (300, (1, 5, 5)), (100, (1, 5, 15)), (225, (1, 3, 4)), (226, (25, 113, 6))],
)
def test_settings(board, clock_mhz, settings):
    found = mmcm_for(board, clock_mhz)
    assert (found.divide, found.multiply, found.output_divide) == settings
    assert found.input_mhz / found.divide * found.multiply / found.output_divide == clock_mhz


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 2000))
def test_settings_are_exact_and_legal_or_refused(clock_mhz):
    vcu1525 = Board.load("vcu1525")
    if 7 <= clock_mhz <= 800:  # everything in the middle of the range can be made
        mmcm_for(vcu1525, clock_mhz).check(vcu1525.mmcm)
    elif clock_mhz < 7 or clock_mhz > 1600:
        with pytest.raises(NmsatError, match=f"not {clock_mhz};"):
            mmcm_for(vcu1525, clock_mhz)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_mhz": Fraction(201)}, "mmcm: output_mhz: must be what the dividers make, 200 MHz, not '201 MHz'"),
        ({"divide": 1}, "mmcm: output_mhz: must be what the dividers make, 600 MHz, not '200 MHz'"),
        ({"divide": 1, "output_divide": Fraction(15)}, "mmcm: vco_mhz: must be 800 to 1600, not '3000 MHz'"),
        (
            {"multiply": Fraction(7), "output_divide": Fraction(7, 2)},
            "mmcm: vco_mhz: must be 800 to 1600, not '700 MHz'",
        ),
        (
            {"multiply": Fraction(100, 9), "output_divide": Fraction(50, 9)},
            "mmcm: multiply: must be 2 to 128 in steps the MMCM has, not '100/9'",
        ),
        (
            {"divide": 60, "multiply": Fraction(128), "output_divide": Fraction(16, 5)},
            "mmcm: pfd_mhz: must be 10 to 500, not '5 MHz'",
        ),
    ],
)
def test_illegal_settings_are_seen(changes, message):
    legal = {
        "input_mhz": Fraction(300),
        "output_mhz": Fraction(200),
        "divide": 3,
        "multiply": Fraction(10),
        "output_divide": Fraction(5),
    }
    with pytest.raises(NmsatError) as error:
        Mmcm(**legal | changes).check(Board.load("vcu1525").mmcm)
    assert str(error.value) == message


# The platform.
@pytest.fixture(scope="module")
def plan(board):
    return BoardPlatform(board, 200).plan(Bringup(), "bringup")


def test_the_platform_names_the_part(board, plan):
    assert f"create_project -force -name bringup -part {board.part.value}\n" in plan["bringup.tcl"]


def test_the_platform_constrains_every_port(board, plan):
    text = plan["bringup.xdc"]
    for port, pin in (
        ("clk_0__p", "AY37"),
        ("clk_0__n", "AY38"),
        ("rst_0__io", "AL20"),
        ("led_2__io", "BA20"),
        ("switch_3__io", "AP20"),
    ):
        assert f'set_property LOC {pin} [get_ports "{port}"]\n' in text
    assert 'set_property DQS_BIAS "TRUE" [get_ports "clk_0__p"]\n' in text


def test_the_bitstream_waits_for_the_slack(plan):
    text = plan["bringup.tcl"]
    assert text.index("route_design") < text.index("if {$slack_ns < 0 || $hold_ns < 0}") < text.index("write_bitstream")


def test_the_same_files_in_another_process():
    code = (
        "import hashlib, json; from nmsat.fpga.board import Board; from nmsat.fpga.platform import BoardPlatform; "
        "from nmsat.fpga.bringup import Bringup; "
        "print(hashlib.sha256(json.dumps(BoardPlatform(Board.load('u200'), 250).plan(Bringup(), 'b')).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_the_blinker_blinks():
    from amaranth.sim import Simulator

    blinker, seen = Blinker(clock_hz=10, switches=4), []

    async def bench(ctx):
        ctx.set(blinker.locked, 1)
        ctx.set(blinker.switches, 0b0111)
        for _ in range(20):
            await ctx.tick()
            seen.append(ctx.get(blinker.leds))

    simulator = Simulator(blinker)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [6] * 4 + [7] * 5 + [6] * 5 + [7] * 5 + [6]


def test_a_clock_the_board_cannot_make_is_refused():
    with pytest.raises(
        NmsatError,
        match=r"^accelerator: clock_mhz: must be a frequency that board 'vcu1525' can make from 300 MHz exactly, not 1; ",
    ):
        BoardPlatform(Board.load("vcu1525"), 1)
