"""The vector unit: VECTOR descriptors of additions, ReLUs and pools, from memory to memory."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from .emit import place as placed
from .memory_port import REQUEST, WORDS_AHEAD, MemoryFault, ReadClient, WriteClient
from .pool_stage import PLACE, PoolStage
from .pool_walk import SEGMENT, PassWalker
from .queue import Queue
from .registers import Code
from .stream import pipeline, require
from .vector_lane import MODE, OPERANDS, SWITCHES, VectorLane, lane_latency
from .vector_setup import PLAN, VectorSetup

COUNT = data.StructLayout({"count": range(SEGMENT + 1), "second": 1})
"""Elements of a run that enters the lanes; whether its window is walked for the second time."""
TARGET = data.StructLayout({"offset": 32, "count": range(SEGMENT + 1)})
"""A run of results: the first one's number, how many."""
DONE = data.StructLayout({"status": 8})
TAG_DEPTH = 32
FIRST_GRADIENT = OPERANDS.index("g0")
_UNANSWERED_BITS = 8


@dataclass(frozen=True, slots=True)
class VectorParameters:
    """What a vector unit is generated for.

    Parameters
    ----------
    bus_bytes : int
        Bytes of a memory word, a power of two from 4 to 64.
    lanes : int
        Elements a cycle, a power of two, at most ``bus_bytes / 2``.
    adder_latency : int
        La, 1 to 32.

    Raises
    ------
    NmsatError
        A size is outside these rules.
    """

    bus_bytes: int
    lanes: int
    adder_latency: int

    def __post_init__(self) -> None:
        require("vector unit", "adder_latency", self.adder_latency, 1, 32)
        for name, low, high in (("bus_bytes", 4, 64), ("lanes", 1, self.bus_bytes // 2)):
            value = require("vector unit", name, getattr(self, name), low, high)
            if value & (value - 1):
                raise NmsatError.rule("vector unit", name, "a power of two", value)

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> VectorParameters:
        """The unit of an accelerator: no more lanes than a memory port feeds."""
        bus = accelerator.axi_data_bits // 8
        lanes = min(accelerator.vector_lanes, bus // 2)
        return cls(bus, 1 << lanes.bit_length() - 1, accelerator.adder_latency_cycles)

    @property
    def slices(self) -> int:
        """Lane words in a memory word."""
        return self.bus_bytes // (2 * self.lanes)

    @property
    def run_words(self) -> int:
        """Memory words of a whole run."""
        return 2 * SEGMENT // self.bus_bytes


class VectorUnit(wiring.Component):
    """Passes of ReLUs and at most one addition, and a pool behind them; backward, gradients added, spread and masked.

    Operands come in runs of 64 elements, one operand after the other, each into a queue of two runs; the lanes take a
    word of every operand at once; results leave through a queue of two runs. So the rate is ``lanes`` elements a cycle
    or the memory's bandwidth. Equals :func:`nmsat.simulator.executor.vector.run_vector`; cycles are those of
    :mod:`nmsat.simulator.machine.vector`. Refused (UNSUPPORTED) are the backward passes
    of pools whose windows do not tile the image, or whose masks would need the pass formed again, and what the host
    computes. A pool reads the places of every window one after the other: a pixel under several windows is read for
    each.

    One descriptor at a time. After a memory fault the descriptor runs to its end, so that everything asked for is
    drained. Reset drops everything; the memory ports must be reset with it.

    Parameters
    ----------
    parameters : VectorParameters

    Ports
    -----
    start : in, stream of 2048-bit descriptors
    done : out, stream of ``status``
        :data:`.registers.Code`.
    read, write : ReadClient, WriteClient
    """

    def __init__(self, parameters: VectorParameters) -> None:
        self.parameters = parameters
        bits = 8 * parameters.bus_bytes
        super().__init__(
            {
                "start": In(stream.Signature(2048)),
                "done": Out(stream.Signature(DONE)),
                "read": Out(ReadClient(bits)),
                "write": Out(WriteClient(bits)),
            }
        )

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> VectorUnit:
        """The unit of an accelerator."""
        return cls(VectorParameters.from_accelerator(accelerator))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p = self.parameters
        m.submodules.setup = setup = VectorSetup()
        m.submodules.lanes = lanes = VectorLanes(p)
        m.submodules.pool = pool = PoolStage(lanes=p.lanes, adder_latency=p.adder_latency)
        m.submodules.counts = counts = Queue(COUNT, TAG_DEPTH)
        m.submodules.places = places = Queue(PLACE, TAG_DEPTH)
        m.submodules.tags = tags = Queue(TARGET, TAG_DEPTH)
        m.submodules.runs = runs = Queue(TARGET, 2)
        m.submodules.results = results = Queue(8 * p.bus_bytes, 2 * p.run_words)
        plan, begin = Signal(PLAN, reset_less=True), Signal()
        m.d.comb += [
            lanes.switches.eq(plan.switches), pool.pool.eq(plan.pool), setup.start.payload.eq(self.start.payload)
        ]  # fmt: skip
        wiring.connect(m, lanes.o, pool.i)
        wiring.connect(m, places.o, pool.place)
        operands = [Queue(8 * p.bus_bytes, 2 * p.run_words) for _ in OPERANDS]
        for name, queue in zip(OPERANDS, operands, strict=True):
            m.submodules[name] = queue
        busy, entered, order = self._ask(m, plan, begin, counts, places, tags)
        fault = self._take(m, order, operands)
        self._join(m, plan, counts, operands, lanes)
        left = self._collect(m, pool, tags, runs, results)
        writing, write_fault = self._write(m, plan, runs, results)
        inside = Signal(8)
        m.d.sync += inside.eq(inside + entered - left)
        self._control(m, plan, setup, begin, busy | (inside != 0) | writing, fault, write_fault)
        return m

    def _ask(self, m: Module, plan: Any, begin: Any, counts: Any, places: Any, tags: Any) -> tuple[Any, Any, Any]:
        """A request a cycle: the operands of a run, then of the next."""
        m.submodules.walker = walker = PassWalker()
        m.submodules.requests = requests = Queue(REQUEST, 2)
        m.submodules.order = order = Queue(
            data.StructLayout({"operand": 3, "words": range(self.parameters.run_words + 1)}), TAG_DEPTH
        )
        m.d.comb += [walker.start.eq(begin), walker.window.eq(plan.window)]
        run, phase, chosen, last = walker.run.payload, Signal(3), Signal(3), Signal()
        used, emit, offset = Signal(len(OPERANDS)), Signal(), Signal(32)
        for number in reversed(range(len(OPERANDS))):  # the lowest that is used and not yet asked for
            with m.If(used[number] & (number >= phase)):
                m.d.comb += chosen.eq(number)
        spread = plan.backward & plan.pool.mean
        m.d.comb += [
            used.eq(Mux(run.second, plan.used_second, plan.used)),
            last.eq(((used >> chosen) >> 1) == 0),
            emit.eq(Mux(plan.window.twice, run.second, run.last | spread)),
            offset.eq(Mux(chosen >= FIRST_GRADIENT, run.target, run.offset)),
        ]
        free = requests.i.ready & order.i.ready & counts.i.ready & places.i.ready & tags.i.ready
        asked = walker.run.valid & free
        run_bytes = run.count << 1
        m.d.comb += [
            requests.i.valid.eq(asked),
            requests.i.payload.address.eq(plan.addresses[chosen] + (offset << 1)),
            requests.i.payload.bytes.eq(run_bytes),
            order.i.valid.eq(asked),
            order.i.payload.operand.eq(chosen),
            order.i.payload.words.eq(self._words(run_bytes)),
            walker.run.ready.eq(free & last),
            counts.i.valid.eq(asked & last),
            counts.i.payload.count.eq(run.count),
            counts.i.payload.second.eq(run.second),
            places.i.valid.eq(asked & last),
            places.i.payload.count.eq(run.count),
            places.i.payload.first.eq(run.first | spread),
            places.i.payload.last.eq(run.last | spread),
            places.i.payload.emit.eq(emit),
            places.i.payload.second.eq(run.second),
            places.i.payload.index.eq(run.index),
            tags.i.valid.eq(asked & last & emit),
            tags.i.payload.offset.eq(Mux(plan.backward, run.offset, run.target)),
            tags.i.payload.count.eq(run.count),
        ]
        with m.If(asked):
            m.d.sync += phase.eq(Mux(last, 0, chosen + 1))
        wiring.connect(m, requests.o, wiring.flipped(self.read.request))
        return walker.busy, asked & last & emit, order

    def _words(self, run_bytes: Any) -> Any:
        bus = self.parameters.bus_bytes
        return (run_bytes + (bus - 1)) >> bus.bit_length() - 1

    def _take(self, m: Module, order: Any, operands: list[Any]) -> Any:
        """Words to their operand's queue; a refused run, which has one word, is filled up."""
        words, head = self.read.words, order.o.payload
        given, padding, moved = Signal(range(self.parameters.run_words + 1)), Signal(), Signal()
        whole = given + 1 == head.words
        for number, queue in enumerate(operands):
            m.d.comb += queue.i.payload.eq(words.payload.data)
            with m.If(order.o.valid & (head.operand == number)):
                m.d.comb += [
                    queue.i.valid.eq(words.valid | padding),
                    words.ready.eq(queue.i.ready & ~padding),
                    moved.eq(queue.i.valid & queue.i.ready),
                ]
        m.d.comb += order.o.ready.eq(moved & whole)
        with m.If(moved):
            m.d.sync += [given.eq(Mux(whole, 0, given + 1)), padding.eq((padding | words.payload.last) & ~whole)]
        return Mux(words.valid & words.ready, words.payload.error, 0)

    def _join(self, m: Module, plan: Any, counts: Any, operands: list[Any], lanes: Any) -> None:
        """Slices of all operands side by side."""
        p = self.parameters
        number, last, word_done = Signal(range(SEGMENT // p.lanes)), Signal(), Signal()
        place = number[: p.slices.bit_length() - 1]
        there, used = counts.o.valid, Signal(len(OPERANDS))
        second = counts.o.payload.second
        m.d.comb += [
            used.eq(Mux(second, plan.used_second, plan.used)),
            lanes.i.payload.mode.backward.eq(plan.backward & (second | ~plan.window.twice)),
            lanes.i.payload.mode.masked.eq(~second),
        ]
        for bit, queue in enumerate(operands):
            there = there & (queue.o.valid | ~used[bit])
        taken = there & lanes.i.ready
        m.d.comb += [
            last.eq((number + 1) * p.lanes >= counts.o.payload.count),
            word_done.eq(last | place.all() if p.slices > 1 else Const(1)),
            lanes.i.valid.eq(there),
            counts.o.ready.eq(taken & last),
        ]
        for bit, (name, queue) in enumerate(zip(OPERANDS, operands, strict=True)):
            word = queue.o.payload
            m.d.comb += lanes.i.payload[name].eq(word.word_select(place, 16 * p.lanes) if p.slices > 1 else word)
            m.d.comb += queue.o.ready.eq(taken & word_done & used[bit])
        with m.If(taken):
            m.d.sync += number.eq(Mux(last, 0, number + 1))

    def _collect(self, m: Module, pool: Any, tags: Any, runs: Any, results: Any) -> Any:
        """Words of results to memory words."""
        p, word = self.parameters, pool.o
        number, last, word_done = Signal(range(SEGMENT // p.lanes)), Signal(), Signal()
        so_far, full = Signal(8 * p.bus_bytes), Signal(8 * p.bus_bytes)
        place = number[: p.slices.bit_length() - 1]
        ready = tags.o.valid & runs.i.ready & results.i.ready
        taken = word.valid & ready
        m.d.comb += [
            word.ready.eq(ready),
            full.eq(so_far),
            last.eq((number + 1) * p.lanes >= tags.o.payload.count),
            word_done.eq(last | place.all() if p.slices > 1 else Const(1)),
            results.i.valid.eq(taken & word_done),
            results.i.payload.eq(full),
            tags.o.ready.eq(taken & last),
            runs.i.valid.eq(taken & last),
            runs.i.payload.eq(tags.o.payload),
        ]
        if p.slices > 1:
            m.d.comb += full.word_select(place, 16 * p.lanes).eq(word.payload)
        else:
            m.d.comb += full.eq(word.payload)
        with m.If(taken):
            m.d.sync += [so_far.eq(full), number.eq(Mux(last, 0, number + 1))]
        return taken & last

    def _write(self, m: Module, plan: Any, runs: Any, results: Any) -> tuple[Any, Any]:
        """Runs to memory, a word a cycle; a run's request goes out with its first word."""
        p = self.parameters
        m.submodules.out_requests = requests = Queue(REQUEST, 2)
        m.submodules.out_words = words = Queue(8 * p.bus_bytes, WORDS_AHEAD)
        first, left, unanswered = Signal(init=1), Signal(range(p.run_words + 1)), Signal(_UNANSWERED_BITS)
        run_bytes = runs.o.payload.count << 1
        goes, after = Signal(), Signal(range(p.run_words + 1))
        m.d.comb += [
            goes.eq(runs.o.valid & results.o.valid & words.i.ready & (~first | (requests.i.ready & ~unanswered.all()))),
            after.eq(Mux(first, self._words(run_bytes), left) - 1),
            words.i.valid.eq(goes),
            words.i.payload.eq(results.o.payload),
            results.o.ready.eq(goes),
            requests.i.valid.eq(goes & first),
            requests.i.payload.address.eq(plan.target + (runs.o.payload.offset << 1)),
            requests.i.payload.bytes.eq(run_bytes),
            runs.o.ready.eq(goes & (after == 0)),
            self.write.done.ready.eq(1),
        ]
        with m.If(goes):
            m.d.sync += [left.eq(after), first.eq(after == 0)]
        answered = self.write.done.valid
        with m.If(requests.i.valid & ~answered):
            m.d.sync += unanswered.eq(unanswered + 1)
        with m.Elif(~requests.i.valid & answered):
            m.d.sync += unanswered.eq(unanswered - 1)
        wiring.connect(m, requests.o, wiring.flipped(self.write.request))
        wiring.connect(m, words.o, wiring.flipped(self.write.words))
        return runs.o.valid | (unanswered != 0), Mux(answered, self.write.done.payload.error, 0)

    def _control(
        self, m: Module, plan: Any, setup: Any, begin: Any, working: Any, read_fault: Any, write_fault: Any
    ) -> None:
        faults = Signal(data.StructLayout({"read": 2, "write": 2}))
        status = Signal(8)
        with m.If(self.done.valid & self.done.ready):
            m.d.sync += faults.eq(0)
        with m.Else():
            for name, fault in (("read", read_fault), ("write", write_fault)):
                with m.If(fault > faults[name]):
                    m.d.sync += faults[name].eq(fault)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    setup.plan.ready.eq(1),
                    setup.start.valid.eq(self.start.valid),
                    self.start.ready.eq(setup.start.ready),
                ]
                with m.If(setup.plan.valid):
                    m.d.sync += [plan.eq(setup.plan.payload), status.eq(setup.plan.payload.status)]
                    m.next = "BEGIN"
                    with m.If(setup.plan.payload.status != Code.OK):
                        m.next = "DONE"
            with m.State("BEGIN"):
                m.d.comb += begin.eq(1)
                m.next = "RUN"
            with m.State("RUN"), m.If(~working):
                with m.If(faults.read != MemoryFault.NONE):
                    m.d.sync += status.eq((Code.READ_RANGE - MemoryFault.RANGE) + faults.read)
                with m.Elif(faults.write != MemoryFault.NONE):
                    m.d.sync += status.eq((Code.WRITE_RANGE - MemoryFault.RANGE) + faults.write)
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self.done.valid.eq(1), self.done.payload.status.eq(status)]
                with m.If(self.done.ready):
                    m.next = "IDLE"


class VectorLanes(wiring.Component):
    """Lanes side by side; latency that of :class:`.vector_lane.VectorLane` and one more, a word a cycle.

    Ports
    -----
    switches : in
        Steady while words are inside.
    i : in, stream
        ``mode``; ``x``, ``y``, ``g0``, ``g1``, ``g2``: an element a lane each, the first lane lowest.
    o : out, stream
        An element a lane.
    """

    def __init__(self, parameters: VectorParameters) -> None:
        self.parameters = parameters
        width = 16 * parameters.lanes
        super().__init__(
            {
                "switches": In(SWITCHES),
                "i": In(stream.Signature(data.StructLayout({"mode": MODE, **dict.fromkeys(OPERANDS, width)}))),
                "o": Out(stream.Signature(width)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p = self.parameters
        result = Signal(16 * p.lanes)
        en = pipeline(m, self.i, self.o, lane_latency(p.adder_latency), result)
        for number in range(p.lanes):
            lane = placed(m, platform, f"lane{number}", VectorLane, adder_latency=p.adder_latency)
            m.d.comb += [lane.en.eq(en), result.word_select(number, 16).eq(lane.result)]
            m.d.comb += [getattr(lane.switches, name).eq(getattr(self.switches, name)) for name in SWITCHES.members]
            m.d.comb += [getattr(lane.mode, name).eq(getattr(self.i.payload.mode, name)) for name in MODE.members]
            for name in OPERANDS:
                m.d.comb += getattr(lane, name).eq(self.i.payload[name].word_select(number, 16))
        return m
