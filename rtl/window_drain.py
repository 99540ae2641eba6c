"""The drain of the window accumulator: finished sum words to binary32, between output buffer and epilogue."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.golden.floats import NAN32
from ..models.window import Window
from .arithmetic.stages import normalise, registers
from .emit import place
from .stream import pipeline, require


class DrainLane(wiring.Component):
    """One sum word to binary32; equals :meth:`nmsat.models.golden.WindowSums.to_binary32`.

    Latency 4 enabled cycles, a result a cycle: magnitude, two halves of the normalising shift, rounding. No reset: the
    result follows the operand alone.

    Parameters
    ----------
    window : Window

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    x : in, sum_bits
        Sum word; of a flagged one only the two highest bits are read.
    odd : in, 1
        Round to odd, for a binary16 that is rounded behind; else nearest even.
    y : out, 32
        Binary32; the canonical NaN for a flagged word.
    """

    latency = 4

    def __init__(self, *, window: Window) -> None:
        self.window = window
        super().__init__({"en": In(1), "x": In(window.sum_bits), "odd": In(1), "y": Out(32)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.window.sum_bits - 2  # of a magnitude
        negative = self.x[bits + 1]
        magnitude = ((self.x[0:bits] ^ negative.replicate(bits)) + negative)[0:bits]
        s1 = registers(
            m, self.en, "s1", flag=negative & ~self.x[bits], negative=negative, odd=self.odd, magnitude=magnitude
        )  # fmt: skip
        coarse, current = [], s1.magnitude
        steps = [1 << place for place in reversed(range((bits - 1).bit_length()))]
        for step in [step for step in steps if step >= 16]:
            clear = ~current[bits - step :].any()
            coarse.append(clear)
            current = Mux(clear, Cat(Const(0, step), current[0 : bits - step]), current)
        s2 = registers(
            m, self.en, "s2", flag=s1.flag, negative=s1.negative, odd=s1.odd, places=Cat(reversed(coarse)),
            current=current,
        )  # fmt: skip
        # at most 15 places are left: the top 16 bits say how many
        fine, _ = normalise(m, s2.current[bits - 16 :], "fine")
        shifted = (s2.current << fine)[0:bits]
        top, rest = shifted[bits - 24 :], shifted[0 : bits - 24]
        s3 = registers(
            m, self.en, "s3", flag=s2.flag, negative=s2.negative, odd=s2.odd, zeros=Cat(fine, s2.places), kept=top,
            guard=rest[-1], sticky=rest[0:-1].any(),
        )  # fmt: skip
        inexact = s3.guard | s3.sticky
        up = ~s3.odd & s3.guard & (s3.sticky | s3.kept[0])
        exponent = 127 + bits - 1 - self.window.lsb - s3.zeros
        fraction = Cat(s3.kept[0] | (s3.odd & inexact), s3.kept[1:23])
        word = (Cat(fraction, exponent[0:8]) + up)[0:31]
        with m.If(self.en):
            m.d.sync += self.y.eq(Mux(s3.flag, NAN32, Mux(s3.kept[23], Cat(word, s3.negative), 0)))
        return m


class Drain(wiring.Component):
    """Equals :meth:`nmsat.models.golden.WindowSums.to_binary32` on every lane.

    Latency 5 cycles, a word a cycle: 4 to convert, 1 skid buffer. Reset drops the words inside.

    Parameters
    ----------
    window : Window
    lanes : int
        Values a cycle, the columns of the array.

    Ports
    -----
    i : in, stream
        ``x``: ``lanes`` sum words, first lane lowest; ``odd``: round to odd.
    o : out, stream
        ``x``: ``lanes`` binary32 values.
    """

    latency = DrainLane.latency + 1

    def __init__(self, *, window: Window, lanes: int) -> None:
        self.window, self.lanes = window, require("drain", "lanes", lanes, 1, 4096)
        self.i_layout = data.StructLayout({"x": window.sum_bits * lanes, "odd": 1})
        self.o_layout = data.StructLayout({"x": 32 * lanes})
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout))})

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> Drain:
        """One lane a column of the array; NmsatError unless it sums in a window."""
        if accelerator.window is None:
            raise NmsatError.rule(f"accelerator {accelerator.name!r}", "accumulator", "window for a drain", "fp32")
        return cls(window=accelerator.window, lanes=accelerator.cols)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        result = Signal(self.o_layout)
        en = pipeline(m, self.i, self.o, DrainLane.latency, result.as_value())
        for number in range(self.lanes):
            lane: Any = place(m, platform, f"lane{number}", DrainLane, window=self.window)
            m.d.comb += [
                lane.en.eq(en), lane.x.eq(self.i.payload.x.word_select(number, self.window.sum_bits)),
                lane.odd.eq(self.i.payload.odd), result.x.word_select(number, 32).eq(lane.y),
            ]  # fmt: skip
        return m
