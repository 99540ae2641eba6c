"""A guided search of a design space: NSGA-II (pymoo) over the axes, evaluated in batches by the compiled evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import MissingToolError
from .chunk import ChunkResult, Codes, context, costs, evaluate_codes, figures_of, violations

I64 = NDArray[np.int64]


def run_search(data: str, report: Callable[[int], None] | None = None) -> ChunkResult:
    """Search and evaluate; equal specs and seeds give equal results with the same pymoo.

    Parameters
    ----------
    data : str
        The spec's ``to_json``; it has ``search``.
    report : callable, optional
        Called with the points evaluated so far.

    Returns
    -------
    ChunkResult
        Every design that was evaluated, once, in the order of its number in the grid.

    Raises
    ------
    MissingToolError
        pymoo is not installed.
    """
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
    except ImportError:
        raise MissingToolError('search needs pymoo: pip install "nmsat[search]"') from None
    spec, base, values = context(data)
    assert spec.search is not None
    sizes = [len(items) for items in values.values()]
    bounds = sum((item.min is not None) + (item.max is not None) for item in spec.constraints)
    seen: list[I64] = []

    class Space(Problem):
        def __init__(self) -> None:
            super().__init__(
                n_var=len(sizes), n_obj=len(spec.objectives), n_ieq_constr=bounds + 1, xl=np.zeros(len(sizes)),
                xu=np.array(sizes) - 1.0, vtype=int,
            )  # fmt: skip

        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            drawn = np.rint(np.asarray(x, np.float64)).astype(np.int64)
            seen.append(drawn)
            figures, valid, _refused = figures_of(spec, base, values, _codes(values, drawn), len(drawn))
            out["F"] = np.where(valid[:, None], costs(spec, figures), 1e300)
            out["G"] = np.column_stack([violations(spec, figures), np.where(valid, -1.0, 1e6)])
            if report:
                report(min(spec.points(), sum(map(len, seen))))

    population = min(spec.search.population, spec.search.points)
    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=10, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=10, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(Space(), termination=("n_eval", spec.search.points), seed=spec.search.seed, verbose=False)
    while algorithm.has_next():
        algorithm.next()
    points, first = np.unique(_numbers(sizes, np.concatenate(seen)), return_index=True)
    return evaluate_codes(data, _codes(values, np.concatenate(seen)[first]), points)


def _codes(values: dict[str, list[Any]], drawn: I64) -> Codes:
    return {name: np.ascontiguousarray(drawn[:, index]) for index, name in enumerate(values)}


def _numbers(sizes: list[int], drawn: I64) -> I64:
    """The points' numbers in the grid: digits of mixed radix, the first axis slowest."""
    found = np.zeros(len(drawn), np.int64)
    for index in range(len(sizes)):
        found += drawn[:, index] * math.prod(sizes[index + 1 :])
    return found
