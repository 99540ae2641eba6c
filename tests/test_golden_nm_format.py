"""N:M selection, compression and the DRAM planes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.models import golden
from nmsat.models.errors import NmsatError
from nmsat.models.sparsity import GROUP_SIZES, Sparsity

quick = settings(max_examples=60, deadline=None, derandomize=True)
PATTERNS = [Sparsity(n, m) for m in GROUP_SIZES for n in range(1, m + 1)]
ALPHABET = np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0xBC00, 0x7C00, 0xFC00], np.uint16)


def bits(compressed):
    return golden.to_bits(compressed.values).tolist(), compressed.indices.tolist()


def weights(rng: np.random.Generator, shape) -> np.ndarray:
    """Bit patterns of all classes but NaN, with many ties and zeros."""
    anything = rng.integers(0, 0x7C01, shape) | rng.integers(0, 2, shape) << 15
    return golden.from_bits(np.where(rng.random(shape) < 0.5, rng.choice(ALPHABET, shape), anything).astype(np.uint16))


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_every_group_of_an_alphabet_of_ties_zeros_and_infinities(keep):
    groups = np.array(list(itertools.product(ALPHABET, repeat=4)), np.uint16)
    kept = [sorted(sorted(range(4), key=lambda i: (-(int(g[i]) & 0x7FFF), i))[:keep]) for g in groups]
    expected = np.take_along_axis(groups, np.array(kept), 1)[:, None].tolist(), np.array(kept)[:, None].tolist()
    dense = golden.from_bits(groups)
    assert bits(golden.compress(dense, Sparsity(keep, 4))) == expected
    assert bits(golden.compress_reference(dense, Sparsity(keep, 4))) == expected


@pytest.mark.parametrize(
    "group, kept",
    [
        ([0, 0, 0, 0], [0, 1]),
        ([-0.0, 0.0, -0.0, 0.0], [0, 1]),
        ([1, -1, 1, -1], [0, 1]),
        ([0, 1, -1, 1], [1, 2]),
        ([0, -0.0, 0, 5], [0, 3]),
        ([3, 1, 2, 2], [0, 2]),
        ([-4, 4, 5, 5], [2, 3]),
        ([1, -np.inf, np.inf, 2], [1, 2]),
        ([6e-8, 0, 0, -1.2e-7], [0, 3]),
    ],
)
def test_selection_table(group, kept):
    w = np.array(group, np.float16)
    assert golden.select(w, Sparsity(2, 4)).tolist() == [kept]
    assert np.flatnonzero(golden.nm_mask(w, Sparsity(2, 4))).tolist() == kept


def test_a_kept_negative_zero_keeps_its_bits():
    found = golden.compress(np.array([0, 5, -0.0, 0], np.float16)[::-1], Sparsity(3, 4))
    assert bits(found) == ([[0, 0x8000, 0x4500]], [[0, 1, 2]])


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_planes_round_trip_and_hold_what_the_format_says(pattern):
    rng = np.random.default_rng(pattern.keep * 100 + pattern.group)
    dense = weights(rng, (3, 5 * pattern.group))
    found = golden.compress(dense, pattern)
    assert bits(found) == bits(golden.compress_reference(dense, pattern))
    values, indices = golden.pack(found)
    assert values.tobytes() == found.values.astype("<f2").tobytes()
    stored = 0 if pattern.is_dense else 1  # a dense pattern has no index plane
    groups = found.indices.reshape(15, -1).tolist()
    fields = [sum(stored * place << lane * pattern.index_bits for lane, place in enumerate(g)) for g in groups]
    assert indices.tobytes() == b"".join(f.to_bytes(pattern.index_bytes, "little") for f in fields)
    assert len(values) + len(indices) == 15 * pattern.group_bytes
    again = golden.unpack(values, indices, pattern, (3, 5))
    assert bits(again) == bits(found)
    assert [x.tobytes() for x in golden.pack(again)] == [values.tobytes(), indices.tobytes()]


@pytest.mark.parametrize("shape", [(16,), (0,), (8, 3), (3, 8), (2, 16, 3), (1, 2, 8, 0), (8, 2, 3, 16)])
@pytest.mark.parametrize("keep", [1, 2, 5, 8])
def test_any_axis(shape, keep):
    dense, pattern = weights(np.random.default_rng(1), shape), Sparsity(keep, 8)
    for axis, length in enumerate(shape):
        if length % 8:
            continue
        found = golden.compress(dense, pattern, axis)
        assert found.dense_shape == shape
        assert bits(found) == bits(golden.compress_reference(dense, pattern, axis))
        assert bits(found) == bits(golden.compress(dense, pattern, axis - len(shape)))
        moved = golden.compress(np.moveaxis(dense, axis, -1), pattern)
        np.testing.assert_array_equal(np.moveaxis(found.indices, (axis, axis + 1), (-2, -1)), moved.indices)
        assert [x.tobytes() for x in golden.pack(found)] == [x.tobytes() for x in golden.pack(moved)]
        kept = golden.nm_mask(dense, pattern, axis)
        np.testing.assert_array_equal(golden.to_bits(golden.decompress(found)), golden.to_bits(dense) * kept)


@quick
@given(st.sampled_from(PATTERNS), st.integers(0, 2**32 - 1), st.integers(0, 1))
def test_compress_of_decompress_is_the_identity(pattern, seed, axis):
    dense = weights(np.random.default_rng(seed), (2 * pattern.group, 2 * pattern.group))
    found = golden.compress(dense, pattern, axis)
    assert bits(golden.compress(golden.decompress(found), pattern, axis)) == bits(found)
    mask = golden.nm_mask(dense, pattern, axis)
    assert bits(golden.compress_masked(dense, mask, pattern, axis)) == bits(found)
    counts = np.add.reduceat(mask, range(0, mask.shape[axis], pattern.group), axis=axis, dtype=int)
    assert (counts == pattern.keep).all()


@pytest.mark.parametrize(
    "mask, values, indices",
    [
        ([0, 0, 0, 0], [0, 0], [0, 1]),
        ([1, 0, 0, 0], [9, 0], [0, 1]),
        ([0, 1, 0, 0], [0, 8], [0, 1]),
        ([0, 0, 0, 1], [0, 6], [0, 3]),
        ([0, 1, 0, 1], [8, 6], [1, 3]),
    ],
)
def test_short_groups_are_padded_at_the_lowest_unused_index(mask, values, indices):
    w = np.array([9, 8, 7, 6], np.float16)
    found = golden.compress_masked(w, np.array(mask, bool), Sparsity(2, 4))
    assert (found.values.tolist(), found.indices.tolist()) == ([values], [indices])


@pytest.mark.parametrize("pattern", [Sparsity(2, 8), Sparsity(8, 8)], ids=str)
@pytest.mark.parametrize("nan", [0x7E00, 0x7C01, 0xFFFF])
@pytest.mark.parametrize("place", [0, 7, 21])
def test_a_nan_is_an_error(pattern, nan, place):
    w = np.zeros(24, np.uint16)
    w[place] = nan
    for call in (golden.compress, golden.compress_reference, golden.nm_mask, golden.select):
        with pytest.raises(NmsatError, match=rf"^golden: weights\[{place}\]: must be a number, not nan; a NaN has no"):
            call(golden.from_bits(w), pattern)


ONES = np.ones(8, np.float16)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: golden.compress(ONES[:7], Sparsity(2, 4)), r"weights.shape: must be a multiple of 4 along axis 0 for 2:4, not 7; "),
        (lambda: golden.compress(ONES, Sparsity(2, 4), 1), r"axis: must be an axis of the 1-dimensional weights, not 1$"),
        (lambda: golden.compress(ONES, Sparsity(2, 4), -2), r"axis: must be an axis of the 1-dimensional weights, not -2$"),
        (lambda: golden.compress(np.ones(8), Sparsity(2, 4)), r"weights.dtype: must be float16, not 'float64'$"),
        (lambda: golden.compress_masked(ONES, ONES > 0, Sparsity(2, 4)), r"mask: must be at most 2 kept in a group, not 4$"),
        (lambda: golden.compress_masked(ONES, ONES[:4] > 0, Sparsity(2, 4)), r"mask.shape: must be \(8,\) like weights, not \(4,\)$"),
        (lambda: golden.compress_masked(ONES * np.float16(np.nan), ONES > 0, Sparsity(4, 4)), r"weights\[0\]: must be a number"),
        (lambda: golden.Compressed(ONES.reshape(2, 4), np.zeros((2, 3), np.uint8), Sparsity(4, 8), 0), r"indices.shape: must be \(2, 4\) like"),
        (lambda: golden.Compressed(ONES.reshape(2, 4), np.zeros((2, 4), np.uint8), Sparsity(2, 8), 0), r"values.shape: must be 2 long on axis 1, the N of 2:8"),
        (lambda: golden.Compressed(ONES.reshape(2, 4), np.zeros((2, 4), np.uint8), Sparsity(4, 8), 1), r"axis: must be 0 to 0, not 1$"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(NmsatError, match=rf"^golden: {message}"):
        call()


def test_damaged_planes_are_refused():
    pattern = Sparsity(2, 8)
    values, indices = golden.pack(golden.compress(np.arange(16, dtype=np.float16), pattern))
    for planes, message in (
        ((values[:-1], indices), r"values.shape: must be \(8,\), 4 bytes for each of 2 groups, not \(7,\)"),
        ((values, indices[:1]), r"indices.shape: must be \(2,\), 1 bytes for each of 2 groups, not \(1,\)"),
        ((values.astype(int), indices), r"values.dtype: must be uint8, not 'int64'"),
        (
            (values, indices | np.uint8(0x40)),
            r"indices: must be zero in the padding bits of every group, not 'a set bit'",
        ),
        ((values, np.array([0o10, 0o33], np.uint8)), r"indices of group 1: must be ascending, not \[3, 3\]"),
    ):
        with pytest.raises(NmsatError, match=rf"^golden: {message}$"):
            golden.unpack(*planes, pattern, (2,))
