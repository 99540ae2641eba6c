"""A client's reads: its bursts, the beats that come back, and their bytes moved into place."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from .axi import Response
from .memory_port import MemoryFault, ReadClient
from .run_splitter import BURST, SETTINGS, RunSplitter
from .stream import require


def worst(a: Value, b: Value) -> Value:
    """The larger of two faults."""
    return Mux(a > b, a, b)


def fault_of(response: Value) -> Value:
    """The fault that an AXI response means: EXOKAY, which nobody asked for, is none."""
    return Mux(response == Response.EXOKAY, MemoryFault.NONE, response)


class ReadPort(wiring.Component):
    """A burst is asked for only when the beat buffer has room for all of it: the bus never waits for a client.

    A run at a word boundary leaves a word a cycle. At another address its first beat leaves no word, and if it has as
    many beats as words (two or more) its last word takes a cycle without a beat.

    Latency: 4 cycles from request to read address on an idle bus (:mod:`.dma`), 3 from beat to word. Reset forgets all
    runs; the bus must be reset with it.

    Parameters
    ----------
    data_bits, burst_beats, absolute
        See :class:`.run_splitter.RunSplitter`.
    buffer_beats : int
        Beats that may be asked for or waiting, at least ``burst_beats`` and 4.
    queued_runs : int
        Runs that may be asked for or waiting.

    Ports
    -----
    client : in, :class:`.memory_port.ReadClient`
    image_base, range_low, range_high, refuse : in
        See RunSplitter.
    burst : out, stream of BURST
    beat, beat_data, beat_response : in, 1, data_bits, 2
        A beat of the oldest burst; always taken.
    idle : out, 1
        No run is under way and no word waits.
    """

    def __init__(
        self, *, data_bits: int, burst_beats: int, buffer_beats: int, queued_runs: int, absolute: bool = False
    ) -> None:
        self.splitter = {"data_bits": data_bits, "burst_beats": burst_beats, "absolute": absolute}
        self.data_bits, self.burst_beats = data_bits, burst_beats
        self.buffer_beats = require("read port", "buffer_beats", buffer_beats, max(4, burst_beats), 1 << 16)
        self.queued_runs = require("read port", "queued_runs", queued_runs, 1, 1 << 10)
        super().__init__({
            "client": In(ReadClient(data_bits)),
            **{name: In(width) for name, width in SETTINGS.items()},
            "burst": Out(stream.Signature(BURST)),
            "beat": In(1), "beat_data": In(data_bits), "beat_response": In(2), "idle": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.splitter = splitter = RunSplitter(**self.splitter)
        m.submodules.runs = runs = fifo.SyncFIFO(width=splitter.run_layout.size, depth=self.queued_runs)
        m.submodules.beats = beats = fifo.SyncFIFOBuffered(width=self.data_bits + 2, depth=self.buffer_beats)
        wiring.connect(m, wiring.flipped(self.client.request), splitter.request)
        room = Signal(range(self.buffer_beats + 1), init=self.buffer_beats)  # beats neither asked for nor waiting
        asked = Signal(range(self.burst_beats + 1))
        has_room = Signal()
        m.d.comb += [
            *(getattr(splitter, name).eq(getattr(self, name)) for name in SETTINGS),
            splitter.drop.eq(1),
            runs.w_data.eq(splitter.run.payload), runs.w_en.eq(splitter.run.valid), splitter.run.ready.eq(runs.w_rdy),
            has_room.eq(room > splitter.burst.payload.beats),
            self.burst.payload.eq(splitter.burst.payload),
            self.burst.valid.eq(splitter.burst.valid & has_room),
            splitter.burst.ready.eq(self.burst.ready & has_room),
            asked.eq(Mux(self.burst.valid & self.burst.ready, splitter.burst.payload.beats + 1, 0)),
            beats.w_data.eq(Cat(self.beat_data, fault_of(self.beat_response)[:2])), beats.w_en.eq(self.beat),
        ]  # fmt: skip
        m.d.sync += room.eq(room - asked + (beats.r_rdy & beats.r_en))
        self._shift(m, data.View(splitter.run_layout, runs.r_data), runs, beats)
        m.d.comb += self.idle.eq(splitter.idle & ~runs.r_rdy & ~self.client.words.valid)
        return m

    def _shift(self, m: Module, run: Any, runs: Any, beats: Any) -> None:
        """From beats to words: a run's words are its beats shifted down by its offset, over the border of beats."""
        words = self.client.words
        out = words.payload
        begun, left, held, fault = Signal(), Signal(len(run.words)), Signal(self.data_bits), Signal(2)
        direct = (run.offset == 0) | ((run.words == 1) & ~run.extra)  # a word for each beat
        last, tail, emits, moves = Signal(), Signal(), Signal(), Signal()
        beat, response = beats.r_data[: self.data_bits], beats.r_data[self.data_bits :]
        found = Signal(2)
        m.d.comb += [
            tail.eq(begun & (left == 1) & ~run.extra & (run.offset != 0)),  # all of the last word has come
            last.eq(run.refused | Mux(begun, left == 1, direct & (run.words == 1))),
            emits.eq(begun | direct | run.refused),
            moves.eq(runs.r_rdy & (~words.valid | words.ready) & (beats.r_rdy | tail | run.refused)),
            beats.r_en.eq(moves & ~tail & ~run.refused),
            runs.r_en.eq(moves & emits & last),
            found.eq(Mux(run.refused, MemoryFault.RANGE, worst(Mux(begun, fault, 0), Mux(tail, 0, response)))),
        ]
        with m.If(words.ready):
            m.d.sync += words.valid.eq(0)
        with m.If(moves):
            low = Mux(direct, beat, held)
            m.d.sync += [
                words.valid.eq(emits), out.last.eq(last), out.error.eq(found),
                out.data.eq(Cat(low, beat) >> (run.offset << 3)),
                begun.eq(~(emits & last)), held.eq(beat), fault.eq(found),
                left.eq(Mux(begun, left - 1, run.words - direct)),
            ]  # fmt: skip
