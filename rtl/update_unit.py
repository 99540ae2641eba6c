"""The update unit: UPDATE and PRUNE descriptors, from memory to memory."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import RULE
from ..models.accelerator import Accelerator
from .memory_port import MemoryFault, ReadClient, WriteClient
from .queue import Queue
from .registers import Code
from .remote import RemoteEngine
from .transposer import Transposer
from .update_mask import MaskExpander
from .update_parameters import ROW, TILE, UpdateParameters
from .update_planes import PlaneMaker
from .update_read import UpdateReader
from .update_setup import PLAN, UpdateSetup
from .update_walk import ColumnWalker, RowWalker
from .update_write import UpdateWriter
from .wuve import Wuve

DONE = data.StructLayout({"status": 8})
MASKS = 4  # masks that selection may be ahead of the weights
_LEAST_SCALE, _LARGEST_SCALE = (int(np.array(2.0**e, np.float32).view(np.uint32)) >> 23 for e in (-126, 126))


class UpdateUnit(wiring.Component):
    """Weight update with pre-generation of both compressed copies, and pruning of a dense operand.

    Weights are read in segments of 32 (128 bytes of w32, of v32, of the gradient), updated by :class:`.wuve.Wuve`, and
    written: w32, v32, the dense binary16 copy, the forward copy (groups along a row, :class:`.sore.Sore`), the backward
    copy (tiles of 32 rows by 32 columns through :class:`.transposer.Transposer`, then the same SORE). Reading,
    computing and writing are decoupled by queues. Equals :func:`nmsat.simulator.executor.update.run_update` and
    ``run_prune``; cycles are those of :mod:`nmsat.simulator.machine.update`.

    One descriptor at a time. A descriptor that is not executed is answered without a write. After a memory fault or a
    NaN (in weights to be pruned) the descriptor runs to its end, so that everything asked for is drained; what it wrote
    is then not specified. Reset drops everything; the memory ports must be reset with it.

    Parameters
    ----------
    parameters : UpdateParameters

    Ports
    -----
    start : in, stream of 2048-bit descriptors
    done : out, stream of ``status``
        :data:`.registers.Code`.
    read, write : ReadClient, WriteClient
    """

    def __init__(self, parameters: UpdateParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "start": In(stream.Signature(2048)),
                "done": Out(stream.Signature(DONE)),
                "read": Out(ReadClient(parameters.data_bits)),
                "write": Out(WriteClient(parameters.data_bits)),
            }
        )

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> UpdateUnit:
        """The unit of an accelerator."""
        return cls(UpdateParameters.from_accelerator(accelerator))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p = self.parameters
        m.submodules.setup = setup = UpdateSetup(p)
        m.submodules.rows = walker = RowWalker()
        m.submodules.reader = reader = UpdateReader(p)
        m.submodules.expander = expander = MaskExpander(p)
        m.submodules.masks = masks = Queue(TILE, MASKS)
        wuve: Any = Wuve(lanes=p.wuve_lanes)
        m.submodules.wuve = wuve = RemoteEngine(engine=wuve, hop=p.hop) if p.hop else wuve
        m.submodules.planes = planes = PlaneMaker(p)
        m.submodules.transposer = transposer = Transposer(size=TILE)
        m.submodules.columns = columns = ColumnWalker()
        m.submodules.writer = writer = UpdateWriter(p)
        m.submodules.row_queue = row_queue = Queue(ROW, 2)
        plan = Signal(PLAN, reset_less=True)
        begin = Signal()
        m.d.comb += setup.start.payload.eq(self.start.payload)
        wiring.connect(m, reader.memory, wiring.flipped(self.read))
        wiring.connect(m, writer.memory, wiring.flipped(self.write))
        wiring.connect(m, walker.segment, reader.segment)
        wiring.connect(m, expander.o, masks.i)
        m.d.comb += [
            walker.start.eq(begin), columns.start.eq(begin),
            walker.geometry.eq(plan.geometry), columns.geometry.eq(plan.geometry),
            reader.sources.eq(plan.sources), reader.mask_pattern.eq(plan.mask), expander.pattern.eq(plan.mask),
            planes.planes_dense.eq(plan.planes_dense), planes.planes_column.eq(plan.planes_column),
            planes.planes_row.eq(plan.planes_row), planes.find_mask.eq(plan.find_mask),
            writer.w32_address.eq(plan.sources.w32), writer.v32_address.eq(plan.sources.v32),
        ]  # fmt: skip
        self._vectors(m, plan, reader, planes, expander, masks)
        self._weights(m, plan, reader, masks, wuve)
        self._collect(m, wuve, reader, writer, row_queue)
        retired = self._rows(m, plan, row_queue, writer, planes, transposer)
        tiles = self._columns(m, transposer, columns, planes)
        segments = Signal(8)
        entered = reader.segment.valid & reader.segment.ready
        left = Mux(plan.update, retired, planes.dense.valid & planes.dense.ready)
        m.d.sync += segments.eq(segments + entered - left)
        working = walker.busy | (segments != 0) | (tiles != 0) | planes.busy | writer.busy
        self._control(m, plan, setup, reader, wuve, begin, working, self._faults(m, reader, writer, planes))
        return m

    def _vectors(self, m: Module, plan: Any, reader: Any, planes: Any, expander: Any, masks: Any) -> None:
        """Dense vectors to SORE, index fields to the mask. Selection runs ahead by as many masks as can be held."""
        ahead = Signal(range(MASKS + 1))
        held = plan.find_mask & (ahead == MASKS)
        vector = reader.vector
        m.d.comb += [
            planes.dense.payload.eq(vector.payload),
            planes.dense.valid.eq(vector.valid & ~plan.sources.indices & ~held),
            expander.i.payload.indices.eq(
                Mux(plan.sources.indices, vector.payload.values, planes.mask.payload.indices)
            ),
            expander.i.payload.groups.eq(
                Mux(plan.sources.indices, vector.payload.count >> plan.mask.shift, planes.mask.payload.groups)
            ),
            expander.i.valid.eq(Mux(plan.sources.indices, vector.valid, planes.mask.valid)),
            vector.ready.eq(Mux(plan.sources.indices, expander.i.ready, planes.dense.ready & ~held)),
            planes.mask.ready.eq(expander.i.ready & ~plan.sources.indices),
        ]
        entered = plan.find_mask & planes.dense.valid & planes.dense.ready
        left = plan.find_mask & masks.o.valid & masks.o.ready
        m.d.sync += ahead.eq(ahead + entered - left)

    def _weights(self, m: Module, plan: Any, reader: Any, masks: Any, wuve: Any) -> None:
        """Slices of a segment and of its mask to WUVE."""
        lanes, word, into = self.parameters.wuve_lanes, reader.weights.payload, wuve.i.payload
        there = masks.o.valid | ~plan.mask_on
        mask = Mux(plan.mask_on, masks.o.payload, (1 << TILE) - 1)
        m.d.comb += [
            wuve.i.valid.eq(reader.weights.valid & there),
            reader.weights.ready.eq(wuve.i.ready & there),
            *(into[name].eq(word[name]) for name in "gwv"),
            into.mask.eq(mask.word_select(word.number, lanes)),
            masks.o.ready.eq(reader.weights.valid & wuve.i.ready & word.last),
        ]

    def _collect(self, m: Module, wuve: Any, reader: Any, writer: Any, row_queue: Any) -> None:
        """Words of WUVE to memory words of weights and momenta, and to the row of binary16 weights."""
        p, tag, word = self.parameters, reader.tag, wuve.o
        number = Signal(range(TILE // p.wuve_lanes))
        last, word_done, taken = Signal(), Signal(), Signal()
        place = number[: p.slices.bit_length() - 1]
        ready = tag.valid & row_queue.i.ready & writer.segment.ready
        for name in ("w32", "v32"):
            queue = Queue(p.data_bits, 2 * p.run_words)
            m.submodules[name] = queue
            ready = ready & queue.i.ready
            so_far, full = Signal(p.data_bits, name=f"{name}_so_far"), Signal(p.data_bits, name=f"{name}_word")
            m.d.comb += full.eq(so_far)
            if p.slices > 1:
                m.d.comb += full.word_select(place, 32 * p.wuve_lanes).eq(word.payload[name])
            else:
                m.d.comb += full.eq(word.payload[name])
            m.d.comb += [queue.i.payload.eq(full), queue.i.valid.eq(taken & word_done)]
            with m.If(taken):
                m.d.sync += so_far.eq(full)
            wiring.connect(m, queue.o, getattr(writer, name))
        row_so_far, row = Signal(16 * TILE), Signal(16 * TILE)
        m.d.comb += row.eq(row_so_far)
        m.d.comb += row.word_select(number, 16 * p.wuve_lanes).eq(word.payload.w16)
        m.d.comb += [
            word.ready.eq(ready),
            taken.eq(word.valid & ready),
            last.eq((number + 1) * p.wuve_lanes >= tag.payload.count),
            word_done.eq(last | place.all() if p.slices > 1 else Const(1)),
            tag.ready.eq(taken & last),
            writer.segment.valid.eq(taken & last),
            writer.segment.payload.eq(tag.payload),
            row_queue.i.valid.eq(taken & last),
            row_queue.i.payload.values.eq(row),
            *(row_queue.i.payload[name].eq(tag.payload[name]) for name in ("offset", "count", "last_row")),
        ]
        with m.If(taken):
            m.d.sync += [row_so_far.eq(row), number.eq(Mux(last, 0, number + 1))]

    def _rows(self, m: Module, plan: Any, row_queue: Any, writer: Any, planes: Any, transposer: Any) -> Value:
        """A row to its dense copy, to its forward groups and into its tile, each when there is room."""
        row, there = row_queue.o.payload, row_queue.o.valid
        served = Signal(3)
        packet = writer.packet
        m.d.comb += [
            packet.valid.eq(planes.packet.valid | (there & plan.dense_copy & ~served[0])),
            planes.packet.ready.eq(packet.ready),
            planes.row.payload.values.eq(row.values),
            planes.row.payload.count.eq(row.count),
            planes.row.payload.offset.eq(row.offset),
            planes.row.valid.eq(there & plan.forward & ~served[1]),
            transposer.i.payload.values.eq(row.values),
            transposer.i.payload.last.eq(row.last_row),
            transposer.i.payload.cols.eq(row.count),
            transposer.i.valid.eq(there & plan.tiled & ~served[2]),
        ]
        with m.If(planes.packet.valid):
            m.d.comb += packet.payload.eq(planes.packet.payload)
        with m.Else():
            m.d.comb += [
                packet.payload.address.eq(plan.dense_address + (row.offset << 1)),
                packet.payload.bytes.eq(row.count << 1),
                packet.payload.payload.eq(row.values),
            ]
        now = (
            ~plan.dense_copy | (packet.ready & ~planes.packet.valid),
            ~plan.forward | planes.row.ready,
            ~plan.tiled | transposer.i.ready,
        )
        after = Signal(3)
        m.d.comb += [after[place].eq(served[place] | (there & done)) for place, done in enumerate(now)]
        m.d.comb += row_queue.o.ready.eq(after.all())
        m.d.sync += served.eq(Mux(after.all(), 0, after))
        return there & after.all()

    def _columns(self, m: Module, transposer: Any, columns: Any, planes: Any) -> Value:
        """Columns of a tile to their groups; the tiles inside."""
        column = transposer.o
        m.d.comb += [
            planes.column.payload.values.eq(column.payload.values),
            planes.column.payload.count.eq(column.payload.rows),
            planes.column.payload.offset.eq(columns.place),
            planes.column.valid.eq(column.valid),
            column.ready.eq(planes.column.ready),
            columns.taken.eq(column.valid & column.ready),
        ]
        tiles = Signal(3)
        entered = transposer.i.valid & transposer.i.ready & transposer.i.payload.last
        m.d.sync += tiles.eq(tiles + entered - (columns.taken & column.payload.last))
        return tiles

    def _faults(self, m: Module, reader: Any, writer: Any, planes: Any) -> Any:
        """Worst faults since the descriptor began."""
        faults = Signal(data.StructLayout({"read": 2, "write": 2, "nan": 1}))
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += faults.eq(0)
        with m.Else():
            with m.If(reader.error > faults.read):
                m.d.sync += faults.read.eq(reader.error)
            with m.If(writer.error > faults.write):
                m.d.sync += faults.write.eq(writer.error)
            with m.If(planes.nan):
                m.d.sync += faults.nan.eq(1)
        return faults

    def _control(
        self, m: Module, plan: Any, setup: Any, reader: Any, wuve: Any, begin: Any, working: Any, faults: Any
    ) -> None:
        rule = Signal(data.StructLayout(dict.fromkeys(RULE, 32)), reset_less=True)
        m.d.comb += [getattr(wuve.rule, name).eq(rule[name]) for name in RULE[:4]]
        m.d.comb += wuve.rule.loss_power.eq((127 - rule.loss_scale[23:31])[:8].as_signed())
        status = Signal(8)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    setup.plan.ready.eq(1),
                    setup.start.valid.eq(self.start.valid),
                    self.start.ready.eq(setup.start.ready),
                ]
                with m.If(setup.plan.valid):
                    m.d.sync += [plan.eq(setup.plan.payload), status.eq(setup.plan.payload.status)]
                    m.next = "ASK"
                    with m.If((setup.plan.payload.status != Code.OK) | setup.plan.payload.idle):
                        m.next = "DONE"
                    with m.Elif(~setup.plan.payload.update):
                        m.next = "BEGIN"
            with m.State("ASK"):
                m.d.comb += reader.fetch_rule.eq(1)
                m.next = "RULE"
            with m.State("RULE"):
                m.d.comb += reader.rule.ready.eq(1)
                with m.If(reader.rule.valid):
                    m.d.sync += rule.eq(reader.rule.payload)
                    m.next = "RULE CHECK"
            with m.State("RULE CHECK"):
                m.next = "BEGIN"
                with m.If(faults.read != MemoryFault.NONE):
                    m.d.sync += status.eq((Code.READ_RANGE - MemoryFault.RANGE) + faults.read)
                    m.next = "DONE"
                with m.Elif(_illegal(rule)):
                    m.d.sync += status.eq(Code.BAD_FIELD)
                    m.next = "DONE"
            with m.State("BEGIN"):
                m.d.comb += begin.eq(1)
                m.next = "RUN"
            with m.State("RUN"), m.If(~working):
                with m.If(faults.read != MemoryFault.NONE):
                    m.d.sync += status.eq((Code.READ_RANGE - MemoryFault.RANGE) + faults.read)
                with m.Elif(faults.write != MemoryFault.NONE):
                    m.d.sync += status.eq((Code.WRITE_RANGE - MemoryFault.RANGE) + faults.write)
                with m.Elif(faults.nan):
                    m.d.sync += status.eq(Code.NAN)
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self.done.valid.eq(1), self.done.payload.status.eq(status)]
                with m.If(self.done.ready):
                    m.next = "IDLE"


def _illegal(rule: Any) -> Any:
    """What :class:`nmsat.models.golden.UpdateRule` refuses: negative or not finite; a scale that is no power of two."""
    bad = Const(0)
    for name in RULE[:4]:
        word = rule[name]
        bad = bad | (word[23:31] == 255) | (word[31] & word[:31].any())
    scale = rule.loss_scale
    exponent = scale[23:31]
    return bad | scale[:23].any() | scale[31] | (exponent < _LEAST_SCALE) | (exponent > _LARGEST_SCALE)
