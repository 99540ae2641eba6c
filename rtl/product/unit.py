"""The product unit: a descriptor in, a status out; between them memory ports and the array."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ...models.accelerator import Accelerator
from ..descriptor import DESCRIPTOR_BITS
from ..emit import place
from ..memory_port import ReadClient, WriteClient
from ..regions import across
from ..registers import Code
from ..split_array import SplitArray
from ..stce import Stce
from ..uspe import address_bits
from .apart import Lanes, in_halves, lanes_apart
from .lanes import Lane, lane_terms
from .loader import Loader
from .plan import Planner
from .results import OutputColumn
from .scatter import Scatter
from .sizes import POSITION_BITS, RECORDS, Sizes
from .store import Runs
from .tiles import Tiles
from .writer import Writer


class ProductUnit(wiring.Component):
    """Executes PRODUCT descriptors: equals ``nmsat.simulator.executor.product`` in values.

    Load, execute and store overlap: loaders run ahead as far as the memories of the array's edges reach, and a bank of
    results is stored while the array fills the other. After a memory error the product runs to its end on whatever
    arrived, so that every request is answered; the error is its status. Not executed, and refused:
    pruning on the way in, the weight gradient of a depthwise block, ReLU masks whose rows share bytes.

    Parameters
    ----------
    sizes : Sizes

    Ports
    -----
    start : in, stream of 2048 bits
        A PRODUCT descriptor, taken when the unit is free.
    done : out, stream of ``status``
        A code of ``registers.yaml`` for every descriptor.
    a, b, indices, masks : read clients
    c, bits : write clients
        Results and ReLU masks.
    computes, load_waits, store_waits : out, 1
        The array multiplies; it waits for operands; a tile waits for a bank of results.
    """

    start: Any
    done: Any
    a: Any
    b: Any
    indices: Any
    masks: Any
    c: Any
    bits: Any
    computes: Signal
    load_waits: Signal
    store_waits: Signal

    def __init__(self, *, sizes: Sizes) -> None:
        self.sizes = sizes
        bits = sizes.data_bits
        super().__init__(
            {
                "start": In(stream.Signature(DESCRIPTOR_BITS)),
                "done": Out(stream.Signature(data.StructLayout({"status": 8}))),
                "a": Out(ReadClient(bits)), "b": Out(ReadClient(bits)), "indices": Out(ReadClient(bits)),
                "masks": Out(ReadClient(bits)), "c": Out(WriteClient(bits)), "bits": Out(WriteClient(bits)),
                "computes": Out(1), "load_waits": Out(1), "store_waits": Out(1),
            }
        )  # fmt: skip

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> ProductUnit:
        """The unit of an accelerator file."""
        return cls(sizes=Sizes.from_accelerator(accelerator))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        s = self.sizes
        descriptor, begin = Signal(DESCRIPTOR_BITS), Signal()
        status, code = Signal(8), Signal(8)
        m.submodules.planner = planner = Planner(sizes=s)
        taken = Signal()
        m.d.sync += taken.eq(self.start.valid & self.start.ready)
        m.d.comb += [planner.start.eq(taken), planner.descriptor.eq(descriptor)]
        ended = self._datapath(m, platform, planner.plan, descriptor, begin, code)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.start.ready.eq(1)
                m.d.sync += status.eq(0)
                with m.If(self.start.valid):
                    m.d.sync += descriptor.eq(self.start.payload)
                    m.next = "PLAN"
            with m.State("PLAN"):
                with m.If(planner.refused):
                    m.d.sync += status.eq(planner.code)
                    m.next = "DONE"
                with m.If(planner.ready):
                    m.d.comb += begin.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If((code != 0) & (status == 0)):
                    m.d.sync += status.eq(code)
                with m.If(ended):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self.done.valid.eq(1), self.done.payload.status.eq(status)]
                with m.If(self.done.ready):
                    m.next = "IDLE"
        return m

    def _datapath(self, m: Module, platform: Any, plan: Any, descriptor: Signal, begin: Signal, code: Signal) -> Signal:
        """Everything between the ports; true when the product has ended."""
        s = self.sizes
        m.submodules.array = array = (SplitArray if s.array.hop else Stce)(parameters=s.array)
        m.submodules.tiles = tiles = Tiles(sizes=s)
        for part in (tiles,):
            m.d.comb += [part.start.eq(begin), part.descriptor.eq(descriptor), part.plan.eq(plan)]
        _connect(m, tiles.command, array.command)
        faults = []
        split = s.array.hop > 0
        west = self._operand(m, platform, "a", plan, descriptor, begin, faults)
        if not split:
            _join(m, array, "west", west)
        north = self._operand(m, platform, "b", plan, descriptor, begin, faults)
        if split:
            _join_split(m, array, west, north)
            results = array.south, array.south_valid, array.partial_taken, array.partial
            fed = array.there.all()
        else:
            _join(m, array, "north", north)
            results = array.south.payload, array.south.valid, array.partial.ready, array.partial.payload
            fed = array.west.valid[0] & array.north.valid[0]

        # Results.
        m.submodules.runs = runs = Runs(sizes=s)
        m.submodules.writer = writer = Writer(sizes=s)
        for part in (runs, writer):
            m.d.comb += [part.start.eq(begin), part.descriptor.eq(descriptor), part.plan.eq(plan)]
        if not split:
            every = (1 << s.array.cols) - 1
            m.d.comb += [array.south.ready.eq(every), array.partial.valid.eq(every)]
        partial, stored, full = [], [], []
        kind = {"bank_rows": s.bank_rows, "array_rows": s.array.rows}
        kind |= {"sum_bits": s.array.sum_bits, "os_partials": s.array.window is not None}
        told = {
            "clear": begin, "ws": plan.ws, "rows": plan.rows, "rows_last": plan.rows_last, "m_blocks": plan.m_blocks,
            "n_tiles": plan.n_tiles, "k_tiles": plan.k_tiles,
        }  # fmt: skip
        plans = in_halves(m, told, s.array.hop, "column")
        reads = in_halves(m, {"read": writer.read, "read_enable": writer.read_enable}, s.array.hop, "column")
        south, left, taken, back = results
        for c in range(s.array.cols):
            column, half = place(m, platform, f"column{c}", OutputColumn, **kind), s.array.half_of(c)
            given = {
                **plans[half], "south": south.word_select(c, s.array.sum_bits), "south_valid": left[c],
                "partial_taken": taken[c], **reads[half],
            }  # fmt: skip
            m.d.comb += [getattr(column, name).eq(value) for name, value in given.items()]
            partial.append(column.partial)
            stored.append(across(m, column.stored, s.array.hop, f"stored{c}_", payload=True))
            full.append(column.full)
        m.d.comb += [
            back.eq(Cat(partial)), writer.stored.eq(Cat(stored)),
            runs.full.eq(across(m, full[-1], s.array.hop, "full")), tiles.stored.eq(writer.emptied),
        ]  # fmt: skip
        runs_wait = _queue(m, "runs_queue", runs.run, writer.run, RECORDS)
        _connect(m, runs.request, self.c.request)
        _connect(m, runs.masks, self.masks.request)
        _connect(m, self.masks.words, writer.masks)
        _connect(m, writer.words, self.c.words)
        _connect(m, writer.mask_request, self.bits.request)
        _connect(m, writer.mask_words, self.bits.words)
        m.d.comb += [self.c.done.ready.eq(1), self.bits.done.ready.eq(1)]
        open_writes = Signal(24)
        opened = (self.c.request.valid & self.c.request.ready) + (self.bits.request.valid & self.bits.request.ready)
        m.d.sync += open_writes.eq(open_writes + opened - self.c.done.valid - self.bits.done.valid)
        write_faults = [Mux(client.done.valid, client.done.payload.error, 0) for client in (self.c, self.bits)]
        read = _worst([*faults, writer.fault])
        write = _worst(write_faults)
        m.d.comb += code.eq(
            Mux(read != 0, Code.READ_RANGE - 1 + read, Mux(write != 0, Code.WRITE_RANGE - 1 + write, 0))
        )
        with m.If(self._misaligned):
            m.d.comb += code.eq(Code.BAD_ALIGNMENT)
        ended, fresh = Signal(), Signal()
        m.d.sync += fresh.eq(begin)
        m.d.comb += [
            ended.eq(~fresh & runs.idle & writer.idle & ~runs_wait & (open_writes == 0) & array.idle),
            self.computes.eq(~array.idle), self.store_waits.eq(tiles.waits),
            self.load_waits.eq(~array.idle & ~fed),
        ]  # fmt: skip
        return ended

    def _operand(
        self, m: Module, platform: Any, side: Any, plan: Any, descriptor: Signal, begin: Signal, faults: list[Any]
    ) -> Lanes:
        """Loader, scatter and lanes of one side."""
        s, a_side = self.sizes, side == "a"
        loader, scatter = Loader(side=side, sizes=s), Scatter(side=side, sizes=s)
        m.submodules[f"loader_{side}"] = loader
        m.submodules[f"scatter_{side}"] = scatter
        client = self.a if a_side else self.b
        m.d.comb += [
            loader.start.eq(begin),
            loader.descriptor.eq(descriptor),
            loader.plan.eq(plan),
            scatter.plan.eq(plan),
        ]
        _connect(m, loader.request, client.request)
        _connect(m, client.words, scatter.words)
        if not a_side:
            _connect(m, loader.indices, self.indices.request)
            _connect(m, self.indices.words, scatter.indices)
        _queue(m, f"records_{side}", loader.record, scatter.record, RECORDS)
        committed = Signal(POSITION_BITS, name=f"committed_{side}")
        with m.If(begin):
            m.d.sync += committed.eq(0)
        with m.Else():
            m.d.sync += committed.eq(committed + scatter.commit)
        faults.append(scatter.fault)
        misaligned = loader.misaligned
        self._misaligned = misaligned if a_side else self._misaligned | misaligned
        if a_side:
            kind = {"depth": s.west_words, "per_word": s.group_places, "element": 16, "grouped": True}
        else:
            element = 16 + address_bits(s.array.max_group)
            kind = {"depth": s.north_words, "per_word": s.keep_places, "element": element, "grouped": False}
        if s.array.hop:
            apart = lanes_apart(m, platform, s, side, kind, scatter, begin, committed, plan)
            m.d.comb += loader.released.eq(apart.last.released)
            return apart
        lanes = s.array.rows if a_side else s.array.cols
        payloads, valids, ready = [], [], Signal(lanes, name=f"ready_{side}")
        lane: Any = None
        for number in range(lanes):
            lane = place(m, platform, f"lane_{side}{number}", Lane, **kind)
            m.d.comb += [
                lane.clear.eq(begin), lane.write.eq(scatter.enable[number]), lane.address.eq(scatter.address),
                lane.places.eq(scatter.places), lane.word.eq(scatter.word), lane.spread.eq(scatter.spread),
                lane.one.eq(scatter.each.word_select(number, kind["element"])),
                lane.committed.eq(committed), lane.ready.eq(ready[number]),
            ]  # fmt: skip
            m.d.comb += [getattr(lane, name).eq(value) for name, value in lane_terms(side, plan).items()]
            payloads.append(lane.payload[: 16 * s.array.max_group] if a_side else lane.payload)
            valids.append(lane.valid)
        m.d.comb += loader.released.eq(lane.released)
        return Lanes(Cat(payloads), ready, Cat(valids))


def _join(m: Module, array: Any, side: str, lanes: Lanes) -> None:
    """Lanes at a port of an array in one region."""
    port = getattr(array, side)
    m.d.comb += [port.payload.eq(lanes.payload), port.valid.eq(lanes.valid), lanes.ready.eq(port.ready)]


def _join_split(m: Module, array: Any, west: Lanes, north: Lanes) -> None:
    """Lanes at an array whose halves lie in other regions: for the array's sequencer pointers stand for them."""
    m.d.comb += [
        array.west.eq(west.payload), west.ready.eq(array.west_taken),
        array.north.eq(north.payload), north.ready.eq(array.north_taken),
    ]  # fmt: skip
    m.d.comb += [
        array.there.eq(Cat(west.valid, north.valid)), west.first.ready.eq(array.first[0]),
        west.last.ready.eq(array.last[0]), north.last.ready.eq(array.last[1]),
    ]  # fmt: skip


def _connect(m: Module, source: Any, target: Any) -> None:
    """A stream from one part to another."""
    m.d.comb += [
        Value.cast(target.payload).eq(Value.cast(source.payload)), target.valid.eq(source.valid),
        source.ready.eq(target.ready),
    ]  # fmt: skip


def _queue(m: Module, name: str, source: Any, target: Any, depth: int) -> Value:
    """A stream through a queue: a word leaves the cycle after it came at the earliest. Returns that it is not empty."""
    width = Shape.cast(source.payload.shape()).width
    queue = SyncFIFO(width=width, depth=depth)
    m.submodules[name] = queue
    m.d.comb += [
        queue.w_data.eq(Value.cast(source.payload)), queue.w_en.eq(source.valid), source.ready.eq(queue.w_rdy),
        Value.cast(target.payload).eq(queue.r_data), target.valid.eq(queue.r_rdy), queue.r_en.eq(target.ready),
    ]  # fmt: skip
    return queue.r_rdy


def _worst(errors: list[Value]) -> Value:
    found = errors[0]
    for error in errors[1:]:
        found = Mux(error > found, error, found)
    return found
