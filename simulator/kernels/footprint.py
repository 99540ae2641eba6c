"""Cycles that a kernel waits for the caches: what misses each level, from the sizes of what is used again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...dataflow.kernels.packing import Packed
from ...dataflow.kernels.panels import Panel
from ...models.core import Core

LINE_BYTES = 64
_RAMP = 0.25  # a level begins to miss below its size and misses all above it by this share


@dataclass(frozen=True, slots=True)
class Footprint:
    """Lines of one product that move into each cache level, and what they cost.

    Attributes
    ----------
    scattered_lines, stream_lines : tuple of float
        Lines a level fetches from the one behind it: rows of X picked by index, and the packed weights and results.
    cycles : float
        Exposed cycles of all levels.
    level : str
        The level whose misses cost most ("L2" when the first level misses into it), or "".
    """

    scattered_lines: tuple[float, ...]
    stream_lines: tuple[float, ...]
    cycles: float
    level: str


def row_lines(columns: int, pitch_bytes: int) -> float:
    """Cache lines that ``columns`` float32 of a row touch, averaged over the rows' alignments."""
    step = int(np.gcd(pitch_bytes, LINE_BYTES))
    starts = np.arange(0, LINE_BYTES, step)
    return float(np.mean((starts + 4 * columns - 1) // LINE_BYTES + 1))


def missing(used_bytes: float, size_bytes: int) -> float:
    """Share of accesses that miss a level when ``used_bytes`` pass between two uses: 0, a ramp, 1."""
    return float(np.clip((used_bytes / size_bytes - 1 + _RAMP) / (2 * _RAMP), 0, 1))


def footprint(core: Core, packed: Packed, m: int, panels: tuple[Panel, ...]) -> Footprint:
    """Footprint of a product whose input, output and weights were last touched one run ago.

    Three distances between uses decide what misses a level: a row of X within a panel (the panel's share of X, of
    which a level keeps what it has room for), the packed weights from panel to panel (one panel's X, Y and weights),
    and X and Y from run to run (everything). Grouped panels count as one wide panel; X and Y are touched in long
    stretches, which the prefetchers follow.
    """
    group = min(packed.kernel.group, len(panels))
    streamed = packed.kernel.panels == "copied" or group > 1
    weights = float(packed.footprint_bytes)
    everything = 4.0 * m * (packed.k + packed.n) + weights
    visits = sum(s.channels.size for s in packed.sections)
    used = len(np.unique(np.concatenate([s.channels.reshape(-1) for s in packed.sections]))) if visits else 0
    scattered, streams = [], []
    for cache in core.caches:
        far, near = 0.0, 0.0
        for panel in panels:
            x_lines = row_lines(group * panel.columns, 4 * m) / group
            y_lines = x_lines
            if packed.kernel.panels == "copied":
                x_lines = 16 * len(panel.starts) / LINE_BYTES
            x_bytes = group * used * x_lines * LINE_BYTES
            room = max(0.0, 1 - missing(weights / max(1, packed.n) + x_bytes, cache.size_bytes))
            kept = max(room, min(1.0, cache.size_bytes / x_bytes)) if x_bytes else 1.0
            again = max(0, visits - used) * x_lines * (1 - kept)
            panel_bytes = x_bytes + weights + group * packed.n * y_lines * LINE_BYTES
            first = used * y_lines * missing(everything, cache.size_bytes)
            if streamed:  # copies by a loop of loads that nothing waits for
                near += first
            else:
                far += first
            far += again
            near += weights / LINE_BYTES / group * missing(panel_bytes, cache.size_bytes)
            near += packed.n * y_lines * missing(everything, cache.size_bytes)
        scattered.append(far)
        streams.append(near)
    each = [
        a * cache.miss_cycles + b * cache.stream_cycles
        for a, b, cache in zip(scattered, streams, core.caches, strict=True)
    ]
    worst = int(np.argmax(each))
    names = [f"L{i + 2}" for i in range(len(each) - 1)] + ["DRAM"]
    return Footprint(tuple(scattered), tuple(streams), sum(each), names[worst] if each[worst] else "")
