"""Closed form == cycle engine, and engine values == an order-exact product, on random legal configurations."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow import array_timing as timing
from nmsat.dataflow.array_timing import ArrayShape
from nmsat.models.errors import NmsatError
from nmsat.simulator.engine import run_os, run_ws

PATTERNS = [
    (1, 1),
    (2, 2),
    (4, 4),
    (1, 2),
    (1, 4),
    (2, 4),
    (1, 8),
    (2, 8),
    (4, 8),
    (2, 16),
    (4, 16),
    (8, 32),
    (3, 8),
]


def operands(rng: np.random.Generator, m: int, n: int, groups: int, keep: int, group: int):
    a = rng.normal(size=(m, groups * group)).astype(np.float16)
    values = rng.normal(size=(groups, keep, n)).astype(np.float16)
    order = np.argsort(rng.random((groups, group, n)), axis=1)[:, :keep]
    return a, values, np.sort(order, axis=1).astype(np.uint8)


def ordered_product(a, values, indices, group: int, k_rows: int | None) -> np.ndarray:
    """Section 6's summation orders in plain NumPy: k_rows None is OS, else WS with R = k_rows."""
    groups, keep, n = values.shape
    a32, v32 = a.astype(np.float32), values.astype(np.float32)
    total = np.zeros((a.shape[0], n), np.float32)
    step = groups if k_rows is None else k_rows
    for start in range(0, groups, step):
        lanes = []
        for lane in range(keep):
            acc = np.zeros((a.shape[0], n), np.float32)
            for g in range(start, min(start + step, groups)):
                acc = acc + a32[:, g * group + indices[g, lane].astype(int)] * v32[g, lane]
            lanes.append(acc)
        s = lanes[0]
        for lane in lanes[1:]:
            s = s + lane
        total = total + s
    return total


def draw(rng: np.random.Generator):
    keep, group = PATTERNS[rng.integers(len(PATTERNS))]
    shape = ArrayShape(*(int(rng.integers(1, 7)) for _ in range(2)), int(rng.integers(1, 11)), int(rng.integers(1, 6)))
    sizes = int(rng.integers(1, 40)), int(rng.integers(1, 14)), int(rng.integers(1, 12))
    return keep, group, shape, sizes


def check(seed: int, count: int) -> int:
    rng = np.random.default_rng(seed)
    for case in range(count):
        keep, group, shape, (m, n, groups) = draw(rng)
        a, values, indices = operands(rng, m, n, groups, keep, group)
        col_tiles = -(-n // shape.cols)
        what = f"case {case}: {keep}:{group} {shape} m={m} n={n} G={groups}"
        if case % 2:
            interleave = int(rng.integers(1, timing.full_interleave(shape, keep) + 1))
            result = run_os(shape, a, values, indices, group, interleave)
            tiles = -(-m // (shape.rows * interleave)) * col_tiles
            assert result.cycles == timing.os_cycles(shape, keep, groups, interleave, tiles), f"{what} I={interleave}"
            assert result.issue_slots == tiles * groups * interleave * keep
            expected = ordered_product(a, values, indices, group, None)
        else:
            chunk = int(rng.integers(1, m + 1))
            result = run_ws(shape, a, values, indices, group, chunk)
            per_chunk = col_tiles * -(-groups // shape.rows)
            runs = [(m // chunk * per_chunk, chunk), (per_chunk if m % chunk else 0, m % chunk)]
            assert result.cycles == timing.ws_cycles(shape, keep, runs), f"{what} chunk={chunk}"
            assert result.issue_slots == m * keep * per_chunk
            expected = ordered_product(a, values, indices, group, shape.rows)
        assert np.array_equal(result.values.view(np.uint32), expected.view(np.uint32)), what
    return count


@pytest.mark.parametrize("seed", range(6))
def test_closed_form_equals_engine(seed):
    assert check(seed, 100) == 100


@pytest.mark.slow
def test_closed_form_equals_engine_10000():
    assert check(2026, 10_000) == 10_000


@pytest.mark.parametrize("keep,group", PATTERNS)
@pytest.mark.parametrize("interleave", [1, 2, 4])
def test_one_tile_latency_is_the_contract_formula(keep, group, interleave):
    """T of section 6 is the last sum ready; the drain then takes R hops and R*I words, less the skew in T."""
    shape = ArrayShape(3, 4, 8, 4)
    cycles = timing.os_cycles(shape, keep, 5, interleave, 1)
    latency = timing.os_tile_latency(shape, keep, 5, interleave)
    length = timing.os_pass(shape, keep, interleave)
    last_slot = 4 * length + interleave * keep - 1
    assert latency == last_slot + 2 + 3 + 4 + 8
    if keep == 1:
        first_ready = 4 * length + 4 + 8
        assert cycles == first_ready + 3 + 3 * interleave + 3


def test_special_values_follow_ieee():
    shape = ArrayShape(2, 2, 3, 2)
    a = np.array([[np.inf, 1, -0.0, 0]], np.float16)
    values = np.array([[[1.0, 0.0]], [[1.0, 5.0]], [[-0.0, 1.0]], [[2.0, 1.0]]], np.float16)
    indices = np.zeros((4, 1, 2), np.uint8)
    for result in (run_os(shape, a, values, indices, 1, 3), run_ws(shape, a, values, indices, 1)):
        assert result.values[0, 0] == np.inf
        assert np.isnan(result.values[0, 1])


def test_a_sum_of_negative_zeros_is_positive():
    shape = ArrayShape(1, 1, 2, 1)
    a = np.array([[-0.0]], np.float16)
    values, indices = np.ones((1, 1, 1), np.float16), np.zeros((1, 1, 1), np.uint8)
    assert not np.signbit(run_os(shape, a, values, indices, 1, 1).values[0, 0])
    assert not np.signbit(run_ws(shape, a, values, indices, 1).values[0, 0])


@pytest.mark.parametrize(
    ("a_shape", "index", "message"),
    [
        ((0, 8), 0, r"^engine: a.shape: must be \(m >= 1, 8\) for 1 groups of 8, not \(0, 8\)$"),
        ((1, 7), 0, r"^engine: a.shape: must be \(m >= 1, 8\) for 1 groups of 8, not \(1, 7\)$"),
        ((1, 8), 8, r"^engine: b_indices: must be below the group size 8, not 8$"),
    ],
)
def test_bad_operands(a_shape, index, message):
    values, indices = np.ones((1, 1, 1), np.float16), np.full((1, 1, 1), index, np.uint8)
    with pytest.raises(NmsatError, match=message):
        run_os(ArrayShape(1, 1, 1, 1), np.zeros(a_shape, np.float16), values, indices, 8, 1)
