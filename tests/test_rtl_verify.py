"""``nmsat verify``: every block against golden and simulator; the verbs, and that a difference is seen."""

from __future__ import annotations

import importlib.util
import json
import os
import random
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from nmsat.__main__ import main
from nmsat.commands.verify import simulator_cycles, verify_block, verify_jobs
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, cases",
    [("stce", 3000), ("uspe", 2500), ("sore", 2500), ("transposer", 1000), ("wuve", 500), ("epilogue", 500)],
)
def test_ten_thousand_cases(name, cases):
    """By as many processes as there are cores; `nmsat verify NAME --cases N -j J` does the same."""
    rows = verify_jobs(name, SMALL, "cxxrtl", cases, 2, 0, os.cpu_count() or 1)
    assert [row for row in rows if not row["passed"]] == []
    assert len(rows) == cases


SIZES = [  # rows, columns, largest N and M, multiplier's and adder's latency
    (1, 3, 4, 16, 3, 5), (4, 1, 1, 2, 2, 3), (2, 2, 7, 7, 5, 9),
]  # fmt: skip


@pytest.mark.parametrize("rows, cols, keep, group, multiplier, adder", SIZES)
def test_other_sizes_of_the_array(rows, cols, keep, group, multiplier, adder):
    sized = SMALL.replace(
        rows=rows, cols=cols, max_keep=keep, max_group=group, multiplier_latency_cycles=multiplier,
        adder_latency_cycles=adder,
    )  # fmt: skip
    assert [row for row in verify_block("stce", sized, "amaranth", 4, seed=3) if not row["passed"]] == []


@pytest.mark.parametrize("group", [2, 16])
def test_other_sizes_of_the_vector_engines(group):
    sized = SMALL.replace(max_keep=2, max_group=group, sore_lanes=3, wuve_lanes=1, cols=3)
    for name in ("sore", "transposer", "wuve", "epilogue"):
        assert [row for row in verify_block(name, sized, "amaranth", 4, seed=5) if not row["passed"]] == []


def test_all_patterns_and_both_dataflows_occur():
    rng = random.Random(1)
    large = SMALL.replace(max_keep=16, max_group=32)
    drawn = [BLOCKS["stce"].draw(rng, large).parameters for _ in range(400)]
    seen = {(case["dataflow"], case["pattern"]) for case in drawn}
    asked = ["1:4", "2:4", "1:8", "2:8", "4:8", "2:16", "4:16", "8:32", "1:1", "2:2", "4:4", "8:8"]
    assert {(flow, pattern) for flow in ("os", "ws") for pattern in asked} <= seen


@pytest.mark.slow
def test_the_array_under_verilator():
    """The Verilog that users run, by the simulator most of them run; the build is most of the time."""
    tiny = SMALL.replace(rows=2, cols=2, max_keep=2, max_group=4, adder_latency_cycles=4)
    rows = verify_block("stce", tiny, "verilator", 12, seed=6)
    assert [row for row in rows if not row["passed"]] == []
    assert {row["parameters"]["dataflow"] for row in rows} == {"os", "ws"}


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


def test_a_case_is_the_same_alone_and_in_other_processes():
    rows = verify_block("epilogue", SMALL, "cxxrtl", 30, seed=2)
    assert verify_block("epilogue", SMALL, "cxxrtl", 2, seed=2, first=7) == rows[7:9]
    assert verify_jobs("epilogue", SMALL, "cxxrtl", 28, 2, 2, 2) == rows[2:]


@pytest.mark.parametrize("sim", ["amaranth", "icarus"])
def test_waves(sim, tmp_path, capsys):
    waves = tmp_path / "waves"
    assert main(["verify", "epilogue", "--sim", sim, "--cases", "1", "--waves", str(waves)]) == 0
    head = waves.read_bytes()[:400]
    assert (b"$timescale" in head or b"$comment" in head) == (sim == "amaranth")  # VCD; Icarus writes FST
    assert waves.stat().st_size > 1000


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--sim", "amaranth", "--waves", "w"], "--waves: must be used with one block, not 6"),
        (
            ["epilogue", "--waves", "w"],
            "waves: must be left out with cxxrtl, not 'w'; use amaranth, icarus or verilator",
        ),
        (["epilogue", "--sim", "icarus", "--waves", "w", "-j", "2"], "--waves: must be used with -j 1, not 2"),
        (["epilogue", "--first", "-1"], "--first: must be 0 or more, not -1"),
        (["tops"], "BLOCK: must be one of stce, uspe, sore, transposer, wuve, epilogue, drain, not 'tops'"),
        (["-a", "nothing"], None),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message is None or error.strip().endswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, block, message",
    [
        ({"max_keep": 9, "max_group": 8}, "stce", "max_keep"),
        ({"rows": 0}, "stce", "rows"),
        ({"cols": 0}, "epilogue", "cols"),
        ({"sore_lanes": 0}, "sore", "sore_lanes"),
        ({"wuve_lanes": 0}, "wuve", "wuve_lanes"),
        ({"adder_latency_cycles": 0}, "uspe", "adder_latency_cycles"),
    ],
)
def test_bad_sizes_in_a_file_are_refused_by_every_verb(change, block, message, capsys, tmp_path):
    """One line with the place, the key and the rule; nothing is built or written."""
    content = yaml.safe_load((files("nmsat.models.accelerators") / "sat_4x4.yaml").read_text()) | change
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    for command in (
        ["verify", block, "-a", str(path)], ["verilog", "--block", block, "-a", str(path), "-o", str(out)],
        ["fpga", "estimate", "--block", block, "-a", str(path)],
    ):  # fmt: skip
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
        assert "must be" in error
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--array", "4"], "--array: must be rows x columns, e.g. 16x16, not '4'"),
        (["--array", "0x4"], "--array: must be rows x columns, e.g. 16x16, not '0x4'"),
        (["--maxima", "9:8"], "sparsity.keep: must be 1 to 8, not 9"),
        (["--maxima", "x"], "--maxima"),
    ],
)
def test_bad_sizes_on_the_command_line(arguments, message, capsys):
    assert main(["fpga", "estimate", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_bad_block_names(capsys):
    assert main(["verify", "top"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["verilog", "--block", "bottom", "-o", "x"]) == 2
    assert "epilogue, drain, product, top" in capsys.readouterr().err


def test_verilog_of_a_block(tmp_path):
    assert main(["verilog", "--block", "epilogue", "-a", "sat_4x4", "-o", str(tmp_path / "out"), "-q"]) == 0
    content = json.loads((tmp_path / "out/manifest.json").read_text())
    assert content["accelerator"]["config_hash"] == Accelerator.load("sat_4x4").config_hash()
    assert content["files"]["epilogue.v"]["modules"]["narrow"] == 4
    assert (tmp_path / "out/epilogue.v").stat().st_size == content["files"]["epilogue.v"]["bytes"]


def test_area_tables_are_the_committed_figures():
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("area", root / "benchmarks/area.py")
    assert spec is not None
    assert spec.loader is not None
    area = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(area)
    found = json.loads((root / "reports/area/area.json").read_text())
    assert area.tables(found) in (root / "docs/rtl.md").read_text()
    element = found["prices"]["2:8"]["pe"]
    assert element["lut"] <= area.BAR_LUT
    assert element["dsp"] == area.BAR_DSP


def test_area_is_modules_times_occurrences():
    from nmsat.fpga.estimate import Area, area_of_cells, estimate

    found = estimate("epilogue", SMALL)
    assert found["area"]["lut"] == sum(module["count"] * module["lut"] for module in found["modules"].values()) > 50
    assert found["modules"]["narrow"]["count"] == SMALL.cols
    assert area_of_cells({"LUT6": 2, "RAM32M": 1, "FDRE": 3, "RAMB36E2": 1, "DSP48E2": 1}) == Area(6, 4, 0, 3, 0, 1, 2)
