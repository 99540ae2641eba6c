"""The controller: descriptors from memory to units, one after the other; END, host steps and errors."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import DESCRIPTOR_BYTES, Kind
from .control import Machine
from .descriptor import DESCRIPTOR_BITS
from .fetcher import Fetcher
from .memory_port import MemoryFault, ReadClient
from .registers import Code

_FETCH_CODE = Code.FETCH_RANGE - MemoryFault.RANGE
_ALIGNED = DESCRIPTOR_BYTES - 1


class Controller(wiring.Component):
    """Hands a descriptor to the unit for its kind, waits, goes on with the next, which was fetched meanwhile.

    A descriptor's cycles count from the one after its predecessor's end, or the start of the run, to its own end, so
    that they add up to the run's. A run ends with END, with the first error, or with ``NO_END`` when
    ``descriptor_limit`` descriptors hold no END. HOST stops until it is resumed. A descriptor of a kind without
    unit, with bits set in its reserved field, or a program that is not at a multiple of a descriptor's size is refused.
    A fault in fetching counts when the descriptor's turn comes, and not if the run has ended before. After an abort no
    further descriptor is begun.

    Parameters
    ----------
    units : dict of int to sequence of Kind
        What every unit executes, by its number.
    data_bits : int
        Of the fetch port.
    ahead : int
        Descriptors that are fetched before their turn, see :class:`.fetcher.Fetcher`.

    Ports
    -----
    machine : in, :class:`.control.Machine`
        Without its ``events``, which come from the top.
    fetch : out, :class:`.memory_port.ReadClient`
        Addresses are absolute.
    descriptor : out, 2048
        Of a unit that starts: valid with ``start_<i>``, the unit keeps what it needs.
    start_<i>, ready_<i> : out and in, 1
        Handshake with unit i.
    done_<i>, status_<i> : in, 1 and 8
        The unit has ended; it is always heard.
    active : out
        Number of the unit at work: who owns the shared memory ports.
    quiet : in, 1
        No access is under way.
    fetching : out, 1
        The machine does nothing but wait for a descriptor.
    """

    machine: Any
    fetch: Any
    descriptor: Signal
    active: Signal
    quiet: Signal
    fetching: Signal

    def __init__(self, *, units: Mapping[int, Sequence[Kind]], data_bits: int, ahead: int) -> None:
        self.units = {number: tuple(kinds) for number, kinds in units.items()}
        self.parameters = {"data_bits": data_bits, "ahead": ahead}
        ports: dict[str, Any] = {
            "machine": In(Machine()), "fetch": Out(ReadClient(data_bits)), "descriptor": Out(DESCRIPTOR_BITS),
            "active": Out(range(max(2, len(units)))), "quiet": In(1), "fetching": Out(1),
        }  # fmt: skip
        for number in self.units:
            ports |= {
                f"start_{number}": Out(1), f"ready_{number}": In(1), f"done_{number}": In(1), f"status_{number}": In(8)
            }  # fmt: skip
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        machine, arguments = self.machine, self.machine.arguments
        m.submodules.fetcher = fetcher = Fetcher(**self.parameters)
        wiring.connect(m, fetcher.fetch, wiring.flipped(self.fetch))
        item = fetcher.item
        index, cycles, code = Signal(32), Signal(32), Signal(8)
        kind, reserved = self.descriptor[:8], self.descriptor[96:128]
        m.d.comb += [
            self.descriptor.eq(item.payload.descriptor),
            fetcher.program.eq(arguments.program), fetcher.limit.eq(arguments.descriptor_limit),
            machine.retired_descriptor.eq(index), machine.retired_cycles.eq(cycles + 1),
            machine.host_step.eq(index), machine.descriptor.eq(index), machine.code.eq(code),
        ]  # fmt: skip
        m.d.sync += cycles.eq(cycles + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), code.eq(Code.OK), cycles.eq(0)]
                with m.If(machine.start):
                    m.next = "DISPATCH"
                    with m.If((arguments.program & _ALIGNED).any()):
                        self._fail(m, code, Code.BAD_ALIGNMENT)
            with m.State("DISPATCH"):
                m.d.comb += fetcher.go.eq(1)
                with m.If(index >= arguments.descriptor_limit):
                    self._fail(m, code, Code.NO_END)
                with m.Elif(~item.valid):
                    m.d.comb += self.fetching.eq(1)
                with m.Elif(machine.abort | (item.payload.error != 0)):
                    self._fail(m, code, _FETCH_CODE + Mux(machine.abort, MemoryFault.RANGE, item.payload.error))
                with m.Elif(reserved.any()):
                    self._fail(m, code, Code.BAD_FIELD)
                with m.Elif(kind == Kind.END):
                    m.next = "END"
                with m.Elif(kind == Kind.HOST):
                    m.d.comb += [machine.host.eq(1), machine.retired.eq(1), item.ready.eq(1)]
                    m.next = "HOST"
                for number, kinds in self.units.items():
                    with m.Elif(Cat(kind == value for value in kinds).any()):
                        m.d.comb += getattr(self, f"start_{number}").eq(1)
                        m.d.sync += self.active.eq(number)
                        with m.If(getattr(self, f"ready_{number}")):
                            m.d.comb += item.ready.eq(1)
                            m.next = "WORK"
                with m.Else():
                    self._fail(m, code, Code.BAD_KIND)
            with m.State("WORK"):
                m.d.comb += fetcher.go.eq(1)
                for number in self.units:
                    with m.If((self.active == number) & getattr(self, f"done_{number}")):
                        status = getattr(self, f"status_{number}")
                        with m.If(status == 0):
                            m.d.comb += machine.retired.eq(1)
                            self._next(m, index, cycles)
                        with m.Else():
                            self._fail(m, code, status)
            with m.State("HOST"):
                m.d.comb += fetcher.go.eq(1)
                with m.If(machine.resume):
                    self._next(m, index, cycles)
            with m.State("END"), m.If(self.quiet):
                m.d.comb += [machine.ended.eq(1), machine.retired.eq(code == Code.OK)]
                m.next = "IDLE"
        return m

    def join(self, m: Module, machine: Any) -> None:
        """Connect ``machine`` to that of a :class:`.control.Control`, all but its events."""
        for name, member in self.machine.signature.members.items():
            if name != "events":
                to, source = (machine, self.machine) if member.flow == Out else (self.machine, machine)
                m.d.comb += Value.cast(getattr(to, name)).eq(Value.cast(getattr(source, name)))

    def _next(self, m: Module, index: Signal, cycles: Signal) -> None:
        m.d.sync += [index.eq(index + 1), cycles.eq(0)]
        m.next = "DISPATCH"

    def _fail(self, m: Module, code: Signal, value: Any) -> None:
        m.d.sync += code.eq(value)
        m.next = "END"
