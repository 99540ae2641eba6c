"""Registers on the way from one super logic region of the card to another.

Their names begin with ``cross_``: the floorplan's constraints ask for the flip-flops of the crossings by that.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, Value

_APART = {"shreg_extract": "no"}  # a shift register in LUTs lies in one place


def crossing(m: Module, en: tuple[Value, Value], value: Any, cycles: int, name: str) -> Value:
    """``value`` so many enabled cycles later: from one half of the array to the other.

    ``en`` is the clock enable of either region; each has half of the registers, the first one more if they are odd.
    """
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"cross_{name}{stage}", attrs=_APART)
        with m.If(en[0] if 2 * stage < cycles else en[1]):
            m.d.sync += register.eq(found)
        found = register
    return found


def across(m: Module, value: Any, cycles: int, name: str, *, payload: bool = False) -> Value:
    """``value`` so many cycles later, whatever the array's clock enable.

    A part that gets all that it gets in this way, its clock enable too, does what it would do without, so many cycles
    later. ``payload``: the registers need no reset, because something else says when they count.
    """
    found = Value.cast(value)
    for stage in range(cycles):
        register = Signal(len(found), name=f"cross_{name}{stage}", reset_less=payload, attrs=_APART)
        m.d.sync += register.eq(found)
        found = register
    return found
