"""The sequencer with the window accumulator: contract section 11's order of micro-operations."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ..models.window import TURNAROUND
from .array_parameters import COUNT_BITS
from .edge_ports import late
from .sequencer import Sequencer


class WindowSequencer(Sequencer):
    """As :class:`.sequencer.Sequencer`, without passes, folds and drain slots.

    A command's ``interleave`` must be 1. In OS ``first`` says that the tile's sums do not continue spilled ones.
    ``load`` says that a tile's words begin to move in the cycle after next.
    """

    def _issue_os(self, m: Module, take: Signal, final: Signal, interleave: Signal, over: Signal) -> Value:
        """Slots of a tile; the last one waits until the drain and the turnaround of the tile before allow it."""
        p, command, keep, op = self.parameters, self.command, self.keep, self.operation
        least = max(p.rows, TURNAROUND)
        busy, first = Signal(), Signal()
        groups, number, n = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal.like(keep)
        since = Signal(range(least + 1), init=least)  # cycles since the last slot of the tile before, at most ``least``
        lane_end = n == keep - 1
        final_slot = lane_end & (number + 1 == groups)
        mac = busy & ~(final_slot & (since < least))
        end = mac & final_slot
        m.d.comb += [self._os_free.eq(~busy | (end & ~final)), over.eq(end & final)]
        with m.If(since < least):
            m.d.sync += since.eq(since + 1)
        with m.If(mac):
            m.d.sync += n.eq(Mux(lane_end, 0, n + 1))
            with m.If(lane_end):
                m.d.sync += number.eq(number + 1)
        with m.If(end):
            m.d.sync += [busy.eq(0), since.eq(1)]
        with m.If(take):
            m.d.sync += [busy.eq(1), number.eq(0), n.eq(0), groups.eq(command.count), first.eq(command.first)]
        with m.If(~self.ws):
            m.d.comb += [
                op.need.eq(mac), op.take.eq(mac & lane_end), op.add.eq(mac), op.finish.eq(end),
                self.store.valid.eq(mac), self.store.all.eq(1),
            ]  # fmt: skip
        self._first = first
        return end

    def _tile_end(self, row_end: Value, rows_end: Value, active: Value, age: Value) -> Value:
        """No word may meet another at the foot, so a tile need not last whole rows; but its sums must be back."""
        done = rows_end & (row_end | ~active)
        return done & (age + 1 >= self.keep + TURNAROUND - 1)

    def _tile_place(self, n: Signal) -> Value:
        return Const(1)

    def _drain(self, m: Module, finished: Any, interleave: Signal) -> None:
        """Words move from the cycle on in which the bottom row has its sum: R of them pass the foot."""
        p = self.parameters
        begin, first = late(m, Cat(finished & ~self.ws, self._first), p.multiplier_latency + p.rows - 1, "begin")
        left, last = Signal(range(p.rows + 1)), Signal()
        m.d.comb += self.load.eq(begin)
        with m.If(begin):
            m.d.sync += [left.eq(p.rows), self.drain_first.eq(first)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.comb += [last.eq(left == 1), self.drained.eq(left != 0), self.drain_last.eq(last)]
