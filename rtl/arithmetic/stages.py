"""Pipeline registers: what every fixed-latency unit is made of."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value


def registers(m: Module, enable: Any, stage: str, **values: Any) -> SimpleNamespace:
    """One stage of registers, loaded while ``enable`` is high; each is named ``<stage>_<name>``, sized like its value.

    They are not reset: what they hold before the first word has passed is never said to be valid.
    """
    found = SimpleNamespace()
    with m.If(enable):
        for name, value in values.items():
            value = Value.cast(value)
            register = Signal(value.shape(), name=f"{stage}_{name}", reset_less=True)
            m.d.sync += register.eq(value)
            setattr(found, name, register)
    return found


def delay(m: Module, enable: Any, name: str, value: Any, cycles: int) -> Value:
    """``value`` as it was ``cycles`` enabled cycles ago, through registers without reset (shift-register LUTs)."""
    found = Value.cast(value)
    for step in range(cycles):
        register = Signal(found.shape(), name=f"{name}_{step + 1}", reset_less=True)
        with m.If(enable):
            m.d.sync += register.eq(found)
        found = register
    return found


def normalise(m: Module, value: Value, name: str) -> tuple[Value, Value]:
    """Leading zeros of ``value`` and ``value`` shifted left by them, by halves: the count of zero is meaningless."""
    width = len(value)
    counts: list[Signal] = []
    current = value
    for place in reversed(range((width - 1).bit_length())):
        step = 1 << place
        clear = Signal(name=f"{name}_clear{step}")
        shifted = Signal(width, name=f"{name}_by{step}")
        m.d.comb += [
            clear.eq(~current[width - step :].any()),
            shifted.eq(Mux(clear, Cat(Const(0, step), current[: width - step]), current)),
        ]
        counts.insert(0, clear)
        current = shifted
    return Cat(*counts), current
