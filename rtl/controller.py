"""The controller: descriptors from memory to units, one after the other; END, host steps and errors."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import DESCRIPTOR_BYTES, Kind
from .control import Machine
from .descriptor import DESCRIPTOR_BITS
from .memory_port import ReadClient
from .registers import Code
from .stream import require

STATUS = data.StructLayout({"status": 8})
_FETCH_CODE = Code.FETCH_RANGE - 1
_ALIGNED = DESCRIPTOR_BYTES - 1


class Controller(wiring.Component):
    """Fetches a descriptor, hands it to the unit for its kind, waits, goes on with the next.

    A descriptor's cycles count from the request for it to its end, both included, so that they add up to the run's. A
    run ends with END, with the first error, or with ``NO_END`` when ``descriptor_limit`` descriptors hold no END. HOST
    stops until it is resumed. A descriptor of a kind without unit, with bits set in its reserved field, or a
    program that is not at a multiple of a descriptor's size is refused.

    Parameters
    ----------
    units : dict of int to sequence of Kind
        What every unit executes, by its number.
    data_bits : int
        Of the fetch port.

    Ports
    -----
    machine : in, :class:`.control.Machine`
        Its ``events`` come from the top, only ``fetch`` is set here.
    fetch : out, :class:`.memory_port.ReadClient`
        Addresses are absolute.
    descriptor : out, 2048
        The descriptor at hand.
    start_<i>, ready_<i> : out and in, 1
        Handshake with unit i.
    done_<i>, status_<i> : in, 1 and 8
        The unit has ended; it is always heard.
    active : out
        Number of the unit at work: who owns the shared memory ports.
    quiet : in, 1
        No access is under way.
    fetching : out, 1
    """

    machine: Any
    fetch: Any
    descriptor: Signal
    active: Signal
    quiet: Signal
    fetching: Signal

    def __init__(self, *, units: Mapping[int, Sequence[Kind]], data_bits: int) -> None:
        self.units = {number: tuple(kinds) for number, kinds in units.items()}
        self.data_bits = require("controller", "data_bits", data_bits, 32, DESCRIPTOR_BITS)
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
        machine, fetch = self.machine, self.fetch
        index, cycles, code = Signal(32), Signal(32), Signal(8)
        address = Signal(64)
        words = DESCRIPTOR_BITS // self.data_bits
        kind = self.descriptor[:8]
        reserved = self.descriptor[96:128]
        worst = Signal(2)
        error = Signal(2)
        m.d.comb += [
            fetch.request.payload.address.eq(address), fetch.request.payload.bytes.eq(DESCRIPTOR_BYTES),
            machine.retired_descriptor.eq(index), machine.retired_cycles.eq(cycles + 1),
            machine.host_step.eq(index), machine.descriptor.eq(index), machine.code.eq(code),
            error.eq(Mux(fetch.words.payload.error > worst, fetch.words.payload.error, worst)),
        ]  # fmt: skip
        m.d.sync += cycles.eq(cycles + 1)
        known = Cat(kind == item for kinds in self.units.values() for item in kinds).any()
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), code.eq(Code.OK), address.eq(machine.arguments.program), cycles.eq(0)]
                with m.If(machine.start):
                    m.next = "ASK"
            with m.State("ASK"):
                m.d.comb += self.fetching.eq(1)
                m.d.sync += worst.eq(0)
                with m.If((address & _ALIGNED).any()):
                    m.d.sync += code.eq(Code.BAD_ALIGNMENT)
                    m.next = "END"
                with m.Elif(index >= machine.arguments.descriptor_limit):
                    m.d.sync += code.eq(Code.NO_END)
                    m.next = "END"
                with m.Else():
                    m.d.comb += fetch.request.valid.eq(1)
                    with m.If(fetch.request.ready):
                        m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [self.fetching.eq(1), fetch.words.ready.eq(1)]
                with m.If(fetch.words.valid):
                    data_word = fetch.words.payload.data
                    shifted = Cat(self.descriptor[self.data_bits :], data_word) if words > 1 else data_word
                    m.d.sync += [self.descriptor.eq(shifted), worst.eq(error)]
                    with m.If(fetch.words.payload.last):
                        m.next = "DISPATCH"
                        with m.If(error != 0):
                            m.d.sync += code.eq(_FETCH_CODE + error)
                            m.next = "END"
            with m.State("DISPATCH"):
                with m.If(reserved.any()):
                    m.d.sync += code.eq(Code.BAD_FIELD)
                    m.next = "END"
                with m.Elif(kind == Kind.END):
                    m.next = "END"
                with m.Elif(kind == Kind.HOST):
                    m.d.comb += [machine.host.eq(1), machine.retired.eq(1)]
                    m.next = "HOST"
                with m.Elif(~known):
                    m.d.sync += code.eq(Code.BAD_KIND)
                    m.next = "END"
                for number, kinds in self.units.items():
                    with m.If(~reserved.any() & Cat(kind == item for item in kinds).any()):
                        m.d.comb += getattr(self, f"start_{number}").eq(1)
                        m.d.sync += self.active.eq(number)
                        with m.If(getattr(self, f"ready_{number}")):
                            m.next = "WORK"
            with m.State("WORK"):
                for number in self.units:
                    with m.If((self.active == number) & getattr(self, f"done_{number}")):
                        status = getattr(self, f"status_{number}")
                        with m.If(status == 0):
                            m.d.comb += machine.retired.eq(1)
                            self._next(m, index, address, cycles)
                        with m.Else():
                            m.d.sync += code.eq(status)
                            m.next = "END"
            with m.State("HOST"), m.If(machine.resume):
                self._next(m, index, address, cycles)
            with m.State("END"), m.If(self.quiet):
                m.d.comb += [machine.ended.eq(1), machine.retired.eq(code == Code.OK)]
                m.next = "IDLE"
        m.d.comb += machine.events.fetch.eq(self.fetching)
        return m

    def _next(self, m: Module, index: Signal, address: Signal, cycles: Signal) -> None:
        m.d.sync += [index.eq(index + 1), address.eq(address + DESCRIPTOR_BYTES), cycles.eq(0)]
        m.next = "ASK"
