"""The reading side of the update unit: requests, what comes back, and words for WUVE."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import RULE
from .memory_port import REQUEST, ReadClient
from .queue import Queue
from .update_parameters import PATTERN, SEGMENT, TILE, VECTOR, UpdateParameters

RULE_BYTES = 4 * len(RULE)
SOURCES = data.StructLayout(
    {"dense": 64, "w32": 64, "v32": 64, "gradient": 64, "rule": 64, "update": 1, "dense_on": 1, "indices": 1}
)
"""Addresses; whether w32, v32 and gradient are read (``update``), and the dense operand, binary16 or indices."""
ORDER_DEPTH = 32
TAG_DEPTH = 32


def words_of(size: Any, bus_bytes: int) -> Any:
    """Memory words of a run of ``size`` bytes."""
    return (size + (bus_bytes - 1)) >> bus_bytes.bit_length() - 1


class Run(IntEnum):
    """What a run of bytes is: also the order in which the runs of a segment are asked for."""

    DENSE = 0
    W32 = 1
    V32 = 2
    GRADIENT = 3
    RULE = 4


class UpdateReader(wiring.Component):
    """Asks for the runs of each segment, one a cycle, and hands on what comes back.

    Runs come in the order in which they were asked for: [dense] w32 v32 gradient of a segment, then of the next. Two
    segments of each binary32 operand are held, so the port never waits for one operand while another is missing.
    Reset drops everything; the memory port must be reset with it.

    Parameters
    ----------
    parameters : UpdateParameters

    Ports
    -----
    sources : in
        Steady while a descriptor runs.
    mask_pattern : in
        N:M of the index plane that ``dense`` is.
    fetch_rule : in, 1
        Ask for the coefficients, while no segments come.
    segment : in, stream of SEGMENT
    memory : ReadClient
    rule : out, stream of 160 bits
        The five words.
    vector : out, stream of VECTOR
        Binary16 values of a segment, or its index fields in the low bits.
    weights : out, stream
        ``g``, ``w``, ``v`` of ``wuve_lanes`` weights and their ``number`` inside the segment in words.
    tag : out, stream of SEGMENT
        A second copy of every segment that is updated, for the writing side.
    error : out, 2
        Worst fault of a word taken in this cycle.
    """

    def __init__(self, parameters: UpdateParameters) -> None:
        self.parameters = parameters
        lanes = parameters.wuve_lanes
        self.weights_layout = data.StructLayout(
            {**dict.fromkeys("gwv", 32 * lanes), "number": range(TILE // lanes), "last": 1}
        )
        super().__init__(
            {
                "sources": In(SOURCES),
                "mask_pattern": In(PATTERN),
                "fetch_rule": In(1),
                "segment": In(stream.Signature(SEGMENT)),
                "memory": Out(ReadClient(parameters.data_bits)),
                "rule": Out(stream.Signature(8 * RULE_BYTES)),
                "vector": Out(stream.Signature(VECTOR)),
                "weights": Out(stream.Signature(self.weights_layout)),
                "tag": Out(stream.Signature(SEGMENT)),
                "error": Out(2),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.requests = requests = Queue(REQUEST, 2)
        m.submodules.order = order = Queue(
            data.StructLayout({"run": 3, "words": range(self.parameters.run_words + 1)}), ORDER_DEPTH
        )
        m.submodules.tags = tags = Queue(SEGMENT, TAG_DEPTH)
        m.submodules.counts = counts = Queue(SEGMENT, TAG_DEPTH)
        m.submodules.vectors = vectors = Queue(SEGMENT, TAG_DEPTH)
        self._ask(m, requests, order, tags, counts, vectors)
        queues = {}
        for run in (Run.W32, Run.V32, Run.GRADIENT):
            queues[run] = Queue(self.parameters.data_bits, 2 * self.parameters.run_words)
            m.submodules[run.name.lower()] = queues[run]
        self._take(m, order, queues, vectors)
        self._join(m, counts, queues)
        for source, target in ((requests.o, self.memory.request), (tags.o, self.tag)):
            wiring.connect(m, source, wiring.flipped(target))
        return m

    def _ask(self, m: Module, requests: Any, order: Any, tags: Any, counts: Any, vectors: Any) -> None:
        """A request a cycle; the segment is taken with its last one."""
        at, segment = self.sources, self.segment.payload
        chosen, last, free, phase = Signal(Run), Signal(), Signal(), Signal(2)
        m.d.comb += [
            chosen.eq(Mux(self.fetch_rule, Run.RULE, Mux((phase == 0) & ~at.dense_on, Run.W32, phase))),
            last.eq(Mux(at.update, chosen == Run.GRADIENT, chosen == Run.DENSE)),
            free.eq(requests.i.ready & order.i.ready & tags.i.ready & counts.i.ready & vectors.i.ready),
        ]
        wide, narrow, pattern = segment.count << 2, segment.count << 1, self.mask_pattern
        address, size = requests.i.payload.address, requests.i.payload.bytes
        with m.Switch(chosen):
            with m.Case(Run.DENSE):
                with m.If(at.indices):
                    m.d.comb += address.eq(at.dense + (segment.offset >> pattern.shift) * pattern.index_bytes)
                    m.d.comb += size.eq((segment.count >> pattern.shift) * pattern.index_bytes)
                with m.Else():
                    m.d.comb += [address.eq(at.dense + (segment.offset << 1)), size.eq(narrow)]
            for run, base in ((Run.W32, at.w32), (Run.V32, at.v32), (Run.GRADIENT, at.gradient)):
                with m.Case(run):
                    m.d.comb += [address.eq(base + (segment.offset << 2)), size.eq(wide)]
            with m.Case(Run.RULE):
                m.d.comb += [address.eq(at.rule), size.eq(RULE_BYTES)]
        asked = Signal()
        m.d.comb += [
            asked.eq(free & (self.segment.valid | self.fetch_rule)),
            requests.i.valid.eq(asked),
            order.i.valid.eq(asked),
            order.i.payload.run.eq(chosen),
            order.i.payload.words.eq(words_of(size, self.parameters.bus_bytes)),
            vectors.i.valid.eq(asked & (chosen == Run.DENSE)),
            tags.i.valid.eq(asked & (chosen == Run.GRADIENT)),
            counts.i.valid.eq(asked & (chosen == Run.GRADIENT)),
            self.segment.ready.eq(free & last & ~self.fetch_rule),
            *(queue.i.payload.eq(segment) for queue in (tags, counts, vectors)),
        ]
        with m.If(asked & ~self.fetch_rule):
            m.d.sync += phase.eq(Mux(last, 0, chosen + 1))

    def _take(self, m: Module, order: Any, queues: dict[Run, Any], vectors: Any) -> None:
        """Words to the operand that they belong to; runs of at most two bytes a weight are put together here."""
        words, bits = self.memory.words, self.parameters.data_bits
        taken = words.valid & words.ready
        short, full, place = Signal(16 * TILE, reset_less=True), Signal(), Signal(range(max(2, 16 * TILE // bits)))
        is_rule, to_short, padding = Signal(), Signal(), Signal()
        given = Signal(range(self.parameters.run_words + 1))
        moved = Signal()  # a word to a queue
        whole = given + 1 == order.o.payload.words
        with m.Switch(order.o.payload.run):
            for run, queue in queues.items():
                with m.Case(run):
                    m.d.comb += [
                        queue.i.valid.eq((words.valid | padding) & order.o.valid),
                        words.ready.eq(queue.i.ready & order.o.valid & ~padding),
                        moved.eq(queue.i.valid & queue.i.ready),
                        order.o.ready.eq(moved & whole),
                    ]
            with m.Default():
                m.d.comb += [
                    words.ready.eq(~full & order.o.valid),
                    to_short.eq(1),
                    order.o.ready.eq(taken & words.payload.last),
                ]
        with m.If(moved):  # a refused run has one word: what follows in the queue does not matter, but must be there
            m.d.sync += [
                given.eq(Mux(whole, 0, given + 1)),
                padding.eq((padding | words.payload.last) & ~whole),
            ]
        m.d.comb += [queue.i.payload.eq(words.payload.data) for queue in queues.values()]
        m.d.comb += self.error.eq(Mux(taken, words.payload.error, 0))
        with m.If(taken & to_short):
            m.d.sync += [
                short.word_select(place, bits).eq(words.payload.data),
                place.eq(Mux(words.payload.last, 0, place + 1)),
                full.eq(words.payload.last),
                is_rule.eq(order.o.payload.run == Run.RULE),
            ]
        m.d.comb += [
            self.rule.valid.eq(full & is_rule),
            self.rule.payload.eq(short),
            self.vector.valid.eq(full & ~is_rule),
            self.vector.payload.values.eq(short),
            self.vector.payload.count.eq(vectors.o.payload.count),
            self.vector.payload.offset.eq(vectors.o.payload.offset),
            vectors.o.ready.eq(self.vector.valid & self.vector.ready),
        ]
        with m.If((self.vector.valid & self.vector.ready) | (self.rule.valid & self.rule.ready)):
            m.d.sync += full.eq(0)

    def _join(self, m: Module, counts: Any, queues: dict[Run, Any]) -> None:
        """Slices of the three operands side by side."""
        p, out = self.parameters, self.weights
        number = Signal(range(TILE // p.wuve_lanes))
        count, last, word_done, there = counts.o.payload.count, Signal(), Signal(), Signal()
        place = number[: p.slices.bit_length() - 1]
        m.d.comb += [
            last.eq((number + 1) * p.wuve_lanes >= count),
            word_done.eq(last | place.all() if p.slices > 1 else Const(1)),
            there.eq(counts.o.valid),
            out.payload.number.eq(number),
            out.payload.last.eq(last),
        ]
        for run, name in ((Run.GRADIENT, "g"), (Run.W32, "w"), (Run.V32, "v")):
            word = queues[run].o
            m.d.comb += out.payload[name].eq(
                word.payload.word_select(place, 32 * p.wuve_lanes) if p.slices > 1 else word.payload
            )
            m.d.comb += word.ready.eq(out.valid & out.ready & word_done)
        m.d.comb += [
            out.valid.eq(there & queues[Run.W32].o.valid & queues[Run.V32].o.valid & queues[Run.GRADIENT].o.valid),
            counts.o.ready.eq(out.valid & out.ready & last),
        ]
        with m.If(out.valid & out.ready):
            m.d.sync += number.eq(Mux(last, 0, number + 1))
