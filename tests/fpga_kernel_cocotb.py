"""Runs inside the simulator for test_fpga_kernel.py: cocotbext-axi drives s_axi_control as kernel.xml describes it."""

import json
import os
import random
from pathlib import Path
from xml.etree import ElementTree

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster

START, DONE, IDLE, READY = 1, 2, 4, 8


@cocotb.test()
async def registers(dut):
    """Write and read every argument, start a run, see the interrupt, read outside the map."""
    kernel = ElementTree.parse(os.environ["KERNEL_XML"]).getroot().find("kernel")
    window = int(next(p for p in kernel.iter("port") if p.get("name") == "s_axi_control").get("range"), 16)
    dut.ap_rst_n.value = 0
    for name in (
        "m_axi_awready",
        "m_axi_arready",
        "m_axi_wready",
        "m_axi_bvalid",
        "m_axi_rvalid",
        "m_axi_bresp",
        "m_axi_rresp",
        "m_axi_rdata",
        "m_axi_rlast",
    ):
        getattr(dut, name).value = 0
    Clock(dut.ap_clk, 5, "ns").start()
    bus = AxiLiteMaster(
        AxiLiteBus.from_prefix(dut, "s_axi_control"), dut.ap_clk, dut.ap_rst_n, reset_active_level=False
    )
    await ClockCycles(dut.ap_clk, 8)
    dut.ap_rst_n.value = 1
    await ClockCycles(dut.ap_clk, 8)
    faults, written, draw = {}, {}, random.Random(6)

    async def read(offset, size=4):
        found = await with_timeout(bus.read(offset, size), 2, "us")
        return int.from_bytes(found.data, "little")

    async def write(offset, value, size=4):
        await with_timeout(bus.write(offset, value.to_bytes(size, "little")), 2, "us")

    arguments = list(kernel.iter("arg"))
    for argument in arguments:
        name, offset, size = argument.get("name"), int(argument.get("offset"), 16), int(argument.get("size"), 16)
        faults[name] = []
        if offset + size > window:
            faults[name].append(f"at {offset:#x}, beyond the window")
        for value in (0, 2 ** (8 * size) - 1, *(draw.getrandbits(8 * size) for _ in range(4))):
            await write(offset, value, size)
            if (found := await read(offset, size)) != value:
                faults[name].append(f"{value:#x} reads {found:#x}")
        written[name] = offset, size, value
    for name, (offset, size, value) in written.items():
        if (found := await read(offset, size)) != value:
            faults[name].append(f"changed by another argument: {found:#x}, not {value:#x}")
    faults["control"], faults["interrupt"] = [], []
    if (found := await read(0)) != IDLE:
        faults["control"].append(f"must be idle, not {found:#x}")
    await write(0x08, 1)  # the end of a run
    await write(0x04, 1)
    await write(0x00, START)
    await ClockCycles(dut.ap_clk, 10)
    if dut.interrupt.value != 1:
        faults["interrupt"].append("must be high after a run")
    if (found := await read(0)) != DONE | IDLE | READY:
        faults["control"].append(f"must be done, idle and ready, not {found:#x}")
    if (found := await read(0)) != IDLE:
        faults["control"].append(f"done and ready must be cleared by reading, not {found:#x}")
    await write(0x0C, await read(0x0C))
    await ClockCycles(dut.ap_clk, 4)
    if dut.interrupt.value != 0:
        faults["interrupt"].append("must be low when the causes are cleared")
    faults["outside"] = [] if window >= 0x100 else [f"the window of {window:#x} bytes ends before the counters"]
    if window >= 0x100 and await read(window - 4) != 0:
        faults["outside"].append("an offset without a register must read 0")
    Path(os.environ["RESULT"]).write_text(json.dumps(faults))
