"""The end of a run that cannot go on: no new bursts, a quiet bus, then a reset of everything behind the registers."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .registers import Code


class Halt(wiring.Component):
    """Ends a run after an abort, or after a memory error of a unit's own access, however long the unit would go on.

    The bus never waits for a unit, so bursts in flight end by themselves, in the time that memory takes. A unit may be
    anywhere in its loops by then: it is reset with the controller and the memory ports, not asked to finish.

    Ports
    -----
    abort : in, 1
        High until the run ends; not in the cycle in which it ends by itself.
    fault : in, 8
        Code of a memory error that reaches a unit in this cycle, else 0.
    index : in, 32
        Of the descriptor at hand.
    quiet : in, 1
        No burst is in flight on the bus.
    hold : out, 1
        No burst may be begun, and what the machine says of its run no longer counts.
    clear : out, 1
        For a cycle: reset of the machine. The run ends in it, with ``code`` of ``descriptor``.
    code, descriptor : out, 8 and 32
    """

    abort: Signal
    fault: Signal
    index: Signal
    quiet: Signal
    hold: Signal
    clear: Signal
    code: Signal
    descriptor: Signal

    def __init__(self) -> None:
        super().__init__({
            "abort": In(1), "fault": In(8), "index": In(32), "quiet": In(1),
            "hold": Out(1), "clear": Out(1), "code": Out(8), "descriptor": Out(32),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        with m.If(~self.hold & (self.abort | (self.fault != Code.OK))):
            m.d.sync += [
                self.hold.eq(1), self.descriptor.eq(self.index), self.code.eq(Mux(self.abort, Code.ABORTED, self.fault))
            ]  # fmt: skip
        m.d.sync += self.clear.eq(self.hold & self.quiet & ~self.clear)
        with m.If(self.clear):
            m.d.sync += self.hold.eq(0)
        return m


def fault_code(reads: Sequence[Any], writes: Sequence[Any]) -> Value:
    """Code of an error that one of the clients is given in this cycle, 0 if none is."""
    found = Value.cast(Code.OK)
    clients = [(client.done, Code.WRITE_RANGE) for client in writes]
    clients += [(client.words, Code.READ_RANGE) for client in reads]
    for answer, first in clients:
        error = answer.payload.error
        found = Mux(answer.valid & (error != 0), first - 1 + error, found)
    return found
