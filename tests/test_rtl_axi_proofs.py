"""Proofs of the buses: the AXI4-Lite slave for any run, the AXI4 master's burst rules up to a depth; each with mutants."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from nmsat.rtl import axi_lite, dma, register_file, run_splitter
from nmsat.rtl.proofs import holds
from nmsat.rtl.registers import RegisterMap


def mutant(module, *changes):
    """The module with pieces of its text replaced, each of which must occur exactly once."""
    text = Path(module.__file__).read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    made = types.ModuleType(module.__name__)
    made.__package__ = module.__package__
    exec(compile(text, module.__file__, "exec"), made.__dict__)
    return made


BUS_INPUTS = {
    "awaddr": In(4), "awvalid": In(1), "wdata": In(32), "wstrb": In(4), "wvalid": In(1), "bready": In(1),
    "araddr": In(4), "arvalid": In(1), "rready": In(1),
}  # fmt: skip


def stays(m, valid, ready, *payload):
    """A channel's rule: what is offered stays as it is until it is taken."""
    waited, before = Signal(), [Signal(len(x)) for x in payload]
    m.d.sync += [waited.eq(valid & ~ready), *(old.eq(x) for old, x in zip(before, payload, strict=True))]
    m.d.comb += Assert(~waited | valid)
    for old, x in zip(before, payload, strict=True):
        m.d.comb += Assert(~waited | (old == x))


def master_keeps(m, valid, ready, *payload):
    """The same rule as an assumption on the other side."""
    waited, before = Signal(), [Signal(len(x)) for x in payload]
    m.d.sync += [waited.eq(valid & ~ready), *(old.eq(x) for old, x in zip(before, payload, strict=True))]
    m.d.comb += Assume(~waited | valid)
    for old, x in zip(before, payload, strict=True):
        m.d.comb += Assume(~waited | (old == x))


class SlaveProperties(wiring.Component):
    """Accesses taken and not answered decide everything; strobes carry what was taken; answers carry what was read."""

    def __init__(self, module):
        self.module = module
        super().__init__(BUS_INPUTS | {"read_data": In(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.module.AxiLiteSlave(address_bits=4)
        bus = dut.bus
        m.d.comb += [getattr(bus, name).eq(getattr(self, name)) for name in BUS_INPUTS]
        m.d.comb += dut.read_data.eq(self.read_data)
        master_keeps(m, bus.awvalid, bus.awready, bus.awaddr)
        master_keeps(m, bus.wvalid, bus.wready, bus.wdata, bus.wstrb)
        master_keeps(m, bus.arvalid, bus.arready, bus.araddr)
        stays(m, bus.bvalid, bus.bready, bus.bresp)
        stays(m, bus.rvalid, bus.rready, bus.rdata, bus.rresp)
        answered, read = bus.bvalid & bus.bready, bus.rvalid & bus.rready
        owed = {  # taken less answered
            "addresses": (bus.awvalid & bus.awready, answered, ~bus.awready + bus.bvalid),
            "data": (bus.wvalid & bus.wready, answered, ~bus.wready + bus.bvalid),
            "writes": (dut.write, answered, bus.bvalid),
            "read addresses": (bus.arvalid & bus.arready, read, ~bus.arready + bus.rvalid),
            "reads": (dut.read, read, bus.rvalid),
        }
        for name, (more, less, expected) in owed.items():
            count = Signal(3, name=name.replace(" ", "_"))
            m.d.sync += count.eq(count + more - less)
            m.d.comb += Assert(count == expected)
        taken = Signal(4), Signal(32), Signal(4), Signal(4)
        for register, valid, ready, source in (
            (taken[0], bus.awvalid, bus.awready, bus.awaddr), (taken[1], bus.wvalid, bus.wready, bus.wdata),
            (taken[2], bus.wvalid, bus.wready, bus.wstrb), (taken[3], bus.arvalid, bus.arready, bus.araddr),
        ):  # fmt: skip
            with m.If(valid & ready):
                m.d.sync += register.eq(source)
        m.d.comb += [
            Assert(bus.awready | (dut.write_word == taken[0][2:])),
            Assert(bus.wready | ((dut.write_data == taken[1]) & (dut.write_mask == taken[2]))),
            Assert(bus.arready | (dut.read_word == taken[3][2:])),
            Assert((bus.bresp == 0) & (bus.rresp == 0)),
            Assert(~dut.write | (~bus.awready & ~bus.wready)),
            # nothing waits longer than the other side makes it
            Assert(dut.write | bus.awready | bus.wready | (bus.bvalid & ~bus.bready)),
            Assert(dut.read | bus.arready | (bus.rvalid & ~bus.rready)),
        ]
        value = Signal(32)
        with m.If(dut.read):
            m.d.sync += value.eq(self.read_data)
        m.d.comb += Assert(~bus.rvalid | (bus.rdata == value))
        return m


SMALL = RegisterMap.model_validate({
    "format": "nmsat-registers/1", "name": "small", "address_bits": 4, "identity": 0, "version": 1,
    "registers": [
        {"name": "plain", "offset": 0, "access": "rw", "description": "x"},
        {"name": "mixed", "offset": 4, "description": "x", "fields": [
            {"name": "go", "bit": 0, "access": "set", "description": "x"},
            {"name": "seen", "bit": 1, "access": "cor", "description": "x"},
            {"name": "cause", "bit": 9, "width": 2, "access": "w1c", "description": "x"},
            {"name": "told", "bit": 20, "width": 4, "access": "ro", "description": "x"},
        ]},
    ],
    "codes": [{"name": "ok", "code": 0, "description": "x"}],
})  # fmt: skip


class RegisterProperties(wiring.Component):
    """Fields against their description, from what passes on the bus: shadows change only as software and hardware say."""

    def __init__(self, module):
        self.module = module
        super().__init__(BUS_INPUTS | {"go": In(1), "seen": In(1), "cause": In(2), "told": In(4)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.module.RegisterFile(SMALL)
        bus = dut.bus
        m.d.comb += [getattr(bus, name).eq(getattr(self, name)) for name in BUS_INPUTS]
        m.d.comb += [getattr(dut, f"mixed_{name}").eq(getattr(self, name)) for name in ("go", "seen", "cause", "told")]
        master_keeps(m, bus.awvalid, bus.awready, bus.awaddr)
        master_keeps(m, bus.wvalid, bus.wready, bus.wdata, bus.wstrb)
        master_keeps(m, bus.arvalid, bus.arready, bus.araddr)
        address, data, strobe, asked = Signal(4), Signal(32), Signal(4), Signal(4)
        for register, valid, ready, source in (
            (address, bus.awvalid, bus.awready, bus.awaddr), (data, bus.wvalid, bus.wready, bus.wdata),
            (strobe, bus.wvalid, bus.wready, bus.wstrb), (asked, bus.arvalid, bus.arready, bus.araddr),
        ):  # fmt: skip
            with m.If(valid & ready):
                m.d.sync += register.eq(source)
        write = ~bus.awready & ~bus.wready & (~bus.bvalid | bus.bready)
        read = ~bus.arready & (~bus.rvalid | bus.rready)
        mask = Cat(strobe[k // 8] for k in range(32))
        plain, seen, cause = Signal(32), Signal(), Signal(2)
        with m.If(write & (address[2:] == 0)):
            m.d.sync += plain.eq((plain & ~mask) | (data & mask))
        ones = data & mask & (write & (address[2:] == 1)).replicate(32)
        m.d.sync += seen.eq(self.seen | (seen & ~(read & (asked[2:] == 1))))
        m.d.sync += cause.eq(self.cause | (cause & ~ones[9:11]))
        expected, later = Signal(32), Signal(32)
        with m.Switch(asked[2:]):
            with m.Case(0):
                m.d.comb += expected.eq(plain)
            with m.Case(1):
                m.d.comb += expected.eq(self.go | seen << 1 | cause << 9 | self.told << 20)
        with m.If(read):
            m.d.sync += later.eq(expected)
        unmapped = (read & asked[3]) | (write & address[3])
        m.d.comb += [
            Assert(dut.held["mixed_seen"] == seen),
            Assert(dut.plain == plain), Assert(dut.mixed_cause_pending == cause), Assert(dut.mixed_go_set == ones[0]),
            Assert(~bus.rvalid | (bus.rdata == later)), Assert(dut.bad_access == unmapped),
            # proved of the slave itself; here they let the induction begin anywhere
            Assert(bus.awready | (dut.slave.write_word == address[2:])),
            Assert(bus.wready | ((dut.slave.write_data == data) & (dut.slave.write_mask == strobe))),
            Assert(bus.arready | (dut.slave.read_word == asked[2:])),
        ]  # fmt: skip
        return m


class SplitterProperties(wiring.Component):
    """One request, chosen freely and asked for again and again: its bursts join up, fill its beats and keep the borders."""

    BYTES, BURST = 4, 4  # of a beat; beats of the longest burst

    def __init__(self, module):
        self.module = module
        super().__init__({
            "address": In(6), "bytes": In(5), "base": In(2), "low": In(6), "high": In(7), "refuse": In(1),
            "ask": In(1), "run_ready": In(1), "burst_ready": In(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.module.RunSplitter(data_bits=8 * self.BYTES, burst_beats=self.BURST)
        for name in ("address", "bytes", "base", "low", "high"):  # constant, of any value
            before, begun = Signal(len(getattr(self, name))), Signal()
            m.d.sync += [before.eq(getattr(self, name)), begun.eq(1)]
            m.d.comb += Assume(~begun | (before == getattr(self, name)))
        m.d.comb += [
            dut.request.valid.eq(self.ask), dut.request.payload.address.eq(self.address),
            dut.request.payload.bytes.eq(self.bytes), dut.image_base.eq(self.base), dut.range_low.eq(self.low),
            dut.range_high.eq(self.high), dut.refuse.eq(self.refuse), dut.run.ready.eq(self.run_ready),
            dut.burst.ready.eq(self.burst_ready), dut.drop.eq(1),
        ]  # fmt: skip
        first = Signal(7)
        m.d.comb += first.eq(self.address + self.base)
        end = first + self.bytes
        refused = self.refuse | (self.bytes == 0) | (first < self.low) | (end > self.high)
        beats, words = (first[:2] + self.bytes + 3) >> 2, (self.bytes + 3) >> 2
        run, burst = dut.run.payload, dut.burst.payload
        starts, goes = dut.run.valid & dut.run.ready, dut.burst.valid & dut.burst.ready
        active, left, at = Signal(), Signal(6), Signal(64)
        with m.If(goes):
            m.d.sync += [left.eq(left - burst.beats - 1), at.eq(at + ((burst.beats + 1) << 2))]
            with m.If(burst.last):
                m.d.sync += active.eq(0)
        with m.If(starts):
            m.d.sync += [active.eq(~run.refused), left.eq(beats), at.eq(first & ~3)]
        inside = burst.address[:4] + ((burst.beats + 1) << 2)
        m.d.comb += [
            Assert(~dut.run.valid | (run.refused == refused)),
            Assert(~dut.run.valid | ((run.offset == first[:2]) & (run.words == words) & (run.extra == (beats != words)))),
            Assert(~dut.run.valid | (self.bytes == 0) | (run.end == (end - 1)[:2])),
            Assert(~dut.burst.valid | active),  # a refused run has none
            Assert(~dut.burst.valid | ((burst.address == at) & (burst.last == (burst.beats + 1 == left)))),
            Assert(~dut.burst.valid | (burst.beats + 1 <= left)),
            Assert(~dut.burst.valid | (inside <= 4 * self.BURST)),  # within 16 bytes, so within 4 KB
            Assert(~starts | ~active | (goes & burst.last)),
        ]  # fmt: skip
        stays(m, dut.burst.valid, dut.burst.ready, burst.as_value())
        return m


class _BusProperties(wiring.Component):
    """What both buses share: two ports that offer bursts of up to four beats."""

    OUTSTANDING = 2

    def __init__(self, module, ports):
        self.module = module
        both = {"offer": In(2), "beats": In(2), "last": In(1), "address_ready": In(1)}
        super().__init__(both | ports)

    def bursts(self, m, dut):
        """Each port offers its burst until it is taken; returns the takers."""
        taken = []
        for k in range(2):
            stream = getattr(dut, f"burst_{k}")
            held, beats, last = Signal(), Signal(2), Signal()
            m.d.comb += [
                stream.valid.eq(held), stream.payload.beats.eq(beats), stream.payload.last.eq(last),
                stream.payload.address.eq(64 * k),
            ]  # fmt: skip
            with m.If(~held | stream.ready):
                m.d.sync += [held.eq(self.offer[k]), beats.eq(self.beats), last.eq(self.last)]
            taken.append(held & stream.ready)
        m.d.comb += Assert(~(taken[0] & taken[1]))
        return taken

    def queue(self, m, push, value, pop):
        """Values in order, at most OUTSTANDING; returns (head, how many). Overflow and underflow are broken properties."""
        count, cells = Signal(3), [Signal(len(value)) for _ in range(3)]
        m.d.comb += [Assert(~push | (count - pop < self.OUTSTANDING)), Assert(~pop | (count != 0))]
        for k in range(3):
            after = Mux(pop, cells[k + 1], cells[k]) if k < 2 else cells[k]
            m.d.sync += cells[k].eq(Mux(push & (count - pop == k), value, after))
        m.d.sync += count.eq(count + push - pop)
        return cells[0], count


class ReadBusProperties(_BusProperties):
    """Addresses are those granted, in order; beats go to their port; ARLEN + 1 of them."""

    def __init__(self, module):
        super().__init__(module, {"rvalid": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.module.ReadBus(ports=2, data_bits=32, outstanding=self.OUTSTANDING)
        axi, (first, second) = dut.axi, self.bursts(m, dut)
        granted, beats = Signal(3), Signal(2)
        m.d.comb += [
            beats.eq(Mux(second, dut.burst_1.payload.beats, dut.burst_0.payload.beats)),
            granted.eq(Cat(second, beats)),
            axi.arready.eq(self.address_ready),
            Assert((axi.arsize == 2) & (axi.arburst == 1) & axi.rready & (axi.arlen < 4)),
        ]
        stays(m, axi.arvalid, axi.arready, axi.araddr, axi.arlen)
        place, ends = Signal(3), axi.rvalid & axi.rlast
        head, count = self.queue(m, first | second, granted, ends)  # bursts whose data has not all come
        addresses = Signal(3)  # of them, whose address was taken
        m.d.sync += addresses.eq(addresses + (axi.arvalid & axi.arready) - ends)
        offered, waiting = self.queue(m, first | second, granted, axi.arvalid & axi.arready)
        m.d.comb += [
            Assert(~axi.arvalid | ((waiting != 0) & (axi.araddr == offered[0] << 6) & (axi.arlen == offered[1:]))),
            Assert(axi.arvalid == (waiting != 0)),
            axi.rvalid.eq(self.rvalid & (addresses != 0)), axi.rlast.eq(place == head[1:]),
            Assert(dut.beat_0 == (axi.rvalid & ~head[0])), Assert(dut.beat_1 == (axi.rvalid & head[0])),
            Assert(dut.idle == (count == 0)),
        ]  # fmt: skip
        m.d.sync += place.eq(Mux(ends, 0, place + axi.rvalid))
        return m


class WriteBusProperties(_BusProperties):
    """Data of each burst after its grant, in order, AWLEN + 1 beats, WLAST on the last; an answer a burst, to its port."""

    def __init__(self, module):
        super().__init__(module, {"wready": In(1), "bvalid": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.module.WriteBus(ports=2, data_bits=32, outstanding=self.OUTSTANDING)
        axi, (first, second) = dut.axi, self.bursts(m, dut)
        granted = Signal(4)
        ports = ((first & 0, dut.burst_0.payload), (second | 1, dut.burst_1.payload))
        chosen = [Cat(port, burst.beats[:2], burst.last) for port, burst in ports]
        m.d.comb += [
            granted.eq(Mux(second, chosen[1], chosen[0])),
            axi.awready.eq(self.address_ready), axi.wready.eq(self.wready),
            dut.beat_0.eq(1), dut.beat_1.eq(1), dut.data_0.eq(0), dut.data_1.eq(1),  # a port has all beats of its bursts
            Assert((axi.awsize == 2) & (axi.awburst == 1) & axi.bready & (axi.awlen < 4)),
        ]  # fmt: skip
        stays(m, axi.awvalid, axi.awready, axi.awaddr, axi.awlen)
        stays(m, axi.wvalid, axi.wready, axi.wdata, axi.wlast)
        taken, answer = axi.awvalid & axi.awready, axi.bvalid & axi.bready
        beat = axi.wvalid & axi.wready
        offered, waiting = self.queue(m, first | second, granted, taken)
        sending, unsent = self.queue(m, first | second, granted, beat & axi.wlast)
        answered, open_ = self.queue(m, first | second, granted, answer)
        place, addresses, data = Signal(3), Signal(3), Signal(3)  # taken, sent and not answered
        m.d.sync += [
            place.eq(Mux(beat & axi.wlast, 0, place + beat)), addresses.eq(addresses + taken - answer),
            data.eq(data + (beat & axi.wlast) - answer),
        ]  # fmt: skip
        m.d.comb += [
            axi.bvalid.eq(self.bvalid & (addresses != 0) & (data != 0)),
            Assert(axi.awvalid == (waiting != 0)),
            Assert(~axi.awvalid | ((axi.awaddr == offered[0] << 6) & (axi.awlen == offered[1:3]))),
            Assert(~axi.wvalid | ((unsent != 0) & (axi.wlast == (place == sending[1:3])) & (axi.wdata == sending[0]))),
            Assert(~(dut.next_0 & dut.next_1)),
            Assert(dut.answer_0 == (answer & ~answered[0])), Assert(dut.answer_1 == (answer & answered[0])),
            Assert(~answer | ((dut.answer_last_0 == answered[3]) & (dut.answer_last_1 == answered[3]))),
            Assert(dut.idle == (open_ == 0)),
        ]  # fmt: skip
        return m


class MasterProperties(wiring.Component):
    """A DMA with one reader and one writer between clients and a slave that do anything they may."""

    OUTSTANDING, BURST = 2, 2

    def __init__(self, module, reads=True, writes=True, longest=12):
        self.module, self.reads, self.writes, self.longest = module, reads, writes, longest
        super().__init__({
            "address": In(13), "bytes": In(4), "ask": In(1), "word": In(2), "give": In(1), "take": In(1),
            "arready": In(1), "awready": In(1), "wready": In(1), "rvalid": In(1), "bvalid": In(1), "rresp": In(2), "bresp": In(2),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.module.Dma(
            readers=["a"] if self.reads else [], writers=["w"] if self.writes else [], data_bits=32,
            outstanding=self.OUTSTANDING, burst_beats=self.BURST,
        )  # fmt: skip
        m.d.comb += [dut.range_high.eq(2**64 - 1), Assume(self.bytes != 0), Assume(self.bytes <= self.longest)]
        if self.reads:
            self._reads(m, dut)
        if self.writes:
            self._writes(m, dut)
        return m

    def _asks(self, m, port):
        """A client asks; returns (it was taken, beats that its run needs)."""
        m.d.comb += [
            port.request.valid.eq(self.ask), port.request.payload.address.eq(self.address),
            port.request.payload.bytes.eq(self.bytes),
        ]  # fmt: skip
        return port.request.valid & port.request.ready, (self.address[:2] + self.bytes + 3) >> 2

    def _rules(self, m, axi, channel):
        """Of an address channel; returns (a new burst is offered, it is taken, its beats)."""
        valid, ready, address, beats = (getattr(axi, channel + name) for name in ("valid", "ready", "addr", "len"))
        stays(m, valid, ready, address, beats)
        m.d.comb += [
            Assert(~valid | (address[:12] + ((beats + 1) << 2) <= 4096)),
            Assert(~valid | (address[:2] == 0)),
            Assert(~valid | (beats < 256)),
            Assert((getattr(axi, channel + "size") == 2) & (getattr(axi, channel + "burst") == 1)),
        ]
        waited = Signal()
        m.d.sync += waited.eq(valid & ~ready)
        return valid & ~waited, valid & ready, beats + 1

    def _queue(self, m, push, value, pop):
        """A queue of at most OUTSTANDING values; returns (head, how many); overflow is a broken property."""
        count, cells = Signal(4), [Signal(9), Signal(9), Signal(9)]
        m.d.comb += Assert(~push | (count - pop < self.OUTSTANDING))
        after = [Mux(pop, cells[k + 1], cells[k]) if k < 2 else cells[k] for k in range(3)]
        for k in range(3):
            m.d.sync += cells[k].eq(Mux(push & (count - pop == k), value, after[k]))
        m.d.sync += count.eq(count + push - pop)
        return cells[0], count

    def _reads(self, m, dut):
        axi, client = dut.axi, dut.reader_a
        asked, needs = self._asks(m, client)
        offered, taken, beats = self._rules(m, axi, "ar")
        beat, ends = axi.rvalid & axi.rready, axi.rvalid & axi.rready & axi.rlast
        place = Signal(9)
        head, count = self._queue(m, taken, beats, ends)
        m.d.sync += place.eq(Mux(ends, 0, place + beat))
        m.d.comb += [
            axi.arready.eq(self.arready), axi.rvalid.eq(self.rvalid), axi.rresp.eq(self.rresp),
            Assume(~self.rvalid | (count != 0)), axi.rlast.eq(place + 1 == head),
            Assert(axi.rready),
            client.words.ready.eq(self.take),
        ]  # fmt: skip
        stays(m, client.words.valid, client.words.ready, client.words.payload.as_value())
        wanted, got, runs, ended = Signal(8), Signal(8), Signal(8), Signal(8)
        m.d.sync += [
            wanted.eq(wanted + Mux(asked, needs, 0)), got.eq(got + Mux(offered, beats, 0)), runs.eq(runs + asked),
            ended.eq(ended + (client.words.valid & client.words.ready & client.words.payload.last)),
        ]  # fmt: skip
        m.d.comb += [
            Assert(got <= wanted), Assert(ended <= runs),
            Assert(~dut.idle | ((got == wanted) & (ended == runs))),  # R beats are those asked for, none is lost
        ]  # fmt: skip

    def _writes(self, m, dut):
        axi, client = dut.axi, dut.writer_w
        asked, needs = self._asks(m, client)
        offered, taken, beats = self._rules(m, axi, "aw")
        stays(m, axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast)
        beat = axi.wvalid & axi.wready
        place = Signal(9)
        # a burst whose address is only offered may have data already
        head, count = self._queue(m, offered, beats, beat & axi.wlast)
        m.d.sync += place.eq(Mux(beat & axi.wlast, 0, place + beat))
        addresses, data, answers = Signal(8), Signal(8), Signal(8)
        answer = axi.bvalid & axi.bready
        m.d.sync += [addresses.eq(addresses + taken), data.eq(data + (beat & axi.wlast)), answers.eq(answers + answer)]
        m.d.comb += [
            axi.awready.eq(self.awready), axi.wready.eq(self.wready), axi.bvalid.eq(self.bvalid), axi.bresp.eq(self.bresp),
            Assume(~self.bvalid | ((answers != addresses) & (answers != data))),
            Assert(axi.bready),
            Assert(~axi.wvalid | (count != 0) | offered),
            Assert(~axi.wvalid | (axi.wlast == (place + 1 == head))),
            client.words.payload.eq(self.word), client.words.valid.eq(self.give), client.done.ready.eq(self.take),
        ]  # fmt: skip
        stays(m, client.done.valid, client.done.ready, client.done.payload.as_value())
        wanted, got, runs, ended, sent = Signal(8), Signal(8), Signal(8), Signal(8), Signal(8)
        m.d.sync += [
            wanted.eq(wanted + Mux(asked, needs, 0)), got.eq(got + Mux(offered, beats, 0)), runs.eq(runs + asked),
            ended.eq(ended + (client.done.valid & client.done.ready)), sent.eq(sent + beat),
        ]  # fmt: skip
        m.d.comb += [
            Assert(got <= wanted), Assert(ended <= runs), Assert(ended <= answers),
            Assert(~dut.idle | ((got == wanted) & (sent == wanted) & (ended == runs) & (answers == addresses))),
        ]  # fmt: skip


def test_axi_lite_slave_for_any_run():
    assert holds(SlaveProperties(axi_lite), 6, induction=True)


def test_register_file_for_any_run():
    assert holds(RegisterProperties(register_file), 2, induction=True)


def test_bursts_fill_a_run_and_keep_4_kb():
    assert holds(SplitterProperties(run_splitter), 5)  # two bursts


def test_read_bus():
    assert holds(ReadBusProperties(dma), 8)


def test_write_bus():
    assert holds(WriteBusProperties(dma), 8)


@pytest.mark.parametrize("options", [{"writes": False}, {"reads": False}], ids=["reads", "writes"])
def test_whole_dma(options):
    assert holds(MasterProperties(dma, **options), 8)


@pytest.mark.slow
def test_bursts_of_longer_runs():
    assert holds(SplitterProperties(run_splitter), 6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"writes": False}, {"reads": False}], ids=["reads", "writes"])
def test_whole_dma_deeper(options):
    assert holds(MasterProperties(dma, **options), 12)


@pytest.mark.parametrize("properties, module, old, new", [
    (SlaveProperties, axi_lite, "~w_room & (~bus.bvalid | bus.bready)", "~w_room"),
    (SlaveProperties, axi_lite, "[aw_room.eq(1), w_room.eq(1), bus.bvalid.eq(1)]", "[aw_room.eq(1), bus.bvalid.eq(1)]"),
    (SlaveProperties, axi_lite, "with m.If(bus.rready):", "with m.If(1):"),
    (SlaveProperties, axi_lite, "with m.If(bus.awvalid & aw_room):", "with m.If(bus.awvalid):"),
    (RegisterProperties, register_file, "(port[bits] & ~mask) | ones", "ones"),
    (RegisterProperties, register_file, "(held[bits] & ~read.replicate(len(held[bits])))", "held[bits]"),
    (RegisterProperties, register_file, "~(ones & write.replicate(len(ones)))", "~ones"),
    (RegisterProperties, register_file, "(slave.write & ~writable)", "(slave.write & ~mapped)"),
    (SplitterProperties, run_splitter, "(end > self.range_high)", "(end > self.range_high + 1)"),
    (SplitterProperties, run_splitter, "self.burst_beats - beat[: ceil_log2(self.burst_beats)]", "self.burst_beats"),
    (SplitterProperties, run_splitter, "self.burst.payload.last.eq(fits)", "self.burst.payload.last.eq(left < room)"),
    (ReadBusProperties, dma, "with m.If(axi.arready):", "with m.If(1):"),
    (ReadBusProperties, dma, "free.eq((~axi.arvalid | axi.arready) & order.w_rdy & ~self.hold)", "free.eq((~axi.arvalid | axi.arready) & ~self.hold)"),
    (ReadBusProperties, dma, "axi.arlen.eq(chosen[64:72])", "axi.arlen.eq(chosen[64:72] + 1)"),
    (WriteBusProperties, dma, "with m.If(axi.awready):", "with m.If(1):"),
    (WriteBusProperties, dma, "(~axi.wvalid | axi.wready))", "1)"),
    (WriteBusProperties, dma, "last.eq(sent == beats)", "last.eq(sent + 1 == beats)"),
    (WriteBusProperties, dma, "answer_last_{i}\").eq(order.r_data[0])", "answer_last_{i}\").eq(1)"),
])  # fmt: skip
def test_a_planted_fault_breaks_the_proof(properties, module, old, new):
    assert not holds(properties(mutant(module, (old, new))), 7)
