"""Bits of part bytes of a ReLU mask that wait for the next tile of columns, a byte a row."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..uspe import address_bits

_DEPTH = 256  # the deepest distributed memory that synthesis tools agree on


class Rests(wiring.Component):
    """A byte for every row of a bank: read at once, replaced at the end of the cycle.

    Parameters
    ----------
    rows : int

    Ports
    -----
    row : in
    rest : out, 8
    keep, enable : in, 8 and 1
        The row's new byte.
    """

    row: Signal
    rest: Signal
    keep: Signal
    enable: Signal

    def __init__(self, *, rows: int) -> None:
        self.rows = rows
        super().__init__({"row": In(address_bits(rows)), "rest": Out(8), "keep": In(8), "enable": In(1)})

    def elaborate(self, platform: Any) -> Module:
        """Memories of at most 256 rows and a choice among them."""
        m = Module()
        low, found = self.row[: _DEPTH.bit_length() - 1], []
        high = self.row[len(low) :]
        for number, first in enumerate(range(0, self.rows, _DEPTH)):
            part = Memory(shape=8, depth=min(_DEPTH, self.rows - first), init=[])
            m.submodules[f"part{number}"] = part
            read, write = part.read_port(domain="comb"), part.write_port()
            m.d.comb += [
                read.addr.eq(low), write.addr.eq(low), write.data.eq(self.keep),
                write.en.eq(self.enable & (high == number)),
            ]  # fmt: skip
            found.append(read.data)
        m.d.comb += self.rest.eq(Array(found)[high] if len(found) > 1 else found[0])
        return m
