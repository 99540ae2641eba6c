"""Index fields of a segment to its mask: which weights the forward copy of this step kept."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .update_parameters import COUNT, PATTERN, TILE, UpdateParameters


def index_layout(parameters: UpdateParameters) -> data.StructLayout:
    """A segment's index fields, the first lowest, and how many groups they are of."""
    return data.StructLayout({"indices": parameters.index_bits, "groups": COUNT})


class MaskExpander(wiring.Component):
    """A group a cycle: N indices of log2 M bits become M mask bits.

    A segment of n groups is offered n + 1 cycles after it was taken and the next is taken a cycle after it left. Reset
    drops the segment inside.

    Parameters
    ----------
    parameters : UpdateParameters

    Ports
    -----
    pattern : in
        N:M, steady while segments are inside.
    i : in, stream of :func:`index_layout`
        At least one group.
    o : out, stream of TILE bits
        A bit a weight, the first lowest, 0 after the last group.
    """

    def __init__(self, parameters: UpdateParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "pattern": In(PATTERN),
                "i": In(stream.Signature(index_layout(parameters))),
                "o": Out(stream.Signature(TILE)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, pattern = self.parameters, self.pattern
        fields = Signal(p.index_bits, reset_less=True)
        groups_left, place, held, mask = Signal(COUNT), Signal(range(TILE + 1)), Signal(), Signal(TILE)
        found = Signal(p.max_group)
        with m.Switch(pattern.shift):
            for width in range(1, p.max_group.bit_length()):
                with m.Case(width):
                    m.d.comb += found.eq(self._kept(fields, pattern.keep, width))
        following = Signal(p.index_bits)
        with m.Switch(pattern.index_bytes):
            for size in range(1, min(p.index_bits // 8, 20) + 1):
                with m.Case(size):
                    m.d.comb += following.eq(fields[8 * size :])
        m.d.comb += [
            self.i.ready.eq(~held),
            self.o.valid.eq(held & (groups_left == 0)),
            self.o.payload.eq(mask),
        ]
        with m.If(~held), m.If(self.i.valid):
            m.d.sync += [
                fields.eq(self.i.payload.indices),
                groups_left.eq(self.i.payload.groups),
                held.eq(1),
                place.eq(0),
                mask.eq(0),
            ]
        with m.Elif(groups_left != 0):
            m.d.sync += [
                fields.eq(following),
                groups_left.eq(groups_left - 1),
                mask.eq(mask | (found << place)[:TILE]),
                place.eq(place + (1 << pattern.shift)),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += held.eq(0)
        return m

    def _kept(self, fields: Any, keep: Any, width: int) -> Any:
        """Mask of the first group whose indices have ``width`` bits."""
        bits = Const(0, 1 << width)
        for number in range(min(self.parameters.max_keep, 1 << width)):
            index = fields[width * number : width * (number + 1)]
            bits = bits | Mux(number < keep, Cat(index == i for i in range(1 << width)), 0)
        return bits
