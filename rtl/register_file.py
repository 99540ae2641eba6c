"""Registers made from the register map: one port or two for every field."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .axi import AxiLite
from .axi_lite import AxiLiteSlave
from .registers import RegisterField, RegisterMap


class RegisterFile(wiring.Component):
    """The AXI4-Lite slave and the registers of a map, with the accesses explained at the top of ``registers.yaml``.

    Reset clears all fields. A ``cor`` or ``w1c`` field that hardware sets in the cycle in which software clears it
    stays set. Offsets without a register read 0; writes to them change nothing.

    Parameters
    ----------
    map : RegisterMap

    Ports
    -----
    bus : in, :class:`.axi.AxiLite`
    bad_access : out, 1
        An offset without a register was read or written, or a register without a writable field was written; for a
        cycle.
    <field> : out (rw), in (others)
    <field>_set : out, 1 or the field's width
        Of set fields: for a cycle, the bits written as 1.
    <field>_pending : out
        Of w1c fields.
    """

    def __init__(self, map: RegisterMap) -> None:
        self.map = map
        self.slave = AxiLiteSlave(address_bits=map.address_bits)  # proofs look at it, and at `held`
        ports: dict[str, Any] = {"bus": In(AxiLite(map.address_bits)), "bad_access": Out(1)}
        for register in map.registers:
            for name, field in register.parts:
                ports[name] = (Out if field.access == "rw" else In)(field.width)
                if field.access == "set":
                    ports[f"{name}_set"] = Out(field.width)
                elif field.access == "w1c":
                    ports[f"{name}_pending"] = Out(field.width)
        self.held = {  # storage of the cor fields
            name: Signal(field.width, name=f"{name}_held")
            for register in map.registers
            for name, field in register.parts
            if field.access == "cor"
        }
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.slave = slave = self.slave
        wiring.connect(m, wiring.flipped(self.bus), slave.bus)
        enabled = Cat(slave.write_mask[bit // 8] for bit in range(32))
        mapped, writable = Signal(), Signal()  # of the word being read, of the word being written
        m.d.comb += self.bad_access.eq((slave.read & ~mapped) | (slave.write & ~writable))
        words = {offset // 4: register for register in self.map.registers for offset in register.offsets}
        read, write = Signal(len(words)), Signal(len(words))
        with m.Switch(slave.read_word):
            for place, (word, register) in enumerate(words.items()):
                with m.Case(word):
                    first = 32 * (word - register.offset // 4)
                    m.d.comb += [slave.read_data.eq(self._value(register)[first : first + 32]), mapped.eq(1)]
                    m.d.comb += read[place].eq(slave.read)
        with m.Switch(slave.write_word):
            for place, (word, register) in enumerate(words.items()):
                if register.writable:
                    with m.Case(word):
                        m.d.comb += [write[place].eq(slave.write), writable.eq(1)]
        for place, (word, register) in enumerate(words.items()):
            first = 32 * (word - register.offset // 4)
            for name, field in register.parts:
                low, high = max(field.bit, first), min(field.bit + field.width, first + 32)
                if low < high:
                    bits = slice(low - field.bit, high - field.bit)
                    here = slice(low - first, high - first)
                    ones = slave.write_data[here] & enabled[here]
                    self._access(m, name, field, bits, read[place], write[place], ones, enabled[here])
        return m

    def _access(
        self,
        m: Module,
        name: str,
        field: RegisterField,
        bits: slice,
        read: Value,
        write: Value,
        ones: Value,
        mask: Value,
    ) -> None:
        """What reading and writing a word does to the ``bits`` of a field in it; ``ones`` are written as 1."""
        port = getattr(self, name)
        if field.access == "rw":
            with m.If(write):
                m.d.sync += port[bits].eq((port[bits] & ~mask) | ones)
        elif field.access == "set":
            with m.If(write):
                m.d.comb += getattr(self, f"{name}_set")[bits].eq(ones)
        elif field.access == "cor":
            held = self.held[name]
            m.d.sync += held[bits].eq(port[bits] | (held[bits] & ~read.replicate(len(held[bits]))))
        elif field.access == "w1c":
            held = getattr(self, f"{name}_pending")
            m.d.sync += held[bits].eq(port[bits] | (held[bits] & ~(ones & write.replicate(len(ones)))))

    def _value(self, register: Any) -> Value:
        """What software reads, in the register's whole width."""
        found, top = [], 0
        for name, field in sorted(register.parts, key=lambda part: part[1].bit):
            found += [Const(0, field.bit - top), self._read_port(name, field)]
            top = field.bit + field.width
        return Cat(*found, Const(0, register.width - top))

    def _read_port(self, name: str, field: RegisterField) -> Value:
        if field.access == "w1c":
            return getattr(self, f"{name}_pending")
        return self.held[name] if field.access == "cor" else getattr(self, name)
