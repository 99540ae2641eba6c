"""The column feet with the window accumulator: lanes and the sum before them, added as they arrive."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal
from amaranth.lib import data

from .arithmetic import primitives
from .array_parameters import ArrayParameters
from .edge_ports import FootFrame, FootSequencerFrame


def window_foot_layout() -> data.StructLayout:
    """What hops from foot to foot, one column a cycle, and is obeyed at once.

    ========= =================================================================================
    arrive    the word at the foot counts
    opening   it is the first of its output
    chained   there is a previous k-tile: its sum is taken from the port with the opening word
    result    the sum is an output
    last      OS: the last of its tile
    ========= =================================================================================
    """
    return data.StructLayout({"arrive": 1, "opening": 1, "chained": 1, "result": 1, "last": 1})


class WindowFootSequencer(FootSequencerFrame):
    """A count of lanes. In OS every drained word is an output of one lane; ``first`` then says that its tile has none
    before it. ``control`` is a :func:`window_foot_layout`.
    """

    def __init__(self, *, parameters: ArrayParameters) -> None:
        super().__init__(parameters=parameters, control=window_foot_layout())

    def elaborate(self, platform: Any) -> Module:
        """A count of lanes."""
        m = Module()
        control, lane = self.control, Signal.like(self.keep)
        at = Signal.like(self.keep)
        opening = self.drained | (self.arrive & self.lane0)
        m.d.comb += at.eq(Mux(self.lane0, 0, lane))
        with m.If(self.arrive):
            m.d.sync += lane.eq(at + 1)
        closing = self.drained | (self.arrive & (at == self.keep - 1))
        m.d.sync += [control.result.eq(closing), control.last.eq(self.last)]
        m.d.comb += [
            control.arrive.eq(self.drained | self.arrive), control.opening.eq(opening),
            control.chained.eq(opening & ~self.first),
        ]  # fmt: skip
        return EnableInserter(self.en)(m)


class WindowFoot(FootFrame):
    """Golden function: ``nmsat.models.golden.WindowSums.__add__``. Sums are sum words; ``ws`` is not used.

    A word a cycle; the sum is an output one cycle after its last word. Of a flagged one only the two highest bits mean
    something. Reset ends all activity; the sum keeps its contents.
    """

    def __init__(self, *, parameters: ArrayParameters) -> None:
        super().__init__(parameters=parameters, control=window_foot_layout())

    def elaborate(self, platform: Any) -> Module:
        """One adder and its register."""
        m = Module()
        p, control, bits = self.parameters, self.control_i, self.parameters.sum_bits
        m.d.sync += self.control_o.eq(control)
        total, flagged = Signal(bits, reset_less=True), Signal(reset_less=True)
        started = control.opening & ~control.chained
        before = Mux(control.opening, self.partial, total) & ~started.replicate(bits)
        before_flag = Mux(control.opening, control.chained & self.partial[bits - 1] & ~self.partial[bits - 2], flagged)
        width = p.element_bits - 1
        word = Cat(self.word[0:width], self.word[width - 1].replicate(bits - width))
        after = primitives.add(m, platform, "adder", word, before, Const(0, 1))
        with m.If(control.arrive):
            m.d.sync += [total.eq(after), flagged.eq(before_flag | self.word[width])]
        m.d.comb += [
            self.need.eq(control.chained),
            self.output.eq(Cat(total[0 : bits - 2], total[bits - 2] & ~flagged, total[bits - 1] | flagged)),
            self.valid.eq(control.result),
        ]
        return EnableInserter(self.en)(m)
