"""A product descriptor as the product unit sees it: sizes, loops, runs of its operands and results.

What ``nmsat.rtl.product`` derives in hardware, derived here from the same rules; the unit's cycle model walks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...dataflow import program as fmt
from ...dataflow.program import Descriptor, Mode
from ...models.accelerator import Accelerator

SEGMENT = 64
X_RUN = 32
RECORDS = 16  # of runs, in a queue behind a loader or before the writer
STAGES = 5  # of a loader, and of what makes runs of results


def _power(value: int) -> int:
    return 1 << value.bit_length() - 1


def _power_up(value: int) -> int:
    return 1 << (value - 1).bit_length()


@dataclass(frozen=True, slots=True)
class ProductSizes:
    """What the unit is generated for (``nmsat.rtl.product.sizes`` has the rules).

    ``adder_latency`` is 1 with a window; ``span`` are the cycles from the first column to the last; ``hop`` the
    registers between the unit and the array's halves, each way.
    """

    rows: int
    cols: int
    span: int
    hop: int
    multiplier_latency: int
    adder_latency: int
    window: bool
    bus_bytes: int
    group_places: int
    keep_places: int
    west_words: int
    north_words: int

    @classmethod
    def of(cls, accelerator: Accelerator) -> ProductSizes:
        """The unit of an accelerator."""
        a = accelerator
        places, keeps = _power_up(a.max_group), _power_up(a.max_keep)
        hop = a.slr_hop_cycles if a.cols > 1 else 0
        return cls(
            a.rows, a.cols, a.cols - 1 + hop, hop, a.multiplier_latency_cycles,
            a.sum_latency_cycles, a.window is not None, a.axi_data_bits // 8, places, keeps,
            _power(a.w2e_bytes // (a.rows * places)), _power(a.n2s_bytes // (a.cols * keeps * 2)),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """Elements of an operand that lie one after the other, or zeros in their place.

    Attributes
    ----------
    address, size, index, index_size : int
        Bytes to read; size 0 for zeros, index_size 0 without an index plane.
    elements, groups : int
        Along the run: elements that memory has; groups to fill.
    lane : int
        First row or column.
    commit, behind : int
        Steps that are whole with it; step behind the last it belongs to.
    """

    address: int
    size: int
    index: int
    index_size: int
    elements: int
    groups: int
    lane: int
    commit: int
    behind: int


@dataclass(frozen=True, slots=True)
class Row:
    """A run of results: its bytes, mask bytes that are read, first mask bit, elements, whether it ends its bank."""

    address: int
    size: int
    mask: int
    mask_size: int
    bit: int
    length: int
    last: bool


class ProductPlan:
    """Sizes and loops of a descriptor on a unit."""

    def __init__(self, item: Descriptor, sizes: ProductSizes) -> None:
        self.item, self.sizes = item, sizes
        flags = item["flags"]
        self.transposed, self.swapped = bool(flags & fmt.TRANSPOSED_A), bool(flags & fmt.SWAPPED)
        self.ws = item["mode"] == Mode.WS
        self.keep, self.group, self.interleave = item["keep"], item["group"], item["interleave"]
        sparse = self.keep != self.group
        self.diagonal = sparse and item["block"] > 1
        self.compressed = sparse and not self.diagonal
        self.taps = 1 if self.transposed else item["taps_y"] * item["taps_x"]
        self.tap_groups = -(-item["kc"] // self.group)
        self.groups = self.taps * self.tap_groups
        self.k_groups = sizes.rows if self.ws else item["k_tile"] or self.groups
        self.k_tiles = -(-self.groups // self.k_groups)
        self.n_tiles = -(-item["n"] // sizes.cols)
        self.rows = item["m_chunk"] if self.ws else self.interleave * sizes.rows
        self.m_blocks = -(-item["m"] // self.rows)
        self.rows_last = (item["m"] - (self.m_blocks - 1) * self.rows) if self.ws else self.rows
        self.a_capacity = sizes.west_words * sizes.group_places // self.group
        self.b_capacity = sizes.north_words * sizes.keep_places // _power_up(self.keep)
        self.a_steps = self.k_tiles * self.rows if self.ws else self.groups * self.interleave
        self.a_steps_last = self.k_tiles * self.rows_last if self.ws else self.a_steps
        self.a_stays = self.a_steps <= self.a_capacity
        one = self.k_tiles * sizes.rows if self.ws else self.groups
        self.b_stays = self.n_tiles * one <= self.b_capacity
        self.b_steps = self.n_tiles * one if self.b_stays else one
        along = item["b_stride_k"] == 1
        across = X_RUN if item["b_stride_n"] == 1 else 1
        self.a_along_k = not self.transposed and (not self.swapped or along)
        self.a_run = X_RUN if self.transposed else across
        self.b_along_k = self.swapped or self.diagonal or sparse or along
        self.b_run = across
        self.columns_run = self.swapped or item["c_stride_n"] != 1
        self.wide = bool(flags & fmt.OUT_FP32)
        self.applies = bool(flags & fmt.APPLY_MASK) and not self.wide
        self.writes_mask = bool(flags & fmt.WRITE_MASK) and not self.wide
        self.index_bytes = -(-self.keep * (self.group.bit_length() - 1) // 8)
        self.jobs = item["count"] * self.m_blocks * self.n_tiles

    def repeats(self, side: str) -> Iterator[int]:
        """Elements from an address to every repeat."""
        item = self.item
        for r in range(item["count"]):
            yield r % item["inner"] * item[f"{side}_repeat"] + r // item["inner"] * item[f"{side}_outer"]

    # operands

    def runs_a(self) -> Iterator[Run]:
        """Runs of A in order."""
        item, base = self.item, 0
        passes = 1 if self.a_stays else self.n_tiles
        for start in self.repeats("a"):
            for first in range(0, item["m"], self.rows):
                rows = min(self.rows, item["m"] - first)
                for _ in range(passes):
                    base = yield from self._block_a(start, first, rows, base)

    def _block_a(self, start: int, first: int, rows: int, base: int) -> Iterator[Run]:
        s, plan_rows = self.sizes, self.sizes.rows
        if self.ws:
            for tile in range(self.k_tiles):
                for local, step in self._subs(first, rows):
                    behind = base + local + step
                    pieces = list(self._pieces(tile * plan_rows, plan_rows))
                    for number, (group, place, count, run, zero) in enumerate(pieces):
                        commit = step if number == len(pieces) - 1 else 0
                        lane = group - tile * plan_rows
                        yield self._run_a(
                            start, first + local, step, group, place, count, run, zero, lane, commit, behind
                        )
                base += rows
            return base
        for group, count, run in self._ranges():
            steps = count * self.interleave
            subs = list(self._subs(first, rows))
            for at, (local, step) in enumerate(subs):
                places = [0] if self.a_along_k else range(self.group)
                for place in places:
                    final = at == len(subs) - 1 and place == places[-1]
                    zero = not self.a_along_k and self._k_of(group, place)[1] >= self.item["kc"]
                    yield self._run_a(
                        start, first + local, step, group, place, count, run, zero, local % s.rows,
                        steps if final else 0, base + steps,
                    )  # fmt: skip
            base += steps
        return base

    def _subs(self, first: int, rows: int) -> Iterator[tuple[int, int]]:
        """(row within the block, rows of the run)."""
        local = 0
        while local < rows:
            step = 1
            if not self.a_along_k:
                step = min(self.a_run, rows - local)
                if self.transposed:
                    channel = (first + local) % self.item["in_c"]
                    step = min(step, self.item["in_c"] - channel)
            yield local, step
            local += step

    def _ranges(self) -> Iterator[tuple[int, int, int]]:
        """(first group, groups, elements) of the ranges along k of an operand in OS, or of B."""
        along = self.a_along_k
        yield from self._split(along, self.item["kc"])

    def _split(self, along: bool, kc: int) -> Iterator[tuple[int, int, int]]:
        group = 0
        for _ in range(self.taps):
            if not along:
                for _ in range(self.tap_groups):
                    yield group, 1, 0
                    group += 1
                continue
            at = 0
            while at < kc:
                run = min(SEGMENT, kc - at)
                count = -(-run // self.group)
                yield group, count, run
                group, at = group + count, at + run

    def _pieces(self, first: int, most: int) -> Iterator[tuple[int, int, int, int, bool]]:
        """(group, place, groups, elements, zero) of the runs of A inside a k-tile."""
        group, end = first, first + most
        while group < end:
            if group >= self.groups:
                if self.a_along_k:
                    count = min(SEGMENT, end - group)
                    yield group, 0, count, 0, True
                    group += count
                    continue
                for place in range(self.group):
                    yield group, place, 1, 0, True
                group += 1
                continue
            if not self.a_along_k:
                for place in range(self.group):
                    yield group, place, 1, 0, self._k_of(group, place)[1] >= self.item["kc"]
                group += 1
                continue
            at = group % self.tap_groups * self.group
            run = min(SEGMENT, self.item["kc"] - at, (end - group) * self.group)
            count = -(-run // self.group)
            yield group, 0, count, run, False
            group += count

    def _k_of(self, group: int, place: int) -> tuple[int, int]:
        """(tap, channel) of a place in a group."""
        return group // self.tap_groups, group % self.tap_groups * self.group + place

    def _run_a(
        self, start: int, row: int, step: int, group: int, place: int, count: int, run: int, zero: bool, lane: int,
        commit: int, behind: int,
    ) -> Run:  # fmt: skip
        item = self.item
        elements = run if self.a_along_k else step
        address, size = 0, 0
        if not zero:
            tap, channel = self._k_of(group, place)
            if self.swapped:
                offset = self._strided(tap, channel, row) + start
            elif self.transposed:
                found = self._pixel(channel, row // item["in_c"])
                offset = None if found is None else found * item["a_pixel"] + row % item["in_c"] + start
            else:
                found = self._pixel(row, tap)
                offset = None if found is None else found * item["a_pixel"] + channel + start
            if offset is not None:
                address, size = item["a_address"] + 2 * offset, 2 * elements
        return Run(address, size, 0, 0, elements, count, lane, commit, behind)

    def _strided(self, tap: int, channel: int, column: int) -> int:
        item = self.item
        found = channel * item["b_stride_k"] + column * item["b_stride_n"]
        if self.transposed:
            return found
        ty, tx = divmod(tap, item["taps_x"])
        row = item["b_first_y"] + ty * item["b_step_y"]
        return found + (row * item["b_taps_x"] + item["b_first_x"] + tx * item["b_step_x"]) * item["b_stride_tap"]

    def _pixel(self, pixel: int, tap: int) -> int | None:
        """Input pixel under a tap of an output pixel; None outside."""
        item = self.item
        rest, ox = divmod(pixel, item["out_w"])
        image, oy = divmod(rest, item["out_h"])
        ty, tx = divmod(tap, item["taps_x"])
        y = oy * item["step_y"] + ty * item["tap_step_y"] + item["origin_y"]
        x = ox * item["step_x"] + tx * item["tap_step_x"] + item["origin_x"]
        if not (0 <= y < item["in_h"] and 0 <= x < item["in_w"]):
            return None
        return (image * item["in_h"] + y) * item["in_w"] + x

    def runs_b(self) -> Iterator[Run]:
        """Runs of B in order."""
        item, base = self.item, 0
        passes = 1 if self.b_stays else self.m_blocks
        for start in self.repeats("b"):
            for _ in range(passes):
                for first in range(0, item["n"], self.sizes.cols):
                    base = yield from self._tile_b(start, first, min(self.sizes.cols, item["n"] - first), base)

    def _tile_b(self, start: int, first: int, columns: int, base: int) -> Iterator[Run]:
        item, rows = self.item, self.sizes.rows
        kc = 1 if self.diagonal else item["kc"]
        for group, count, run, zero_range in self._ranges_b(kc):
            within = group % rows
            steps = (within + count) // rows * rows if self.ws else count
            behind = base + (-(-(within + count) // rows) * rows if self.ws else count)
            sub = columns if not self.b_along_k else 1
            sub = min(sub, self.b_run) if not self.b_along_k else 1
            for local in range(0, columns, sub):
                step = min(sub, columns - local)
                places = [0] if self.b_along_k else range(self.group)
                for place in places:
                    final = local + step == columns and place == places[-1]
                    tap, channel = self._k_of(group, place)
                    zero = zero_range or channel >= kc
                    yield self._run_b(
                        start, first + local, step, tap, channel, count, run, zero, local, steps if final else 0, behind
                    )
            base += steps
        return base

    def _ranges_b(self, kc: int) -> Iterator[tuple[int, int, int, bool]]:
        for group, count, run in self._split(self.b_along_k, kc):
            yield group, count, run, False
        if not self.ws:
            return
        group, end = self.groups, self.k_tiles * self.sizes.rows
        while group < end:
            count = min(SEGMENT, end - group) if self.b_along_k else 1
            yield group, count, 0, True
            group += count

    def _run_b(
        self, start: int, column: int, step: int, tap: int, channel: int, count: int, run: int, zero: bool, lane: int,
        commit: int, behind: int,
    ) -> Run:  # fmt: skip
        item = self.item
        elements = run if self.b_along_k else step
        address = size = index = index_size = 0
        offset: int | None = None
        if not zero:
            if self.swapped:
                pixel = self._pixel(column, tap)
                offset = None if pixel is None else pixel * item["a_pixel"] + channel + start
            else:
                offset = self._strided(tap, channel, column) + start
        if offset is not None and self.compressed:
            groups = -(-elements // self.group)
            at = offset // self.group
            address, size = item["b_address"] + at * self.keep * 2, groups * self.keep * 2
            index, index_size = item["index_address"] + at * self.index_bytes, groups * self.index_bytes
        elif offset is not None:
            address, size = item["b_address"] + 2 * offset, 2 * elements
        return Run(address, size, index, index_size, elements, count, lane, commit, behind)

    # results

    def results(self) -> Iterator[Row]:
        """Runs of results, bank by bank."""
        item, s = self.item, self.sizes
        shift = 2 if self.wide else 1
        for start in self.repeats("c"):
            for row0 in range(0, item["m"], self.rows):
                rows = min(self.rows, item["m"] - row0)
                for column0 in range(0, item["n"], s.cols):
                    columns = min(s.cols, item["n"] - column0)
                    runs, length = (columns, rows) if self.columns_run else (rows, columns)
                    for local in range(runs):
                        row = row0 + (0 if self.columns_run else local)
                        column = column0 + (local if self.columns_run else 0)
                        down = row if self.swapped or self.transposed else self._target(row)
                        right = self._target(column) if self.swapped else column
                        offset = down * item["c_stride_m"] + right * item["c_stride_n"] + start
                        bit = offset % 8
                        mask_size = (bit + length + 7) // 8 if self.applies else 0
                        yield Row(
                            item["c_address"] + (offset << shift), length << shift,
                            item["mask_address"] + offset // 8, mask_size, bit, length, local == runs - 1,
                        )  # fmt: skip

    def _target(self, pixel: int) -> int:
        item = self.item
        rest, ox = divmod(pixel, item["out_w"])
        image, oy = divmod(rest, item["out_h"])
        y, x = oy * item["c_step_y"] + item["c_first_y"], ox * item["c_step_x"] + item["c_first_x"]
        return (image * item["c_h"] + y) * item["c_w"] + x
