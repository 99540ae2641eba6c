"""A guided search of a design space: NSGA-II (pymoo) over the axes, evaluated in batches by the compiled evaluator.

What was evaluated is written to a log, batch by batch. A search that goes on runs the algorithm again from its seed
and takes the figures of the batches it had from the log: that takes milliseconds a batch, and ends as if never killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import MissingToolError, NmsatError
from .chunk import ChunkResult, Codes, context, costs, evaluate_codes, figures_of, violations

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


def run_search(data: str, log: Path, report: Callable[[int], None] | None = None) -> ChunkResult:
    """Search and evaluate; equal specs and seeds give equal results with the same pymoo.

    Parameters
    ----------
    data : str
        The spec's ``to_json``; it has ``search``.
    log : Path
        File of what was evaluated; where there is one already, the search goes on behind it.
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
    NmsatError
        The log is of another search, or of another pymoo.
    OSError
        The log cannot be written.
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
    kept = _Log(log, len(sizes), len(spec.objectives) + bounds + 1)
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
            found = kept.read(drawn)
            if found is None:
                figures, valid, _refused = figures_of(spec, base, values, _codes(values, drawn), len(drawn))
                aims = np.where(valid[:, None], costs(spec, figures), 1e300)
                found = np.column_stack([aims, violations(spec, figures), np.where(valid, -1.0, 1e6)])
                kept.write(drawn, found)
            out["F"], out["G"] = np.split(found, [len(spec.objectives)], axis=1)
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


class _Log:
    """The evaluated points in the order of their evaluation: indices of their values, and what the search asked.

    A row is ``axes`` int64 and ``figures`` float64, bytes as in memory; a row that a killed process began is cut off.
    """

    def __init__(self, path: Path, axes: int, figures: int) -> None:
        self.path = path
        row = np.dtype([("codes", "<i8", (axes,)), ("figures", "<f8", (figures,))])
        with path.open("ab") as file:
            file.truncate(file.tell() // row.itemsize * row.itemsize)
        self.rows = np.fromfile(path, row)
        self.at = 0

    def read(self, codes: I64) -> F64 | None:
        """Figures of the next points, or None where the log does not reach as far as the last of them."""
        rows = self.rows[self.at : self.at + len(codes)]
        if not np.array_equal(rows["codes"], codes[: len(rows)]):
            rule = "what this search evaluates first"
            raise NmsatError.rule(str(self.path), "", rule, "other points", "another pymoo? start in another folder")
        self.at += len(codes)
        return rows["figures"] if len(rows) == len(codes) else None

    def write(self, codes: I64, figures: F64) -> None:
        """Append points that :meth:`read` did not know; of a batch that is there in part, the rest."""
        rows = np.empty(len(codes), self.rows.dtype)
        rows["codes"], rows["figures"] = codes, figures
        known = max(0, len(self.rows) - (self.at - len(codes)))
        with self.path.open("ab") as file:
            file.write(rows[known:].tobytes())


def _codes(values: dict[str, list[Any]], drawn: I64) -> Codes:
    return {name: np.ascontiguousarray(drawn[:, index]) for index, name in enumerate(values)}


def _numbers(sizes: list[int], drawn: I64) -> I64:
    """The points' numbers in the grid: digits of mixed radix, the first axis slowest."""
    found = np.zeros(len(drawn), np.int64)
    for index in range(len(sizes)):
        found += drawn[:, index] * math.prod(sizes[index + 1 :])
    return found
