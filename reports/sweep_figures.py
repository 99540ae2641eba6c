"""Figures of a sweep: its Pareto fronts, and what each axis is worth."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from ..simulator.explore.pareto import pareto_front
from ..simulator.explore.spec import LARGER_IS_BETTER
from .figure import BLACK, BLUE, CYCLE, GREY, MARKERS, ORANGE, WIDTH, Figure, plain_log
from .labels import label, words
from .sweep_results import SweepResults

MAX_GROUPS = 6  # values told apart by colour and marker


def sweep_figures(sweep: SweepResults) -> list[Figure]:
    """A front a pair of objectives, and the effect of every axis on the first objective."""
    pairs = list(combinations(sweep.spec.objectives, 2))
    found = [front(sweep, x, y, suffix="" if len(pairs) == 1 else f"_{x}_{y}") for x, y in pairs]
    if sweep.axes and sweep.rows:
        found.append(axis_effects(sweep))
    return found


def grouping(sweep: SweepResults) -> str | None:
    """The axis that colours tell apart: a pattern, method or network, else the first axis with few values."""
    few = [name for name in sweep.axes if len(sweep.spec.values()[name]) <= MAX_GROUPS]
    preferred = [name for name in ("sparsity", "method", "workload", "dataflow", "rows") if name in few]
    return next(iter([*preferred, *few]), None)


def front(sweep: SweepResults, x: str, y: str, suffix: str = "") -> Figure:
    """All points by two objectives, and the line of those that no other beats in the two."""
    group = grouping(sweep)
    points = [*sweep.rows, *sweep.front]
    signs = [-1.0 if name in LARGER_IS_BETTER else 1.0 for name in (x, y)]
    costs = np.array([[row[name] * sign for name, sign in zip((x, y), signs, strict=True)] for row in points])
    best = [points[index] for index in pareto_front(costs.reshape(-1, 2)).tolist()]
    best.sort(key=lambda row: (row[x], row[y]))
    names = ("point", *sweep.axes, x, y)
    rows = tuple(tuple(row[name] for name in names) for row in best)

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 4.4))
        values = list(dict.fromkeys(row[group] for row in points)) if group else [""]
        for index, value in enumerate(values):
            some = [row for row in points if not group or row[group] == value]
            axes.scatter(
                [row[x] for row in some], [row[y] for row in some], s=9, alpha=0.45, linewidths=0,
                color=CYCLE[index] if group else GREY, marker=MARKERS[index], rasterized=len(points) > 2000,
                label=f"{words(group)} {value}" if group else "designs",
            )  # fmt: skip
        # between two of the front, what is at least as good in x is as good in y as the one that is worse in x
        axes.plot([row[x] for row in best], [row[y] for row in best], color=BLACK, linewidth=1.2, marker=".",
                  drawstyle="steps-post" if signs[0] > 0 else "steps-pre", label="Pareto front")  # fmt: skip
        for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
            _scale(axis, [row[name] for row in points])
            axis.set_label_text(label(name))
        axes.legend(loc="best", markerscale=1.6)
        return fig

    caption = (
        f"{sweep.summary['kept']:,} designs by {words(x)} and {words(y)}; {_front_words(len(best))}. Simulated; "
        "energies are a model, areas an estimate."
    )
    return Figure(f"pareto{suffix}", f"Pareto front: {words(x)} and {words(y)}", caption, names, rows, draw)


def axis_effects(sweep: SweepResults) -> Figure:
    """The first objective against every axis: best and median over all other axes."""
    target = sweep.spec.objectives[0]
    larger = target in LARGER_IS_BETTER
    points = [*sweep.rows, *sweep.front]
    rows: list[tuple[Any, ...]] = []
    for name in sweep.axes:
        for value in dict.fromkeys(_order(row[name] for row in points)):
            found = [row[target] for row in points if row[name] == value]
            rows.append((name, value, max(found) if larger else min(found), float(np.median(found))))

    def draw(plt: Any) -> Any:
        across = min(3, len(sweep.axes))
        down = -(-len(sweep.axes) // across)
        fig, grid = plt.subplots(down, across, figsize=(WIDTH, 0.6 + 2.0 * down), sharey=True, squeeze=False)
        for axes in grid.flat[len(sweep.axes) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.flat, sweep.axes, strict=False):
            some = [row for row in rows if row[0] == name]
            places = range(len(some))
            axes.plot(places, [row[3] for row in some], color=ORANGE, marker="s", ms=4, ls="--", label="median")
            axes.plot(places, [row[2] for row in some], color=BLUE, marker="o", ms=4, label="best")
            step = -(-len(some) // 8)
            axes.set_xticks(places[::step], [_tick(row[1]) for row in some][::step], rotation=45, fontsize=7)
            axes.set_xlabel(label(name), fontsize=8)
        _scale(grid[0, 0].yaxis, [value for row in rows for value in row[2:]])
        fig.supylabel(label(target), fontsize=9)
        fig.align_xlabels()
        fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
        return fig

    caption = (
        f"{label(target)} against each axis: the best design with that value, and the median over all other axes, of "
        "the designs that meet the constraints."
    )
    columns = ("axis", "value", f"best_{target}", f"median_{target}")
    return Figure("axes", "What each axis is worth", caption, columns, tuple(rows), draw)


def _front_words(count: int) -> str:
    return f"the line joins the {count} that no other beats in both" if count > 1 else "one beats all others in both"


def _tick(value: str) -> str:
    """An axis value as it is read: numbers with separators, long names (files) shortened."""
    try:
        return f"{float(value):,.12g}"
    except ValueError:
        return value if len(value) <= 16 else f"...{value[-13:]}"


def _order(values: Any) -> list[str]:
    found = list(dict.fromkeys(values))
    try:
        return sorted(found, key=float)
    except ValueError:
        return found


def _scale(axis: Any, values: list[float]) -> None:
    """Logarithmic where the values span more than a decade; numbers in full, no power beside the axis."""
    from matplotlib.ticker import FuncFormatter

    low, high = min(values, default=1.0), max(values, default=1.0)
    if low > 0 and high / low > 10:
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        plain_log(axis)
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
