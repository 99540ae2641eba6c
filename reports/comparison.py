"""Two runs side by side: totals, stages and layers with their differences."""

from __future__ import annotations

from typing import Any

from ..simulator.result import RunResult
from .figure import BLUE, GREY, ORANGE, STAGES, WIDTH, Figure, layer_axis
from .labels import label
from .page import Cell, Column, HtmlTable, Section, number
from .run_figures import stages_of, title
from .tables import merge_stage_rows

_TOTALS = (
    "cycles", "seconds", "utilization", "gflops_dense_equivalent", "speedup_over_dense", "compute_cycles",
    "stall_cycles", "vector_exposed_cycles", "dram_read_bytes", "dram_write_bytes", "dram_footprint_bytes", "energy_j",
    "energy_low_j", "energy_high_j",
)  # fmt: skip
_STEP = ("workload", "accelerator", "method", "sparsity", "batch", "mode", "semantics")
Key = tuple[str, str]


def comparison_section(a: RunResult, b: RunResult) -> Section:
    """Run ``b`` against run ``a``; layers are matched by name and stage."""
    return Section(
        title=f"B against A: {_what_differs(a, b)}",
        summary=tuple(_summary(a, b)),
        tables=(_totals_table(a, b), _layers_table(a, b)),
        figures=(stage_bars(a, b), layer_differences(a, b)),
        details=(_settings_table(a, b),),
    )


def layer_cycles(run: RunResult) -> dict[Key, int]:
    """Cycles by (layer, stage)."""
    found: dict[Key, int] = {}
    for row in run.layers:
        key = row["layer"], row["stage"]
        found[key] = found.get(key, 0) + row["cycles"]
    return found


def differing(a: RunResult, b: RunResult) -> list[tuple[str, Any, Any]]:
    """Settings in which the runs differ: of step, options and accelerator."""
    found = []
    for name, one, two in (
        ("", a.meta, b.meta),
        ("options.", a.meta.get("options", {}), b.meta.get("options", {})),
        ("accelerator.", a.meta.get("accelerator_fields", {}), b.meta.get("accelerator_fields", {})),
    ):
        for key in dict.fromkeys([*one, *two]):
            if key not in ("options", "accelerator_fields") and one.get(key) != two.get(key):
                found.append((name + key, one.get(key), two.get(key)))
    return found


def _what_differs(a: RunResult, b: RunResult) -> str:
    """The step's settings that differ, B's before A's; else the names of the others."""
    found = differing(a, b)
    step = [f"{two} against {one}" for name, one, two in found if name in _STEP]
    others = [name.rpartition(".")[2] for name, _, _ in found if "." in name]
    return ", ".join(step or others[:4]) or "equal settings"


def _summary(a: RunResult, b: RunResult) -> list[str]:
    seconds, joules = b.totals["seconds"] / a.totals["seconds"], None
    if a.totals["energy_j"] and b.totals["energy_j"]:
        joules = b.totals["energy_j"] / a.totals["energy_j"]
    word = "faster" if seconds < 1 else "slower"
    lines = [f"A is {title(a)}.", f"B is {title(b)}."]
    same = "B takes as long as A" if seconds == 1 else f"B is {max(seconds, 1 / seconds):.3f} times {word} than A"
    lines.append(f"{same}: {b.totals['seconds']:.4g} s against {a.totals['seconds']:.4g} s.")
    if joules:
        lines.append(f"B takes {joules:.3f} of the energy of A, by the typical values of the model.")
    one, two = layer_cycles(a), layer_cycles(b)
    shared = [key for key in one if key in two and one[key] != two[key]]
    if shared:
        key = max(shared, key=lambda k: abs(two[k] - one[k]))
        change = two[key] - one[key]
        lines.append(f"The largest change is {key[0]} {key[1]}: {change:+,} cycles.")
    missing = len(one.keys() ^ two.keys())
    if missing:
        lines.append(f"{missing} rows occur in one of the runs only.")
    return lines


def _totals_table(a: RunResult, b: RunResult) -> HtmlTable:
    rows = []
    for name in _TOTALS:
        if name in a.totals and name in b.totals:
            one, two = a.totals[name], b.totals[name]
            ratio = two / one if one else float("nan")
            last = number(ratio) if one else Cell("", 0)
            rows.append((Cell(label(name)), number(one), number(two), number(two - one), last))
    columns = (Column("total"), *(Column(name, True) for name in ("A", "B", "B - A", "B / A")))
    return HtmlTable("Totals", columns, tuple(rows))


def _layers_table(a: RunResult, b: RunResult) -> HtmlTable:
    one, two = layer_cycles(a), layer_cycles(b)
    flows = [
        {(row["layer"], row["stage"]): f"{row['sparsity']} {row['dataflow']}" for row in merge_stage_rows(run.layers)}
        for run in (a, b)
    ]
    rows = []
    for key in dict.fromkeys([*one, *two]):
        x, y = one.get(key, 0), two.get(key, 0)
        cells = [Cell(key[0]), Cell(key[1])]
        cells += [Cell("" if key[1] == "vector" else flow.get(key, "not there")) for flow in flows]
        ratio = Cell("", 0) if not x else number(y / x)
        rows.append((*cells, number(x), number(y), number(y - x), ratio))
    names = ("layer", "stage", "A runs as", "B runs as", "A cycles", "B cycles", "B - A", "B / A")
    return HtmlTable("Layers and stages", tuple(Column(n, i >= 4) for i, n in enumerate(names)), tuple(rows))


def _settings_table(a: RunResult, b: RunResult) -> HtmlTable:
    rows = tuple((Cell(name), Cell(str(one)), Cell(str(two))) for name, one, two in differing(a, b))
    return HtmlTable("Settings that differ", (Column("setting"), Column("A"), Column("B")), rows, False, wrap=True)


def stage_bars(a: RunResult, b: RunResult) -> Figure:
    """Time of every stage in both runs."""
    stages = list(dict.fromkeys([*stages_of(a), *stages_of(b)]))

    def seconds(run: RunResult, stage: str) -> float:
        cycles = sum(row["cycles"] for row in run.layers if row["stage"] == stage)
        return cycles * run.totals["seconds"] / run.totals["cycles"]

    rows = tuple((stage, seconds(a, stage), seconds(b, stage)) for stage in stages)

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.5 * len(rows)))
        for place, (_, one, two) in enumerate(rows):
            first = place == 0
            axes.barh(place - 0.2, 1e3 * one, 0.36, color=BLUE, label="A" if first else None)
            axes.barh(
                place + 0.2, 1e3 * two, 0.36, color=ORANGE, hatch="//", edgecolor="white", linewidth=0,
                label="B" if first else None,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [STAGES[row[0]] for row in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("time (ms, simulated clock)")
        fig.legend(loc="outside upper left", ncols=2)
        return fig

    caption = "Time of each stage in both runs, each at its own clock. Simulated."
    return Figure("compare_stages", "Stages side by side", caption, ("stage", "a_seconds", "b_seconds"), rows, draw)


def layer_differences(a: RunResult, b: RunResult) -> Figure:
    """What every layer gains or loses."""
    one, two = layer_cycles(a), layer_cycles(b)
    layers = list(dict.fromkeys(key[0] for key in (*one, *two)))
    rows = tuple((name, _of(two, name) - _of(one, name)) for name in layers)
    rows = tuple(row for row in rows if row[1]) or rows[:1]

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 3.0))
        values = [row[1] / 1e6 for row in rows]
        axes.bar(range(len(rows)), values, color=[BLUE if value <= 0 else ORANGE for value in values])
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_ylabel("B - A (million cycles)")
        axes.grid(axis="x", visible=False)
        layer_axis(axes, [row[0] for row in rows])
        return fig

    caption = "Cycles of each layer in B less those in A, all stages together; below zero B is quicker. Simulated."
    return Figure("compare_layers", "Layers: B less A", caption, ("layer", "difference_cycles"), rows, draw)


def _of(cycles: dict[Key, int], layer: str) -> int:
    return sum(value for (name, _), value in cycles.items() if name == layer)
