"""AXI as signatures, seen from the side that starts transfers. Members carry the standard's names in lower case.

Transactions have no identifiers: all answers of one port come in order. Ports are flat, so that the Verilog of a port
``m_axi`` has ``m_axi__awaddr`` and so on, which a wrapper renames letter by letter.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..models.errors import NmsatError
from .stream import require

PAGE_BYTES = 4096
"""No burst may cross a multiple of this (AXI4, A3.4.1)."""
MAX_BEATS = 256
"""Longest INCR burst of AXI4."""
MAX_OUTSTANDING = 64
"""Most bursts that a master here may have in flight, reads and writes each."""


class Response(IntEnum):
    """xRESP of AXI. EXOKAY never answers an ordinary access; :mod:`.memory_port` gives its code another meaning."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def check_data_bits(data_bits: int) -> int:
    """The width of a beat; NmsatError unless it is a power of two from 32 to 512."""
    if require("axi", "data_bits", data_bits, 32, 512) & (data_bits - 1):
        raise NmsatError.rule("axi", "data_bits", "a power of two", data_bits)
    return data_bits


class Axi4(wiring.Signature):
    """An AXI4 master: INCR bursts of full-width beats, one identifier.

    Parameters
    ----------
    data_bits : int
        Width of a beat, a power of two from 32 to 512.
    """

    def __init__(self, data_bits: int) -> None:
        self.data_bits = check_data_bits(data_bits)
        address = {"addr": 64, "len": 8, "size": 3, "burst": 2}
        members: dict[str, wiring.Member] = {}
        for channel in ("aw", "ar"):
            members |= {f"{channel}{name}": Out(width) for name, width in address.items()}
            members |= {f"{channel}valid": Out(1), f"{channel}ready": In(1)}
        members |= {"wdata": Out(data_bits), "wstrb": Out(data_bits // 8), "wlast": Out(1)}
        members |= {"wvalid": Out(1), "wready": In(1)}
        members |= {"bresp": In(2), "bvalid": In(1), "bready": Out(1)}
        members |= {"rdata": In(data_bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1)}
        super().__init__(members)


class AxiLite(wiring.Signature):
    """An AXI4-Lite master with 32-bit data; protection bits are left out, the slave here ignores them.

    Parameters
    ----------
    address_bits : int
        Width of the byte address.
    """

    def __init__(self, address_bits: int) -> None:
        self.address_bits = require("axi-lite", "address_bits", address_bits, 2, 64)
        super().__init__({
            "awaddr": Out(address_bits), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address_bits), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })  # fmt: skip
