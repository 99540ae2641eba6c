"""SORE, WUVE and the epilogues."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.models import golden
from nmsat.models.errors import NmsatError
from nmsat.models.sparsity import Sparsity

quick = settings(max_examples=60, deadline=None, derandomize=True)
PATTERN = Sparsity(2, 8)


def ohwi(seed=1, shape=(16, 3, 2, 8)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float16)


def test_sore_prunes_both_axes_from_the_same_weights():
    w = ohwi()
    forward, backward = golden.sore_forward(w, PATTERN), golden.sore_backward(w, PATTERN)
    assert forward.values.shape == (16, 3, 2, 1, 2)
    assert backward.values.shape == (8, 3, 2, 2, 2)
    np.testing.assert_array_equal(golden.decompress(forward), w * golden.nm_mask(w, PATTERN, 3))
    back = golden.decompress(backward).transpose(3, 1, 2, 0)
    np.testing.assert_array_equal(back, w * golden.nm_mask(w, PATTERN, 0))
    assert (golden.nm_mask(w, PATTERN, 0) != golden.nm_mask(w, PATTERN, 3)).any()


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 2)])
@pytest.mark.parametrize("taps", [None, [1, 4], []])
def test_product_operand_runs_taps_outside_channels(kernel, taps):
    w = ohwi(shape=(16, *kernel, 8))
    count = int(np.prod(kernel))
    if taps and max(taps) >= count:
        taps = [0]
    for weights, axes in ((golden.sore_forward(w, PATTERN), (0, -1)), (golden.sore_backward(w, PATTERN), (-1, 0))):
        values, indices = golden.product_operand(weights, taps)
        dense = golden.decompress(weights).reshape(w.shape[axes[0]], count, -1)
        dense = dense[:, range(count) if taps is None else taps]
        expected = dense.reshape(len(dense), -1).T
        assert values.shape == (len(expected) // 8, 2, w.shape[axes[0]])
        found = golden.decompress(golden.Compressed(values, indices, PATTERN, 0))
        np.testing.assert_array_equal(found, expected)


def test_forward_and_backward_convolutions_with_sore_s_operands():
    """A 'same' 3x1 convolution and its input gradient, by im2col, against sums in binary64."""
    w, rng = ohwi(shape=(16, 3, 1, 8)), np.random.default_rng(2)
    x, dy = rng.normal(size=(6, 8)).astype(np.float16), rng.normal(size=(6, 16)).astype(np.float16)

    def im2col(rows, flip):
        padded = np.pad(rows, ((1, 1), (0, 0)))
        order = (2, 1, 0) if flip else (0, 1, 2)
        return np.concatenate([padded[t : t + 6] for t in order], axis=1)

    values, indices = golden.product_operand(golden.sore_forward(w, PATTERN))
    y = golden.product_os(im2col(x, False), values, indices, 8)
    kept = (w * golden.nm_mask(w, PATTERN, 3)).astype(float)
    rows = np.pad(x.astype(float), ((1, 1), (0, 0)))
    expected = sum(rows[t : t + 6] @ kept[:, t, 0].T for t in range(3))
    np.testing.assert_allclose(y, expected, atol=1e-4)

    values, indices = golden.product_operand(golden.sore_backward(w, PATTERN))
    dx = golden.product_os(im2col(dy, True), values, indices, 8)
    kept = (w * golden.nm_mask(w, PATTERN, 0)).astype(float)
    expected = np.zeros((8, 8))
    for t in range(3):
        expected[t : t + 6] += dy.astype(float) @ kept[:, t, 0]
    np.testing.assert_allclose(dx, expected[1:7], atol=1e-4)


def scalar_update(g, w, v, kept, rule):
    """The listing, one operation at a time, on bit patterns."""

    def word(x):
        return golden.to_bits(np.array(x, np.float32))

    mul, add = golden.ftz_multiply_bits, golden.ftz_add_bits
    total = add(mul(g, word(1 / rule.loss_scale)), mul(word(rule.weight_decay), w))
    total = add(total, mul(word(0.0 if kept else rule.lam), w))
    v = add(mul(word(rule.momentum), v), total)
    step = mul(word(rule.lr), v)
    flushed = golden.to_bits(golden.flush(golden.from_bits(w)))
    w = add(flushed, step ^ np.uint32(0x80000000))
    return int(w), int(v), int(golden.narrow_bits(w))


word32 = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000]),
)
RULES = [
    golden.UpdateRule(0.1),
    golden.UpdateRule(0.05, 0.9, 5e-4, 2e-4, 1024.0),
    golden.UpdateRule(0.0, 0.0, 0.0, 0.0, 2.0**-3),
    golden.UpdateRule(1e-3, 1.0, 1e-40, 1e-45, 1.0),
]


@quick
@given(word32, word32, word32, st.booleans(), st.sampled_from(RULES))
def test_wuve_against_single_operations(g, w, v, kept, rule):
    words = [np.array([x], np.uint32) for x in (g, w, v)]
    found = golden.wuve_update(*(golden.from_bits(x) for x in words), np.array([kept]), rule)
    assert tuple(int(golden.to_bits(x)[0]) for x in found) == scalar_update(*(x[0] for x in words), kept, rule)


def test_wuve_on_normal_numbers_is_numpy_in_the_listed_order():
    rng = np.random.default_rng(3)
    g, w, v = rng.normal(size=(3, 50, 40)).astype(np.float32)
    m_ff = golden.nm_mask(golden.narrow(w), PATTERN)
    lr, mu, decay, lam, scale = (np.float32(x) for x in (0.05, 0.9, 5e-4, 2e-4, 128))
    gradient = g / scale + decay * w + lam * (1 - m_ff.astype(np.float32)) * w
    momentum = mu * v + gradient
    weight = w - lr * momentum
    found = golden.wuve_update(g, w, v, m_ff, golden.UpdateRule(0.05, 0.9, 5e-4, 2e-4, 128.0))
    for x, expected in zip(found, (weight, momentum, weight.astype(np.float16)), strict=True):
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    "g, w, v, kept, rule, w_new, v_new",
    [
        (8.0, 1.0, 0.0, True, golden.UpdateRule(0.5, loss_scale=16.0), 0.75, 0.5),  # first step: v = g
        (0.0, 1.0, 2.0, True, golden.UpdateRule(0.5, momentum=0.5), 0.5, 1.0),
        (0.0, 4.0, 0.0, True, golden.UpdateRule(1.0, lam=0.25), 4.0, 0.0),
        (0.0, 4.0, 0.0, False, golden.UpdateRule(1.0, lam=0.25), 3.0, 1.0),
        (0.0, 4.0, 0.0, False, golden.UpdateRule(1.0, weight_decay=0.5, lam=0.25), 1.0, 3.0),
        (1e-40, 1e-40, 1e-40, True, golden.UpdateRule(1.0), 0.0, 0.0),  # subnormal inputs are zero
        (2.0**-120, 1.0, 0.0, True, golden.UpdateRule(1.0, loss_scale=128.0), 1.0, 0.0),  # so is a subnormal result
    ],
)
def test_wuve_table(g, w, v, kept, rule, w_new, v_new):
    arrays = (np.array([x], np.float32) for x in (g, w, v))
    w32, v32, w16 = golden.wuve_update(*arrays, np.array([kept]), rule)
    assert (w32[0], v32[0], w16[0]) == (np.float32(w_new), np.float32(v_new), np.float16(w_new))


def test_wuve_without_a_mask_keeps_all_and_leaves_its_inputs_alone():
    g, w, v = np.random.default_rng(5).normal(size=(3, 9)).astype(np.float32)
    before = w.copy(), v.copy()
    rule = golden.UpdateRule(0.1, lam=0.5)
    for x, y in zip(
        golden.wuve_update(g, w, v, None, rule), golden.wuve_update(g, w, v, np.ones(9, bool), rule), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(before, (w, v))


EPILOGUE = [
    # bits in, ReLU, mask bit
    (0x3C00, 0x3C00, True),
    (0xBC00, 0, False),
    (0, 0, False),
    (0x8000, 0, False),
    (1, 1, True),
    (0x8001, 0, False),
    (0x7C00, 0x7C00, True),
    (0xFC00, 0, False),
    (0x7E00, 0x7E00, True),
    (0xFFFF, 0x7E00, True),
]


@pytest.mark.parametrize("bits, result, mask", EPILOGUE)
def test_relu_table(bits, result, mask):
    x = golden.from_bits(np.array([bits], np.uint16))
    assert golden.to_bits(golden.relu(x)).tolist() == [result]
    assert golden.relu_mask(x).tolist() == [mask]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_mask_bits_round_trip(count):
    mask = np.random.default_rng(count).random(count) < 0.5
    plane = golden.pack_mask(mask)
    number = sum(int(bit) << i for i, bit in enumerate(mask))
    assert plane.tobytes() == number.to_bytes(-(-count // 8), "little")
    np.testing.assert_array_equal(golden.unpack_mask(plane, (count,)), mask)


def test_apply_mask_drops_even_infinities_and_nans():
    x = golden.from_bits(np.array([[0x3C00, 0xBC00], [0x7C00, 0xFFFF]], np.uint16))
    dropped, passed = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert golden.to_bits(golden.apply_mask(x, dropped)).tolist() == [[0, 0], [0, 0]]
    assert golden.to_bits(golden.apply_mask(x, passed)).tolist() == [[0x3C00, 0xBC00], [0x7C00, 0x7E00]]


ZERO = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: golden.UpdateRule(-1.0), "lr: must be finite in binary32 and not negative, not -1.0"),
        (lambda: golden.UpdateRule(1e39), r"lr: must be finite in binary32 and not negative, not 1e\+39"),
        (lambda: golden.UpdateRule(0.1, float("nan")), "momentum: must be finite in binary32 and not negative, not nan"),
        (lambda: golden.UpdateRule(0.1, loss_scale=1000.0), r"loss_scale: must be a power of two from 2\^-126 to 2\^126, not 1000.0; the engine multiplies by its exact reciprocal"),
        (lambda: golden.UpdateRule(0.1, loss_scale=0.0), r"loss_scale: must be a power of two .*, not 0.0; .*"),
        (lambda: golden.UpdateRule(0.1, loss_scale=2.0**127), r"loss_scale: must be a power of two .*"),
        (lambda: golden.wuve_update(ZERO[:2], ZERO, ZERO, None, RULES[0]), r"g.shape: must be \(3,\) like w32, not \(2,\)"),
        (lambda: golden.wuve_update(ZERO, ZERO, ZERO, ZERO[:2] > 0, RULES[0]), r"mask.shape: must be \(3,\) like w32, not \(2,\)"),
        (lambda: golden.wuve_update(ZERO.astype("f2"), ZERO, ZERO, None, RULES[0]), "g.dtype: must be float32, not 'float16'"),
        (lambda: golden.sore_forward(ohwi(shape=(8, 2, 8)), PATTERN), r"w16.shape: must be \(O, kh, kw, I\) or \(O, I\), not \(8, 2, 8\)"),
        (lambda: golden.sore_backward(ohwi(shape=(12, 1, 1, 8)), PATTERN), "weights.shape: must be a multiple of 8 along axis 3 for 2:8, not 12; .*"),
        (lambda: golden.product_operand(golden.sore_forward(ohwi(), PATTERN), [6]), r"taps: must be 0 to 5, not \[6\]"),
        (lambda: golden.product_operand(golden.compress(ohwi(), PATTERN, 0)), "weights: must be compressed along the last axis, not .*"),
        (lambda: golden.unpack_mask(np.zeros(2, np.uint8), (4, 2)), r"plane.shape: must be \(1,\) for 8 bits, not \(2,\)"),
        (lambda: golden.apply_mask(np.zeros(3, np.float16), ZERO[:2] > 0), r"mask.shape: must be \(3,\) like x16, not \(2,\)"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(NmsatError, match=rf"^golden: {message}$"):
        call()


def test_the_package_exports_what_it_names():
    assert len(set(golden.__all__)) == len(golden.__all__)
    assert all(hasattr(golden, name) for name in golden.__all__)
