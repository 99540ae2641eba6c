"""West edge of a row with the window accumulator: operand conversion, and what its elements do when."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, EnableInserter, Module, Signal

from .arithmetic.window_operand import OPERAND_BITS, window_operand
from .array_parameters import ArrayParameters
from .edge_ports import RowEdgeFrame, late
from .window_uspe import window_control_layout


class WindowRowEdge(RowEdgeFrame):
    """The operation reaches the next row a cycle later in both dataflows.

    The drain register of an element takes its sum when the last product is added, r cycles later in row r than in row
    0, and holds it until the bottom row has its own. ``load``: the words of a tile begin to move south in the cycle
    after next, in all rows. ``load_at`` is not used.
    """

    def __init__(self, *, parameters: ArrayParameters) -> None:
        control = window_control_layout(parameters.weight_depth)
        super().__init__(parameters=parameters, operand_bits=OPERAND_BITS, control=control)

    def elaborate(self, platform: Any) -> Module:
        """Delays and converters."""
        m = Module()
        p, op, control = self.parameters, self.operation_i, self.control
        m.d.sync += [self.operation_o.eq(op), self.store_o.eq(self.store_i)]
        words = [self.payload.word_select(place, 16) for place in range(p.max_group)]
        added = late(m, Cat(op.add, op.finish), p.multiplier_latency - 1, "add")
        at_foot = late(m, Cat(op.lane, op.lane0, op.first), p.multiplier_latency + 1, "foot")
        holding = Signal()
        m.d.sync += holding.eq(added[1] | (holding & ~self.load))
        m.d.comb += [
            self.need.eq(op.need), self.take.eq(op.take), self.group.eq(Cat(window_operand(word) for word in words)),
            control.store.eq(self.store_i.valid & (self.store_i.all | (self.store_i.row == self.number))),
            control.store_at.eq(self.store_i.store_at), control.weight.eq(op.weight),
            Cat(control.add, control.finish).eq(added), control.through.eq(self.ws | added[1]),
            control.hold.eq(holding & ~self.load & ~self.ws),
            Cat(self.arrive, self.lane0, self.first).eq(at_foot),
        ]  # fmt: skip
        return EnableInserter(self.en)(m)
