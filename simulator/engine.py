"""Value-exact cycle engine: a whole product on the array, real arithmetic, cycles by stepping.

All elements execute one stream of micro-operations; PE(r, c) runs it sigma(r, c) cycles after the edge (r + c in OS,
r*La + c in WS), and every operand it meets (activation, weight, partial sum from the north) is delayed by the same
amount. So its state at cycle t + sigma is a function of the stream up to t alone, and applying each
micro-operation to all elements at once is exact. Time is kept by the edge sequencer, one step a cycle; a scoreboard
holds the cycle at which each partial sum can be read and the last one at which it is still needed. Reading a sum too
early, overwriting one too early, using a foot adder twice in a cycle or loading a busy drain chain raises
:class:`HazardError`. No cycle count comes from the closed form. docs/engine.md has the argument in full.

The literal register-by-register model that this is checked against is tests/test_engine_reference.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit

from ..dataflow.array_timing import ArrayShape, full_interleave
from ..models.errors import NmsatError
from ..models.golden import WindowSums
from ..models.golden.floats import canonical
from ..models.window import Window

_HAZARDS = {
    1: "partial sum read before it is ready",
    2: "drain chain busy",
    3: "foot adder used twice",
    4: "partial sum overwritten before it was read",
    5: "partial sum outside its window",
}


class HazardError(RuntimeError):
    """The sequencer's schedule broke a hardware rule: a bug in the contract, never in the input."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """Outcome of a product on the array.

    Attributes
    ----------
    values : float32 array (m, n)
        In the contract's summation order, NaNs canonical: bit-equal to ``nmsat.models.golden.products``. Of a window,
        its sums rounded once.
    cycles : int
        First edge cycle to last word out of the last column, inclusive.
    issue_slots : int
        Cycles in which the array multiplied.
    stall_slots : int
        Cycles the sequencer waited for a drain, a weight load or the output buffer. Slots lost to the adder's
        latency inside a pass, folds, fill and drain are neither issued nor stalled.
    utilisation : float
        Multiplications that belong to the product (no padding) over elements times cycles, 0..1.
    sums : WindowSums (m, n) or None
        Exact sums of a window accumulator.
    """

    values: np.ndarray
    cycles: int
    issue_slots: int
    stall_slots: int
    utilisation: float
    sums: WindowSums | None = None


def run_product(
    shape: ArrayShape,
    dataflow: Literal["os", "ws"],
    a: np.ndarray,
    b_values: np.ndarray,
    b_indices: np.ndarray,
    *,
    group: int,
    interleave: int | None = None,
    m_chunk: int | None = None,
    window: Window | None = None,
    segment: int | None = None,
) -> EngineResult:
    """Run C = A B on the array with real arithmetic.

    Parameters
    ----------
    dataflow : "os" or "ws"
        See :func:`run_os` and :func:`run_ws` for the operands.
    interleave : int, optional
        OS only; default ceil(La / N), the smallest that hides the adder's latency.
    m_chunk : int, optional
        WS only; default all rows.
    window : Window, optional
        Sum in this window in place of binary32; ``shape.adder_latency`` is then not used.
    segment : int, optional
        OS with a window only: groups along k of a tile; default all that the window holds.
    """
    if window is not None:
        return _run_window(shape, window, dataflow, a, b_values, b_indices, group, interleave, m_chunk, segment)
    if segment is not None:
        raise NmsatError.rule("engine", "segment", "left out without a window", segment)
    if dataflow == "os":
        if m_chunk is not None:
            raise NmsatError.rule("engine", "m_chunk", "left out under os", m_chunk)
        if interleave is None:
            interleave = full_interleave(shape, b_values.shape[1])
        return run_os(shape, a, b_values, b_indices, group, interleave)
    if dataflow == "ws":
        if interleave is not None:
            raise NmsatError.rule("engine", "interleave", "left out under ws", interleave)
        return run_ws(shape, a, b_values, b_indices, group, m_chunk)
    raise NmsatError.rule("engine", "dataflow", "os or ws", dataflow)


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
    if interleave < 1:
        raise NmsatError.rule("engine", "interleave", "at least 1", interleave)
    m, step_rows = a.shape[0], shape.rows * interleave
    a_t = np.zeros((a.shape[1], -(-m // step_rows) * step_rows), np.float32)
    _widen(a.T, a_t[:, :m])
    values, indices = _pad(b_values, b_indices, groups, shape.cols)
    out = np.zeros((values.shape[2], a_t.shape[1]), np.float32)
    counters = np.zeros(4, np.int64)
    sizes = (shape.rows, shape.cols, interleave, keep, group, groups)
    _os(a_t, values, indices, out, counters, *sizes, shape.adder_latency, shape.multiplier_latency)
    return _result(out[:n, :m], counters, shape, groups * keep)


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
    chunk = m if m_chunk is None else m_chunk
    if chunk < 1:
        raise NmsatError.rule("engine", "m_chunk", "at least 1", chunk)
    k_tiles = -(-groups // shape.rows)
    a_t = np.zeros((k_tiles * shape.rows * group, m), np.float32)
    _widen(a.T, a_t[: a.shape[1]])
    values, indices = _pad(b_values, b_indices, k_tiles * shape.rows, shape.cols)
    out = np.zeros((values.shape[2], m), np.float32)
    counters = np.zeros(4, np.int64)
    skew = np.arange(shape.rows, dtype=np.int64) * shape.adder_latency
    sizes = (shape.rows, shape.cols, keep, group, k_tiles, min(chunk, m))
    _ws(a_t, values, indices, out, counters, skew, *sizes, shape.adder_latency, shape.multiplier_latency)
    return _result(out[:n], counters, shape, groups * keep)


def _run_window(
    shape: ArrayShape,
    window: Window,
    dataflow: str,
    a: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
    group: int,
    interleave: int | None,
    m_chunk: int | None,
    segment: int | None,
) -> EngineResult:
    from .window_engine import window_os, window_ws

    groups, keep, _ = _check(a, values, indices, group)
    if interleave not in (None, 1):
        raise NmsatError.rule("engine", "interleave", "1 with a window", interleave)
    if dataflow == "os":
        if m_chunk is not None:
            raise NmsatError.rule("engine", "m_chunk", "left out under os", m_chunk)
        most = window.terms // keep
        chosen = min(groups, most) if segment is None else segment
        if not 1 <= chosen <= most:
            raise NmsatError.rule("engine", "segment", f"1 to {most}, what {window} holds", chosen)
        sums, counters = window_os(shape, window, a, values, indices, group, chosen)
    elif dataflow == "ws":
        if segment is not None:
            raise NmsatError.rule("engine", "segment", "left out under ws", segment)
        chunk = a.shape[0] if m_chunk is None else m_chunk
        if chunk < 1:
            raise NmsatError.rule("engine", "m_chunk", "at least 1", chunk)
        if shape.rows > window.terms:
            raise NmsatError.rule("engine", "rows", f"at most {window.terms}, what {window} holds", shape.rows)
        sums, counters = window_ws(shape, window, a, values, indices, group, chunk)
    else:
        raise NmsatError.rule("engine", "dataflow", "os or ws", dataflow)
    cycles, issued, stalled, hazard = counters
    if hazard:
        raise HazardError(_HAZARDS[hazard])
    used = a.shape[0] * values.size / (cycles * shape.rows * shape.cols)
    return EngineResult(sums.to_binary32(), cycles, issued, stalled, used, sums)


def _check(a: np.ndarray, b_values: np.ndarray, b_indices: np.ndarray, group: int) -> tuple[int, int, int]:
    for key, array, dtype in (
        ("a", a, "float16"),
        ("b_values", b_values, "float16"),
        ("b_indices", b_indices, "uint8"),
    ):
        if array.dtype != np.dtype(dtype):
            raise NmsatError.rule("engine", f"{key}.dtype", dtype, str(array.dtype))
    if b_values.ndim != 3 or not b_values.size:
        raise NmsatError.rule("engine", "b_values.shape", "(G, N, n), each at least 1", b_values.shape)
    groups, keep, n = b_values.shape
    if b_indices.shape != b_values.shape:
        raise NmsatError.rule("engine", "b_indices.shape", f"{b_values.shape} like b_values", b_indices.shape)
    if a.ndim != 2 or a.shape[1] != groups * group or not a.shape[0]:
        raise NmsatError.rule(
            "engine", "a.shape", f"(m >= 1, {groups * group}) for {groups} groups of {group}", a.shape
        )
    if keep > group:
        raise NmsatError.rule("engine", "b_values.shape", f"at most {group} values a group of {group}", keep)
    if int(b_indices.max()) >= group:
        raise NmsatError.rule("engine", "b_indices", f"below the group size {group}", int(b_indices.max()))
    return groups, keep, n


def _pad(values: np.ndarray, indices: np.ndarray, groups: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Zero groups and zero columns up to whole tiles: float32 values, int64 indices."""
    have, keep, n = values.shape
    padded = (groups, keep, -(-n // cols) * cols)
    v, i = np.zeros(padded, np.float32), np.zeros(padded, np.int64)
    _widen(values, v[:have, :, :n])
    i[:have, :, :n] = indices
    return v, i


def _widen(halves: np.ndarray, out: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):  # a signalling NaN; NaNs become canonical in the result
        out[...] = halves


def _result(out: np.ndarray, counters: Any, shape: ArrayShape, macs: int) -> EngineResult:
    cycles, issued, stalled, hazard = (int(value) for value in counters)
    if hazard:
        raise HazardError(_HAZARDS[hazard])
    used = out.size * macs / (cycles * shape.rows * shape.cols)
    return EngineResult(canonical(np.ascontiguousarray(out.T)), cycles, issued, stalled, used)


@njit(cache=True, error_model="numpy")
def _mac(sums, a_t, values, indices, row0, col0, a_row, R, C, first):  # pragma: no cover
    """One micro-operation on all elements: sums[c, r] += v[c] * a[selected by c, r]."""
    for c in range(C):
        v = values[col0 + c]
        a = a_t[a_row + indices[col0 + c], row0 : row0 + R]
        s = sums[c]
        if first:
            for r in range(R):
                s[r] = np.float32(0.0) + v * a[r]
        else:
            for r in range(R):
                s[r] += v * a[r]


@njit(cache=True, error_model="numpy")
def _os(a_t, values, indices, out, counters, R, C, inter, N, M, G, La, Lm):  # pragma: no cover
    """Sequencer of OS tiles, column tiles inside row tiles.

    Sums live in two banks of I*N slots. With N > 1 the last fold round writes to a third place, I drain slots:
    emptying the chain takes R*I cycles, and the tile after next may need the bank before that is over.
    """
    lanes = inter * N
    length = max(lanes, La)
    DRAIN = 2
    acc = np.zeros((3, lanes, C, R), np.float32)
    ready = np.zeros((3, lanes), np.int64)  # first cycle at which element (0, 0) can read the sum
    needed = np.full((3, lanes), -1, np.int64)  # last cycle at which it reads it: a new sum must come later
    col_tiles = out.shape[0] // C
    tiles = out.shape[1] // (R * inter) * col_tiles
    t = 0
    chain_free = 0  # first cycle at which the chains can be loaded again
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
                    if needed[bank, slot] >= t + Lm + La:
                        counters[3] = 4
                        return
                    i, n = slot // N, slot % N
                    _mac(acc[bank, slot], a_t, values[p, n], indices[p, n], row0 + i * R, col0, p * M, R, C, p == 0)
                    ready[bank, slot] = t + Lm + La
                    counters[1] += 1
                t += 1
            if tile > 0 and p < N - 1:
                last = p == N - 2
                for i in range(inter):
                    into, lane = i * N, i * N + p + 1
                    if ready[other, into] > t + Lm or ready[other, lane] > t + Lm:
                        counters[3] = 1
                        return
                    needed[other, into] = needed[other, lane] = t + Lm
                    place, slot = (DRAIN, i) if last else (other, into)
                    if needed[place, slot] >= t + Lm + La:
                        counters[3] = 4
                        return
                    for c in range(C):
                        for r in range(R):
                            acc[place, slot, c, r] = acc[other, into, c, r] + acc[other, lane, c, r]
                    ready[place, slot] = t + Lm + La
                    t += 1
        # the tile whose sums are complete leaves through the drain chains
        done = tile if N == 1 else tile - 1
        if 0 <= done < tiles:
            which = done & 1 if N == 1 else DRAIN
            load = ready[which, 0] + R - 1  # the bottom row's first sum: r cycles of skew later than row 0
            row = done // col_tiles * (R * inter)
            col = done % col_tiles * C
            for i in range(inter):
                if ready[which, i] + R - 1 > load:
                    counters[3] = 1
                    return
                if load < chain_free:
                    counters[3] = 2
                    return
                needed[which, i] = load  # all rows load in this cycle: row 0, whose next sum comes first, binds
                out[col : col + C, row + i * R : row + i * R + R] = acc[which, i]
                load += R  # R shifts empty the chain
                chain_free = load
            # the word loaded at cycle x by the bottom row is out at x + 1; the last of R leaves at x + R
            counters[0] = load + (C - 1) + 1
        while live and t < start + R * inter:
            t += 1
            counters[2] += 1


@njit(cache=True, error_model="numpy")
def _ws_tile(a_t, values, indices, out, psum, g0, col0, m0, m1, R, C, N, M):  # pragma: no cover
    """Values of a weight tile in contract order, in strips of rows that stay in the cache."""
    strip = psum.shape[1]
    for s0 in range(m0, m1, strip):
        s1 = min(s0 + strip, m1)
        for c in range(col0, col0 + C):
            for n in range(N):
                lane = psum[n, : s1 - s0]
                for r in range(g0, g0 + R):
                    v = values[r, n, c]
                    a = a_t[r * M + indices[r, n, c], s0:s1]
                    if r == g0:
                        for s in range(s1 - s0):
                            lane[s] = np.float32(0.0) + v * a[s]
                    else:
                        for s in range(s1 - s0):
                            lane[s] += v * a[s]
            total = psum[0, : s1 - s0]
            for n in range(1, N):
                lane = psum[n, : s1 - s0]
                for s in range(s1 - s0):
                    total[s] += lane[s]
            previous = out[c, s0:s1]  # +0.0 before the first k-tile
            for s in range(s1 - s0):
                previous[s] += total[s]


@njit(cache=True, error_model="numpy")
def _ws(a_t, values, indices, out, counters, skew, R, C, N, M, k_tiles, chunk, La, Lm):  # pragma: no cover
    """Sequencer of WS tiles: row chunks, column tiles, k-tiles. ``skew``: cycles by which row r issues later."""
    m = a_t.shape[1]
    spacing = La
    while (spacing - 1) % N != 0:
        spacing += 1
    window = 4 * (N * spacing + N) + 8
    foot = np.full(window, -1, np.int64)  # cycle at which each adder slot was last used
    psum = np.zeros((N, min(chunk, 512)), np.float32)
    lane_at = np.zeros(N, np.int64)  # cycle at which the output's lane n is at the foot
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
                _ws_tile(a_t, values, indices, out, psum, kt * R, col0, m0, m0 + rows, R, C, N, M)
                for s in range(rows):
                    for n in range(N):
                        north = t + Lm  # the +0.0 above row 0 is always there
                        for r in range(R):
                            if north != t + skew[r] + Lm:  # nothing stores a sum between two rows: it must meet
                                counters[3] = 1
                                return
                            north = t + skew[r] + Lm + La
                        lane_at[n] = north
                        t += 1
                        counters[1] += 1
                    total = lane_at[0]  # cycle at which the running sum can be read
                    use = lane_at[0] + min(1, N - 1)
                    for j in range(1, N + 1):
                        operand = lane_at[j] if j < N else (written[s] if kt > 0 else 0)
                        if total > use or operand > use:
                            counters[3] = 1
                            return
                        if foot[use % window] == use:
                            counters[3] = 3
                            return
                        foot[use % window] = use
                        total = use + La
                        use += spacing
                    written[s] = total + 2  # one cycle to write the output buffer, one to read it
                    counters[0] = total + (C - 1) + 1
                while t < start + La + 2 or (t - start) % N != 0:  # turnaround, in whole rows of N slots
                    t += 1
                    counters[2] += 1
