"""Which share of the rows' loop exits is mispredicted: what a branch predictor can tell from its history.

A predictor with a history of ``H`` taken branches sees, at the exit of a row of ``c`` stored blocks, the row itself
and ``r = H / c - 1`` rows before it. Every panel repeats the same rows, so an exit is learned when what is seen is
unique in the pass. ``docs/kernel_model.md`` has the loops of equal, random and sorted rows that this was timed on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.core import Core


def exit_misses(core: Core, counts: NDArray[np.integer], panels: float = 1.0) -> float:
    """Share of the exits of a pass that are mispredicted, 0 to 1.

    The first of the ``panels`` that a row meets in turn is mispredicted like a row of its own (:func:`_first_misses`);
    of the others the predictor has just seen the same count, if the row is not longer than its history.

    Parameters
    ----------
    core : Core
        The core.
    counts : (rows,) integers
        Loop iterations of each row, in running order.
    panels : float
        Panels that a row meets before the next row, 1 or more.
    """
    first = _first_misses(core, counts)
    if panels <= 1:
        return first
    beyond = 0.0
    if core.branch_history is not None and len(counts):
        beyond = float(np.mean(counts > core.branch_history.value))
    return (first + (panels - 1) * beyond) / panels


def _first_misses(core: Core, counts: NDArray[np.integer]) -> float:
    """Share of rows of a pass whose exit is mispredicted, 0 to 1.

    Without ``branch_history``, every row that counts otherwise than the row before. With it: every row longer than
    the history; rows in random order as far as the counts seen before them occur elsewhere in the pass too; rows in
    order of count as far as a run of equal rows is longer than what is seen, ``relearned_exits`` of them a change.
    """
    steps = np.diff(counts.astype(np.int64))
    changes = float(np.mean(steps != 0)) if len(steps) else 0.0
    if core.branch_history is None:
        return changes
    history = core.branch_history.value
    beyond = float(np.mean(counts > history)) if len(counts) else 0.0
    if not changes:
        return beyond
    seen = max(0.0, history / max(1.0, float(np.mean(counts))) - 1)
    if np.all(steps >= 0) or np.all(steps <= 0):
        again = core.relearned_exits.value if core.relearned_exits else 1.0
        share = min(1.0, again * changes) * np.exp(-seen * changes)
    else:
        _, many = np.unique(counts, return_counts=True)
        odds = many / len(counts)
        entropy = float(-np.sum(odds * np.log(odds)))
        share = changes * -np.expm1(-len(counts) * np.exp(-min(seen * entropy, 50.0)))
    return beyond + (1 - beyond) * float(share)
