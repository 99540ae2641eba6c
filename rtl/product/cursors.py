"""Cursors of nested loops: counters that advance, go back to where a loop began, or begin again."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value


class Act(IntEnum):
    """What a cursor does when a run is taken."""

    HOLD = 0
    NEXT = 1
    BACK = 2  # to where its loop began
    ENTER = 3  # next, and its loop begins there
    ZERO = 4  # its loop begins at zero


class Cursor:
    """Counters that move together: their values, where their loop began, and what comes next.

    Parameters
    ----------
    m : Module
    act : Value
        :class:`Act`.
    widths : dict
        Name to bits.
    """

    def __init__(self, m: Module, act: Value, name: str, widths: dict[str, int]) -> None:
        self.now = {key: Signal(bits, name=f"{name}_{key}") for key, bits in widths.items()}
        self.begin = {key: Signal(bits, name=f"{name}_{key}_begin") for key, bits in widths.items()}
        self.next = {key: Signal(bits, name=f"{name}_{key}_next") for key, bits in widths.items()}
        with m.Switch(act):
            with m.Case(Act.NEXT):
                m.d.sync += [self.now[key].eq(self.next[key]) for key in widths]
            with m.Case(Act.BACK):
                m.d.sync += [self.now[key].eq(self.begin[key]) for key in widths]
            with m.Case(Act.ENTER):
                m.d.sync += [self.now[key].eq(self.next[key]) for key in widths]
                m.d.sync += [self.begin[key].eq(self.next[key]) for key in widths]
            with m.Case(Act.ZERO):
                m.d.sync += [signal.eq(0) for key in widths for signal in (self.now[key], self.begin[key])]

    def __getitem__(self, key: str) -> Signal:
        return self.now[key]


def count_pixels(m: Module, cursor: Cursor, d: Any) -> None:
    """The next of (image, oy, ox): pixels of an output plane, image by image."""
    right, down = Signal(), Signal()
    m.d.comb += [
        right.eq(cursor["ox"] + 1 == d.out_w), down.eq(right & (cursor["oy"] + 1 == d.out_h)),
        cursor.next["ox"].eq(Mux(right, 0, cursor["ox"] + 1)),
        cursor.next["oy"].eq(Mux(down, 0, cursor["oy"] + right)),
        cursor.next["image"].eq(cursor["image"] + down),
    ]  # fmt: skip


class Repeats:
    """Elements from an operand's address to its repeat: (r mod inner) * repeat + (r div inner) * outer.

    Parameters
    ----------
    step, clear : Value
        Go to the next repeat; begin.
    """

    def __init__(self, m: Module, d: Any, side: str, step: Value, clear: Value, bits: int) -> None:
        self.start, outer = Signal(bits, name=f"{side}_start"), Signal(bits, name=f"{side}_outer")
        number, inner = Signal(len(d.count), name=f"{side}_repeat"), Signal(len(d.count), name=f"{side}_inner")
        self.last = Signal(name=f"{side}_last_repeat")
        m.d.comb += self.last.eq(number + 1 == d.count)
        with m.If(clear):
            m.d.sync += [signal.eq(0) for signal in (self.start, outer, number, inner)]
        with m.Elif(step):
            m.d.sync += number.eq(number + 1)
            with m.If(inner + 1 == d.inner):
                m.d.sync += [
                    inner.eq(0), outer.eq(outer + d[f"{side}_outer"]), self.start.eq(outer + d[f"{side}_outer"]),
                ]  # fmt: skip
            with m.Else():
                m.d.sync += [inner.eq(inner + 1), self.start.eq(self.start + d[f"{side}_repeat"])]
