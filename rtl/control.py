"""Starting, stopping and watching a run: the register file and the state behind it."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .axi import AxiLite
from .register_file import RegisterFile
from .registers import Code, register_map

WINDOW = 1024
"""Descriptors whose cycles are kept, by index modulo this."""

ARGUMENTS = data.StructLayout({
    "program": 64, "image_base": 64, "range_low": 64, "range_high": 64, "descriptor_limit": 32
})  # fmt: skip

EVENTS = data.StructLayout({
    "fetch": 1, "compute": 1, "load_stall": 1, "store_stall": 1, "vector": 1, "read_beats": 4, "write_beats": 4
})  # fmt: skip
"""What counts in a cycle, named as the registers ``<event>_cycles``; beats may be several a cycle."""


class Machine(wiring.Signature):
    """Between control and the machine that executes programs, seen from control.

    Members
    -------
    start : out, 1
        For a cycle: begin at the first descriptor. Never during a run.
    arguments : out, :data:`ARGUMENTS`
        Stable from ``start`` to the end of the run.
    abort : out, 1
        High until the run ends: memory ports refuse what is new (connect it to their ``refuse``). The machine needs to
        do nothing else: it comes to an error and ends.
    resume : out, 1
        For a cycle, only while stopped at a host step; an abort resumes, too.
    host, host_step : in, 1 and 32
        For a cycle: stopped at this HOST descriptor, everything before it is in memory.
    ended, code, descriptor : in, 1, 8 and 32
        For a cycle: the run is over, all accesses have finished. Code of ``registers.Code`` and index of the
        descriptor that failed or, at code 0, of END.
    retired, retired_descriptor, retired_cycles : in, 1, 32, 32
        For a cycle: a descriptor has finished in so many cycles. May coincide with ``host`` and ``ended``.
    events : in, :data:`EVENTS`
    """

    def __init__(self) -> None:
        super().__init__({
            "start": Out(1), "arguments": Out(ARGUMENTS), "abort": Out(1), "resume": Out(1),
            "host": In(1), "host_step": In(32),
            "ended": In(1), "code": In(8), "descriptor": In(32),
            "retired": In(1), "retired_descriptor": In(32), "retired_cycles": In(32),
            "events": In(EVENTS),
        })  # fmt: skip


class Control(wiring.Component):
    """Register file, run state, interrupt and counters.

    ``start`` comes 2 cycles after the bus handshake that completes the write of ``ap_start``. Register ``cycles``
    counts from the cycle after ``start`` to that of ``ended``, both included, less those stopped: from the cycle after
    ``host`` to that of ``resume``. Reset ends a run without a trace; the machine must be reset with it.

    Parameters
    ----------
    rows, cols, data_bits : int
        Reported in register ``geometry``.

    Ports
    -----
    bus : in, :class:`.axi.AxiLite`
    interrupt : out, 1
        Level: high while ``gier`` is set and an enabled cause of ``isr`` is pending.
    machine : out, :class:`Machine`
    """

    def __init__(self, *, rows: int, cols: int, data_bits: int) -> None:
        self.geometry = {"rows": rows, "cols": cols, "bus_bytes": data_bits // 8}
        self.map = register_map()
        super().__init__({"bus": In(AxiLite(self.map.address_bits)), "interrupt": Out(1), "machine": Out(Machine())})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.registers = r = RegisterFile(self.map)
        wiring.connect(m, wiring.flipped(self.bus), r.bus)
        machine = self.machine
        running, stopped, hung, failed = Signal(), Signal(), Signal(), Signal()
        start, resume = Signal(), Signal()
        m.d.comb += [
            start.eq(r.control_ap_start_set & ~running),
            resume.eq(running & stopped & (r.command_resume_set | machine.abort)),
            machine.start.eq(start),
            machine.resume.eq(resume),
        ]
        arguments = Signal(ARGUMENTS)
        for name in ARGUMENTS.members:
            m.d.comb += machine.arguments[name].eq(Mux(start, getattr(r, name), arguments[name]))
        with m.If(start):
            m.d.sync += [running.eq(1), stopped.eq(0), hung.eq(0), failed.eq(0), machine.abort.eq(0)]
            m.d.sync += [r.error_code.eq(0), r.error_descriptor.eq(0), r.descriptors_done.eq(0)]
            m.d.sync += arguments.eq(machine.arguments)
        with m.Elif(running):
            with m.If(r.command_abort_set):
                m.d.sync += machine.abort.eq(1)
            with m.If(machine.host):
                m.d.sync += [stopped.eq(1), r.host_step.eq(machine.host_step)]
            with m.If(resume):
                m.d.sync += stopped.eq(0)
            with m.If(machine.retired):
                m.d.sync += r.descriptors_done.eq(r.descriptors_done + 1)
            with m.If(machine.ended):
                code = Mux(machine.abort & (machine.code != 0), Const(Code.ABORTED, 8), machine.code)
                m.d.sync += [running.eq(0), stopped.eq(0), failed.eq(machine.code != 0), machine.abort.eq(0)]
                m.d.sync += [r.error_code.eq(code), r.error_descriptor.eq(machine.descriptor)]
        ended = running & machine.ended
        barked = self._watchdog(m, r, running, stopped, hung)
        m.d.comb += [
            r.control_ap_start.eq(running), r.control_ap_idle.eq(~running),
            r.control_ap_done.eq(ended), r.control_ap_ready.eq(ended),
            r.isr_done.eq(ended), r.isr_ready.eq(ended), r.isr_host.eq(running & machine.host),
            r.isr_error.eq((ended & (machine.code != 0)) | barked),
            r.status_busy.eq(running), r.status_host.eq(stopped), r.status_error.eq(failed),
            r.status_aborting.eq(machine.abort), r.status_hung.eq(hung),
            r.status_start_ignored.eq(r.control_ap_start_set & running), r.status_bad_access.eq(r.bad_access),
            r.identity.eq(self.map.identity), r.version.eq(self.map.version),
            *(getattr(r, f"geometry_{name}").eq(value) for name, value in self.geometry.items()),
        ]  # fmt: skip
        causes = (r.isr_done_pending, r.isr_ready_pending, r.isr_host_pending, r.isr_error_pending)
        raised = [cause & r.ier_enable[place] for place, cause in enumerate(causes)]
        m.d.sync += self.interrupt.eq(r.gier_enable & (raised[0] | raised[1] | raised[2] | raised[3]))
        self._count(m, r, start, running, stopped)
        self._window(m, r)
        return m

    def _watchdog(self, m: Module, r: Any, running: Signal, stopped: Signal, hung: Signal) -> Any:
        """High in the cycle in which too many cycles have passed without a finished descriptor."""
        idle = Signal(32)
        barks = Signal()
        m.d.comb += barks.eq(running & ~stopped & ~hung & (r.watchdog != 0) & (idle >= r.watchdog))
        with m.If(~running | stopped | self.machine.retired):
            m.d.sync += idle.eq(0)
        with m.Elif(~hung):
            m.d.sync += idle.eq(idle + 1)
        with m.If(barks):
            m.d.sync += hung.eq(1)
        return barks

    def _count(self, m: Module, r: Any, start: Signal, running: Signal, stopped: Signal) -> None:
        events = self.machine.events
        counted = {
            "cycles": running & ~stopped, "host_cycles": running & stopped,
            "fetch_cycles": events.fetch, "compute_cycles": events.compute, "load_stall_cycles": events.load_stall,
            "store_stall_cycles": events.store_stall, "vector_cycles": events.vector,
            "read_beats": events.read_beats, "write_beats": events.write_beats,
        }  # fmt: skip
        for name, step in counted.items():
            count = Signal(48, name=f"{name}_count")
            m.d.comb += getattr(r, name).eq(count)
            with m.If(start):
                m.d.sync += count.eq(0)
            with m.Elif(running):
                m.d.sync += count.eq(count + step)

    def _window(self, m: Module, r: Any) -> None:
        """Cycles of each descriptor. The read takes a cycle; software cannot ask sooner."""
        m.submodules.window = window = memory.Memory(shape=32, depth=WINDOW, init=[])
        write, read = window.write_port(), window.read_port()
        m.d.comb += [
            write.addr.eq(self.machine.retired_descriptor), write.data.eq(self.machine.retired_cycles),
            write.en.eq(self.machine.retired),
            read.addr.eq(r.window_index), r.window_cycles.eq(read.data),
        ]  # fmt: skip
