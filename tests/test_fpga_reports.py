"""Vivado reports read back, bad ones refused, and no claim in a page without one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nmsat.fpga.claims import unbacked_claims
from nmsat.fpga.vivado_reports import load_json, read_reports, to_json
from nmsat.models.errors import NmsatError

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests/fixtures/vivado"


def test_everything_is_read():
    found = read_reports(FIXTURES)
    assert (found["tool"], found["design"], found["device"], found["routed"]) == (
        "Vivado 2023.1",
        "nmsat_shell_wrapper",
        "xcvu9p-fsgd2104-2L-e",
        True,
    )
    assert found["utilization"] == {
        "used": {"lut": 212345, "ff": 301234, "bram36": 266, "uram": 12, "dsp": 60},
        "available": {"lut": 1182240, "ff": 2364480, "bram36": 2160, "uram": 960, "dsp": 6840},
    }
    assert found["kernel"] == {"lut": 61998, "ff": 39498, "uram": 0, "dsp": 48, "bram36": 41}
    timing = found["timing"]
    assert (timing["wns_ns"], timing["whs_ns"], timing["tns_ns"], timing["met"]) == (0.047, 0.010, 0.0, True)
    assert timing["clocks"]["made"] == {"period_ns": 5.0, "mhz": 200.0}
    assert len(timing["clocks"]) == 3
    assert found["power"] == {"total_w": 23.456, "dynamic_w": 19.406, "static_w": 4.05, "confidence": "Low"}


def test_the_stored_form_says_nothing_of_the_machine(tmp_path):
    text = to_json(read_reports(FIXTURES))
    assert "example" not in text
    assert "1970" not in text
    (tmp_path / "a.json").write_text(text)
    assert load_json(tmp_path / "a.json") == read_reports(FIXTURES)
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(NmsatError, match="must be JSON of format nmsat-vivado-reports/1"):
        load_json(tmp_path / "b.json")


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(FIXTURES, tmp_path / "reports")
    return tmp_path / "reports"


def test_power_and_hierarchy_may_be_missing(folder):
    (folder / "power.rpt").unlink()
    (folder / "utilization_hierarchy.rpt").unlink()
    found = read_reports(folder)
    assert (found["power"], found["kernel"]) == (None, None)


def test_a_design_without_the_kernel(folder):
    path = folder / "utilization_hierarchy.rpt"
    path.write_text(path.read_text().replace("nmsat_top", "other_top"))
    assert read_reports(folder)["kernel"] is None


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "utilization.rpt",
            "Tool Version",
            "Version",
            r"utilization\.rpt: Tool Version: must be in the report's head; is it a report of Vivado\?",
        ),
        (
            "utilization.rpt",
            "Vivado v.2023.1",
            "Quartus 23",
            r"utilization\.rpt: Tool Version: must be Vivado v\.YEAR\.N \.\.\., not .*",
        ),
        ("utilization.rpt", "| CLB LUTs ", "| CLB Luts ", r"utilization\.rpt: CLB LUTs: must have a row in a table .*"),
        ("utilization.rpt", "Available", "Possible ", r"utilization\.rpt: CLB LUTs: must have a column Available"),
        ("utilization.rpt", "212345", "21234x", r"utilization\.rpt: CLB LUTs: must be a number, not '21234x'"),
        (
            "utilization.rpt",
            "212345 |",
            "9212345 |",
            r"utilization\.rpt: CLB LUTs: must be at most 1182240, all there are, not 9212345",
        ),
        (
            "timing_summary.rpt",
            "WNS(ns)",
            "WPS(ns)",
            r"timing_summary\.rpt: Design Timing Summary: must have a table .*",
        ),
        (
            "timing_summary.rpt",
            "      0.047 ",
            "         NA ",
            r"timing_summary\.rpt: Design Timing Summary: must be twelve numbers; are clocks constrained, not .*",
        ),
        (
            "timing_summary.rpt",
            "      0.047 ",
            "     -0.047 ",
            r"timing_summary\.rpt: Design Timing Summary: must agree with the sentence .*",
        ),
        (
            "timing_summary.rpt",
            "All user specified",
            "Not all",
            r"timing_summary\.rpt: Design Timing Summary: must agree .*",
        ),
        ("timing_summary.rpt", "{0.0", "(0.0", r"timing_summary\.rpt: Clock Summary: must name a clock .*"),
        (
            "timing_summary.rpt",
            "xcvu9p-fsgd2104-2L-e",
            "xcvu9p-fsgd2104-2-e",
            r"timing_summary\.rpt: Device: must be 'xcvu9p-fsgd2104-2L-e', as in utilization\.rpt, not 'xcvu9p-fsgd2104-2-e'",
        ),
        (
            "power.rpt",
            ": Routed",
            ": Placed",
            r"power\.rpt: Design State: must be 'Routed', as in utilization\.rpt, not 'Placed'",
        ),
        (
            "power.rpt",
            "Total On-Chip",
            "All On-Chip",
            r"power\.rpt: Total On-Chip Power \(W\): must be a row of the summary",
        ),
        (
            "power.rpt",
            "19.406",
            "18.406",
            r"power\.rpt: Total On-Chip Power \(W\): must be the sum of dynamic and static",
        ),
        (
            "utilization_hierarchy.rpt",
            "Instance",
            "Instanz ",
            r"utilization_hierarchy\.rpt: Instance, Module: must be columns of a table",
        ),
    ],
)
def test_bad_reports_are_one_clear_line(folder, name, old, new, message):
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(NmsatError, match=f"^.*{message}$") as error:
        read_reports(folder)
    assert "\n" not in str(error.value)


def test_missing_files_and_binaries(folder):
    (folder / "timing_summary.rpt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NmsatError, match=r"timing_summary\.rpt: must be UTF-8 text"):
        read_reports(folder)
    (folder / "timing_summary.rpt").unlink()
    with pytest.raises(NmsatError, match=r"timing_summary\.rpt: must be an existing file"):
        read_reports(folder)
    with pytest.raises(NmsatError, match=r"^DIR: must be a folder of Vivado reports, not "):
        read_reports(folder / "no")


# Claims. Stored reports of real builds lie in reports/fpga; there are none yet.
def stored() -> dict[str, dict]:
    return {
        f"reports/fpga/{path.name}": load_json(path) for path in sorted((ROOT / "reports/fpga").glob("*.vivado.json"))
    }


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "fpga").glob("*.md"))],
    ids=lambda p: p.name,
)
def test_pages_claim_only_what_a_report_says(page):
    assert unbacked_claims(page.read_text(), stored()) == []


REPORT = {
    "reports/fpga/a.vivado.json": {
        "routed": True,
        "timing": {"wns_ns": 0.047, "clocks": {"made": {"mhz": 200.0}}},
        "power": {"total_w": 23.456},
    }
}


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("It closes timing at 200 MHz.", 1),
        ("The card draws 23 W.", 1),
        ("32x32 fits on the card.", 1),
        ("| 32x32 | WNS 0.1 ns |", 1),
        ("It achieves 200 MHz.\n\nSee reports/fpga/a.vivado.json", 1),  # the report must be named where the claim is
        ("Timing was met at 200 MHz with 0.047 ns of slack (reports/fpga/a.vivado.json).", 0),
        ("It meets its clock of 250 MHz (reports/fpga/a.vivado.json).", 1),  # another number
        ("It meets its clock (reports/fpga/b.vivado.json).", 1),  # no such report
        ("Nothing here closes timing.", 0),
        ("Estimate: 32x32 fits on the card.", 0),
        ("Energy 76.7 J (model). It runs at the simulated clock of 200 MHz.", 0),
        ("A good array.\n\n```\nIt closes timing.\n```\n", 0),
    ],
)
def test_claims_are_seen(text, claims):
    assert len(unbacked_claims(text, REPORT)) == claims


def test_an_unrouted_design_claims_nothing():
    report = json.loads(json.dumps(REPORT))
    report["reports/fpga/a.vivado.json"]["routed"] = False
    assert unbacked_claims("Timing was met (reports/fpga/a.vivado.json).", report) != []
