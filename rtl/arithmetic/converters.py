"""binary16 to binary32 and back."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from ...models.golden.floats import NAN16, NAN32
from .stages import normalise, registers
from .unit import Unit


class Widen(Unit):
    """binary16 to binary32, exact; equals :func:`nmsat.models.golden.widen_bits`.

    Latency 1 enabled cycle, a result a cycle. No reset: the result follows the operand alone.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the result.
    x : in, 16
        Operand.
    y : out, 32
        Result; NaN is the canonical quiet NaN, subnormals become normal.
    """

    latency = 1

    OPERANDS: ClassVar[dict[str, Any]] = {"x": 16}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fraction, exponent, sign = self.x[:10], self.x[10:15], self.x[15]
        zeros, normal = normalise(m, fraction, "fraction")
        # a subnormal f * 2^-24 with z leading zeros of 10 is 1.x * 2^(9 - z - 24), biased 112 - z
        magnitude = Signal(31)
        with m.If(exponent == 31):
            m.d.comb += magnitude.eq(Mux(fraction.any(), NAN32, 0x7F800000))
        with m.Elif(exponent != 0):
            m.d.comb += magnitude.eq(Cat(Const(0, 13), fraction, (exponent + 112)[:8]))
        with m.Elif(fraction.any()):
            m.d.comb += magnitude.eq(Cat(Const(0, 14), normal[:9], (112 - zeros)[:8]))
        nan = (exponent == 31) & fraction.any()
        with m.If(self.en):
            m.d.sync += self.y.eq(Cat(magnitude, sign & ~nan))
        return m


class Narrow(Unit):
    """binary32 to binary16, nearest even; equals :func:`nmsat.models.golden.narrow_bits`.

    Latency 2 enabled cycles, a result a cycle. No reset: the result follows the operand alone.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    x : in, 32
        Operand, binary32 subnormals included (they round to zero).
    y : out, 16
        Result: 65520 and above is Inf, below 2^-14 subnormal, NaN the canonical quiet NaN.
    """

    latency = 2

    OPERANDS: ClassVar[dict[str, Any]] = {"x": 32}
    RESULT = 16

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fraction, exponent = self.x[:23], self.x[23:31]
        # Exponent 113 is 2^-14, the least normal binary16: below it the significand moves right, 12 places at most
        # matter (the leading one is then below the guard bit).
        below = Signal(signed(9))
        places = Signal(4)
        m.d.comb += [
            below.eq(113 - exponent),
            places.eq(Mux(below <= 0, 0, Mux(below > 12, 12, below[:4]))),
        ]
        moved = Signal(36)
        m.d.comb += moved.eq(Cat(Const(0, 12), fraction, exponent != 0) >> places)
        s1 = registers(
            m,
            self.en,
            "s1",
            sign=self.x[31],
            nan=(exponent == 255) & fraction.any(),
            inf=exponent >= 143,
            kept=moved[25:35],
            exponent=Mux(below <= 0, (exponent - 112)[:5], 0),
            guard=moved[24],
            sticky=moved[:24].any(),
        )
        rounded = Signal(15)
        m.d.comb += rounded.eq(Cat(s1.kept, s1.exponent) + (s1.guard & (s1.sticky | s1.kept[0])))
        with m.If(self.en):
            with m.If(s1.nan):
                m.d.sync += self.y.eq(NAN16)
            with m.Elif(s1.inf):
                m.d.sync += self.y.eq(Cat(Const(0x7C00, 15), s1.sign))
            with m.Else():
                m.d.sync += self.y.eq(Cat(rounded, s1.sign))
        return m
