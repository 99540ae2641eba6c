"""The binary32 units of WUVE: subnormals are zero, going in and coming out."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from ...models.golden.floats import NAN32
from .stages import normalise, registers
from .unit import Unit

_INF = 0x7F800000


def _classes(x: Value) -> tuple[Value, Value, Value]:
    """(zero or subnormal, infinity, NaN) of a binary32 operand."""
    fraction, exponent = x[:23], x[23:31]
    top = exponent == 255
    return exponent == 0, top & ~fraction.any(), top & fraction.any()


class FtzMultiplier(Unit):
    """Product of binary32 values, nearest even, flushed; equals :func:`nmsat.models.golden.ftz_multiply_bits`.

    Latency 4 enabled cycles, a result a cycle, two DSP slices. No reset: the result follows the operands alone.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    a, b : in, 32
        Operands.
    y : out, 32
        Product. Rounded first, then flushed: 2^-126 (1 - 2^-24) rounds up to 2^-126 and is kept.
    """

    latency = 4

    OPERANDS: ClassVar[dict[str, Any]] = {"a": 32, "b": 32}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        zero_a, inf_a, nan_a = _classes(self.a)
        zero_b, inf_b, nan_b = _classes(self.b)
        s1 = registers(
            m,
            self.en,
            "s1",
            a=Cat(self.a[:23], Const(1, 1)),
            b=Cat(self.b[:23], Const(1, 1)),
            exponent=self.a[23:31] + self.b[23:31],
            sign=self.a[31] ^ self.b[31],
            zero=zero_a | zero_b,
            inf=inf_a | inf_b,
            nan=nan_a | nan_b | (inf_a & zero_b) | (inf_b & zero_a),
        )
        s2 = registers(
            m,
            self.en,
            "s2",
            product=s1.a * s1.b,
            exponent=s1.exponent,
            sign=s1.sign,
            zero=s1.zero,
            inf=s1.inf,
            nan=s1.nan,
        )
        high = s2.product[47]
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(s2.exponent - 127 + high)
        s3 = registers(
            m,
            self.en,
            "s3",
            fraction=Mux(high, s2.product[24:47], s2.product[23:46]),
            guard=Mux(high, s2.product[23], s2.product[22]),
            sticky=s2.product[:22].any() | (high & s2.product[22]),
            exponent=exponent,
            sign=s2.sign,
            zero=s2.zero,
            inf=s2.inf,
            nan=s2.nan,
        )
        rounded = Signal(signed(33))  # exponent and fraction, after rounding
        m.d.comb += rounded.eq(Cat(s3.fraction, s3.exponent).as_signed() + (s3.guard & (s3.sticky | s3.fraction[0])))
        found = rounded[23:].as_signed()
        up_to_least = (s3.exponent == 0) & s3.fraction.all()
        with m.If(self.en):
            with m.If(s3.nan):
                m.d.sync += self.y.eq(NAN32)
            with m.Elif(s3.inf | (~s3.zero & (found >= 255))):
                m.d.sync += self.y.eq(Cat(Const(_INF, 31), s3.sign))
            with m.Elif(~s3.zero & up_to_least):
                m.d.sync += self.y.eq(Cat(Const(1 << 23, 31), s3.sign))
            with m.Elif(s3.zero | (found <= 0)):
                m.d.sync += self.y.eq(Cat(Const(0, 31), s3.sign))
            with m.Else():
                m.d.sync += self.y.eq(Cat(rounded[:31], s3.sign))
        return m


class FtzScaler(Unit):
    """Product of a binary32 value with a power of two, flushed; equals ``ftz_multiply_bits(x, 2.0**power)``.

    It adds exponents, so it needs no DSP slice. Latency 1 enabled cycle, a result a cycle. No reset.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    x : in, 32
        Operand.
    power : in, signed 8
        -126 to 127.
    y : out, 32
        x * 2^power.
    """

    latency = 1

    OPERANDS: ClassVar[dict[str, Any]] = {"x": 32, "power": signed(8)}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fraction, exponent, sign = self.x[:23], self.x[23:31], self.x[31]
        zero, inf, nan = _classes(self.x)
        found = Signal(signed(10))
        m.d.comb += found.eq(exponent + self.power)
        with m.If(self.en):
            with m.If(nan):
                m.d.sync += self.y.eq(NAN32)
            with m.Elif(inf | (~zero & (found >= 255))):
                m.d.sync += self.y.eq(Cat(Const(_INF, 31), sign))
            with m.Elif(~zero & (found == 0) & fraction.all()):
                m.d.sync += self.y.eq(Cat(Const(1 << 23, 31), sign))  # halfway below 2^-126: rounds to even, upward
            with m.Elif(zero | (found <= 0)):
                m.d.sync += self.y.eq(Cat(Const(0, 31), sign))
            with m.Else():
                m.d.sync += self.y.eq(Cat(fraction, found[:8], sign))
        return m


class FtzAdder(Unit):
    """Sum of binary32 values, nearest even, flushed; equals :func:`nmsat.models.golden.ftz_add_bits`.

    Latency 5 enabled cycles, a result a cycle. No reset: the result follows the operands alone.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    a, b : in, 32
        Operands.
    y : out, 32
        Sum. A sum below 2^-126 is exact, so flushing it involves no rounding.
    """

    latency = 5

    OPERANDS: ClassVar[dict[str, Any]] = {"a": 32, "b": 32}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        zero_a, inf_a, nan_a = _classes(self.a)
        zero_b, inf_b, nan_b = _classes(self.b)
        swap = self.a[:31] < self.b[:31]
        big, small = Mux(swap, self.b, self.a), Mux(swap, self.a, self.b)
        differ = self.a[31] ^ self.b[31]
        s1 = registers(
            m,
            self.en,
            "s1",
            big=Mux(zero_a & zero_b, 0, Cat(big[:23], Const(1, 1))),
            small=Mux(zero_a | zero_b, 0, Cat(small[:23], Const(1, 1))),
            places=(big[23:31] - small[23:31])[:8],
            exponent=big[23:31],
            sign=big[31],
            subtract=differ,
            zero_sign=self.a[31] & self.b[31],
            nan=nan_a | nan_b | (inf_a & inf_b & differ),
            inf=inf_a | inf_b,
        )
        passed = ("exponent", "sign", "zero_sign", "nan", "inf")
        moved = Signal(50)  # 24 bits, guard, round, and 24 that only count as sticky
        m.d.comb += moved.eq(Cat(Const(0, 26), s1.small) >> Mux(s1.places[5:].any(), 31, s1.places[:5]))
        s2 = registers(
            m,
            self.en,
            "s2",
            big=s1.big,
            small=Cat(moved[:24].any(), moved[24:]),
            subtract=s1.subtract,
            **{name: getattr(s1, name) for name in passed},
        )
        left = Cat(Const(0, 3), s2.big)
        total = Signal(28)
        m.d.comb += total.eq(Mux(s2.subtract, left - s2.small, left + s2.small))
        s3 = registers(m, self.en, "s3", total=total, **{name: getattr(s2, name) for name in passed})
        zeros, normal = normalise(m, s3.total, "total")
        exponent = Signal(signed(10))
        m.d.comb += exponent.eq(s3.exponent + 1 - zeros)
        s4 = registers(
            m,
            self.en,
            "s4",
            zero=~s3.total.any(),
            fraction=normal[4:27],
            guard=normal[3],
            sticky=normal[:3].any(),
            **{name: getattr(s3, name) for name in passed if name != "exponent"},
            exponent=exponent,
        )
        rounded = Signal(signed(33))
        m.d.comb += rounded.eq(Cat(s4.fraction, s4.exponent).as_signed() + (s4.guard & (s4.sticky | s4.fraction[0])))
        found = rounded[23:].as_signed()
        with m.If(self.en):
            with m.If(s4.nan):
                m.d.sync += self.y.eq(NAN32)
            with m.Elif(s4.inf):
                m.d.sync += self.y.eq(Cat(Const(_INF, 31), s4.sign))
            with m.Elif(s4.zero):
                m.d.sync += self.y.eq(Cat(Const(0, 31), s4.zero_sign))
            with m.Elif(s4.exponent <= 0):
                m.d.sync += self.y.eq(Cat(Const(0, 31), s4.sign))
            with m.Elif(found >= 255):
                m.d.sync += self.y.eq(Cat(Const(_INF, 31), s4.sign))
            with m.Else():
                m.d.sync += self.y.eq(Cat(rounded[:31], s4.sign))
        return m
