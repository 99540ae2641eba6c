"""From runs of bytes to AXI bursts: image base, range guard, cutting at burst boundaries."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Shape, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..models.errors import NmsatError
from .axi import MAX_BEATS, PAGE_BYTES, check_data_bits
from .memory_port import QUEUE, REQUEST
from .stream import require

BURST = data.StructLayout({"address": 64, "beats": 8, "last": 1})
"""A burst: address of its first beat, beats less one, whether it is its run's last."""

SETTINGS = {"image_base": 64, "range_low": 64, "range_high": 64, "refuse": 1}
"""Inputs of every port, and their widths: what is added to addresses, where accesses may go, whether any may."""


def check_burst_beats(burst_beats: int, data_bits: int) -> int:
    """Longest burst in beats: a power of two within 256 beats and 4 KB; NmsatError otherwise."""
    limit = min(MAX_BEATS, PAGE_BYTES * 8 // check_data_bits(data_bits))
    if require("dma", "burst_beats", burst_beats, 1, limit) & (burst_beats - 1):
        raise NmsatError.rule("dma", "burst_beats", "a power of two", burst_beats)
    return burst_beats


def run_layout(data_bits: int) -> data.StructLayout:
    """What a shifter knows of a run.

    ``offset`` and ``end``: place in its beat of the first and the last byte; ``words``: packed words; ``extra``: one
    beat more than words; ``refused``.
    """
    places = ceil_log2(data_bits // 8)
    return data.StructLayout({"offset": places, "end": places, "words": 33 - places, "extra": 1, "refused": 1})


def _cut_layout(data_bits: int) -> data.StructLayout:
    """What cutting needs of a run: the number of its first beat, how many there are, whether it is refused."""
    places = ceil_log2(data_bits // 8)
    return data.StructLayout({"beat": 64 - places, "beats": 33 - places, "refused": 1})


class RunSplitter(wiring.Component):
    """Requests become bursts of at most ``burst_beats``, none across a multiple of ``burst_beats`` beats.

    As that many beats divide 4 KB, no burst crosses a 4 KB boundary. A run is refused if it is empty, if ``refuse`` is
    high, or if a byte of it lies outside ``range_low`` to ``range_high`` or beyond 2^64 after the base was added.

    Latency: 3 cycles from request to first burst, one more if runs wait to be cut. A burst a cycle, also when each is a
    run of its own.

    Parameters
    ----------
    data_bits, burst_beats : int
    waiting_runs : int
        Runs that are offered at ``run`` before those ahead of them are cut. 0: a run is offered when it is cut.
    absolute : bool
        No image base is added.

    Ports
    -----
    request : in, stream of REQUEST
        ``ready`` follows from registers.
    image_base, range_low, range_high, refuse : in, 64, 64, 64, 1
    run : out, stream of :func:`run_layout`
        A run, before its first burst is offered. Refused if ``refuse`` is high in the cycle in which it is taken.
    burst : out, stream of BURST
    refused, drop : out and in, 1
        A refused run stands before ``burst`` until ``drop`` is high.
    idle : out, 1
    """

    def __init__(self, *, data_bits: int, burst_beats: int, waiting_runs: int = 0, absolute: bool = False) -> None:
        self.data_bits, self.absolute = data_bits, absolute
        self.waiting_runs = require("dma", "waiting_runs", waiting_runs, 0, 64)
        self.burst_beats = check_burst_beats(burst_beats, data_bits)
        self.run_layout = run_layout(data_bits)
        super().__init__({
            "request": In(stream.Signature(REQUEST)),
            **{name: In(width) for name, width in SETTINGS.items()},
            "run": Out(stream.Signature(self.run_layout)), "burst": Out(stream.Signature(BURST)),
            "refused": Out(1), "drop": In(1), "idle": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        beat_bytes = self.data_bits // 8
        places = ceil_log2(beat_bytes)
        m.submodules.queue = queue = fifo.SyncFIFO(width=REQUEST.size, depth=QUEUE)
        asked = data.View(REQUEST, queue.r_data)
        m.d.comb += [
            queue.w_data.eq(self.request.payload),
            queue.w_en.eq(self.request.valid),
            self.request.ready.eq(queue.w_rdy),
        ]
        # the run's address and end are known
        located, first, size, wrapped = Signal(), Signal(64), Signal(32), Signal()
        # the run is being cut
        cutting, beat, left = Signal(), Signal(64 - places), Signal(33 - places)
        free, takes, leaves = Signal(), Signal(), Signal()  # of the cutting stage; it takes a run; located run moves on
        cut = Signal(_cut_layout(self.data_bits))  # the run to be cut
        m.d.comb += [
            free.eq(
                ~cutting | (self.refused & self.drop) | (self.burst.valid & self.burst.ready & self.burst.payload.last)
            ),
            leaves.eq(self.run.valid & self.run.ready),
            queue.r_en.eq(~located | leaves),
        ]
        with m.If(queue.r_en):
            start = asked.address if self.absolute else asked.address + self.image_base
            m.d.sync += [
                located.eq(queue.r_rdy),
                first.eq(start),
                size.eq(asked.bytes),
                wrapped.eq(start[64:] if len(start) > 64 else 0),
            ]
        end = first + size  # 65 bits
        run = self.run.payload
        beats = Signal(33 - places)
        total = first[:places] + size
        m.d.comb += [
            run.offset.eq(first[:places]),
            run.end.eq(total[:places] - 1),
            run.words.eq((size + (beat_bytes - 1)) >> places),
            beats.eq((total + (beat_bytes - 1)) >> places),
            run.extra.eq(beats != run.words),
            run.refused.eq(self.refuse | wrapped | (size == 0) | (first < self.range_low) | (end > self.range_high)),
        ]
        found = Signal.like(cut)
        m.d.comb += [found.beat.eq(first[places:]), found.beats.eq(beats), found.refused.eq(run.refused)]
        if self.waiting_runs:
            m.submodules.cuts = cuts = fifo.SyncFIFO(width=Shape.cast(cut.shape()).width, depth=self.waiting_runs)
            m.d.comb += [
                self.run.valid.eq(located & cuts.w_rdy), cuts.w_en.eq(leaves), cuts.w_data.eq(found.as_value()),
                takes.eq(cuts.r_rdy & free), cuts.r_en.eq(takes), cut.as_value().eq(cuts.r_data),
            ]  # fmt: skip
            waits = cuts.r_rdy
        else:
            m.d.comb += [self.run.valid.eq(located & free), takes.eq(leaves), cut.eq(found)]
            waits = Const(0)
        length = Signal(range(self.burst_beats + 1))
        room = self.burst_beats - beat[: ceil_log2(self.burst_beats)]  # beats to the next boundary
        fits = left <= room
        m.d.comb += [
            length.eq(Mux(fits, left, room)),
            self.burst.valid.eq(cutting & ~self.refused),
            self.burst.payload.address.eq(beat << places),
            self.burst.payload.beats.eq(length - 1),
            self.burst.payload.last.eq(fits),
            self.idle.eq(~cutting & ~waits & ~located & ~queue.r_rdy),
        ]
        with m.If(self.burst.valid & self.burst.ready):
            m.d.sync += [beat.eq(beat + length), left.eq(left - length)]
        with m.If(free):
            m.d.sync += [cutting.eq(takes), self.refused.eq(takes & cut.refused), beat.eq(cut.beat), left.eq(cut.beats)]
        return m
