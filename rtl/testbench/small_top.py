"""A small top with the ports of the whole accelerator: the real control block, a master that never asks, an array."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...models.accelerator import Accelerator
from ..array_parameters import ArrayParameters
from ..axi import Axi4, AxiLite
from ..control import Control
from ..emit import Emission, Emitted, place
from ..stce import Stce


class SmallTop(wiring.Component):
    """Control and, if asked for, an idle array; runs end in their first cycle with code 0."""

    def __init__(self, *, accelerator: Accelerator, masters: int = 1, array: bool = True) -> None:
        self.accelerator, self.array = accelerator, array
        names = ["m_axi"] if masters == 1 else [f"m_axi_{number}" for number in range(masters)]
        super().__init__({
            "s_axi_control": In(AxiLite(12)), "interrupt": Out(1),
            **{name: Out(Axi4(accelerator.axi_data_bits)) for name in names},
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        a = self.accelerator
        m.submodules.control = control = Control(rows=a.rows, cols=a.cols, data_bits=a.axi_data_bits)
        if self.array:
            stce: Any = place(m, platform, "stce", Stce, parameters=ArrayParameters.from_accelerator(a))
            first = getattr(self, next(name for name in self.signature.members if name.startswith("m_axi")))
            m.d.comb += first.wdata.eq(stce.south.payload)  # else the array would be optimised away
        wiring.connect(m, wiring.flipped(self.s_axi_control), control.bus)
        m.d.comb += self.interrupt.eq(control.interrupt)
        m.d.sync += control.machine.ended.eq(control.machine.start)
        return m


def small_top(accelerator: Accelerator, masters: int = 1, array: bool = True) -> Emitted:
    """The top as RTLIL."""
    return Emission().emit(SmallTop(accelerator=accelerator, masters=masters, array=array), "nmsat_top")
