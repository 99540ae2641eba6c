"""The transpose buffer before SORE's second direction: rows of a tile in, its columns out."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..models.errors import NmsatError
from .arithmetic.stages import registers
from .stream import PipelineControl, SkidBuffer, require


class BankControl(wiring.Component):
    """Which of two banks is filled and which is read: one tile is written while the one before is read.

    Reset empties both. Neither side waits for ever (proved, tests/test_rtl_proofs.py): a bank that is not full can be
    filled, a full one is read to its end and freed.

    Ports
    -----
    filled : in, 1
        The last row of the tile has been accepted in this cycle (only while ``can_fill``).
    stored : in, 1
        That row is in the memory from the next cycle on; follows ``filled`` by a cycle.
    freed : in, 1
        The last column of the tile is being read (only while ``can_read``).
    can_fill, can_read : out, 1
    fill_bank, read_bank : out, 1
    """

    def __init__(self) -> None:
        self.full = Signal(2)  # a bit a bank; proofs look at it
        super().__init__(
            {
                "filled": In(1),
                "stored": In(1),
                "freed": In(1),
                "can_fill": Out(1),
                "can_read": Out(1),
                "fill_bank": Out(1),
                "read_bank": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        full = self.full
        stored_bank = Signal()
        m.d.comb += [
            # A row accepted while the last column is read is written a cycle later. (Both full: the banks are one.)
            self.can_fill.eq(~full.bit_select(self.fill_bank, 1) | self.freed),
            self.can_read.eq(full.bit_select(self.read_bank, 1)),
        ]
        with m.If(self.filled):
            m.d.sync += [self.fill_bank.eq(~self.fill_bank), stored_bank.eq(self.fill_bank)]
        with m.If(self.stored):
            m.d.sync += full.bit_select(stored_bank, 1).eq(1)
        with m.If(self.freed):
            m.d.sync += [self.read_bank.eq(~self.read_bank), full.bit_select(self.read_bank, 1).eq(0)]
        return m


class Transposer(wiring.Component):
    """Tiles of up to T x T values: rows go in, columns come out, a row and a column a cycle.

    T memories of 2 T words. Value (r, c) of a tile lies in memory (r + c) mod T at address r, so that a row and a
    column each touch every memory once; one rotation before and one after put the values in place. Two banks: a tile is
    written while the one before is read. From the last row accepted to the first column at the output 5 cycles. Reset
    drops the tiles inside. Equals ``numpy.swapaxes`` of every tile (``sore_backward`` of the golden model).

    Parameters
    ----------
    size : int
        T, a power of two.

    Ports
    -----
    i : in, stream
        ``values``: T values of 16 bits, first column lowest; ``last``: this is the tile's last row (its T-th at the
        latest); ``cols``: columns of the tile, 1 to T, read with the last row.
    o : out, stream
        ``values``: a column, first row lowest, unspecified above ``rows``; ``rows``: rows of
        the tile; ``last``: this is its last column.
    """

    latency = 5

    def __init__(self, *, size: int) -> None:
        self.size = require("transposer", "size", size, 2, 256)
        if size & (size - 1):
            raise NmsatError.rule("transposer", "size", "a power of two", size)
        self.i_layout = data.StructLayout({"values": 16 * size, "last": 1, "cols": range(size + 1)})
        self.o_layout = data.StructLayout({"values": 16 * size, "rows": range(size + 1), "last": 1})
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.banks = banks = BankControl()
        sizes = Signal(
            data.ArrayLayout(data.StructLayout({"rows": self.size.bit_length(), "cols": self.size.bit_length()}), 2)
        )
        row = Signal(range(self.size))
        accepted = self.i.valid & self.i.ready
        last = self.i.payload.last | (row == self.size - 1)
        m.d.comb += [self.i.ready.eq(banks.can_fill), banks.filled.eq(accepted & last)]
        m.d.sync += banks.stored.eq(banks.filled)
        with m.If(accepted):
            m.d.sync += row.eq(Mux(last, 0, row + 1))
            with m.If(last):
                m.d.sync += [
                    sizes[banks.fill_bank].rows.eq(row + 1),
                    sizes[banks.fill_bank].cols.eq(self.i.payload.cols),
                ]
        write = registers(
            m,
            Const(1),
            "write",
            values=_rotate(self.i.payload.values, row, self.size),
            address=Cat(row, banks.fill_bank),
        )
        written = Signal()
        m.d.sync += written.eq(accepted)

        m.submodules.control = control = PipelineControl(latency=2)
        column = Signal(range(self.size))
        tile = sizes[banks.read_bank]
        ends = column + 1 >= tile.cols
        issued = banks.can_read & control.i_ready
        m.d.comb += [control.i_valid.eq(banks.can_read), banks.freed.eq(issued & ends)]
        with m.If(issued):
            m.d.sync += column.eq(Mux(ends, 0, column + 1))
        found = self._memories(m, write, written, banks.read_bank, column, control.en)
        s1 = registers(m, control.en, "s1", column=column, rows=tile.rows, last=ends)
        turned = _rotate(found, -s1.column, self.size)
        s2 = registers(m, control.en, "s2", values=turned, rows=s1.rows, last=s1.last)
        m.submodules.skid = skid = SkidBuffer(width=self.o_layout.size)
        m.d.comb += [
            skid.i.valid.eq(control.o_valid),
            control.o_ready.eq(skid.i.ready),
            skid.i.payload.eq(Cat(s2.values, s2.rows, s2.last)),
            Value.cast(self.o.payload).eq(skid.o.payload),
            self.o.valid.eq(skid.o.valid),
            skid.o.ready.eq(self.o.ready),
        ]
        return m

    def _memories(self, m: Module, write: Any, written: Value, bank: Value, column: Value, en: Value) -> Value:
        """T memories, one write and one read port each; word c of the result is of memory c, a cycle later."""
        found = []
        for number in range(self.size):
            memory = Memory(shape=16, depth=2 * self.size, init=[])
            m.submodules[f"memory{number}"] = memory
            into, out = memory.write_port(), memory.read_port()
            m.d.comb += [
                into.en.eq(written),
                into.addr.eq(write.address),
                into.data.eq(write.values[16 * number : 16 * number + 16]),
                out.en.eq(en),
                out.addr.eq(Cat((number - column)[: len(column)], bank)),
            ]
            found.append(out.data)
        return Cat(found)


def _rotate(values: Value, places: Value, size: int) -> Value:
    """Words moved up by ``places`` modulo ``size``: word k of the result is word (k - places) mod size."""
    words = [values[16 * k : 16 * k + 16] for k in range(size)]
    for stage in range((size - 1).bit_length()):
        step = 1 << stage
        words = [Mux(places[stage], words[(k - step) % size], words[k]) for k in range(size)]
    return Cat(words)
