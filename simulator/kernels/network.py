"""A whole network's inference on a CPU core, layer by layer, by the cycle model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ... import __version__
from ...dataflow.kernels.description import LANES, Kernel
from ...models.core import Core
from ...models.errors import NmsatError
from ...models.methods import METHODS
from ...models.sparsity import Sparsity
from ...models.workload import Layer, Workload
from ..result import RunResult
from .pipeline import Instruction, port_cycles
from .predict import predict_shape
from .tile_choice import choose


@dataclass(frozen=True, slots=True)
class Pruning:
    """How prunable layers are zeroed: a share of zeros, an N:M pattern, or neither; ``heights`` gives block rows."""

    zeros: float = 0.0
    pattern: Sparsity | None = None
    heights: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Pruning:
        """``2:8``, ``dense``, or a share of zeros such as ``0.9``.

        Raises
        ------
        NmsatError
            For anything else, or a share not in 0..1.
        """
        if ":" in text or text == "dense":
            pattern = Sparsity.parse(text)
            return cls() if pattern.is_dense else cls(pattern=pattern)
        try:
            zeros = float(text)
        except ValueError:
            zeros = -1.0
        if not 0 <= zeros < 1:
            raise NmsatError.rule("", "sparsity", "N:M, dense, or a share of zeros from 0 to below 1", text)
        return cls(zeros=zeros)

    def __str__(self) -> str:
        return str(self.pattern) if self.pattern else (f"{self.zeros:g}" if self.zeros else "dense")


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Cycles of one layer of one sample, before the core's network factor.

    ``cycles`` of a product are its kernel's and its outputs'; ``silu_elements`` cost ``silu_cycles`` each on top.
    """

    layer: Layer
    shape: tuple[int, int, int]
    kernel: str
    sparsity: str
    cycles: float
    memory_cycles: float
    useful_macs: int
    dram_bytes: int
    silu_elements: int = 0


def layer_times(core: Core, workload: Workload, pruning: Pruning, tile: Kernel | None = None) -> list[LayerTime]:
    """Every layer that costs time; batch normalisation, clamps and residual adds are part of the outputs' cost.

    ``tile`` fixes the kernel of unstructured and blocked layers instead of choosing it a layer.
    """
    return [_product(core, x, pruning, tile) if x.is_product else _elementwise(x) for x in workload.expanded().layers]


def _product(core: Core, layer: Layer, pruning: Pruning, tile: Kernel | None) -> LayerTime:
    outputs = layer.out_elements * core.output_cycles.value
    square = (layer.kh, layer.kw, layer.pad, layer.groups) == (1, 1, 0, 1)
    if layer.op not in ("conv2d", "linear") or not square:
        cycles = layer.macs * core.direct_mac_cycles.value + outputs
        k = layer.kh * layer.kw * (layer.ic // layer.groups)
        return LayerTime(layer, (layer.oh * layer.ow, layer.oc, k), "direct", "dense", cycles, 0.0, layer.macs, 0)
    m = layer.tokens if layer.op == "linear" else layer.oh * layer.ow
    shape, mine = (m, layer.oc, layer.ic), pruning if layer.prune else Pruning()
    pattern = (layer.pattern or mine.pattern) if mine.pattern else None
    height = dict(pruning.heights).get(layer.name, 1)
    if tile is not None and mine.zeros:
        found = predict_shape(core, replace(tile, nr=height), shape, mine.zeros)
    else:
        found = choose(core, shape, mine.zeros, pattern, height)[1]
    density = pattern.keep / pattern.group if pattern else 1 - mine.zeros
    return LayerTime(
        layer, shape, found.kernel, str(Pruning(mine.zeros, pattern)), found.cycles + outputs, found.memory_cycles,
        round(layer.macs * density), found.dram_bytes,
    )  # fmt: skip


def _elementwise(layer: Layer) -> LayerTime:
    silu = layer.out_elements if layer.function in ("silu", "sigmoid", "gelu") else 0
    return LayerTime(layer, (layer.out_elements, 1, 1), "", "dense", 0.0, 0.0, 0, 0, silu)


def simulate_core(
    workload: Workload, core: Core, *, method: str = "bdwp", sparsity: str = "2:8", batch: int = 1, mode: str = "infer"
) -> RunResult:
    """One inference of a batch, sample after sample, in the columns of :func:`nmsat.simulator.simulate`.

    Raises
    ------
    NmsatError
        For training, an unknown method, or a sparsity that is neither N:M nor a share of zeros.
    """
    if mode != "infer":
        raise NmsatError.rule("", "--mode", f"infer on the CPU core {core.name}", mode)
    if method not in METHODS:
        raise NmsatError.rule("", "method", "one of " + ", ".join(METHODS), method)
    pruning = Pruning.parse(sparsity) if METHODS[method].ff_weights else Pruning()
    rows = tuple(_row(core, time, batch) for time in layer_times(core, workload, pruning))
    cycles = sum(row["cycles"] for row in rows)
    dense = cycles if pruning == Pruning() else _dense_cycles(workload, core, batch)
    macs, useful = sum(row["macs"] for row in rows), sum(row["useful_macs"] for row in rows)
    seconds = cycles / core.clock_hz
    totals: dict[str, Any] = {
        "cycles": cycles,
        "seconds": seconds,
        "macs": macs,
        "useful_macs": useful,
        "utilization": useful / (cycles * peak_macs(core)),
        "gflops_dense_equivalent": 2 * macs / seconds / 1e9,
        "dram_read_bytes": sum(row["dram_read_bytes"] for row in rows),
        "dram_write_bytes": 0,
        "energy_j": 0.0,
        "speedup_over_dense": dense / cycles,
        "compute_cycles": sum(row["compute_cycles"] for row in rows),
        "stall_cycles": sum(row["stall_cycles"] for row in rows),
    }
    meta = {
        "nmsat": __version__,
        "config_hash": core.config_hash(),
        "workload": workload.name,
        "workload_hash": workload.config_hash(),
        "accelerator": core.name,
        "method": method,
        "sparsity": str(pruning),
        "batch": batch,
        "mode": mode,
        "seed": 0,
        "semantics": "cpu",
        "note": "cycle model of docs/kernel_model.md; energy and DRAM writes are not modelled",
    }
    return RunResult(meta, totals, rows)


@lru_cache(maxsize=64)
def _dense_cycles(workload: Workload, core: Core, batch: int) -> int:
    return sum(_row(core, time, batch)["cycles"] for time in layer_times(core, workload, Pruning()))


@lru_cache(maxsize=64)
def peak_macs(core: Core) -> float:
    """Multiply-accumulates a cycle that the vector pipes can start."""
    return LANES / port_cycles(core, [Instruction("fma")])[0]


def _row(core: Core, time: LayerTime, batch: int) -> dict[str, Any]:
    scale, layer = core.network_factor.value * batch, time.layer
    silu = time.silu_elements * core.silu_cycles.value * batch
    cycles, stall = round(time.cycles * scale + silu), round(time.memory_cycles * scale)
    product = layer.is_product
    return {
        "layer": layer.name,
        "stage": "ff" if product else "vector",
        "op": "matmul" if product else str(layer.function),
        "m": time.shape[0],
        "n": time.shape[1],
        "k": time.shape[2],
        "groups": layer.groups if product else 1,
        "sparsity": time.sparsity,
        "dataflow": time.kernel,
        "interleave": 0,
        "tiles": 0,
        "cycles": cycles,
        "compute_cycles": cycles - stall,
        "stall_cycles": stall,
        "macs": layer.macs * batch,
        "useful_macs": time.useful_macs * batch,
        "utilization": time.useful_macs * batch / (cycles * peak_macs(core)) if cycles else 0.0,
        "dram_read_bytes": time.dram_bytes * batch,
        "dram_write_bytes": 0,
        "energy_pj": 0,
        "order": "",
        "chain": 0,
        "busy_cycles": cycles - stall,
        "fill_cycles": 0,
    }
