"""Results read back: the JSON of ``nmsat run``, checked before anything is drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..models.errors import InputFileError, NmsatError
from ..models.yaml_io import read_text, validate
from ..simulator.result import RunResult
from .figure import STAGES

Number = Annotated[float, Field(allow_inf_nan=False)]
_TEXTS = ("layer", "stage", "op", "sparsity", "dataflow")
_COUNTS = (
    "m", "n", "k", "groups", "tiles", "cycles", "compute_cycles", "stall_cycles", "macs", "useful_macs",
    "dram_read_bytes", "dram_write_bytes",
)  # fmt: skip
_RATIOS = ("utilization", "energy_pj")


class _Run(BaseModel, frozen=True):
    """The form of a result; columns and totals beyond the known ones pass."""

    model_config = ConfigDict(extra="forbid", strict=True)

    meta: dict[str, Any]
    totals: dict[str, Any]
    layers: Annotated[tuple[dict[str, Any], ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]


class _Totals(BaseModel, frozen=True):
    model_config = ConfigDict(extra="allow", strict=True)

    cycles: int = Field(ge=1)
    seconds: Number
    utilization: Number
    dram_read_bytes: int = Field(ge=0)
    dram_write_bytes: int = Field(ge=0)
    energy_j: Number
    speedup_over_dense: Number


def load_run(path: Path) -> RunResult:
    """Read what ``nmsat run --json`` wrote.

    Raises
    ------
    InputFileError
        Not readable, not JSON, or not a result: a total or a column is missing or of another kind.
    """
    text, where = read_text(path), str(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{where}: must be JSON; {error}") from None
    if not isinstance(data, dict):
        raise InputFileError(f"{where}: must be a result of nmsat run --json, not {type(data).__name__}")
    found = validate(_Run, data, where)
    validate(_Totals, found.totals, f"{where}: totals")
    if not found.layers:
        raise InputFileError(f"{where}: layers: must have at least one row")
    rows = tuple(_row(row, f"{where}: layers.{number}") for number, row in enumerate(found.layers))
    return RunResult(found.meta, found.totals, rows)


def _row(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A row with every column of the interface checked; columns that other semantics lack get their neutral value."""
    for name in (*_TEXTS, *_COUNTS, *_RATIOS):
        value = row.get(name)
        if name in _TEXTS:
            rule, fits = "text", isinstance(value, str)
        elif name in _COUNTS:
            rule, fits = "an integer >= 0", type(value) is int and value >= 0
        else:
            rule, fits = "a number >= 0", type(value) in (int, float) and 0 <= float(value or 0) < 1e300
        if not fits:
            raise NmsatError.rule(place, name, rule, value)
    if row["stage"] not in STAGES:
        raise NmsatError.rule(place, "stage", f"one of {', '.join(STAGES)}", row["stage"])
    return {"order": "", "chain": 0, "busy_cycles": row["compute_cycles"], "fill_cycles": 0, **row}
