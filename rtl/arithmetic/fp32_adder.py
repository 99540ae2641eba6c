"""Binary32 addition, nearest even: one datapath for the full adder and for the array's accumulator.

Significands stand in a frame of 25 bits whose bit 23 weighs 1, so that an unnormalised product (below 4) needs no
normaliser. Operands are ordered by exponent only. Subtraction adds the one's complement and no carry, giving
D' = D - 1 in units of the last guard bit. Three cases, with D the true difference:

* D <= 0: the complement of D' is exactly -D. It only happens when nothing was shifted out: with exponents equal or one
  apart, and then the low bits of what is shifted are inside the guard bits.
* bits were shifted out: D lies between D' and D' + 1, that is D' with a sticky bit.
* otherwise D = D' + 1 = D'.111..., so ones are shifted in and the rounding adds the last unit.

Hence no second carry chain, neither to compare magnitudes nor to negate.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value

from .cuts import Stages
from .fp16_multiplier import Product
from .unit import CutUnit

SUM_BITS = 31
CUTS = ("swap", "distance", "align", "add", "coarse", "fine")
_WIDTH = 28  # 3 bits before the point, 23 after, 2 guard bits


@dataclass(frozen=True, slots=True)
class Addend:
    """An operand of the adder: value = (-1)^sign * significand * 2^(exponent - bias - 23), or NaN, or Inf."""

    sign: Value
    exponent: Value
    significand: Value
    nan: Value
    inf: Value

    @classmethod
    def from_product(cls, product: Product) -> Addend:
        """A product of :func:`.fp16_multiplier.multiply`."""
        frame = Cat(Const(0, 3), product.significand)
        return cls(product.sign, product.code, frame, product.nan, product.inf)

    @classmethod
    def from_sum(cls, bits: Value) -> Addend:
        """A sum in the array's form, 31 bits: fraction (23), exponent code (7; 0 zero, 127 NaN or Inf), sign."""
        fraction, code = bits[0:23], bits[23:30]
        top = code == 127
        return cls(bits[30], code, Cat(fraction, code != 0, Const(0, 1)), top & fraction[22], top & ~fraction[22])

    @classmethod
    def from_fp32(cls, bits: Value) -> Addend:
        """A binary32; subnormals have exponent 1 and no leading one."""
        fraction, exponent = bits[0:23], bits[23:31]
        top, normal = exponent == 255, exponent != 0
        effective = Cat(exponent[0] | ~normal, exponent[1:8])
        frame = Cat(fraction, normal, Const(0, 1))
        return cls(bits[31], effective, frame, top & (fraction != 0), top & (fraction == 0))

    def merged(self, other: Addend) -> Addend:
        """The one of two that is not zero, where all fields of a zero are 0: an OR, no multiplexer."""
        return Addend(*(getattr(self, key) | getattr(other, key) for key in Addend.__slots__))


def add(m: Module, stages: Stages, a: Addend, b: Addend, *, full: bool) -> Value:
    """Sum of two addends, with the cuts of ``CUTS``; the last register is the caller's.

    Parameters
    ----------
    a, b : Addend
        Operands in one form.
    full : bool
        True: binary32 with subnormals, overflow and the zero -0 of (-0) + (-0). False: the array's sums, where products
        and sums are multiples of 2^-48, no sum reaches 2^77 and the left operand is never -0.

    Returns
    -------
    Value
        Binary32 (32 bits) or a sum (31 bits).
    """
    width = len(a.exponent)
    ge = Signal(name="left_exponent_is_larger")
    m.d.comb += ge.eq(a.exponent >= b.exponent)
    large, small = Mux(ge, a.significand, b.significand), Mux(ge, b.significand, a.significand)
    nan = a.nan | b.nan | (a.inf & b.inf & (a.sign ^ b.sign))
    sign = Mux(b.inf | ~(ge | a.inf), b.sign, a.sign)
    state = [sign, a.sign ^ b.sign, nan, nan | a.inf | b.inf, a.sign & b.sign]
    large_exponent = Mux(ge, a.exponent, b.exponent)
    large, small, exponent, low, *state = stages.cut(
        "swap", large, small, large_exponent, Mux(ge, b.exponent, a.exponent), *state
    )

    distance = (exponent - low)[0:width]
    far = distance[5:].any() if width > 5 else Const(0, 1)
    large, small, exponent, distance, far, *state = stages.cut(
        "distance", large, small, exponent, distance[0:5], far, *state
    )

    x1, lost1 = _shift_right(Cat(Const(0, 2), small), distance[0:2], 1)
    x2, lost2 = _shift_right(x1, distance[2:4], 4)
    large, x2, lost, exponent, shift16, far, *state = stages.cut(
        "align", large, x2, lost1 | lost2, exponent, distance[4], far, *state
    )

    sign, subtract, nan, special, both_negative = state
    low_any = x2[0:16].any()
    sticky = lost | (low_any & (shift16 | far)) | (x2[16:].any() & far)
    aligned = Mux(far, 0, Mux(shift16, x2[16:], x2))
    total = Signal(_WIDTH + 1)
    m.d.comb += total.eq(
        Cat(Const(0, 2), large, Const(0, 1)) + (Cat(aligned, Const(0, 1)) ^ subtract.replicate(_WIDTH))
    )
    negative = subtract & ~total[_WIDTH]
    ones = subtract & ~sticky & ~negative
    total, negative, ones, sticky, exponent, sign, nan, special, both_negative = stages.cut(
        "add", total[0:_WIDTH], negative, ones, sticky, exponent, sign ^ (negative & ~special), nan, special,
        both_negative,
    )  # fmt: skip

    value = total ^ negative.replicate(_WIDTH)
    stop = _stop(exponent) if full else Const(0, _WIDTH)
    sought = value | stop if full else value
    by16 = ~sought[_WIDTH - 16 :].any()
    value = Mux(by16, _shift_left(value, 16, ones), value)
    if full:
        stop = Mux(by16, stop << 16, stop)[0:_WIDTH]
    value, stop, by16, ones, sticky, exponent, sign, nan, special, both_negative = stages.cut(
        "coarse", Mux(special, 0, value), stop, by16 & ~special, ones & ~special, sticky,
        Mux(special, (1 << width) - 1, exponent), sign, nan, special, both_negative,
    )  # fmt: skip

    sought = value | stop if full else value
    n3, n2, n1, n0 = (sought[low : low + 4].any() for low in (24, 20, 16, 12))
    by4 = Cat(~n3 & (n2 | ~n1), ~n3 & ~n2)  # 0, 1, 2, 3; of no importance for zero
    zero = ~(value[12:].any() if full else n3 | n2 | n1 | n0) & ~special
    steps = [value, *(_shift_left(value, 4 * k, ones) for k in (1, 2, 3))]
    value = Mux(by4[1], Mux(by4[0], steps[3], steps[2]), Mux(by4[0], steps[1], steps[0]))
    if full:
        stops = [stop, *((stop << 4 * k)[0:_WIDTH] for k in (1, 2, 3))]
        stop = Mux(by4[1], Mux(by4[0], stops[3], stops[2]), Mux(by4[0], stops[1], stops[0]))
        zero = (value == 0) & ~special
        sign = Mux(nan, 0, Mux(zero, both_negative, sign))
    else:
        sign = Mux(nan | zero, 0, sign)
    value, stop, by16, by4, ones, sticky, exponent, sign, nan, special = stages.cut(
        "fine", value, stop, Mux(special | zero, 0, by16), Mux(special | zero, 0, by4), ones, sticky,
        Mux(zero, 0, exponent), sign, nan, special,
    )  # fmt: skip

    top = (value | stop if full else value)[24:28]
    # leading zeros of the top nibble; 2 for none, which leaves the exponent of a zero or a special value alone
    by1 = Cat(~top[3] & ((top[2]) | (~top[1] & top[0])), ~top[3] & ~top[2])
    steps = [value, *(_shift_left(value, k, ones) for k in (1, 2, 3))]
    value = Mux(by1[1], Mux(by1[0], steps[3], steps[2]), Mux(by1[0], steps[1], steps[0]))
    last, below = value[4], value[0:4]
    up = Signal(name="round_up")
    m.d.comb += up.eq((below[3] & (below[0:3].any() | sticky | ones | last)) | (ones & last & below[0:3].all()))
    change = Array(Const((2 - 16 * (k >> 4) - 4 * (k >> 2 & 3) - (k & 3)) % (1 << width), width) for k in range(32))[
        Cat(by1, by4, by16)
    ]
    if full:
        return _pack_full(value, exponent, change, up, sign, nan, special)
    packed = Cat(up, Const(0, 22), nan, exponent) + Cat(up, value[4:27], change)
    return Cat(packed[1 : 1 + 23 + width], sign)


def _pack_full(
    value: Value, exponent: Value, change: Value, up: Value, sign: Value, nan: Value, special: Value
) -> Value:
    biased = Mux(value[27], (exponent + change)[0:8], 0)
    packed = (Cat(value[4:27], biased) + up)[0:31]
    infinite = special | (packed[23:31] == 255)
    word = Mux(infinite, Cat(Const(0, 22), nan, Const(255, 8)), packed)
    return Cat(word, sign)


def _stop(exponent: Value) -> Value:
    """A one where the leading bit of the smallest normal number would stand: the shift may go no further."""
    return ((1 << (_WIDTH - 2)) >> Mux(exponent > 31, 31, exponent)[0:5])[0:_WIDTH]


def _shift_right(value: Value, amount: Value, step: int) -> tuple[Value, Value]:
    """The value right by 0..3 steps, and whether a one fell out."""
    width = len(value)
    x = [Cat(value[k * step :], Const(0, k * step)) for k in range(4)]
    lost = [Const(0, 1), *(value[0 : k * step].any() for k in (1, 2, 3))]
    pick = [Mux(amount[1], Mux(amount[0], s[3], s[2]), Mux(amount[0], s[1], s[0])) for s in (x, lost)]
    return pick[0][0:width], pick[1]


def _shift_left(value: Value, amount: int, fill: Value) -> Value:
    return Cat(fill.replicate(amount), value[: len(value) - amount])


class Fp32Adder(CutUnit):
    """Binary32 sum, nearest even, subnormals kept; equals ``nmsat.models.golden.floats.add_bits``.

    Latency ``latency`` cycles, one sum a cycle; it follows its operands alone. NaNs are canonical; x + (-x) is +0.

    Parameters
    ----------
    latency : int
        1 to 32.

    Ports
    -----
    en : in, 1
        Clock enable: nothing moves while it is low.
    a, b : in, 32
        Binary32 bit patterns.
    y : out, 32
        Their sum.
    """

    OPERANDS: ClassVar[dict[str, Any]] = {"a": 32, "b": 32}
    CUTS = CUTS
    a: Signal
    b: Signal

    def __init__(self, *, latency: int = 8) -> None:
        super().__init__(latency=latency)

    def datapath(self, m: Module, stages: Stages) -> Value:
        """:func:`add` on both operands."""
        return add(m, stages, Addend.from_fp32(self.a), Addend.from_fp32(self.b), full=True)


class SumAdder(CutUnit):
    """The array's adder alone, on 31-bit sums (:meth:`Addend.from_sum`).

    Equals ``nmsat.models.golden.floats.add_bits`` on what contract section 3 lets happen: zeros that are +0, Inf, the
    canonical NaN, and multiples of 2^-48 whose sum stays below 2^77.

    Latency ``latency`` cycles, one sum a cycle. A result follows its operands alone.

    Parameters
    ----------
    latency : int
        1 to 32.

    Ports
    -----
    en : in, 1
        Clock enable: nothing moves while it is low.
    a, b : in, 31
        Sums.
    y : out, 31
        Their sum.
    """

    OPERANDS: ClassVar[dict[str, Any]] = {"a": SUM_BITS, "b": SUM_BITS}
    RESULT = SUM_BITS
    CUTS = CUTS
    a: Signal
    b: Signal

    def __init__(self, *, latency: int = 8) -> None:
        super().__init__(latency=latency)

    def datapath(self, m: Module, stages: Stages) -> Value:
        """:func:`add` on both operands."""
        return add(m, stages, Addend.from_sum(self.a), Addend.from_sum(self.b), full=False)
