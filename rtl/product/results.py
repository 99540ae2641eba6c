"""The output buffer of a column: words that leave the array, partial sums that go back, and results to be stored."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..array_parameters import COUNT_BITS
from ..uspe import address_bits
from .sizes import DIMENSION_BITS


class _Place:
    """Bank, row and tile of a stream of words that fills, or reads back, one bank after the other."""

    def __init__(self, m: Module, column: Any, name: str, step: Value, tiles: Value) -> None:
        ws = column.ws
        self.bank, self.row = Signal(name=f"{name}_bank"), Signal(len(column.rows), name=f"{name}_row")
        tile, number, block = (
            Signal(bits, name=f"{name}_{what}")
            for what, bits in (("tile", COUNT_BITS), ("column", DIMENSION_BITS), ("block", DIMENSION_BITS))
        )
        low = Signal(range(max(2, column.array_rows)), name=f"{name}_low")  # OS: rows leave bottom row first
        high = Signal(len(column.rows), name=f"{name}_high")
        rows = Mux(block + 1 == column.m_blocks, column.rows_last, column.rows)
        word = Signal.like(self.row)
        m.d.comb += self.row.eq(Mux(ws, word, high + (column.array_rows - 1) - low))
        bank_end, tile_end = Signal(name=f"{name}_bank_end"), Signal(name=f"{name}_tile_end")
        m.d.comb += [tile_end.eq(step & (word + 1 == rows)), bank_end.eq(tile_end & (tile + 1 == tiles))]
        self.bank_end, self.word, self.tile, self.tile_end = bank_end, word, tile, tile_end
        with m.If(step):
            m.d.sync += word.eq(word + 1)
            with m.If(low == column.array_rows - 1):
                m.d.sync += [low.eq(0), high.eq(high + column.array_rows)]
            with m.Else():
                m.d.sync += low.eq(low + 1)
        with m.If(tile_end):
            m.d.sync += [word.eq(0), low.eq(0), high.eq(0), tile.eq(tile + 1)]
        with m.If(bank_end):
            m.d.sync += [tile.eq(0), self.bank.eq(~self.bank), number.eq(number + 1)]
            with m.If(number + 1 == column.n_tiles):
                m.d.sync += [number.eq(0), block.eq(Mux(block + 1 == column.m_blocks, 0, block + 1))]
        with m.If(column.clear):
            m.d.sync += [signal.eq(0) for signal in (self.bank, word, low, high, tile, number, block)]
        after = Mux(tile_end, 0, word + step)
        if column.os_partials:
            after = Mux(ws, after, column.array_rows - 1 - after)  # one set of R: nothing is interleaved
        self.next_row = Signal.like(self.row)
        self.next_bank = Signal(name=f"{name}_next_bank")
        m.d.comb += [self.next_row.eq(after), self.next_bank.eq(self.bank ^ bank_end)]


class OutputColumn(wiring.Component):
    """One column's two banks of sums.

    A word is stored in the cycle that gives it and read back two cycles later at the earliest, which is what the array
    leaves between k-tiles. Room is never asked for: a tile that opens a bank starts when the bank is empty.

    Parameters
    ----------
    bank_rows : int
        Words of a bank.
    array_rows : int
        R: in OS the rows of a set of R leave bottom row first.
    sum_bits : int
        Of a word: binary32, or a window's sum word.
    os_partials : bool
        Sums go back in OS, too, with interleave 1.

    Ports
    -----
    clear : in, 1
        Begin a product.
    ws, rows, rows_last, m_blocks, n_tiles, k_tiles : in
        Of the plan.
    south, south_valid : in, sum_bits and 1
        A word leaves the column.
    partial : out, sum_bits
        The next partial sum.
    partial_taken : in, 1
    read, read_enable : in
        Word of both banks to be stored; ``stored`` has it a cycle later.
    stored : out, sum_bits
    full : out, 1
        This cycle's word is the last of a bank.
    """

    clear: Signal
    ws: Signal
    rows: Signal
    rows_last: Signal
    m_blocks: Signal
    n_tiles: Signal
    k_tiles: Signal
    south: Signal
    south_valid: Signal
    partial: Signal
    partial_taken: Signal
    read: Signal
    read_enable: Signal
    stored: Signal
    full: Signal

    def __init__(self, *, bank_rows: int, array_rows: int, sum_bits: int = 32, os_partials: bool = False) -> None:
        self.bank_rows, self.array_rows = bank_rows, array_rows
        self.sum_bits, self.os_partials = sum_bits, os_partials
        rows = bank_rows.bit_length()
        super().__init__(
            {
                "clear": In(1), "ws": In(1), "rows": In(rows), "rows_last": In(rows), "m_blocks": In(DIMENSION_BITS),
                "n_tiles": In(DIMENSION_BITS), "k_tiles": In(COUNT_BITS),
                "south": In(sum_bits), "south_valid": In(1), "partial": Out(sum_bits), "partial_taken": In(1),
                "read": In(address_bits(2 * bank_rows)), "read_enable": In(1), "stored": Out(sum_bits),
                "full": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.sum_bits, depth=2 * self.bank_rows, init=[])
        write, back, out = memory.write_port(), memory.read_port(), memory.read_port()
        given = _Place(m, self, "given", self.south_valid, self.k_tiles)
        self.given = given
        returned = _Place(m, self, "returned", self.partial_taken, self.k_tiles - 1)
        m.d.comb += [
            write.addr.eq(given.row + Mux(given.bank, self.bank_rows, 0)), write.data.eq(self.south),
            write.en.eq(self.south_valid), self.full.eq(given.bank_end),
            back.addr.eq(returned.next_row + Mux(returned.next_bank, self.bank_rows, 0)), back.en.eq(1),
            self.partial.eq(back.data),
            out.addr.eq(self.read), out.en.eq(self.read_enable), self.stored.eq(out.data),
        ]  # fmt: skip
        return m
