"""The output epilogue: binary32 sums to binary16, ReLU and its mask, the mask applied to gradients."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from .arithmetic.converters import Narrow
from .arithmetic.stages import delay
from .emit import place
from .stream import pipeline, require


class Epilogue(wiring.Component):
    """Equals :func:`nmsat.models.golden.narrow`, then ``relu`` with ``relu_mask``, then ``apply_mask``, as asked for.

    Latency 4 cycles, a word a cycle: 2 to convert, 1 for ReLU and masks, 1 skid buffer. Reset drops the words inside.
    Every word carries its own switches. Results that stay binary32 do not pass here.

    Parameters
    ----------
    lanes : int
        Values a cycle, the columns of the array.

    Ports
    -----
    i : in, stream
        ``x``: ``lanes`` binary32 values, first lane lowest; ``mask``: a bit a lane, first lane lowest, used where
        ``apply_mask`` is set; ``relu``, ``apply_mask``: switches.
    o : out, stream
        ``x16``: ``lanes`` binary16 values; ``mask``: where ReLU's result is not zero, a bit a lane. Successive words'
        masks, one after the other from the lowest bit, are :func:`nmsat.models.golden.pack_mask`'s plane.
    """

    latency = Narrow.latency + 2

    def __init__(self, *, lanes: int) -> None:
        self.lanes = require("epilogue", "lanes", lanes, 1, 4096)
        self.i_layout = data.StructLayout({"x": 32 * lanes, "mask": lanes, "relu": 1, "apply_mask": 1})
        self.o_layout = data.StructLayout({"x16": 16 * lanes, "mask": lanes})
        super().__init__({"i": In(stream.Signature(self.i_layout)), "o": Out(stream.Signature(self.o_layout))})

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> Epilogue:
        """One lane a column of the array."""
        return cls(lanes=accelerator.cols)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        result = Signal(self.o_layout, reset_less=True)
        en = pipeline(m, self.i, self.o, self.latency - 1, result.as_value())
        word = self.i.payload
        late = {name: delay(m, en, name, word[name], Narrow.latency) for name in ("mask", "relu", "apply_mask")}
        for number in range(self.lanes):
            narrow = place(m, platform, f"narrow{number}", Narrow)
            m.d.comb += [narrow.en.eq(en), narrow.x.eq(word.x.word_select(number, 32))]
            x16 = narrow.y
            positive = ~x16[15] & x16[:15].any()  # a NaN has no sign and passes
            zero = (late["relu"] & x16[15]) | (late["apply_mask"] & ~late["mask"][number])
            with m.If(en):
                m.d.sync += [
                    result.x16.word_select(number, 16).eq(Cat(bit & ~zero for bit in x16)),
                    result.mask[number].eq(positive),
                ]
        return m
