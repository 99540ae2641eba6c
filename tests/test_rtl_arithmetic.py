"""The array's arithmetic against integers written here, against the host's floats and against the golden model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Fragment, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from nmsat.models.golden.floats import add_bits, multiply_bits
from nmsat.rtl.arithmetic.cuts import Stages
from nmsat.rtl.arithmetic.fp16_multiplier import Fp16Multiplier
from nmsat.rtl.arithmetic.fp32_adder import Fp32Adder, SumAdder
from nmsat.rtl.arithmetic.unit import require_latency
from nmsat.rtl.emit import Emission
from nmsat.rtl.simulators.cxxrtl import CxxrtlBench

CASES = 100_000
NAN = 0x7FC00000
UNITS = {"multiplier": (Fp16Multiplier, 16), "adder": (Fp32Adder, 32), "sum": (SumAdder, 31)}
MANY = {"multiplier": (4,), "adder": (8,), "sum": (8,)}  # the latencies of the shipped accelerator: all cases
FEW = {  # from no register but the last to more than there are cuts: the first cases
    "multiplier": (1, 2, 3, 5), "adder": (1, 2, 5, 7, 11), "sum": (1, 4, 7),
}  # fmt: skip


class Units(wiring.Component):
    """Units side by side, so that one build and one run serve all tests."""

    def __init__(self, latencies) -> None:
        self.latencies = latencies
        ports: dict = {"en": In(1)}
        for name, (_, width) in UNITS.items():
            ports |= {f"{name}_a": In(width), f"{name}_b": In(width)}
            ports |= {f"{name}_{latency}": Out(32) for latency in latencies[name]}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        for name, (unit, _) in UNITS.items():
            for latency in self.latencies[name]:
                m.submodules[f"{name}_{latency}"] = it = unit(latency=latency)
                m.d.comb += [
                    it.en.eq(self.en),
                    it.a.eq(getattr(self, f"{name}_a")),
                    it.b.eq(getattr(self, f"{name}_b")),
                ]
                m.d.comb += getattr(self, f"{name}_{latency}").eq(it.y)
        return m


@pytest.fixture(scope="module")
def benches():
    return {name: CxxrtlBench(Emission().emit(Units(which), "units")) for name, which in (("many", MANY), ("few", FEW))}


@pytest.fixture(scope="module")
def runs(benches):
    """(unit, latency) -> bits of its results, aligned with the operands of ``operands()``."""
    found = {}
    for which, latencies, count in (("many", MANY, None), ("few", FEW, 3000)):
        stimuli = {}
        for name, (a, b) in operands().items():
            stimuli |= {f"{name}_a": a[:count].tolist() + [0] * 16, f"{name}_b": b[:count].tolist() + [0] * 16}
        cycles = len(stimuli["sum_a"])
        outputs = benches[which].many(stimuli | {"en": [1] * cycles}, cycles)
        for name, numbers in latencies.items():
            for n in numbers:
                found[name, n] = np.array(outputs[f"{name}_{n}"][n : n + cycles - 16], np.uint32)
    return found


@cache
def operands() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"multiplier": half_pairs(), "adder": words(np.random.default_rng(2), CASES), "sum": sum_pairs()}


def check(runs, name: str, expected: np.ndarray) -> None:
    for latency in MANY[name] + FEW[name]:
        found = runs[name, latency]
        assert np.array_equal(found, expected[: len(found)]), latency


def integer_product(a: int, b: int) -> int:
    """Binary32 bits of a binary16 product, from integers alone."""
    sign = (a ^ b) >> 15 << 31
    parts = []
    for x in (a, b):
        e, f = x >> 10 & 31, x & 1023
        parts.append((f, 0) if e == 0 else (f | 1024, e - 1) if e < 31 else ("nan" if f else "inf", 0))
    (m, e), (n, d) = parts
    if "nan" in (m, n) or ("inf" in (m, n) and 0 in (m, n)):
        return NAN
    if "inf" in (m, n):
        return sign | 0x7F800000
    if m * n == 0:
        return sign
    product, top = m * n, (m * n).bit_length() - 1
    return sign | (top + e + d - 48 + 127) << 23 | (product << 23 - top) & 0x7FFFFF


def integer_sum(a: int, b: int) -> int:
    """Binary32 bits of a sum, nearest even, from integers alone: in units of 2^-149 a sum is exact."""
    values = []
    for x in (a, b):
        e, f = x >> 23 & 255, x & 0x7FFFFF
        if e == 255:
            values.append("nan" if f else "inf")
        else:
            values.append((-1) ** (x >> 31) * (f if e == 0 else (f | 1 << 23) << e - 1))
    if "nan" in values or (values == ["inf", "inf"] and (a ^ b) >> 31):
        return NAN
    if "inf" in values:
        return (a if values[0] == "inf" else b) & 0xFF800000
    total = sum(values)
    if total == 0:
        return a & b & 0x80000000
    sign, size = (total < 0) << 31, abs(total)
    drop = max(0, size.bit_length() - 24)
    kept, rest, half = size >> drop, size & (1 << drop) - 1, 1 << drop >> 1
    if drop and (rest > half or (rest == half and kept & 1)):
        kept += 1
    bits = kept + (drop << 23)  # a carry out of the significand raises the exponent by itself
    return sign | min(bits, 0x7F800000)


def corner_halves() -> np.ndarray:
    """Binary16 operands at the edges of every range."""
    fractions = [0, 1, 2, 3, 0x1FF, 0x200, 0x201, 0x3FE, 0x3FF]
    return np.array([s << 15 | e << 10 | f for s in (0, 1) for e in (0, 1, 2, 15, 29, 30, 31) for f in fractions])


def words(rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Binary32 pairs in which every part of an adder works: near exponents, runs of ones and zeros, cancellation."""
    a, b = rng.integers(0, 1 << 32, (2, count), np.int64)
    kind = rng.integers(0, 8, count)
    near = np.clip((a >> 23 & 255) + rng.integers(-30, 31, count), 0, 255)
    b = np.where(kind < 5, b & 0x807FFFFF | near << 23, b)
    low = (1 << rng.integers(0, 24, count)) - 1
    a, b = np.where(kind == 1, a & ~low, a), np.where(kind == 1, b & ~(low >> 1), b)
    a, b = np.where(kind == 2, a | low, a), np.where(kind == 2, b | low >> 2, b)
    b = np.where(kind == 5, a ^ 0x80000000 ^ (b & low), b)
    a, b = np.where(kind == 6, a & 0x81FFFFFF, a), np.where(kind == 6, b & 0x80FFFFFF, b)
    ends = np.array(
        [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 1, 0x7F7FFFFF, 0x00800000, 0x807FFFFF]
    )
    b = np.where(rng.random(count) < 0.04, ends[rng.integers(0, len(ends), count)], b)
    return a, np.where(rng.random(count) < 0.02, ends[rng.integers(0, len(ends), count)] & 0xFFFFFFFF, b)


def half_pairs() -> tuple[np.ndarray, np.ndarray]:
    """All pairs of corners, then random ones, a quarter of them subnormal times anything."""
    corners = corner_halves()
    a, b = np.random.default_rng(1).integers(0, 1 << 16, (2, CASES), np.int64)
    a[CASES // 4 : CASES // 2] &= 0x83FF
    a[: len(corners) ** 2], b[: len(corners) ** 2] = np.repeat(corners, len(corners)), np.tile(corners, len(corners))
    return a, b


def sum_of(bits: np.ndarray) -> np.ndarray:
    """The array's 31-bit form of binary32."""
    exponent = bits >> 23 & 255
    code = np.where(exponent == 0, 0, np.where(exponent == 255, 127, exponent - 77))
    return bits & 0x7FFFFF | code << 23 | bits >> 31 << 30


def fp32_sum_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Binary32 pairs within contract section 3: multiples of 2^-48, +0, Inf, the canonical NaN."""
    rng = np.random.default_rng(3)
    a, b = words(rng, CASES)
    exponent = rng.integers(79, 200, CASES)
    a = a & 0x807FFFFF | exponent << 23
    b = b & 0x807FFFFF | np.clip(exponent + rng.integers(-30, 31, CASES), 79, 200) << 23
    b = np.where(rng.random(CASES) < 0.1, a ^ 0x80000000 ^ rng.integers(0, 256, CASES), b)
    a, b = (x & ~((1 << np.clip(102 - (x >> 23 & 255), 0, 23)) - 1) for x in (a, b))
    ends = np.array([0, 0x7F800000, 0xFF800000, NAN])
    a = np.where(rng.random(CASES) < 0.05, ends[rng.integers(0, 4, CASES)], a)
    return a, np.where(rng.random(CASES) < 0.05, ends[rng.integers(0, 4, CASES)], b)


def sum_pairs() -> tuple[np.ndarray, np.ndarray]:
    a, b = fp32_sum_pairs()
    return sum_of(a), sum_of(b)


def by_integers(rule, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([rule(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)], np.uint32)


def test_multiplier(runs):
    a, b = operands()["multiplier"]
    expected = by_integers(integer_product, a, b)
    assert np.array_equal(expected, multiply_bits(a.astype(np.uint16), b.astype(np.uint16)))
    check(runs, "multiplier", expected)


def test_adder(runs):
    a, b = operands()["adder"]
    expected = by_integers(integer_sum, a, b)
    assert np.array_equal(expected, add_bits(a.astype(np.uint32), b.astype(np.uint32)))
    check(runs, "adder", expected)


def test_sum_adder(runs):
    a, b = fp32_sum_pairs()
    check(runs, "sum", sum_of(add_bits(a.astype(np.uint32), b.astype(np.uint32)).astype(np.int64)))


def test_enable_holds_everything(benches):
    """With the clock enable low in every other cycle, results come out at half speed and complete."""
    a, b = (x[:200] for x in half_pairs())
    stimuli = {"multiplier_a": np.repeat(a, 2).tolist(), "multiplier_b": np.repeat(b, 2).tolist(), "en": [0, 1] * 200}
    found = benches["many"].many(stimuli, 400)["multiplier_4"][8::2]
    expected = multiply_bits(a.astype(np.uint16), b.astype(np.uint16))
    assert found == expected[: len(found)].tolist()


@pytest.mark.parametrize(
    "latency, error, message",
    [
        (0, ValueError, r"^latency must be between 1 and 32, not 0$"),
        (33, ValueError, r"^latency must be between 1 and 32, not 33$"),
        (2.0, TypeError, r"^latency must be an integer, not 2\.0$"),
        (True, TypeError, r"^latency must be an integer, not True$"),
    ],
)
def test_latency_is_checked(latency, error, message):
    with pytest.raises(error, match=message):
        require_latency("latency", latency)


@pytest.mark.parametrize("registers", range(12))
def test_stages_place_as_many_registers_as_told(registers):
    names = ("a", "b", "c", "d", "e", "f", "g")
    m = Module()
    stages = Stages(m, names, registers)
    Fragment.get(m, None)  # an unused Module warns
    assert sum(stages._depth.values()) == registers
    assert registers < len(names) or min(stages._depth.values()) == 1
