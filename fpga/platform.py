"""The Amaranth platform of a board: oscillators, reset, LEDs and switches, and a core clock made by the MMCM."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any, ClassVar

from amaranth.build import Attrs, Clock, DiffPairs, Pins, PinsN, Resource
from amaranth.hdl import ClockDomain, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.vendor import XilinxPlatform

from ..rtl.emit import Emitted
from ..rtl.verilog import verilog_of
from .board import Board
from .clocking import Mmcm, mmcm_for
from .render import render

RESET_STAGES = 4


def core_clock_verilog(mmcm: Mmcm, header: str, name: str = "core_clock") -> str:
    """Verilog of the clock manager with its reset: ports clk_in, rst, core_clk, core_rst_n, locked."""
    return render("core_clock.v", mmcm=mmcm, header=header, name=name, reset_stages=RESET_STAGES)


class BoardPlatform(XilinxPlatform):
    """Builds designs that use the card's own pins, without PCIe and DDR4.

    Resources: ``clk`` (one an oscillator, in the board file's order), ``rst``, ``led``, ``switch``. The domain
    ``sync`` runs at the accelerator's clock and is in reset until the MMCM has locked; ``locked`` shows that.

    Parameters
    ----------
    board : Board
    clock_mhz : int
        Of the domain ``sync``.

    Raises
    ------
    NmsatError
        The board cannot make that clock.
    """

    default_clk = None
    default_rst = None
    device, package, speed = "", "", ""  # the base class wants them on the class; __init__ sets them
    resources: ClassVar[list[Any]] = []
    connectors: ClassVar[list[Any]] = []

    def __init__(self, board: Board, clock_mhz: int) -> None:
        self.board = board
        self.device, self.package, self.speed = board.part.value.split("-", 2)
        self.mmcm = mmcm_for(board, clock_mhz)
        self.locked = Signal()
        low, reset = PinsN if board.reset.active_low else Pins, board.reset
        led = Attrs(IOSTANDARD=board.leds.io_standard, DRIVE=str(board.leds.drive_ma))
        self.resources = [
            *(
                Resource(
                    "clk", number, DiffPairs(clock.p, clock.n, dir="i"), Clock(clock.mhz * 1e6),
                    Attrs(IOSTANDARD=clock.io_standard, **({"DQS_BIAS": "TRUE"} if clock.dqs_bias else {})),
                )
                for number, clock in enumerate(board.clocks)
            ),
            Resource("rst", 0, low(reset.pin, dir="i"), Attrs(IOSTANDARD=reset.io_standard)),
            *(
                Resource("led", number, Pins(pin, dir="o"), led)
                for number, pin in enumerate(board.leds.pins)
            ),
            *(
                Resource("switch", number, Pins(pin, dir="i"), Attrs(IOSTANDARD=board.switches.io_standard))
                for number, pin in enumerate(board.switches.pins)
            ),
        ]  # fmt: skip
        super().__init__(toolchain="Vivado")

    @property
    def file_templates(self) -> dict[str, str]:
        """Amaranth's, but that Verilog is written by :mod:`nmsat.rtl.verilog` from RTLIL."""
        kept = {name: text for name, text in super().file_templates.items() if not name.endswith(".v")}
        return {**kept, "{{name}}.il": "{{emit_rtlil()}}"}

    def create_missing_domain(self, name: str) -> Any:
        """``sync`` from the first oscillator through the MMCM; other domains are the design's own."""
        if name != "sync":
            return super().create_missing_domain(name)
        m = Module()
        m.submodules.clk_buffer = clk = io.Buffer("i", self.request("clk", 0, dir="-"))
        m.submodules.rst_buffer = rst = io.Buffer("i", self.request("rst", 0, dir="-"))
        self.add_file("core_clock.v", core_clock_verilog(self.mmcm, "core clock of the platform"))
        m.domains.sync = ClockDomain("sync")
        ready = Signal()
        m.submodules.core_clock = Instance(
            "core_clock", i_clk_in=clk.i, i_rst=rst.i,
            o_core_clk=ClockSignal("sync"), o_core_rst_n=ready, o_locked=self.locked,
        )  # fmt: skip
        m.d.comb += ResetSignal("sync").eq(~ready)
        return m

    def plan(self, design: Any, name: str) -> dict[str, str]:
        """Files of a build by name, with a gate on the worst slack before the bitstream is written.

        Parameters
        ----------
        design : Elaboratable
            Must use the domain ``sync``.
        name : str
            Of the outermost module and of the files.
        """
        loose = "set_false_path -from [get_ports rst_0__io]"
        gate = render("wns_gate.tcl", reports=".")
        plan = self.build(design, name, do_build=False, script_before_bitstream=gate, add_constraints=loose)
        files = {file: text if isinstance(text, str) else text.decode() for file, text in plan.files.items()}
        files[f"{name}.v"] = verilog_of(Emitted(name, files.pop(f"{name}.il"), (), {name: 1})).text
        return {file: text.rstrip("\n") + "\n" for file, text in sorted(files.items())}
