"""Pooling behind the vector lanes: places of a window come one run after the other, their maximum or mean leaves."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arithmetic.converters import Narrow, Widen
from .arithmetic.fp32_adder import Fp32Adder
from .arithmetic.ftz import FtzMultiplier
from .arithmetic.stages import delay
from .emit import place
from .pool_walk import SEGMENT
from .queue import Queue
from .vector_lane import relu

POOL = data.StructLayout({"on": 1, "mean": 1, "relu": 1, "before": 1, "share": 32})
"""Whether there is a window; its mean, else its maximum; ReLU of the result, ReLU in front; binary32 of 1 / places."""
PLACE = data.StructLayout({"count": range(SEGMENT + 1), "first": 1, "last": 1, "emit": 1, "second": 1, "index": 16})
"""A run: elements; which of its window's places inside the image it is; whether results leave with it; whether it is a
gradient that goes to the largest place, and which place of the window this is."""


class MeanLane(wiring.Component):
    """A lane's sum and its share: ``total = before + x`` after La + 1 cycles, ``result`` of that after 6 more.

    Equals the sum in binary32 and ``narrow(total * share)``. No reset: results follow the operands.

    Parameters
    ----------
    adder_latency : int
        La.

    Ports
    -----
    x : in, 16
    before, share : in, 32
    total : out, 32
    result : out, 16
    """

    def __init__(self, *, adder_latency: int) -> None:
        self.adder_latency = adder_latency
        super().__init__({"x": In(16), "before": In(32), "share": In(32), "total": Out(32), "result": Out(16)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        wide = place(m, platform, "widen", Widen)
        adder = place(m, platform, "adder", Fp32Adder, latency=self.adder_latency)
        multiplier = place(m, platform, "multiplier", FtzMultiplier)
        narrow = place(m, platform, "narrow", Narrow)
        m.d.comb += [unit.en.eq(1) for unit in (wide, adder, multiplier, narrow)]
        m.d.comb += [
            wide.x.eq(self.x),
            adder.a.eq(delay(m, 1, "before", self.before, Widen.latency)),
            adder.b.eq(wide.y),
            self.total.eq(adder.y),
            multiplier.a.eq(adder.y),
            multiplier.b.eq(self.share),
            narrow.x.eq(multiplier.y),
            self.result.eq(narrow.y),
        ]
        return m


class PoolStage(wiring.Component):
    """Words of the lanes to words of the result; without a window they pass as they are, in the same cycle.

    Maximum: the first of equals, a NaN is larger than all; a word a cycle, results leave with the last place's words.
    Mean: places are added in their order in binary32, from +0. A run begins when every word of the run before has been
    added, so a place takes its words and La + 1 cycles, the last one 6 more; results wait in a queue of one run, which
    must be empty when a last place begins.

    Backward, a mean's place is a window of its own: +0 plus the gradient, times the share. A maximum's window comes
    twice, first its values, then for each place the gradient, which leaves where the place is the largest and the ReLUs
    before and behind the pool let it pass; +0 elsewhere. Reset drops what is inside.

    Parameters
    ----------
    lanes, adder_latency : int

    Ports
    -----
    pool : in
        :data:`POOL`, steady while words are inside.
    place : in, stream of PLACE
        Of every run, there when its first word comes.
    i, o : in and out, streams of ``lanes`` binary16
    """

    def __init__(self, *, lanes: int, adder_latency: int) -> None:
        self.lanes, self.adder_latency = lanes, adder_latency
        super().__init__(
            {
                "pool": In(POOL),
                "place": In(stream.Signature(PLACE)),
                "i": In(stream.Signature(16 * lanes)),
                "o": Out(stream.Signature(16 * lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        words = SEGMENT // self.lanes
        number, there = Signal(range(max(2, words))), self.place.payload
        ends, taken, found = Signal(), Signal(), Signal(16 * self.lanes)
        m.d.comb += [
            ends.eq((number + 1) * self.lanes >= there.count),
            taken.eq(self.i.valid & self.i.ready),
            self.place.ready.eq(taken & ends),
            self.o.payload.eq(
                Cat(Mux(self.pool.relu & ~there.second, relu(value), value) for value in _lanes(found, self.lanes))
            ),
        ]
        with m.If(taken):
            m.d.sync += number.eq(Mux(ends, 0, number + 1))
        best = self._largest(m, words, number, taken)
        ready, mean, mean_valid = self._mean(m, platform, words, number, taken)
        with m.If(~self.pool.on):
            m.d.comb += [self.o.valid.eq(self.i.valid & self.place.valid), found.eq(self.i.payload)]
            m.d.comb += self.i.ready.eq(self.o.ready & self.place.valid)
        with m.Elif(self.pool.mean):
            m.d.comb += [self.o.valid.eq(mean_valid), found.eq(mean), self.i.ready.eq(ready)]
        with m.Else():
            m.d.comb += [self.o.valid.eq(self.i.valid & self.place.valid & there.emit), found.eq(best)]
            m.d.comb += self.i.ready.eq(self.place.valid & (self.o.ready | ~there.emit))
        return m

    def _largest(self, m: Module, words: int, number: Any, taken: Any) -> Any:
        """The larger of a word and what the window's places before it gave; the second time, gradients."""
        width = 16 * self.lanes
        m.submodules.best = memory = Memory(shape=2 * width, depth=words, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        there, pool = self.place.payload, self.pool
        kept, chosen, gradients = [], [], []
        news, olds = _lanes(self.i.payload, self.lanes), _lanes(read.data[:width], self.lanes)
        for new, old, place_of in zip(news, olds, _lanes(read.data[width:], self.lanes), strict=True):
            better = there.first | _larger(new, old)
            kept.append(Mux(better, new, old))
            chosen.append(Mux(better, there.index, place_of))
            passes = (~pool.before | old[:15].any()) & (~pool.relu | relu(old).any())
            goes = (place_of == there.index) & passes & new[:15].any()  # -0 plus +0 is +0
            gradients.append(Mux(goes, new, 0))
        m.d.comb += [
            read.addr.eq(number),
            write.addr.eq(number),
            write.data.eq(Cat(*kept, *chosen)),
            write.en.eq(taken & ~there.second),
        ]
        return Mux(there.second, Cat(gradients), Cat(kept))

    def _mean(self, m: Module, platform: Any, words: int, number: Any, taken: Any) -> tuple[Any, Any, Any]:
        """Sums of the places, then their share; (whether a word may enter, result, whether there is one)."""
        m.submodules.sums = memory = Memory(shape=32 * self.lanes, depth=words, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.submodules.results = results = Queue(16 * self.lanes, max(2, words))
        there = self.place.payload
        lanes = [place(m, platform, f"mean{k}", MeanLane, adder_latency=self.adder_latency) for k in range(self.lanes)]
        for k, lane in enumerate(lanes):
            m.d.comb += [
                lane.x.eq(self.i.payload.word_select(k, 16)),
                lane.before.eq(Mux(there.first, 0, read.data.word_select(k, 32))),
                lane.share.eq(self.pool.share),
            ]
        steps = self.adder_latency + 1
        entered = taken & self.pool.mean & self.pool.on
        moving = _Late(m, "sum", entered, steps)  # valid, of every stage
        leaving = _Late(m, "share", moving.last & delay(m, 1, "is_last", there.last, steps), 6)
        m.d.comb += [
            read.addr.eq(number),
            write.addr.eq(delay(m, 1, "number", number, steps)),
            write.data.eq(Cat(lane.total for lane in lanes)),
            write.en.eq(moving.last),
            results.i.valid.eq(leaving.last),
            results.i.payload.eq(Cat(lane.result for lane in lanes)),
            results.o.ready.eq(self.o.ready),
        ]
        idle = ~moving.some & ~leaving.some & (~there.last | (results.level == 0))
        return self.place.valid & ((number != 0) | idle), results.o.payload, results.o.valid


class _Late:
    """A bit through a chain of registers that reset clears."""

    def __init__(self, m: Module, name: str, bit: Any, steps: int) -> None:
        chain = Signal(steps, name=f"{name}_moving")
        m.d.sync += chain.eq(Cat(bit, chain)[:steps])
        self.last, self.some = chain[steps - 1], chain.any()


def _lanes(word: Any, lanes: int) -> list[Any]:
    return [word[16 * k : 16 * (k + 1)] for k in range(lanes)]


def _larger(new: Any, old: Any) -> Any:
    """``new > old`` as numbers, where a NaN is larger than all but a NaN."""
    nan_new, nan_old = _nan(new), _nan(old)
    both_zero = ~new[:15].any() & ~old[:15].any()
    above = Mux(
        new[15],
        old[15] & (new[:15] < old[:15]),
        old[15] | (new[:15] > old[:15]),
    )
    return ~nan_old & (nan_new | (above & ~both_zero))


def _nan(x: Any) -> Any:
    return (x[10:15] == 31) & x[:10].any()
