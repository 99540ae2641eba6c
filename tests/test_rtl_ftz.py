"""Converters and WUVE's binary32 units against integers, the golden model and, stalled, in Amaranth's simulator."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from nmsat.models import golden
from nmsat.rtl.arithmetic.converters import Narrow, Widen
from nmsat.rtl.arithmetic.ftz import FtzAdder, FtzMultiplier, FtzScaler
from nmsat.rtl.bulk import BulkPipeline

CASES = 100_000
MANY = 100_000_000
CORNERS = np.array(
    [0, 1, 0x400000, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x33000000, 0x33000001, 0x38800000, 0x387FFFFF,
     0x387FF000, 0x38001000, 0x3F800000, 0x3F7FFFFF, 0x3FFFFFFF, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x47800000,
     0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF],
    np.uint32,
)  # fmt: skip
CORNERS = np.concatenate([CORNERS, CORNERS | np.uint32(1 << 31)])


# Integers only: a finite number is sign, integer significand and power of two.
def read(bits, fraction_bits, exponent_bits):
    sign, exponent = bits >> fraction_bits + exponent_bits, bits >> fraction_bits & (1 << exponent_bits) - 1
    fraction, bias = bits & (1 << fraction_bits) - 1, (1 << exponent_bits - 1) - 1
    if exponent == (1 << exponent_bits) - 1:
        return sign, "nan" if fraction else "inf", 0
    if exponent == 0:
        return sign, fraction, 1 - bias - fraction_bits
    return sign, fraction | 1 << fraction_bits, exponent - bias - fraction_bits


def write(sign, integer, power, fraction_bits, exponent_bits):
    """integer * 2^power to nearest even, gradual underflow, overflow to infinity."""
    bias = (1 << exponent_bits - 1) - 1
    if not integer:
        return sign << fraction_bits + exponent_bits
    quantum = max(power + integer.bit_length() - 1 - fraction_bits, 1 - bias - fraction_bits)
    drop = quantum - power
    if drop <= 0:
        kept = integer << -drop
    else:
        kept, rest = divmod(integer, 1 << drop)
        kept += 2 * rest > 1 << drop or (2 * rest == 1 << drop and kept & 1)
    found = kept + ((quantum - (1 - bias - fraction_bits)) << fraction_bits)  # the hidden one carries into the exponent
    return sign << fraction_bits + exponent_bits | min(found, (1 << exponent_bits) - 1 << fraction_bits)


def nan(fraction_bits, exponent_bits):
    return ((2 << exponent_bits) - 1) << fraction_bits - 1


def narrow_integer(bits):
    sign, integer, power = read(bits, 23, 8)
    if integer == "nan":
        return nan(10, 5)
    return sign << 15 | 0x7C00 if integer == "inf" else write(sign, integer, power, 10, 5)


def widen_integer(bits):
    sign, integer, power = read(bits, 10, 5)
    if integer == "nan":
        return nan(23, 8)
    return sign << 31 | 0x7F800000 if integer == "inf" else write(sign, integer, power, 23, 8)


def flushed(bits):
    return bits & 0x80000000 if bits & 0x7F800000 == 0 else bits


def multiply_integer(a, b):
    (sa, ia, pa), (sb, ib, pb) = (read(flushed(x), 23, 8) for x in (a, b))
    if "nan" in (ia, ib) or {ia, ib} == {"inf", 0}:
        return nan(23, 8)
    if "inf" in (ia, ib):
        return (sa ^ sb) << 31 | 0x7F800000
    return flushed(write(sa ^ sb, ia * ib, pa + pb, 23, 8))


def add_integer(a, b):
    (sa, ia, pa), (sb, ib, pb) = (read(flushed(x), 23, 8) for x in (a, b))
    if "nan" in (ia, ib) or (ia == ib == "inf" and sa != sb):
        return nan(23, 8)
    if "inf" in (ia, ib):
        return (sa if ia == "inf" else sb) << 31 | 0x7F800000
    low = min(pa, pb)
    total = (-1) ** sa * (ia << pa - low) + (-1) ** sb * (ib << pb - low)
    return flushed(write(int(total < 0) if total else sa & sb, abs(total), low, 23, 8))


def words(rng, count):
    """binary32 patterns of which half have few significant bits or few zeros, so that ties and long carries occur."""
    found = rng.integers(0, 1 << 32, count, np.uint32)
    shape = rng.integers(0, 8, count)
    places = rng.integers(0, 23, count).astype(np.uint32)
    low = (np.uint32(1) << places) - np.uint32(1)
    found = np.where(shape == 0, found & ~low, found)
    found = np.where(shape == 1, found | low, found)
    found = np.where(shape == 2, found | np.uint32(0x7FFFFF) & ~low, found)
    return np.where(shape == 3, rng.choice(CORNERS, count), found)


def with_exponent(bits, exponent):
    return bits & np.uint32(0x807FFFFF) | np.clip(exponent, 0, 255).astype(np.uint32) << np.uint32(23)


def exponents(bits):
    return (bits >> np.uint32(23) & np.uint32(255)).astype(np.int64)


def sums(rng, count):
    """Operands whose exponents mostly meet, so that alignment, cancellation and ties occur; half at the lower end."""
    a, b = words(rng, count), words(rng, count)
    a = np.where(rng.random(count) < 0.3, with_exponent(a, rng.integers(0, 30, count)), a)
    near = with_exponent(b, exponents(a) + rng.integers(-27, 28, count))
    b = np.where(rng.random(count) < 0.8, near, b)
    close = a ^ np.uint32(0x80000000) ^ rng.integers(0, 8, count, np.uint32)  # cancels to the last bits
    return a, np.where(rng.random(count) < 0.1, close, b)


def products(rng, count):
    """Operands whose products lie all over the range, many at its two ends."""
    a, b = words(rng, count), words(rng, count)
    end = np.where(rng.random(count) < 0.7, rng.integers(-3, 4, count), rng.integers(250, 259, count))
    return a, np.where(rng.random(count) < 0.6, with_exponent(b, end + 127 - exponents(a)), b)


def narrowed(rng, count):
    x = words(rng, count)
    return (np.where(rng.random(count) < 0.8, with_exponent(x, rng.integers(98, 146, count)), x),)


def pairs():
    return tuple(x.reshape(-1) for x in np.meshgrid(CORNERS, CORNERS))


UNITS = {
    "narrow": (Narrow, narrowed, golden.narrow_bits, narrow_integer, (CORNERS,)),
    "add": (FtzAdder, sums, golden.ftz_add_bits, add_integer, pairs()),
    "multiply": (FtzMultiplier, products, golden.ftz_multiply_bits, multiply_integer, pairs()),
}


@pytest.mark.parametrize("unit", UNITS)
def test_unit_equals_golden_and_integers(unit):
    component, draw, reference, integer, corners = UNITS[unit]
    operands = [np.concatenate(x) for x in zip(corners, draw(np.random.default_rng(1), CASES), strict=True)]
    pipeline = BulkPipeline(component())
    found = pipeline(*operands)
    np.testing.assert_array_equal(found, reference(*operands))
    sample = slice(0, len(corners[0]) + 30_000)
    expected = [integer(*map(int, row)) for row in zip(*(x[sample] for x in operands), strict=True)]
    np.testing.assert_array_equal(found[sample], np.array(expected, np.uint64))


@pytest.mark.parametrize(
    "a, b, product",
    [
        (0x00FFFFFF, 0x3F000000, 0x00800000),  # 2^-126 (1 - 2^-24): the tie goes up to the least normal
        (0x00FFFFFE, 0x3F000000, 0x00000000),
        (0x80FFFFFF, 0x3F000000, 0x80800000),
        (0x80800000, 0x3F7FFFFF, 0x80800000),  # the same value from other factors
        (0x00800000, 0x3F7FFFFE, 0x00000000),
        (0x7F7FFFFF, 0x3F800001, 0x7F800000),
        (0x007FFFFF, 0x7F7FFFFF, 0x00000000),  # an operand is flushed
        (0x007FFFFF, 0x7F800000, 0x7FC00000),  # and is then the zero that meets infinity
    ],
)
def test_products_at_the_ends_of_the_range(a, b, product, multiplier):
    assert multiply_integer(a, b) == product
    assert multiplier(np.array([a, b]), np.array([b, a])).tolist() == [product, product]


@pytest.fixture(scope="module")
def multiplier():
    return BulkPipeline(FtzMultiplier())


def test_widen_on_every_pattern():
    every = np.arange(1 << 16, dtype=np.uint16)
    pipeline = BulkPipeline(Widen())
    found = pipeline(every)
    np.testing.assert_array_equal(found, golden.widen_bits(every))
    assert found.tolist() == [widen_integer(x) for x in range(1 << 16)]


def test_scaler_is_the_multiplier_by_a_power_of_two(multiplier):
    rng = np.random.default_rng(2)
    x, power = words(rng, CASES), rng.integers(-126, 128, CASES)
    end = rng.random(CASES) < 0.6
    x = np.where(end, with_exponent(x, rng.choice([-1, 0, 1, 254, 255, 256], CASES) - power), x)
    factor = ((power + 127) << 23).astype(np.uint32)
    pipeline = BulkPipeline(FtzScaler())
    found = pipeline(x, power & 255)
    np.testing.assert_array_equal(found, golden.ftz_multiply_bits(x, factor))
    np.testing.assert_array_equal(found, multiplier(x, factor))


@pytest.mark.parametrize("component", [Widen, Narrow, FtzAdder, FtzMultiplier, FtzScaler])
def test_latency_and_clock_enable(component):
    """Results come ``latency`` enabled cycles after their operands, however long the stalls between."""
    dut, rng = component(), np.random.default_rng(3)
    ports = [name for name in dut.signature.members if name not in ("en", "y")]
    operands = [rng.integers(0, 1 << len(getattr(dut, name).as_unsigned()), 40) for name in ports]
    pipeline = BulkPipeline(component())
    expected = pipeline(*operands).tolist()
    found = []

    async def bench(ctx):
        enabled = 0
        while len(found) < len(expected):
            go = bool(rng.random() < 0.6)
            ctx.set(dut.en, go)
            for name, values in zip(ports, operands, strict=True):
                value = int(values[enabled]) if go and enabled < len(values) else int(rng.integers(1 << 8))
                ctx.set(getattr(dut, name).as_unsigned(), value)
            await ctx.tick()
            enabled += go
            if go and enabled >= dut.latency:
                found.append(ctx.get(dut.y))

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_a_hundred_million_cases(unit):
    component, draw, reference, _, _ = UNITS[unit]
    step = 2_000_000
    pipeline = BulkPipeline(component())
    for seed in range(MANY // step):
        operands = draw(np.random.default_rng(1000 + seed), step)
        np.testing.assert_array_equal(pipeline(*operands), reference(*operands))


@pytest.mark.slow
def test_narrow_on_every_pattern():
    pipeline = BulkPipeline(Narrow())
    for first in range(0, 1 << 32, 1 << 22):
        every = np.arange(first, first + (1 << 22), dtype=np.uint32)
        np.testing.assert_array_equal(pipeline(every), golden.narrow_bits(every))
