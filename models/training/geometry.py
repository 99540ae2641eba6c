"""Feature maps as the rows of matrix products: im2col forward, phases of input pixels backward.

Activations are NHWC, weights OHWI. Columns are (rows, taps, channels): taps ascend row by row through the kernel as
stored, channels are innermost, rows run through images, then y, then x. This is the k order of docs/accelerator.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..golden.floats import F16
from ..workload import Layer


def forward_columns(x: F16, layer: Layer) -> F16:
    """im2col of a layer's input: float16 (rows, taps, channels), +0 outside the image.

    ``x`` is (batch, h, w, ic) of a convolution; for a linear layer anything that holds rows of ``ic``.
    """
    if layer.op == "linear":
        return x.reshape(-1, 1, layer.ic)
    pad = layer.pad
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(padded, (layer.kh, layer.kw), axis=(1, 2))  # type: ignore[call-overload]
    windows = windows[:, :: layer.stride, :: layer.stride]
    return np.ascontiguousarray(windows.transpose(0, 1, 2, 4, 5, 3)).reshape(-1, layer.kh * layer.kw, layer.ic)


@dataclass(frozen=True, slots=True)
class AxisPhase:
    """Input pixels ``first, first + stride, ...`` along one axis and the kernel taps that reach them.

    Pixel ``first + q * stride`` receives output pixel ``q + origin - j`` through kernel tap ``taps[j]``.
    """

    first: int
    count: int
    origin: int
    taps: tuple[int, ...]


def axis_phases(size: int, kernel: int, stride: int, pad: int) -> list[AxisPhase]:
    """Phases along one axis, ascending ``first``; one without taps has an empty ``taps`` (its pixels get +0)."""
    found = []
    for first in range(min(stride, size)):
        taps = tuple(range((first + pad) % stride, kernel, stride))
        found.append(AxisPhase(first, len(range(first, size, stride)), (first + pad) // stride, taps))
    return found


def backward_phases(layer: Layer) -> list[tuple[AxisPhase, AxisPhase]]:
    """(y, x) phases with useful taps, y outer: one backward product each, in this order."""
    ys = axis_phases(layer.h, layer.kh, layer.stride, layer.pad)
    xs = axis_phases(layer.w, layer.kw, layer.stride, layer.pad)
    return [(y, x) for y in ys for x in xs if y.taps and x.taps]


def phase_columns(dy: NDArray, y: AxisPhase, x: AxisPhase) -> NDArray:
    """im2col of an output gradient (batch, oh, ow, ...) for one phase: (rows, taps, ...), zero outside the image."""
    rows, row_inside = _sources(y, dy.shape[1])
    cols, col_inside = _sources(x, dy.shape[2])
    picked = dy[:, rows[:, None, :, None], cols[None, :, None, :]]  # batch, qy, qx, ty, tx, ...
    inside = row_inside[:, None, :, None] & col_inside[None, :, None, :]
    picked = np.where(inside.reshape(1, *inside.shape, *[1] * (dy.ndim - 3)), picked, picked.dtype.type(0))
    return picked.reshape(len(dy) * y.count * x.count, len(y.taps) * len(x.taps), *dy.shape[3:])


def phase_taps(y: AxisPhase, x: AxisPhase, kernel_width: int) -> list[int]:
    """Stored taps (kh * width + kw) of a phase in the product's order."""
    return [ty * kernel_width + tx for ty in y.taps for tx in x.taps]


def _sources(phase: AxisPhase, size: int) -> tuple[NDArray, NDArray]:
    places = np.arange(phase.count)[:, None] + phase.origin - np.arange(len(phase.taps))
    inside = (places >= 0) & (places < size)
    return np.where(inside, places, 0), inside
