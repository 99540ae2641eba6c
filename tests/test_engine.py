"""Closed form == cycle engine, and engine values == an order-exact product, on random legal configurations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nmsat.dataflow import array_timing as timing
from nmsat.dataflow.array_timing import ArrayShape
from nmsat.models.errors import NmsatError
from nmsat.models.golden.products import product_os, product_ws
from nmsat.simulator import engine
from nmsat.simulator.engine import HazardError, run_os, run_product, run_ws

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


R, C, INTER, CHUNK = 3, 4, 2, 5  # the edges below are 1, exact multiples and multiples + 1 of these


@pytest.mark.parametrize("m", [1, R, R * INTER, R * INTER + 1, 2 * R * INTER])
@pytest.mark.parametrize("n", [1, C, C + 1])
@pytest.mark.parametrize("groups", [1, R, R + 1, 2 * R])
@pytest.mark.parametrize("keep,group", [(1, 1), (1, 4), (2, 8), (4, 4)])
def test_edges(m, n, groups, keep, group):
    shape = ArrayShape(R, C, 5, 2)
    a, values, indices = operands(np.random.default_rng(m * 31 + n * 7 + groups), m, n, groups, keep, group)
    result = run_product(shape, "os", a, values, indices, group=group, interleave=INTER)
    tiles = -(-m // (R * INTER)) * -(-n // C)
    assert result.cycles == timing.os_cycles(shape, keep, groups, INTER, tiles)
    assert result.values.tobytes() == ordered_product(a, values, indices, group, None).tobytes()
    assert result.utilisation == m * n * groups * keep / (result.cycles * R * C) <= 1
    result = run_product(shape, "ws", a, values, indices, group=group, m_chunk=CHUNK)
    per_chunk = -(-n // C) * -(-groups // R)
    full, rest = divmod(m, CHUNK)
    runs = [(full * per_chunk, CHUNK), (per_chunk if rest else 0, rest)]
    assert result.cycles == timing.ws_cycles(shape, keep, runs)
    assert result.values.tobytes() == ordered_product(a, values, indices, group, R).tobytes()
    assert result.utilisation == m * n * groups * keep / (result.cycles * R * C) <= 1


@pytest.mark.parametrize("keep,group", [(1, 1), (2, 8), (8, 8), (8, 32)])
@pytest.mark.parametrize("groups", [1, 3, 7, 17])
def test_the_shipped_array_size(keep, group, groups):
    """32 x 32: long drains beside few groups are where folded sums outlive their bank."""
    shape = ArrayShape(32, 32, 8, 4)
    a, values, indices = operands(np.random.default_rng(groups), 300, 33, groups, keep, group)
    inter = timing.full_interleave(shape, keep)
    result = run_product(shape, "os", a, values, indices, group=group)
    assert result.cycles == timing.os_cycles(shape, keep, groups, inter, -(-300 // (32 * inter)) * 2)
    assert result.values.tobytes() == ordered_product(a, values, indices, group, None).tobytes()
    result = run_product(shape, "ws", a, values, indices, group=group)
    assert result.cycles == timing.ws_cycles(shape, keep, [(2, 300)])
    assert result.values.tobytes() == ordered_product(a, values, indices, group, 32).tobytes()


def test_stalls_are_the_drain_the_weight_load_and_the_turnaround():
    """By hand: OS waits R*I - G*P = 8 - 2*3 a tile; WS R*N = 4 before the first tile and 5 - 2 after each."""
    a, values, indices = operands(np.random.default_rng(1), 8, 2, 2, 1, 1)
    result = run_os(ArrayShape(4, 1, 3, 1), a, values, indices, 1, 2)
    assert (result.issue_slots, result.stall_slots) == (2 * 2 * 2, 2 * (8 - 6))
    result = run_ws(ArrayShape(4, 1, 3, 1), a, values, indices, 1, 2)
    assert (result.issue_slots, result.stall_slots) == (8 * 2, 4 + 8 * (5 - 2))


@pytest.mark.parametrize("skew", [[0, 2], [0, 4], [0, 1]])
def test_a_wrong_skew_is_a_hazard(skew):
    """The scoreboard sees rows that are not adder-latency apart: a sum and its product no longer meet."""
    a_t, values, indices = np.ones((2, 3), np.float32), np.ones((2, 1, 1), np.float32), np.zeros((2, 1, 1), np.int64)
    counters = np.zeros(4, np.int64)
    out = np.zeros((1, 3), np.float32)
    engine._ws(a_t, values, indices, out, counters, np.array(skew), 2, 1, 1, 1, 1, 3, 3, 1)
    with pytest.raises(HazardError, match=r"^partial sum read before it is ready$"):
        engine._result(out, counters, ArrayShape(2, 1, 3, 1), 1)


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
        assert result.values.view(np.uint32)[0, 1] == 0x7FC00000  # inf * 0: the one canonical NaN


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("keep,group", PATTERNS)
def test_values_are_the_golden_products(seed, keep, group):
    """Any bit pattern of binary16 as operand: subnormals, infinities, NaNs with payloads, both zeros."""
    rng = np.random.default_rng(seed)
    m, n, groups, rows = (int(rng.integers(1, high)) for high in (30, 9, 12, 6))
    a, values, indices = operands(rng, m, n, groups, keep, group)
    for array in (a, values):
        pool = rng.integers(0, 1 << 16, array.shape, np.uint16).view(np.float16)
        np.copyto(array, pool, where=rng.random(array.shape) < (0.02, 0.3, 1.0, 0.0)[seed])
    shape = ArrayShape(rows, 3, 5, 2)
    result = run_product(shape, "os", a, values, indices, group=group)
    assert result.values.tobytes() == product_os(a, values, indices, group).tobytes()
    result = run_product(shape, "ws", a, values, indices, group=group, m_chunk=7)
    assert result.values.tobytes() == product_ws(a, values, indices, group, rows).tobytes()


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
def test_bad_shapes(a_shape, index, message):
    values, indices = np.ones((1, 1, 1), np.float16), np.full((1, 1, 1), index, np.uint8)
    with pytest.raises(NmsatError, match=message):
        run_os(ArrayShape(1, 1, 1, 1), np.zeros(a_shape, np.float16), values, indices, 8, 1)


A, V, X = np.zeros((2, 8), np.float16), np.zeros((1, 2, 3), np.float16), np.zeros((1, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("dataflow", "operand", "options", "message"),
    [
        ("is", (A, V, X), {}, r"^engine: dataflow: must be os or ws, not 'is'$"),
        ("os", (A, V, X), {"interleave": 0}, r"^engine: interleave: must be at least 1, not 0$"),
        ("ws", (A, V, X), {"interleave": 1}, r"^engine: interleave: must be left out under ws, not 1$"),
        ("os", (A, V, X), {"m_chunk": 4}, r"^engine: m_chunk: must be left out under os, not 4$"),
        ("ws", (A, V, X), {"m_chunk": 0}, r"^engine: m_chunk: must be at least 1, not 0$"),
        ("os", (A.astype(np.float32), V, X), {}, r"^engine: a.dtype: must be float16, not 'float32'$"),
        ("os", (A, V.astype(np.float64), X), {}, r"^engine: b_values.dtype: must be float16, not 'float64'$"),
        ("os", (A, V, X.astype(np.int8)), {}, r"^engine: b_indices.dtype: must be uint8, not 'int8'$"),
        ("os", (A, V, X[:, :1]), {}, r"^engine: b_indices.shape: must be \(1, 2, 3\) like b_values, not \(1, 1, 3\)$"),
        (
            "ws",
            (A, V[:0], X[:0]),
            {},
            r"^engine: b_values.shape: must be \(G, N, n\), each at least 1, not \(0, 2, 3\)$",
        ),
        ("ws", (A, V[0], X[0]), {}, r"^engine: b_values.shape: must be \(G, N, n\), each at least 1, not \(2, 3\)$"),
        (
            "ws",
            (A[:, :1], V, X),
            {"group": 1},
            r"^engine: b_values.shape: must be at most 1 values a group of 1, not 2$",
        ),
    ],
)
def test_bad_operands(dataflow, operand, options, message):
    with pytest.raises(NmsatError, match=message):
        run_product(ArrayShape(2, 2, 3, 1), dataflow, *operand, **{"group": 8, **options})


def test_the_manual_s_example_runs():
    text = (Path(__file__).parents[1] / "docs" / "engine.md").read_text(encoding="utf-8")
    exec(compile(text.split("```python\n")[1].split("```")[0], "docs/engine.md", "exec"), {})
