"""WUVE, the weight update vector engine: SGD with momentum, weight decay and SR-STE decay, a weight a cycle a lane."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from math import frexp
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..models.accelerator import Accelerator
from ..models.golden.engines import UpdateRule
from .arithmetic.converters import Narrow
from .arithmetic.ftz import FtzAdder, FtzMultiplier, FtzScaler
from .arithmetic.stages import delay
from .emit import place
from .stream import pipeline, require

RULE = data.StructLayout(
    {"lr": 32, "momentum": 32, "weight_decay": 32, "lam": 32, "loss_power": signed(8)}  # loss_scale = 2^-loss_power
)


def rule_fields(rule: UpdateRule) -> dict[str, int]:
    """Register contents of an update rule: binary32 patterns, and minus the exponent of the loss scale."""
    names = ("lr", "momentum", "weight_decay", "lam")
    words = {name: int(np.array(getattr(rule, name), np.float32).view(np.uint32)) for name in names}
    return words | {"loss_power": 1 - frexp(rule.loss_scale)[1]}


class WuveLane(wiring.Component):
    """One weight; equals :func:`nmsat.models.golden.wuve_update` on one element.

    ::

        g = g / loss_scale + weight_decay * w + (lam * (1 - mask)) * w
        v = momentum * v + g
        w = w - lr * v

    Four multipliers, a scaler, four adders and a converter, one for every operation of the listing, so that a weight
    enters every cycle. Latency 2 Lm + 4 La + Ln = 30 enabled cycles (Lm, La, Ln: of multiplier, adder, converter).
    No reset: the result follows the operands alone.

    Ports
    -----
    en : in, 1
        Clock enable; low holds the pipeline.
    g, w, v : in, 32
        Gradient times the loss scale, weight, momentum.
    mask : in, 1
        The forward mask: 1 keeps the weight out of SR-STE decay.
    rule : in
        Coefficients, steady while weights are inside.
    w32, v32 : out, 32
        New weight and momentum.
    w16 : out, 16
        New weight in binary16.
    """

    latency = 2 * FtzMultiplier.latency + 4 * FtzAdder.latency + Narrow.latency

    def __init__(self) -> None:
        super().__init__(
            {
                "en": In(1),
                **{name: In(32) for name in "gwv"},
                "mask": In(1),
                "rule": In(RULE),
                "w32": Out(32),
                "v32": Out(32),
                "w16": Out(16),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        en, rule = self.en, self.rule
        multiply, add = FtzMultiplier.latency, FtzAdder.latency

        def unit(kind: type[wiring.Component], name: str, **operands: Any) -> Any:
            found = place(m, platform, name, kind)
            m.d.comb += [found.en.eq(en), *(getattr(found, port).eq(value) for port, value in operands.items())]
            return found.y

        scaled = unit(FtzScaler, "scale", x=self.g, power=rule.loss_power)
        scaled = delay(m, en, "scaled", scaled, multiply - FtzScaler.latency)
        decay = unit(FtzMultiplier, "decay", a=rule.weight_decay, b=self.w)
        dropped = unit(FtzMultiplier, "dropped", a=Mux(self.mask, 0, rule.lam), b=self.w)
        kept = unit(FtzMultiplier, "momentum", a=rule.momentum, b=self.v)
        decayed = unit(FtzAdder, "add_decay", a=scaled, b=decay)
        gradient = unit(FtzAdder, "add_dropped", a=decayed, b=delay(m, en, "dropped_late", dropped, add))
        v32 = unit(FtzAdder, "add_momentum", a=delay(m, en, "kept_late", kept, 2 * add), b=gradient)
        step = unit(FtzMultiplier, "step", a=rule.lr, b=v32)
        w = delay(m, en, "w_late", self.w, 2 * multiply + 3 * add)
        w32 = unit(FtzAdder, "subtract", a=w, b=Cat(step[:31], ~step[31]))
        m.d.comb += [
            self.w16.eq(unit(Narrow, "narrow", x=w32)),
            self.w32.eq(delay(m, en, "w32_late", w32, Narrow.latency)),
            self.v32.eq(delay(m, en, "v32_late", v32, multiply + add + Narrow.latency)),
        ]
        return m


class Wuve(wiring.Component):
    """Lanes side by side; equals :func:`nmsat.models.golden.wuve_update`.

    Latency 31 cycles (a lane's 30 and a skid buffer), a word of ``lanes`` weights a cycle. Reset drops the words
    inside. ``w16`` of a word is, from its lowest bit, dense groups as :class:`~.sore.Sore` takes them.

    Parameters
    ----------
    lanes : int
        Weights a cycle.

    Ports
    -----
    rule : in
        Coefficients in registers (:data:`RULE`, :func:`rule_fields`), steady while words are inside.
    i : in, stream
        ``g``, ``w``, ``v``: ``lanes`` binary32 values each, first lane lowest; ``mask``: a bit a lane.
    o : out, stream
        ``w32``, ``v32``: ``lanes`` binary32 values; ``w16``: ``lanes`` binary16 values.
    """

    latency = WuveLane.latency + 1

    def __init__(self, *, lanes: int) -> None:
        self.lanes = require("wuve", "lanes", lanes, 1, 4096)
        self.i_layout = data.StructLayout({**dict.fromkeys("gwv", 32 * lanes), "mask": lanes})
        self.o_layout = data.StructLayout({"w32": 32 * lanes, "v32": 32 * lanes, "w16": 16 * lanes})
        super().__init__(
            {
                "rule": In(RULE),
                "i": In(stream.Signature(self.i_layout)),
                "o": Out(stream.Signature(self.o_layout)),
            }
        )

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> Wuve:
        """The engine of an accelerator."""
        return cls(lanes=accelerator.wuve_lanes)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        result = Signal(self.o_layout)
        en = pipeline(m, self.i, self.o, self.latency - 1, result.as_value())
        for number in range(self.lanes):
            lane = place(m, platform, f"lane{number}", WuveLane)
            m.d.comb += [lane.en.eq(en), lane.mask.eq(self.i.payload.mask[number])]
            m.d.comb += [getattr(lane.rule, name).eq(getattr(self.rule, name)) for name in RULE.members]
            for name in "gwv":
                m.d.comb += getattr(lane, name).eq(self.i.payload[name].word_select(number, 32))
            for name, width in (("w32", 32), ("v32", 32), ("w16", 16)):
                m.d.comb += result[name].word_select(number, width).eq(getattr(lane, name))
        return m
