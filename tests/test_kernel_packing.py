"""Kernel descriptions, packing, panels and the exact reference."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.dataflow.kernels import STANDIN, Kernel, choose_block, cut, pack
from nmsat.dataflow.kernels.packing import index_bytes
from nmsat.dataflow.kernels.panels import runs
from nmsat.dataflow.kernels.shapes import all_shapes, pointwise
from nmsat.dataflow.kernels.streams import streams
from nmsat.models import Sparsity, Workload
from nmsat.models.errors import NmsatError
from nmsat.simulator.kernels import compiled, reference

SLICED: dict = {"mr": 4, "index": "sliced", "stream": "interleaved", "order": "by_count"}


def matrix(n: int, k: int, zeros: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(n, k)).astype(np.float32)
    w[rng.random((n, k)) < zeros] = 0
    return w


def bits_differing(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32
    return int(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"mr": 30}, r"kernel: mr: must be a multiple of 4 from 4 to 64, not 30"),
        ({"mr": 0}, r"kernel: mr: must be a multiple of 4"),
        ({"nr": 3}, r"kernel: nr: must be 1, 2 or 4, not 3"),
        ({"unroll": 3}, r"kernel: unroll: must be 1, 2 or 4, not 3"),
        ({"index": "csr"}, r"kernel: index: must be one of delta, absolute, packed, dense, sliced, not 'csr'"),
        ({"index": "packed"}, r"kernel: pattern: must be given exactly when index is \"packed\", not None"),
        ({"pattern": Sparsity(2, 8)}, r"kernel: pattern: must be given exactly when"),
        (
            {"index": "packed", "pattern": Sparsity(8, 16)},
            r"kernel: pattern: must be sparse with at most 2 index bytes",
        ),
        (
            {"index": "packed", "pattern": Sparsity(2, 8), "nr": 2},
            r"kernel: index: must be delta, absolute or dense",
        ),
        ({"stream": "interleaved", "values": "int8"}, r"kernel: stream: must be separate"),
        (
            {"order": "by_count"},
            r"kernel: order: must be natural for a separate stream, not 'by_count'; the output",
        ),
        ({"broadcast": "presplat", "values": "int8"}, r"kernel: broadcast: must be splat"),
        ({"index": "sliced"}, r"kernel: mr: must be 4 for sliced kernels, not 28"),
        (SLICED | {"nr": 2}, r"kernel: nr: must be 1 for sliced kernels, not 2"),
        (SLICED | {"order": "natural"}, r"kernel: order: must be by_count for sliced kernels, not 'natural'"),
        (
            SLICED | {"order": "natural", "stream": "separate"},
            r"kernel: stream: must be interleaved for sliced kernels, not 'separate'",
        ),
        (SLICED | {"broadcast": "presplat"}, r"kernel: broadcast: must be splat for sliced kernels, not 'presplat'"),
        (SLICED | {"values": "int8"}, r"kernel: values: must be f32 for sliced kernels, not 'int8'"),
        (SLICED | {"panels": "copied"}, r"kernel: panels: must be in_place for sliced kernels, not 'copied'"),
        (SLICED | {"group": 2}, r"kernel: group: must be 1 for sliced kernels, not 2"),
        (SLICED | {"pattern": Sparsity(2, 8)}, r"kernel: pattern: must be given exactly when"),
        ({"clamp": (6.0, 0.0)}, r"kernel: clamp: must be a lower bound and an upper bound"),
    ],
)
def test_description_refuses(fields: dict, message: str) -> None:
    with pytest.raises(NmsatError, match="^" + message):
        Kernel(**fields)


def test_names_tell_kernels_apart() -> None:
    kernels = [
        Kernel(),
        STANDIN,
        Kernel(unroll=2),
        Kernel(stream="interleaved"),
        Kernel(stream="interleaved", order="by_count"),
        Kernel(broadcast="presplat"),
        Kernel(values="int8"),
        Kernel(clamp=(0, 6)),
        Kernel(index="packed", pattern=Sparsity(2, 8)),
        Kernel(**SLICED),
        Kernel(**SLICED, unroll=4),
        Kernel(**SLICED, arithmetic="mul_add"),
    ]
    assert len({k.name for k in kernels}) == len(kernels)
    assert STANDIN.name == "32x1-delta-mul_add"


@pytest.mark.parametrize(
    "weights, bias, message",
    [
        (np.zeros((0, 3), np.float32), None, r"pack: weights: must be at least 1 x 1, not \(0, 3\)"),
        (np.zeros((3, 0), np.float32), None, r"pack: weights: must be at least 1 x 1, not \(3, 0\)"),
        (np.zeros((3, 3)), None, r"pack: weights: must be a float32 matrix, not 'float64 of 2 axes'"),
        (np.full((1, 1), np.nan, np.float32), None, r"pack: weights: must be finite"),
        (
            np.zeros((2, 2), np.float32),
            np.zeros(3, np.float32),
            r"pack: bias: must be float32 of shape \(2,\)",
        ),
        (np.zeros((1, 1), np.float32), np.array([np.inf], np.float32), r"pack: bias: must be finite"),
    ],
)
def test_pack_refuses(weights: np.ndarray, bias: np.ndarray | None, message: str) -> None:
    with pytest.raises(NmsatError, match="^" + message):
        pack(Kernel(), weights, bias)


def test_pattern_violation_is_refused() -> None:
    with pytest.raises(NmsatError, match=r"^pack: weights: must be 2:4: at most 2 non-zeros a group, not 4"):
        pack(Kernel(index="packed", pattern=Sparsity(2, 4)), np.ones((1, 8), np.float32))


def test_input_is_checked() -> None:
    packed = pack(Kernel(), matrix(3, 4, 0.5))
    for x in (
        np.zeros((5, 2), np.float32),
        np.zeros((4, 0), np.float32),
        np.zeros((4, 2)),
        np.zeros(4, np.float32),
    ):
        with pytest.raises(NmsatError, match=r"^kernel: x: must be float32 of shape \(4, m >= 1\)"):
            reference.multiply(packed, x)
    with pytest.raises(NmsatError, match=r"^kernel: x: must be free of NaN"):
        compiled.multiply(packed, np.full((4, 2), np.nan, np.float32))


def test_deltas_cross_rows_and_close_the_loop() -> None:
    w = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]], np.float32)
    section = pack(Kernel(), w).sections[0]
    assert section.channels.tolist() == [[1], [3], [0], [3]]
    assert section.counts.tolist() == [2, 0, 2]
    assert section.start() == 1
    assert section.deltas(196).tolist() == [2 * 196, -3 * 196, 3 * 196, -2 * 196]
    assert section.deltas(196).sum() == 0


def test_value_stream_is_biases_then_values() -> None:
    w = np.array([[0, 1], [2, 3]], np.float32)
    packed = pack(Kernel(nr=2), w, np.array([10, 20], np.float32))
    stream = streams(packed, packed.sections[0], 4)
    assert np.frombuffer(stream.values, "<f4").tolist() == [10, 20, 0, 2, 1, 3]
    assert np.frombuffer(stream.counts, "<u4").tolist() == [2]


def test_interleaved_stream() -> None:
    w = np.array([[1, 2], [3, 0]], np.float32)
    packed = pack(Kernel(stream="interleaved", order="by_count"), w, np.array([10, 20], np.float32))
    words = np.frombuffer(streams(packed, packed.sections[0], 1).values, "<u4")
    assert words[[0, 5]].tolist() == [1, 2]  # row 1 first: it has one value
    assert words[[1, 6]].view("<i4").tolist() == [-4, 4]  # output steps, closing the loop
    assert words[[3, 8, 10]].view("<i4").tolist() == [0, 4, -4]  # deltas, closing the loop
    assert words[[2, 4, 7, 9, 11]].view("<f4").tolist() == [20, 3, 10, 1, 2]


SIX_ROWS = np.array([[0, 1, 0, 0], [0, 0, 0, 0], [2, 0, 3, 4], [0, 5, 6, 0], [0, 0, 0, 7], [8, 9, 0, 0]], np.float32)


def test_slices_take_the_longest_rows_first_and_repeat_a_row_s_last_column():
    packed = pack(Kernel(**SLICED), SIX_ROWS)
    whole, rest = packed.sections
    assert whole.rows.tolist() == [[2, 3, 5, 0]]  # 3, 2, 2 and 1 values; equal counts keep their order
    assert whole.counts.tolist() == [3]
    assert whole.channels.tolist() == [[0, 1, 0, 1], [2, 2, 1, 1], [3, 2, 1, 1]]
    assert whole.values.tolist() == [[2, 5, 8, 1], [3, 6, 9, 0], [4, 0, 0, 0]]
    assert rest.rows.tolist() == [[4, 1]]  # the last n % 4 rows
    assert rest.channels.tolist() == [[3, 0]]  # an empty row reads column 0
    assert rest.values.tolist() == [[7, 0]]
    assert packed.nonzeros == 9
    assert packed.stored == 4 * 3 + 4 * 1  # four lanes a step, rows or not
    assert packed.footprint_bytes == 32 * (1 + 3) + 4 + 32 * (1 + 1) + 4


def test_slice_stream():
    bias = np.arange(10, 16, dtype=np.float32)
    packed = pack(Kernel(**SLICED), SIX_ROWS, bias)
    stream = streams(packed, packed.sections[1], 3)
    assert np.frombuffer(stream.counts, "<u4").tolist() == [1]
    assert (stream.indices, stream.scales, stream.in_start, stream.out_start) == (b"", b"", 0, 0)
    words = np.frombuffer(stream.values, "<u4").reshape(-1, 2, 4)
    assert words[:, 0].tolist() == [[12 * 4, 12 * 1, 0, 0], [12 * 3, 0, 0, 0]]  # of rows of Y, then of X
    assert words[:, 1].view("<f4").tolist() == [[14, 11, 0, 0], [7, 0, 0, 0]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(1, 13), k=st.integers(1, 20), zeros=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_slices_hold_every_weight_once_in_ascending_order(n: int, k: int, zeros: float):
    w = matrix(n, k, zeros, n * 31 + k)
    packed, seen = pack(Kernel(**SLICED), w), []
    again, longest = np.zeros_like(w), np.inf
    for section in packed.sections:
        ends = np.cumsum(section.counts)
        for rows, count, end in zip(section.rows, section.counts, ends, strict=True):
            part = slice(end - count, end)
            assert (section.channels[part] < k).all()
            for lane, row in enumerate(rows):
                channels, values = section.channels[part, lane], section.values[part, lane]
                own = np.count_nonzero(w[row])
                assert own <= min(count, longest)
                assert (np.diff(channels[:own]) > 0).all()
                assert not values[own:].any()
                again[row, channels[:own]] = values[:own]
                seen.append(int(row))
            assert count == np.count_nonzero(w[rows], axis=1).max()
            longest = np.count_nonzero(w[rows], axis=1).min()
    assert sorted(seen) == list(range(n))
    assert np.array_equal(again, w)


@pytest.mark.parametrize("height, fill, expected", [(4, 1.0, 4), (4, 0.92, 4), (2, 1.0, 2), (1, 1.0, 1), (4, 0.6, 1)])
def test_block_rule(height: int, fill: float, expected: int) -> None:
    rng = np.random.default_rng(5)
    mask = np.repeat(rng.random((64 // height, 256)) < 0.1, height, axis=0)
    mask &= rng.random(mask.shape) < fill
    assert choose_block(mask.astype(np.float32)) == expected


def test_block_rule_of_zeros_is_one() -> None:
    assert choose_block(np.zeros((8, 8), np.float32)) == 1


def test_footprint_equals_the_streams() -> None:
    w = matrix(19, 24, 0.8)
    kernels = [
        Kernel(),
        Kernel(nr=4),
        Kernel(broadcast="presplat"),
        Kernel(stream="interleaved"),
        Kernel(stream="interleaved", broadcast="presplat", nr=2),
        Kernel(values="int8"),
        Kernel(index="dense"),
        Kernel(**SLICED),
    ]
    for kernel in kernels:
        packed = pack(kernel, w)
        total = 0
        for section in packed.sections:
            s = streams(packed, section, 4)
            total += sum(map(len, (s.values, s.indices, s.counts, s.scales)))
        assert packed.footprint_bytes == total, kernel.name


def test_packed_indices_are_little_endian_bit_fields() -> None:
    w = np.zeros((1, 8), np.float32)
    w[0, [2, 7]] = 1
    packed = pack(Kernel(index="packed", pattern=Sparsity(2, 8)), w)
    assert index_bytes(packed.sections[0], Sparsity(2, 8)).tolist() == [2 | 7 << 3]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 7, 8, 27, 28, 29, 49, 196, 784, 3136])
@pytest.mark.parametrize("vectors", [1, 2, 3, 6, 7, 8])
def test_panels_cover_every_column_and_nothing_else(m: int, vectors: int) -> None:
    panels = cut(m, vectors)
    written = np.zeros(m, int)
    for panel in panels:
        assert 1 <= len(panel.starts) <= vectors
        for start in panel.starts:
            assert 0 <= panel.column + start <= m - panel.lanes
            written[panel.column + start :][: panel.lanes] += 1
    assert written.min() == 1
    assert written.sum() - m < 4  # the overlap costs less than one vector
    total = math.ceil(m / panels[0].lanes)
    assert len(panels) == math.ceil(total / vectors)
    assert sum(count for _, count in runs(panels)) == len(panels)
    replayed = [(p.column + i * p.columns, p.starts) for p, count in runs(panels) for i in range(count)]
    assert replayed == [(p.column, p.starts) for p in panels]


def test_panels_of_single_columns() -> None:
    assert [(p.column, p.starts, p.lanes) for p in cut(5, 1, 1)] == [(c, (0,), 1) for c in range(5)]
    assert [count for _, count in runs(cut(5, 1, 1))] == [5]


def test_panels_refuse_nothing_to_cut() -> None:
    with pytest.raises(NmsatError, match=r"^panels: m: must be at least 1, not 0"):
        cut(0, 7)


def test_fma_rounds_once() -> None:
    """Against exact rationals, with heavy cancellation, ties, subnormal results and overflow."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=3000).astype(np.float32)
    b = rng.normal(size=3000).astype(np.float32)
    c = (-a * b * (1 + rng.integers(-3, 4, 3000) * np.float32(2.0**-23))).astype(np.float32)
    half = np.float32(2.0**-12)
    a = np.concatenate([a, [1 + half, 1 + half, 1e-23, 1e-30, 3e38, half]]).astype(np.float32)
    b = np.concatenate([b, [1 + half, 1 - half, 1e-22, -1e-15, 2.0, half]]).astype(np.float32)
    c = np.concatenate([c, [1e-30, -1e-30, 1e-42, 1e-45, 0, 1 + 2.0**-23]]).astype(np.float32)
    got = reference.fma(a, b, c)
    for x, y, z, r in zip(a, b, c, got, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert r == nearest(exact), (x, y, z)
    twice = reference.multiply_add(a, b, c)
    assert bits_differing(got, twice) > 100  # the two roundings are not the same function


def nearest(exact: Fraction) -> float:
    """binary32 nearest an exact value, ties to even, by search among neighbours."""
    with np.errstate(over="ignore"):
        guess = np.float32(float(exact))
    if not np.isfinite(guess):
        return float(guess)
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    near = [v for v in near if np.isfinite(v)]
    return float(min(near, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint32)) & 1)))


KERNELS = [
    Kernel(),
    Kernel(arithmetic="mul_add"),
    Kernel(nr=2),
    Kernel(nr=4, clamp=(0.0, 6.0)),
    Kernel(values="int8"),
    Kernel(values="int8", nr=4, arithmetic="mul_add"),
    Kernel(stream="interleaved", order="by_count"),
    Kernel(index="dense"),
    Kernel(index="packed", pattern=Sparsity(2, 4)),
    Kernel(**SLICED),
    Kernel(**SLICED, arithmetic="mul_add", clamp=(0.0, 6.0)),
]


def naive(packed, weights: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Element by element over non-zero weights: skipped zeros may only change the sign of a zero."""
    step = reference.fma if packed.kernel.arithmetic == "fma" else reference.multiply_add
    y = np.empty((len(weights), x.shape[1]), np.float32)
    for row in range(len(weights)):
        acc = np.full(x.shape[1], bias[row], np.float32)
        for k in np.nonzero(weights[row])[0]:
            acc = step(np.full(1, weights[row, k], np.float32), x[k], acc)
        y[row] = reference.clamp(acc, packed.kernel.clamp)
    return y


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kernel=st.sampled_from(KERNELS),
    n=st.integers(1, 9),
    k=st.integers(1, 20),
    m=st.sampled_from([1, 3, 4, 49]),
    zeros=st.sampled_from([0.0, 0.7, 0.95, 1.0]),
)
def test_reference_equals_numba_and_the_definition(kernel: Kernel, n: int, k: int, m: int, zeros: float) -> None:
    w = matrix(n, k, zeros, n * 31 + k)
    if kernel.pattern is not None:
        w[:, np.arange(k) % kernel.pattern.group >= kernel.pattern.keep] = 0
    rng = np.random.default_rng(m)
    bias = rng.normal(size=n).astype(np.float32)
    x = rng.normal(size=(k, m)).astype(np.float32)
    packed = pack(kernel, w, bias)
    y = reference.multiply(packed, x)
    assert bits_differing(y, compiled.multiply(packed, x)) == 0
    if kernel.values == "f32":
        assert np.array_equal(y, naive(packed, w, bias, x))
    else:
        limit = np.abs(w).max(axis=1, keepdims=True) / 127 * np.abs(x).sum(axis=0) * 0.51 + 1e-4
        assert (np.abs(y - (w @ x + bias[:, None])) <= limit).all()


def test_shapes_match_the_published_totals() -> None:
    totals = {"mobilenet_v1": 539.5, "mobilenet_v2": 267.9, "efficientnet_b0": 338.5}
    for name, expected in totals.items():
        counts = pointwise(Workload.load(name))
        assert sum(m * n * k * c for (m, n, k), c in counts.items()) / 1e6 == pytest.approx(expected, abs=0.05)
    assert len(all_shapes()) == len(set(all_shapes())) == 42
