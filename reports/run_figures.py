"""Figures of one simulated run: utilisation, roofline, cycle stack, dataflow map, traffic."""

from __future__ import annotations

from typing import Any

from ..simulator.result import RunResult
from .figure import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    STAGE_COLOURS,
    STAGE_MARKERS,
    STAGES,
    WIDTH,
    Figure,
    layer_axis,
    plain_log,
)
from .tables import merge_stage_rows

PRODUCTS = ("ff", "bp", "wu")
PARTS = ("multiplying", "array fill and padding", "first tile", "memory", "vector work")
_PART_COLOURS = (BLUE, GREY, ORANGE, RED, PURPLE)


def run_figures(run: RunResult) -> list[Figure]:
    """Every figure that the result has data for, in the order of a report."""
    found = [cycle_stack(run), utilisation(run)]
    if any(row["dataflow"] in ("os", "ws") for row in run.layers) and run.meta.get("semantics") == "nmsat":
        found.append(dataflow_map(run))
    if any(row["dram_read_bytes"] + row["dram_write_bytes"] for row in run.layers):
        found.append(traffic(run))
        if "accelerator_fields" in run.meta:
            found.append(roofline(run))
    return found


def peak_macs(run: RunResult) -> float:
    """Multiply-accumulates a cycle of the array (or core): what a utilisation is a share of."""
    fields = run.meta.get("accelerator_fields")
    if fields:
        return fields["rows"] * fields["cols"]
    busy = [row for row in run.layers if row["utilization"] > 0 and row["cycles"] > 0]
    return max((row["useful_macs"] / row["cycles"] / row["utilization"] for row in busy), default=1.0)


def title(run: RunResult) -> str:
    """What was run, in one line."""
    meta = run.meta
    method = "dense" if meta.get("method") == "dense" else f"{meta.get('method')} {meta.get('sparsity')}"
    text = f"{meta.get('workload')} on {meta.get('accelerator')}: {method}"
    return f"{text}, batch {meta.get('batch')}, {'training step' if meta.get('mode') == 'train' else 'inference'}"


def stages_of(run: RunResult) -> list[str]:
    """Stages that have rows."""
    return [stage for stage in STAGES if any(row["stage"] == stage for row in run.layers)]


def utilisation(run: RunResult) -> Figure:
    """Useful multiplications over what the array could do, a bar a layer and stage."""
    peak = peak_macs(run)
    rows = tuple(
        (row["layer"], row["stage"], row["useful_macs"] / (row["cycles"] * peak) if row["cycles"] else 0.0)
        for row in merge_stage_rows(run.layers)
        if row["stage"] in PRODUCTS
    )
    layers, stages = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[1] for row in rows))

    def draw(plt: Any) -> Any:
        size = (WIDTH, 1.0 + 1.1 * len(stages))
        fig, grid = plt.subplots(len(stages), 1, figsize=size, sharex=True, squeeze=False)
        for axes, stage in zip(grid[:, 0], stages, strict=True):
            found = [(layers.index(layer), 100 * value) for layer, kind, value in rows if kind == stage]
            axes.bar(*zip(*found, strict=True), width=0.8, color=STAGE_COLOURS[stage])
            axes.set_ylim(0, 105)
            axes.set_ylabel("utilisation (%)", fontsize=8)
            axes.set_title(STAGES[stage], fontsize=9)
            axes.grid(axis="x", visible=False)
        layer_axis(grid[-1, 0], layers)
        return fig

    caption = "Useful multiply-accumulates over those the array has room for, each layer and stage. Simulated."
    return Figure("utilisation", "Utilisation", caption, ("layer", "stage", "utilization"), rows, draw)


def parts_of(run: RunResult) -> dict[str, list[float]]:
    """Cycles of each stage, split into PARTS; they add up to the stage's cycles."""
    peak, found = peak_macs(run), {stage: [0.0] * len(PARTS) for stage in stages_of(run)}
    for row in run.layers:
        parts = found[row["stage"]]
        if row["stage"] == "vector":
            parts[4] += row["cycles"]
            continue
        useful = min(row["useful_macs"] / peak, row["compute_cycles"])
        fill = row["fill_cycles"]
        split = (useful, row["compute_cycles"] - useful, fill, row["stall_cycles"] - fill, 0)
        for index, cycles in enumerate(split):
            parts[index] += cycles
    return found


def cycle_stack(run: RunResult) -> Figure:
    """Where the cycles of every stage go."""
    found = parts_of(run)
    rows = tuple((stage, *(float(cycles) for cycles in parts)) for stage, parts in found.items())
    total = sum(sum(parts) for parts in found.values())

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.42 * len(rows)))
        for place, (_, *parts) in enumerate(rows):
            left = 0.0
            for name, cycles, colour in zip(PARTS, parts, _PART_COLOURS, strict=True):
                label = name if place == 0 else None
                axes.barh(place, cycles / 1e6, left=left / 1e6, color=colour, height=0.7, label=label)
                left += cycles
            axes.text(left / 1e6, place, f" {100 * left / total:.1f} %", va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [STAGES[row[0]] for row in rows])
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("time (million cycles)")
        fig.legend(loc="outside upper left", ncols=5)
        return fig

    caption = (
        "Cycles by stage: multiplying at full rate, the array's own fill, drain and padding, waiting for the first "
        "tile, waiting for memory, and vector work that is not hidden. Percentages are of the whole step. Simulated."
    )
    columns = ("stage", *(f"{name.replace(' ', '_')}_cycles" for name in PARTS))
    return Figure("cycle_stack", "Where the time goes", caption, columns, rows, draw)


def dataflow_map(run: RunResult) -> Figure:
    """Which dataflow the scheduler chose, and where products are sparse."""
    rows = tuple(
        dict.fromkeys(
            (row["layer"], row["stage"], row["dataflow"], row["sparsity"])
            for row in merge_stage_rows(run.layers)
            if row["stage"] in PRODUCTS
        )
    )
    layers, stages = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[1] for row in rows))

    def draw(plt: Any) -> Any:
        from matplotlib.patches import Patch

        colours = {"os": BLUE, "ws": ORANGE}
        fig, axes = plt.subplots(figsize=(WIDTH, 1.6 + 0.35 * len(stages)))
        for layer, stage, flow, pattern in rows:
            sparse = pattern != "dense"
            axes.bar(
                layers.index(layer), 0.86, 0.86, bottom=stages.index(stage) - 0.43, color=colours[flow],
                alpha=1.0 if sparse else 0.35, hatch=None if sparse else "////", edgecolor="white", linewidth=0,
            )  # fmt: skip
            if len(layers) <= 30:
                place = layers.index(layer), stages.index(stage)
                ink = "white" if sparse and flow == "os" else "black"
                axes.text(*place, flow.upper(), ha="center", va="center", fontsize=6, color=ink)
        axes.set_yticks(range(len(stages)), [STAGES[stage] for stage in stages])
        axes.invert_yaxis()
        axes.grid(visible=False)
        layer_axis(axes, layers)
        handles = [
            Patch(facecolor=BLUE, label="output-stationary (OS)"),
            Patch(facecolor=ORANGE, label="weight-stationary (WS)"),
            Patch(facecolor=GREY, alpha=0.35, hatch="////", edgecolor="white", label="hatched: dense; full: N:M"),
        ]
        fig.legend(handles=handles, loc="outside upper left", ncols=3)
        return fig

    caption = "Dataflow of every product, chosen layer by layer and stage by stage for the fewest cycles."
    return Figure("dataflow", "Dataflow map", caption, ("layer", "stage", "dataflow", "sparsity"), rows, draw)


def traffic(run: RunResult) -> Figure:
    """DRAM bytes of every stage."""
    stages = stages_of(run)

    def bytes_of(stage: str, key: str) -> int:
        return sum(row[key] for row in run.layers if row["stage"] == stage)

    keys = ("dram_read_bytes", "dram_write_bytes")
    rows = tuple((stage, *(bytes_of(stage, key) for key in keys)) for stage in stages)

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.42 * len(rows)))
        for place, (_, read, write) in enumerate(rows):
            first = place == 0
            axes.barh(place, read / 1e9, color=BLUE, height=0.7, label="read" if first else None)
            axes.barh(
                place, write / 1e9, left=read / 1e9, color=ORANGE, hatch="//", edgecolor="white", linewidth=0,
                height=0.7, label="written" if first else None,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [STAGES[row[0]] for row in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, max(read + write for _, read, write in rows) * 1.03e-9 or 1)
        axes.set_xlabel("DRAM traffic (GB)")
        fig.legend(loc="outside upper left", ncols=2)
        return fig

    caption = "DRAM bytes of a step by stage, 1 GB is 10^9 bytes. Counted from the program."
    return Figure("traffic", "Traffic by stage", caption, ("stage", *keys), rows, draw)


def roofline(run: RunResult) -> Figure:
    """Every product's achieved rate against its operational intensity, under the array's and the memory's roof."""
    fields = run.meta["accelerator_fields"]
    clock, bandwidth = fields["clock_mhz"] * 1e6, fields["dram_mb_s"] * 1e6
    peak = 2 * fields["rows"] * fields["cols"] * clock
    rows = []
    for row in merge_stage_rows(run.layers):
        moved = row["dram_read_bytes"] + row["dram_write_bytes"]
        if row["stage"] in PRODUCTS and moved and row["useful_macs"] and row["cycles"]:
            rate = 2 * row["useful_macs"] * clock / row["cycles"]
            rows.append((row["layer"], row["stage"], row["sparsity"], 2 * row["useful_macs"] / moved, rate / 1e9))

    def draw(plt: Any) -> Any:
        fig, axes = plt.subplots(figsize=(WIDTH, 4.2))
        low = min([row[3] for row in rows] + [peak / bandwidth]) / 2
        high = max([row[3] for row in rows] + [peak / bandwidth]) * 2
        ridge = peak / bandwidth
        axes.plot([low, ridge, high], [low * bandwidth / 1e9, peak / 1e9, peak / 1e9], color=RED, linewidth=1.5)
        for stage in PRODUCTS:
            for sparse in (True, False):
                points = [(row[3], row[4]) for row in rows if row[1] == stage and (row[2] != "dense") is sparse]
                if points:
                    axes.scatter(
                        *zip(*points, strict=True), s=28, marker=STAGE_MARKERS[stage], linewidths=1,
                        facecolors=STAGE_COLOURS[stage] if sparse else "none", edgecolors=STAGE_COLOURS[stage],
                        label=f"{STAGES[stage]}, {'N:M' if sparse else 'dense'}", zorder=3, alpha=0.9,
                    )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        bottom, top = min([row[4] for row in rows] + [low * bandwidth / 1e9]) / 1.5, peak / 1e9 * 1.5
        axes.set_ylim(bottom, top)
        plain_log(axes.xaxis)
        plain_log(axes.yaxis, (1, 2, 5) if top > 10 * bottom else (1, 2, 3, 4, 6, 8))
        axes.set_xlabel("operational intensity (useful FLOP / DRAM byte)")
        axes.set_ylabel("useful GFLOP/s")
        note = f"{peak / 1e9:.1f} GFLOP/s"
        axes.annotate(note, (high, peak / 1e9), (-4, 4), textcoords="offset points", ha="right", color=RED, fontsize=8)
        axes.annotate(
            f"{bandwidth / 1e9:.1f} GB/s", (low, low * bandwidth / 1e9), (6, 0), textcoords="offset points",
            color=RED, fontsize=8, va="bottom",
        )  # fmt: skip
        axes.legend(loc="lower right")
        return fig

    caption = (
        "Every product, phases of a strided one together: rate of useful multiply-accumulates (2 FLOP each) against "
        f"FLOP per DRAM byte. Roofs: {peak / 1e9:.1f} GFLOP/s and {bandwidth / 1e9:.1f} GB/s. Filled: N:M. Simulated."
    )
    columns = ("layer", "stage", "sparsity", "flop_per_byte", "useful_gflops")
    return Figure("roofline", "Roofline", caption, columns, tuple(rows), draw)
