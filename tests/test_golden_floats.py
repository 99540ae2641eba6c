"""binary16 and binary32 against references made of integers only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.models import golden
from nmsat.models.errors import NmsatError

quick = settings(max_examples=200, deadline=None, derandomize=True)
word = st.integers(0, 2**32 - 1)

# (significand bits, exponent of the least significant subnormal bit, width)
HALF = (11, -24, 16)
SINGLE = (24, -149, 32)


def decode(bits: int, form) -> tuple[int, int | None, int]:
    """(sign, significand, exponent) with value significand * 2^exponent; significand None: Inf; -1: NaN."""
    precision, lowest, width = form
    sign, fraction = bits >> (width - 1), bits & (1 << (precision - 1)) - 1
    field = bits >> (precision - 1) & (1 << (width - precision)) - 1
    if field == (1 << (width - precision)) - 1:
        return sign, (-1 if fraction else None), 0
    return (sign, fraction, lowest) if field == 0 else (sign, fraction | 1 << (precision - 1), lowest + field - 1)


def encode(sign: int, number: int, unit: int, form) -> int:
    """Nearest-even bit pattern of (-1)^sign * number * 2^unit."""
    precision, lowest, width = form
    exponent = max(number.bit_length() + unit - precision, lowest)
    shift = exponent - unit
    if shift > 0:
        quotient, rest = divmod(number, 1 << shift)
        quotient += rest * 2 > 1 << shift or (rest * 2 == 1 << shift and quotient & 1)
    else:
        quotient = number << -shift
    # a carry out of the significand, and from subnormal to normal, walks into the exponent field by itself
    field = (exponent - lowest) * (1 << (precision - 1)) + quotient
    infinity = (1 << (width - precision)) - 1 << (precision - 1)
    return min(field, infinity) | sign << (width - 1)


def add_integer(a: int, b: int) -> int:
    (sa, na, ea), (sb, nb, eb) = decode(a, SINGLE), decode(b, SINGLE)
    if na == -1 or nb == -1 or (na is None and nb is None and sa != sb):
        return golden.NAN32
    if na is None or nb is None:
        return a if na is None else b
    total = ((-na if sa else na) << (ea + 149)) + ((-nb if sb else nb) << (eb + 149))
    if total == 0:
        return (sa & sb) << 31
    return encode(int(total < 0), abs(total), -149, SINGLE)


def multiply_integer(a: int, b: int, form=SINGLE) -> int:
    (sa, na, ea), (sb, nb, eb) = decode(a, form), decode(b, form)
    if na == -1 or nb == -1 or (na is None and nb == 0) or (nb is None and na == 0):
        return golden.NAN32
    if na is None or nb is None:
        return (sa ^ sb) << 31 | 0x7F800000
    return encode(sa ^ sb, na * nb, ea + eb, SINGLE) if na * nb else (sa ^ sb) << 31


def flush_integer(a: int) -> int:
    return a & 0x80000000 if a & 0x7F800000 == 0 else a


def narrow_integer(a: int) -> int:
    sign, number, exponent = decode(a, SINGLE)
    if number == -1:
        return golden.NAN16
    if number is None:
        return sign << 15 | 0x7C00
    return encode(sign, number, exponent, HALF)


def directed32() -> list[int]:
    """Both signs of every mix of edge exponents and edge fractions, and the specials."""
    fields = (0, 1, 2, 23, 24, 25, 26, 63, 64, 103, 126, 127, 128, 150, 151, 152, 190, 191, 253, 254)
    fractions = (0, 1, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFF)
    words = [f << 23 | x for f in fields for x in fractions]
    words += [0x7F800000, 0x7FC00000, 0x7F800001, 0x7FFFFFFF]
    return words + [w | 0x80000000 for w in words]


def pairs32(count: int) -> tuple[np.ndarray, np.ndarray]:
    words = np.array(directed32(), np.uint32)
    chosen = np.random.default_rng(7).integers(len(words), size=(2, count))
    return words[chosen[0]], words[chosen[1]]


OPERANDS = [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x401, 0x3C00, 0xBC00, 0x3C01, 0x3555, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00]
OPERANDS += [0x7E00, 0x7C01, 0xFFFF, *(int(x) for x in np.random.default_rng(3).integers(0, 2**16, 14))]


def test_multiply_is_exact_for_every_pattern_and_selected_operands():
    a = np.arange(2**16, dtype=np.int64)[:, None]
    b = np.array(OPERANDS, np.int64)

    def parts(x):
        field, fraction = x >> 10 & 31, x & 1023
        return fraction + (field > 0) * 1024, np.maximum(field, 1) - 25, field == 31, (field == 31) & (fraction > 0)

    (na, ea, special_a, nan_a), (nb, eb, special_b, nan_b) = parts(a), parts(b)
    product, sign = na * nb, (a ^ b) >> 15 << 31
    length = sum((product >> i > 0).astype(np.int64) for i in range(23))
    expected = (length - 1 + ea + eb + 127 << 23) | (product << np.maximum(24 - length, 0) & 0x7FFFFF)
    expected = np.where(product == 0, 0, expected)
    expected = np.where(special_a | special_b, 0x7F800000, expected) | sign
    zero_times_inf = (special_a & (b & 0x7FFF == 0)) | (special_b & (a & 0x7FFF == 0))
    expected = np.where(nan_a | nan_b | zero_times_inf, golden.NAN32, expected)
    found = golden.multiply_bits(a.astype(np.uint16), b.astype(np.uint16))
    np.testing.assert_array_equal(found, expected.astype(np.uint32))
    some = [(int(x), y) for x in np.random.default_rng(5).integers(0, 2**16, 40) for y in OPERANDS]
    assert [int(found[x, OPERANDS.index(y)]) for x, y in some] == [multiply_integer(x, y, HALF) for x, y in some]


def test_widen_every_pattern_and_narrow_back():
    bits = np.arange(2**16, dtype=np.uint16)
    wide = golden.widen_bits(bits)
    nan = (bits & 0x7FFF) > 0x7C00
    assert (wide[nan] == golden.NAN32).all()
    assert (wide[(bits & 0x7FFF) == 0x7C00] == [0x7F800000, 0xFF800000]).all()
    for x in np.flatnonzero((bits & 0x7C00) != 0x7C00)[::7]:
        sign, number, exponent = decode(int(x), HALF)
        assert int(wide[x]) == (encode(sign, number, exponent, SINGLE) if number else sign << 31)
    np.testing.assert_array_equal(golden.narrow_bits(wide), np.where(nan, golden.NAN16, bits))


@pytest.mark.parametrize("sign", [0, 1])
def test_narrow_ties_to_even_at_every_midpoint(sign):
    below = np.arange(0x7C00, dtype=np.uint16)
    low = golden.widen(golden.from_bits(below)).astype(np.float64)
    high = np.append(low[1:], 65536.0)
    middle = ((low + high) / 2).astype(np.float32)
    assert (middle.astype(np.float64) * 2 == low + high).all()
    flip = -1 if sign else 1
    for x, expected in (
        (middle, below + (below & 1)),
        (np.nextafter(middle, np.float32(np.inf)), below + 1),
        (np.nextafter(middle, np.float32(0)), below),
    ):
        found = golden.to_bits(golden.narrow(flip * x))
        np.testing.assert_array_equal(found, expected.astype(np.uint16) | np.uint16(sign << 15))


def test_narrow_directed_against_integers():
    words = np.array([*directed32(), *np.random.default_rng(2).integers(0, 2**32, 2000)], np.uint32)
    fields = np.arange(95, 150, dtype=np.uint32)[:, None] << 23  # around binary16's range
    words = np.concatenate(
        [words, (fields | np.random.default_rng(4).integers(0, 2**23, (55, 40))).ravel().astype("u4")]
    )
    assert golden.narrow_bits(words).tolist() == [narrow_integer(int(x)) for x in words]


@pytest.mark.parametrize(
    "found, expected, flushed",
    [
        (golden.add_bits, add_integer, False),
        (golden.ftz_add_bits, add_integer, True),
        (golden.ftz_multiply_bits, multiply_integer, True),
    ],
)
def test_binary32_against_integers(found, expected, flushed):
    a, b = pairs32(12_000)
    rng = np.random.default_rng(11)  # close exponents: cancellation and every alignment of the round bit
    near = rng.integers(100, 140, 4000), rng.integers(-27, 28, 4000)
    x = (near[0] << 23 | rng.integers(0, 2**23, 4000)).astype(np.uint32)
    y = ((near[0] + near[1] << 23 | rng.integers(0, 2**23, 4000)) | rng.integers(0, 2, 4000) << 31).astype(np.uint32)
    a, b = np.concatenate([a, x]), np.concatenate([b, y])
    change = flush_integer if flushed else int
    wanted = [change(expected(change(int(p)), change(int(q)))) for p, q in zip(a, b, strict=True)]
    assert found(a, b).tolist() == wanted


@pytest.mark.parametrize(
    "a, b, total",
    [
        (0, 0, 0),
        (0x80000000, 0x80000000, 0x80000000),
        (0x80000000, 0, 0),
        (0x3F800000, 0xBF800000, 0),
        (0x7F800000, 0xFF800000, golden.NAN32),
        (0xFF800000, 0x3F800000, 0xFF800000),
        (0xFFC00001, 0x3F800000, golden.NAN32),
        (0x7F7FFFFF, 0x73000000, 0x7F800000),  # half an ulp beyond the largest: Inf
        (0x7F7FFFFF, 0x72FFFFFF, 0x7F7FFFFF),
        (0x3F800000, 0x33800000, 0x3F800000),  # tie, even
        (0x3F800001, 0x33800000, 0x3F800002),  # tie, odd
        (1, 1, 2),
    ],
)
def test_add_table(a, b, total):
    assert int(golden.add_bits(np.uint32(a), np.uint32(b))) == total
    assert int(golden.add_bits(np.uint32(b), np.uint32(a))) == total


@pytest.mark.parametrize(
    "bits, flushed",
    [
        (1, 0),
        (0x807FFFFF, 0x80000000),
        (0x00800000, 0x00800000),
        (0, 0),
        (0x80000000, 0x80000000),
        (0xFF800000, 0xFF800000),
        (0xFFFFFFFF, golden.NAN32),
    ],
)
def test_flush_table(bits, flushed):
    assert int(golden.to_bits(golden.flush(golden.from_bits(np.uint32(bits))))) == flushed


@pytest.mark.parametrize(
    "a, b, product",
    [
        (0x00FFFFFF, 0x3F000000, 0x00800000),  # 24 leading ones at exponent -127: IEEE rounds to 2^-126, which stays
        (0x00FFFFFE, 0x3F000000, 0),  # one less is a subnormal and is flushed
        (0x80FFFFFF, 0x3F000000, 0x80800000),
        (0x80FFFFFE, 0x3F000000, 0x80000000),
        (0x00800000, 0x3F800000, 0x00800000),
        (0x007FFFFF, 0x7F000000, 0),  # a subnormal operand is zero however large the other
        (0x007FFFFF, 0x7F800000, golden.NAN32),  # hence NaN with Inf
    ],
)
def test_flushing_product_table(a, b, product):
    assert int(golden.ftz_multiply_bits(np.uint32(a), np.uint32(b))) == product


@quick
@given(word, word)
def test_add_commutes_and_matches_integers(a, b):
    x, y = np.uint32(a), np.uint32(b)
    assert int(golden.add_bits(x, y)) == int(golden.add_bits(y, x)) == add_integer(a, b)
    assert int(golden.ftz_multiply_bits(x, y)) == flush_integer(multiply_integer(flush_integer(a), flush_integer(b)))


def test_shapes_survive_bit_views():
    for shape in ((), (0,), (3,), (2, 3)):
        assert golden.to_bits(np.zeros(shape, np.float32)).shape == shape
        assert golden.multiply_bits(np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)).shape == shape


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: golden.widen(np.zeros(1, np.float32)), "values.dtype: must be float16, not 'float32'"),
        (lambda: golden.add(np.zeros(1), np.zeros(1)), "a.dtype: must be float32, not 'float64'"),
        (lambda: golden.multiply_bits(np.zeros(1, np.int64), 0), "a.dtype: must be uint16, not 'int64'"),
        (lambda: golden.to_bits(np.zeros(1)), "values.dtype: must be float16 or float32, not 'float64'"),
        (lambda: golden.from_bits(np.zeros(1)), "bits.dtype: must be uint16 or uint32, not 'float64'"),
        (lambda: golden.canonical(np.zeros(1)), "values.dtype: must be float16 or float32, not 'float64'"),
    ],
)
def test_wrong_dtypes_are_refused(call, message):
    with pytest.raises(NmsatError, match=rf"^golden: {message}$"):
        call()
