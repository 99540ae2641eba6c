"""The window accumulator against integers written here from the format's definition, and its order-independence."""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.models.errors import NmsatError
from nmsat.models.golden import (
    WindowSums,
    narrow,
    operand,
    product_window,
    product_window_reference,
    to_bits,
    window_product,
)
from nmsat.models.golden.window import is_special
from nmsat.models.window import Window

WINDOWS = [Window(33, 64), Window(24, 48), Window(30, 60), Window(36, 67), Window(8, 25), Window(40, 86)]
SPECIALS = [
    0,
    0x8000,
    1,
    0x8001,
    0x3FF,
    0x400,
    0x3C00,
    0xBC00,
    0x5BFF,
    0x5C00,
    0x7BFF,
    0xFBFF,
    0x7C00,
    0xFC00,
    0x7E00,
    0x7D01,
]


def value(bits: int) -> Fraction | None:
    """A binary16 as IEEE 754 defines it; None for Inf and NaN."""
    exponent, fraction = bits >> 10 & 31, bits & 1023
    if exponent == 31:
        return None
    magnitude = (
        Fraction(fraction, 1 << 24)
        if exponent == 0
        else Fraction(1024 + fraction, 1024) * Fraction(2) ** (exponent - 15)
    )
    return -magnitude if bits >> 15 else magnitude


VALUES = [value(bits) for bits in range(1 << 16)]


def rounded(a: int, b: int, lsb: int) -> int | None:
    """The product of two binary16 in units of 2^-lsb, half away from zero; None if it raises the flag."""
    x, y = VALUES[a], VALUES[b]
    if x is None or y is None or abs(x * y) >= 65536:
        return None
    units = abs(x * y) * 2**lsb
    whole = (2 * units.numerator + units.denominator) // (2 * units.denominator)
    return whole if x * y >= 0 else -whole


def draw(rng, shape):
    """Binary16 patterns of every kind: normals around 1, any bits, subnormals, specials."""
    kind, any_bits = rng.integers(0, 10, shape), rng.integers(0, 1 << 16, shape)
    normal = rng.normal(size=shape).astype(np.float16).view(np.uint16)
    found = np.select(
        [kind < 5, kind < 8, kind < 9], [normal, any_bits, any_bits & 0x83FF], rng.choice(SPECIALS, shape)
    )
    return found.astype(np.uint16)


def check_pairs(count, seed):
    rng = np.random.default_rng(seed)
    for window in WINDOWS:
        a, b = draw(rng, count // len(WINDOWS)), draw(rng, count // len(WINDOWS))
        units, flagged = window_product(a, b, window)
        for x, y, unit, flag in zip(a.tolist(), b.tolist(), units.tolist(), flagged.tolist(), strict=True):
            expected = rounded(x, y, window.lsb)
            assert flag == (expected is None), (hex(x), hex(y), window)
            assert flag or unit == expected, (hex(x), hex(y), window)


def test_products_equal_the_integers():
    check_pairs(20_000, 1)


@pytest.mark.slow
def test_products_equal_the_integers_1000000():
    check_pairs(1_000_000, 2)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_products_of_all_specials(window):
    a, b = np.meshgrid(np.array(SPECIALS, np.uint16), np.array(SPECIALS, np.uint16))
    units, flagged = window_product(a, b, window)
    for at in np.ndindex(a.shape):
        expected = rounded(int(a[at]), int(b[at]), window.lsb)
        assert bool(flagged[at]) == (expected is None)
        assert units[at] == (expected or 0)


def test_operands_are_exact():
    found = operand(np.arange(1 << 16, dtype=np.uint16))
    assert int(found.max()) < 1 << 18
    assert is_special(found).tolist() == [x is None for x in VALUES]
    for code, x in zip(found.tolist(), VALUES, strict=True):
        if x is not None:
            magnitude = Fraction((code & 0x3FFF) << 4 * (code >> 14 & 7), 1 << 24)
            assert (-magnitude if code >> 17 else magnitude) == x


def test_rounding_is_half_away_from_zero():
    """2^-17 * 2^-17 = 2^-34 is half a unit at L = 33; subnormals reach the grid's lower bits."""
    half, three = np.float16(2.0**-17), np.float16(3 * 2.0**-17)
    a = np.array([half, -half, three, -three, np.float16(2.0**-18)]).view(np.uint16)
    units, _ = window_product(a, np.array([half] * 5).view(np.uint16), Window(33, 64))
    assert units.tolist() == [1, -1, 2, -2, 0]  # 1/2, -1/2, 3/2, -3/2, 1/4


TABLE = [int(x * 2**24) for x in VALUES[:0x7C00]]  # all finite magnitudes, ascending, in units of 2^-24


def nearest16(total: Fraction) -> int:
    """Bits of the nearest binary16 by search among all of them; ties to the even pattern."""
    units = abs(total) * 2**24
    place = bisect_left(TABLE, units)
    if place == len(TABLE):
        bits = 0x7C00 if units >= 65520 * 2**24 else 0x7BFF
    elif place == 0 or TABLE[place] == units:
        bits = place
    else:
        below, above = units - TABLE[place - 1], TABLE[place] - units
        bits = place if above < below or (above == below and place % 2 == 0) else place - 1
    return bits | 0x8000 * (total < 0)


def nearest32(total: Fraction) -> int:
    """Bits of the nearest binary32 by Python's rounding of fractions (half to even)."""
    if not total:
        return 0
    magnitude, exponent = abs(total), 0
    while magnitude >= 2:
        magnitude, exponent = magnitude / 2, exponent + 1
    while magnitude < 1:
        magnitude, exponent = magnitude * 2, exponent - 1
    significand = round(magnitude * 2**23)
    return (exponent + 126 << 23) + significand | (total < 0) << 31


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_drain_rounds_once(window):
    """Random magnitudes, halfway cases of both formats and their neighbours, the largest sums."""
    rng = np.random.default_rng(3)
    top = window.lsb + 16 + 29
    totals = [
        0,
        1,
        -1,
        65520 << window.lsb,
        (65520 << window.lsb) - 1,
        -(65520 << window.lsb),
        (1 << top) - 1,
        1 - (1 << top),
    ]
    for _ in range(1500):
        length = int(rng.integers(1, top + 1))
        totals.append(int.from_bytes(rng.bytes(12), "little") % (1 << length))
        kept = int(rng.choice([11, 24]))
        pattern = int(rng.integers(1 << kept - 1, 1 << kept))
        shift = int(rng.integers(0, max(top - kept, 1)))
        totals += [(pattern << shift) + (1 << shift >> 1) + step for step in (-1, 0, 1)]
    totals = [total if rng.random() < 0.5 else -total for total in totals]
    sums = WindowSums.of_integers(totals, False, window)
    assert sums.integers().tolist() == totals
    halves, singles = to_bits(sums.to_binary16()).tolist(), to_bits(sums.to_binary32()).tolist()
    for total, half, single in zip(totals, halves, singles, strict=True):
        exact = Fraction(total, 1 << window.lsb)
        assert half == nearest16(exact), (total, window)
        assert single == nearest32(exact), (total, window)
    assert WindowSums.of_words(sums.words(), window).same(sums)


def test_rounding_to_odd_keeps_the_second_rounding_exact():
    """Without it binary16 by way of binary32 is wrong: the very sum that shows it."""
    total = (1 << 40) + (1 << 29) + 1  # 1 + half an ulp of binary16 + less than half an ulp of binary32
    sums = WindowSums.of_integers([total], False, Window(40, 86))
    assert to_bits(narrow(sums.to_binary32())).tolist() == [0x3C00]
    assert to_bits(sums.to_binary16()).tolist() == [0x3C01] == [nearest16(Fraction(total, 1 << 40))]


def test_flagged_sums_are_nan_and_have_their_own_word():
    window = Window()
    sums = WindowSums.of_integers([5, -5], [True, False], window)
    assert to_bits(sums.to_binary16()).tolist() == [0x7E00, 0x8000]
    assert to_bits(sums.to_binary32()).tolist()[0] == 0x7FC00000
    assert sums.words().tolist() == [1 << 79, (1 << 80) - 5]
    assert WindowSums.of_words(sums.words(), window).flagged.tolist() == [True, False]
    assert (sums + sums).flagged.tolist() == [True, False]


def compressed(rng, m, n, groups, keep, group, hard):
    a = (
        draw(rng, (m, groups * group))
        if hard
        else rng.normal(size=(m, groups * group)).astype(np.float16).view(np.uint16)
    )
    v = draw(rng, (groups, keep, n)) if hard else rng.normal(size=(groups, keep, n)).astype(np.float16).view(np.uint16)
    places = np.sort(np.argsort(rng.random((groups, group, n)), axis=1)[:, :keep], axis=1).astype(np.uint8)
    return a.view(np.float16), v.view(np.float16), places


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("hard", [False, True])
def test_twin_equals_definition(window, hard):
    rng = np.random.default_rng(5)
    for m, n, groups, keep, group in ((1, 1, 1, 1, 1), (65, 3, 9, 2, 8), (7, 4, 40, 4, 4), (64, 2, 5, 5, 16)):
        a, values, places = compressed(rng, m, n, groups, keep, group, hard)
        defined = product_window_reference(a, values, places, group, window)
        assert product_window(a, values, places, group, window).same(defined)
        start = WindowSums.of_integers(rng.integers(-9, 9, (m, n)).tolist(), rng.random((m, n)) < 0.2, window)
        both = [f(a, values, places, group, window, initial=start) for f in (product_window, product_window_reference)]
        assert both[0].same(both[1])


@pytest.mark.parametrize("x", [65504, 63.96875])
def test_sums_beyond_one_word(x):
    """Many products just below the flag, or below 2^6, the largest that are added in binary64; then one of a unit."""
    window, k = Window(40, 86), 700
    a, values = np.full((2, k), x, np.float16), np.ones((k, 1, 1), np.float16)
    a[:, -1] = values[-1] = 2.0**-20
    found = product_window(a, values, np.zeros((k, 1, 1), np.uint8), 1, window)
    assert found.integers().tolist() == [[(k - 1) * int(x * 2**40) + 1]] * 2
    assert to_bits(found.to_binary16()).tolist() == [[nearest16(Fraction((k - 1) * x))]] * 2


def test_ties_of_both_signs():
    """Products that are multiples of half a unit: the twin rounds every second one away from zero, too."""
    rng, window = np.random.default_rng(4), Window(8, 25)
    a = (rng.integers(-40, 41, (9, 60)) * 2.0**-5).astype(np.float16)
    values = (rng.integers(-40, 41, (60, 1, 5)) * 2.0**-4).astype(np.float16)
    places = np.zeros((60, 1, 5), np.uint8)
    found = product_window(a, values, places, 1, window)
    assert found.same(product_window_reference(a, values, places, 1, window))


def test_products_equal_the_integers_in_a_sum():
    """One dot product term by term, from patterns to the rounded output."""
    rng, window = np.random.default_rng(9), Window()
    a, values, places = compressed(rng, 3, 2, 30, 2, 8, False)
    found = product_window(a, values, places, 8, window)
    for row in range(3):
        for col in range(2):
            total = sum(
                rounded(
                    int(a[row, g * 8 + places[g, lane, col]].view(np.uint16)),
                    int(values[g, lane, col].view(np.uint16)),
                    33,
                )
                for g in range(30)
                for lane in range(2)
            )
            assert found.integers()[row, col] == total
            assert to_bits(found.to_binary16())[row, col] == nearest16(Fraction(total, 1 << 33))


@given(st.integers(0, 2**32), st.sampled_from(WINDOWS), st.booleans(), st.integers(1, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_order_and_cuts_do_not_matter(seed, window, hard, parts):
    """Permuting groups, permuting lanes and cutting k anywhere, in any order of the parts: the same bits."""
    rng = np.random.default_rng(seed)
    groups, keep, group = int(rng.integers(1, 30)), int(rng.integers(1, 5)), 8
    a, values, places = compressed(rng, 4, 3, groups, keep, group, hard)
    whole = product_window(a, values, places, group, window)
    order = rng.permutation(groups)
    shuffled = a.reshape(4, groups, group)[:, order].reshape(4, -1)
    lanes = rng.permutation(keep)
    assert product_window(shuffled, values[order][:, lanes], places[order][:, lanes], group, window).same(whole)
    cuts = np.array_split(rng.permutation(groups), parts)
    total = WindowSums.zeros((4, 3), window)
    for part in cuts:
        piece = a.reshape(4, groups, group)[:, part].reshape(4, -1)
        total = product_window(piece, values[part], places[part], group, window, initial=total)
    assert total.same(whole)


def test_fp32_does_depend_on_the_order():
    """What the window is for: of 64 dot products, most change in binary32 when k is reversed, none here."""
    from nmsat.models.golden import product_dense

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(8, 512)).astype(np.float16), rng.normal(size=(512, 8)).astype(np.float16)
    changed = product_dense(a, b).view(np.uint32) != product_dense(a[:, ::-1], b[::-1]).view(np.uint32)
    assert changed.mean() > 0.5
    values, places = b[:, None, :], np.zeros((512, 1, 8), np.uint8)
    one = product_window(a, values, places, 1, Window())
    assert one.same(product_window(a[:, ::-1], values[::-1], places, 1, Window()))


@pytest.mark.parametrize(
    ("lsb", "bits", "message"),
    [
        (7, 64, r"^window: lsb: must be 8 to 40, not 7$"),
        (41, 64, r"^window: lsb: must be 8 to 40, not 41$"),
        (33, 49, r"^window: bits: must be L \+ 17 to L \+ 46, 50 to 79 at L = 33, not 49$"),
        (33, 80, r"^window: bits: must be L \+ 17 to L \+ 46, 50 to 79 at L = 33, not 80$"),
    ],
)
def test_bad_windows(lsb, bits, message):
    with pytest.raises(NmsatError, match=message):
        Window(lsb, bits)


def test_sizes():
    assert [(w.terms, w.sum_bits) for w in WINDOWS[:4]] == [(1 << 14, 80), (1 << 7, 72), (1 << 13, 80), (1 << 14, 88)]


def test_bad_operands():
    a, values, places = compressed(np.random.default_rng(0), 2, 3, 2, 1, 4, False)
    with pytest.raises(NmsatError, match=r"^golden: initial.shape: must be \(2, 3\) like the result, not \(3, 2\)$"):
        product_window(a, values, places, 4, Window(), initial=WindowSums.zeros((3, 2), Window()))
    with pytest.raises(NmsatError, match=r"^golden: window: must be "):
        WindowSums.zeros((1,), Window()) + WindowSums.zeros((1,), Window(30, 64))
