"""Results read back: the JSON of ``nmsat run``, checked before anything is drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..models.errors import InputFileError
from ..models.yaml_io import read_text, validate
from ..simulator.result import COLUMNS, RunResult

Number = Annotated[float, Field(allow_inf_nan=False)]
_TEXTS = frozenset({"layer", "stage", "op", "sparsity", "dataflow", "order"})


class _Run(BaseModel, frozen=True):
    """The form of a result; columns and totals beyond the known ones pass."""

    model_config = ConfigDict(extra="forbid")

    meta: dict[str, Any]
    totals: dict[str, Any]
    layers: Annotated[tuple[dict[str, Any], ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]


class _Totals(BaseModel, frozen=True):
    model_config = ConfigDict(extra="allow")

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
    for number, row in enumerate(found.layers):
        for name in COLUMNS:
            value = row.get(name)
            fits = isinstance(value, str) if name in _TEXTS else _is_number(value)
            if not fits:
                kind = "text" if name in _TEXTS else "a finite number"
                raise InputFileError(f"{where}: layers.{number}.{name}: must be {kind}, not {value!r}")
    return RunResult(found.meta, found.totals, found.layers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
