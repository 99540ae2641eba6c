"""The packed product in NumPy, in the exact order of operations that generated code must equal bit for bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels.packing import Packed, Section
from ...models.errors import NmsatError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
_CHUNK = 1 << 16  # elements of a row chunk: keeps the step's temporaries in cache


def fma(a: F32, b: F32, c: F32) -> F32:
    """round32(a * b + c) with a single rounding, element by element.

    The product of two binary32 is exact in binary64. The binary64 sum is made sticky: TwoSum gives its error, and
    an inexact sum with an even last bit moves to the odd neighbour on the error's side (round to odd), after
    which the rounding to binary32 is correct because 53 >= 24 + 2 (Boldo and Melquiond, 2008).
    """
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) * b.astype(np.float64)
        addend = c.astype(np.float64)
        total = np.asarray(product + addend)
        back = total - product
        error = (product - (total - back)) + (addend - back)
        bits = total.view(np.int64)
        inexact = (error != 0) & np.isfinite(total) & np.isfinite(error) & ((bits & 1) == 0)
        away = (error > 0) == (total > 0)
        sticky = bits + np.where(inexact, np.where(away, 1, -1), 0)
        return sticky.view(np.float64).astype(np.float32)


def multiply_add(a: F32, b: F32, c: F32) -> F32:
    """round32(round32(a * b) + c)."""
    with np.errstate(all="ignore"):
        return a * b + c


def clamp(y: F32, bounds: tuple[float, float] | None) -> F32:
    """Values below the lower bound become it, values above the upper become that; NaN and -0 stay."""
    if bounds is None:
        return y
    low, high = np.float32(bounds[0]), np.float32(bounds[1])
    y = np.where(y < low, low, y)
    return np.where(y > high, high, y)


def check_input(packed: Packed, x: F32) -> F32:
    """X (k, m) as contiguous float32, or an :class:`NmsatError`."""
    x = np.asarray(x)
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[0] != packed.k or x.shape[1] < 1:
        raise NmsatError.rule("kernel", "x", f"float32 of shape ({packed.k}, m >= 1)", f"{x.dtype} {x.shape}")
    if np.isnan(x).any():
        raise NmsatError.rule("kernel", "x", "free of NaN", "a NaN")
    return np.ascontiguousarray(x)


def multiply(packed: Packed, x: F32) -> F32:
    """Y (n, m) float32 of a packed matrix and X (k, m) float32.

    ``acc = bias; for k ascending over the stored columns: acc = acc + w x`` with the kernel's rounding; int8
    kernels start at 0 and finish with ``acc * scale + bias``. Rows are independent, so step j of every row of
    a chunk is taken at once.
    """
    x = check_input(packed, x)
    y = np.empty((packed.n, x.shape[1]), np.float32)
    for section in packed.sections:
        offsets = np.concatenate([[0], np.cumsum(section.counts, dtype=np.int64)])
        chunk = max(1, _CHUNK // (x.shape[1] * section.height))
        for first in range(0, len(section.counts), chunk):
            blocks = np.arange(first, min(first + chunk, len(section.counts)))
            rows = section.rows[blocks]
            y[rows] = _rows(packed, section, x, blocks, rows, offsets)
    return y


def _rows(packed: Packed, section: Section, x: F32, blocks: NDArray, rows: NDArray, offsets: NDArray) -> F32:
    step = fma if packed.kernel.arithmetic == "fma" else multiply_add
    bias = np.broadcast_to(packed.bias[rows][:, :, None], (*rows.shape, x.shape[1]))
    acc = np.zeros(bias.shape, np.float32) if packed.scale is not None else bias.copy()
    counts = section.counts[blocks]
    for j in range(int(counts.max())):
        live = np.nonzero(counts > j)[0]
        at = offsets[blocks[live]] + j
        column = x[section.channels[at]]
        weight = section.values[at].astype(np.float32)[:, :, None]
        acc[live] = step(weight, column, acc[live])
    if packed.scale is not None:
        acc = step(acc, packed.scale[rows][:, :, None], bias)
    return clamp(acc, packed.kernel.clamp)
