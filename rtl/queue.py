"""A stream queue: what decouples the parts of a unit."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Shape, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from .stream import require


class Queue(wiring.Component):
    """First in, first out, in distributed memory.

    Latency 1 cycle, a word a cycle. ``i.ready`` and ``o.valid`` follow from the level alone, which is a register: a
    full queue takes nothing in the cycle in which it gives. Reset empties it.

    Parameters
    ----------
    shape : shape-like
        Of a word.
    depth : int
        Words, 1 to 4096; 2 or more for a word a cycle.

    Ports
    -----
    i : in, stream
    o : out, stream
    level : out
        Words inside.
    """

    latency = 1

    def __init__(self, shape: Any, depth: int) -> None:
        self.shape, self.depth = shape, require("queue", "depth", depth, 1, 4096)
        super().__init__(
            {"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)), "level": Out(range(depth + 1))}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=Shape.cast(self.shape).width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(Value.cast(self.i.payload)),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            Value.cast(self.o.payload).eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            self.level.eq(fifo.level),
        ]
        return m
