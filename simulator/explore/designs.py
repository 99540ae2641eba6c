"""Many designs at once: a table of integers, one column a field that timing depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...dataflow.schedule import DATAFLOWS
from ...models.accelerator import Accelerator
from ...models.errors import NmsatError

# Slowest first: what a change of the field makes the kernels compute again. Sorted designs share the most.
SCHEDULE_FIELDS = (
    "rows", "cols", "adder_latency_cycles", "multiplier_latency_cycles", "slr_hop_cycles", "max_keep", "max_group",
    "w2e_bytes", "n2s_bytes", "output_bytes", "dataflow", "interleave", "tile_overlap", "accumulator", "window_lsb",
    "window_bits",
)  # fmt: skip
LANE_FIELDS = ("vector_lanes", "wuve_lanes", "sore_lanes")
MEMORY_FIELDS = ("clock_mhz", "dram_mb_s", "dram_overlap")
FIELDS = (*SCHEDULE_FIELDS, *LANE_FIELDS, *MEMORY_FIELDS)
CHOICES = {"dataflow": DATAFLOWS, "accumulator": ("fp32", "window")}  # in the table by place
OPTION_FIELDS = ("dataflow", "interleave", "tile_overlap", "dram_overlap")


@dataclass(frozen=True, slots=True, eq=False)
class Designs:
    """A table of designs.

    Attributes
    ----------
    table : int64 (designs, 22)
        Columns FIELDS. Names are places in CHOICES; switches are 0 or 1.
    """

    table: NDArray[np.int64]

    @classmethod
    def of(cls, base: Accelerator, changes: Mapping[str, ArrayLike], count: int | None = None) -> Designs:
        """Designs that differ from ``base`` (and the default options) in some fields.

        Parameters
        ----------
        changes : mapping
            Field to one value or an array of ``count`` values; ``dataflow`` by name.
        count : int, optional
            Number of designs; by default the length of the longest array.

        Raises
        ------
        NmsatError
            A field that timing does not know, a value outside the accelerator's own limits, lengths that differ.
        """
        columns = {name: np.atleast_1d(np.asarray(value)) for name, value in changes.items()}
        for name in columns:
            if name not in FIELDS:
                raise NmsatError.rule("", name, f"one of {', '.join(FIELDS)}", name)
        size = count if count is not None else max((len(column) for column in columns.values()), default=1)
        table = np.empty((size, len(FIELDS)), np.int64)
        for position, name in enumerate(FIELDS):
            column = columns.get(name)
            if column is None:
                table[:, position] = _default(base, name)
                continue
            if len(column) not in (1, size):
                raise NmsatError.rule("", name, f"one value or {size}", f"{len(column)} values")
            _check(base, name, column)
            if name in CHOICES:
                names, column = np.unique(column, return_inverse=True)
                column = np.array([CHOICES[name].index(text) for text in names.tolist()])[column]
            table[:, position] = column
        if np.any(table[:, FIELDS.index("max_keep")] > table[:, FIELDS.index("max_group")]):
            raise NmsatError.rule("", "max_keep", "at most max_group in every design", "a larger one")
        return cls(table)

    def column(self, name: str) -> NDArray[np.int64]:
        """One field of every design."""
        return self.table[:, FIELDS.index(name)]

    def accelerator(self, index: int, base: Accelerator) -> Accelerator:
        """Design ``index`` as an accelerator; what timing does not depend on comes from ``base``."""
        fields: dict[str, Any] = {name: int(self.column(name)[index]) for name in FIELDS if name not in OPTION_FIELDS}
        fields["accumulator"] = CHOICES["accumulator"][fields["accumulator"]]
        return base.replace(**fields)

    def __len__(self) -> int:
        return len(self.table)


def _default(base: Accelerator, name: str) -> int:
    if name in OPTION_FIELDS:
        return 0 if name == "dataflow" else 1
    value = getattr(base, name)
    return CHOICES[name].index(value) if name in CHOICES else value


def _check(base: Accelerator, name: str, column: NDArray[Any]) -> None:
    """Extremes are validated by the accelerator's own model (every field is a range): limits are stated once.

    What depends on several fields makes a design invalid; only here is it left open.
    """
    base = base.replace(accumulator="fp32")
    extremes = np.unique(column) if column.dtype.kind not in "iuf" else np.array([column.min(), column.max()])
    for value in extremes.tolist():
        if name in CHOICES:
            if value not in CHOICES[name]:
                raise NmsatError.rule("", name, f"one of {', '.join(CHOICES[name])}", value)
        elif name in OPTION_FIELDS:
            if value not in (0, 1):
                raise NmsatError.rule("", name, "true or false", value)
        elif name == "max_keep":
            base.replace(max_keep=value, max_group=32)
        elif name == "max_group":
            base.replace(max_keep=1, max_group=value)
        else:
            base.replace(**{name: value})
