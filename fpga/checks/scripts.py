"""Vivado scripts against the register map, the kernel's ports and what the vendor's blocks have to be connected."""

from __future__ import annotations

import re
from collections import Counter

from ...rtl.registers import RegisterMap
from ..board import Board
from ..kernel import CLOCK, INTERRUPT, RESET, Kernel
from ..register_files import arguments
from .tcl import run_script, words

# Interfaces and pins of the vendor's blocks that a working design must connect: name -> kind.
# kind: bus, in (a pin that something must drive), out (may be left open).
_BLOCKS: dict[str, dict[str, str]] = {
    "xilinx.com:ip:util_ds_buf": {"CLK_IN_D": "bus", "IBUF_OUT": "out", "IBUF_DS_ODIV2": "out"},
    "xilinx.com:ip:xdma": {
        "sys_clk": "in", "sys_clk_gt": "in", "sys_rst_n": "in", "usr_irq_req": "in", "pcie_mgt": "bus", "M_AXI": "bus",
        "M_AXI_LITE": "bus", "axi_aclk": "out", "axi_aresetn": "out", "user_lnk_up": "out", "usr_irq_ack": "out",
    },
    "xilinx.com:ip:ddr4": {
        "C0_SYS_CLK": "bus", "C0_DDR4": "bus", "C0_DDR4_S_AXI": "bus", "sys_rst": "in", "c0_ddr4_aresetn": "in",
        "c0_ddr4_ui_clk": "out", "c0_ddr4_ui_clk_sync_rst": "out", "c0_init_calib_complete": "out",
    },
    "xilinx.com:ip:proc_sys_reset": {"slowest_sync_clk": "in", "ext_reset_in": "in", "peripheral_aresetn": "out"},
    "xilinx.com:ip:util_vector_logic": {"Op1": "in", "Res": "out"},
    "xilinx.com:ip:axi_register_slice": {"S_AXI": "bus", "M_AXI": "bus", "aclk": "in", "aresetn": "in"},
    "core_clock": {"clk_in": "in", "rst": "in", "core_clk": "out", "core_rst_n": "out", "locked": "out"},
    "synchroniser": {"clk": "in", "from_elsewhere": "in", "here": "out"},
}  # fmt: skip


def _kernel_block(kernel: Kernel) -> dict[str, str]:
    pins = {CLOCK: "in", RESET: "in", INTERRUPT: "out"}
    return pins | {bus.name: "bus" for bus in kernel.buses}


def _smartconnect(configuration: dict[str, str]) -> dict[str, str]:
    slaves, masters, clocks = (int(configuration[f"CONFIG.{key}"]) for key in ("NUM_SI", "NUM_MI", "NUM_CLKS"))
    found = {"aresetn": "in", "aclk": "in"} | {f"aclk{number}": "in" for number in range(1, clocks)}
    found |= {f"S{number:02d}_AXI": "bus" for number in range(slaves)}
    return found | {f"M{number:02d}_AXI": "bus" for number in range(masters)}


def check_block_design(files: dict[str, str], board: Board, kernel: Kernel, registers: RegisterMap) -> list[str]:
    """Faults of shell A: blocks, their connections, the board's interfaces, the address map."""
    name = "vivado/block_design.tcl"
    calls = run_script(files, name)
    faults = [f"{name}: must run to its end; {call[1]}" for call in calls if call[0] == "error"]
    cells, configuration = _cells(calls)
    kinds: dict[str, str] = {}
    for cell, block in cells.items():
        if block == f"nmsat:kernel:{registers.name}":
            pins = _kernel_block(kernel)
        elif block == "xilinx.com:ip:smartconnect":
            pins = _smartconnect(configuration[cell])
        elif block in _BLOCKS:
            pins = _BLOCKS[block]
        else:
            faults.append(f"{name}: {cell}: must be a known block, not {block}")
            continue
        kinds |= {f"{cell}/{pin}": kind for pin, kind in pins.items()}
    ports = {call[-1]: "bus" for call in calls if call[0] == "create_bd_intf_port"}
    ports |= {call[-1]: "in" if "O" in call[:3] else "out" for call in calls if call[0] == "create_bd_port"}
    kinds |= ports
    ends: Counter[str] = Counter()
    for call in calls:
        if call[0] not in ("connect_bd_net", "connect_bd_intf_net"):
            continue
        points = [words(text)[-1] for text in call[1:]]
        wanted = {"bus"} if call[0] == "connect_bd_intf_net" else {"in", "out"}
        for point in points:
            if point not in kinds:
                faults.append(f"{name}: {point}: must be a pin or port of the design")
            elif kinds[point] not in wanted:
                faults.append(f"{name}: {point}: must be connected by {'intf_' if kinds[point] == 'bus' else ''}net")
            ends[point] += 1
        drivers = [point for point in points if kinds.get(point) == "out"]
        if wanted != {"bus"} and len(drivers) != 1:
            faults.append(f"{name}: {' '.join(points)}: must have one driver, not {len(drivers)}")
    for point, kind in kinds.items():
        if kind in ("bus", "in") and ends[point] != 1:
            faults.append(f"{name}: {point}: must be connected once, not {ends[point]} times")
    faults += _interfaces(name, ports, board)
    return faults + _addresses(name, calls, cells, board, kernel, registers)


def _cells(calls: list[list[str]]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Block of every cell, and the properties set on it."""
    cells: dict[str, str] = {}
    configuration: dict[str, dict[str, str]] = {}
    for call in calls:
        if call[0] == "create_bd_cell":
            option = "-vlnv" if "-vlnv" in call else "-reference"
            cells[call[-1]] = call[call.index(option) + 1]
            configuration[call[-1]] = {}
        elif call[0] == "set_property" and call[-1].startswith("get_bd_cells") and call[1] == "-dict":
            pairs = words(call[2])
            configuration[words(call[-1])[-1]] |= dict(zip(pairs[::2], pairs[1::2], strict=True))
    return cells, configuration


def _interfaces(name: str, ports: dict[str, str], board: Board) -> list[str]:
    """Board interfaces are named exactly as in the board file; every memory channel is used."""
    wanted = {"pcie_refclk", "pcie_perstn", f"pci_express_x{board.pcie.lanes}"}
    for channel in board.ddr.channels:
        wanted |= {channel.interface, channel.clock}
    wanted |= {f"led_{number}" for number in range(min(3, len(board.leds.pins)))}
    faults = [f"{name}: {port}: must be a port of the design" for port in sorted(wanted - set(ports))]
    return faults + [f"{name}: {port}: must be an interface of the board" for port in sorted(set(ports) - wanted)]


def _addresses(
    name: str, calls: list[list[str]], cells: dict[str, str], board: Board, kernel: Kernel, registers: RegisterMap
) -> list[str]:
    """Every master sees every channel at the same place, without overlap; the registers have the map's size."""
    windows: dict[str, dict[str, tuple[int, int]]] = {}
    for call in calls:
        if call[0] == "assign_bd_address":
            size = call[call.index("-range") + 1]
            scale = {"K": 2**10, "M": 2**20, "G": 2**30}[size[-1]]
            space = words(call[call.index("-target_address_space") + 1])[-1]
            segment = words(call[-1])[-1]
            windows.setdefault(space, {})[segment] = int(call[call.index("-offset") + 1], 16), int(size[:-1]) * scale
    gib = board.ddr.gib * 2**30
    memories = [cell for cell, block in cells.items() if block == "xilinx.com:ip:ddr4"]
    memory = {f"{cell}/C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK": (i * gib, gib) for i, cell in enumerate(memories)}
    wanted = dict.fromkeys(("host/M_AXI", *(f"kernel/{master.name}" for master in kernel.masters)), memory)
    control = {f"kernel/{kernel.control.name}/reg0": (0, 2**registers.address_bits)}
    faults = []
    if len(memories) != len(board.ddr.channels):
        faults.append(f"{name}: must have {len(board.ddr.channels)} memory controllers, not {len(memories)}")
    for space, segments in (wanted | {"host/M_AXI_LITE": control}).items():
        if windows.get(space) != segments:
            faults.append(f"{name}: {space}: must see {segments}, not {windows.get(space)}")
    return faults


def check_package(files: dict[str, str], board: Board, kernel: Kernel, registers: RegisterMap) -> list[str]:
    """Faults of the IP's packaging: sources, interfaces, registers, pointers."""
    name = "vivado/package_ip.tcl"
    calls = run_script(files, name)
    faults = [f"{name}: must run to its end; {call[1]}" for call in calls if call[0] == "error"]
    sources = {path.lstrip("/") for call in calls if call[0] == "add_files" for path in words(call[-1])}
    faults += [f"{name}: {path}: must be a file of the folder" for path in sorted(sources - set(files))]
    text = "".join(files.get(path, "") for path in sources)
    tops = [call[2] for call in calls if call[:2] == ["set_property", "top"]]
    if tops != [top for top in tops if re.search(rf"^module {top} ", text, re.M)] or len(tops) != 1:
        faults.append(f"{name}: top: must be a module of the sources, not {tops}")
    parts = [call[call.index("-part") + 1] for call in calls if call[0] == "create_project"]
    if parts != [board.part.value]:
        faults.append(f"{name}: part: must be {board.part.value}, not {parts}")
    inferred = sorted(call[1] for call in calls if call[0] == "ipx::infer_bus_interface")
    if inferred != sorted((CLOCK, RESET, INTERRUPT)):
        faults.append(f"{name}: must infer {CLOCK}, {RESET} and {INTERRUPT}, not {inferred}")
    buses = [call[call.index("-busif") + 1] for call in calls if "-busif" in call]
    if sorted(buses) != sorted(bus.name for bus in kernel.buses):
        faults.append(f"{name}: must give a clock to {[bus.name for bus in kernel.buses]}, not to {buses}")
    found: dict[str, dict[str, str]] = {}
    pointers: dict[str, str] = {}
    for call in calls:
        if call[0] == "set_property" and call[-1].startswith("ipx::add_register "):
            found.setdefault(words(call[-1])[1], {})[call[1]] = call[2]
        elif call[:2] == ["set_property", "value"] and "get_registers" in call[-1]:
            pointers[words(words(call[-1])[-1])[1]] = call[2]
    for register in registers.registers:
        wanted = (f"0x{register.offset:03X}", str(register.width), "read-write" if register.writable else "read-only")
        properties = found.pop(register.name, {})
        has = tuple(properties.get(key, "") for key in ("address_offset", "size", "access"))
        if has != wanted:
            faults.append(f"{name}: register {register.name}: must be {wanted}, not {has}")
    faults += [f"{name}: register {extra}: must be in the register map" for extra in found]
    wanted_pointers = {item.name: item.port for item in arguments(registers, kernel) if item.qualifier == 1}
    if pointers != wanted_pointers:
        faults.append(f"{name}: pointers: must be {wanted_pointers}, not {pointers}")
    return faults


def check_build(files: dict[str, str], board: Board) -> list[str]:
    """Faults of the other scripts: they run, name files that are there, write no bitstream on negative slack."""
    faults = []
    for name in ("vivado/build.tcl", "vivado/open_reports.tcl", "vivado/program.tcl", "vitis/package_xo.tcl"):
        for call in run_script(files, name):
            if call[0] == "error":
                faults.append(f"{name}: must run to its end; {call[1]}")
            for path in (
                path for word in call[1:] for path in re.findall(r"(?<=/)(?:rtl|constraints|vitis)/[\w./]+", word)
            ):
                if path not in files:
                    faults.append(f"{name}: {path}: must be a file of the folder")
    for kind, slack in (("setup", "-0.001"), ("setup", "-2.5"), ("hold", "-0.001")):
        calls = run_script(files, "vivado/build.tcl", {f"get_property SLACK*-{kind}": slack})
        if calls[-1][0] != "error" or any(call[0] in ("write_bitstream", "write_checkpoint") for call in calls):
            faults.append(f"vivado/build.tcl: must end before the bitstream at a {kind} slack of {slack} ns")
    missing = run_script(files, "vivado/build.tcl", {"get_board_parts": ""})
    if missing[-1][0] != "error" or board.board_part.value not in missing[-1][1]:
        faults.append("vivado/build.tcl: must say which board files are missing")
    return faults
