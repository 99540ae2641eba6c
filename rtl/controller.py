"""The controller: descriptors from memory to units; what may overlap; END, host steps and errors."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import DESCRIPTOR_BYTES, Kind
from .control import Machine
from .descriptor import DESCRIPTOR_BITS, descriptor_layout
from .fetcher import Fetcher
from .memory_port import MemoryFault, ReadClient
from .registers import Code

_FETCH_CODE = Code.FETCH_RANGE - MemoryFault.RANGE
_ALIGNED = DESCRIPTOR_BYTES - 1


@dataclass(frozen=True, slots=True)
class Unit:
    """What the controller knows of a unit.

    Attributes
    ----------
    kinds : tuple of Kind
        What it executes.
    ports : int
        Number of the memory ports it uses; units with the same never work together.
    """

    kinds: tuple[Kind, ...]
    ports: int = 0


class Controller(wiring.Component):
    """Hands descriptors, fetched before their turn, to the units for their kinds, in order.

    A descriptor starts when its unit is free and it may work beside every unit at work: one of other memory ports, with
    a descriptor whose kind is in its ``beside`` field. END, HOST and whatever ends the run wait until no unit is at
    work. A descriptor's cycles count from the one after the end of the last that it waited for, or after its
    predecessor's start, to its own end. Without overlap they add up to the run's.

    A run ends with END, with the first error, or with ``NO_END`` when ``descriptor_limit`` descriptors hold no END. If
    several units at work end with errors, that of the lowest index counts. HOST stops until it is resumed. A
    descriptor of a kind without unit, with bits set in its reserved field, or a program that is not at a multiple of a
    descriptor's size is refused. A fault in fetching counts when the descriptor's turn comes, and not if the run has
    ended before. After an abort no further descriptor is begun.

    Parameters
    ----------
    units : sequence of Unit
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
    done_<i>, status_<i>, heard_<i> : in, in, out; 1, 8, 1
        The unit has ended, with this status; held until it is heard, one unit a cycle.
    owns_<i> : out, 1
        Unit i has its memory ports: it was the last of their units to start.
    quiet : in, 1
        No access is under way.
    fetching : out, 1
        The machine does nothing but wait for a descriptor.
    """

    machine: Any
    fetch: Any
    descriptor: Signal
    quiet: Signal
    fetching: Signal

    def __init__(self, *, units: Sequence[Unit], data_bits: int, ahead: int) -> None:
        self.units = tuple(units)
        self.parameters = {"data_bits": data_bits, "ahead": ahead}
        ports: dict[str, Any] = {
            "machine": In(Machine()), "fetch": Out(ReadClient(data_bits)), "descriptor": Out(DESCRIPTOR_BITS),
            "quiet": In(1), "fetching": Out(1),
        }  # fmt: skip
        for number in range(len(self.units)):
            ports |= {
                f"start_{number}": Out(1), f"ready_{number}": In(1), f"owns_{number}": Out(1),
                f"done_{number}": In(1), f"status_{number}": In(8), f"heard_{number}": Out(1),
            }  # fmt: skip
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        machine, arguments = self.machine, self.machine.arguments
        m.submodules.fetcher = fetcher = Fetcher(**self.parameters)
        wiring.connect(m, fetcher.fetch, wiring.flipped(self.fetch))
        item = fetcher.item
        index, waited = Signal(32), Signal(32)
        code, failed = Signal(8), Signal(32)
        head = data.View(descriptor_layout(Kind.END), self.descriptor)
        begins, retires = Signal(), Signal()  # a unit starts; the descriptor at hand ends without one
        busy, blocked, oldest, ends = self._units(m, index, waited, head, begins)
        m.d.comb += [
            self.descriptor.eq(item.payload.descriptor),
            fetcher.program.eq(arguments.program), fetcher.limit.eq(arguments.descriptor_limit),
            machine.retired.eq(retires | ends.well),
            machine.retired_descriptor.eq(Mux(ends.any, ends.index, index)),
            machine.retired_cycles.eq(Mux(ends.any, ends.cycles, waited) + 1),
            machine.host_step.eq(index), machine.code.eq(code), machine.descriptor.eq(Mux(code == 0, oldest, failed)),
            item.ready.eq(begins | machine.host),
        ]  # fmt: skip
        m.d.sync += waited.eq(Mux(busy & (blocked | ~item.valid), 0, waited + 1))
        with m.If(begins | machine.resume):
            m.d.sync += [index.eq(index + 1), waited.eq(0)]
        with m.If(ends.any & ~ends.well & ((code == 0) | (ends.index < failed))):
            m.d.sync += [code.eq(ends.status), failed.eq(ends.index)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), code.eq(Code.OK), waited.eq(0)]
                with m.If(machine.start):
                    m.next = "RUN"
                    with m.If((arguments.program & _ALIGNED).any()):
                        self._fail(m, code, failed, 0, Code.BAD_ALIGNMENT)
            with m.State("RUN"):
                m.d.comb += fetcher.go.eq(1)
                known, fault = item.valid, item.payload.error
                of_unit = Cat(head.kind == kind for unit in self.units for kind in unit.kinds).any()
                stops = machine.abort | (fault != 0) | head.reserved.any() | ~of_unit
                with m.If(ends.any & ~ends.well):
                    m.next = "END"
                with m.Elif((index < arguments.descriptor_limit) & known & ~stops):
                    self._start(m, head, blocked, begins)
                with m.Elif(~busy):
                    with m.If(index >= arguments.descriptor_limit):
                        self._fail(m, code, failed, index, Code.NO_END)
                    with m.Elif(~known):
                        m.d.comb += self.fetching.eq(1)
                    with m.Elif(machine.abort | (fault != 0)):
                        fault = Mux(machine.abort, MemoryFault.RANGE, fault)
                        self._fail(m, code, failed, index, _FETCH_CODE + fault)
                    with m.Elif(head.reserved.any()):
                        self._fail(m, code, failed, index, Code.BAD_FIELD)
                    with m.Elif(head.kind == Kind.END):
                        m.next = "END"
                    with m.Elif(head.kind == Kind.HOST):
                        m.d.comb += [machine.host.eq(1), retires.eq(1)]
                        m.next = "HOST"
                    with m.Else():
                        self._fail(m, code, failed, index, Code.BAD_KIND)
            with m.State("HOST"):
                m.d.comb += fetcher.go.eq(1)
                with m.If(machine.resume):
                    m.next = "RUN"
            with m.State("END"), m.If(self.quiet & ~busy):
                m.d.comb += [machine.ended.eq(1), retires.eq(code == Code.OK)]
                m.next = "IDLE"
        return m

    def _units(self, m: Module, index: Signal, waited: Signal, head: Any, begins: Signal) -> Any:
        """The state of every unit.

        Returns (one is at work, the descriptor at hand must wait for one, index of the oldest at work or else of the
        one at hand, a unit that ends).
        """
        count = range(len(self.units))
        works = [Signal(name=f"works_{n}") for n in count]
        kinds = [Signal(len(head.beside), name=f"kind_{n}") for n in count]  # of the descriptor at work, a bit each
        owner = [Signal(range(max(2, len(works))), name=f"owner_{n}") for n in count]  # of memory ports
        busy, blocked, oldest = Signal(), Signal(), index
        ends = Signal(data.StructLayout({"any": 1, "well": 1, "index": 32, "cycles": 32, "status": 8}))
        m.d.comb += busy.eq(Cat(works).any())
        for n, unit in enumerate(self.units):
            number, cycles = Signal(32, name=f"number_{n}"), Signal(32, name=f"cycles_{n}")
            starts, done = Signal(name=f"starts_{n}"), getattr(self, f"done_{n}")
            before = Cat(getattr(self, f"done_{k}") for k in range(n)).any() if n else Const(0)
            heard, status = getattr(self, f"heard_{n}"), getattr(self, f"status_{n}")
            m.d.comb += [
                starts.eq(getattr(self, f"start_{n}") & getattr(self, f"ready_{n}")),
                heard.eq(works[n] & done & ~before), getattr(self, f"owns_{n}").eq(owner[unit.ports] == n),
            ]  # fmt: skip
            m.d.sync += cycles.eq(cycles + 1)
            oldest = Mux(works[n] & (number < oldest), number, oldest)
            with m.If(starts):
                m.d.comb += begins.eq(1)
                m.d.sync += [
                    works[n].eq(1), number.eq(index), cycles.eq(waited + 1), owner[unit.ports].eq(n),
                    kinds[n].eq(Const(1, len(kinds[n])) << head.kind[:4]),
                ]  # fmt: skip
            with m.If(heard):
                m.d.sync += works[n].eq(0)
                m.d.comb += [
                    ends.any.eq(1), ends.well.eq(status == 0), ends.index.eq(number), ends.cycles.eq(cycles),
                    ends.status.eq(status),
                ]  # fmt: skip
            # the descriptor at hand may not start while this unit is at work
            same = Cat(
                head.kind == kind for other in self.units for kind in other.kinds if other.ports == unit.ports
            ).any()
            with m.If(works[n] & (same | ~(kinds[n] & head.beside).any())):
                m.d.comb += blocked.eq(1)
        return busy, blocked, oldest, ends

    def _start(self, m: Module, head: Any, blocked: Signal, begins: Signal) -> None:
        for number, unit in enumerate(self.units):
            with m.If(~blocked & Cat(head.kind == kind for kind in unit.kinds).any()):
                m.d.comb += getattr(self, f"start_{number}").eq(1)

    def join(self, m: Module, machine: Any) -> None:
        """Connect ``machine`` to that of a :class:`.control.Control`, all but its events."""
        for name, member in self.machine.signature.members.items():
            if name != "events":
                to, source = (machine, self.machine) if member.flow == Out else (self.machine, machine)
                m.d.comb += Value.cast(getattr(to, name)).eq(Value.cast(getattr(source, name)))

    def _fail(self, m: Module, code: Signal, failed: Signal, index: Any, value: Any) -> None:
        m.d.sync += [code.eq(value), failed.eq(index)]
        m.next = "END"
