"""Weights packed into the streams that the kernels read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.errors import NmsatError
from ...models.sparsity import Sparsity
from .description import LANES, Kernel

FILL_RULE = 0.9  # blocks of nr rows are used from this share of non-zero values on
ADDRESS_LIMIT = 2**31 - 1
SLICE_BYTES = 8 * LANES  # a slice's head (output offsets, biases) and each of its steps (input offsets, values)

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Rows packed with one block height.

    The rows of a block share their columns; those of a slice (``index="sliced"``) have one each, and the shorter
    rows repeat their last column with the value 0.

    Attributes
    ----------
    height : int
        Rows of a block (nr) or slice.
    rows : int32 (blocks, height)
        Rows of each block, in stream order.
    counts : uint32 (blocks,)
        Stored columns of each block; the steps of each slice.
    channels : int32 (stored, 1), or (stored, height) of slices
        Column k of each stored column, block after block, ascending inside a row.
    values : float32 or int8 (stored, height)
        Weights of the stored columns, zeros inside a block or slice included.
    """

    height: int
    rows: I32
    counts: NDArray[np.uint32]
    channels: I32
    values: NDArray[np.float32] | NDArray[np.int8]

    def deltas(self, stride_bytes: int) -> I32:
        """Byte step from each stored column to the next, across row ends; the last one closes the loop."""
        if not len(self.channels):
            return np.zeros(0, np.int32)
        channels = self.channels[:, 0].astype(np.int64)
        steps = np.roll(channels, -1) - channels
        return (steps * stride_bytes).astype(np.int32)

    def start(self) -> int:
        """Column of the first stored value, 0 when nothing is stored."""
        return int(self.channels[0, 0]) if len(self.channels) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A weight matrix W[n, k] ready for one kernel; ``sections`` cover every row once."""

    kernel: Kernel
    n: int
    k: int
    nonzeros: int
    sections: tuple[Section, ...]
    bias: F32
    scale: F32 | None

    @property
    def stored(self) -> int:
        """Stored values, explicit zeros of blocks, N:M groups and slices included."""
        if self.kernel.index == "sliced":  # lanes of the last slice that have no row are stored too
            return sum(len(s.values) * LANES for s in self.sections)
        return sum(s.values.size for s in self.sections)

    @property
    def footprint_bytes(self) -> int:
        """Bytes of all streams: values, indices, counts, biases, scales and output steps."""
        kernel, total = self.kernel, 0
        for s in self.sections:
            if kernel.index == "sliced":
                total += 4 * len(s.counts) + SLICE_BYTES * (len(s.counts) + len(s.values))
                continue
            total += s.values.size * kernel.value_bytes + s.height * len(s.counts) * 4
            if kernel.broadcast == "presplat" and kernel.stream == "separate":
                total += s.height * len(s.counts) * 12
            if kernel.values == "int8":
                total += s.height * len(s.counts) * 4
            if kernel.index in ("delta", "absolute"):
                total += 4 * len(s.channels) + 4 * len(s.counts)
            if kernel.stream == "interleaved":
                total += 4 * len(s.counts)
            if kernel.pattern is not None:
                total += len(s.counts) * groups(self.k, kernel.pattern) * kernel.pattern.index_bytes
        return total


def groups(k: int, pattern: Sparsity) -> int:
    """N:M groups along k, the last one possibly short."""
    return -(-k // pattern.group)


def choose_block(weights: F32) -> int:
    """Block height by the fill rule: 4 if its blocks are at least 90 % full, else 2 by the same rule, else 1."""
    weights = checked_weights(weights)
    for height in (4, 2):
        rows = weights.shape[0] // height * height
        blocks = (weights[:rows] != 0).reshape(-1, height, weights.shape[1])
        stored = np.count_nonzero(blocks.any(axis=1)) * height
        if stored and np.count_nonzero(blocks) >= FILL_RULE * stored:
            return height
    return 1


def pack(kernel: Kernel, weights: F32, bias: F32 | None = None) -> Packed:
    """Pack float32 W[n, k] and bias[n] (default zeros) for a kernel.

    int8 kernels quantise each row symmetrically: scale = max|w| / 127 (1 for an empty row), q = rint(w / scale).

    Raises
    ------
    NmsatError
        For an empty or non-finite matrix, a bias of the wrong length, or weights that break the kernel's N:M
        pattern.
    """
    weights = checked_weights(weights)
    n, k = weights.shape
    bias = np.zeros(n, np.float32) if bias is None else np.asarray(bias)
    if bias.dtype != np.float32 or bias.shape != (n,):
        raise NmsatError.rule("pack", "bias", f"float32 of shape ({n},)", f"{bias.dtype} {bias.shape}")
    if not np.isfinite(bias).all():
        raise NmsatError.rule("pack", "bias", "finite", "a NaN or infinity")
    nonzeros, scale = int(np.count_nonzero(weights)), None
    values: NDArray[np.float32] | NDArray[np.int8] = weights
    if kernel.values == "int8":
        values, scale = quantise(weights)
    if kernel.index == "sliced":
        return Packed(kernel, n, k, nonzeros, _slices(weights), np.ascontiguousarray(bias), scale)
    tall = n // kernel.nr * kernel.nr
    parts = [(kernel.nr, 0, tall), (1, tall, n)]
    sections = tuple(_section(kernel, weights, values, *part) for part in parts if part[1] < part[2])
    return Packed(kernel, n, k, nonzeros, sections, np.ascontiguousarray(bias), scale)


def quantise(weights: F32) -> tuple[NDArray[np.int8], F32]:
    """Symmetric int8 values (n, k) and float32 scales (n,) of float32 rows."""
    peak = np.abs(weights).max(axis=1)
    scale = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    scale[scale == 0] = np.finfo(np.float32).smallest_subnormal
    return np.clip(np.rint(weights / scale[:, None]), -127, 127).astype(np.int8), scale


def checked_weights(weights: F32) -> F32:
    """The matrix itself, contiguous, after checking type, shape and finiteness."""
    weights = np.asarray(weights)
    if weights.dtype != np.float32 or weights.ndim != 2:
        raise NmsatError.rule("pack", "weights", "a float32 matrix", f"{weights.dtype} of {weights.ndim} axes")
    if 0 in weights.shape:
        raise NmsatError.rule("pack", "weights", "at least 1 x 1", weights.shape)
    if not np.isfinite(weights).all():
        raise NmsatError.rule("pack", "weights", "finite", "a NaN or infinity")
    return np.ascontiguousarray(weights)


def _section(kernel: Kernel, weights: F32, values: NDArray, height: int, first: int, last: int) -> Section:
    rows = np.arange(first, last, dtype=np.int32).reshape(-1, height)
    blocks = weights[first:last].reshape(len(rows), height, -1)
    kept: NDArray[np.bool_]
    if kernel.index == "dense":
        kept = np.ones((len(rows), weights.shape[1]), bool)
    elif kernel.pattern is not None:
        return _pattern_section(kernel.pattern, weights, values)
    else:
        kept = np.any(blocks != 0, axis=1)
    counts = kept.sum(axis=1)
    if kernel.order == "by_count":
        order = np.argsort(counts, kind="stable")
        rows, kept, counts = rows[order], kept[order], counts[order]
    block, channel = np.nonzero(kept)
    channel = channel.astype(np.int32)[:, None]
    stored = values[rows[block], channel]
    return Section(height, rows, counts.astype(np.uint32), channel, np.ascontiguousarray(stored))


def _slices(weights: F32) -> tuple[Section, ...]:
    """Slices of four rows, the longest first, and one of the last n % 4 rows."""
    order = np.argsort(-np.count_nonzero(weights, axis=1), kind="stable").astype(np.int32)
    whole = len(order) // LANES * LANES
    parts = (order[:whole].reshape(-1, LANES), order[whole:].reshape(1, -1))
    return tuple(_slice_section(weights, rows) for rows in parts if rows.size)


def _slice_section(weights: F32, rows: I32) -> Section:
    """Slices of the given rows (slices, height); a row that ends before its slice repeats its last column with 0."""
    kept = weights[rows] != 0
    each = kept.sum(axis=2)
    counts = each.max(axis=1)
    last = np.where(each > 0, weights.shape[1] - 1 - np.argmax(kept[:, :, ::-1], axis=2), 0)
    channels = np.repeat(last.astype(np.int32), counts, axis=0)
    values = np.zeros(channels.shape, np.float32)
    number, lane, channel = np.nonzero(kept)
    begin = np.cumsum(each.reshape(-1)) - each.reshape(-1)  # of each row among the non-zeros
    step = np.arange(len(channel)) - np.repeat(begin, each.reshape(-1))
    at = (np.cumsum(counts) - counts)[number] + step
    channels[at, lane], values[at, lane] = channel, weights[rows[number, lane], channel]
    return Section(rows.shape[1], rows, counts.astype(np.uint32), channels, values)


def _pattern_section(pattern: Sparsity, weights: F32, values: NDArray) -> Section:
    """Exactly ``keep`` stored columns a group: its non-zeros, then its lowest zeros, in ascending order."""
    n, k = weights.shape
    width = groups(k, pattern) * pattern.group
    kept = np.zeros((n, width), bool)
    kept[:, :k] = weights != 0
    grouped = kept.reshape(n, -1, pattern.group)
    worst = int(grouped.sum(axis=2).max())
    if worst > pattern.keep:
        raise NmsatError.rule("pack", "weights", f"{pattern}: at most {pattern.keep} non-zeros a group", worst)
    local = np.argsort(~grouped, axis=2, kind="stable")[:, :, : pattern.keep]
    local = np.sort(local, axis=2)
    channel = local + np.arange(0, width, pattern.group)[None, :, None]
    outside: NDArray[np.bool_] = np.greater_equal(
        channel, k
    )  # a short last group: repeat its first column with the value 0
    safe = np.where(outside, np.arange(0, width, pattern.group)[None, :, None], channel)
    stored = np.take_along_axis(values, safe.reshape(n, -1), axis=1)
    stored[outside.reshape(n, -1)] = 0
    counts = np.full(n, safe[0].size, np.uint32)
    rows = np.arange(n, dtype=np.int32)[:, None]
    return Section(1, rows, counts, safe.reshape(-1, 1).astype(np.int32), stored.reshape(-1, 1))


def index_bytes(section: Section, pattern: Sparsity) -> NDArray[np.uint8]:
    """Packed N:M indices, ``pattern.index_bytes`` little-endian bytes a group, first index in the low bits."""
    local = (section.channels % pattern.group).reshape(-1, pattern.keep).astype(np.uint32)
    word = (local << (pattern.index_bits * np.arange(pattern.keep, dtype=np.uint32))).sum(axis=1, dtype=np.uint32)
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)[:, : pattern.index_bytes].reshape(-1)
