"""An UPDATE or PRUNE descriptor as the unit executes it: what is read, in which order, where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...dataflow import program as fmt
from ...dataflow.program import Descriptor, Kind
from ...models.sparsity import Sparsity

TILE = 32
"""Weights of a segment, rows of a tile."""


@dataclass(frozen=True, slots=True)
class Plane:
    """A compressed copy: pattern, addresses of its planes."""

    pattern: Sparsity
    values: int
    indices: int

    def packets(self, place: int, groups: int) -> list[tuple[int, int]]:
        """(address, bytes) of the runs that hold ``groups`` groups from number ``place`` on."""
        keep, field = 2 * self.pattern.keep, self.pattern.index_bytes
        found = [(self.values + place * keep, groups * keep)]
        return [*found, (self.indices + place * field, groups * field)] if field else found


class Plan:
    """An UPDATE or PRUNE descriptor as the unit executes it."""

    def __init__(self, item: Descriptor) -> None:
        self.item = item
        self.update = item.kind is Kind.UPDATE
        self.idle = not self.update and not item.flag(fmt.SWAPPED)
        planes = {side: self._plane(side) for side in ("ff", "bp", "mask")}
        mask = planes["mask"] if self.update else None
        self.mask = None if mask is None or mask.pattern.is_dense else mask.pattern
        self.forward = planes["ff"] if self.update else None
        self.backward = planes["bp"] if self.update else None
        self.pruned = planes["bp"] if not self.update else None
        self.dense_copy = self.update and item.flag(fmt.OUT_FP32)
        self.indices = self.mask is not None and self.forward is not None
        self.find_mask = self.mask is not None and self.forward is None
        self.dense_on = not self.update or self.mask is not None

    def _plane(self, side: str) -> Plane | None:
        item = self.item
        if not item[f"{side}_keep"]:
            return None
        pattern = Sparsity(item[f"{side}_keep"], item[f"{side}_group"])
        if side == "mask":
            return Plane(pattern, 0, 0)
        return Plane(pattern, item[f"{side}_address"], item[f"{side}_index_address"])

    def setup_cycles(self) -> int:
        """From the cycle that takes the descriptor to the one in which the unit begins with it."""
        if self.idle:
            return 3
        divided = 33 if self.backward and self.item["groups"] != 1 else 0
        return 4 + divided + 3 * (4 if self.backward else 2 if self.update else 1)

    def segments(self) -> Iterator[tuple[int, int, bool]]:
        """(first weight, weights, whether its tile ends with it), in the order of the walk."""
        item = self.item
        taps = item["taps"] if self.update else 1
        columns, rows, groups = taps * item["in_channels"], item["out_channels"], item["groups"]
        if self.backward is None:
            columns, rows, groups = columns * rows, 1, 1
        rows //= groups
        for part in range(groups):
            for block in range(0, rows, TILE):
                high = min(TILE, rows - block)
                for column in range(0, columns, TILE):
                    width = min(TILE, columns - column)
                    for row in range(high):
                        yield (part * rows + block + row) * columns + column, width, row == high - 1

    def columns(self) -> Iterator[int]:
        """Number of the first N:M group of every column, in the order of the walk."""
        assert self.backward is not None
        item = self.item
        rows, group = item["out_channels"] // item["groups"], self.backward.pattern.group
        taps, inner, column_groups = item["taps"], item["in_channels"], rows // group
        for part in range(item["groups"]):
            for block in range(0, rows, TILE):
                for tap in range(taps):
                    for channel in range(inner):
                        yield ((part * inner + channel) * taps + tap) * column_groups + block // group
