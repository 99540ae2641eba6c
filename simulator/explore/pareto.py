"""Pareto fronts: the points that no other beats in every objective."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


def pareto_front(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the undominated rows of ``costs`` (points, objectives), smaller is better, ascending.

    A row is dominated by one that is nowhere larger and somewhere smaller; of equal rows the first stays. Rows are
    visited in lexicographic order, so that only rows already in the front can dominate.
    """
    costs = np.ascontiguousarray(costs, np.float64)
    if not len(costs):
        return np.empty(0, np.intp)
    order = np.lexsort(costs.T[::-1])
    return np.sort(order[_front_of_sorted(costs[order])])


@njit(cache=True)
def _front_of_sorted(costs):  # type: ignore[no-untyped-def]
    front = np.empty(len(costs), np.intp)
    count = 0
    for row in range(len(costs)):
        beaten = False
        for index in range(count - 1, -1, -1):
            beaten = True
            for column in range(costs.shape[1]):
                if costs[front[index], column] > costs[row, column]:
                    beaten = False
                    break
            if beaten:
                break
        if not beaten:
            front[count] = row
            count += 1
    return front[:count]
