"""Multiple-choice knapsack, exact: one option a class, least error within a budget of integer costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError

I64, F64 = NDArray[np.int64], NDArray[np.float64]
MAX_STATES = 20_000_000


def choose(costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]], budget: int) -> list[int]:
    """One option of every class so that the costs fit and the sum of errors is the least there is.

    Dynamic programming over undominated (cost, error) pairs, class by class. A pair is dropped when another costs no
    more and errs no more, or when even the linear relaxation of the classes to come cannot bring it below an error
    that is known to be reachable. Both keep an optimum. Of equal errors the cheapest wins.

    Parameters
    ----------
    costs, errors : a sequence a class, as long as the class has options
        Costs are not negative; errors finite, not negative.
    budget : int

    Returns
    -------
    list of int
        The option of every class.

    Raises
    ------
    NmsatError
        The cheapest options cost more than ``budget``, or more than 20 million pairs would have to be kept.
    """
    least = [min(options) for options in costs]
    if sum(least) > budget:
        raise NmsatError.rule("", "budget", f"at least {sum(least):,}", budget, "the cheapest options cost that")
    rest = np.concatenate([np.cumsum(least[::-1])[::-1], [0]]).astype(np.int64)
    bounds = [_relaxation(costs[k:], errors[k:]) for k in range(len(costs) + 1)]
    reachable = _greedy(costs, errors, budget)
    slack = 1e-9 * sum(max(options) for options in errors)  # far above what rounding adds to a sum
    cost, error = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for k, (c, e) in enumerate(zip(costs, errors, strict=True)):
        if len(cost) * len(c) > MAX_STATES:
            raise NmsatError.rule("", "patterns", "fewer", len(c), "the exact search would not fit in memory")
        new_cost = (cost[:, None] + np.asarray(c, np.int64)[None, :]).reshape(-1)
        new_error = (error[:, None] + np.asarray(e, np.float64)[None, :]).reshape(-1)
        at = np.flatnonzero(new_cost + rest[k + 1] <= budget)
        xs, ys = bounds[k + 1]
        hoped = new_error[at] + np.interp(budget - new_cost[at], xs, ys)
        at = at[hoped <= reachable + slack]
        at = at[np.lexsort((new_error[at], new_cost[at]))]
        before = np.concatenate([[np.inf], np.minimum.accumulate(new_error[at])[:-1]])
        at = at[new_error[at] < before]
        cost, error = new_cost[at], new_error[at]
        trail.append((at // len(c), at % len(c)))
    found, state = [], len(cost) - 1  # sorted by cost, errors fall: the last has the least
    for previous, option in reversed(trail):
        found.append(int(option[state]))
        state = int(previous[state])
    return found[::-1]


def _hull(costs: Sequence[int], errors: Sequence[float]) -> list[int]:
    """Options on the lower convex hull, cheapest first."""
    hull: list[int] = []
    for option in sorted(range(len(costs)), key=lambda o: (costs[o], errors[o])):
        if hull and errors[option] >= errors[hull[-1]]:
            continue
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            gain = (errors[a] - errors[b]) * (costs[option] - costs[b])
            if gain > (errors[b] - errors[option]) * (costs[b] - costs[a]):
                break
            hull.pop()
        if hull and costs[hull[-1]] == costs[option]:
            hull.pop()
        hull.append(option)
    return hull


def _steps(
    costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]]
) -> list[tuple[float, int, float, int, int]]:
    """Moves along the classes' hulls, the most error a cost first: (-rate, cost, error saved, class, option)."""
    steps = []
    for k, (c, e) in enumerate(zip(costs, errors, strict=True)):
        hull = _hull(c, e)
        for a, b in itertools.pairwise(hull):
            steps.append((-(e[a] - e[b]) / (c[b] - c[a]), c[b] - c[a], e[a] - e[b], k, b))
    return sorted(steps, key=lambda step: step[0])


def _relaxation(costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]]) -> tuple[F64, F64]:
    """Least error of the linear relaxation against budget, as a falling convex polyline."""
    start = [min(zip(c, e, strict=True)) for c, e in zip(costs, errors, strict=True)]
    xs, ys = [float(sum(c for c, _ in start))], [float(sum(e for _, e in start))]
    for _, cost, saved, _, _ in _steps(costs, errors):
        xs.append(xs[-1] + cost)
        ys.append(ys[-1] - saved)
    return np.array(xs), np.array(ys)


def _greedy(costs: Sequence[Sequence[int]], errors: Sequence[Sequence[float]], budget: int) -> float:
    """An error that can be reached: the cheapest options, then every step that still fits."""
    chosen = [min(range(len(c)), key=lambda o, c=c, e=e: (c[o], e[o])) for c, e in zip(costs, errors, strict=True)]
    spent = sum(c[o] for c, o in zip(costs, chosen, strict=True))
    for _, _, _, k, option in _steps(costs, errors):
        more = costs[k][option] - costs[k][chosen[k]]
        if spent + more <= budget and errors[k][option] < errors[k][chosen[k]]:
            chosen[k], spent = option, spent + more
    return float(sum(e[o] for e, o in zip(errors, chosen, strict=True)))
