"""The bytes a section's kernel reads, for a given row pitch of X and Y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...models.errors import NmsatError
from .description import LANES
from .packing import ADDRESS_LIMIT, Packed, Section, groups, index_bytes


@dataclass(frozen=True, slots=True)
class Streams:
    """Byte strings of one section; an unused stream is empty.

    ``values`` (biases and values, or the interleaved stream), ``indices``, ``counts``, ``scales`` (int8: biases
    and scales of each block). ``in_start`` and ``out_start`` are the byte offsets of the first stored column
    of X and of the first block's row of Y.
    """

    values: bytes
    indices: bytes
    counts: bytes
    scales: bytes
    in_start: int
    out_start: int


def streams(packed: Packed, section: Section, m: int) -> Streams:
    """Encode a section for X (k, m) and Y (n, m) of contiguous float32 rows.

    Raises
    ------
    NmsatError
        If a byte offset does not fit 31 bits.
    """
    kernel, pitch, x_pitch = packed.kernel, 4 * m, packed.kernel.x_pitch(m)
    if max(pitch, x_pitch) * max(packed.k, packed.n) > ADDRESS_LIMIT:
        raise NmsatError.rule("kernel", "m", "small enough for 31-bit byte offsets", m)
    if kernel.index == "sliced":
        return Streams(_slices(packed, section, pitch), b"", section.counts.astype("<u4").tobytes(), b"", 0, 0)
    out = section.rows[:, 0].astype(np.int64) * pitch
    steps = (np.roll(out, -1) - out).astype("<i4")
    delta = kernel.index == "delta"
    index = section.deltas(x_pitch) if delta else (section.channels[:, 0].astype(np.int64) * x_pitch).astype("<i4")
    in_start = section.start() * x_pitch if delta else 0
    rows = section.rows
    values, indices, counts, scales = b"", b"", b"", b""
    if kernel.stream == "interleaved":
        values = _interleaved(packed, section, rows, index.astype("<i4"), steps)
    else:
        counts = section.counts.astype("<u4").tobytes() if kernel.index in ("delta", "absolute") else b""
        if packed.scale is None:
            values = _values(packed, section, rows)
        else:
            values = section.values.tobytes()
            scales = np.stack([packed.bias[rows], packed.scale[rows]], axis=1).astype("<f4").tobytes()
        if kernel.pattern is not None:
            indices = index_bytes(section, kernel.pattern).tobytes()
        elif kernel.index != "dense":
            indices = index.astype("<i4").tobytes()
    return Streams(values, indices, counts, scales, in_start, int(out[0]) if delta or len(out) else 0)


def row_constant(packed: Packed, section: Section) -> int:
    """What the generated code gets in place of a count stream: index bytes a row (N:M), k (dense) or 0."""
    kernel = packed.kernel
    if kernel.pattern is not None:
        return groups(packed.k, kernel.pattern) * kernel.pattern.index_bytes
    return packed.k if kernel.index == "dense" else 0


def _values(packed: Packed, section: Section, rows: np.ndarray) -> bytes:
    """Biases of each block, then its values (XNNPACK's order), copied to four lanes when presplat."""
    starts = np.cumsum(section.counts, dtype=np.int64) - section.counts
    flat = np.insert(section.values, starts, packed.bias[rows], axis=0).astype("<f4")
    return np.repeat(flat, packed.kernel.value_bytes // 4).tobytes()


def _interleaved(packed: Packed, section: Section, rows: np.ndarray, index: np.ndarray, steps: np.ndarray) -> bytes:
    """A block: count, output step, biases; then index and values of each stored column. 32-bit words."""
    wide = packed.kernel.value_bytes // 4
    record = np.concatenate([index[:, None].view("<u4"), _words(section.values, wide)], axis=1)
    bias = packed.bias[rows].astype("<f4").view("<u4")
    head = np.concatenate([section.counts.astype("<u4")[:, None], steps[:, None].view("<u4"), bias], axis=1)
    counts = section.counts.astype(np.int64)
    head_words, record_words = head.shape[1], record.shape[1]
    lengths = head_words + counts * record_words
    first = np.cumsum(lengths) - lengths
    stream = np.empty(int(lengths.sum()), "<u4")
    stream[first[:, None] + np.arange(head_words)] = head
    block = np.repeat(np.arange(len(counts)), counts)
    local = np.arange(len(block)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = first[block] + head_words + local * record_words
    stream[at[:, None] + np.arange(record_words)] = record
    return stream.tobytes()


def _slices(packed: Packed, section: Section, pitch: int) -> bytes:
    """A slice: the byte offsets of its four rows of Y, their biases, then offsets and values of each step.

    32-bit words, every part aligned to 16 bytes; lanes without a row read X's first value and multiply it by 0.
    """
    counts, spare = section.counts.astype(np.int64), ((0, 0), (0, LANES - section.height))
    head = _record(section.rows * np.int64(pitch), packed.bias[section.rows], spare)
    record = _record(section.channels * np.int64(pitch), section.values, spare)
    return np.insert(record, np.cumsum(counts) - counts, head, axis=0).tobytes()


def _record(offsets: np.ndarray, values: np.ndarray, spare: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    parts = (np.pad(offsets, spare).astype("<u4"), np.pad(values, spare).astype("<f4").view("<u4"))
    return np.concatenate(parts, axis=1)


def _words(values: np.ndarray, wide: int) -> np.ndarray:
    return np.repeat(np.ascontiguousarray(values, "<f4").view("<u4"), wide, axis=1)
