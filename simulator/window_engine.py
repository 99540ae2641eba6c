"""The cycle engine with the window accumulator: a whole product in real arithmetic, cycles by stepping.

The argument of :mod:`.engine` holds unchanged: all elements run one stream of micro-operations. An element has one sum
and, in OS, one register of the drain chain that takes the sum over when the last product is added and holds it until
the bottom row has its own; from there words move a row a cycle. Every element sum is checked against its W bits, so a
run also proves the guarantee on k for its data. docs/accelerator.md, section 11.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ..dataflow.array_timing import ArrayShape
from ..models.golden import WindowSums
from ..models.window import TURNAROUND, Window

# what a compiled kernel reports: index into engine._HAZARDS
READ_EARLY, CHAIN_BUSY, FOOT_TWICE, LEFT_WINDOW = 1, 2, 3, 5


def window_os(
    shape: ArrayShape,
    window: Window,
    a: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
    group: int,
    segment: int,
) -> tuple[WindowSums, list[int]]:
    """Output-stationary tiles, k-tiles of ``segment`` groups inside column tiles inside row tiles.

    Operands as in :func:`.engine.run_os`, already checked.

    Returns
    -------
    sums, counters : WindowSums (m, n) and list
        Counters: cycles, issue slots, stall slots, hazard.
    """
    groups, keep, n = values.shape
    m, rows, cols = a.shape[0], shape.rows, shape.cols
    tall, wide = -(-m // rows) * rows, -(-n // cols) * cols
    operands = _operands(a, values, indices, group, tall, wide, groups)
    high, low, flagged = _sums(wide, tall)
    counters = np.zeros(4, np.int64)
    sizes = (rows, cols, keep, group, groups, segment)
    _os(*operands, high, low, flagged, counters, *sizes, shape.multiplier_latency, window.lsb, window.bits)
    return _result(high, low, flagged, m, n, window), counters.tolist()


def window_ws(
    shape: ArrayShape, window: Window, a: np.ndarray, values: np.ndarray, indices: np.ndarray, group: int, m_chunk: int
) -> tuple[WindowSums, list[int]]:
    """Weight-stationary tiles; arguments as in :func:`.engine.run_ws`, result as in :func:`window_os`."""
    groups, keep, n = values.shape
    m, rows, cols = a.shape[0], shape.rows, shape.cols
    k_tiles, wide = -(-groups // rows), -(-n // cols) * cols
    operands = _operands(a, values, indices, group, m, wide, k_tiles * rows)
    high, low, flagged = _sums(wide, m)
    counters = np.zeros(4, np.int64)
    sizes = (rows, cols, keep, group, k_tiles, min(m_chunk, m))
    skew = np.arange(rows, dtype=np.int64)
    _ws(*operands, high, low, flagged, counters, skew, *sizes, shape.multiplier_latency, window.lsb, window.bits)
    return _result(high, low, flagged, m, n, window), counters.tolist()


def _operands(
    a: np.ndarray, values: np.ndarray, indices: np.ndarray, group: int, tall: int, wide: int, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A transposed (k, rows), values and places of B (groups, N, columns): zero padded, exact in binary64."""
    have, keep, n = values.shape
    a_t = np.zeros((groups * group, tall), np.float64)
    b, places = np.zeros((groups, keep, wide), np.float64), np.zeros((groups, keep, wide), np.int64)
    with np.errstate(invalid="ignore"):  # signalling NaNs: they only raise the flag
        a_t[: a.shape[1], : a.shape[0]] = a.T
        b[:have, :, :n] = values
    places[:have, :, :n] = indices
    return a_t, b, places


def _sums(wide: int, tall: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((wide, tall), np.int64), np.zeros((wide, tall), np.int64), np.zeros((wide, tall), np.bool_)


def _result(high: np.ndarray, low: np.ndarray, flagged: np.ndarray, m: int, n: int, window: Window) -> WindowSums:
    def cut(array: np.ndarray) -> Any:
        return np.ascontiguousarray(array[:n, :m].T)

    return WindowSums(cut(high), cut(low), cut(flagged), window)


@njit(cache=True, inline="always")
def _outside(high, low, bits):  # pragma: no cover
    """Whether high * 2^32 + low does not fit ``bits`` bits in two's complement."""
    if bits >= 33:
        return high >= 1 << (bits - 33) or high < -(1 << (bits - 33))
    if high != 0 and high != -1:
        return True
    value = (high << 32) + low
    return value >= 1 << (bits - 1) or value < -(1 << (bits - 1))


@njit(cache=True, error_model="numpy")
def _mac(high, low, flagged, a, v, scale, bits):  # pragma: no cover
    """Add the products of a row of activations and one weight; False if a sum leaves its window."""
    for r in range(len(a)):
        p = a[r] * v
        if abs(p) < 65536.0:  # false for NaN
            units = np.int64(np.floor(abs(p) * scale + 0.5))
            low[r] += units if p >= 0.0 else -units
            high[r] += low[r] >> 32
            low[r] &= 0xFFFFFFFF
            if _outside(high[r], low[r], bits):
                return False
        else:
            flagged[r] = True
    return True


@njit(cache=True, error_model="numpy")
def _join(high, low, flagged, other_high, other_low, other_flagged):  # pragma: no cover
    """Add sums to sums, as a column foot does."""
    for s in range(len(high)):
        low[s] += other_low[s]
        high[s] += other_high[s] + (low[s] >> 32)
        low[s] &= 0xFFFFFFFF
        flagged[s] |= other_flagged[s]


@njit(cache=True, error_model="numpy")
def _os(a_t, values, places, high, low, flagged, counters, R, C, N, M, G, segment, Lm, L, bits):  # pragma: no cover
    """Sequencer of OS tiles: k-tiles inside column tiles inside row tiles."""
    scale = 2.0**L
    acc_high, acc_low = np.zeros((C, R), np.int64), np.zeros((C, R), np.int64)
    acc_flag = np.zeros((C, R), np.bool_)
    col_tiles = high.shape[0] // C
    written = np.zeros(R, np.int64)  # cycle at which the spilled sum of each row can be read
    t, chain_free = 0, 0
    earliest = 0  # of the next tile's last slot
    for tile in range(high.shape[1] // R * col_tiles):
        row0, col0 = tile // col_tiles * R, tile % col_tiles * C
        for first in range(0, G, segment):
            acc_high[:, :], acc_low[:, :], acc_flag[:, :] = 0, 0, False
            end = min(first + segment, G)
            for g in range(first, end):
                for n in range(N):
                    while g == end - 1 and n == N - 1 and t < earliest:
                        t += 1
                        counters[2] += 1
                    for c in range(C):
                        a = a_t[g * M + places[g, n, col0 + c], row0 : row0 + R]
                        if not _mac(acc_high[c], acc_low[c], acc_flag[c], a, values[g, n, col0 + c], scale, bits):
                            counters[3] = LEFT_WINDOW
                            return
                    t += 1
                    counters[1] += 1
            earliest = t - 1 + max(R, TURNAROUND)
            # row r's chain register takes its sum r cycles after row 0's; words move when the bottom row has its own
            bottom = t - 1 + Lm + 1 + R - 1  # the first word is at the foot
            if bottom < chain_free:
                counters[3] = CHAIN_BUSY
                return
            chain_free = bottom + R
            for word in range(R):
                at_foot, r = bottom + word, R - 1 - word
                if first and written[r] > at_foot:
                    counters[3] = READ_EARLY
                    return
                written[r] = at_foot + TURNAROUND
            for c in range(C):
                columns = high[col0 + c], low[col0 + c], flagged[col0 + c]
                rows = slice(row0, row0 + R)
                _join(columns[0][rows], columns[1][rows], columns[2][rows], acc_high[c], acc_low[c], acc_flag[c])
            counters[0] = bottom + R - 1 + 1 + (C - 1) + 1


@njit(cache=True, error_model="numpy")
def _ws_tile(a_t, values, places, high, low, flagged, g0, col0, m0, m1, R, C, N, M, L, bits):  # pragma: no cover
    """Values of a weight tile: each lane flows down R rows, the foot adds lanes and the sum before."""
    scale, m = 2.0**L, m1 - m0
    lane_high, lane_low, lane_flag = np.zeros(m, np.int64), np.zeros(m, np.int64), np.zeros(m, np.bool_)
    for c in range(col0, col0 + C):
        for n in range(N):
            lane_high[:], lane_low[:], lane_flag[:] = 0, 0, False
            for r in range(g0, g0 + R):
                a = a_t[r * M + places[r, n, c], m0:m1]
                if not _mac(lane_high, lane_low, lane_flag, a, values[r, n, c], scale, bits):
                    return False
            _join(high[c, m0:m1], low[c, m0:m1], flagged[c, m0:m1], lane_high, lane_low, lane_flag)
    return True


@njit(cache=True, error_model="numpy")
def _ws(
    a_t, values, places, high, low, flagged, counters, skew, R, C, N, M, k_tiles, chunk, Lm, L, bits
):  # pragma: no cover
    """Sequencer of WS tiles: row chunks, column tiles, k-tiles. ``skew``: cycles by which row r issues later."""
    m = a_t.shape[1]
    window = 4 * N + 8
    foot = np.full(window, -1, np.int64)  # cycle at which each slot of the foot's adder was last used
    lane_at = np.zeros(N, np.int64)
    written = np.zeros(chunk, np.int64)  # cycle at which the previous k-tile's sum can be read
    t = 0
    loaded = R * N
    for m0 in range(0, m, chunk):
        rows = min(chunk, m - m0)
        for col0 in range(0, high.shape[0], C):
            for kt in range(k_tiles):
                while t < loaded:
                    t += 1
                    counters[2] += 1
                loaded = t + R * N
                start = t
                if not _ws_tile(
                    a_t, values, places, high, low, flagged, kt * R, col0, m0, m0 + rows, R, C, N, M, L, bits
                ):
                    counters[3] = LEFT_WINDOW
                    return
                for s in range(rows):
                    for n in range(N):
                        north = t + Lm  # the zero above row 0 is always there
                        for r in range(R):
                            if north != t + skew[r] + Lm:  # nothing stores a sum between two rows: it must meet
                                counters[3] = READ_EARLY
                                return
                            north = t + skew[r] + Lm + 1
                        lane_at[n] = north
                        t += 1
                        counters[1] += 1
                    for n in range(N):
                        if foot[lane_at[n] % window] == lane_at[n]:
                            counters[3] = FOOT_TWICE
                            return
                        foot[lane_at[n] % window] = lane_at[n]
                    if kt > 0 and written[s] > lane_at[0]:  # the sum before comes in with lane 0
                        counters[3] = READ_EARLY
                        return
                    total = lane_at[N - 1] + 1
                    written[s] = total + 2  # one cycle to write the output buffer, one to read it
                    counters[0] = total + (C - 1) + 1
                while t < start + N + TURNAROUND - 1:
                    t += 1
                    counters[2] += 1
