"""Area of an accelerator as a function of its parameters: an estimate, fitted to yosys results (docs/area.md)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .yaml_io import read_yaml, validate

RESOURCES = ("lut", "ff", "dsp", "uram")
FITTED = ("lut", "ff")
FIELDS = (
    "rows", "cols", "max_keep", "max_group", "multiplier_latency_cycles", "adder_latency_cycles", "wuve_lanes",
    "sore_lanes", "w2e_bytes", "n2s_bytes", "output_bytes", "slr_hop_cycles",
)  # fmt: skip
URAM_BYTES = 4096 * 9  # 4096 words of 72 bits
_FILE = Path(__file__).with_name("area.yaml")
Column = NDArray[np.int64]


class AreaModel(BaseModel, frozen=True):
    """Coefficients a part: ``terms[part][resource][feature]``, and what they were fitted to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["nmsat-area/1"]
    kind: str
    command: str
    samples: str = Field(description="command that made the samples")
    revision: dict[str, str] = Field(description="by block, the commit whose RTL was synthesised")
    tool: dict[str, str]
    terms: dict[str, dict[str, dict[str, float]]]
    held_out: dict[str, dict[str, dict[str, float]]] = Field(description="relative errors of blocks not fitted")

    @classmethod
    def load(cls, path: Path = _FILE) -> AreaModel:
        """Read the shipped model."""
        return validate(cls, read_yaml(path), str(path))


@lru_cache(maxsize=1)
def area_model() -> AreaModel:
    """The shipped model."""
    return AreaModel.load()


def area(columns: Mapping[str, Any], model: AreaModel | None = None) -> dict[str, Column]:
    """LUT, FF, DSP and UltraRAM of designs.

    Array, SORE and its transpose buffer, WUVE and the epilogue are counted: what grows most with the parameters.
    Product unit, vector unit, DMA and controller are not. DSPs follow from the structure (a multiplier an element,
    WUVE's as synthesised); UltraRAMs from the buffers' bytes, both banks.

    Parameters
    ----------
    columns : mapping
        FIELDS to a number or an int64 array, one entry a design.

    Returns
    -------
    dict of RESOURCES to int64 arrays
        LUT and FF rounded, never below 0.
    """
    found = model or area_model()
    given = {name: np.atleast_1d(np.asarray(columns[name], np.int64)) for name in FIELDS}
    parts = features(given)
    size = np.broadcast_shapes(*(column.shape for column in given.values()))
    totals: dict[str, Any] = {name: np.zeros(size) for name in FITTED}
    for part, (count, terms) in parts.items():
        for resource in FITTED:
            each: Any = 0.0
            for feature, coefficient in found.terms[part][resource].items():
                each = each + coefficient * terms[feature]
            totals[resource] = totals[resource] + count * np.maximum(each, 0.0)
    dsp = given["rows"] * given["cols"] + given["wuve_lanes"] * round(found.terms["wuve"]["dsp"]["lanes"])
    banks = 2 * (given["w2e_bytes"] + given["n2s_bytes"] + given["output_bytes"])
    return {
        "lut": np.rint(totals["lut"]).astype(np.int64),
        "ff": np.rint(totals["ff"]).astype(np.int64),
        "dsp": np.broadcast_to(dsp, size).astype(np.int64),
        "uram": np.broadcast_to(-(-banks // URAM_BYTES), size).astype(np.int64),
    }


def features(given: Mapping[str, Column]) -> dict[str, tuple[Column, dict[str, Any]]]:
    """Part to (how often it occurs, what one's area depends on)."""
    keep, group = given["max_keep"], given["max_group"]
    la, lm = given["adder_latency_cycles"], given["multiplier_latency_cycles"]
    one = np.ones_like(keep)
    side = 1 << np.floor(np.log2(group)).astype(np.int64)  # the largest power of two within max_group
    narrow = np.minimum(keep, side)
    weights, sums = weight_depth(given["rows"], keep, la), sum_depth(keep, la)
    element = {
        "one": one, "group": group, "la": la, "lm": lm,
        "weight_words": -(-weights // 32), "sum_words": -(-(sums + 1) // 32),
    }  # fmt: skip
    column = {"one": one, "keep": keep, "la": la, "lanes": lane_depth(keep, la)}
    hop = given["slr_hop_cycles"] * (given["cols"] > 1)  # registers of a row between the array's halves
    active = (group > 1).astype(np.int64)  # without groups there is nothing to prune
    return {
        "element": (given["rows"] * given["cols"], element),
        "row": (
            given["rows"],
            {"one": one, "group": group, "la": la, "lm": lm, "hop": hop, "hop_group": hop * group},
        ),
        "column": (given["cols"], column),
        "control": (one, {"one": one, "la": la, "lm": lm, "keep": keep}),
        "sore_lane": (
            given["sore_lanes"] * active,
            {"one": one, "pairs": side * (side - 1) // 2, "kept": side * narrow},
        ),
        "sore_rest": (active, {"one": one, "in": given["sore_lanes"] * side, "out": given["sore_lanes"] * narrow}),
        "transposer": (active, {"one": one, "side": side, "square": side * side}),
        "wuve": (one, {"one": one, "lanes": given["wuve_lanes"]}),
        "epilogue": (one, {"one": one, "lanes": given["cols"]}),
    }


def weight_depth(rows: Column, keep: Column, la: Column) -> Column:
    """rtl.array_parameters.ArrayParameters.weight_depth of many designs."""
    words = np.ones(np.broadcast_shapes(rows.shape, keep.shape, la.shape), np.int64)
    for n in range(1, int(keep.max(initial=1)) + 1):
        late = (rows - 1) * (la - 1) - n + 1
        need = n * (2 + np.maximum(0, -(-late // (rows * n))))
        words = np.where(n <= keep, np.maximum(words, need), words)
    return 1 << _bits(words)


def sum_depth(keep: Column, la: Column) -> Column:
    """ArrayParameters.sum_depth of many designs."""
    most = np.ones(np.broadcast_shapes(keep.shape, la.shape), np.int64)
    for n in range(1, int(keep.max(initial=1)) + 1):
        most = np.where(n <= keep, np.maximum(most, -(-la // n) * n), most)
    return 2 * most


def lane_depth(keep: Column, la: Column) -> Column:
    """ArrayParameters.lane_depth of many designs."""
    longest = np.full(np.broadcast_shapes(keep.shape, la.shape), 2, np.int64)
    for n in range(2, int(keep.max(initial=1)) + 1):
        spacing = la + (1 - la) % n
        longest = np.where(n <= keep, np.maximum(longest, (n - 2) * spacing - n + 4), longest)
    return 1 << _bits(longest)


def _bits(values: Column) -> Column:
    """ceil(log2(values)), at least 1."""
    return np.maximum(np.ceil(np.log2(values)), 1).astype(np.int64)
