"""The accelerator as a kernel: its interfaces under the names that the vendor's tools expect."""

from __future__ import annotations

from dataclasses import dataclass

from ..models.errors import NmsatError
from ..rtl.emit import Emitted, Port

# Members of rtl.axi's signatures; what the standard has beyond them is a constant (docs of the wrapper's template).
_AXI4 = (
    "awaddr", "awlen", "awsize", "awburst", "awvalid", "awready", "wdata", "wstrb", "wlast", "wvalid", "wready",
    "bresp", "bvalid", "bready", "araddr", "arlen", "arsize", "arburst", "arvalid", "arready",
    "rdata", "rresp", "rlast", "rvalid", "rready",
)  # fmt: skip
_AXI_LITE = (
    "awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid", "wready", "bresp", "bvalid", "bready",
    "araddr", "arvalid", "arready", "rdata", "rresp", "rvalid", "rready",
)  # fmt: skip
CONTROL = "s_axi_control"
CLOCK, RESET, INTERRUPT = "ap_clk", "ap_rst_n", "interrupt"


@dataclass(frozen=True, slots=True)
class Bus:
    """One AXI interface of the kernel.

    Attributes
    ----------
    name : str
        Its name in the wrapper, e.g. ``m_axi``: ports are ``<name>_awaddr`` and so on.
    inner : str
        Its name in the top: ports are ``<inner>__awaddr`` and so on.
    data_bits, address_bits : int
    widths : dict
        Bits of every signal by its member's name.
    inputs : frozenset
        Members that are inputs of the kernel.
    """

    name: str
    inner: str
    data_bits: int
    address_bits: int
    widths: dict[str, int]
    inputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A top module seen from outside.

    Attributes
    ----------
    top : str
        The emitted module.
    control : Bus
        AXI4-Lite slave.
    masters : tuple of Bus
        AXI4 masters in the order of their names.
    """

    top: str
    control: Bus
    masters: tuple[Bus, ...]

    @property
    def buses(self) -> tuple[Bus, ...]:
        """Control, then the masters."""
        return (self.control, *self.masters)

    def ports(self) -> dict[str, tuple[int, str]]:
        """(bits, direction) of every port of the wrapper; directions are ``input`` and ``output``."""
        found = {CLOCK: (1, "input"), RESET: (1, "input"), INTERRUPT: (1, "output")}
        for bus in self.buses:
            for member, width in bus.widths.items():
                found[f"{bus.name}_{member}"] = (width, "input" if member in bus.inputs else "output")
            if bus in self.masters:
                for channel in ("aw", "ar"):
                    found |= {f"{bus.name}_{channel}{member}": (w, "output") for member, w in CONSTANTS.items()}
        return found


# Signals of AXI4 that the masters leave out: (bits); the wrapper drives them.
CONSTANTS = {"cache": 4, "prot": 3}


def kernel_of(emitted: Emitted) -> Kernel:
    """Find the interfaces of a top module by its ports.

    Raises
    ------
    NmsatError
        The module has no clock, no interrupt, no control slave, no master, or a port that belongs to nothing.
    """
    ports = {port.name: port for port in emitted.ports}
    taken = {name for name in ("clk", "rst", INTERRUPT) if name in ports}
    for name, is_input in (("clk", True), ("rst", True), (INTERRUPT, False)):
        if name not in ports or ports[name].is_input != is_input or ports[name].width != 1:
            raise NmsatError.rule(emitted.top, name, f"a one-bit {'input' if is_input else 'output'} of the top", None)
    prefixes = list(dict.fromkeys(name.rpartition("__")[0] for name in ports if "__" in name))
    control, masters = None, []
    for prefix in prefixes:
        members = {name.rpartition("__")[2]: port for name, port in ports.items() if name.startswith(f"{prefix}__")}
        if set(members) == set(_AXI_LITE):
            control = _bus(CONTROL, prefix, members)
        elif set(members) == set(_AXI4):
            masters.append(_bus(prefix, prefix, members))
        else:
            raise NmsatError.rule(emitted.top, prefix, "an AXI4 master or an AXI4-Lite slave", sorted(members))
        taken |= {f"{prefix}__{member}" for member in members}
    if control is None:
        raise NmsatError.rule(emitted.top, "ports", "with an AXI4-Lite slave", prefixes)
    if not masters:
        raise NmsatError.rule(emitted.top, "ports", "with an AXI4 master", prefixes)
    if loose := sorted(set(ports) - taken):
        raise NmsatError.rule(emitted.top, "ports", "part of an interface", loose)
    return Kernel(emitted.top, control, tuple(sorted(masters, key=lambda bus: bus.name)))


def _bus(name: str, inner: str, members: dict[str, Port]) -> Bus:
    return Bus(
        name,
        inner,
        members["wdata"].width,
        members["awaddr"].width,
        {member: port.width for member, port in members.items()},
        frozenset(member for member, port in members.items() if port.is_input),
    )
