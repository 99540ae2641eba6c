"""The array's sequencer in cycles with the window accumulator: what ``nmsat.rtl.window_sequencer`` changes."""

from __future__ import annotations

from ...models.window import TURNAROUND
from .array import ArrayModel, Tile


class WindowArrayModel(ArrayModel):
    """As :class:`.array.ArrayModel`; La is 1 and a command's interleave, too."""

    def __init__(self, rows: int, span: int, multiplier_latency: int, back: int = 0) -> None:
        self._least = max(rows, TURNAROUND)  # cycles between the last slots of successive OS tiles
        self._since = self._least
        super().__init__(rows, span, multiplier_latency, 1, back)

    @property
    def _final_slot(self) -> bool:
        return self._n == self.keep - 1 and self._number + 1 == self._groups

    @property
    def _issues(self) -> bool:
        """OS: a slot is issued; a tile's last one waits for the drain and the turnaround of the tile before."""
        return self._busy and not (self._final_slot and self._since < self._least)

    def _look(self) -> None:
        if self.ws:
            super()._look()
            return
        self.needs_west = self.needs_north = self._issues
        self.takes_west = self.needs_west and self._n == self.keep - 1

    def _os(self, quiet: bool, command: Tile | None) -> tuple[bool, bool, bool]:
        mac = self._issues
        end = mac and self._final_slot
        free = not self._busy or (end and not self.final)
        going = self.running and not self.ws and not self.final and free
        take = command is not None and not command.ws and (quiet or going)
        self._since += self._since < self._least
        if mac:
            self._number += self._n == self.keep - 1
            self._n = 0 if self._n == self.keep - 1 else self._n + 1
        if end:
            self._busy, self._since = False, 1
            last = self.time + self.Lm + 2 * self.rows + self.span
            self.results.append(last)
            self._retires.append(last)
        if take:
            assert command is not None
            self._busy, self._number, self._n, self._groups = True, 0, 0, command.count
        return take, end and self.final, end

    def _tile_end(self, row_end: bool, rows_end: bool) -> bool:
        return rows_end and (row_end or not self._active) and self._ws_age + 1 >= self.keep + TURNAROUND - 1

    def _tile_place(self) -> bool:
        return True

    def _foot(self) -> int:
        return self.keep


__all__ = ["WindowArrayModel"]
