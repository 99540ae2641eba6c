"""A client's writes: its words moved to their place in beats, gathered, and answered."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .axi import MAX_OUTSTANDING
from .memory_port import QUEUE, MemoryFault, WriteClient
from .read_port import fault_of, worst
from .run_splitter import BURST, SETTINGS, RunSplitter
from .stream import require


class WritePort(wiring.Component):
    """A burst is offered only when all its beats are in the buffer: the bus never waits for a client.

    A run takes a beat a cycle, runs follow one another without a gap: words are moved up to ``QUEUE`` runs before their
    burst is granted. A first word moves 3 cycles after its request at the earliest.
    Reset forgets all runs; the bus must be reset with it.

    Parameters
    ----------
    data_bits, burst_beats, absolute
        See :class:`.run_splitter.RunSplitter`.
    buffer_beats : int
        Beats that may wait, at least ``burst_beats`` and 4.
    queued_runs : int
        Runs that may be under way, until their ``done`` is taken.

    Ports
    -----
    client : in, :class:`.memory_port.WriteClient`
    image_base, range_low, range_high, refuse : in
        See RunSplitter.
    burst : out, stream of BURST
    beat, beat_data, beat_strobe, next : out, out, out and in; 1, data_bits, data_bits / 8, 1
        The beats of the granted bursts in order; ``next`` takes one.
    answer, answer_response, answer_last : in, 1, 2, 1
        A write response, and whether it is that of a run's last burst.
    idle : out, 1
        No run is under way and every ``done`` is taken.
    """

    def __init__(
        self, *, data_bits: int, burst_beats: int, buffer_beats: int, queued_runs: int, absolute: bool = False
    ) -> None:
        self.splitter = {
            "data_bits": data_bits, "burst_beats": burst_beats, "waiting_runs": QUEUE, "absolute": absolute
        }  # fmt: skip
        self.data_bits, self.burst_beats = data_bits, burst_beats
        self.buffer_beats = require("write port", "buffer_beats", buffer_beats, max(4, burst_beats), 1 << 16)
        self.queued_runs = require("write port", "queued_runs", queued_runs, 1, 1 << 10)
        super().__init__({
            "client": In(WriteClient(data_bits)),
            **{name: In(width) for name, width in SETTINGS.items()},
            "burst": Out(stream.Signature(BURST)),
            "beat": Out(1), "beat_data": Out(data_bits), "beat_strobe": Out(data_bits // 8), "next": In(1),
            "answer": In(1), "answer_response": In(2), "answer_last": In(1), "idle": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        strobes = self.data_bits // 8
        m.submodules.splitter = splitter = RunSplitter(**self.splitter)
        m.submodules.runs = runs = fifo.SyncFIFO(width=splitter.run_layout.size, depth=QUEUE)
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(width=self.data_bits + strobes, depth=self.buffer_beats)
        m.submodules.dones = dones = fifo.SyncFIFO(width=2, depth=self.queued_runs)
        wiring.connect(m, wiring.flipped(self.client.request), splitter.request)
        burst, done = splitter.burst, self.client.done
        under_way = Signal(range(self.queued_runs + 1))  # runs
        waiting = Signal(range(self.buffer_beats + 1))  # beats of bursts not yet granted
        in_flight = Signal(range(MAX_OUTSTANDING + 1))  # granted bursts without an answer
        dropped = Signal(range(QUEUE + 2))  # refused runs whose words are gone
        fault, drops, enters = Signal(2), Signal(), Signal()
        whole, granted, accepted = Signal(), Signal(), Signal()
        m.d.comb += [
            *(getattr(splitter, name).eq(getattr(self, name)) for name in SETTINGS),
            accepted.eq(splitter.run.valid & splitter.run.ready),
            runs.w_data.eq(splitter.run.payload),
            runs.w_en.eq(accepted),
            splitter.run.ready.eq(runs.w_rdy & (under_way != self.queued_runs)),
            whole.eq(waiting > burst.payload.beats),
            self.burst.payload.eq(burst.payload),
            self.burst.valid.eq(burst.valid & whole),
            burst.ready.eq(self.burst.ready & whole),
            granted.eq(self.burst.valid & self.burst.ready),
            self.beat.eq(beats.r_rdy), self.beat_data.eq(beats.r_data[: self.data_bits]),
            self.beat_strobe.eq(beats.r_data[self.data_bits :]), beats.r_en.eq(self.next),
            splitter.drop.eq((dropped != 0) & (in_flight == 0)),
            done.valid.eq(dones.r_rdy), done.payload.eq(dones.r_data), dones.r_en.eq(done.ready),
            self.idle.eq(splitter.idle & (under_way == 0)),
        ]  # fmt: skip
        refused = splitter.refused & splitter.drop
        error = worst(fault, fault_of(self.answer_response)[:2])
        m.d.comb += [
            dones.w_en.eq((self.answer & self.answer_last) | refused),
            dones.w_data.eq(Mux(refused, MemoryFault.RANGE, error)),
        ]
        with m.If(self.answer):
            m.d.sync += fault.eq(Mux(self.answer_last, 0, error))
        m.d.sync += [
            under_way.eq(under_way + accepted - (done.valid & done.ready)),
            in_flight.eq(in_flight + granted - self.answer),
            dropped.eq(dropped + drops - refused),
            waiting.eq(waiting + enters - Mux(granted, burst.payload.beats + 1, 0)),
        ]
        self._shift(m, data.View(splitter.run_layout, runs.r_data), runs, beats, enters, drops)
        return m

    def _shift(self, m: Module, run: Any, runs: Any, beats: Any, enters: Signal, drops: Signal) -> None:
        """From words to beats, one a cycle, through a register into the buffer."""
        words, strobes = self.client.words, self.data_bits // 8
        begun, left, held = Signal(), Signal(len(run.words)), Signal(self.data_bits)
        room = Signal(range(self.buffer_beats + 1), init=self.buffer_beats)
        rest, last, moves = Signal(len(run.words)), Signal(), Signal()
        made, made_data, made_strobe = Signal(), Signal(self.data_bits), Signal(strobes)
        wants = Signal()  # a word
        m.d.comb += [  # a refused run may be empty
            rest.eq(Mux(begun, left, run.words)),
            wants.eq(rest != 0),
            last.eq(Mux(run.refused, rest[1:] == 0, Mux(run.extra, rest == 0, rest == 1))),
            words.ready.eq(runs.r_rdy & wants & (run.refused | (room != 0))),
            moves.eq(Mux(wants, words.ready & words.valid, runs.r_rdy & (room != 0))),
            runs.r_en.eq(moves & last),
            drops.eq(moves & last & run.refused),
            beats.w_en.eq(made), beats.w_data.eq(Cat(made_data, made_strobe)),
            enters.eq(made),
        ]  # fmt: skip
        makes = moves & ~run.refused
        m.d.sync += [made.eq(makes), room.eq(room - makes + (beats.r_rdy & beats.r_en))]
        with m.If(moves):
            # word over the held one, moved up by the offset: the top word of their shift
            shifted = Cat(held, words.payload) << (run.offset << 3)
            places = [Const(k, len(run.offset)) for k in range(strobes)]
            m.d.sync += [
                begun.eq(~last), left.eq(rest - wants), held.eq(words.payload),
                made_data.eq(shifted[self.data_bits : 2 * self.data_bits]),
                made_strobe.eq(Cat((begun | (k >= run.offset)) & (~last | (k <= run.end)) for k in places)),
            ]  # fmt: skip
