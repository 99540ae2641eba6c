"""evaluate: the figures of many designs for one training step or inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...models.energy_table import EVENTS, Bound, EnergyTable, Events
from ...models.errors import NmsatError
from . import kernels
from .designs import FIELDS, Designs
from .skeleton import Skeleton

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Totals of every design, in the order of the designs.

    Attributes
    ----------
    valid : bool (designs,)
        False where ``simulate`` would refuse the design: its array cannot run the pattern, or a buffer holds no tile.
        The other figures are 0 there.
    cycles, compute_cycles, stall_cycles, vector_exposed_cycles, dram_read_bytes, dram_write_bytes : int64 (designs,)
        As ``RunResult.totals``, equal to the last digit.
    ws_macs, buffer_bytes : int64 (designs,)
        As ``RunResult.totals["events"]``.
    """

    valid: NDArray[np.bool_]
    cycles: I64
    compute_cycles: I64
    stall_cycles: I64
    vector_exposed_cycles: I64
    dram_read_bytes: I64
    dram_write_bytes: I64
    ws_macs: I64
    buffer_bytes: I64


def evaluate(skeleton: Skeleton, designs: Designs) -> Figures:
    """Evaluate every design, the best mapping of every product chosen for each.

    The designs are sorted by the fields that cost most to change and put back in order afterwards.

    Raises
    ------
    NmsatError
        A design's ``max_group`` differs from the one the skeleton was lowered for.
    """
    table = designs.table
    if np.any(designs.column("max_group") != skeleton.lowered_for):
        rule = f"{skeleton.lowered_for} as in the skeleton"
        raise NmsatError.rule("", "max_group", rule, "another value", "make a skeleton for each max_group")
    order = _sorting(table)
    rows = table if order is None else table[order]
    found = _run(skeleton, rows, np.ones(1, np.float64))
    large = found[:, kernels.VALID] == kernels.TOO_LARGE
    if large.any():
        found[large] = _run(skeleton, rows[large], np.ones(1, np.int64))
    fits = (rows[:, FIELDS.index("max_keep")] >= skeleton.max_keep) & (skeleton.lowered_for >= skeleton.max_group)
    found[~fits] = 0
    if order is not None:
        back = np.empty_like(found)
        back[order] = found
        found = back
    column = {name: found[:, index] for name, index in _COLUMNS.items()}
    return Figures(
        valid=found[:, kernels.VALID] == 1, stall_cycles=column["cycles"] - column["compute_cycles"], **column
    )


def _run(skeleton: Skeleton, rows: I64, arithmetic: NDArray[Any]) -> I64:
    found = np.empty((len(rows), kernels.RESULT_FIELDS), np.int64)
    kernels.evaluate_designs(
        rows, skeleton.works, skeleton.others, skeleton.others_serial_read, skeleton.products, skeleton.product_ends,
        skeleton.other_ends, skeleton.repeats, arithmetic, found,
    )  # fmt: skip
    return found


_COLUMNS = {
    "cycles": kernels.CYCLES,
    "compute_cycles": kernels.COMPUTE_CYCLES,
    "dram_read_bytes": kernels.READ_BYTES,
    "dram_write_bytes": kernels.WRITE_BYTES,
    "vector_exposed_cycles": kernels.EXPOSED,
    "ws_macs": kernels.WEIGHT_STATIONARY,
    "buffer_bytes": kernels.BUFFERED,
}


def _sorting(table: I64) -> NDArray[np.intp] | None:
    """The order that puts equal leading fields together; None if the table is already in it."""
    varying = (table != table[:1]).any(axis=0)
    if not varying.any():
        return None
    keys = table[:, varying]
    if _is_sorted(keys):
        return None
    return np.lexsort(keys.T[::-1])


def _is_sorted(keys: I64) -> bool:
    """Whether the rows ascend lexicographically."""
    undecided = np.ones(len(keys) - 1, bool)
    for column in keys.T:
        before, after = column[:-1], column[1:]
        if np.any(undecided & (before > after)):
            return False
        undecided &= before == after
    return True


def events(skeleton: Skeleton, figures: Figures, designs: Designs) -> Events:
    """Events of every design's step, each an array: simulator.energy.events_of summed."""
    return Events(
        os_macs=skeleton.issued_macs - figures.ws_macs.astype(np.float64),
        ws_macs=figures.ws_macs.astype(np.float64),
        selected_macs=skeleton.selected_macs,
        compares=skeleton.compares,
        updated_weights=skeleton.updated_weights,
        vector_slots=skeleton.vector_slots,
        buffer_bytes=figures.buffer_bytes.astype(np.float64),
        dram_bytes=(figures.dram_read_bytes + figures.dram_write_bytes).astype(np.float64),
        seconds=figures.cycles / (designs.column("clock_mhz") * 1e6),
    )


def energy_j(
    skeleton: Skeleton,
    figures: Figures,
    designs: Designs,
    table: EnergyTable,
    known: Mapping[str, ArrayLike],
    bound: Bound = "typical",
) -> F64:
    """Joules a step, model; ``known`` event energies take the place of the table's, one value or one a design."""
    if unknown := set(known) - set(EVENTS):
        raise NmsatError.rule("", min(unknown), f"one of {', '.join(EVENTS)}", min(unknown))
    found = events(skeleton, figures, designs)
    given = {name: np.asarray(value, np.float64) for name, value in known.items()}
    return np.where(figures.valid, table.picojoules(found, bound, given) / 1e12, 0.0)
