"""SCALE-Sim semantics: the cycles that tool prints, so that its users can check us against what they know.

Dense products (m, n, k) on R x C. Spatial rows, spatial columns and temporal length (Sr, Sc, T) are (m, n, k) for
OS, (k, n, m) for WS, (k, m, n) for IS; folds = ceil(Sr/R) * ceil(Sc/C); a fold costs T+R+C-2 (OS) or T+2R+C-2 (WS,
IS). The tool prints one less than the sum of its folds; so does this mode.
"""

from __future__ import annotations

from .. import __version__
from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.workload import Layer, Workload
from .result import RunResult

DATAFLOWS = ("os", "ws", "is")


def layer_cycles(m: int, n: int, k: int, rows: int, cols: int, dataflow: str) -> int:
    """Printed cycles of one dense product."""
    sr, sc, t = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    fold = t + rows + cols - 2 + (0 if dataflow == "os" else rows)
    return -(-sr // rows) * -(-sc // cols) * fold - 1


def product_sizes(layer: Layer, batch: int = 1) -> tuple[int, int, int, int]:
    """(m, n, k, repeats) of the forward product."""
    if layer.op == "linear":
        return batch * layer.tokens, layer.oc, layer.ic, 1
    if layer.op == "attention":
        raise NmsatError.rule(
            f"layer {layer.name!r}", "op", "conv2d, linear or depthwise under SCALE-Sim semantics", layer.op
        )
    m = batch * layer.oh * layer.ow
    return m, layer.oc // layer.groups, layer.kh * layer.kw * (layer.ic // layer.groups), layer.groups


def simulate_scalesim(
    workload: Workload, accelerator: Accelerator, *, dataflow: str = "os", batch: int = 1
) -> RunResult:
    """Forward cycles of every product under SCALE-Sim semantics: no memory, no sparsity, no tile overlap."""
    if dataflow not in DATAFLOWS:
        raise NmsatError.rule("", "dataflow", "os, ws or is under SCALE-Sim semantics", dataflow)
    rows, pes = [], accelerator.processing_elements
    for layer in workload.expanded().layers:
        if not layer.is_product:
            continue
        m, n, k, repeats = product_sizes(layer, batch)
        cycles = repeats * layer_cycles(m, n, k, accelerator.rows, accelerator.cols, dataflow)
        macs = m * n * k * repeats
        rows.append(
            {
                "layer": layer.name,
                "stage": "ff",
                "op": "matmul",
                "m": m,
                "n": n,
                "k": k,
                "groups": repeats,
                "sparsity": "dense",
                "dataflow": dataflow,
                "interleave": 1,
                "tiles": 0,
                "cycles": cycles,
                "compute_cycles": cycles,
                "stall_cycles": 0,
                "macs": macs,
                "useful_macs": macs,
                "utilization": macs / ((cycles + repeats) * pes),
                "dram_read_bytes": 0,
                "dram_write_bytes": 0,
                "energy_pj": 0.0,
            }
        )
    cycles, macs = sum(row["cycles"] for row in rows), sum(row["macs"] for row in rows)
    spent = cycles + sum(row["groups"] for row in rows)  # what the folds really take; ratios use it
    seconds = spent / accelerator.clock_hz
    totals = {
        "cycles": cycles,
        "seconds": seconds,
        "macs": macs,
        "useful_macs": macs,
        "utilization": macs / (spent * pes),
        "gflops_dense_equivalent": 2 * macs / seconds / 1e9,
        "dram_read_bytes": 0,
        "dram_write_bytes": 0,
        "energy_j": 0.0,
        "speedup_over_dense": 1.0,
        "printed_cycles": [row["cycles"] for row in rows],
    }
    meta = {
        "nmsat": __version__,
        "workload": workload.name,
        "workload_hash": workload.config_hash(),
        "accelerator": accelerator.name,
        "config_hash": accelerator.config_hash(),
        "method": "dense",
        "sparsity": "dense",
        "batch": batch,
        "mode": "infer",
        "seed": None,
        "semantics": "scalesim",
        "dataflow": dataflow,
    }
    return RunResult(meta, totals, tuple(rows))
