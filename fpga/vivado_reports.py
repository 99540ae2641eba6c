"""Vivado's text reports read back: utilisation, timing, power. What they say may be claimed, nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..models.errors import InputFileError, NmsatError
from ..models.yaml_io import read_text

FORMAT = "nmsat-vivado-reports/1"
UTILISATION, HIERARCHY, TIMING, POWER = (
    "utilization.rpt", "utilization_hierarchy.rpt", "timing_summary.rpt", "power.rpt"
)  # fmt: skip
_SITES = {
    "lut": "CLB LUTs", "ff": "CLB Registers", "bram36": "Block RAM Tile", "uram": "URAM", "dsp": "DSPs",
}  # fmt: skip
_HEADER = {"tool": "Tool Version", "design": "Design", "device": "Device", "state": "Design State"}
_HIERARCHY_COLUMNS = {"lut": "Total LUTs", "ff": "FFs", "uram": "URAM", "dsp": "DSP Blocks"}
_NUMBER = r"-?[\d,]+(?:\.\d+)?"


def read_reports(folder: Path) -> dict[str, Any]:
    """Read a folder of reports.

    Parameters
    ----------
    folder : Path
        With ``utilization.rpt`` and ``timing_summary.rpt``; ``power.rpt`` and ``utilization_hierarchy.rpt`` if they are
        there. The Makefile of ``nmsat fpga generate`` makes all of them.

    Returns
    -------
    dict
        ``format``, ``tool``, ``design``, ``device``, ``routed``; ``utilization``: ``used`` and ``available`` by kind;
        ``kernel`` (what the accelerator takes of it, or None), ``timing`` (slacks in ns, ``met``, ``clocks`` with
        period and MHz), ``power`` (watts, or None) and ``files`` with their SHA-256.

    Raises
    ------
    InputFileError
        A file is missing, of another design or state than the others, or not in Vivado's layout.
    """
    if not folder.is_dir():
        raise NmsatError.rule("", "DIR", "a folder of Vivado reports", str(folder))
    texts = {name: read_text(folder / name) for name in (UTILISATION, TIMING)}
    texts |= {name: read_text(folder / name) for name in (HIERARCHY, POWER) if (folder / name).exists()}
    headers = {name: _header(str(folder / name), text) for name, text in texts.items()}
    first = headers[UTILISATION]
    for name, header in headers.items():
        for key in ("tool", "design", "device", "state"):
            if header[key] != first[key]:
                where = str(folder / name)
                raise InputFileError(
                    str(NmsatError.rule(where, _HEADER[key], f"{first[key]!r}, as in {UTILISATION}", header[key]))
                )
    return {
        "format": FORMAT,
        "tool": first["tool"],
        "design": first["design"],
        "device": first["device"],
        "routed": first["state"] == "Routed",
        "utilization": _utilisation(str(folder / UTILISATION), texts[UTILISATION]),
        "kernel": _kernel(str(folder / HIERARCHY), texts[HIERARCHY]) if HIERARCHY in texts else None,
        "timing": _timing(str(folder / TIMING), texts[TIMING]),
        "power": _power(str(folder / POWER), texts[POWER]) if POWER in texts else None,
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(texts.items())},
    }


def to_json(reports: dict[str, Any]) -> str:
    """The stored form; equal reports give equal bytes."""
    return json.dumps(reports, indent=1) + "\n"


def load_json(path: Path) -> dict[str, Any]:
    """A stored file; InputFileError unless it is one."""
    try:
        found = json.loads(read_text(path))
        if found["format"] != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InputFileError(f"{path}: must be JSON of format {FORMAT}; nmsat fpga import-reports writes it") from None
    return found


def _header(where: str, text: str) -> dict[str, str]:
    found = {}
    for key, label in _HEADER.items():
        line = re.search(rf"^\| {label}\s*: (.+?)\s*$", text, re.M)
        if line is None:
            raise InputFileError(f"{where}: {label}: must be in the report's head; is it a report of Vivado?")
        found[key] = line[1]
    version = re.match(r"Vivado v\.(\S+)", found["tool"])
    if version is None:
        raise InputFileError(str(NmsatError.rule(where, "Tool Version", "Vivado v.YEAR.N ...", found["tool"])))
    return found | {"tool": f"Vivado {version[1]}"}


def _rows(text: str) -> list[list[str]]:
    """Cells of every line between bars."""
    return [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def _number(where: str, key: str, text: str) -> float:
    if not re.fullmatch(_NUMBER, text):
        raise InputFileError(str(NmsatError.rule(where, key, "a number", text)))
    return float(text.replace(",", ""))


def _count(where: str, key: str, text: str) -> int:
    value = _number(where, key, text)
    return int(-(-value // 1))  # half a block memory counts as one


def _utilisation(where: str, text: str) -> dict[str, dict[str, int]]:
    rows = _rows(text)
    titles: list[str] = []
    used: dict[str, int] = {}
    available: dict[str, int] = {}
    for row in rows:
        if row[0] == "Site Type":
            titles = row
            continue
        kind = next((kind for kind, site in _SITES.items() if row[0].rstrip("*") == site), None)
        if kind is None or len(row) != len(titles) or kind in used:
            continue
        for name in ("Used", "Available"):
            if name not in titles:
                raise InputFileError(f"{where}: {row[0]}: must have a column {name}")
        used[kind] = _count(where, row[0], row[titles.index("Used")])
        available[kind] = _count(where, row[0], row[titles.index("Available")])
    for kind, site in _SITES.items():
        if kind not in used:
            raise InputFileError(f"{where}: {site}: must have a row in a table with Site Type, Used and Available")
        if used[kind] > available[kind]:
            raise InputFileError(
                str(NmsatError.rule(where, site, f"at most {available[kind]}, all there are", used[kind]))
            )
    return {"used": used, "available": available}


def _kernel(where: str, text: str) -> dict[str, int] | None:
    titles: list[str] = []
    for row in _rows(text):
        if row[:2] == ["Instance", "Module"]:
            titles = row
        elif titles and len(row) == len(titles) and row[1] == "nmsat_top":
            found = {kind: _count(where, title, row[titles.index(title)]) for kind, title in _HIERARCHY_COLUMNS.items()}
            halves = _count(where, "RAMB18", row[titles.index("RAMB18")])
            return found | {"bram36": _count(where, "RAMB36", row[titles.index("RAMB36")]) + -(-halves // 2)}
    if not titles:
        raise InputFileError(f"{where}: Instance, Module: must be columns of a table")
    return None


def _timing(where: str, text: str) -> dict[str, Any]:
    summary = re.search(r"^\s*WNS\(ns\)\s+TNS\(ns\).*\n[\s-]+\n(.+)$", text, re.M)
    if summary is None:
        raise InputFileError(f"{where}: Design Timing Summary: must have a table that begins with WNS(ns)")
    values = summary[1].split()
    if len(values) < 8 or any(not re.fullmatch(_NUMBER, value) for value in values):
        raise InputFileError(
            str(NmsatError.rule(where, "Design Timing Summary", "twelve numbers; are clocks constrained", summary[1]))
        )
    wns, tns, failing, _, whs, ths, hold_failing, _ = (float(value.replace(",", "")) for value in values[:8])
    met = "All user specified timing constraints are met." in text
    if met != (wns >= 0 and whs >= 0 and failing == 0 and hold_failing == 0):
        raise InputFileError(f"{where}: Design Timing Summary: must agree with the sentence about constraints below it")
    clocks = {
        name: {"period_ns": float(period), "mhz": float(mhz)}
        for name, period, mhz in re.findall(r"^\s*(\S+)\s+\{[\d. ]+\}\s+([\d.]+)\s+([\d.]+)\s*$", text, re.M)
    }
    if not clocks:
        raise InputFileError(f"{where}: Clock Summary: must name a clock with waveform, period and frequency")
    return {"wns_ns": wns, "tns_ns": tns, "whs_ns": whs, "ths_ns": ths, "met": met, "clocks": clocks}


def _power(where: str, text: str) -> dict[str, Any]:
    rows = {row[0]: row[1] for row in _rows(text) if len(row) == 2}
    found: dict[str, Any] = {}
    for key, label in (
        ("total_w", "Total On-Chip Power (W)"),
        ("dynamic_w", "Dynamic (W)"),
        ("static_w", "Device Static (W)"),
    ):
        if label not in rows:
            raise InputFileError(f"{where}: {label}: must be a row of the summary")
        found[key] = _number(where, label, rows[label])
    if abs(found["total_w"] - found["dynamic_w"] - found["static_w"]) > 0.02:
        raise InputFileError(f"{where}: Total On-Chip Power (W): must be the sum of dynamic and static")
    return found | {"confidence": rows.get("Confidence Level", "not stated")}
