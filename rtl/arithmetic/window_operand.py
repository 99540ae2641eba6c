"""Binary16 in the window accumulator's operand form."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, Value

OPERAND_BITS = 18


def window_operand(half: Any) -> Value:
    """The operand form of a binary16 bit pattern, combinational; equals ``nmsat.models.golden.operand``.

    Bits 0..13: significand << (e - 1) mod 4, 14..16: (e - 1) div 4, 17: sign; e of a subnormal is 1.
    """
    half = Value.cast(half)
    fraction, exponent = half[0:10], half[10:15]
    normal = exponent.any()
    place = Mux(normal, exponent - 1, 0)[0:5]
    significand = (Cat(fraction, normal) << place[0:2])[0:14]
    return Cat(significand, place[2:5], half[15])


def is_special(operand: Any) -> Value:
    """Whether an operand stands for Inf or NaN: no finite one has q = 7 and bit 12."""
    operand = Value.cast(operand)
    return operand[14:17].all() & operand[12]
