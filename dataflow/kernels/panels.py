"""How the columns of a product are cut into panels of whole vectors."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.errors import NmsatError
from .description import LANES, Kernel


@dataclass(frozen=True, slots=True)
class Panel:
    """Columns handled by one pass over the weights.

    ``starts`` are the first columns of its vectors, relative to ``column``. The last vector of the last panel
    may overlap the one before it: the overlap computes the same bits twice and needs no mask. Below 4 columns
    (``lanes`` = 1) every column is one scalar lane.
    """

    column: int
    starts: tuple[int, ...]
    lanes: int

    @property
    def columns(self) -> int:
        """Columns written, overlap counted once."""
        return self.starts[-1] + self.lanes


def cut(m: int, vectors: int, lanes: int | None = None) -> tuple[Panel, ...]:
    """Cut ``m`` columns into the fewest panels of at most ``vectors`` vectors, widths differing by at most one.

    ``m = 49`` with 7 vectors gives 7 + 6 vectors for 12.25 vectors of work, instead of one panel and two tails.
    ``lanes`` is 1 or 4 columns a vector; by default 4, and 1 below 4 columns.

    Raises
    ------
    NmsatError
        If ``m`` or ``vectors`` is below 1.
    """
    for key, value in (("m", m), ("vectors", vectors)):
        if value < 1:
            raise NmsatError.rule("panels", key, "at least 1", value)
    lanes = lanes or (LANES if m >= LANES else 1)
    total = -(-m // lanes)
    count = -(-total // vectors)
    panels, first = [], 0
    for number in range(count):
        width = total // count + (number < total % count)
        starts = [min((first + v) * lanes, m - lanes) - first * lanes for v in range(width)]
        column = first * lanes
        if starts[0] < 0:  # the last panel is a single overlapping vector
            column, starts = column + starts[0], [0]
        panels.append(Panel(column, tuple(starts), lanes))
        first += width
    return tuple(panels)


def runs(panels: tuple[Panel, ...]) -> list[tuple[Panel, int]]:
    """Consecutive panels of one form, as (first panel, how many): one loop of the generated code each."""
    found: list[tuple[Panel, int]] = []
    for panel in panels:
        if found:
            first, count = found[-1]
            step = first.columns
            if panel.starts == first.starts and panel.column == first.column + count * step:
                found[-1] = (first, count + 1)
                continue
        found.append((panel, 1))
    return found


def passes(count: int, group: int) -> list[tuple[int, int]]:
    """Passes over the rows for ``count`` panels of one form, as (panels a pass, passes): whole groups, the rest."""
    whole, rest = divmod(count, group)
    return [(panels, times) for panels, times in ((group, whole), (rest, 1)) if panels and times]


def copied_bytes(kernel: Kernel, m: int, k: int) -> int:
    """Bytes that hold the copied panels of one pass over X (k, m); 0 where panels are read in place."""
    if kernel.panels == "in_place" or m < LANES:
        return 0
    return kernel.x_pitch(m) * k * min(kernel.group, len(cut(m, kernel.vectors)))
