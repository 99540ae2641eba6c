"""The smallest machine behind control and DMA: a program of copies. It is there to test hosts, shells and faults."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...dataflow.program import DESCRIPTOR_BYTES, Kind
from ..axi import Axi4, AxiLite
from ..control import Control
from ..descriptor import DESCRIPTOR_BITS, descriptor_layout
from ..dma import Dma
from ..registers import Code, register_map


class Copier(wiring.Component):
    """Executes VECTOR as a copy of ``elements`` bytes from source to target; HOST and END as the accelerator does.

    Parameters
    ----------
    data_bits, outstanding : int

    Ports
    -----
    s_axi_control : in, :class:`..axi.AxiLite`
    m_axi : out, :class:`..axi.Axi4`
    interrupt : out, 1
    """

    def __init__(self, *, data_bits: int = 64, outstanding: int = 4) -> None:
        self.data_bits, self.outstanding = data_bits, outstanding
        super().__init__({
            "s_axi_control": In(AxiLite(register_map().address_bits)),
            "m_axi": Out(Axi4(data_bits)), "interrupt": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.control = control = Control(rows=1, cols=1, data_bits=self.data_bits)
        m.submodules.dma = dma = Dma(
            readers=["fetch", "source"], writers=["target"], absolute=["fetch"],
            data_bits=self.data_bits, outstanding=self.outstanding,
        )  # fmt: skip
        wiring.connect(m, wiring.flipped(self.s_axi_control), control.bus)
        wiring.connect(m, wiring.flipped(self.m_axi), dma.axi)
        machine, arguments = control.machine, control.machine.arguments
        m.d.comb += [
            self.interrupt.eq(control.interrupt),
            *(getattr(dma, name).eq(arguments[name]) for name in ("image_base", "range_low", "range_high")),
            dma.refuse.eq(machine.abort),
            machine.events.read_beats.eq(dma.read_beat), machine.events.write_beats.eq(dma.write_beat),
        ]  # fmt: skip
        fetch, source, target = dma.reader_fetch, dma.reader_source, dma.writer_target
        text = Signal(DESCRIPTOR_BITS)
        item = data.View(descriptor_layout(Kind.VECTOR), text)
        index, code, begun, cycle = Signal(32), Signal(8), Signal(32), Signal(32)
        asked_source, asked_target, left, ended = Signal(), Signal(), Signal(32), Signal()
        word_bytes = self.data_bits // 8
        m.d.sync += cycle.eq(cycle + 1)
        m.d.comb += [
            fetch.request.payload.address.eq(arguments.program + (index << 8)),
            fetch.request.payload.bytes.eq(DESCRIPTOR_BYTES),
            source.request.payload.address.eq(item.source_address), source.request.payload.bytes.eq(item.elements),
            target.request.payload.address.eq(item.target_address), target.request.payload.bytes.eq(item.elements),
            target.words.payload.eq(source.words.payload.data),
            machine.code.eq(code), machine.descriptor.eq(index), machine.host_step.eq(index),
            machine.retired_descriptor.eq(index), machine.retired_cycles.eq(cycle - begun),
        ]  # fmt: skip
        with m.FSM():
            with m.State("IDLE"), m.If(machine.start):
                m.d.sync += [index.eq(0), code.eq(0)]
                m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [fetch.request.valid.eq(1), machine.events.fetch.eq(1)]
                with m.If(fetch.request.ready):
                    m.d.sync += begun.eq(cycle)
                    m.next = "COLLECT"
            with m.State("COLLECT"):
                m.d.comb += [fetch.words.ready.eq(1), machine.events.fetch.eq(1)]
                word = fetch.words.payload
                with m.If(fetch.words.valid):
                    m.d.sync += text.eq(Cat(text[self.data_bits :], word.data))
                    with m.If(word.last):
                        m.next = "DECODE"
                        with m.If(word.error != 0):
                            m.d.sync += code.eq(0x28 + word.error)
                            m.next = "DRAIN"
            with m.State("DECODE"):
                m.d.sync += [asked_source.eq(0), asked_target.eq(0), ended.eq(0)]
                m.d.sync += left.eq((item.elements + (word_bytes - 1)) // word_bytes)
                m.next = "DRAIN"
                with m.If(item.kind == Kind.VECTOR):
                    m.next = "COPY"
                with m.Elif(item.kind == Kind.HOST):
                    m.next = "STOP"
                with m.Elif(item.kind != Kind.END):
                    m.d.sync += code.eq(Code.BAD_KIND)
                with m.If((item.kind != Kind.END) & (index + 1 >= arguments.descriptor_limit)):
                    m.d.sync += code.eq(Code.NO_END)
                    m.next = "DRAIN"
            with m.State("STOP"), m.If(dma.idle):
                m.d.comb += machine.host.eq(1)
                m.next = "WAIT"
            with m.State("WAIT"), m.If(machine.resume):
                m.next = "RETIRE"
            with m.State("COPY"):
                m.d.comb += [
                    source.request.valid.eq(~asked_source), target.request.valid.eq(~asked_target),
                    machine.events.vector.eq(1),
                    # a refused read has one word: the rest is made up, so that the write ends
                    target.words.valid.eq((left != 0) & (source.words.valid | ended)),
                    source.words.ready.eq(target.words.ready | (left == 0)),
                    target.done.ready.eq(ended),
                ]  # fmt: skip
                m.d.sync += asked_source.eq(asked_source | source.request.ready)
                m.d.sync += asked_target.eq(asked_target | target.request.ready)
                m.d.sync += left.eq(left - (target.words.valid & target.words.ready))
                with m.If(source.words.valid & source.words.ready & source.words.payload.last):
                    m.d.sync += [
                        ended.eq(1),
                        code.eq(Mux(source.words.payload.error, 0x20 + source.words.payload.error, 0)),
                    ]
                with m.If(target.done.valid & target.done.ready):
                    m.next = "RETIRE"
                    with m.If((target.done.payload.error != 0) & (code == 0)):
                        m.d.sync += code.eq(0x24 + target.done.payload.error)
            with m.State("RETIRE"):
                m.next = "DRAIN"
                with m.If(code == 0):
                    m.d.comb += machine.retired.eq(1)
                    m.d.sync += index.eq(index + 1)
                    m.next = "FETCH"
            with m.State("DRAIN"), m.If(dma.idle):
                m.d.comb += [machine.ended.eq(1), machine.retired.eq(code == 0)]
                m.next = "IDLE"
        return m
