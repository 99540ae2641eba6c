"""Terminal tables of results, as rich renderables; printing is the caller's."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..models.energy_table import EnergyTable
from ..simulator.allocate import Allocation
from ..simulator.result import RunResult

SHOWN_NOTES = 20  # of a workload file; all are in the JSON


def quantity(value: float, unit: str = "") -> str:
    """Three significant digits with an SI prefix: 1.23 G."""
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def merge_stage_rows(rows: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """One row a layer and stage: phases and attention parts added up, the first one's sizes shown with ``parts``."""
    merged: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["layer"], row["stage"], row["op"] if row["stage"] == "vector" else ""
        if key not in merged:
            merged[key] = dict(row) | {"parts": 1}
            continue
        into = merged[key]
        into["parts"] += 1
        for name in (
            "cycles",
            "compute_cycles",
            "stall_cycles",
            "macs",
            "useful_macs",
            "dram_read_bytes",
            "dram_write_bytes",
        ):
            into[name] += row[name]
    return list(merged.values())


def layer_table(result: RunResult, processing_elements: float) -> Table:
    """The main table: a line a layer and stage, vector work that costs time included."""
    meta = result.meta
    title = f"{meta['workload']} on {meta['accelerator']}: {meta['method']} {meta['sparsity']}"
    title += f", batch {meta['batch']}, {meta['mode']}"
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in ("layer", "stage", "m x n x k", "pattern", "flow"):
        table.add_column(name, no_wrap=True)
    for name in ("cycles", "stall", "util", "DRAM"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = ""
    for row in merge_stage_rows(result.layers):
        vector = row["stage"] == "vector"
        if vector and not row["cycles"]:
            continue
        size = f"{row['m']} elements" if vector else f"{row['m']}x{row['n']}x{row['k']}"
        if row["groups"] > 1:
            size += f" x{row['groups']}"
        if row["parts"] > 1:
            size += f" +{row['parts'] - 1}"
        util = row["useful_macs"] / (row["cycles"] * processing_elements) if row["cycles"] else 0.0
        stage = row["op"] if vector else row["stage"]
        name = "" if row["layer"] == previous else row["layer"]
        previous = row["layer"]
        table.add_row(
            name,
            stage,
            size,
            "" if vector else row["sparsity"],
            row["dataflow"],
            quantity(row["cycles"]),
            quantity(row["stall_cycles"]),
            "" if vector else f"{100 * util:.1f} %",
            quantity(row["dram_read_bytes"] + row["dram_write_bytes"], "B"),
        )
    return table


def summary_lines(result: RunResult, dram_gib: int) -> list[str]:
    """The result in a few lines of words."""
    totals = result.totals
    against = "dense baseline"
    if result.meta["method"] != "dense":
        against = f"{totals['speedup_over_dense']:.3f}x the speed of dense on the same accelerator"
    lines = [
        f"{totals['cycles']:,} cycles = {totals['seconds']:.4g} s at the simulated clock; {against}",
        f"utilization {100 * totals['utilization']:.1f} %; "
        f"{totals['gflops_dense_equivalent']:.1f} GFLOP/s dense equivalent; "
        f"DRAM {quantity(totals['dram_read_bytes'] + totals['dram_write_bytes'], 'B')}; "
        f"energy {_energy(totals)} (model)",
    ]
    if "vector_exposed_cycles" in totals:
        share = totals["vector_exposed_cycles"] / totals["cycles"]
        hidden = sum(row["busy_cycles"] - row["compute_cycles"] for row in result.layers)
        lines.append(f"vector work: {100 * share:.2f} % of the time; {quantity(hidden)} cycles hidden behind the array")
        dense = dense_layers(result)
        if dense:
            lines.append(f"left dense in every stage: {', '.join(dense)}")
        lines += [f"note: {note}" for note in result.meta.get("notes", ())[:SHOWN_NOTES]]
        if not totals["fits_dram"]:
            need = totals["dram_footprint_bytes"] / 2**30
            lines.append(f"note: needs {need:.1f} GiB of DRAM, the accelerator has {dram_gib}; split the batch")
    return lines


def _energy(totals: dict[str, Any]) -> str:
    text = f"{totals['energy_j']:.3g} J"
    if "energy_low_j" in totals:
        text += f", {totals['energy_low_j']:.3g} to {totals['energy_high_j']:.3g}"
    return text


def energy_lines(table: EnergyTable) -> list[Any]:
    """An energy table with its sources."""
    found = Table(title=f"{table.name}: {table.description} ({table.kind})", title_justify="left", box=None)
    for name in ("event", "typical", "low", "high"):
        found.add_column(name, justify="left" if name == "event" else "right", no_wrap=True)
    found.add_column("from")
    for name, item in table.events.items():
        found.add_row(name, f"{item.typical:g}", f"{item.low:g}", f"{item.high:g}", item.source)
    return [found]


def allocation_lines(best: Allocation, uniform: Allocation | None, budget: int, asked: str) -> list[Any]:
    """The chosen patterns as a table, and what they gain."""
    found = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("layer", "pattern", "cycles", "weight error"):
        found.add_column(name, justify="right" if name in ("cycles", "weight error") else "left", no_wrap=True)
    for item in best.choices:
        found.add_row(item.layer, str(item.pattern), f"{item.cycles:,}", f"{item.error:.4g}")
    lines = [f"{best.cycles:,} cycles of at most {budget:,} (simulated); weight error {best.error:.4g}"]
    if uniform:
        less = f", {100 * (1 - best.error / uniform.error):.1f} % less" if uniform.error > best.error else ""
        lines.append(f"{asked} everywhere: {uniform.cycles:,} cycles, weight error {uniform.error:.4g}{less} by layer")
    return [found, *lines]


def core_summary(result: RunResult) -> list[str]:
    """The result of a CPU core in two lines of words."""
    totals = result.totals
    lines = [f"{totals['cycles']:,} cycles = {1000 * totals['seconds']:.4g} ms at the core's clock (model)"]
    share = totals["stall_cycles"] / totals["cycles"]
    text = f"{totals['gflops_dense_equivalent']:.1f} GFLOP/s dense equivalent; {100 * share:.0f} % waiting for caches"
    if totals["speedup_over_dense"] != 1:
        text += f"; {totals['speedup_over_dense']:.3f}x the speed of dense on the same core"
    return [*lines, text]


def dense_layers(result: RunResult) -> list[str]:
    """Layers whose products are all dense although the method prunes, attention counted as one name."""
    if result.meta["method"] == "dense":
        return []
    sparse = {row["layer"] for row in result.layers if row["sparsity"] != "dense"}
    names: list[str] = []
    for row in result.layers:
        if row["stage"] != "vector" and row["layer"] not in sparse and row["layer"] not in names:
            names.append(row["layer"])
    return names if len(names) <= 8 else [*names[:7], f"and {len(names) - 7} more"]
