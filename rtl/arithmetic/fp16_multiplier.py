"""Binary16 multiplier with an exact product, and the two number forms that the array uses inside.

*Operand*, 17 bits: fraction (10), exponent code (6), sign. A binary16 whose subnormals are normalised: code 0 is zero,
63 is Inf (fraction 0) or NaN, any other is exponent + 25, hence 1..40. Normalising once at the array's edge costs
less than a normaliser in every element.

*Product*: sign, exponent code (7, exponent + 50), significand (22 bits, 2 before the point), NaN and Inf flags. It is
not normalised, the adder does not need it. Code and significand are 0 for a zero.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from .cuts import Stages
from .unit import CutUnit

OPERAND_BITS = 17
CODE_BIAS = 50  # of products and sums: code = exponent + 50
TO_FP32 = 127 - CODE_BIAS


@dataclass(frozen=True, slots=True)
class Product:
    """An exact product on its way to the adder; see the module's text."""

    sign: Value
    code: Value
    significand: Value
    nan: Value
    inf: Value


def normalise_operand(m: Module, bits: Value, name: str) -> Value:
    """The operand form of a binary16 bit pattern, combinational."""
    fraction, exponent, sign = bits[0:10], bits[10:15], bits[15]
    result = Signal(OPERAND_BITS, name=f"{name}_operand")
    with m.If(exponent == 31):
        m.d.comb += result.eq(Cat(fraction, Const(63, 6), sign))
    with m.Elif(exponent != 0):
        m.d.comb += result.eq(Cat(fraction, (exponent + 10)[0:6], sign))
    with m.Else():
        m.d.comb += result.eq(Cat(Const(0, 16), sign))
        for top in range(10):  # the last assignment wins: the highest set bit
            with m.If(fraction[top]):
                shifted = Cat(Const(0, 10 - top), fraction[0:top])
                m.d.comb += result.eq(Cat(shifted[0:10], Const(top + 1, 6), sign))
    return result


def multiply(stages: Stages, a: Value, b: Value, clear: tuple[Value, Value] | None = None) -> Product:
    """Product of two operands, with the cuts ``operand``, ``multiply`` and ``product``, the last one with ``clear``."""
    a, b = stages.cut("operand", a, b)
    (fa, ca, sa), (fb, cb, sb) = ((x[0:10], x[10:16], x[16]) for x in (a, b))
    zero_a, zero_b, top_a, top_b = ca == 0, cb == 0, ca == 63, cb == 63
    nan_a, nan_b = top_a & (fa != 0), top_b & (fb != 0)
    nan = nan_a | nan_b | (top_a & zero_b) | (zero_a & top_b)
    significand = Cat(fa, ~zero_a) * Cat(fb, ~zero_b)
    code = (ca + cb)[0:7]
    sign, code, significand, nan, special, zero = stages.cut(
        "multiply", sa ^ sb, code, significand, nan, top_a | top_b, zero_a | zero_b
    )
    sign, code, significand, nan, inf = stages.cut(
        "product", sign, Mux(zero, 0, code), significand, nan, special & ~nan, clear=clear
    )
    return Product(sign, code, significand, nan, inf)


class Fp16Multiplier(CutUnit):
    """Exact product of two binary16 numbers in binary32; equals ``nmsat.models.golden.floats.multiply_bits``.

    Latency ``latency`` cycles, one product a cycle. A result means something ``latency`` enabled cycles after its
    operands, whatever a reset did between. NaNs are canonical, the sign of a zero is kept.

    Parameters
    ----------
    latency : int
        1 to 32.

    Ports
    -----
    en : in, 1
        Clock enable: nothing moves while it is low.
    a, b : in, 16
        Binary16 bit patterns, subnormals included.
    y : out, 32
        Binary32 bit pattern.
    """

    OPERANDS: ClassVar[dict[str, Any]] = {"a": 16, "b": 16}
    CUTS = ("operand", "multiply", "product")
    a: Signal
    b: Signal

    def __init__(self, *, latency: int = 4) -> None:
        super().__init__(latency=latency)

    def datapath(self, m: Module, stages: Stages) -> Value:
        """Both operands in their inner form, multiplied and packed."""
        product = multiply(stages, normalise_operand(m, self.a, "a"), normalise_operand(m, self.b, "b"))
        p = product.significand
        high = p[21]
        fraction = Mux(high, p[0:21] << 2, p[0:20] << 3)[0:23]
        exponent = Mux(product.code == 0, 0, product.code + TO_FP32 + high)[0:8]
        word = Mux(product.inf, 0x7F800000, Cat(fraction, exponent))[0:31]
        return Mux(product.nan, 0x7FC00000, Cat(word, product.sign))
