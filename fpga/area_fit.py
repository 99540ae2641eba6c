"""The area model fitted to committed yosys results.

``python -m nmsat.fpga.area_fit reports/area/samples.json models/area.yaml`` fits by least squares of relative errors
and states the error on the samples that were held out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..models.accelerator import Accelerator
from ..models.area import FIELDS, FITTED, AreaModel, features
from ..models.whole_file import write_whole

# Modules that make up a part; what a block has besides is its rest.
MODULES = {"element": ("uspe",), "row": ("row", "row_edge"), "sore_lane": ("sore_lane",)}
PARTS = {
    "stce": ("element", "row", "column", "control"),
    "sore": ("sore_lane", "sore_rest"),
    "transposer": ("transposer",),
    "wuve": ("wuve",),
    "epilogue": ("epilogue",),
}


def columns_of(sample: dict[str, Any]) -> dict[str, int]:
    """The design of a sample: its fields in ``sat``."""
    base = Accelerator.load("sat")
    return {name: sample["fields"].get(name, getattr(base, name)) for name in FIELDS}


def part_of(block: str, module: str) -> str:
    """The part a module's area counts for."""
    for part, names in MODULES.items():
        if module in names:
            return part
    if block == "stce":
        return "column" if module.startswith("column_") else "control"
    return "sore_rest" if block == "sore" else block


def fit(data: dict[str, Any], command: str) -> AreaModel:
    """Fit every part on the samples that are not held out."""
    terms: dict[str, dict[str, dict[str, float]]] = {}
    for block, parts in PARTS.items():
        chosen = [item for item in data["samples"] if item["block"] == block and not item["held_out"]]
        for part in parts:
            terms[part] = {name: _fit_part(chosen, part, name) for name in FITTED}
    lanes = [(item["fields"]["wuve_lanes"], item["area"]["dsp"]) for item in data["samples"] if item["block"] == "wuve"]
    terms["wuve"]["dsp"] = {"lanes": lanes[0][1] / lanes[0][0]}
    model = AreaModel(
        format="nmsat-area/1",
        kind="estimate, fitted to yosys before place and route",
        command=command,
        samples=data["command"],
        revision={block: ", ".join(sorted(revisions_of(data, block))) for block in PARTS},
        tool=data["tool"],
        terms=terms,
        held_out={},
    )
    return model.model_copy(update={"held_out": errors(data, model)})


def revisions_of(data: dict[str, Any], block: str) -> set[str]:
    """The commits whose RTL a block's samples are of."""
    return {item["revision"] for item in data["samples"] if item["block"] == block}


def _fit_part(samples: list[dict[str, Any]], part: str, resource: str) -> dict[str, float]:
    rows, wanted = [], []
    names: list[str] = []
    for item in samples:
        count, terms = features({key: np.array([v]) for key, v in columns_of(item).items()})[part]
        whole = sum(
            module["count"] * module[resource]
            for name, module in item["modules"].items()
            if part_of(item["block"], name) == part
        )
        names = list(terms)
        rows.append([float(np.broadcast_to(terms[name], 1)[0]) for name in names])
        wanted.append(whole / int(count[0]))
    matrix, target = np.array(rows), np.array(wanted)
    weight = 1 / np.maximum(target, 1.0)
    found = np.linalg.lstsq(matrix * weight[:, None], target * weight, rcond=1e-9)[0]
    return {name: float(f"{value:.6g}") for name, value in zip(names, found, strict=True)}


def predicted(item: dict[str, Any], model: AreaModel) -> dict[str, float]:
    """LUT and FF of a sample's block alone."""
    parts = features({key: np.array([v]) for key, v in columns_of(item).items()})
    found = {}
    for resource in FITTED:
        total = 0.0
        for part in PARTS[item["block"]]:
            count, terms = parts[part]
            each = sum(c * float(np.broadcast_to(terms[f], 1)[0]) for f, c in model.terms[part][resource].items())
            total += int(count[0]) * max(each, 0.0)
        found[resource] = total
    return found


def errors(data: dict[str, Any], model: AreaModel) -> dict[str, dict[str, dict[str, float]]]:
    """Relative errors, mean of the sizes and worst, of the blocks that were held out."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for block in PARTS:
        held = [item for item in data["samples"] if item["block"] == block and item["held_out"]]
        found[block] = {}
        for resource in FITTED:
            sizes = [abs(predicted(item, model)[resource] / item["area"][resource] - 1) for item in held]
            mean, worst = float(f"{np.mean(sizes):.4f}"), float(f"{max(sizes):.4f}")
            found[block][resource] = {"samples": float(len(sizes)), "mean": mean, "worst": worst}
    return found


def to_yaml(model: AreaModel) -> str:
    """The text of models/area.yaml."""
    head = "# Area model: an estimate (docs/area.md). Written by the command below, not by hand.\n"
    return head + yaml.safe_dump(model.model_dump(), sort_keys=False, width=120)


def error_lines(model: AreaModel) -> str:
    """The errors as a Markdown table, for docs/area.md."""
    lines = ["| block | held out | LUT, mean / worst | FF, mean / worst |", "|---|---|---|---|"]
    for block, found in model.held_out.items():
        cells = [f"{100 * found[r]['mean']:.1f} % / {100 * found[r]['worst']:.1f} %" for r in FITTED]
        lines.append(f"| {block} | {found['lut']['samples']:.0f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    command = f"python -m nmsat.fpga.area_fit {source.as_posix()} {target.as_posix()}"
    write_whole(target, to_yaml(fit(json.loads(source.read_text()), command)))
