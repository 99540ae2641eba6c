"""The accelerator: register file, controller, units and memory ports behind one AXI4-Lite slave and one AXI4 master."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false
# (Amaranth's values and layouts carry no types that a checker could follow)

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..dataflow.program import Kind
from ..models.accelerator import Accelerator
from .axi import Axi4, AxiLite
from .control import Control
from .controller import Controller, Unit
from .dma import Dma
from .halt import Halt, fault_code
from .product.unit import ProductUnit
from .registers import register_map
from .remote import RemoteUnit
from .update_unit import UpdateUnit
from .vector_unit import VectorUnit


@dataclass(frozen=True, slots=True)
class Slot:
    """A unit of the top.

    Attributes
    ----------
    name : str
    kinds : tuple of Kind
        What it executes.
    make : callable
        Accelerator to component with streams ``start`` and ``done`` and the clients.
    readers, writers : tuple of str
        Its memory clients.
    aside : bool
        With ``overlap_units`` it has ports of its own, which it shares with the other units aside.
    """

    name: str
    kinds: tuple[Kind, ...]
    make: Callable[[Accelerator], Any]
    readers: tuple[str, ...]
    writers: tuple[str, ...]
    aside: bool = True


def _vector_unit(accelerator: Accelerator) -> Any:
    """With ``slr_hop_cycles`` in another region than the memory ports."""
    unit, hop = VectorUnit.from_accelerator(accelerator), accelerator.slr_hop_cycles
    return RemoteUnit(unit=unit, data_bits=accelerator.axi_data_bits, hop=hop) if hop else unit


SLOTS: tuple[Slot, ...] = (
    Slot(
        "product", (Kind.PRODUCT,), ProductUnit.from_accelerator, ("a", "b", "indices", "masks"), ("c", "bits"), False
    ),
    Slot("update", (Kind.UPDATE, Kind.PRUNE), UpdateUnit.from_accelerator, ("read",), ("write",)),
    Slot("vector", (Kind.VECTOR,), _vector_unit, ("read",), ("write",)),
)
FETCH = "fetch"
REGISTERS, MACHINE = "registers", "machine"
"""Domains of the one clock: what software sees, and what executes programs."""


def ports_of(slot: Slot, overlap: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the memory ports of a slot's readers and writers; slots with the same names take turns."""
    own = "aside_" if overlap and slot.aside else ""
    return tuple(f"{own}r{i}" for i in range(len(slot.readers))), tuple(f"{own}w{i}" for i in range(len(slot.writers)))


def port_names(*, overlap: bool, slots: Sequence[Slot] = SLOTS) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of all read and write ports, the fetch port first."""
    sides = zip(*(ports_of(slot, overlap) for slot in slots), strict=True)
    readers, writers = (tuple(dict.fromkeys(name for names in side for name in names)) for side in sides)
    return (FETCH, *readers), writers


class Top(wiring.Component):
    """Runs programs from memory. Values equal ``nmsat.simulator.execute``, cycles ``nmsat.simulator.machine``.

    Parameters
    ----------
    accelerator : Accelerator

    Ports
    -----
    s_axi_control : in, :class:`.axi.AxiLite`
        Registers, see docs/registers.md.
    m_axi : out, :class:`.axi.Axi4`
    interrupt : out, 1
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        super().__init__(
            {
                "s_axi_control": In(AxiLite(register_map().address_bits)),
                "m_axi": Out(Axi4(accelerator.axi_data_bits)),
                "interrupt": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        a = self.accelerator
        readers, writers = port_names(overlap=a.overlap_units)
        control = Control(rows=a.rows, cols=a.cols, data_bits=a.axi_data_bits)
        controller = Controller(
            units=[Unit(slot.kinds, int(a.overlap_units and slot.aside)) for slot in SLOTS],
            data_bits=a.axi_data_bits, ahead=a.prefetch_descriptors,
        )  # fmt: skip
        dma = Dma.from_accelerator(a, readers, writers, absolute=(FETCH,))
        m.submodules.control = DomainRenamer(REGISTERS)(control)
        m.submodules.controller = DomainRenamer(MACHINE)(controller)
        m.submodules.dma = DomainRenamer(MACHINE)(dma)
        wiring.connect(m, wiring.flipped(self.s_axi_control), control.bus)
        wiring.connect(m, dma.axi, wiring.flipped(self.m_axi))
        wiring.connect(m, controller.fetch, getattr(dma, f"reader_{FETCH}"))
        machine, events = control.machine, control.machine.events
        m.d.comb += self.interrupt.eq(control.interrupt)
        controller.join(m, machine)
        m.d.comb += [
            dma.image_base.eq(machine.arguments.image_base), dma.range_low.eq(machine.arguments.range_low),
            dma.range_high.eq(machine.arguments.range_high), dma.refuse.eq(machine.abort),
            controller.quiet.eq(dma.idle),
            events.fetch.eq(controller.fetching), events.read_beats.eq(dma.read_beat),
            events.write_beats.eq(dma.write_beat),
        ]  # fmt: skip
        others = []
        for number, slot in enumerate(SLOTS):
            unit = slot.make(a)
            m.submodules[slot.name] = DomainRenamer(MACHINE)(unit)
            mine, works = getattr(controller, f"owns_{number}"), Signal(name=f"{slot.name}_works")
            m.d.comb += [
                unit.start.payload.eq(controller.descriptor),
                unit.start.valid.eq(getattr(controller, f"start_{number}")),
                getattr(controller, f"ready_{number}").eq(unit.start.ready),
                getattr(controller, f"done_{number}").eq(unit.done.valid),
                getattr(controller, f"status_{number}").eq(unit.done.payload.status),
                unit.done.ready.eq(getattr(controller, f"heard_{number}")),
                works.eq(~unit.start.ready),
            ]  # fmt: skip
            if slot.name == "product":
                m.d.comb += [
                    events.compute.eq(unit.computes), events.load_stall.eq(unit.load_waits),
                    events.store_stall.eq(unit.store_waits),
                ]  # fmt: skip
            else:
                others.append(works)
            reads, writes = ports_of(slot, a.overlap_units)
            for port, name in zip(reads, slot.readers, strict=True):
                self._reader(m, getattr(dma, f"reader_{port}"), getattr(unit, name), mine)
            for port, name in zip(writes, slot.writers, strict=True):
                self._writer(m, getattr(dma, f"writer_{port}"), getattr(unit, name), mine)
        for works in others:
            with m.If(works):
                m.d.comb += events.vector.eq(1)
        self._halt(m, machine, controller, dma)
        return m

    def _halt(self, m: Module, machine: Any, controller: Any, dma: Any) -> None:
        """Ending a run early. Both domains have the one clock; MACHINE is also reset when such a run is over."""
        halt = Halt()
        m.submodules.halt = DomainRenamer(REGISTERS)(halt)
        for name, reset in ((REGISTERS, ResetSignal("sync")), (MACHINE, ResetSignal("sync") | halt.clear)):
            domain: Any = ClockDomain(name, local=True)
            m.domains += domain
            m.d.comb += [domain.clk.eq(ClockSignal("sync")), domain.rst.eq(reset)]
        reads = [getattr(dma, f"reader_{name}") for name in dma.readers if name != FETCH]
        writes = [getattr(dma, f"writer_{name}") for name in dma.writers]
        m.d.comb += [
            halt.abort.eq(machine.abort & ~controller.machine.ended), halt.fault.eq(fault_code(reads, writes)),
            halt.index.eq(controller.machine.descriptor), halt.quiet.eq(dma.quiet), dma.hold.eq(halt.hold),
        ]  # fmt: skip
        with m.If(halt.hold):
            m.d.comb += [
                machine.ended.eq(halt.clear), machine.code.eq(halt.code), machine.descriptor.eq(halt.descriptor),
                machine.retired.eq(0), machine.host.eq(0),
            ]  # fmt: skip

    def _reader(self, m: Module, port: Any, client: Any, mine: Value) -> None:
        """A unit's client on a shared read port: words come only to who is at work."""
        m.d.comb += [
            Value.cast(client.words.payload).eq(Value.cast(port.words.payload)),
            client.words.valid.eq(port.words.valid & mine), client.request.ready.eq(port.request.ready & mine),
        ]  # fmt: skip
        with m.If(mine):
            m.d.comb += [
                Value.cast(port.request.payload).eq(Value.cast(client.request.payload)),
                port.request.valid.eq(client.request.valid), port.words.ready.eq(client.words.ready),
            ]  # fmt: skip

    def _writer(self, m: Module, port: Any, client: Any, mine: Value) -> None:
        m.d.comb += [
            client.request.ready.eq(port.request.ready & mine), client.words.ready.eq(port.words.ready & mine),
            Value.cast(client.done.payload).eq(Value.cast(port.done.payload)),
            client.done.valid.eq(port.done.valid & mine),
        ]  # fmt: skip
        with m.If(mine):
            m.d.comb += [
                Value.cast(port.request.payload).eq(Value.cast(client.request.payload)),
                port.request.valid.eq(client.request.valid),
                port.words.payload.eq(client.words.payload), port.words.valid.eq(client.words.valid),
                port.done.ready.eq(client.done.ready),
            ]  # fmt: skip


__all__ = ["FETCH", "SLOTS", "Slot", "Top", "port_names"]
