"""What every arithmetic unit shares: its ports, and for those with cuts, the registers of any latency."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.hdl import EnableInserter, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .cuts import Stages


def require_latency(name: str, value: object) -> int:
    """A latency in cycles, or TypeError / ValueError with the rule."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if not 1 <= value <= 32:
        raise ValueError(f"{name} must be between 1 and 32, not {value!r}")
    return value


class Unit(wiring.Component):
    """Operands in, a result ``latency`` enabled cycles later, one a cycle.

    A subclass names its ``OPERANDS`` (shape by port name), the ``RESULT`` port's width and its ``latency``.

    Ports
    -----
    en : in, 1
        Clock enable: nothing moves while it is low.
    y : out
        The result.
    """

    OPERANDS: ClassVar[dict[str, Any]]
    RESULT: ClassVar[int] = 32
    latency: int
    en: Signal
    y: Signal

    def __init__(self) -> None:
        operands = {name: In(shape) for name, shape in self.OPERANDS.items()}
        super().__init__({"en": In(1), **operands, "y": Out(self.RESULT)})


class CutUnit(Unit):
    """A unit of any latency: a datapath with named ``CUTS`` and one more, ``pack``, before its result.

    Parameters
    ----------
    latency : int
        1 to 32.
    """

    CUTS: ClassVar[tuple[str, ...]]

    def __init__(self, *, latency: int) -> None:
        self.latency = require_latency("latency", latency)
        super().__init__()

    def datapath(self, m: Module, stages: Stages) -> Value:
        """The result in front of the last cut."""
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        """The datapath, its registers and their enable."""
        m = Module()
        stages = Stages(m, (*self.CUTS, "pack"), self.latency)
        m.d.comb += self.y.eq(stages.cut("pack", self.datapath(m, stages))[0])
        return EnableInserter(self.en)(m)
