"""The array's sequencer in cycles: which words it needs when, and when its results leave."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile command: OS ``count`` groups; WS ``count`` rows, ``first`` without sums of an earlier k-tile."""

    ws: bool
    last: bool
    keep: int
    interleave: int
    count: int


class ArrayModel:
    """Micro-operations of row 0 and column 0, as ``nmsat.rtl.sequencer`` issues them; other lanes follow later.

    In a cycle: look at ``needs_west``, ``needs_north``; :meth:`step` with whether the array is enabled (everything
    that is needed is there) and the command that is offered. Time, in which
    results leave, is counted in enabled cycles. ``span`` are the cycles from the first column to the last. ``back`` are
    the cycles, enabled or not, after which the sequencer hears of a word that left: there and back to halves of the
    array in other regions.

    Attributes
    ----------
    needs_west, needs_north : bool
        Row 0 needs its activations, column 0 a weight.
    takes_west : bool
        This is the last cycle of the activations' use.
    time : int
        Enabled cycles so far.
    results : deque of int
        Times at which the last column gives the last word of a tile, in order.
    """

    def __init__(self, rows: int, span: int, multiplier_latency: int, adder_latency: int, back: int = 0) -> None:
        self.rows, self.span, self.La, self.Lm = rows, span, adder_latency, multiplier_latency
        self.time = 0
        self.results: deque[int] = deque()
        self._retires: deque[int] = deque()  # times at which words leave that the sequencer counts
        self._news = deque([False] * back)  # whether one left, on the way to the sequencer
        self._heard = 0  # words that the sequencer has heard of and not yet counted
        self.running = self.final = self.ws = False
        self.keep = self.interleave = 1
        self.outstanding = 0
        # OS
        self._busy = self._live = self._pending = self._folding = self._waiting = False
        self._groups = self._number = self._slot = self._i = self._n = self._age = 0
        self._lanes = self._length = self._drain = 0
        # WS
        self._loading = self._loaded = self._ws_busy = self._active = self._opening = False
        self._row = self._lane = self._next_count = self._count = self._ws_n = self._done = self._ws_age = 0
        self._look()

    @property
    def idle(self) -> bool:
        """No sequence runs and every word has left."""
        return not self.running and self.outstanding == 0

    def _look(self) -> None:
        if self.ws:
            mac = self._ws_busy and self._active
            self.needs_west, self.takes_west = mac, mac and self._ws_n == self.keep - 1
            self.needs_north = self._loading
        else:
            mac = (
                self._busy and self._live and not self._folding and not self._waiting
                and self._number < self._groups and self._slot < self._lanes
            )  # fmt: skip
            self.needs_west, self.takes_west = mac, mac and self._n == self.keep - 1
            self.needs_north = mac

    def step(self, enabled: bool, command: Tile | None) -> bool:
        """End a cycle; whether the command was taken."""
        leaves = enabled and bool(self._retires) and self._retires[0] == self.time
        if leaves:
            self._retires.popleft()
        self._news.append(leaves)
        self._heard += self._news.popleft()
        if not enabled:
            return False
        quiet = self.idle
        retiring = self._heard > 0
        self._heard -= retiring
        ws_before = self.ws
        taken_os, over_os, finished = self._os(quiet, command)
        taken_ws, over_ws, opened_ws = self._weights(quiet, command)
        opened = opened_ws if ws_before else finished
        taken = taken_os or taken_ws
        if taken:
            assert command is not None
            self.running, self.final, self.ws = True, command.last, command.ws
            self.keep, self.interleave = command.keep, command.interleave
        elif over_os or over_ws:
            self.running = False
        self.outstanding += opened - retiring
        self.time += 1
        self._look()
        return taken

    def _os(self, quiet: bool, command: Tile | None) -> tuple[bool, bool, bool]:
        keep, La = self.keep, self.La
        folds = keep - 1
        number, busy, live, folding, waiting = self._number, self._busy, self._live, self._folding, self._waiting
        more_groups = number + 1 < self._groups
        more_folds = self._pending and number + 1 < folds
        fold_next = self._pending and number < folds
        pass_end = busy and not folding and not waiting and self._slot == self._length - 1
        fold_end = folding and self._i == self.interleave - 1
        round_end = (pass_end and not fold_next) or fold_end
        again = (live and more_groups) or more_folds
        drained = not live or self._age >= self._drain - 1
        end = (round_end and not again and drained) or (waiting and drained)
        flush = end and live and self.final and keep > 1
        free = not busy or (end and live and not self.final)
        over = end and ((self.final and keep == 1) if live else True)
        take = (
            command is not None
            and not command.ws
            and (quiet or (self.running and not self.ws and not self.final and free))
        )
        mac = busy and live and not folding and not waiting and number < self._groups and self._slot < self._lanes
        done = (number + 1 == folds) if folding else (keep == 1 and not more_groups)
        finished = (mac or folding) and done and self._i == 0
        # registers
        slot = self._slot + 1
        age = self._age if self._age == self._drain else self._age + 1
        i, n = self._i, self._n
        if mac or folding:
            wrap = folding or n == keep - 1
            n = 0 if wrap else n + 1
            i += wrap
        if pass_end or fold_end:
            slot = i = n = 0
            folding = pass_end and fold_next
        if round_end:
            number += 1
            if not again and not drained:
                waiting = True
        if end:
            self._pending = live and keep > 1
            busy = waiting = live = False
        if take or flush:
            busy, live, number, age, slot, i, n = True, take, 0, 0, 0, 0, 0
        if take:
            assert command is not None
            lanes = command.interleave * command.keep
            self._groups, self._lanes, self._length = command.count, lanes, max(lanes, La)
            self._drain = command.interleave * self.rows
        self._busy, self._live, self._folding, self._waiting = busy, live, folding, waiting
        self._number, self._slot, self._i, self._n, self._age = number, slot, i, n, age
        if finished and not self.ws:
            first = self.time + self.Lm + La + self.rows - 2 + 2
            last = first + self.interleave * self.rows - 1 + self.span
            self.results.append(last)
            self._retires.append(last)
        return take, over, finished

    def _weights(self, quiet: bool, command: Tile | None) -> tuple[bool, bool, bool]:
        keep, La = self.keep, self.La
        busy = self._ws_busy
        word_end = self._lane == keep - 1
        load_end = self._loading and word_end and self._row == 0
        row_end = busy and self._ws_n == keep - 1
        rows_end = self._done + 1 >= self._count
        end = busy and self._tile_end(row_end, rows_end)
        start = (self._loaded or load_end) and (end if busy else self._opening or self._tile_place())
        free = start or not (self._loading or self._loaded)
        over = end and self.final and not self._loading and not self._loaded
        take = command is not None and command.ws and (quiet or (self.running and self.ws and not self.final and free))
        mac = busy and self._active
        opened = mac and self._ws_n == 0
        if opened and self.ws:
            leaves = self.time + (self.rows - 1) * La + self.Lm + La + self._foot() + self.span
            self._retires.append(leaves)
            if rows_end:
                self.results.append(leaves)
        # registers
        row, lane = self._row, self._lane
        loading, loaded, active = self._loading, self._loaded, self._active
        if loading:
            lane = 0 if word_end else lane + 1
            if word_end:
                row -= 1
        if load_end:
            loading, loaded = False, True
        age = self._ws_age + 1
        n = 0 if self._ws_n == keep - 1 else self._ws_n + 1
        opening, done = self._opening, self._done
        if take and quiet:
            opening = True
        elif start:
            opening = False
        if row_end:
            done = done if rows_end else done + 1
        if row_end and rows_end:
            active = False
        if end:
            busy = False
        if start:
            busy = active = True
            loaded, n, done, age, self._count = False, 0, 0, 0, self._next_count
        if take:
            assert command is not None
            loading, lane, row, self._next_count = True, 0, self.rows - 1, command.count
        self._row, self._lane, self._loading, self._loaded, self._active = row, lane, loading, loaded, active
        self._ws_age, self._ws_n, self._opening, self._done, self._ws_busy = age, n, opening, done, busy
        return take, over, opened

    def _tile_end(self, row_end: bool, rows_end: bool) -> bool:
        """WS: the tile at work ends: whole rows, and the output buffer has the sums of the k-tile before."""
        return row_end and rows_end and self._ws_age >= self.La + 1

    def _tile_place(self) -> bool:
        """WS: a tile whose command came late may start in the next cycle."""
        return self._ws_n == self.keep - 1

    def _foot(self) -> int:
        """WS: cycles from lane 0's arrival at a foot to the output."""
        La, keep = self.La, self.keep
        return (keep > 1) + (keep - 1) * (La + (1 - La) % keep) + La


__all__ = ["ArrayModel", "Tile"]
