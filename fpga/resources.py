"""Resources of a board that a design may use: by kind, for the device and for every super logic region."""

from __future__ import annotations

from .board import Board

KINDS = ("lut", "ff", "dsp", "bram36", "uram")


def usable_by_slr(board: Board) -> list[dict[str, int]]:
    """What a region offers.

    LUTs are the board file's. Of the other kinds, and of flip-flops, only device totals are known: the regions are
    equal, and a shell is assumed to take of each kind the share that it takes of a region's LUTs.
    """
    slrs = board.device.slrs
    found = []
    for lut in board.usable.lut_by_slr:
        share = lut * slrs / board.device.lut
        kinds = {kind: int(getattr(board.device, kind) // slrs * share) for kind in KINDS}
        found.append(kinds | {"lut": lut})
    return found


def usable(board: Board) -> dict[str, int]:
    """Sums of the regions; DSPs at most the board file's figure."""
    regions = usable_by_slr(board)
    found = {kind: sum(region[kind] for region in regions) for kind in KINDS}
    return found | {"dsp": min(found["dsp"], board.usable.dsp)}
