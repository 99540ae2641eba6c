"""Ordered products: twins against their definitions, the definitions against scalar loops and the array engine."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.dataflow.array_timing import ArrayShape
from nmsat.models import golden
from nmsat.models.errors import NmsatError
from nmsat.models.sparsity import Sparsity
from nmsat.simulator.engine import run_os, run_ws

quick = settings(max_examples=40, deadline=None, derandomize=True)
PATTERNS = [(1, 1), (4, 4), (1, 4), (2, 4), (2, 8), (4, 8), (3, 8), (2, 16), (8, 32)]


def operands(rng, m, groups, n, keep, group, special=0.0):
    a, values = (rng.normal(size=s).astype(np.float16) for s in ((m, groups * group), (groups, keep, n)))
    indices = np.sort(np.argsort(rng.random((groups, group, n)), axis=1)[:, :keep], axis=1).astype(np.uint8)
    odd = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 65504, -65504, 6e-8], np.float16)
    for array in (a, values):
        chosen = rng.random(array.shape) < special
        array[chosen] = rng.choice(odd, int(chosen.sum()))
    return a, values, indices


def equal(found, expected):
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_array_equal(golden.to_bits(found), golden.to_bits(expected))


def check_twins(case, group, rows, initial=None):
    equal(golden.product_os(*case, group, initial=initial), golden.product_os_reference(*case, group, initial=initial))
    equal(
        golden.product_ws(*case, group, rows, initial=initial),
        golden.product_ws_reference(*case, group, rows, initial=initial),
    )


@pytest.mark.parametrize("m", [0, 1, 2, 63, 64, 65, 129])
@pytest.mark.parametrize(
    "groups, n, rows", [(0, 2, 1), (1, 0, 1), (1, 1, 1), (5, 3, 1), (6, 2, 3), (7, 2, 3), (4, 3, 9)]
)
def test_twins_on_edges(m, groups, n, rows):
    rng = np.random.default_rng(m + groups)
    check_twins(operands(rng, m, groups, n, 2, 8), 8, rows)
    check_twins(operands(rng, m, groups, n, 2, 8), 8, rows, rng.normal(size=(m, n)).astype(np.float32))


@quick
@given(st.sampled_from(PATTERNS), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.3]))
def test_twins_with_infinities_and_nans(pattern, seed, special):
    rng = np.random.default_rng(seed)
    m, groups, n, rows = (int(x) for x in rng.integers(1, (70, 20, 6, 12)))
    case = operands(rng, m, groups, n, *pattern, special)
    check_twins(case, pattern[1], rows)
    initial = rng.choice(np.array([0.0, -0.0, 1e-45, np.inf, np.nan, 3.5], np.float32), (m, n))
    check_twins(case, pattern[1], rows, initial)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("special", [0.0, 0.05])
def test_definition_against_a_loop_of_single_operations(pattern, special):
    """One bit-level multiply and add after the other, in the contract's words."""
    keep, group = pattern
    m, groups, n, rows = 3, 7, 2, 3
    a, values, indices = operands(np.random.default_rng(keep), m, groups, n, keep, group, special)
    a_bits, v_bits = golden.to_bits(a), golden.to_bits(values)

    def lanes_of(i, c, first, last):
        total = None
        for lane in range(keep):
            acc = np.uint32(0)
            for g in range(first, last):
                acc = golden.add_bits(
                    acc, golden.multiply_bits(a_bits[i, g * group + indices[g, lane, c]], v_bits[g, lane, c])
                )
            total = acc if total is None else golden.add_bits(total, acc)
        return total

    os, ws = np.zeros((m, n), np.uint32), np.zeros((m, n), np.uint32)
    for i in range(m):
        for c in range(n):
            os[i, c] = lanes_of(i, c, 0, groups)
            for first in range(0, groups, rows):
                ws[i, c] = golden.add_bits(ws[i, c], lanes_of(i, c, first, min(first + rows, groups)))
    equal(golden.product_os(a, values, indices, group), golden.from_bits(os))
    equal(golden.product_ws(a, values, indices, group, rows), golden.from_bits(ws))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_array_engine_computes_the_same(pattern):
    keep, group = pattern
    case = operands(np.random.default_rng(9), 13, 11, 7, keep, group)
    shape = ArrayShape(4, 3, 8, 4)
    equal(golden.product_os(*case, group), run_os(shape, *case, group, 2).values)
    equal(golden.product_ws(*case, group, 4), run_ws(shape, *case, group).values)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_within_the_summation_bound_of_binary64(pattern):
    """|error| <= adds * 2^-24 * sum |a b| (first order; products are exact): every add rounds by half an ulp at most."""
    keep, group = pattern
    a, values, indices = operands(np.random.default_rng(4), 40, 64, 5, keep, group)
    dense = golden.decompress(golden.Compressed(values, indices, Sparsity(keep, group), 0)).astype(np.float64)
    exact, size = a.astype(np.float64) @ dense, np.abs(a.astype(np.float64)) @ np.abs(dense)
    bound = (64 + keep) * 2.0**-24 * size * 1.001
    for found in (golden.product_os(a, values, indices, group), golden.product_ws(a, values, indices, group, 16)):
        assert (np.abs(found - exact) <= bound).all()
        assert (found != exact).any()


def test_order_shows_in_the_bits():
    """A test that could not tell the orders apart would prove nothing."""
    a, values, indices = operands(np.random.default_rng(6), 32, 64, 8, 2, 8)
    os = golden.product_os(a, values, indices, 8)
    ws = golden.product_ws(a, values, indices, 8, 16)
    back = golden.product_os(
        np.ascontiguousarray(a.reshape(32, 64, 8)[:, ::-1].reshape(32, 512)), values[::-1], indices[::-1], 8
    )
    assert (os != ws).mean() > 0.3
    assert (os != back).mean() > 0.3
    equal(golden.product_ws(a, values, indices, 8, 64), os)


def test_ws_continues_from_its_own_partial_sums():
    a, values, indices = operands(np.random.default_rng(8), 9, 12, 4, 2, 8)
    part = golden.product_ws(a[:, :64], values[:8], indices[:8], 8, 4)
    whole = golden.product_ws(a, values, indices, 8, 4)
    equal(golden.product_ws(a[:, 64:], values[8:], indices[8:], 8, 4, initial=part), whole)
    last = golden.product_os(a[:, 64:], values[8:], indices[8:], 8)
    equal(golden.product_os(a[:, 64:], values[8:], indices[8:], 8, initial=part), golden.add(part, last))


@pytest.mark.parametrize("k", [1, 7, 8, 9])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_dense_product_is_the_dense_pattern(k, lanes):
    rng = np.random.default_rng(k)
    a, b = (rng.normal(size=s).astype(np.float16) for s in ((5, k), (k, 3)))
    padded = np.zeros((5, -(-k // lanes) * lanes), np.float16)
    padded[:, :k] = a
    values, indices = golden.dense_operand(b, lanes)
    assert values.shape == (-(-k // lanes), lanes, 3)
    assert (indices == np.arange(lanes)[:, None]).all()
    equal(golden.product_dense(a, b, lanes=lanes), golden.product_os(padded, values, indices, lanes))
    equal(golden.product_dense(a, b, lanes=lanes, rows=2), golden.product_ws(padded, values, indices, lanes, 2))
    np.testing.assert_allclose(golden.product_dense(a, b, lanes=lanes), a.astype("f8") @ b.astype("f8"), atol=1e-5)


def test_padding_meets_infinity_as_ieee_says():
    """A stored zero times an infinite activation is NaN, in dense and sparse alike; an unselected one is not touched."""
    a = np.array([[np.inf, 1, 2, 3]], np.float16)
    values = np.array([[[0], [5]]], np.float16)
    for indices, expected in (([0, 3], golden.NAN32), ([1, 3], 0x41700000)):
        found = golden.product_os(a, values, np.array(indices, np.uint8).reshape(1, 2, 1), 4)
        assert golden.to_bits(found).tolist() == [[expected]]


A, V, I = np.zeros((2, 8), np.float16), np.zeros((2, 2, 3), np.float16), np.zeros((2, 2, 3), np.uint8)  # noqa: E741


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: golden.product_os(A[:, 1:], V, I, 4), r"a.shape: must be \(m, 8\) for 2 groups of 4, not \(2, 7\)"),
        (lambda: golden.product_os(A, V, I + np.uint8(4), 4), "indices: must be below the group size 4, not 4"),
        (lambda: golden.product_os(A, V, I.astype(int), 4), r"indices: must be unsigned integers of shape \(2, 2, 3\), not .*"),
        (lambda: golden.product_os(A, V[0], I[0], 4), r"values.shape: must be \(G, N, n\) with N >= 1, not \(2, 3\)"),
        (lambda: golden.product_os(A.astype("f4"), V, I, 4), "a.dtype: must be float16, not 'float32'"),
        (lambda: golden.product_ws(A, V, I, 4, 0), "rows: must be at least 1, not 0"),
        (lambda: golden.product_ws_reference(A, V, I, 4, 0), "rows: must be at least 1, not 0"),
        (lambda: golden.product_os(A, V, I, 4, initial=np.zeros((3, 2), "f4")), r"initial.shape: must be \(2, 3\) like the result, not \(3, 2\)"),
        (lambda: golden.product_os(A, V, I, 4, initial=np.zeros((2, 3))), "initial.dtype: must be float32, not 'float64'"),
        (lambda: golden.product_dense(A, V[0]), r"a.shape: must be \(m, 2\), not \(2, 8\)"),
        (lambda: golden.dense_operand(V), r"b.shape: must be \(k, n\), not \(2, 2, 3\)"),
        (lambda: golden.dense_operand(V[0], 33), "lanes: must be 1 to 32, not 33"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(NmsatError, match=rf"^golden: {message}$"):
        call()
