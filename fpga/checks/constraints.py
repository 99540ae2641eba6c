"""XDC files against the board: right pins, standards and clocks, every port once, no pin twice."""

from __future__ import annotations

import re

from ..board import Board
from .tcl import run_script, words

_COMMANDS = {
    "set_property", "create_clock", "set_false_path", "set_operating_conditions", "source",
    "get_ports", "get_nets", "get_pins", "get_cells", "get_clocks", "current_design",
}  # fmt: skip


def expected_pins(board: Board) -> dict[str, str]:
    """Package pin of every port that a design of ours has for a part of the board: ``led_0``, ``clk_0_p``."""
    found = {f"led_{number}": pin for number, pin in enumerate(board.leds.pins)}
    found |= {f"switch_{number}": pin for number, pin in enumerate(board.switches.pins)}
    for number, clock in enumerate(board.clocks):
        found |= {f"clk_{number}_p": clock.p, f"clk_{number}_n": clock.n}
    return found | {"rst_0": board.reset.pin}


def _plain(port: str) -> str:
    """Amaranth names ports led_0__io and clk_0__p."""
    return re.sub(r"__io$", "", port).replace("__", "_")


def check_constraints(files: dict[str, str], name: str, board: Board, ports: set[str]) -> list[str]:
    """Faults of an XDC file.

    Parameters
    ----------
    files : dict
        Text by path.
    name : str
        The file's path among them.
    board : Board
    ports : set of str
        Ports of the design that the file must place: all of them, and no others.
    """
    faults: list[str] = []
    pins: dict[str, str] = {}
    standards: dict[str, str] = {}
    expected, legal, periods = expected_pins(board), {pin: signal for signal, pin in board.pins()}, {}
    for call in run_script(files, name):
        if call[0] == "error":
            faults.append(f"{name}: must run to its end; {call[1]}")
        elif call[0] not in _COMMANDS:
            faults.append(f"{name}: {call[0]}: must be a command of XDC")
        elif call[0] == "create_clock":
            port = words(call[-1])[-1]
            periods[port] = float(call[call.index("-period") + 1])
        elif call[0] == "set_property" and call[-1].startswith("get_ports"):
            port, key, value = words(call[-1])[-1], call[1], call[2]
            if port not in ports:
                faults.append(f"{name}: {port}: must be a port of the design")
            if key in ("PACKAGE_PIN", "LOC"):
                if value not in legal:
                    faults.append(f"{name}: {port}: must be on a pin of {board.name}, not {value}")
                elif value != expected.get(_plain(port)):
                    faults.append(
                        f"{name}: {port}: must be on {expected.get(_plain(port))}, not {value} ({legal[value]})"
                    )
                if value in pins.values():
                    faults.append(f"{name}: {port}: must be on a pin of its own, not {value}")
                if port in pins:
                    faults.append(f"{name}: {port}: must be placed once, not on {pins[port]} and {value}")
                pins[port] = value
            elif key == "IOSTANDARD":
                standards[port] = value
    for port in sorted(ports - set(pins)):
        faults.append(f"{name}: {port}: must have a pin")
    known = board.io_standards()
    for port, pin in pins.items():
        wanted = known.get(pin)
        if wanted is not None and standards.get(port) != wanted:
            faults.append(f"{name}: {port}: must have the I/O standard {wanted}, not {standards.get(port)}")
    for port, period in periods.items():
        number = re.match(r"clk_(\d+)", port)
        wanted_ns = 1000 / board.clocks[int(number[1])].mhz if number else None
        if wanted_ns is None or abs(period - wanted_ns) > 1e-3:
            faults.append(f"{name}: {port}: must be a clock of {wanted_ns} ns, not {period}")
    for port in ports:
        if _plain(port).startswith("clk_") and port.endswith("p") and port not in periods:
            faults.append(f"{name}: {port}: must be declared a clock")
    return faults
