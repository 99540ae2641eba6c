"""The data of results: read from the banks, through drain and epilogue, into words of the memory port."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ...dataflow import program as fmt
from ..descriptor import DESCRIPTOR_BITS
from ..epilogue import Epilogue
from ..memory_port import REQUEST, read_word
from ..regions import across
from ..uspe import address_bits
from ..window_drain import Drain
from .plan import PRODUCT, plan_layout
from .rests import Rests
from .sizes import Sizes
from .store import run_layout

_IN_FLIGHT = 8  # beats in the epilogue, which holds five, and in a window's drain, which holds six


def in_flight(hop: int) -> int:
    """Beats on their way from banks that lie ``hop`` registers away: read a cycle after they are asked for, then a
    queue; a beat a cycle.
    """
    return 2 * hop + 2


class Writer(wiring.Component):
    """A beat is a row of a run along columns, or one value of a run along rows.

    Ports
    -----
    start : in, 1
    run : in, stream of :func:`.store.run_layout`
    masks : in, stream of words
        Mask bits to apply, a request a run.
    read, read_enable, stored : out, out, in
        The banks' read port: word of every column, and the words a cycle later.
    words : out, stream of the port's words
    mask_request, mask_words : out, streams
        Writes of whole bytes of the ReLU mask.
    emptied : out, 1
        The last beat of a bank was read.
    fault : out, 2
        Error of a mask word.
    idle : out, 1
    """

    start: Signal
    descriptor: Signal
    plan: Any
    run: Any
    masks: Any
    read: Signal
    read_enable: Signal
    stored: Signal
    words: Any
    mask_request: Any
    mask_words: Any
    emptied: Signal
    fault: Signal
    idle: Signal

    def __init__(self, *, sizes: Sizes) -> None:
        self.sizes = sizes
        cols = sizes.array.cols
        super().__init__(
            {
                "start": In(1), "descriptor": In(DESCRIPTOR_BITS), "plan": In(plan_layout(sizes)),
                "run": In(stream.Signature(run_layout(sizes))),
                "masks": In(stream.Signature(read_word(sizes.data_bits))),
                "read": Out(address_bits(2 * sizes.bank_rows)), "read_enable": Out(1),
                "stored": In(sizes.array.sum_bits * cols),
                "words": Out(stream.Signature(sizes.data_bits)), "mask_request": Out(stream.Signature(REQUEST)),
                "mask_words": Out(stream.Signature(sizes.data_bits)), "emptied": Out(1), "fault": Out(2),
                "idle": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        s, plan, d = self.sizes, self.plan, data.View(PRODUCT, self.descriptor)
        cols, run = s.array.cols, self.run.payload
        by_column = plan.columns_run
        wide = (d.flags & fmt.OUT_FP32).bool()
        applies = (d.flags & fmt.APPLY_MASK).bool() & ~wide

        # Fetch: a beat a cycle from the banks, with its mask bits.
        at, bank = Signal(len(run.length)), Signal()
        bit = Signal(range(s.data_bits + 8))
        m.submodules.epilogue = epilogue = Epilogue(lanes=cols)
        flow = data.StructLayout(
            {"count": cols.bit_length(), "first": 1, "last": 1, "row": len(run.row), "bit": 3, "mask": 64}
        )
        m.submodules.flow = queue = SyncFIFO(width=flow.size, depth=_IN_FLIGHT)
        hop = s.array.hop
        held, beat = Signal(), Signal(flow)
        lane, mask_now = Signal.like(run.lane), Signal(cols)
        accepts, room = Signal(), Signal()
        open_beats = Signal(range(in_flight(hop) + 1))  # with column halves: read from the banks, not yet accepted
        m.d.comb += room.eq(open_beats != in_flight(hop) if hop else ~held | accepts)
        bit_now = Mux(at == 0, run.bit, bit)
        last = Mux(by_column, at + 1 == run.length, 1)
        step = Signal()
        m.d.comb += [
            step.eq(self.run.valid & room & (~applies | self.masks.valid)), self.run.ready.eq(step & last),
            self.read.eq(Mux(bank, s.bank_rows, 0) + run.row + at), self.read_enable.eq(step),
            self.emptied.eq(step & last & run.last),
            self.masks.ready.eq(
                step & applies & (last | ((bit_now == s.data_bits - 1) & ~self.masks.payload.last))
            ),
            self.fault.eq(Mux(self.masks.valid & self.masks.ready, self.masks.payload.error, 0)),
        ]  # fmt: skip
        with m.If(step):
            m.d.sync += [
                at.eq(Mux(last, 0, at + 1)), bit.eq(Mux(bit_now == s.data_bits - 1, 0, bit_now + 1)),
                bank.eq(bank ^ (last & run.last)),
                lane.eq(run.lane), mask_now.eq(self.masks.payload.data >> bit_now),
                beat.count.eq(Mux(by_column, 1, run.length)), beat.first.eq(at == 0), beat.last.eq(last),
                beat.row.eq(run.row), beat.bit.eq(run.bit), beat.mask.eq(run.mask),
            ]  # fmt: skip
        m.d.sync += held.eq(step if hop else step | (held & ~accepts))
        with m.If(self.start):
            m.d.sync += [at.eq(0), bank.eq(0)]

        if hop:
            held, lane, beat, mask_now = self._later(m, held, lane, beat, mask_now)
        one = Signal(s.array.sum_bits)
        m.d.comb += one.eq(self.stored.word_select(lane, s.array.sum_bits))
        x = Mux(by_column, one, self.stored)
        waits = held
        if hop:
            held, beat, mask_now, x = self._arrived(m, held, beat, mask_now, x, accepts)
            m.d.sync += open_beats.eq(open_beats + step - (held & accepts))
            waits = open_beats != 0
        if s.array.window:
            held, beat, mask_now, x, accepts = self._drain(m, held, beat, mask_now, x, accepts, wide)
            waits = waits | self._drains

        # Through the epilogue, or past it; what belongs to a beat waits in the queue.
        word = epilogue.i.payload
        m.d.comb += [
            word.x.eq(x), word.mask.eq(mask_now), word.relu.eq((d.flags & fmt.RELU).bool()),
            word.apply_mask.eq(applies),
            epilogue.i.valid.eq(held & ~wide & queue.w_rdy), queue.w_data.eq(beat),
            queue.w_en.eq(held & ~wide & epilogue.i.ready & queue.w_rdy),
        ]  # fmt: skip
        result = data.View(flow, Mux(wide, beat.as_value(), queue.r_data))
        payload, there, taken = Signal(32 * cols), Signal(), Signal()
        m.d.comb += [
            payload.eq(Mux(wide, x, epilogue.o.payload.x16)), there.eq(Mux(wide, held, epilogue.o.valid)),
            accepts.eq(Mux(wide, taken, epilogue.i.ready & queue.w_rdy)),
            epilogue.o.ready.eq(taken & ~wide), queue.r_en.eq(taken & ~wide & epilogue.o.valid),
        ]  # fmt: skip
        mask_taken = self._masks(m, d, result, epilogue.o.payload.mask, there & ~wide, taken)
        words_taken = self._pack(m, result, payload, there, wide, by_column, mask_taken)
        m.d.comb += taken.eq(there & words_taken & mask_taken)
        m.d.comb += self.idle.eq(~self.run.valid & ~waits & ~queue.r_rdy & ~self._masks_wait)
        return m

    def _later(self, m: Module, held: Value, lane: Value, beat: Any, mask: Value) -> tuple[Value, Value, Any, Value]:
        """What belongs to a word of the banks, as much later as their address and the word pass registers."""
        cycles = 2 * self.sizes.array.hop
        of_word = across(m, Cat(lane, mask, beat.as_value()), cycles, "beat", payload=True)
        first, second = len(lane), len(lane) + len(mask)
        beat = data.View(beat.shape(), of_word[second:])
        return across(m, held, cycles, "held"), of_word[:first], beat, of_word[first:second]

    def _arrived(
        self, m: Module, held: Value, beat: Any, mask: Value, x: Value, accepts: Value
    ) -> tuple[Value, Any, Value, Value]:
        """Beats that have come from the banks and wait to be accepted; there is room for all that were asked for."""
        layout = data.StructLayout({"beat": beat.shape(), "mask": len(mask), "x": len(x)})
        m.submodules.arrived = queue = SyncFIFO(width=layout.size, depth=in_flight(self.sizes.array.hop))
        front = data.View(layout, queue.r_data)
        m.d.comb += [
            queue.w_data.eq(Cat(beat.as_value(), mask, x)), queue.w_en.eq(held), queue.r_en.eq(accepts),
        ]  # fmt: skip
        return queue.r_rdy, front.beat, front.mask, front.x

    def _drain(
        self, m: Module, held: Value, beat: Any, mask: Value, x: Value, accepts: Value, wide: Value
    ) -> tuple[Value, Any, Value, Value, Value]:
        """A beat's sum words as binary32: there, beat, mask bits, values, and the signal that takes them."""
        cols = self.sizes.array.cols
        layout = data.StructLayout({"beat": beat.shape(), "mask": cols})
        m.submodules.drain = drain = Drain(window=self.sizes.array.window, lanes=cols)
        m.submodules.drained = queue = SyncFIFO(width=layout.size, depth=_IN_FLIGHT)
        behind, taken = data.View(layout, queue.r_data), Signal(name="drain_taken")
        m.d.comb += [
            drain.i.payload.x.eq(x), drain.i.payload.odd.eq(~wide), drain.i.valid.eq(held & queue.w_rdy),
            queue.w_data.eq(Cat(beat.as_value(), mask)), queue.w_en.eq(held & drain.i.ready),
            accepts.eq(drain.i.ready & queue.w_rdy),
            drain.o.ready.eq(taken), queue.r_en.eq(drain.o.valid & taken),
        ]  # fmt: skip
        self._drains = queue.r_rdy
        return drain.o.valid, behind.beat, behind.mask, drain.o.payload.x, taken

    def _pack(
        self, m: Module, result: Any, payload: Value, there: Value, wide: Value, by_column: Value, go: Value
    ) -> Value:
        """Beats into words; true when the beat at hand is done this cycle."""
        bits = self.sizes.data_bits
        row_bits = 32 * self.sizes.array.cols
        pieces = -(-row_bits // bits)
        held, fill, piece = Signal(bits), Signal(range(bits // 16 + 1)), Signal(range(pieces + 1))
        # Rows: a word after the other.
        size = Signal(range(row_bits + 1))
        m.d.comb += size.eq(result.count << Mux(wide, 5, 4))
        row_word = Signal(bits)
        m.d.comb += row_word.eq(payload >> (piece * bits) if pieces > 1 else payload)
        row_last = (piece + 1) * bits >= size
        # Values: one behind the other, in halves of 16 bits.
        together = Signal(bits)
        slots = []
        for half in range(bits // 16):
            part = payload[16:32] if half % 2 else payload[:16]
            mine = Mux(wide, Mux(fill == half // 2, part, 0), Mux(fill == half, payload[:16], 0))
            slot = Signal(16, name=f"slot{half}")
            m.d.comb += slot.eq(held.word_select(half, 16) | mine)
            slots.append(slot)
        m.d.comb += together.eq(Cat(slots))
        whole = (fill + 1 == Mux(wide, bits // 32, bits // 16)) | result.last
        gives = Mux(by_column, whole, 1)
        m.d.comb += [
            self.words.payload.eq(Mux(by_column, together, row_word)), self.words.valid.eq(there & gives & go),
        ]  # fmt: skip
        moved = self.words.valid & self.words.ready
        done = Signal()
        m.d.comb += done.eq(Mux(by_column, ~gives | self.words.ready, row_last & self.words.ready))
        with m.If(by_column & there & go & (~gives | self.words.ready)):
            m.d.sync += [fill.eq(Mux(whole, 0, fill + 1)), held.eq(Mux(whole, 0, together))]
        with m.If(~by_column & moved):
            m.d.sync += piece.eq(Mux(row_last, 0, piece + 1))
        return done

    def _masks(self, m: Module, d: Any, result: Any, bits: Value, there: Value, taken: Value) -> Value:
        """Whole bytes of a row's mask; bits of a part byte wait for the next tile. True when there is room."""
        s, cols = self.sizes, self.sizes.array.cols
        writes = (d.flags & fmt.WRITE_MASK).bool() & there
        m.submodules.rests = rests = Rests(rows=s.bank_rows)
        span = cols + 8
        together, count = Signal(span), Signal(range(span + 1))
        used = (Const(1, cols + 1) << result.count) - 1
        m.d.comb += [
            rests.row.eq(result.row), rests.enable.eq(writes & taken),
            together.eq(Mux(result.bit == 0, 0, rests.rest) | ((bits & used[:cols]) << result.bit)),
            count.eq(result.bit + result.count), rests.keep.eq(together >> (count[3:] << 3)),
        ]  # fmt: skip
        whole = count >> 3
        size = address_bits(span // 8 + 1)
        layout = data.StructLayout({"address": 64, "bytes": size, "bits": span})
        m.submodules.bytes = queue = SyncFIFO(width=layout.size, depth=4)
        new = Signal(layout)
        m.d.comb += [
            new.address.eq(result.mask), new.bytes.eq(whole), new.bits.eq(together),
            queue.w_data.eq(new), queue.w_en.eq(writes & (whole != 0) & taken),
        ]  # fmt: skip
        head, sent = data.View(layout, queue.r_data), Signal(2)
        both = (sent[0] | self.mask_request.ready) & (sent[1] | self.mask_words.ready)
        m.d.comb += [
            self.mask_request.payload.address.eq(head.address), self.mask_request.payload.bytes.eq(head.bytes),
            self.mask_request.valid.eq(queue.r_rdy & ~sent[0]),
            self.mask_words.payload.eq(head.bits), self.mask_words.valid.eq(queue.r_rdy & ~sent[1]),
            queue.r_en.eq(queue.r_rdy & both),
        ]  # fmt: skip
        with m.If(queue.r_rdy & both):
            m.d.sync += sent.eq(0)
        with m.Elif(queue.r_rdy):
            m.d.sync += sent.eq(sent | Cat(self.mask_request.ready, self.mask_words.ready))
        self._masks_wait = queue.r_rdy
        return ~writes | queue.w_rdy
