"""The packed product compiled by numba: same operations, same order, same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ...dataflow.kernels.packing import Packed
from .reference import check_input

F32 = NDArray[np.float32]
_PANEL = 512  # columns a pass: X rows of a panel and the sums stay in the first-level cache


@intrinsic
def _fused(typing: Any, a: Any, b: Any, c: Any) -> Any:  # pragma: no cover - compiled by numba
    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), build


@njit(cache=True, error_model="numpy")
def _section(fused, height, rows, counts, channels, values, x, start, y):  # pragma: no cover - compiled
    """Add the stored blocks to y (n, m), which holds ``start``'s values on entry to each row."""
    m, apart = x.shape[1], channels.shape[1] > 1
    for first in range(0, m, _PANEL):
        last = min(first + _PANEL, m)
        at = 0
        for block in range(len(rows)):
            for h in range(height):
                y[rows[block, h], first:last] = start[rows[block, h]]
            for _ in range(counts[block]):
                for h in range(height):
                    source = x[channels[at, h if apart else 0], first:last]
                    w = np.float32(values[at, h])
                    target = y[rows[block, h], first:last]
                    if fused:
                        for j in range(last - first):
                            target[j] = _fused(w, source[j], target[j])  # pyright: ignore[reportCallIssue]
                    else:
                        for j in range(last - first):
                            target[j] = w * source[j] + target[j]
                at += 1


@njit(cache=True, error_model="numpy")
def _finish(fused, y, scaled, scale, bias, bounded, low, high):  # pragma: no cover - compiled
    for row in range(y.shape[0]):
        target = y[row]
        if scaled:
            for j in range(len(target)):
                if fused:
                    target[j] = _fused(target[j], scale[row], bias[row])  # pyright: ignore[reportCallIssue]
                else:
                    target[j] = target[j] * scale[row] + bias[row]
        if bounded:
            for j in range(len(target)):
                v = target[j]
                v = low if v < low else v
                target[j] = high if v > high else v


def multiply(packed: Packed, x: F32, out: F32 | None = None) -> F32:
    """Y (n, m) float32, bit-equal to :func:`.reference.multiply`; ``out`` is written when given."""
    x = check_input(packed, x)
    y = np.empty((packed.n, x.shape[1]), np.float32) if out is None else out
    fused, scaled = packed.kernel.arithmetic == "fma", packed.scale is not None
    start = np.zeros_like(packed.bias) if scaled else packed.bias
    for s in packed.sections:
        _section(fused, s.height, s.rows, s.counts, s.channels, s.values, x, start, y)
    bounds = packed.kernel.clamp
    if scaled or bounds is not None:
        low, high = (np.float32(v) for v in bounds or (0, 0))
        scale = packed.bias if packed.scale is None else packed.scale
        _finish(fused, y, scaled, scale, packed.bias, bounds is not None, low, high)
    return y
