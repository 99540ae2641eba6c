"""Value-exact cycle engine: a whole product on the array, real arithmetic, cycles by stepping.

All elements execute one stream of micro-operations; PE(r, c) runs it sigma(r, c) cycles after the edge (r + c in OS,
r*La + c in WS), and every operand it meets (activation, weight, partial sum from the north) is delayed by the same
amount. So its state at cycle t + sigma is a function of the stream up to t alone, and applying each
micro-operation to all elements at once is exact. Time is kept by the edge sequencer, one step a cycle; a scoreboard
holds the cycle at which each partial sum can be read. Reading one too early, using a foot adder twice in a cycle or
loading a busy drain chain raises :class:`HazardError`. No cycle count comes from the closed form.

The literal register-by-register model that this is checked against is tests/test_engine_reference.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from ..dataflow.array_timing import ArrayShape
from ..models.errors import NmsatError

_HAZARDS = {1: "partial sum read before it is ready", 2: "drain chain busy", 3: "foot adder used twice"}


class HazardError(RuntimeError):
    """The sequencer's schedule broke a hardware rule: a bug in the contract, never in the input."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Outcome of a product on the array.

    Attributes
    ----------
    values : float32 array (m, n)
        In the contract's summation order.
    cycles : int
        First edge cycle to last word out of the last column, inclusive.
    issue_slots : int
        Cycles in which the array multiplied.
    stall_slots : int
        Cycles the sequencer waited for a drain, a weight load or the output buffer.
    """

    values: np.ndarray
    cycles: int
    issue_slots: int
    stall_slots: int


def run_os(
    shape: ArrayShape, a: np.ndarray, b_values: np.ndarray, b_indices: np.ndarray, group: int, interleave: int
) -> EngineResult:
    """Run C = A B output-stationary.

    Parameters
    ----------
    a : float16 array (m, G * group)
        Activations, channel tails zero padded.
    b_values, b_indices : float16 and uint8 arrays (G, N, n)
        Compressed weights: values and their places in the group. Dense: N == group, indices 0..N-1.
    interleave : int
        I, output rows an element keeps at once.
    """
    groups, keep, n = _check(a, b_values, b_indices, group)
    step_rows = shape.rows * interleave
    m = a.shape[0]
    a_t = _pad_rows(a, step_rows)
    values, indices = _pad_cols(b_values, b_indices, shape.cols)
    out = np.zeros((a_t.shape[1], values.shape[2]), np.float32)
    counters = np.zeros(4, np.int64)
    _os(
        a_t,
        values,
        indices,
        out,
        counters,
        shape.rows,
        shape.cols,
        interleave,
        keep,
        group,
        groups,
        shape.adder_latency,
        shape.multiplier_latency,
    )
    return _result(out[:m, :n], counters)


def run_ws(
    shape: ArrayShape,
    a: np.ndarray,
    b_values: np.ndarray,
    b_indices: np.ndarray,
    group: int,
    m_chunk: int | None = None,
) -> EngineResult:
    """Run C = A B weight-stationary; ``m_chunk`` rows are streamed through every weight tile (default: all)."""
    groups, keep, n = _check(a, b_values, b_indices, group)
    m = a.shape[0]
    k_tiles = -(-groups // shape.rows)
    a_t = np.zeros((k_tiles * shape.rows * group, m), np.float32)
    a_t[: a.shape[1]] = a.T
    values, indices = _pad_cols(b_values, b_indices, shape.cols)
    extra = k_tiles * shape.rows - groups
    values = np.concatenate([values, np.zeros((extra, *values.shape[1:]), np.float32)])
    indices = np.concatenate([indices, np.zeros((extra, *indices.shape[1:]), np.uint8)])
    out = np.zeros((values.shape[2], m), np.float32)
    counters = np.zeros(4, np.int64)
    _ws(
        a_t,
        values,
        indices,
        out,
        counters,
        shape.rows,
        shape.cols,
        keep,
        group,
        k_tiles,
        m_chunk or m,
        shape.adder_latency,
        shape.multiplier_latency,
    )
    return _result(np.ascontiguousarray(out.T[:, :n]), counters)


def _check(a: np.ndarray, b_values: np.ndarray, b_indices: np.ndarray, group: int) -> tuple[int, int, int]:
    groups, keep, n = b_values.shape
    if b_indices.shape != b_values.shape:
        raise NmsatError.rule("engine", "b_indices.shape", f"{b_values.shape} like b_values", b_indices.shape)
    if a.ndim != 2 or a.shape[1] != groups * group or not a.shape[0] or not n:
        raise NmsatError.rule(
            "engine", "a.shape", f"(m >= 1, {groups * group}) for {groups} groups of {group}", a.shape
        )
    if keep > group or int(b_indices.max(initial=0)) >= group:
        raise NmsatError.rule("engine", "b_indices", f"below the group size {group}", int(b_indices.max(initial=0)))
    return groups, keep, n


def _pad_rows(a: np.ndarray, step: int) -> np.ndarray:
    padded = np.zeros((a.shape[1], -(-a.shape[0] // step) * step), np.float32)
    padded[:, : a.shape[0]] = a.T
    return padded


def _pad_cols(values: np.ndarray, indices: np.ndarray, cols: int) -> tuple[np.ndarray, np.ndarray]:
    n = values.shape[2]
    width = -(-n // cols) * cols
    v, i = np.zeros((*values.shape[:2], width), np.float32), np.zeros((*values.shape[:2], width), np.uint8)
    v[:, :, :n], i[:, :, :n] = values, indices
    return v, i


def _result(values: np.ndarray, counters: Any) -> EngineResult:
    cycles, issued, stalled, hazard = (int(value) for value in counters)
    if hazard:
        raise HazardError(_HAZARDS[hazard])
    return EngineResult(values, cycles, issued, stalled)


@njit(cache=True, error_model="numpy")
def _mac(acc, a_t, values, indices, lane, row0, col0, a_row, g, n, R, C, first):  # pragma: no cover
    """One micro-operation on all elements: acc[lane, c, r] += v[c] * a[selected by c, r]."""
    for c in range(C):
        v = values[g, n, col0 + c]
        j = a_row + indices[g, n, col0 + c]
        if first:
            for r in range(R):
                acc[lane, c, r] = np.float32(0.0) + v * a_t[j, row0 + r]
        else:
            for r in range(R):
                acc[lane, c, r] += v * a_t[j, row0 + r]


@njit(cache=True, error_model="numpy")
def _os(a_t, values, indices, out, counters, R, C, inter, N, M, G, La, Lm):  # pragma: no cover
    """Sequencer of OS tiles, column tiles inside row tiles."""
    lanes = inter * N
    length = max(lanes, La)
    acc = np.zeros((2, lanes, C, R), np.float32)
    ready = np.zeros((2, lanes), np.int64)
    col_tiles = out.shape[1] // C
    tiles = out.shape[0] // (R * inter) * col_tiles
    t = 0
    chain_free = 0  # first cycle at which column 0's foot can take the next tile's first word
    for tile in range(tiles + 1):
        bank = tile & 1
        other = 1 - bank
        start = t
        live = tile < tiles
        passes = G if live else 0
        if tile > 0 and passes < N - 1:
            passes = N - 1
        row0 = tile // col_tiles * (R * inter)
        col0 = tile % col_tiles * C
        for p in range(passes):
            for slot in range(length):
                if live and p < G and slot < lanes:
                    if p > 0 and ready[bank, slot] > t + Lm:
                        counters[3] = 1
                        return
                    i = slot // N
                    _mac(
                        acc[bank],
                        a_t,
                        values,
                        indices,
                        slot,
                        row0 + i * R,
                        col0,
                        p * M,
                        p,
                        slot % N,
                        R,
                        C,
                        p == 0,
                    )
                    ready[bank, slot] = t + Lm + La
                    counters[1] += 1
                t += 1
                if not live and N == 1:
                    break
            if tile > 0 and p < N - 1:
                for i in range(inter):
                    into, lane = i * N, i * N + p + 1
                    if ready[other, into] > t + Lm or ready[other, lane] > t + Lm:
                        counters[3] = 1
                        return
                    for c in range(C):
                        for r in range(R):
                            acc[other, into, c, r] += acc[other, lane, c, r]
                    ready[other, into] = t + Lm + La
                    t += 1
        # the tile whose sums are complete leaves through the drain chains
        done = tile if N == 1 else tile - 1
        if 0 <= done < tiles:
            which = done & 1
            load = ready[which, 0] + R - 1  # the bottom row's first sum: r cycles of skew later than row 0
            row = done // col_tiles * (R * inter)
            col = done % col_tiles * C
            for i in range(inter):
                if ready[which, i * N] + R - 1 > load or load < chain_free:
                    counters[3] = 2
                    return
                for c in range(C):
                    for r in range(R):
                        out[row + i * R + r, col + c] = acc[which, i * N, c, r]
                load += R  # R shifts empty the chain
            chain_free = load
            # the word loaded at cycle x by the bottom row is out at x + 1; the last of R leaves at x + R
            counters[0] = load + (C - 1) + 1
        while live and t < start + R * inter:
            t += 1
            counters[2] += 1


@njit(cache=True, error_model="numpy")
def _ws(a_t, values, indices, out, counters, R, C, N, M, k_tiles, chunk, La, Lm):  # pragma: no cover
    """Sequencer of WS tiles: row chunks, column tiles, k-tiles."""
    m = a_t.shape[1]
    spacing = La
    while (spacing - 1) % N != 0:
        spacing += 1
    window = 4 * (N * spacing + N) + 8
    foot = np.full(window, -1, np.int64)  # cycle at which each adder slot was last used
    psum = np.zeros((N, chunk), np.float32)
    written = np.zeros(chunk, np.int64)  # cycle at which the previous k-tile's sum can be read
    t = 0
    loaded = R * N  # cycle at which the shadow registers hold the next tile's weights
    for m0 in range(0, m, chunk):
        rows = min(chunk, m - m0)
        for col0 in range(0, out.shape[0], C):
            for kt in range(k_tiles):
                while t < loaded:
                    t += 1
                    counters[2] += 1
                loaded = t + R * N
                start = t
                for c in range(C):
                    for n in range(N):
                        for s in range(rows):
                            psum[n, s] = np.float32(0.0)
                        for r in range(R):
                            g = kt * R + r
                            v = values[g, n, col0 + c]
                            j = g * M + indices[g, n, col0 + c]
                            for s in range(rows):
                                psum[n, s] += v * a_t[j, m0 + s]
                    for n in range(1, N):
                        for s in range(rows):
                            psum[0, s] += psum[n, s]
                    for s in range(rows):
                        out[col0 + c, m0 + s] += psum[0, s]
                for s in range(rows):
                    arrive = t + (R - 1) * La + Lm + La  # lane 0 at the foot of column 0
                    last = 0
                    for j in range(1, N + 1):
                        use = arrive + min(1, N - 1) + (j - 1) * spacing
                        if foot[use % window] == use:
                            counters[3] = 3
                            return
                        foot[use % window] = use
                        last = use
                    if kt > 0 and written[s] > last:
                        counters[3] = 1
                        return
                    written[s] = last + La + 2  # one cycle to write the output buffer, one to read it
                    counters[0] = last + La + (C - 1) + 1
                    for _ in range(N):
                        t += 1
                        counters[1] += 1
                while t < start + La + 2 or (t - start) % N != 0:  # turnaround, in whole rows of N slots
                    t += 1
                    counters[2] += 1
