"""A run as a section of a page: in words, in tables, in figures."""

from __future__ import annotations

import shlex
from typing import Any

from ..models.energy_table import BOUNDS, EVENTS, EnergyTable
from ..models.errors import NmsatError
from ..simulator.result import RunResult
from .figure import STAGES
from .page import Cell, Column, HtmlTable, Section, facts_table, number
from .run_figures import PARTS, parts_of, peak_macs, run_figures, title
from .tables import dense_layers, merge_stage_rows, quantity

_KINDS = {"nmsat": "simulated", "scalesim": "SCALE-Sim's own formulas", "cpu": "cycle model of a CPU core"}


def run_section(run: RunResult, source: str) -> Section:
    """Everything about one run; ``source`` is the file it was read from."""
    tables = [layers_table(run)]
    details = [facts_table("Totals", _totals(run))]
    if "options" in run.meta:
        details.append(facts_table("Scheduler and overlap options", list(run.meta["options"].items())))
    if "accelerator_fields" in run.meta:
        details.append(facts_table("Accelerator", list(run.meta["accelerator_fields"].items())))
    if energy := _energy_table(run):
        details.append(energy)
    left_out = ("options", "accelerator_fields", "notes")
    facts = [("file", source), *((key, value) for key, value in run.meta.items() if key not in left_out)]
    details.append(facts_table("Provenance", facts))
    return Section(
        title=title(run),
        summary=tuple(summary(run)),
        tables=tuple(tables),
        figures=tuple(run_figures(run)),
        details=tuple(details),
        command=command_of(run),
    )


def summary(run: RunResult) -> list[str]:
    """What the run says, in sentences."""
    totals, meta = run.totals, run.meta
    what = "A training step" if meta.get("mode") == "train" else "An inference"
    kind = _KINDS.get(str(meta.get("semantics")), "simulated")
    lines = [
        f"{what} of {meta.get('batch')} samples takes {totals['cycles']:,} cycles, {totals['seconds']:.4g} s ({kind})."
    ]
    if meta.get("method") != "dense" and totals["speedup_over_dense"] != 1:
        lines.append(f"That is {totals['speedup_over_dense']:.3f} times the speed of dense on the same hardware.")
    parts = parts_of(run)
    sums = [sum(split[index] for split in parts.values()) for index in range(len(PARTS))]
    whole = sum(sums) or 1.0
    shares = [
        f"{100 * cycles / whole:.1f} % {name}"
        for name, cycles in zip(PARTS, sums, strict=True)
        if cycles / whole > 5e-4
    ]
    lines.append(f"Of the time: {', '.join(shares)}.")
    heaviest = max(parts, key=lambda stage: sum(parts[stage]))
    share = 100 * sum(parts[heaviest]) / whole
    layer = max(merge_stage_rows(run.layers), key=lambda row: row["cycles"])
    lines.append(
        f"The longest stage is {STAGES[heaviest]} with {share:.1f} % of the time; the longest single product or pass "
        f"is {layer['layer']} {layer['stage']} with {100 * layer['cycles'] / whole:.1f} %."
    )
    moved = totals["dram_read_bytes"] + totals["dram_write_bytes"]
    if moved:
        rate = moved / totals["seconds"] / 1e9
        lines.append(f"It moves {quantity(moved, 'B')} to and from DRAM, {rate:.1f} GB/s on average.")
    if totals.get("energy_j"):
        text = f"Energy, by a model: {_joules(totals['energy_j'])}"
        if "energy_low_j" in totals:
            text += f", somewhere from {_joules(totals['energy_low_j'])} to {_joules(totals['energy_high_j'])}"
        lines.append(text + ".")
    if meta.get("semantics") == "nmsat" and (dense := dense_layers(run)):
        lines.append(f"Dense in every stage: {', '.join(dense)}.")
    if totals.get("fits_dram") is False:
        lines.append(
            f"It needs {totals['dram_footprint_bytes'] / 2**30:.1f} GiB of DRAM, more than there is: split the batch."
        )
    lines += [f"Note: {note}" for note in meta.get("notes", ())]
    return lines


def layers_table(run: RunResult) -> HtmlTable:
    """A row a layer and stage, to be sorted."""
    names = (
        "layer",
        "stage",
        "size",
        "pattern",
        "flow",
        "cycles",
        "share",
        "stall",
        "utilisation",
        "DRAM bytes",
        "energy, J",
    )
    columns = tuple(Column(name, index >= 5) for index, name in enumerate(names))
    whole, peak, rows = run.totals["cycles"], peak_macs(run), []
    for row in merge_stage_rows(run.layers):
        vector = row["stage"] == "vector"
        size = f"{row['m']:,} elements" if vector else f"{row['m']:,} x {row['n']:,} x {row['k']:,}"
        use = row["useful_macs"] / (row["cycles"] * peak) if row["cycles"] else 0.0
        moved = row["dram_read_bytes"] + row["dram_write_bytes"]
        rows.append(
            (
                Cell(row["layer"]),
                Cell(row["op"] if vector else row["stage"]),
                Cell(
                    size + (f" and {row['parts'] - 1} more" if row["parts"] > 1 else ""), row["m"] * row["n"] * row["k"]
                ),
                Cell("" if vector else row["sparsity"]),
                Cell(row["dataflow"]),
                number(row["cycles"]),
                number(row["cycles"] / whole, f"{100 * row['cycles'] / whole:.2f} %"),
                number(row["stall_cycles"]),
                number(use, "" if vector else f"{100 * use:.1f} %"),
                number(moved),
                number(row["energy_pj"] / 1e12),
            )
        )
    note = "Phases of a strided product are added up. Vector rows show the time that is not hidden behind the array."
    return HtmlTable("Layers and stages", columns, tuple(rows), note=note)


def command_of(run: RunResult) -> str:
    """The command that makes the run again, as far as the result says; empty where it does not."""
    meta = run.meta
    if meta.get("semantics") not in _KINDS or not {"workload", "accelerator", "batch", "mode"} <= meta.keys():
        return ""
    parts = ["nmsat", "run", str(meta["workload"]), "-a", str(meta["accelerator"])]
    if meta["semantics"] == "scalesim":
        parts += ["--semantics", "scalesim", "--dataflow", str(meta.get("dataflow", "os"))]
        return shlex.join([*parts, "--batch", str(meta["batch"]), "--json", "result.json"])
    parts += ["--method", str(meta.get("method")), "--sparsity", str(meta.get("sparsity"))]
    parts += ["--batch", str(meta["batch"]), "--mode", str(meta["mode"])]
    options = meta.get("options", {})
    if options.get("dataflow", "auto") != "auto":
        parts += ["--dataflow", str(options["dataflow"])]
    if not options.get("dram_overlap", True):
        parts += ["--overlap", "none"]
    parts += [f"--no-{name}" for name in ("interleave", "pregenerate") if not options.get(name, True)]
    return shlex.join([*parts, "--json", "result.json"])


def _joules(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:,.0f} J" if value >= 1000 else f"{value:.3g} J"


def _totals(run: RunResult) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in run.totals.items() if key != "printed_cycles"]


def _energy_table(run: RunResult) -> HtmlTable | None:
    """Events, their energies and their sources, where the result counts events by a table that is still there."""
    events = run.totals.get("events")
    fields = run.meta.get("accelerator_fields", {})
    if not isinstance(events, dict) or "energy_table" not in fields:
        return None
    try:
        table = EnergyTable.load(fields["energy_table"])
    except NmsatError:
        return None
    if table.config_hash() not in str(run.meta.get("energy_table")):
        return None
    columns = (Column("event"), *(Column(name, True) for name in BOUNDS), Column("from"))
    rows = tuple(
        (Cell(name), *(number(getattr(table.events[name], bound)) for bound in BOUNDS), Cell(table.events[name].source))
        for name in EVENTS
    )
    return HtmlTable(f"Energy table {table.name} ({table.kind})", columns, rows, sortable=False, wrap=True)
