"""The smallest machine behind control, controller and DMA: a program of copies, to test hosts, shells and faults."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program import Kind
from ..axi import Axi4, AxiLite
from ..control import Control
from ..controller import Controller, Unit
from ..descriptor import DESCRIPTOR_BITS, descriptor_layout
from ..dma import Dma
from ..memory_port import ReadClient, WriteClient
from ..registers import Code, register_map

KINDS = (Kind.VECTOR, Kind.UPDATE, Kind.PRUNE)
_READ_CODE, _WRITE_CODE = Code.READ_RANGE - 1, Code.WRITE_RANGE - 1


class CopyUnit(wiring.Component):
    """Executes a descriptor, read as a VECTOR's, as a copy of ``elements`` bytes from source to target.

    Parameters
    ----------
    data_bits : int

    Ports
    -----
    start, ready, descriptor : in, out, in; 1, 1, 2048
    done, status, heard : out, out, in; 1, 8, 1
    source, target : out, ReadClient and WriteClient
    """

    def __init__(self, *, data_bits: int) -> None:
        self.data_bits = data_bits
        super().__init__({
            "start": In(1), "ready": Out(1), "descriptor": In(DESCRIPTOR_BITS),
            "done": Out(1), "status": Out(8), "heard": In(1),
            "source": Out(ReadClient(data_bits)), "target": Out(WriteClient(data_bits)),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        source, target = self.source, self.target
        text = Signal(DESCRIPTOR_BITS)
        item = data.View(descriptor_layout(Kind.VECTOR), text)
        asked_source, asked_target, left, ended = Signal(), Signal(), Signal(32), Signal()
        word_bytes = self.data_bits // 8
        m.d.comb += [
            source.request.payload.address.eq(item.source_address), source.request.payload.bytes.eq(item.elements),
            target.request.payload.address.eq(item.target_address), target.request.payload.bytes.eq(item.elements),
            target.words.payload.eq(source.words.payload.data),
        ]  # fmt: skip
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.ready.eq(1)
                with m.If(self.start):
                    given = data.View(descriptor_layout(Kind.VECTOR), self.descriptor)
                    m.d.sync += [text.eq(self.descriptor), self.status.eq(0)]
                    m.d.sync += [asked_source.eq(0), asked_target.eq(0), ended.eq(0)]
                    m.d.sync += left.eq((given.elements + (word_bytes - 1)) // word_bytes)
                    m.next = "COPY"
            with m.State("COPY"):
                m.d.comb += [
                    source.request.valid.eq(~asked_source), target.request.valid.eq(~asked_target),
                    # a refused read has one word: the rest is made up, so that the write ends
                    target.words.valid.eq((left != 0) & (source.words.valid | ended)),
                    source.words.ready.eq(target.words.ready | (left == 0)),
                    target.done.ready.eq(ended),
                ]  # fmt: skip
                m.d.sync += asked_source.eq(asked_source | source.request.ready)
                m.d.sync += asked_target.eq(asked_target | target.request.ready)
                m.d.sync += left.eq(left - (target.words.valid & target.words.ready))
                with m.If(source.words.valid & source.words.ready & source.words.payload.last):
                    error = source.words.payload.error
                    m.d.sync += [ended.eq(1), self.status.eq(Mux(error, _READ_CODE + error, 0))]
                with m.If(target.done.valid & target.done.ready):
                    error = target.done.payload.error
                    with m.If((error != 0) & (self.status == 0)):
                        m.d.sync += self.status.eq(_WRITE_CODE + error)
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                with m.If(self.heard):
                    m.next = "IDLE"
        return m


class Copier(wiring.Component):
    """Control, controller and DMA of the accelerator, with a :class:`CopyUnit` for each of the first ``KINDS``.

    Parameters
    ----------
    data_bits, outstanding, ahead : int
        ``ahead``: descriptors fetched before their turn.
    sets : sequence of int
        Of every unit, what the controller takes for its set of memory ports. All have their own.

    Ports
    -----
    s_axi_control : in, :class:`..axi.AxiLite`
    m_axi : out, :class:`..axi.Axi4`
    interrupt : out, 1
    """

    def __init__(
        self, *, data_bits: int = 64, outstanding: int = 4, ahead: int = 2, sets: Sequence[int] = (0,)
    ) -> None:
        self.data_bits, self.outstanding, self.ahead, self.sets = data_bits, outstanding, ahead, tuple(sets)
        super().__init__({
            "s_axi_control": In(AxiLite(register_map().address_bits)),
            "m_axi": Out(Axi4(data_bits)), "interrupt": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.control = control = Control(rows=1, cols=1, data_bits=self.data_bits)
        m.submodules.controller = controller = Controller(
            units=[Unit((kind,), ports) for kind, ports in zip(KINDS, self.sets, strict=False)],
            data_bits=self.data_bits, ahead=self.ahead,
        )  # fmt: skip
        count = range(len(self.sets))
        m.submodules.dma = dma = Dma(
            readers=["fetch", *(f"source_{n}" for n in count)], writers=[f"target_{n}" for n in count],
            absolute=["fetch"], data_bits=self.data_bits, outstanding=self.outstanding,
        )  # fmt: skip
        wiring.connect(m, wiring.flipped(self.s_axi_control), control.bus)
        wiring.connect(m, dma.axi, wiring.flipped(self.m_axi))
        wiring.connect(m, controller.fetch, dma.reader_fetch)
        controller.join(m, control.machine)
        machine, arguments = control.machine, control.machine.arguments
        m.d.comb += [
            self.interrupt.eq(control.interrupt),
            *(getattr(dma, name).eq(arguments[name]) for name in ("image_base", "range_low", "range_high")),
            dma.refuse.eq(machine.abort), controller.quiet.eq(dma.idle),
            machine.events.fetch.eq(controller.fetching),
            machine.events.read_beats.eq(dma.read_beat), machine.events.write_beats.eq(dma.write_beat),
        ]  # fmt: skip
        works = []
        for n in count:
            m.submodules[f"unit_{n}"] = unit = CopyUnit(data_bits=self.data_bits)
            wiring.connect(m, unit.source, getattr(dma, f"reader_source_{n}"))
            wiring.connect(m, unit.target, getattr(dma, f"writer_target_{n}"))
            m.d.comb += unit.descriptor.eq(controller.descriptor)
            for name in ("start", "heard"):
                m.d.comb += getattr(unit, name).eq(getattr(controller, f"{name}_{n}"))
            for name in ("ready", "done", "status"):
                m.d.comb += getattr(controller, f"{name}_{n}").eq(getattr(unit, name))
            works.append(~unit.ready)
        m.d.comb += machine.events.vector.eq(Cat(works).any())
        return m
