"""The writing side of the update unit: packets to the memory port, without a gap between them."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from enum import IntEnum
from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .memory_port import REQUEST, WORDS_AHEAD, WriteClient
from .queue import Queue
from .update_parameters import SEGMENT, UpdateParameters
from .update_read import words_of

OUTSTANDING_BITS = 8


class Turn(IntEnum):
    """What is being written."""

    NONE = 0
    W32 = 1
    V32 = 2
    PACKET = 3


class UpdateWriter(wiring.Component):
    """Writes new weights and momenta segment by segment, and short packets between them.

    A word a cycle; a run's request goes out with its first word. After a run the next one follows at once: v32 after
    its w32; else a packet if one waits; else the next segment. With nothing to do a cycle passes before the next run.
    At most 255 runs are unanswered. Reset drops everything.

    Parameters
    ----------
    parameters : UpdateParameters

    Ports
    -----
    w32_address, v32_address : in, 64
    segment : in, stream of SEGMENT
        Whose words are all in ``w32`` and ``v32``, or will be.
    w32, v32 : in, streams of memory words
    packet : in, stream of ``parameters.packet``
    memory : WriteClient
    error : out, 2
        Fault of a run that is answered in this cycle.
    busy : out, 1
        Something is to be written or not yet answered.
    """

    def __init__(self, parameters: UpdateParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "w32_address": In(64),
                "v32_address": In(64),
                "segment": In(stream.Signature(SEGMENT)),
                "w32": In(stream.Signature(parameters.data_bits)),
                "v32": In(stream.Signature(parameters.data_bits)),
                "packet": In(stream.Signature(parameters.packet)),
                "memory": Out(WriteClient(parameters.data_bits)),
                "error": Out(2),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p = self.parameters
        m.submodules.requests = requests = Queue(REQUEST, 2)
        m.submodules.words = words = Queue(p.data_bits, WORDS_AHEAD)
        m.submodules.packets = packets = Queue(p.packet, 2)
        m.submodules.segments = segments = Queue(SEGMENT, 2)
        turn, first = Signal(Turn), Signal(init=1)
        left = Signal(range(2 * p.run_words + 1))  # words after this one, once the first has gone
        unanswered = Signal(OUTSTANDING_BITS)
        shifted = Signal(len(packets.o.payload.payload), reset_less=True)
        segment, packet = segments.o.payload, packets.o.payload

        size, address = Signal(range(4 * p.bus_bytes * p.run_words)), Signal(64)
        word, there = Signal(p.data_bits), Signal()
        with m.Switch(turn):
            for which, base, source in (
                (Turn.W32, self.w32_address, self.w32), (Turn.V32, self.v32_address, self.v32)
            ):  # fmt: skip
                with m.Case(which):
                    m.d.comb += [
                        size.eq(segment.count << 2),
                        address.eq(base + (segment.offset << 2)),
                        word.eq(source.payload),
                        there.eq(source.valid),
                    ]
            with m.Case(Turn.PACKET):
                m.d.comb += [size.eq(packet.bytes), address.eq(packet.address), there.eq(1)]
                m.d.comb += word.eq(Mux(first, packet.payload, shifted))
        goes, ends, after = Signal(), Signal(), Signal(len(left))
        m.d.comb += [
            goes.eq(there & words.i.ready & (~first | (requests.i.ready & ~unanswered.all()))),
            after.eq(Mux(first, words_of(size, p.bus_bytes), left) - 1),
            ends.eq(goes & (after == 0)),
            words.i.valid.eq(goes),
            words.i.payload.eq(word),
            requests.i.valid.eq(goes & first),
            requests.i.payload.address.eq(address),
            requests.i.payload.bytes.eq(size),
            self.w32.ready.eq(goes & (turn == Turn.W32)),
            self.v32.ready.eq(goes & (turn == Turn.V32)),
            segments.o.ready.eq(ends & (turn == Turn.V32)),
            packets.o.ready.eq(ends & (turn == Turn.PACKET)),
        ]
        with m.If(goes):
            m.d.sync += [left.eq(after), first.eq(ends)]
            m.d.sync += shifted.eq(Mux(first, packet.payload, shifted) >> p.data_bits)
        with m.If(ends & (turn == Turn.W32)):
            m.d.sync += turn.eq(Turn.V32)
        with m.Elif(ends | (turn == Turn.NONE)):
            # a queue's head is still there in the cycle in which its run ends
            with m.If(packets.level > (turn == Turn.PACKET)):
                m.d.sync += turn.eq(Turn.PACKET)
            with m.Elif(segments.level > (turn == Turn.V32)):
                m.d.sync += turn.eq(Turn.W32)
            with m.Else():
                m.d.sync += turn.eq(Turn.NONE)

        answered = self.memory.done.valid
        m.d.comb += [
            self.memory.done.ready.eq(1),
            self.error.eq(Mux(answered, self.memory.done.payload.error, 0)),
            self.busy.eq((turn != Turn.NONE) | packets.o.valid | segments.o.valid | (unanswered != 0)),
        ]
        with m.If(requests.i.valid & ~answered):
            m.d.sync += unanswered.eq(unanswered + 1)
        with m.Elif(~requests.i.valid & answered):
            m.d.sync += unanswered.eq(unanswered - 1)
        wiring.connect(m, wiring.flipped(self.packet), packets.i)
        wiring.connect(m, wiring.flipped(self.segment), segments.i)
        wiring.connect(m, requests.o, wiring.flipped(self.memory.request))
        wiring.connect(m, words.o, wiring.flipped(self.memory.words))
        return m
