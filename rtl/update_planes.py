"""Binary16 vectors through SORE: planes to be written, or the indices that say what was kept."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .queue import Queue
from .remote import RemoteEngine
from .sore import Sore
from .update_mask import index_layout
from .update_parameters import COUNT, PATTERN, TILE, VECTOR, UpdateParameters

PLANES = data.StructLayout({"pattern": PATTERN, "values": 64, "indices": 64})
"""A compressed copy: its N:M, the addresses of its planes."""
TAG_DEPTH = 16


class Source(IntEnum):
    """Where a vector comes from, the most urgent first."""

    DENSE = 0  # read from memory: to find the mask, or to prune it
    COLUMN = 1  # backward copy
    ROW = 2  # forward copy


class PlaneMaker(wiring.Component):
    """Vectors of up to TILE values are cut into groups, ``sore_lanes`` a cycle, and what SORE gives is put together.

    One :class:`.sore.Sore` serves all three sources, a vector at a time; of those that wait the first in
    :class:`Source`'s order goes next. A vector of g groups holds the entry for 1 + ceil(g / lanes) cycles and the exit
    for ceil(g / lanes) + 2 cycles (+ 1 where dense: no index plane). Reset drops the vectors inside.

    Parameters
    ----------
    parameters : UpdateParameters

    Ports
    -----
    planes_dense, planes_column, planes_row : in
        Pattern and addresses of what becomes of each source, steady while vectors are inside.
    find_mask : in, 1
        Vectors of DENSE only say which places are kept: to ``mask``, not to ``packet``.
    dense, column, row : in, streams of VECTOR
        ``offset``: of a column the number of its first group, else of its first value.
    packet : out, stream of ``parameters.packet``
        The values of a vector, then its indices.
    mask : out, stream of ``MaskExpander.i``
    nan : out, 1
        A group with a NaN leaves SORE in this cycle.
    busy : out, 1
        Vectors are inside.
    """

    def __init__(self, parameters: UpdateParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                **{f"planes_{name}": In(PLANES) for name in ("dense", "column", "row")},
                "find_mask": In(1),
                **{name: In(stream.Signature(VECTOR)) for name in ("dense", "column", "row")},
                "packet": Out(stream.Signature(parameters.packet)),
                "mask": Out(stream.Signature(index_layout(parameters))),
                "nan": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p = self.parameters
        sore: Any = Sore(lanes=p.sore_lanes, max_keep=p.max_keep, max_group=p.max_group)
        m.submodules.sore = sore = RemoteEngine(engine=sore, hop=p.hop) if p.hop else sore
        tag = data.StructLayout({"source": 2, "groups": COUNT, "place": 32})
        m.submodules.tags = tags = Queue(tag, TAG_DEPTH)
        entering = self._enter(m, sore, tags)
        leaving = self._leave(m, sore, tags)
        m.d.comb += self.busy.eq(entering | tags.o.valid | leaving)
        return m

    def _enter(self, m: Module, sore: Any, tags: Any) -> Any:
        """Choose a vector, then feed its groups."""
        p = self.parameters
        values, left, held = Signal(16 * TILE, reset_less=True), Signal(COUNT), Signal()
        pattern = Signal(PATTERN)
        free = ~held & tags.i.ready
        streams = {Source.DENSE: self.dense, Source.COLUMN: self.column, Source.ROW: self.row}
        planes = {Source.DENSE: self.planes_dense, Source.COLUMN: self.planes_column, Source.ROW: self.planes_row}
        ready = free
        for source, waiting in streams.items():
            m.d.comb += waiting.ready.eq(ready)
            chosen = planes[source].pattern
            with m.If(ready & waiting.valid):
                groups = waiting.payload.count >> chosen.shift
                place = waiting.payload.offset
                m.d.comb += [
                    tags.i.valid.eq(1),
                    tags.i.payload.source.eq(source),
                    tags.i.payload.groups.eq(groups),
                    tags.i.payload.place.eq(place if source is Source.COLUMN else place >> chosen.shift),
                ]
                m.d.sync += [values.eq(waiting.payload.values), left.eq(groups), held.eq(1), pattern.eq(chosen)]
            ready = ready & ~waiting.valid
        last = left <= p.sore_lanes
        word = sore.i.payload
        m.d.comb += [
            sore.i.valid.eq(held),
            word.values.eq(values),
            word.groups.eq(Mux(last, left, p.sore_lanes)),
            word.keep.eq(pattern.keep),
            word.group.eq(1 << pattern.shift),
        ]
        with m.If(held & sore.i.ready):
            m.d.sync += [left.eq(left - p.sore_lanes), held.eq(~last)]
            with m.Switch(pattern.shift):
                for shift in range(p.max_group.bit_length()):
                    with m.Case(shift):
                        m.d.sync += values.eq(values >> (16 * p.sore_lanes << shift))
        return held

    def _leave(self, m: Module, sore: Any, tags: Any) -> Any:
        """Put a vector's groups together, then offer them: values, then indices; or the indices for the mask."""
        p = self.parameters
        layout = p.packet
        values, indices = Signal(16 * TILE, reset_less=True), Signal(p.index_bits, reset_less=True)
        got, full, second = Signal(COUNT), Signal(), Signal()
        tag, word = tags.o.payload, sore.o.payload
        planes = Signal(PLANES)
        with m.Switch(tag.source):
            for source, found in (
                (Source.DENSE, self.planes_dense), (Source.COLUMN, self.planes_column), (Source.ROW, self.planes_row)
            ):  # fmt: skip
                with m.Case(source):
                    m.d.comb += planes.eq(found)
        keep, field = planes.pattern.keep, planes.pattern.index_bytes
        m.d.comb += [sore.o.ready.eq(~full), self.nan.eq(sore.o.valid & ~full & word.nan)]
        with m.If(sore.o.valid & ~full):
            total = got + word.groups
            m.d.sync += [
                _put(values, word.values, got * keep, 16),
                _put(indices, word.indices, got * field, 8),
                full.eq(total == tag.groups),
                got.eq(Mux(total == tag.groups, 0, total)),
            ]
        to_mask = self.find_mask & (tag.source == Source.DENSE)
        groups = tag.groups
        out = self.packet.payload
        m.d.comb += [
            self.mask.valid.eq(full & to_mask),
            self.mask.payload.indices.eq(indices),
            self.mask.payload.groups.eq(groups),
            self.packet.valid.eq(full & ~to_mask),
            out.address.eq(Mux(second, planes.indices + tag.place * field, planes.values + (tag.place * keep << 1))),
            out.bytes.eq(Mux(second, groups * field, groups * keep << 1)),
            out.payload.eq(Mux(second, indices, values)),
        ]
        assert layout.size >= p.index_bits
        ends = Signal()
        with m.If(to_mask):
            m.d.comb += ends.eq(self.mask.valid & self.mask.ready)
        with m.Elif(self.packet.valid & self.packet.ready):
            m.d.comb += ends.eq(second | (field == 0))
            m.d.sync += second.eq(~ends)
        m.d.comb += tags.o.ready.eq(ends)
        with m.If(ends):
            m.d.sync += full.eq(0)
        return full


def _put(target: Any, value: Any, units: Any, unit: int) -> Any:
    """Bits of ``target`` from ``units * unit`` on become ``value``; those below stay. Units of a power of two bits."""
    size = len(target)
    place = units[: (size // unit).bit_length()]
    steps, shifted, low = unit, value, Const(0, size)
    for bit in place:
        shifted = Mux(bit, shifted.shift_left(steps), shifted)[:size]
        low = Mux(bit, low.shift_left(steps) | ((1 << steps) - 1), low)[:size]
        steps *= 2
    return target.eq((target & low) | shifted)
