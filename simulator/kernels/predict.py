"""Predicted cycles of a packed product on a core: pipeline plus footprint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ...dataflow.kernels.description import LANES, Kernel
from ...dataflow.kernels.packing import Packed, pack
from ...dataflow.kernels.panels import Panel, cut, passes, runs
from ...dataflow.kernels.samples import sample_weights
from ...models.core import Core
from .arm_loops import decode, loop_text, row_text
from .footprint import LINE_BYTES, footprint
from .row_exits import exit_misses
from .row_streams import RowCode, section_cycles
from .x86_code import panel_code

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted cycles of one run of a product, a model's figure.

    ``cycles`` is rounded to an integer; ``bound`` says what holds it back: ``issue``, ``ports X/Y``, ``latency``, or
    the memory level (``L2``, ``L3``, ``DRAM``) when waiting for it is the larger part.
    """

    kernel: str
    core: str
    shape: Shape
    cycles: int
    bound: str
    pipeline_cycles: int
    memory_cycles: int
    dram_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kernel": self.kernel,
            "core": self.core,
            "shape": list(self.shape),
            "cycles": self.cycles,
            "bound": self.bound,
            "pipeline_cycles": self.pipeline_cycles,
            "memory_cycles": self.memory_cycles,
            "dram_bytes": self.dram_bytes,
        }


def predict(core: Core, packed: Packed, m: int) -> Prediction:
    """Cycles of one run of a packed product over ``m`` columns.

    Raises
    ------
    MissingToolError
        For a wasm core without the extra ``wasm``.
    NmsatError
        If the core has no code for the kernel.
    """
    kernel = packed.kernel
    total, bounds = 0.0, ""
    step = kernel.unroll * (kernel.pattern.keep if kernel.pattern else 1)  # stored columns an iteration
    for section in packed.sections:
        vectors = section_vectors(kernel, section.height)
        copied = kernel.panels == "copied"
        turns = section.counts // (kernel.pattern.keep if kernel.pattern else 1)
        for panel, count in runs(cut(m, vectors, kernel.lanes(m))):
            times = sum(times for _, times in passes(count, kernel.group))
            missed = exit_misses(core, turns, count / times)
            code = row_code(core, kernel, section.height, panel)
            cycles, held = section_cycles(core, code, section.counts, step * code.repeats, missed)
            if copied:  # one load and one store a vector
                cycles += packed.k * len(panel.starts) * max(1.0, split_loads(core, panel, m))
            else:
                cycles += split_loads(core, panel, m) * section.channels.size
            around = len(section.counts) * len(code.around) / core.issue_width.value
            total += count * cycles + times * (around + core.call_cycles.value)
            bounds = bounds or held
    memory = footprint(core, packed, m, cut(m, kernel.vectors, kernel.lanes(m)))
    level = memory.level if memory.cycles > total else bounds
    cycles = max(1, round(total + memory.cycles))
    shape = (m, packed.n, packed.k)
    dram = round(LINE_BYTES * (memory.scattered_lines[-1] + memory.stream_lines[-1]))
    return Prediction(kernel.name, core.name, shape, cycles, level, round(total), round(memory.cycles), dram)


def predict_shape(core: Core, kernel: Kernel, shape: Shape, sparsity: float, seed: int = 0) -> Prediction:
    """:func:`predict` of seeded weights of the given sparsity."""
    return predict(core, sample(kernel, shape[1], shape[2], sparsity, seed), shape[0])


@lru_cache(maxsize=256)
def sample(kernel: Kernel, n: int, k: int, sparsity: float, seed: int = 0) -> Packed:
    """Seeded weights (n, k) packed for a kernel."""
    return pack(kernel, sample_weights(kernel, (1, n, k), sparsity, seed))


def arm_form(kernel: Kernel) -> Kernel:
    """The kernel with the streams of the AArch64 loops: counts, steps and values apart, panels in place."""
    return replace(kernel, stream="separate", order="natural", panels="in_place", broadcast="splat")


def section_vectors(kernel: Kernel, height: int) -> int:
    """Vectors of a panel of a section: rows left over from blocks of nr take wider panels."""
    if height < kernel.nr:
        return max(1, min(kernel.vectors * kernel.nr // height, 7))
    return kernel.vectors


def split_loads(core: Core, panel: Panel, m: int) -> float:
    """Expected cycles that a visit of a row loses to vector loads across cache lines."""
    if panel.lanes != LANES:
        return 0.0
    step = int(np.gcd(4 * m, 64))
    starts = np.arange(0, 64, min(step, 64))
    crossing = sum(float(np.mean((starts + 4 * s) % 64 > 48)) for s in panel.starts)
    return crossing * core.split_load_cycles.value / 2


@lru_cache(maxsize=8192)
def row_code(core: Core, kernel: Kernel, height: int, panel: Panel) -> RowCode:
    """Instruction streams of a panel's rows on a core."""
    if core.engine != "none":
        return panel_code(kernel, height, panel, core.engine)
    vectors = len(panel.starts)
    head, tail = row_text(kernel, height, vectors)
    loops = [loop_text(kernel, height, vectors)]
    if kernel.unroll > 1:
        loops.insert(0, loop_text(replace(kernel, unroll=1), height, vectors))
    streams = []
    for loop in loops:
        body = decode(loop)
        streams.append((*body[:-1], type(body[-1])("branch", exits=True)))
    between = ((),) if kernel.unroll > 1 else ()
    return RowCode(decode(head), tuple(streams), decode(tail), between)
