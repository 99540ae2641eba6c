"""What becomes of the product unit's results, in cycles: runs, the banks' reader, the epilogue, words of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from .parts import Pipe, Queue, Stages
from .product_plan import RECORDS, STAGES, ProductPlan, Row

_EPILOGUE_STAGES = 3
_DRAIN_STAGES = 4
_IN_FLIGHT = 8
_MASK_WRITES = 4


class ProductStore:
    """Runs of results, the banks' readers, the epilogue and the words of memory."""

    def __init__(self, plan: ProductPlan, masks: Any, results: Any, bits: Any) -> None:
        self.plan, self.masks, self.results, self.bits = plan, masks, results, bits
        self.rows: Iterator[Row] = plan.results()
        self.next: Row | None = next(self.rows, None)
        self.waiting = 0  # banks that are full
        self.stages, self.runs = Stages(STAGES), Queue(RECORDS)
        self.sent = [False, False]
        self.fresh_start = True
        # writer
        self.at = self.bit = 0
        self.held: tuple[Row, int, bool] | None = None  # run, count, last
        self.hop = plan.sizes.hop
        self.arrived: deque[tuple[int, tuple[Row, int, bool]]] = deque()  # beats of banks in other regions, and when
        self.time = 0
        self.drains = plan.sizes.window
        self.drain, self.drained = Pipe(_DRAIN_STAGES), Queue(_IN_FLIGHT)
        self.epilogue, self.flow = Pipe(_EPILOGUE_STAGES), Queue(_IN_FLIGHT)
        self.fill = self.piece = 0
        self.mask_writes = Queue(_MASK_WRITES)
        self.mask_sent = [False, False]
        self.open_writes = 0
        self.bits_of_bus = 8 * plan.sizes.bus_bytes
        self.emptied = False

    @property
    def idle(self) -> bool:
        """Nothing is left to be written or heard of."""
        return (
            self.next is None and self.stages.empty and not self.runs.items and self.held is None and not self.arrived
            and not self.drained.items and not self.flow.items and not self.mask_writes.items
            and self.open_writes == 0
        )  # fmt: skip

    def step(self, full: bool) -> bool:
        """One cycle; whether a bank was emptied."""
        opened = self._addresses(full)
        emptied = self._writer()
        opened += self._mask_bytes()
        for port in (self.results, self.bits):
            if port.done:
                port.take_done = True
                opened -= 1
        self.open_writes += opened
        for part in (self.runs, self.drained, self.drain, self.flow, self.epilogue):
            part.step()
        self.mask_writes.step()
        return emptied

    def _addresses(self, full: bool) -> int:
        stages, out, opened = self.stages, self.stages.last, 0
        go = out is None
        if out is not None:
            applies = out.mask_size > 0
            request = self.sent[0] or self.results.room
            mask = not applies or self.sent[1] or self.masks.room
            if not self.sent[0] and self.results.room:
                self.results.ask(out.address, out.size)
                opened = 1
            if applies and not self.sent[1] and self.masks.room:
                self.masks.ask(out.mask, out.mask_size)
            go = request and mask and self.runs.room
            if go:
                self.runs.push(out)
                self.sent = [False, False]
            else:
                self.sent = [request, applies and mask]
        bank_end = False
        if go:
            new = None
            if self.next is not None and not self.fresh_start and self.waiting:
                new, self.next = self.next, next(self.rows, None)
                bank_end = new.last
            stages.move(new)
        self.fresh_start = False
        self.waiting += full - bank_end
        return opened

    def _writer(self) -> bool:
        plan, wide = self.plan, self.plan.wide
        self.time += 1
        room = len(self.arrived) < 2 * self.hop + 2
        if self.hop:
            self.held = self.arrived[0][1] if self.arrived and self.arrived[0][0] <= self.time else None
        # the packer and the mask at the end
        front = self.held
        if self.drains:
            front = self.drained.items[0] if self.drain.word is not None else None
        result = front if wide else (self.flow.items[0] if self.flow.items else None)
        there = front is not None if wide else self.epilogue.word is not None
        taken = False
        if there:
            assert result is not None
            taken = self._pack(result)
        if taken and not wide:
            self.epilogue.pop()
            self.flow.pop()
        accepts = taken if wide else self.epilogue.ready and self.flow.room
        if not wide and front is not None and accepts:
            self.epilogue.push(True)
            self.flow.push(front)
        if self.drains:
            if front is not None and accepts:
                self.drain.pop()
                self.drained.pop()
            accepts = self.drain.ready and self.drained.room
            if self.held is not None and accepts:
                self.drain.push(True)
                self.drained.push(self.held)
        # the reader of the banks
        emptied = False
        held, self.held = self.held, None
        if self.hop:
            if held is not None and accepts:
                self.arrived.popleft()
        elif held is not None and not accepts:
            self.held = held
        if self.runs.items and room and self.held is None and (not plan.applies or self.masks.word):
            run: Row = self.runs.items[0]
            bit = run.bit if self.at == 0 else self.bit
            last = self.at + 1 == run.length if plan.columns_run else True
            if plan.applies and (last or (bit == self.bits_of_bus - 1 and self.masks.word == 1)):
                self.masks.take = True
            self.bit = 0 if bit == self.bits_of_bus - 1 else bit + 1
            self.at = 0 if last else self.at + 1
            beat = (run, 1 if plan.columns_run else run.length, last)
            if self.hop:  # the address goes, the word is read, comes, and waits in a queue
                self.arrived.append((self.time + 2 * self.hop + 2, beat))
            else:
                self.held = beat
            if last:
                self.runs.pop()
                emptied = run.last
        return emptied

    def _pack(self, result: tuple[Row, int, bool]) -> bool:
        """Offer a word; whether the beat is done."""
        plan, port = self.plan, self.results
        run, count, last = result
        writes = plan.writes_mask
        if writes and not self.mask_writes.room:
            return False
        if plan.columns_run:
            whole = self.fill + 1 == self.bits_of_bus // (32 if plan.wide else 16) or last
            if whole:
                port.give = True
                if not port.word_room:
                    return False
                self.fill = 0
            else:
                self.fill += 1
            return True
        port.give = True
        if not port.word_room:
            return False
        row_last = (self.piece + 1) * self.bits_of_bus >= count * (32 if plan.wide else 16)
        self.piece = 0 if row_last else self.piece + 1
        if row_last and writes:
            whole = (run.bit + count) // 8
            if whole:
                self.mask_writes.push((run.mask, whole))
        return row_last

    def _mask_bytes(self) -> int:
        if not self.mask_writes.items:
            return 0
        address, size = self.mask_writes.items[0]
        opened, port, sent = 0, self.bits, self.mask_sent
        request, word = sent[0] or port.room, sent[1] or port.word_room
        if not sent[0] and port.room:
            port.ask(address, size)
            opened = 1
        if not sent[1]:
            port.give = True
        if request and word:
            self.mask_writes.pop()
            self.mask_sent = [False, False]
        else:
            self.mask_sent = [request, word]
        return opened
