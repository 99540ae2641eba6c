"""An AXI4-Lite slave: the bus on one side, read and write strobes on the other."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .axi import AxiLite


class AxiLiteSlave(wiring.Component):
    """One read and one write at a time, every output from a register (proved, tests/test_rtl_axi_proofs.py).

    Every access is answered OKAY: an error on this bus comes back through PCIe as a fault of the host. Latency: a read
    answers 2 cycles after its address was taken, a write 2 cycles after the later of address and data; initiation
    interval 3. A read sees every write that was answered before its address was taken. Reset forgets accesses that are
    not answered.

    Parameters
    ----------
    address_bits : int
        Width of the byte address. The lowest two bits are ignored: strobes say which bytes are written.

    Ports
    -----
    bus : in, :class:`.axi.AxiLite`
    write, write_word, write_data, write_mask : out, 1, address_bits - 2, 32, 4
        A write, for one cycle.
    read, read_word : out, 1, address_bits - 2
        A read, for one cycle.
    read_data : in, 32
        Its value, in the same cycle.
    """

    def __init__(self, *, address_bits: int) -> None:
        self.address_bits = address_bits
        super().__init__({
            "bus": In(AxiLite(address_bits)),
            "write": Out(1), "write_word": Out(address_bits - 2), "write_data": Out(32), "write_mask": Out(4),
            "read": Out(1), "read_word": Out(address_bits - 2), "read_data": In(32),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus = self.bus
        aw_room, w_room, ar_room = Signal(init=1), Signal(init=1), Signal(init=1)  # inverse: an address or data is held
        m.d.comb += [
            bus.awready.eq(aw_room), bus.wready.eq(w_room), bus.arready.eq(ar_room),
            self.write.eq(~aw_room & ~w_room & (~bus.bvalid | bus.bready)),
            self.read.eq(~ar_room & (~bus.rvalid | bus.rready)),
        ]  # fmt: skip
        with m.If(bus.awvalid & aw_room):
            m.d.sync += [aw_room.eq(0), self.write_word.eq(bus.awaddr[2:])]
        with m.If(bus.wvalid & w_room):
            m.d.sync += [w_room.eq(0), self.write_data.eq(bus.wdata), self.write_mask.eq(bus.wstrb)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(self.write):
            m.d.sync += [aw_room.eq(1), w_room.eq(1), bus.bvalid.eq(1)]
        with m.If(bus.arvalid & ar_room):
            m.d.sync += [ar_room.eq(0), self.read_word.eq(bus.araddr[2:])]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(self.read):
            m.d.sync += [ar_room.eq(1), bus.rvalid.eq(1), bus.rdata.eq(self.read_data)]
        return m
