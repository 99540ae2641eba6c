"""simulate: compile a workload and time its program."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from .. import __version__
from ..dataflow.compiler import compile_program
from ..dataflow.program import Kind, Mode, Order, Program, functions_of
from ..dataflow.schedule import Options
from ..models.accelerator import Accelerator
from ..models.sparsity import Sparsity
from ..models.workload import Workload
from .energy import events_of, joules, table_of, total
from .result import RunResult
from .timing import StepTime, stage_name, time_program


def simulate(
    workload: Workload,
    accelerator: Accelerator,
    *,
    method: str = "bdwp",
    sparsity: str | Sparsity = "2:8",
    batch: int = 512,
    mode: str = "train",
    options: Options | None = None,
) -> RunResult:
    """Simulate one training step (or inference) of a batch.

    Parameters are those of :func:`nmsat.dataflow.compile_program`. ``totals["speedup_over_dense"]`` compares
    with the dense method under the same options, scheduled for itself.

    Returns
    -------
    RunResult
        Exact integers under the model of docs/accelerator.md; energies are a model with a range (docs/energy.md).
    """
    options = options or Options()
    program = compile_program(
        workload, accelerator, method=method, sparsity=sparsity, batch=batch, mode=mode, options=options
    )
    dense_cycles = None
    if method != "dense":
        dense_cycles = _dense_cycles(workload, accelerator, batch, mode, options)
    result = _with_measured(summarise(program, accelerator, options, dense_cycles), workload, accelerator)
    return _with_activations(result, workload)


def _with_measured(result: RunResult, workload: Workload, accelerator: Accelerator) -> RunResult:
    """Count what short groups waste: the array spends N slots on each, useful are a mask's own non-zeros.

    Rows then have ``density``, None where it is not known; cycles stay, and energies, for a slot multiplies
    either way.
    """
    meta = result.meta | ({"notes": list(workload.notes)} if workload.notes else {})
    densities = {
        (layer.name, stage): facts.density
        for layer in workload.layers
        for stage in ("ff", "bp")
        if layer.stages and (facts := layer.stages.of(stage)) and facts.density is not None
    }
    if not densities:
        return RunResult(meta, result.totals, result.layers)
    rows: list[dict[str, Any]] = []
    for given in result.layers:
        density = densities.get((given["layer"], given["stage"]))
        row: dict[str, Any] = {**given, "density": density}
        if density is not None and row["sparsity"] != "dense" and result.meta["method"] != "sdgp":
            useful = min(round(row["macs"] * density), row["useful_macs"])
            spent = row["cycles"] * accelerator.processing_elements
            row |= {"useful_macs": useful, "utilization": useful / spent if spent else 0.0}
        rows.append(row)
    useful = sum(row["useful_macs"] for row in rows)
    utilization = useful / (result.totals["cycles"] * accelerator.processing_elements)
    return RunResult(meta, result.totals | {"useful_macs": useful, "utilization": utilization}, tuple(rows))


def _with_activations(result: RunResult, workload: Workload) -> RunResult:
    """Measured activation densities beside what the array does, which multiplies by zeros all the same.

    Where the file knows any, rows have ``activation_density`` (or None), and the totals ``nonzero_macs``: the useful
    ones without those by a zero activation, as if zeros and masks were independent. Nothing else changes.
    """
    known = {
        (layer.name, stage): facts.activation_density
        for layer in workload.layers
        for stage in ("ff", "bp", "wu")
        if layer.stages and (facts := layer.stages.of(stage)) and facts.activation_density is not None
    }
    if not known:
        return result
    rows = tuple({**row, "activation_density": known.get((row["layer"], row["stage"]))} for row in result.layers)
    nonzero = sum(round(row["useful_macs"] * _share(row["activation_density"])) for row in rows)
    return RunResult(result.meta, result.totals | {"nonzero_macs": nonzero}, rows)


def _share(density: float | None) -> float:
    return 1.0 if density is None else density


@lru_cache(maxsize=64)
def _dense_cycles(workload: Workload, accelerator: Accelerator, batch: int, mode: str, options: Options) -> int:
    program = compile_program(workload, accelerator, method="dense", batch=batch, mode=mode, options=options)
    return sum(step.cycles for step in time_program(program, accelerator, options))


def summarise(
    program: Program, accelerator: Accelerator, options: Options, dense_cycles: int | None = None
) -> RunResult:
    """Time a program and gather rows and totals; ``dense_cycles`` None: the program is its own baseline."""
    steps = time_program(program, accelerator, options)
    events, table = [events_of(step, accelerator) for step in steps], table_of(accelerator)
    rows: tuple[dict[str, Any], ...] = tuple(
        _row(step, program, accelerator) | {"energy_pj": float(table.picojoules(item))}
        for step, item in zip(steps, events, strict=True)
    )
    cycles = sum(row["cycles"] for row in rows)
    macs, useful = sum(row["macs"] for row in rows), sum(row["useful_macs"] for row in rows)
    seconds = cycles / accelerator.clock_hz
    happened = total(events, seconds)
    read, write = sum(row["dram_read_bytes"] for row in rows), sum(row["dram_write_bytes"] for row in rows)
    capacity = accelerator.dram_gib * 2**30
    totals: dict[str, Any] = {
        "cycles": cycles,
        "seconds": seconds,
        "macs": macs,
        "useful_macs": useful,
        "utilization": useful / (cycles * accelerator.processing_elements),
        "gflops_dense_equivalent": 2 * macs / seconds / 1e9,
        "dram_read_bytes": read,
        "dram_write_bytes": write,
        **joules(happened, table),
        "events": asdict(happened),
        "speedup_over_dense": (dense_cycles or cycles) / cycles,
        "compute_cycles": sum(row["compute_cycles"] for row in rows),
        "stall_cycles": sum(row["stall_cycles"] for row in rows),
        "vector_exposed_cycles": sum(row["cycles"] for row in rows if row["stage"] == "vector"),
        "dram_channel_bytes": _by_channel(read + write, accelerator),
        "dram_footprint_bytes": program.dram_bytes,
        "fits_dram": program.dram_bytes <= capacity,
    }
    meta = dict(program.meta) | {
        "nmsat": __version__,
        "config_hash": accelerator.config_hash(),
        "seed": None,
        "semantics": "nmsat",
        "accelerator_fields": accelerator.model_dump(),
        "energy_table": f"{table.name} ({table.kind}) {table.config_hash()}",
        "options": {name: getattr(options, name) for name in Options.__dataclass_fields__},
    }
    return RunResult(meta, totals, rows)


def _by_channel(total: int, accelerator: Accelerator) -> list[int]:
    """Bytes of each channel when stripes of dram_interleave_bytes go round robin."""
    stripe, channels = accelerator.dram_interleave_bytes, accelerator.dram_channels
    full, rest = divmod(total, stripe * channels)
    return [full * stripe + min(max(rest - i * stripe, 0), stripe) for i in range(channels)]


def _row(step: StepTime, program: Program, accelerator: Accelerator) -> dict[str, Any]:
    item = step.item
    product = item.kind is Kind.PRODUCT
    keep, group = (item["keep"], item["group"]) if product else (1, 1)
    pattern = Sparsity(keep, group) if product and item["block"] == 1 else Sparsity.dense()
    cycles_available = step.cycles * accelerator.processing_elements
    taps = 1 if not product else item["taps_y"] * item["taps_x"]
    transposed = product and step.cost is not None and bool(item["flags"] & 1)
    return {
        "layer": program.layers[item["layer"]],
        "stage": stage_name(step),
        "op": _op(step),
        "m": item["m"] if product else _elements(step),
        "n": item["n"] if product else 1,
        "k": item["kc"] * (1 if transposed else taps) // item["block"] if product else 1,
        "groups": item["count"] if product else 1,
        "sparsity": str(pattern),
        "dataflow": Mode(item["mode"]).name.lower() if product else "",
        "interleave": item["interleave"] if product else 0,
        "tiles": step.cost.tiles if step.cost else 0,
        "cycles": step.cycles,
        "compute_cycles": step.shown_cycles,
        "stall_cycles": step.cycles - step.shown_cycles,
        "macs": step.macs,
        "useful_macs": step.useful_macs,
        "utilization": step.useful_macs / cycles_available if cycles_available else 0.0,
        "dram_read_bytes": step.read_bytes,
        "dram_write_bytes": step.write_bytes,
        "energy_pj": 0.0,
        "order": Order(item["order"]).name.lower() if product else "",
        "chain": item["chain"],
        "busy_cycles": step.compute_cycles,
        "fill_cycles": min(step.cost.fill_cycles, step.cycles - step.shown_cycles) if step.cost else 0,
    }


def _elements(step: StepTime) -> int:
    item = step.item
    if item.kind in (Kind.VECTOR, Kind.HOST):
        return item["elements"]
    return item["out_channels"] * item["taps"] * item["in_channels"]


def _op(step: StepTime) -> str:
    item = step.item
    if item.kind is Kind.PRODUCT:
        return "matmul"
    if item.kind in (Kind.VECTOR, Kind.HOST):
        return "+".join(functions_of(item["functions"]))
    return "update" if item.kind is Kind.UPDATE else "prune"
