"""A sweep's folder read back: its manifest, its counts, its front, and at most as many rows as can be drawn."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models.errors import InputFileError
from ..models.yaml_io import read_text, validate
from ..simulator.explore.spec import FIGURES, SweepSpec

DRAWN = 20_000  # rows of results.csv; more would only hide each other


@dataclass(frozen=True, slots=True)
class SweepResults:
    """What a report needs of a sweep.

    Attributes
    ----------
    folder : Path
    manifest, summary : dict
        As in the folder.
    spec : SweepSpec
    rows : list of dict
        Every n-th row of results.csv, at most DRAWN: axis values as text, figures as floats.
    front : list of dict
        pareto.csv, whole.
    """

    folder: Path
    manifest: dict[str, Any]
    summary: dict[str, Any]
    spec: SweepSpec
    rows: list[dict[str, Any]]
    front: list[dict[str, Any]]

    @property
    def axes(self) -> list[str]:
        """Fields that vary."""
        return [name for name, values in self.spec.values().items() if len(values) > 1]


def load_sweep(folder: Path) -> SweepResults:
    """Read a finished sweep's folder; anything missing or broken is an InputFileError."""
    manifest, summary = (_json(folder / name) for name in ("manifest.json", "summary.json"))
    if manifest.get("format") != "nmsat-sweep-results/1" or "spec" not in manifest:
        raise InputFileError(f"{folder}: must be a finished sweep's folder (manifest.json, summary.json, results.csv)")
    spec = validate(SweepSpec, manifest["spec"], str(folder / "manifest.json"))
    kept = summary.get("kept")
    if not isinstance(kept, int):
        raise InputFileError(f"{folder / 'summary.json'}: kept: must be a number of points, not {kept!r}")
    step = max(1, -(-kept // DRAWN))
    return SweepResults(
        folder, manifest, summary, spec, _rows(folder / "results.csv", step), _rows(folder / "pareto.csv", 1)
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{path}: must be JSON; {error}") from None
    if not isinstance(data, dict):
        raise InputFileError(f"{path}: must be a JSON object, not {type(data).__name__}")
    return data


def _rows(path: Path, step: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    try:
        with path.open(newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            for number, row in enumerate(reader):
                if number % step:
                    continue
                if len(row) != len(header):
                    raise InputFileError(f"{path}: line {number + 2}: must have {len(header)} columns, not {len(row)}")
                item: dict[str, Any] = dict(zip(header, row, strict=True))
                for name in header:
                    if name in FIGURES:
                        item[name] = float(item[name])
                found.append(item)
    except (OSError, ValueError, csv.Error) as error:
        raise InputFileError(f"{path}: must be a readable CSV of figures; {error}") from None
    return found
