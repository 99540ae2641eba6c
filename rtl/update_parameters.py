"""Sizes of the update unit, and the layouts of what its parts hand on."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass

from amaranth.lib import data

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from .sore import index_bytes
from .stream import require

TILE = 32  # columns of a segment and rows of a tile: bursts of 128 bytes of binary32


@dataclass(frozen=True, slots=True)
class UpdateParameters:
    """What an update unit is generated for.

    Parameters
    ----------
    bus_bytes : int
        Bytes of a memory word, a power of two from 4 to 64.
    wuve_lanes : int
        Weights a cycle, a power of two; at most ``bus_bytes / 4``, since gradient, weight and momentum arrive one
        after the other over one port.
    sore_lanes : int
        Groups pruned a cycle.
    max_keep, max_group : int
        Largest N and M; M is a power of two, at most ``TILE``.
    hop : int
        Registers between the unit and its engines WUVE and SORE, each way, 0 to 16: they may lie in another super logic
        region.

    Raises
    ------
    NmsatError
        A size is outside these rules.
    """

    bus_bytes: int
    wuve_lanes: int
    sore_lanes: int
    max_keep: int
    max_group: int
    hop: int = 0

    def __post_init__(self) -> None:
        for name, high in (("bus_bytes", 64), ("wuve_lanes", self.bus_bytes // 4)):
            value = require("update unit", name, getattr(self, name), 4 if name == "bus_bytes" else 1, high)
            if value & (value - 1):
                raise NmsatError.rule("update unit", name, "a power of two", value)
        require("update unit", "sore_lanes", self.sore_lanes, 1, TILE // 2)
        require("update unit", "max_group", self.max_group, 2, TILE)
        require("update unit", "hop", self.hop, 0, 16)

    @classmethod
    def from_accelerator(cls, accelerator: Accelerator) -> UpdateParameters:
        """The unit of an accelerator: no more lanes than one memory port feeds."""
        group, bus = 1 << accelerator.max_group.bit_length() - 1, accelerator.axi_data_bits // 8
        lanes = min(accelerator.wuve_lanes, bus // 4)
        return cls(
            bus,
            1 << lanes.bit_length() - 1,
            min(accelerator.sore_lanes, TILE // 2),
            min(accelerator.max_keep, group),
            group,
            accelerator.slr_hop_cycles,
        )

    @property
    def data_bits(self) -> int:
        """Bits of a memory word."""
        return 8 * self.bus_bytes

    @property
    def slices(self) -> int:
        """WUVE words in a memory word of binary32."""
        return self.bus_bytes // (4 * self.wuve_lanes)

    @property
    def run_words(self) -> int:
        """Memory words of a whole segment of binary32."""
        return 4 * TILE // self.bus_bytes

    @property
    def index_bits(self) -> int:
        """Bits of the longest run of index fields of a segment."""
        sizes = [1 << place for place in range(self.max_group.bit_length())]
        return 8 * max(TILE // size * index_bytes(min(self.max_keep, size), size) for size in sizes if size > 1)

    @property
    def packet(self) -> data.StructLayout:
        """A short run of bytes to be written: address, bytes, and the bytes themselves."""
        return data.StructLayout({"address": 64, "bytes": range(2 * TILE + 1), "payload": 16 * TILE})


COUNT = range(TILE + 1)
SEGMENT = data.StructLayout({"offset": 32, "count": COUNT, "last_row": 1})
"""Up to TILE weights in a row: first one, counted in memory order; how many; whether its tile ends with it."""
ROW = data.StructLayout({"values": 16 * TILE, "offset": 32, "count": COUNT, "last_row": 1})
"""New binary16 weights of a segment."""
VECTOR = data.StructLayout({"values": 16 * TILE, "count": COUNT, "offset": 32})
"""Binary16 values to be pruned: how many, and the offset of the first (rows) or its group (columns)."""
PATTERN = data.StructLayout({"on": 1, "keep": 6, "group": 6, "shift": 3, "index_bytes": 5})
"""N:M as the unit uses it: M = 2^shift, bytes of a group's indices."""
