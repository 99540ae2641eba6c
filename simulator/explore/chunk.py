"""A run of a sweep's points evaluated: what a worker process or a cluster does, a pure function of spec and number."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.accelerator import Accelerator
from ...models.area import FIELDS as AREA_FIELDS
from ...models.area import area
from ...models.energy_table import EVENTS
from ...models.errors import NmsatError
from ..energy import table_of
from .designs import FIELDS, Designs
from .evaluate import energy_j, evaluate
from .layer_fields import is_layer_field
from .pareto import pareto_front
from .rows import Texts, csv_rows
from .spec import (
    AREA_FIGURES,
    BASE_FIELDS,
    BASELINE,
    ENERGY_FIGURES,
    FLOAT_FIGURES,
    INTEGER_FIGURES,
    LARGER_IS_BETTER,
    SweepSpec,
)
from .step import DEFAULTS, STEP_FIELDS, skeleton_for

CHUNK_POINTS = 50_000
Codes = dict[str, NDArray[np.int64]]  # axis to the index of each point's value


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a chunk yields.

    Attributes
    ----------
    number : int
    csv : bytes
        Its points that are valid and meet the constraints, one row each, without a header.
    front : tuple of (tuple of float, str)
        Objectives (signed so that smaller is better) and row of its undominated points.
    valid, kept : int
        Points the simulator accepts; those that meet the constraints too.
    refused : dict
        Why whole groups of points were refused, and how many.
    broken : dict
        Every bound, and how many of the valid points break it.
    """

    number: int
    csv: bytes
    front: tuple[tuple[tuple[float, ...], str], ...]
    valid: int
    kept: int
    refused: dict[str, int]
    broken: dict[str, int]


def columns(spec: SweepSpec) -> list[str]:
    """The names of a result row's columns."""
    integers, floats = figure_columns(spec)
    return ["point", *spec.values(), *integers, *floats]


def figure_columns(spec: SweepSpec) -> tuple[list[str], list[str]]:
    """Integer and floating-point figures of a row: the usual ones, and those the file names."""
    wanted = spec.wanted()
    integers = [*INTEGER_FIGURES, *(name for name in AREA_FIGURES if name in wanted)]
    return integers, [*FLOAT_FIGURES, *([BASELINE] if BASELINE in wanted else [])]


def chunks_of(spec: SweepSpec) -> int:
    """Number of chunks."""
    return -(-spec.points() // CHUNK_POINTS)


def evaluate_chunk(data: str, number: int) -> ChunkResult:
    """Evaluate chunk ``number`` of the sweep that ``data`` (a spec's ``to_json``) describes."""
    spec, _, values = context(data)
    first = number * CHUNK_POINTS
    count = min(CHUNK_POINTS, spec.points() - first)
    return evaluate_codes(data, _codes(spec, values, number, first, count), first + np.arange(count), number)


def evaluate_codes(data: str, codes: Codes, points: NDArray[np.int64], number: int = 0) -> ChunkResult:
    """Evaluate any points: ``codes`` says which value of every axis each has, ``points`` what each is called."""
    spec, base, values = context(data)
    figures, valid, refused = figures_of(spec, base, values, codes, len(points))
    broken = valid[:, None] & (violations(spec, figures) > 0)
    kept = valid & ~broken.any(axis=1)
    chosen = np.flatnonzero(kept)
    integer_names, float_names = figure_columns(spec)
    texts = [(codes[name][chosen], packed) for name, packed in _texts(data).items()]
    integers = [points[chosen], *(figures[name][chosen] for name in integer_names)]
    floats = [figures[name][chosen] for name in float_names]
    found = costs(spec, figures)[chosen]
    best = pareto_front(found)
    rows = csv_rows([(c[best], v) for c, v in texts], [c[best] for c in integers], [c[best] for c in floats])
    front = tuple(zip(map(tuple, found[best].tolist()), rows.decode().splitlines(), strict=True))
    whole = csv_rows(texts, integers, floats)
    breaks = dict(zip(bounds(spec), broken.sum(axis=0).tolist(), strict=True))
    return ChunkResult(number, whole, front, int(valid.sum()), len(chosen), dict(refused), breaks)


def costs(spec: SweepSpec, figures: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Objectives (points, objectives), signed so that smaller is better."""
    signed = [-figures[name] if name in LARGER_IS_BETTER else figures[name] for name in spec.objectives]
    return np.stack(signed, axis=1).astype(np.float64)


def bounds(spec: SweepSpec) -> list[str]:
    """The constraints' bounds as text, in the order of :func:`violations`."""
    found = []
    for item in spec.constraints:
        found += [f"{item.figure} >= {item.min:g}"] if item.min is not None else []
        found += [f"{item.figure} <= {item.max:g}"] if item.max is not None else []
    return found


def violations(spec: SweepSpec, figures: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """By how much each bound is broken (points, bounds); at most 0 where it holds."""
    found = []
    for item in spec.constraints:
        if item.min is not None:
            found.append(item.min - figures[item.figure])
        if item.max is not None:
            found.append(figures[item.figure] - item.max)
    size = len(figures["cycles"])
    return np.stack(found, axis=1).astype(np.float64) if found else np.zeros((size, 0))


@lru_cache(maxsize=4)
def _texts(data: str) -> dict[str, Texts]:
    """Axis to its values as a row says them."""
    return {name: Texts.of(list(map(_text, items))) for name, items in context(data)[2].items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@lru_cache(maxsize=4)
def context(data: str) -> tuple[SweepSpec, Accelerator, dict[str, list[Any]]]:
    """A spec, its base accelerator and its values, read once a worker."""
    spec = SweepSpec.from_json(data)
    return spec, spec.base(), spec.values()


def _codes(spec: SweepSpec, values: dict[str, list[Any]], number: int, first: int, count: int) -> Codes:
    """Which value of every axis each point has: digits of the point's number, or drawn."""
    if spec.sample:
        rng = np.random.default_rng([spec.sample.seed, number])
        return {name: rng.integers(len(items), size=count) for name, items in values.items()}
    rest = np.arange(first, first + count)
    found: dict[str, NDArray[np.int64]] = {}
    for name, items in reversed(values.items()):
        rest, found[name] = np.divmod(rest, len(items))
    return found


def figures_of(
    spec: SweepSpec, base: Accelerator, values: dict[str, list[Any]], codes: Codes, count: int
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], Counter[str]]:
    """Every figure of the points, which of them can run, and why groups of them were refused."""
    figures: dict[str, NDArray[Any]] = {name: np.zeros(count, np.int64) for name in (*INTEGER_FIGURES, *AREA_FIGURES)}
    figures |= {name: np.zeros(count) for name in (*FLOAT_FIGURES, BASELINE)}
    valid, refused = np.zeros(count, bool), Counter[str]()
    axis_of = spec.fields()
    by_field = {field: values[axis] for field, axis in axis_of.items()}
    splits = [field for field in axis_of if field not in (*FIELDS, *EVENTS) or field == "max_group"]
    shared = DEFAULTS | {k: v for k, v in spec.set.items() if k in STEP_FIELDS or is_layer_field(k)}
    if spec.workload:
        shared["workload"] = spec.workload
    key = np.zeros(count, np.int64)
    for axis in values:
        if any(axis_of[field] == axis for field in splits):
            key = key * len(values[axis]) + codes[axis]
    codes = {field: codes[axis] for field, axis in axis_of.items()}
    for group in np.unique(key).tolist():
        where = np.flatnonzero(key == group)
        step = shared | {"max_group": base.max_group}
        step |= {field: by_field[field][codes[field][where[0]]] for field in splits}
        try:
            _add_group(spec, base, by_field, codes, where, step, figures, valid)
        except NmsatError as error:
            refused[" ".join(str(error).split())] += len(where)
    return figures, valid, refused


def _add_group(
    spec: SweepSpec,
    base: Accelerator,
    values: dict[str, list[Any]],
    codes: Codes,
    where: NDArray[np.intp],
    step: dict[str, Any],
    figures: dict[str, NDArray[Any]],
    valid: NDArray[np.bool_],
) -> None:
    """Figures of the points ``where``, which share one training step; ``values`` and ``codes`` by field."""
    fixed = {field: step.pop(field) for field in BASE_FIELDS if field in step}
    if fixed:
        base = base.replace(**fixed)
    changes = {name: np.array(values[name])[codes[name][where]] for name in FIELDS if name in values}
    changes |= {name: np.array([spec.set[name]]) for name in FIELDS if name in spec.set}
    keeps = np.broadcast_to(np.asarray(changes.get("max_keep", base.max_keep)), where.shape).astype(np.int64)
    legal = keeps <= step["max_group"]
    where = where[legal]
    if not len(where):
        raise NmsatError.rule("", "max_keep", f"at most max_group = {step['max_group']}", int(keeps.min()))
    changes = {name: column[legal] if len(column) > 1 else column for name, column in changes.items()}
    designs = Designs.of(base, changes | {"max_group": step["max_group"]}, len(where))
    skeleton = skeleton_for(step)
    found = evaluate(skeleton, designs)
    for name in INTEGER_FIGURES[:-1]:
        figures[name][where] = getattr(found, name)
    figures["dram_footprint_bytes"][where] = skeleton.dram_bytes
    valid[where] = found.valid
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = found.cycles / (designs.column("clock_mhz") * 1e6)
        figures["seconds"][where] = seconds
        elements = designs.column("rows") * designs.column("cols")
        figures["utilization"][where] = skeleton.useful_macs / (found.cycles * elements)
        figures["gflops_dense_equivalent"][where] = 2 * skeleton.macs / seconds / 1e9
        known = {name: np.array(values[name], np.float64)[codes[name][where]] for name in EVENTS if name in values} | {
            name: np.float64(spec.set[name]) for name in EVENTS if name in spec.set
        }
        table = table_of(base)
        for name, bound in ENERGY_FIGURES.items():
            figures[name][where] = energy_j(skeleton, found, designs, table, known, bound)
        if BASELINE in spec.wanted():
            dense = evaluate(skeleton_for(step | {"method": "dense"}), designs)
            figures[BASELINE][where] = dense.cycles / found.cycles
    if not set(AREA_FIGURES).isdisjoint(spec.wanted()):
        for name, column in area({name: designs.column(name) for name in AREA_FIELDS}).items():
            figures[name][where] = column


def grid_size(spec: SweepSpec) -> int:
    """Points of the whole grid, drawn or not."""
    return math.prod(len(items) for items in spec.values().values())
