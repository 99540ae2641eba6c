"""A literal model of the array in which every register moves every cycle, against the engine: values and cycles.

Only docs/accelerator.md is assumed here. What the engine folds into time skew is spelled out: control and activations hop
east, values hop south, partial sums travel through multiplier and adder pipelines, results leave through drain chains
or the column foot. It is slow and small on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from nmsat.dataflow.array_timing import ArrayShape
from nmsat.simulator.engine import run_os, run_ws

F32 = np.float32
DRAIN = 2  # the I slots that the last fold round writes and the chain loads


@dataclass
class Element:
    """One processing element's registers."""

    control: tuple | None = None  # moves east
    activations: np.ndarray | None = None  # moves east with it
    value: tuple | None = None  # (value, index), moves south in OS
    shadow: dict = field(default_factory=dict)  # WS: lane -> (value, index), being loaded
    weights: dict = field(default_factory=dict)  # WS: the active set
    multiplier: list = field(default_factory=list)  # Lm stages
    adder: list = field(default_factory=list)  # La stages
    sums: dict = field(default_factory=dict)  # OS: (bank 0 or 1, lane) -> sum; (DRAIN, i) -> folded sum
    chain: tuple | None = None  # drain register
    load_line: list = field(default_factory=list)  # WS: La stages of weight words on their way south


def grid(shape: ArrayShape) -> list[list[Element]]:
    def element() -> Element:
        La, Lm = shape.adder_latency, shape.multiplier_latency
        return Element(multiplier=[None] * Lm, adder=[None] * La, load_line=[None] * La)

    return [[element() for _ in range(shape.cols)] for _ in range(shape.rows)]


def os_stream(keep: int, groups: int, inter: int, length: int, tiles: int, drain: int) -> Iterator[tuple | None]:
    """Micro-operations by cycle, from section 3's text."""
    cycle = start = 0
    for tile in range(tiles + 1):
        live = tile < tiles
        passes = groups if live else 0
        if tile:
            passes = max(passes, keep - 1)
        for p in range(passes):
            for slot in range(length):
                real = live and p < groups and slot < inter * keep
                yield ("mac", tile, p, slot // keep, slot % keep) if real else None
                cycle += 1
            if tile and p < keep - 1:
                for i in range(inter):
                    yield ("fold", tile - 1, p + 1, i)
                    cycle += 1
        while live and cycle < start + drain:
            yield None
            cycle += 1
        start = cycle


def literal_os(shape: ArrayShape, a, values, indices, group: int, inter: int) -> tuple[np.ndarray, int]:
    groups, keep, n = values.shape
    R, C, La = shape.rows, shape.cols, shape.adder_latency
    m_tiles, n_tiles = -(-a.shape[0] // (R * inter)), -(-n // C)
    pad_a = np.zeros((m_tiles * R * inter, a.shape[1]), F32)
    pad_a[: a.shape[0]] = a
    pad_v = np.zeros((groups, keep, n_tiles * C), F32)
    pad_v[:, :, :n] = values
    pad_i = np.zeros(pad_v.shape, int)
    pad_i[:, :, :n] = indices
    tiles = m_tiles * n_tiles
    stream = list(os_stream(keep, groups, inter, max(inter * keep, La), tiles, R * inter))
    pes = grid(shape)
    out = np.full((m_tiles * R * inter, n_tiles * C), np.nan, F32)
    loads: dict[int, dict[int, tuple[int, int]]] = {c: {} for c in range(C)}  # column -> cycle -> (tile, i)
    words = [0] * C
    last_out = -1
    cycle = 0
    while sum(words) < tiles * R * inter * C:
        # everything moves one register
        for r in reversed(range(R)):
            for c in reversed(range(C)):
                pe = pes[r][c]
                if c:
                    pe.control, pe.activations = pes[r][c - 1].control, pes[r][c - 1].activations
                else:
                    at = cycle - r  # the edge delays row r by r cycles
                    pe.control = stream[at] if 0 <= at < len(stream) else None
                    pe.activations = None
                    if pe.control and pe.control[0] == "mac":
                        _, tile, g, i, _ = pe.control
                        row = tile // n_tiles * R * inter + i * R + r
                        pe.activations = pad_a[row, g * group : (g + 1) * group]
                if r:
                    pe.value = pes[r - 1][c].value
                else:
                    at = cycle - c  # and column c by c cycles
                    op = stream[at] if 0 <= at < len(stream) else None
                    pe.value = None
                    if op and op[0] == "mac":
                        _, tile, g, _, lane = op
                        col = tile % n_tiles * C + c
                        pe.value = pad_v[g, lane, col], pad_i[g, lane, col]
        # drain chains: bottom register out, others down, or all loaded at once
        for c in range(C):
            bottom = pes[R - 1][c].chain
            if bottom is not None:
                tile, i, r, word = bottom
                out[tile // n_tiles * R * inter + i * R + r, tile % n_tiles * C + c] = word
                words[c] += 1
                last_out = cycle
            load = loads[c].pop(cycle, None)
            for r in reversed(range(R)):
                pes[r][c].chain = pes[r - 1][c].chain if r else None
            # arithmetic
            for r in range(R):
                pe = pes[r][c]
                finished = pe.adder.pop()
                if finished is not None:
                    key, word, complete = finished
                    tile, bank, lane = key
                    pe.sums[bank, lane] = word
                    if complete and r == 0 and lane == 0:  # first sum of the tile: load the chains in step with row R-1
                        for i in range(inter):
                            loads[c][cycle + R - 1 + i * R] = (tile, i)
                            if R == 1 and i == 0:
                                load = loads[c].pop(cycle)
                entering = pe.multiplier.pop()
                result = None
                if entering is not None:
                    kind, tile, lane, operand, complete = entering
                    if kind == "mac":
                        before = F32(0) if operand[1] else pe.sums[tile % 2, lane]
                        result = ((tile, tile % 2, lane), F32(before + operand[0]), complete)
                    else:
                        folded = F32(pe.sums[tile % 2, lane] + pe.sums[tile % 2, operand])
                        place = (DRAIN, lane // keep) if complete else (tile % 2, lane)
                        result = ((tile, *place), folded, complete)
                pe.adder.insert(0, result)
                issue = None
                if pe.control and pe.control[0] == "mac":
                    _, tile, g, i, lane = pe.control
                    value, index = pe.value
                    product = F32(pe.activations[index] * value)
                    issue = ("mac", tile, i * keep + lane, (product, g == 0), keep == 1 and g == groups - 1)
                elif pe.control:
                    _, tile, round_, i = pe.control
                    issue = ("fold", tile, i * keep, i * keep + round_, round_ == keep - 1)
                pe.multiplier.insert(0, issue)
            if load is not None:
                tile, i = load
                for r in range(R):
                    assert pes[r][c].chain is None, "drain chain busy"
                    pes[r][c].chain = (tile, i, r, pes[r][c].sums[tile % 2 if keep == 1 else DRAIN, i])
        cycle += 1
        assert cycle < 100_000
    return out[: a.shape[0], :n], last_out + 1


def literal_ws(shape: ArrayShape, a, values, indices, group: int, chunk: int) -> tuple[np.ndarray, int]:
    groups, keep, n = values.shape
    R, C, La = shape.rows, shape.cols, shape.adder_latency
    m, n_tiles, k_tiles = a.shape[0], -(-n // C), -(-groups // R)
    turnaround = -(-(La + 2) // keep) * keep
    # section 4: tile starts, and the weight words that enter each column, bottom row first
    plan, cycle = [], R * keep
    for m0 in range(0, m, chunk):
        rows = min(chunk, m - m0)
        for tile in range(n_tiles):
            for kt in range(k_tiles):
                plan.append((cycle, m0, rows, tile, kt))
                cycle += max(rows * keep, R * keep, turnaround)
    ops: dict[int, tuple] = {}
    words: dict[int, tuple] = {}
    for number, (start, m0, rows, tile, kt) in enumerate(plan):
        load_start = plan[number - 1][0] if number else 0
        for x in range(R * keep):
            words[load_start + x] = (R - 1 - x // keep, x % keep, tile, kt)
        for s in range(rows):
            for lane in range(keep):
                ops[start + s * keep + lane] = (m0 + s, lane, tile, kt, s == 0 and lane == 0)
    spacing = next(x for x in range(La, La + keep + 1) if (x - 1) % keep == 0)
    pes = grid(shape)
    out: dict[tuple[int, int], np.float32] = {}
    foot_in: dict[tuple[int, int, int, int], list] = {}
    steps: dict[tuple[int, int], tuple] = {}  # (cycle, column) -> what the foot adder does then
    results: dict[tuple[int, int], list] = {}  # (cycle, column) -> sums that become visible
    expected, done, last_out, cycle = m * n_tiles * k_tiles * C, 0, -1, 0
    while done < expected:
        for r in reversed(range(R)):
            for c in reversed(range(C)):
                pe = pes[r][c]
                pe.control = pes[r][c - 1].control if c else ops.get(cycle - r * La)
        north = [[pe.adder[-1] for pe in row] for row in pes]  # adder outputs visible this cycle
        for c in range(C):
            for r in range(R):
                pe = pes[r][c]
                pe.adder.pop()
                entering = pe.multiplier.pop()
                if entering is not None:
                    key, product = entering
                    if r:
                        above_key, above = north[r - 1][c]
                        assert above_key == key, "partial sum and product do not meet"
                    else:
                        above = F32(0)
                    entering = key, F32(above + product)
                pe.adder.insert(0, entering)
                issue = None
                if pe.control:
                    row, lane, _, kt, first = pe.control
                    if first:
                        assert len(pe.shadow) == keep, "weights not loaded in time"
                        pe.weights, pe.shadow = pe.shadow, {}
                    value, index = pe.weights[lane]
                    g = kt * R + r
                    activation = F32(a[row, g * group + index]) if g < groups else F32(0)
                    issue = pe.control[:4], F32(activation * value)
                pe.multiplier.insert(0, issue)
            for r in reversed(range(R)):  # the word on the wire is captured at the end of the cycle
                pe = pes[r][c]
                word = pes[r - 1][c].load_line[-1] if r else words.get(cycle - c)
                pe.load_line.pop()
                pe.load_line.insert(0, word)
                if word and word[0] == r:
                    _, lane, tile, kt = word
                    assert lane not in pe.shadow, "weight overwritten before it was taken over"
                    g, col = kt * R + r, tile * C + c
                    inside = g < groups and col < n
                    pe.shadow[lane] = (F32(values[g, lane, col]), int(indices[g, lane, col])) if inside else (F32(0), 0)
            bottom = north[R - 1][c]
            if bottom is not None:
                (row, lane, tile, kt), word = bottom
                foot_in.setdefault((c, row, tile, kt), []).append(word)
                if lane == 0:
                    for j in range(1, keep + 1):
                        at = cycle + min(1, keep - 1) + (j - 1) * spacing, c
                        assert at not in steps, "foot adder used twice"
                        steps[at] = (row, tile, kt, j)
            step = steps.pop((cycle, c), None)
            if step:
                row, tile, kt, j = step
                lanes = foot_in[c, row, tile, kt]
                if j < keep:
                    lanes[0] = F32(lanes[0] + lanes[j])
                else:
                    before = F32(0) if kt == 0 else out[row, tile * C + c]
                    results.setdefault((cycle + La, c), []).append((row, tile * C + c, F32(before + lanes[0])))
            for row, col, word in results.pop((cycle, c), []):
                out[row, col] = word
                done += 1
                last_out = cycle
        cycle += 1
        assert cycle < 100_000
    got = np.array([[out[row, col] for col in range(n)] for row in range(m)], F32)
    return got, last_out + 1


CASES = [  # keep, group, (R, C, La, Lm), m, n, groups, interleave, chunk
    (1, 1, (1, 1, 1, 1), 1, 1, 1, 1, 1), (1, 1, (2, 2, 3, 2), 5, 3, 4, 3, 5), (1, 1, (3, 2, 8, 4), 20, 5, 6, 8, 7),
    (1, 4, (2, 3, 5, 1), 7, 7, 3, 5, 4), (1, 8, (4, 3, 2, 2), 9, 4, 5, 2, 9), (2, 2, (2, 2, 8, 4), 9, 3, 3, 4, 2),
    (2, 4, (3, 3, 7, 3), 13, 4, 4, 4, 13), (2, 8, (4, 3, 8, 4), 33, 4, 6, 4, 10), (2, 8, (2, 2, 8, 4), 3, 5, 1, 1, 3),
    (2, 16, (2, 4, 5, 3), 8, 9, 2, 3, 1), (4, 4, (2, 2, 3, 1), 5, 2, 3, 1, 5), (4, 8, (3, 2, 8, 4), 12, 3, 2, 2, 6),
    (4, 8, (2, 2, 6, 2), 4, 2, 1, 2, 4), (8, 8, (2, 2, 4, 2), 3, 3, 2, 1, 2), (8, 32, (2, 3, 8, 4), 5, 4, 3, 1, 5),
    (3, 8, (2, 2, 7, 3), 6, 3, 4, 2, 4), (3, 8, (4, 1, 4, 1), 3, 2, 9, 2, 1), (5, 16, (1, 3, 9, 2), 4, 4, 2, 1, 3),
    (1, 2, (4, 3, 10, 5), 11, 4, 7, 10, 11), (2, 4, (1, 4, 1, 1), 6, 5, 5, 1, 2),
    # few groups beside long columns: the folded sums wait in their drain slots while their bank is written again
    (2, 8, (8, 2, 8, 4), 24, 4, 1, 1, 5), (8, 8, (8, 2, 8, 4), 24, 4, 7, 1, 4), (2, 8, (8, 1, 8, 4), 96, 2, 8, 4, 9),
]  # fmt: skip


@pytest.mark.parametrize(("keep", "group", "array", "m", "n", "groups", "inter", "chunk"), CASES)
@pytest.mark.parametrize("mode", ["os", "ws"])
def test_engine_equals_the_literal_model(mode, keep, group, array, m, n, groups, inter, chunk):
    rng = np.random.default_rng(m * 100 + n)
    a = rng.normal(size=(m, groups * group)).astype(np.float16)
    values = rng.normal(size=(groups, keep, n)).astype(np.float16)
    order = np.argsort(rng.random((groups, group, n)), axis=1)[:, :keep]
    indices = np.sort(order, axis=1).astype(np.uint8)
    shape = ArrayShape(*array)
    if mode == "os":
        expected, cycles = literal_os(shape, a, values, indices, group, inter)
        result = run_os(shape, a, values, indices, group, inter)
    else:
        expected, cycles = literal_ws(shape, a, values, indices, group, chunk)
        result = run_ws(shape, a, values, indices, group, chunk)
    assert np.array_equal(result.values.view(np.uint32), expected.view(np.uint32))
    assert result.cycles == cycles
