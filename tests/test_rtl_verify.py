"""``nmsat verify``: every block against golden and simulator; the verbs, and that a difference is seen."""

from __future__ import annotations

import json
import random

import pytest

from nmsat.__main__ import main
from nmsat.commands.verify import simulator_cycles, verify_block
from nmsat.models import Accelerator
from nmsat.rtl.testbench import BLOCKS

SMALL = Accelerator.load("sat_4x4").replace(rows=3, cols=2, max_keep=4, max_group=8, sore_lanes=2, wuve_lanes=2)


@pytest.mark.parametrize(
    "name, cases", [("stce", 150), ("uspe", 120), ("sore", 120), ("transposer", 60), ("wuve", 30), ("epilogue", 40)]
)
def test_random_cases(name, cases):
    """520 cases in all: bits, cycles and the rules of the streams."""
    rows = verify_block(name, SMALL, "cxxrtl", cases, seed=1)
    assert [row for row in rows if not row["passed"]] == []
    assert len(rows) == cases


@pytest.mark.parametrize("sim", ["amaranth", "icarus"])
def test_the_same_cases_elsewhere(sim):
    rows = verify_block("epilogue", SMALL, sim, 3, seed=2)
    assert rows == verify_block("epilogue", SMALL, "cxxrtl", 3, seed=2)


def test_cases_count_bits():
    case = BLOCKS["epilogue"].draw(random.Random(1), SMALL)
    words = [value for value, _ in case.expected]
    assert case.bits_differing(words) == 0
    assert case.bits_differing([words[0] ^ 5, *words[1:]]) == 2
    assert case.bits_differing([*words[1:], 0]) > 0
    assert case.bits_differing(words[:-1]) == case.expected[-1][1].bit_count()
    assert case.bits_differing([*words, 0]) == 32


def test_cycles_come_from_the_simulator():
    assert simulator_cycles("sore", 9, 4) == 3 + 8


def test_the_verb(capsys, tmp_path):
    out = tmp_path / "v.json"
    assert main(["verify", "epilogue", "-a", "sat_4x4", "--sim", "amaranth", "--cases", "2", "--json", str(out)]) == 0
    content = json.loads(out.read_text())
    assert (content["passed"], content["failed"], len(content["cases"])) == (2, 0, 2)
    for row in content["cases"]:
        assert {"block", "parameters", "bits_differing", "cycles_rtl", "cycles_simulator"} <= row.keys()
    assert "2 cases passed, 0 failed" in capsys.readouterr().out


def test_the_verb_fails_on_a_difference(monkeypatch, capsys):
    monkeypatch.setattr("nmsat.commands.verify.simulator_cycles", lambda *_: 1)
    assert main(["verify", "epilogue", "--sim", "amaranth", "--cases", "1"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_bad_block_names(capsys):
    assert main(["verify", "top"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["verilog", "--block", "bottom", "-o", "x"]) == 2
    assert "epilogue, product, top" in capsys.readouterr().err


def test_verilog_of_a_block(tmp_path):
    assert main(["verilog", "--block", "epilogue", "-a", "sat_4x4", "-o", str(tmp_path / "out"), "-q"]) == 0
    content = json.loads((tmp_path / "out/manifest.json").read_text())
    assert content["accelerator"]["config_hash"] == Accelerator.load("sat_4x4").config_hash()
    assert content["files"]["epilogue.v"]["modules"]["narrow"] == 4
    assert (tmp_path / "out/epilogue.v").stat().st_size == content["files"]["epilogue.v"]["bytes"]


def test_area_is_modules_times_occurrences():
    from nmsat.fpga.estimate import Area, area_of_cells, estimate

    found = estimate("epilogue", SMALL)
    assert found["area"]["lut"] == sum(module["count"] * module["lut"] for module in found["modules"].values()) > 50
    assert found["modules"]["narrow"]["count"] == SMALL.cols
    assert area_of_cells({"LUT6": 2, "RAM32M": 1, "FDRE": 3, "RAMB36E2": 1, "DSP48E2": 1}) == Area(6, 4, 0, 3, 0, 1, 2)
