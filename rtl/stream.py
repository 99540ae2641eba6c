"""Streams: a skid buffer, and fixed-latency pipelines between two handshakes."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Shape, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.errors import NmsatError


def require(block: str, name: str, value: Any, low: int, high: int) -> int:
    """``value`` if it is an integer from ``low`` to ``high``; else NmsatError."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise NmsatError.rule(block, name, f"{low} to {high}", value)
    return value


class SkidBuffer(wiring.Component):
    """Two words of storage that cut both directions of a stream: ``ready`` and ``valid`` come from registers.

    Latency 1 cycle, a word a cycle. Reset empties it. Words leave as they came: none lost, repeated or reordered
    (proved, tests/test_rtl_proofs.py).

    Parameters
    ----------
    width : int
        Bits of a word.

    Ports
    -----
    i : in, stream of ``width`` bits
    o : out, stream of ``width`` bits
    """

    latency = 1

    def __init__(self, *, width: int) -> None:
        self.width = require("skid buffer", "width", width, 1, 1 << 20)
        self.spare = Signal(width, reset_less=True)  # held while i.ready is low; proofs look at it
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(width))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spare = self.spare
        full = Signal()  # of the spare word
        word = Signal(self.width, reset_less=True)
        m.d.comb += [self.i.ready.eq(~full), self.o.payload.eq(word)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(full | self.i.valid), full.eq(0)]
            with m.If(full):
                m.d.sync += word.eq(spare)
            with m.Else():
                m.d.sync += word.eq(self.i.payload)
        with m.Elif(self.i.valid & ~full):
            m.d.sync += [spare.eq(self.i.payload), full.eq(1)]
        return m


class PipelineControl(wiring.Component):
    """Which stages of a pipeline hold a word: the handshakes around ``latency`` stages that move together.

    Reset empties it. All stages stall as one, and only while the last one holds a word that is not taken.

    Parameters
    ----------
    latency : int
        Stages.

    Ports
    -----
    i_valid, i_ready : in and out, 1
        Handshake of the word entering the first stage.
    o_valid, o_ready : out and in, 1
        Handshake of the word in the last stage.
    en : out, 1
        Clock enable of every stage.
    """

    def __init__(self, *, latency: int) -> None:
        self.latency = require("pipeline control", "latency", latency, 1, 1024)
        self.valid = Signal(latency)  # of every stage, the first one lowest; proofs look at it
        super().__init__({"i_valid": In(1), "i_ready": Out(1), "o_valid": Out(1), "o_ready": In(1), "en": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        valid = self.valid
        m.d.comb += [
            self.o_valid.eq(valid[-1]),
            self.en.eq(self.o_ready | ~valid[-1]),
            self.i_ready.eq(self.en),
        ]
        with m.If(self.en):
            m.d.sync += valid.eq(Cat(self.i_valid, valid))
        return m


def pipeline(m: Module, i: Any, o: Any, latency: int, result: Value) -> Value:
    """Wrap ``latency`` stages from ``i.payload`` to ``result`` into handshakes, a skid buffer last.

    Parameters
    ----------
    m : Module
        Where the control and the skid buffer become submodules.
    i, o : stream interfaces
        Of the component: words enter at ``i`` and leave at ``o``, ``latency + 1`` cycles later.
    latency : int
        Stages that the caller clocks with the returned enable.
    result : value
        Output of the last stage, in the shape of ``o.payload``.

    Returns
    -------
    Value
        Clock enable of the stages; it depends on registers only.
    """
    m.submodules.control = control = PipelineControl(latency=latency)
    m.submodules.skid = skid = SkidBuffer(width=Shape.cast(result.shape()).width)
    m.d.comb += [
        control.i_valid.eq(i.valid),
        i.ready.eq(control.i_ready),
        skid.i.valid.eq(control.o_valid),
        control.o_ready.eq(skid.i.ready),
        skid.i.payload.eq(result),
        Value.cast(o.payload).eq(skid.o.payload),
        o.valid.eq(skid.o.valid),
        skid.o.ready.eq(o.ready),
    ]
    return control.en
