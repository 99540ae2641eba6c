"""The memory side of an accelerator: ports for its clients, arbiters, one AXI4 master."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from .axi import MAX_OUTSTANDING, PAGE_BYTES, Axi4, check_data_bits
from .emit import place
from .memory_port import QUEUE, ReadClient, WriteClient
from .read_port import ReadPort
from .run_splitter import BURST, SETTINGS, check_burst_beats
from .stream import require
from .write_port import WritePort

_INCR = 1
BURST_BYTES = 1024
"""Longest burst of a default DMA: long enough for DRAM pages, short enough to gather quickly on writes."""


def burst_beats_of(data_bits: int) -> int:
    """Beats of the default longest burst."""
    return min(16, BURST_BYTES * 8 // data_bits)


class Arbiter(wiring.Component):
    """Bursts of several ports in turn: after port i was served, ports i + 1, i + 2, ... come first.

    Combinational from ``valid`` to ``grant``; the turn is a register.

    Parameters
    ----------
    ports : int

    Ports
    -----
    valid : in, ports
    taken : in, 1
        The granted burst was taken.
    grant : out
        Number of the first valid port in turn; any if none is valid.
    """

    def __init__(self, *, ports: int) -> None:
        self.ports = require("arbiter", "ports", ports, 1, 64)
        super().__init__({"valid": In(ports), "taken": In(1), "grant": Out(range(ports))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        turn = Signal(range(self.ports))  # the port that comes first
        with m.Switch(turn):
            for first in range(self.ports):
                with m.Case(first):
                    order = [(first + k) % self.ports for k in range(self.ports)]
                    for port in reversed(order):
                        with m.If(self.valid[port]):
                            m.d.comb += self.grant.eq(port)
        with m.If(self.taken):
            m.d.sync += turn.eq(self._after(self.grant))
        return m

    def _after(self, port: Value) -> Value:
        return Array([*range(1, self.ports), 0])[port]


class ReadBus(wiring.Component):
    """The read channels of an AXI4 master shared by ports; one identifier, so beats come in the order of bursts.

    A granted burst is on the address channel in the next cycle; one a cycle. Data is always taken and given to its port
    in the same cycle.

    Parameters
    ----------
    ports, data_bits, outstanding : int

    Ports
    -----
    burst_<i> : in, stream of BURST
    beat_<i> : out, 1
        The beat on the data channel belongs to port i.
    axi : out, :class:`.axi.Axi4`; the write channels are silent
    hold : in, 1
        No further burst is granted.
    idle : out, 1
        No burst is in flight.
    """

    def __init__(self, *, ports: int, data_bits: int, outstanding: int) -> None:
        self.ports, self.data_bits = require("read bus", "ports", ports, 1, 64), check_data_bits(data_bits)
        self.outstanding = require("read bus", "outstanding", outstanding, 1, MAX_OUTSTANDING)
        members: dict[str, Any] = {f"burst_{i}": In(stream.Signature(BURST)) for i in range(ports)}
        members |= {f"beat_{i}": Out(1) for i in range(ports)}
        super().__init__(members | {"axi": Out(Axi4(data_bits)), "hold": In(1), "idle": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        axi = self.axi
        bursts = [getattr(self, f"burst_{i}") for i in range(self.ports)]
        m.submodules.arbiter = arbiter = Arbiter(ports=self.ports)
        m.submodules.order = order = fifo.SyncFIFO(width=ceil_log2(self.ports) or 1, depth=self.outstanding)
        free, ends = Signal(), Signal()
        m.d.comb += [
            arbiter.valid.eq(Cat(burst.valid for burst in bursts)),
            free.eq((~axi.arvalid | axi.arready) & order.w_rdy & ~self.hold),
            arbiter.taken.eq(free & arbiter.valid.any()),
            *(burst.ready.eq(free & (arbiter.grant == i)) for i, burst in enumerate(bursts)),
            order.w_en.eq(arbiter.taken), order.w_data.eq(arbiter.grant),
            axi.arsize.eq(ceil_log2(self.data_bits // 8)), axi.arburst.eq(_INCR),
            axi.rready.eq(1),
            ends.eq(axi.rvalid & axi.rlast),
            order.r_en.eq(ends),
            *(getattr(self, f"beat_{i}").eq(axi.rvalid & order.r_rdy & (order.r_data == i)) for i in range(self.ports)),
            self.idle.eq(~order.r_rdy),
        ]  # fmt: skip
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(arbiter.taken):
            chosen = Array([burst.payload.as_value() for burst in bursts])[arbiter.grant]
            m.d.sync += [axi.arvalid.eq(1), axi.araddr.eq(chosen[:64]), axi.arlen.eq(chosen[64:72])]
        return m


class WriteBus(wiring.Component):
    """The write channels of an AXI4 master shared by ports; data and answers come in the order of bursts.

    A granted burst is on the address channel in the next cycle and its first beat on the data channel in the one after,
    if the beats before it have left. One burst or beat a cycle. Answers are always taken.

    Parameters
    ----------
    ports, data_bits, outstanding : int

    Ports
    -----
    burst_<i> : in, stream of BURST
        Granted only when port i holds all its beats.
    beat_<i>, data_<i>, strobe_<i>, next_<i> : in, in, in and out; 1, data_bits, data_bits / 8, 1
    answer_<i>, answer_last_<i> : out, 1
        The response on its channel is for port i; it is that of a run's last burst.
    axi : out, :class:`.axi.Axi4`; the read channels are silent
    hold : in, 1
        No further burst is granted.
    idle : out, 1
        No burst is in flight.
    """

    def __init__(self, *, ports: int, data_bits: int, outstanding: int) -> None:
        self.ports, self.data_bits = require("write bus", "ports", ports, 1, 64), check_data_bits(data_bits)
        self.outstanding = require("write bus", "outstanding", outstanding, 1, MAX_OUTSTANDING)
        members: dict[str, Any] = {}
        for i in range(ports):
            members |= {
                f"burst_{i}": In(stream.Signature(BURST)), f"beat_{i}": In(1), f"data_{i}": In(data_bits),
                f"strobe_{i}": In(data_bits // 8), f"next_{i}": Out(1),
                f"answer_{i}": Out(1), f"answer_last_{i}": Out(1),
            }  # fmt: skip
        super().__init__(members | {"axi": Out(Axi4(data_bits)), "hold": In(1), "idle": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        axi = self.axi
        port_bits = ceil_log2(self.ports) or 1
        bursts = [getattr(self, f"burst_{i}") for i in range(self.ports)]
        m.submodules.arbiter = arbiter = Arbiter(ports=self.ports)
        m.submodules.jobs = jobs = fifo.SyncFIFO(width=port_bits + 8, depth=self.outstanding)  # data to be sent
        m.submodules.order = order = fifo.SyncFIFO(width=port_bits + 1, depth=self.outstanding)  # answers to come
        free = Signal()
        chosen = Array([burst.payload.as_value() for burst in bursts])[arbiter.grant]
        m.d.comb += [
            arbiter.valid.eq(Cat(burst.valid for burst in bursts)),
            free.eq((~axi.awvalid | axi.awready) & order.w_rdy & ~self.hold),
            arbiter.taken.eq(free & arbiter.valid.any()),
            *(burst.ready.eq(free & (arbiter.grant == i)) for i, burst in enumerate(bursts)),
            jobs.w_en.eq(arbiter.taken), jobs.w_data.eq(Cat(chosen[64:72], arbiter.grant)),
            order.w_en.eq(arbiter.taken), order.w_data.eq(Cat(chosen[72], arbiter.grant)),
            axi.awsize.eq(ceil_log2(self.data_bits // 8)), axi.awburst.eq(_INCR),
            axi.bready.eq(1), order.r_en.eq(axi.bvalid),
            self.idle.eq(~order.r_rdy),
        ]  # fmt: skip
        for i in range(self.ports):
            m.d.comb += [
                getattr(self, f"answer_{i}").eq(axi.bvalid & order.r_rdy & (order.r_data[1:] == i)),
                getattr(self, f"answer_last_{i}").eq(order.r_data[0]),
            ]
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(arbiter.taken):
            m.d.sync += [axi.awvalid.eq(1), axi.awaddr.eq(chosen[:64]), axi.awlen.eq(chosen[64:72])]
        self._send(m, jobs)
        return m

    def _send(self, m: Module, jobs: Any) -> None:
        """The data channel: the beats of each job from its port, through a register."""
        axi = self.axi
        beats, port = jobs.r_data[:8], jobs.r_data[8:]
        sent, moves, last = Signal(8), Signal(), Signal()  # beats of this job
        of = {
            name: Array([getattr(self, f"{name}_{i}") for i in range(self.ports)])[port]
            for name in ("beat", "data", "strobe")
        }
        m.d.comb += [
            moves.eq(jobs.r_rdy & of["beat"] & (~axi.wvalid | axi.wready)),
            last.eq(sent == beats),
            jobs.r_en.eq(moves & last),
            *(getattr(self, f"next_{i}").eq(moves & (port == i)) for i in range(self.ports)),
        ]
        with m.If(axi.wready):
            m.d.sync += axi.wvalid.eq(0)
        with m.If(moves):
            m.d.sync += [
                axi.wvalid.eq(1), axi.wdata.eq(of["data"]), axi.wstrb.eq(of["strobe"]), axi.wlast.eq(last),
                sent.eq(sent + 1),
            ]  # fmt: skip
            with m.If(last):
                m.d.sync += sent.eq(0)


class Dma(wiring.Component):
    """Ports for named clients on one AXI4 master.

    Clients are served in turn, a burst each, reads and writes apart (:class:`Arbiter`), in the order in which they are
    named. Latency on an idle bus, in cycles: request to read address valid 4; read data to word 3; so request to first
    word 7 and the memory's own latency. Request and words to write address: 3 after the last word of the burst.
    A cycle model is ``nmsat.simulator.machine.memory``. Reset forgets everything: the bus must be reset with it.

    Parameters
    ----------
    readers, writers : sequences of str
        Names of the clients.
    data_bits : int
        Width of the bus and of the clients' words.
    outstanding : int
        Read bursts in flight; every read port has room for all of their beats.
    outstanding_writes : int, optional
        Write bursts in flight, which take next to no room; default: as many as reads.
    burst_beats : int, optional
        Longest burst, a power of two; default 16 beats, at most 1 KB.
    absolute : sequence of str
        Clients to whose addresses no image base is added.

    Ports
    -----
    reader_<name> : in, :class:`.memory_port.ReadClient`
    writer_<name> : in, :class:`.memory_port.WriteClient`
    axi : out, :class:`.axi.Axi4`
    image_base, range_low, range_high, refuse : in, 64, 64, 64, 1
        See :class:`.run_splitter.RunSplitter`.
    hold : in, 1
        No further burst is put on the bus; those in flight end by themselves.
    quiet : out, 1
        No burst is in flight.
    idle : out, 1
        Nothing is queued, in flight or waiting to be taken.
    read_beat, write_beat : out, 1
        A beat passes, for counters.
    """

    def __init__(
        self, *, readers: Sequence[str], writers: Sequence[str], data_bits: int, outstanding: int,
        outstanding_writes: int | None = None, burst_beats: int | None = None, absolute: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.readers, self.writers, self.absolute = tuple(readers), tuple(writers), frozenset(absolute)
        if unknown := self.absolute - {*self.readers, *self.writers}:
            raise NmsatError.rule("dma", "absolute", "names of clients", sorted(unknown))
        self.data_bits = check_data_bits(data_bits)
        self.outstanding = require("dma", "outstanding", outstanding, 1, MAX_OUTSTANDING)
        writes = outstanding if outstanding_writes is None else outstanding_writes
        self.outstanding_writes = require("dma", "outstanding_writes", writes, 1, MAX_OUTSTANDING)
        chosen = burst_beats_of(data_bits) if burst_beats is None else burst_beats
        self.burst_beats = check_burst_beats(chosen, data_bits)
        members: dict[str, Any] = {f"reader_{name}": In(ReadClient(data_bits)) for name in self.readers}
        members |= {f"writer_{name}": In(WriteClient(data_bits)) for name in self.writers}
        super().__init__(members | {
            "axi": Out(Axi4(data_bits)),
            **{name: In(width) for name, width in SETTINGS.items()},
            "hold": In(1), "quiet": Out(1), "idle": Out(1), "read_beat": Out(1), "write_beat": Out(1),
        })  # fmt: skip

    @classmethod
    def from_accelerator(
        cls, accelerator: Accelerator, readers: Sequence[str], writers: Sequence[str], absolute: Sequence[str] = ()
    ) -> Dma:
        """The DMA of an accelerator for these clients."""
        return cls(
            readers=readers, writers=writers, absolute=absolute,
            data_bits=accelerator.axi_data_bits, outstanding=accelerator.axi_outstanding,
            outstanding_writes=accelerator.axi_outstanding_writes,
        )  # fmt: skip

    @property
    def read_parameters(self) -> dict[str, int]:
        """Of every read port: it can hold all beats that may be in flight."""
        return {
            "data_bits": self.data_bits, "burst_beats": self.burst_beats,
            "buffer_beats": max(4, self.outstanding * self.burst_beats), "queued_runs": self.outstanding + QUEUE,
        }  # fmt: skip

    @property
    def write_parameters(self) -> dict[str, int]:
        """Of every write port: it gathers while it sends."""
        return {
            "data_bits": self.data_bits, "burst_beats": self.burst_beats,
            "buffer_beats": max(4, 4 * self.burst_beats), "queued_runs": self.outstanding_writes + QUEUE,
        }  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        idle: list[Any] = []
        quiet: list[Any] = []
        if self.readers:
            ports = {"ports": len(self.readers), "data_bits": self.data_bits}
            bus = place(m, platform, "read_bus", ReadBus, outstanding=self.outstanding, **ports)
            self._channels(m, bus.axi, ("ar", "r"))
            quiet.append(bus.idle)
            m.d.comb += bus.hold.eq(self.hold)
            m.d.comb += self.read_beat.eq(self.axi.rvalid & self.axi.rready)
            for i, name in enumerate(self.readers):
                port = self._port(m, platform, "reader", name, ReadPort, self.read_parameters)
                idle.append(port.idle)
                m.d.comb += [
                    *_stream(getattr(bus, f"burst_{i}"), port.burst),
                    port.beat.eq(getattr(bus, f"beat_{i}")),
                    port.beat_data.eq(self.axi.rdata), port.beat_response.eq(self.axi.rresp),
                ]  # fmt: skip
        if self.writers:
            ports = {"ports": len(self.writers), "data_bits": self.data_bits}
            bus = place(m, platform, "write_bus", WriteBus, outstanding=self.outstanding_writes, **ports)
            self._channels(m, bus.axi, ("aw", "w", "b"))
            quiet.append(bus.idle)
            m.d.comb += bus.hold.eq(self.hold)
            m.d.comb += self.write_beat.eq(self.axi.wvalid & self.axi.wready)
            for i, name in enumerate(self.writers):
                port = self._port(m, platform, "writer", name, WritePort, self.write_parameters)
                idle.append(port.idle)
                m.d.comb += [
                    *_stream(getattr(bus, f"burst_{i}"), port.burst),
                    getattr(bus, f"beat_{i}").eq(port.beat), getattr(bus, f"data_{i}").eq(port.beat_data),
                    getattr(bus, f"strobe_{i}").eq(port.beat_strobe), port.next.eq(getattr(bus, f"next_{i}")),
                    port.answer.eq(getattr(bus, f"answer_{i}")), port.answer_last.eq(getattr(bus, f"answer_last_{i}")),
                    port.answer_response.eq(self.axi.bresp),
                ]  # fmt: skip
        m.d.comb += [self.quiet.eq(Cat(*quiet).all()), self.idle.eq(self.quiet & Cat(*idle).all())]
        return m

    def _port(self, m: Module, platform: Any, kind: str, name: str, element: Any, parameters: dict[str, int]) -> Any:
        """A port joined to its client and to the common settings."""
        label = f"{kind}_{name}"
        port = place(m, platform, f"port_{label}", element, absolute=name in self.absolute, **parameters)
        client = getattr(self, label)
        m.d.comb += [getattr(port, x).eq(getattr(self, x)) for x in SETTINGS]
        m.d.comb += _stream(port.client.request, client.request)
        if kind == "reader":
            m.d.comb += _stream(client.words, port.client.words)
        else:
            m.d.comb += [*_stream(port.client.words, client.words), *_stream(client.done, port.client.done)]
        return port

    def _channels(self, m: Module, axi: Any, channels: Sequence[str]) -> None:
        """Join some channels of a bus to the master's port."""
        for name, member in self.axi.signature.members.items():
            channel = name[:2] if name[:2] in ("aw", "ar") else name[0]
            if channel in channels:
                to, source = (self.axi, axi) if member.flow == Out else (axi, self.axi)
                m.d.comb += getattr(to, name).eq(getattr(source, name))


def _stream(to: Any, source: Any) -> list[Any]:
    """A stream's word and valid one way, its ready the other way."""
    return [
        Value.cast(to.payload).eq(Value.cast(source.payload)), to.valid.eq(source.valid), source.ready.eq(to.ready)
    ]  # fmt: skip


__all__ = ["BURST_BYTES", "PAGE_BYTES", "Arbiter", "Dma", "ReadBus", "WriteBus", "burst_beats_of"]
