"""The first bitstream for a card: lights that show oscillator, clock manager, reset and switches at work."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportIndexIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In, Out


class Blinker(wiring.Component):
    """Lights of the bring-up design.

    Ports
    -----
    locked : in, 1
        The clock manager has locked; asynchronous, shown only.
    switches : in
    leds : out, 3
        Half a second on, half off at the core clock; locked; an odd number of switches is on.

    Parameters
    ----------
    clock_hz : int
        Of the domain ``sync``.
    switches : int
    """

    def __init__(self, *, clock_hz: int, switches: int) -> None:
        self.half = clock_hz // 2
        super().__init__({"locked": In(1), "switches": In(switches), "leds": Out(3)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        count, on = Signal(range(self.half)), Signal()
        with m.If(count == self.half - 1):
            m.d.sync += [count.eq(0), on.eq(~on)]
        with m.Else():
            m.d.sync += count.eq(count + 1)
        m.d.comb += self.leds.eq(on | (self.locked << 1) | (self.switches.xor() << 2))
        return m


class Bringup(wiring.Component):
    """:class:`Blinker` on a :class:`nmsat.fpga.platform.BoardPlatform`."""

    def __init__(self) -> None:
        super().__init__({})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        board = platform.board
        clock_hz = int(platform.mmcm.output_mhz * 1_000_000)
        m.submodules.blinker = blinker = Blinker(clock_hz=clock_hz, switches=len(board.switches.pins))
        m.d.comb += blinker.locked.eq(platform.locked)
        for number in range(len(board.switches.pins)):
            m.submodules[f"switch_{number}"] = buffer = io.Buffer("i", platform.request("switch", number, dir="-"))
            m.d.comb += blinker.switches[number].eq(buffer.i)
        for number in range(min(3, len(board.leds.pins))):
            m.submodules[f"led_{number}"] = buffer = io.Buffer("o", platform.request("led", number, dir="-"))
            m.d.comb += buffer.o.eq(blinker.leds[number])
        return m
