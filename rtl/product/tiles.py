"""Commands of the array: every tile of a product, in the order of its operands."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..array_parameters import COUNT_BITS
from ..descriptor import DESCRIPTOR_BITS
from ..sequencer import command_layout
from .plan import PRODUCT, plan_layout, tile_groups
from .sizes import DIMENSION_BITS, Sizes

BANKS = 2


class Tiles(wiring.Component):
    """For every repeat, block of rows and tile of columns: one tile (OS), or one a k-tile (WS, and OS where a
    window's sums spill). All are one sequence.

    The tiles of one block of rows and tile of columns fill a bank of the output buffer; the first of them waits until
    a bank is free.

    Ports
    -----
    start : in, 1
    command : out, stream of :func:`..sequencer.command_layout`
    stored : in, 1
        A bank was emptied.
    waits : out, 1
        A tile waits for a bank.
    """

    start: Signal
    descriptor: Signal
    plan: Any
    command: Any
    stored: Signal
    waits: Signal

    def __init__(self, *, sizes: Sizes) -> None:
        self.sizes = sizes
        super().__init__(
            {
                "start": In(1), "descriptor": In(DESCRIPTOR_BITS), "plan": In(plan_layout(sizes)),
                "command": Out(stream.Signature(command_layout(sizes.array))), "stored": In(1), "waits": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        plan, d, command = self.plan, data.View(PRODUCT, self.descriptor), self.command.payload
        active, used = Signal(), Signal(range(BANKS + 1))
        repeat, block, column = (Signal(DIMENSION_BITS, name=name) for name in ("repeat", "block", "column"))
        k_tile = Signal(COUNT_BITS)
        last_k, last_n, last_m = k_tile + 1 == plan.k_tiles, column + 1 == plan.n_tiles, block + 1 == plan.m_blocks
        last = last_k & last_n & last_m & (repeat + 1 == d.count)
        opens, taken = k_tile == 0, Signal()
        groups = tile_groups(self.sizes, plan, last_k)
        m.d.comb += [
            self.command.valid.eq(active & (~opens | (used != BANKS))),
            taken.eq(self.command.valid & self.command.ready),
            self.waits.eq(active & opens & (used == BANKS)),
            command.ws.eq(plan.ws), command.last.eq(last), command.first.eq(opens), command.keep.eq(plan.keep),
            command.interleave.eq(plan.interleave),
            command.count.eq(Mux(plan.ws, Mux(last_m, plan.rows_last, plan.rows), groups)),
        ]  # fmt: skip
        m.d.sync += used.eq(used + (taken & opens) - self.stored)
        with m.If(taken):
            m.d.sync += k_tile.eq(Mux(last_k, 0, k_tile + 1))
            with m.If(last_k):
                m.d.sync += column.eq(Mux(last_n, 0, column + 1))
                with m.If(last_n):
                    m.d.sync += block.eq(Mux(last_m, 0, block + 1))
                    with m.If(last_m):
                        m.d.sync += repeat.eq(repeat + 1)
            with m.If(last):
                m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += [active.eq(1), *(signal.eq(0) for signal in (used, repeat, block, column, k_tile))]
        return m
