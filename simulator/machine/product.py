"""The product unit in cycles: loads, tiles and stores of a PRODUCT descriptor, equal to the RTL in every cycle.

The model follows the unit's handshakes (``nmsat.rtl.product``) with counts in place of values. It covers what is
executed: refused descriptors and memory errors have no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from ...dataflow.program import Descriptor
from .array import ArrayModel, Tile
from .parts import Queue, Stages
from .product_plan import RECORDS, STAGES, ProductPlan, ProductSizes, Run
from .product_store import ProductStore
from .window_array import WindowArrayModel

PLAN_CYCLES = 27  # from the descriptor's arrival to the first cycle of its loops, less one
BANKS = 2


class _Operand:
    """Loader, records, scatter and lanes of one side."""

    def __init__(self, plan: ProductPlan, side: str, port: Any, index_port: Any) -> None:
        self.plan, self.port, self.index_port = plan, port, index_port
        a_side = side == "a"
        sizes = plan.sizes
        self.a_side = a_side
        self.runs: Iterator[Run] = plan.runs_a() if a_side else plan.runs_b()
        self.next: Run | None = next(self.runs, None)
        self.capacity = plan.a_capacity if a_side else plan.b_capacity
        self.stages, self.records = Stages(STAGES), Queue(RECORDS)
        self.sent = [False, False]
        self.fresh_start = True  # the loader is active from the cycle after its start
        # scatter
        self.along = plan.a_along_k if a_side else plan.b_along_k
        self.lane_steps = a_side and plan.ws and not self.along
        self.compressed = plan.compressed and not a_side
        self.lanes = sizes.rows if a_side else sizes.cols
        self.bus = sizes.bus_bytes // 2
        self.group = plan.group if a_side else plan.keep
        self.atom = 1 if self.compressed else min(self.group, self.bus)
        self.taken = self.number = self.place = self.lane = 0
        self.fresh = True
        self.have = self.byte = self.bytes_taken = 0
        self.width = plan.group.bit_length() - 1
        # steps
        self.committed = self.late = 0
        # lane 0 and the last lane
        self.times = (plan.n_tiles if plan.a_stays else 1) if a_side else (plan.m_blocks if plan.b_stays else 1)
        self.words = 1 if a_side else plan.keep
        self.again = 1 if a_side or plan.ws else plan.interleave
        self.first, self.final = _Pointer(self), _Pointer(self)
        self.takes: deque[int] = deque()  # times at which the last lane takes a word

    @property
    def there(self) -> bool:
        """Lane 0 has its next word."""
        return self.first.position != self.late

    def step(self) -> None:
        """Loader and scatter, one cycle; lanes are moved by the array."""
        committed = self._scatter()
        self._loader()
        self.records.step()
        self.late = self.committed
        self.committed += committed

    def _loader(self) -> None:
        stages, out = self.stages, self.stages.last
        go = out is None
        if out is not None:
            asks, index = out.size > 0, out.index_size > 0
            request = not asks or self.sent[0] or self.port.room
            indices = not index or self.sent[1] or self.index_port.room
            if asks and not self.sent[0] and self.port.room:
                self.port.ask(out.address, out.size)
            if index and not self.sent[1] and self.index_port.room:
                self.index_port.ask(out.index, out.index_size)
            go = request and indices and self.records.room
            if go:
                self.records.push(out)
                self.sent = [False, False]
            else:
                self.sent = [asks and request, index and indices]
        if go:
            new = None
            if self.next is not None and not self.fresh_start and self.next.behind - self.released <= self.capacity:
                new, self.next = self.next, next(self.runs, None)
            stages.move(new)
        self.fresh_start = False

    @property
    def released(self) -> int:
        return self.final.released

    def _scatter(self) -> int:
        """Steps committed in this cycle."""
        if not self.records.items:
            return 0
        run: Run = self.records.items[0]
        zero = run.size == 0
        lane = run.lane if self.fresh else self.lane
        at = self.taken % self.bus
        room = self.bus - at
        if self.along:
            count = self.atom
        elif self.lane_steps:
            count = 1
        else:
            count = min(self.lanes - lane, run.elements - self.taken, room)
        total = run.groups * self.plan.keep if self.compressed else run.elements
        needs = not zero and self.taken < total
        if needs and not self.port.word:
            return 0
        wants = self.compressed and needs
        more = wants and self.have < self.width
        if more and not self.index_port.word:
            return 0
        group_end = self.place + self.atom == self.group
        last = group_end and self.number + 1 == run.groups if self.along else self.taken + count >= run.elements
        if needs and (self.taken + count >= total or (count == room and self.port.word == 1)):
            self.port.take = True
        if wants:
            self._take_index(run, more, last)
        self.taken += count
        self.fresh = False
        self.place += self.atom
        if self.along and group_end:
            self.place = 0
            self.number += 1
        if not self.along:
            self.lane = lane if self.lane_steps else (lane + count) % self.lanes
        if last:
            self.taken = self.number = self.place = 0
            self.fresh = True
            self.records.pop()
            return run.commit
        return 0

    def _take_index(self, run: Run, more: bool, last: bool) -> None:
        bus = 2 * self.bus
        end = self.bytes_taken + 1 == run.groups * self.plan.index_bytes
        wraps = self.byte == bus - 1
        if more and (end or (wraps and self.index_port.word == 1)):
            self.index_port.take = True
        self.have += (8 if more else 0) - self.width
        if self.place + 1 == self.plan.keep:
            self.have = 0
        if more:
            self.byte = 0 if wraps else self.byte + 1
            self.bytes_taken += 1
        if last:
            self.byte = self.bytes_taken = self.have = 0


class _Pointer:
    """Where a lane reads: step, word of the step, how often it was read."""

    __slots__ = ("_block", "_operand", "_time", "_turn", "_word", "begin", "offset")

    def __init__(self, operand: _Operand) -> None:
        self._operand = operand
        self.begin = self.offset = self._word = self._turn = self._time = self._block = 0

    @property
    def position(self) -> int:
        return self.begin + self.offset

    @property
    def released(self) -> int:
        return self.position if self._time + 1 == self._operand.times else self.begin

    def take(self) -> None:
        """One word is taken."""
        operand, plan = self._operand, self._operand.plan
        self._word += 1
        if self._word < operand.words:
            return
        self._word = 0
        self._turn += 1
        if self._turn < operand.again:
            return
        self._turn = 0
        self.offset += 1
        blocks = plan.m_blocks if operand.a_side else 1
        last_block = self._block + 1 == blocks
        steps = (plan.a_steps_last if last_block else plan.a_steps) if operand.a_side else plan.b_steps
        if self.offset == steps:
            self.offset = 0
            self._time += 1
            if self._time == operand.times:
                self._time = 0
                self.begin += steps
                self._block = 0 if last_block else self._block + 1


class ProductModel:
    """The unit between its memory ports.

    In every cycle: look at ``room`` and ``done``, set what the controller does (:meth:`start`, ``take_done``), call
    :meth:`step`, then the ports' step.

    Parameters
    ----------
    sizes : ProductSizes
    a, b, indices, masks, c, bits : port models
        As of :class:`.memory.DmaModel`.

    Attributes
    ----------
    room, done : bool
        A descriptor would be taken; one has been executed.
    computing, load_waits, store_waits : int
        Cycles so far in which the array was at work, waited for operands, and a tile waited for a bank.
    """

    def __init__(self, sizes: ProductSizes, a: Any, b: Any, indices: Any, masks: Any, c: Any, bits: Any) -> None:
        self.sizes, self.ports = sizes, (a, b, indices, masks, c, bits)
        self.room, self.done, self.take_done = True, False, False
        shape, back = (sizes.rows, sizes.span, sizes.multiplier_latency), 2 * sizes.hop
        self._array = WindowArrayModel(*shape, back) if sizes.window else ArrayModel(*shape, sizes.adder_latency, back)
        self._fulls = deque([False] * back)  # whether a bank was filled, on the way to the unit
        self._given: Descriptor | None = None
        self._wait = 0
        self._plan: ProductPlan | None = None
        self._sides: tuple[_Operand, _Operand] | None = None
        self._store: ProductStore | None = None
        self._tiles: Iterator[tuple[Tile, bool]] = iter(())
        self._tile: tuple[Tile, bool] | None = None
        self._used = 0
        self._fresh = True
        self._results_of_bank = 0
        self.computing = self.load_waits = self.store_waits = 0

    def start(self, item: Descriptor) -> None:
        """Give a descriptor in this cycle; only if there is ``room``."""
        self._given = item

    def step(self) -> None:
        """End the cycle."""
        if self.done:
            if self.take_done:
                self.done, self.room, self.take_done = False, True, False
            return
        if self._given is not None:
            self._plan, self._given = ProductPlan(self._given, self.sizes), None
            self.room, self._wait = False, PLAN_CYCLES
            return
        plan = self._plan
        if plan is None:
            return
        if self._wait:
            self._wait -= 1
            return
        if self._sides is None:
            self._begin(plan)
            return
        self._work(plan)

    def _begin(self, plan: ProductPlan) -> None:
        a, b, indices, masks, c, bits = self.ports
        self._sides = _Operand(plan, "a", a, None), _Operand(plan, "b", b, indices)
        self._store = ProductStore(plan, masks, c, bits)
        for part in (*self._sides, self._store):
            part.fresh_start = False
        self._tiles = self._commands(plan)
        self._tile = next(self._tiles, None)
        self._used, self._fresh, self._results_of_bank = 0, True, 0

    def _commands(self, plan: ProductPlan) -> Iterator[tuple[Tile, bool]]:
        for number in range(plan.jobs):
            block = number // plan.n_tiles % plan.m_blocks
            rows = plan.rows_last if block == plan.m_blocks - 1 else plan.rows
            for tile in range(plan.k_tiles):
                last = number == plan.jobs - 1 and tile == plan.k_tiles - 1
                count = rows if plan.ws else min(plan.k_groups, plan.groups - tile * plan.k_groups)
                yield Tile(plan.ws, last, plan.keep, plan.interleave, count), tile == 0

    def _work(self, plan: ProductPlan) -> None:
        assert self._sides is not None
        assert self._store is not None
        array, (west, north), store = self._array, self._sides, self._store
        ended = not self._fresh and store.idle and array.idle
        self._fresh = False
        # results that leave in this cycle
        full = False
        if array.results and array.results[0] == array.time:
            array.results.popleft()
            self._results_of_bank += 1
            if self._results_of_bank == plan.k_tiles:
                self._results_of_bank, full = 0, True
        self._fulls.append(full)
        full = self._fulls.popleft()
        # the array
        fed = (not array.needs_west or west.there) and (not array.needs_north or north.there)
        tile = self._tile
        waits = tile is not None and tile[1] and self._used == BANKS
        offered = tile[0] if tile is not None and not waits else None
        working = not array.idle
        self.computing += working
        self.load_waits += working and not (west.there and north.there)
        self.store_waits += waits
        time = array.time
        takes_west, takes_north = array.takes_west and fed, array.needs_north and fed
        taken = array.step(fed, offered)
        emptied = store.step(full)
        west.step()
        north.step()
        hop = self.sizes.adder_latency if plan.ws else 1
        for side, takes, delay in (
            (west, takes_west, (self.sizes.rows - 1) * hop), (north, takes_north, self.sizes.span)
        ):  # fmt: skip
            if takes:
                side.first.take()
                side.takes.append(time + delay)
            if fed and side.takes and side.takes[0] == time:
                side.takes.popleft()
                side.final.take()
        if taken:
            assert tile is not None
            self._used += tile[1]
            self._tile = next(self._tiles, None)
        self._used -= emptied
        if ended:
            self._plan = self._sides = self._store = None
            self.done = True
