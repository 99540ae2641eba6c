"""The update unit in cycles: UPDATE and PRUNE descriptors, equal to the RTL at its ports in every cycle.

The model follows the unit's handshakes (``nmsat.rtl.update_unit``) with counts in place of values. It covers what is
executed: descriptors that the unit refuses, faults and NaN have no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...dataflow.program import RULE, Descriptor, Kind
from ...dataflow.vector_timing import SORE_LATENCY_CYCLES, WUVE_LATENCY_CYCLES
from ...models.accelerator import Accelerator
from ...models.errors import NmsatError
from .memory import WORDS_AHEAD
from .parts import Pipe, Queue, TransposerModel
from .remote import RemotePipe
from .update_plan import TILE, Plan

MASKS = 4
TAGS = 32
_MOST_UNANSWERED = 255
_DENSE, _W32, _V32, _GRADIENT, _RULE = range(5)
_NONE, _WRITE_W32, _WRITE_V32, _WRITE_PACKET = range(4)
_FROM_DENSE, _FROM_COLUMN, _FROM_ROW = range(3)


@dataclass(frozen=True, slots=True)
class UpdateSizes:
    """What the unit is generated for: bytes of a memory word, lanes of WUVE and of SORE, registers before them."""

    bus_bytes: int
    wuve_lanes: int
    sore_lanes: int
    hop: int = 0

    @classmethod
    def of(cls, accelerator: Accelerator) -> UpdateSizes:
        """The unit of an accelerator: one port feeds ``bus_bytes / 4`` lanes at most."""
        bus = accelerator.axi_data_bits // 8
        lanes = min(accelerator.wuve_lanes, bus // 4)
        lanes = 1 << lanes.bit_length() - 1
        return cls(bus, lanes, min(accelerator.sore_lanes, TILE // 2), accelerator.slr_hop_cycles)

    def engine(self, latency: int) -> Any:
        """An engine's pipeline: its stages and a skid buffer."""
        return RemotePipe(latency - 1, self.hop) if self.hop else Pipe(latency - 1)


class UpdateModel:
    """The unit between its two memory ports.

    In every cycle: look at ``room`` and ``done``, set what the controller does (:meth:`start`, ``take_done``), call
    :meth:`step`, then the ports' step.

    Parameters
    ----------
    sizes : UpdateSizes
    read, write : port models
        As of :class:`.memory.DmaModel`.

    Attributes
    ----------
    room, done : bool
        A descriptor would be taken; one has been executed.
    """

    def __init__(self, sizes: UpdateSizes, read: Any, write: Any) -> None:
        self.sizes, self.read, self.write = sizes, read, write
        bus = sizes.bus_bytes
        words = 4 * TILE // bus
        self._slices = bus // (4 * sizes.wuve_lanes)
        self.room, self.done, self.take_done = True, False, False
        self._given: Plan | None = None
        self._setup: tuple[int, Plan] | None = None
        self._plan: Plan | None = None
        self._state, self._rule_taken = "IDLE", False
        # reading
        self._segments: Iterator[tuple[int, int, bool]] = iter(())
        self._segment: tuple[int, int, bool] | None = None
        self._phase, self._full, self._is_rule, self._words_given = 0, False, False, 0
        self._requests, self._order = Queue(2), Queue(TAGS)
        self._tags, self._counts, self._vectors = Queue(TAGS), Queue(TAGS), Queue(TAGS)
        self._operands = {run: Queue(2 * words) for run in (_W32, _V32, _GRADIENT)}
        # mask and update
        self._expanding: int | None = None
        self._masks, self._ahead = Queue(MASKS), 0
        self._wuve = sizes.engine(WUVE_LATENCY_CYCLES)
        self._joined = self._collected = 0
        self._w32, self._v32, self._rows = Queue(2 * words), Queue(2 * words), Queue(2)
        self._served = [False, False, False]
        self._retiring = 0  # segments inside
        # planes
        self._transposer, self._tiles = TransposerModel(), 0
        self._columns: Iterator[int] = iter(())
        self._left = 0  # groups that have not entered SORE
        self._sore, self._plane_tags = sizes.engine(SORE_LATENCY_CYCLES), Queue(16)
        self._got, self._plane_full, self._second = 0, False, False
        # writing
        self._turn, self._first, self._run_left, self._unanswered = _NONE, True, 0, 0
        self._packets, self._written = Queue(2), Queue(2)
        self._out_requests, self._out_words = Queue(2), Queue(WORDS_AHEAD)
        self._queues = (
            self._requests, self._order, self._tags, self._counts, self._vectors, *self._operands.values(),
            self._masks, self._w32, self._v32, self._rows, self._plane_tags, self._packets, self._written,
            self._out_requests, self._out_words,
        )  # fmt: skip

    def start(self, item: Descriptor) -> None:
        """Give a descriptor in this cycle; only if there is ``room``."""
        if item.kind not in (Kind.UPDATE, Kind.PRUNE):
            raise NmsatError.rule("update model", "kind", "UPDATE or PRUNE", item.kind.name)
        self._given = Plan(item)

    def step(self) -> None:
        """End the cycle."""
        plan = self._plan
        if plan is not None:
            working = self._working()
            self._steps(plan)
            for queue in self._queues:
                queue.step()
            self._wuve.step()
            self._sore.step()
            self._transposer.step()
            self._control(plan, working)
        elif self._setup is not None:
            left, found = self._setup
            self._setup = (left - 1, found)
            if left == 1:
                self._plan, self._setup = found, None
                self._state = "DONE" if found.idle else "ASK" if found.update else "BEGIN"
        if self._given is not None:
            self._setup, self._given = (self._given.setup_cycles() - 1, self._given), None
        self.room = self._plan is None and self._setup is None
        self.done, self.take_done = self._state == "DONE", False

    def _working(self) -> bool:
        return bool(
            self._segment is not None or self._retiring or self._tiles
            or self._left or self._plane_tags.items or self._plane_full
            or self._turn or self._packets.items or self._written.items or self._unanswered
        )  # fmt: skip

    def _control(self, plan: Plan, working: bool) -> None:
        state = self._state
        if state == "ASK":
            self._state = "RULE"
        elif state == "RULE" and self._rule_taken:
            self._state, self._rule_taken = "RULE CHECK", False
        elif state == "RULE CHECK":
            self._state = "BEGIN"
        elif state == "BEGIN":
            self._segments = plan.segments()
            self._segment = next(self._segments)
            self._columns = plan.columns() if plan.backward else iter(())
            self._state = "RUN"
        elif state == "RUN" and not working:
            self._state = "DONE"
        elif state == "DONE" and self.take_done:
            self._state, self._plan = "IDLE", None

    def _steps(self, plan: Plan) -> None:
        rule_full = self._full and self._is_rule
        expander_free = self._expanding is None
        vector = self._full and not self._is_rule
        expanding: int | None = None  # groups of the segment whose mask is begun
        # entry of the plane maker: dense vector, column, row
        free = not self._left and self._plane_tags.room
        held = plan.find_mask and self._ahead == MASKS
        dense = vector and not plan.indices and not held
        column = self._transposer.out.word
        row = self._rows.items[0] if self._rows.items else None
        ready, entered_dense = free, False
        entering: tuple[int, int, int] | None = None
        if ready and dense:
            offset, count, _ = self._vectors.items[0]
            pattern = plan.pruned.pattern if plan.pruned else plan.mask
            assert pattern is not None
            entering = (_FROM_DENSE, count // pattern.group, offset // pattern.group)
            entered_dense = True
        ready = ready and not dense
        if ready and column is not None:
            assert plan.backward is not None
            tile_rows, ends = self._transposer.out.pop()
            entering = (_FROM_COLUMN, tile_rows // plan.backward.pattern.group, next(self._columns))
            self._tiles -= ends
        ready = ready and column is None
        rows_ready = ready
        if ready and row is not None and plan.forward and not self._served[1]:
            offset, count, _ = row
            group = plan.forward.pattern.group
            entering = (_FROM_ROW, count // group, offset // group)
        # SORE
        if self._left and self._sore.ready:
            self._sore.push(min(self._left, self.sizes.sore_lanes))
            self._left = max(0, self._left - self.sizes.sore_lanes)
        if entering:
            self._plane_tags.push(entering)
            self._left = entering[1]
        # exit of the plane maker
        plane_full, packet = self._plane_full, None
        if plane_full:
            source, groups, place = self._plane_tags.items[0]
            if plan.find_mask and source == _FROM_DENSE:
                if expander_free:
                    expanding, self._plane_full = groups, False
                    self._plane_tags.pop()
            else:
                plane = {_FROM_DENSE: plan.pruned, _FROM_COLUMN: plan.backward, _FROM_ROW: plan.forward}[source]
                assert plane is not None
                runs = plane.packets(place, groups)
                packet = runs[self._second]
                if self._packets.room:
                    self._packets.push(packet)
                    if self._second or len(runs) == 1:
                        self._second, self._plane_full = False, False
                        self._plane_tags.pop()
                    else:
                        self._second = True
        elif self._sore.word is not None:
            self._got += self._sore.pop()
            if self._got == self._plane_tags.items[0][1]:
                self._got, self._plane_full = 0, True
        # rows
        retired = self._route(plan, row, rows_ready, packet is not None)
        # the short operand
        if vector:
            if plan.indices and expander_free:
                assert plan.mask is not None
                expanding, self._full = self._vectors.pop()[1] // plan.mask.group, False
            elif entered_dense:
                self._vectors.pop()
                self._full = False
        if rule_full and self._state == "RULE":
            self._full, self._rule_taken = False, True
        # mask
        mask_taken = self._update(plan)
        if self._expanding is not None:
            if self._expanding:
                self._expanding -= 1
            elif self._masks.room:
                self._masks.push(True)
                self._expanding = None
        else:
            self._expanding = expanding
        if plan.find_mask:
            self._ahead += entered_dense - mask_taken
        self._take(was_full=vector or rule_full)
        self._retiring += self._ask(plan) - (retired if plan.update else entered_dense)
        self._write()

    def _route(self, plan: Plan, row: Any, rows_ready: bool, packet: bool) -> bool:
        """A row to its consumers; whether it has gone."""
        if row is None:
            return False
        offset, count, last = row
        served = self._served
        if plan.dense_copy and not served[0] and self._packets.room and not packet:
            self._packets.push((plan.item["w16_address"] + 2 * offset, 2 * count))
        after = [
            served[0] or not plan.dense_copy or (self._packets.room and not packet),
            served[1] or not plan.forward or rows_ready,
            served[2] or not plan.backward or self._transposer.ready,
        ]
        if plan.backward and not served[2] and self._transposer.ready:
            self._transposer.push(last, count)
            self._tiles += last
        if all(after):
            self._rows.pop()
            self._served = [False, False, False]
            return True
        self._served = after
        return False

    def _update(self, plan: Plan) -> bool:
        """Operands into WUVE, its results out of it; whether a mask was used up."""
        lanes, slices, mask_taken = self.sizes.wuve_lanes, self._slices, False
        operands = self._operands.values()
        masked = plan.mask is None or bool(self._masks.items)
        if self._counts.items and self._wuve.ready and masked and all(queue.items for queue in operands):
            last = (self._joined + 1) * lanes >= self._counts.items[0][1]
            if last or self._joined % slices == slices - 1:
                for queue in operands:
                    queue.pop()
            if last:
                self._counts.pop()
                mask_taken = plan.mask is not None
                if mask_taken:
                    self._masks.pop()
            self._joined = 0 if last else self._joined + 1
            self._wuve.push(True)
        room = self._rows.room and self._written.room and self._w32.room and self._v32.room
        if self._wuve.word is not None and self._tags.items and room:
            self._wuve.pop()
            segment = self._tags.items[0]
            last = (self._collected + 1) * lanes >= segment[1]
            if last or self._collected % slices == slices - 1:
                self._w32.push(True)
                self._v32.push(True)
            if last:
                self._tags.pop()
                self._rows.push(segment)
                self._written.push(segment)
            self._collected = 0 if last else self._collected + 1
        return mask_taken

    def _ask(self, plan: Plan) -> bool:
        """A request for a run; whether it was a segment's last."""
        if self._requests.items and self.read.room:
            self.read.ask(*self._requests.pop())
        queues = (self._requests, self._order, self._tags, self._counts, self._vectors)
        fetching = self._state == "ASK"
        if not all(queue.room for queue in queues) or not (fetching or self._segment):
            return False
        item, last = plan.item, False
        if fetching:
            run, address, size = _RULE, item["rule_address"], 4 * len(RULE)
        else:
            assert self._segment is not None
            offset, count, _ = self._segment
            run = _W32 if self._phase == _DENSE and not plan.dense_on else self._phase
            if run == _DENSE:
                self._vectors.push(self._segment)
                address, size = item["w16_address"] + 2 * offset, 2 * count
                if plan.indices:
                    assert plan.mask is not None
                    field = plan.mask.index_bytes
                    address = item["ff_index_address"] + offset // plan.mask.group * field
                    size = count // plan.mask.group * field
            else:
                key = {_W32: "w32_address", _V32: "v32_address", _GRADIENT: "gradient_address"}[run]
                address, size = item[key] + 4 * offset, 4 * count
            last = run == (_GRADIENT if plan.update else _DENSE)
            if run == _GRADIENT:
                self._tags.push(self._segment)
                self._counts.push(self._segment)
            self._phase = _DENSE if last else run + 1
            if last:
                self._segment = next(self._segments, None)
        self._requests.push((address, size))
        self._order.push((run, -(-size // self.sizes.bus_bytes)))
        return last

    def _take(self, was_full: bool) -> None:
        """A word from memory."""
        word = self.read.word
        if not word or not self._order.items:
            return
        run, words = self._order.items[0]
        if run in self._operands:
            if self._operands[run].room:
                self.read.take = True
                self._operands[run].push(True)
                self._words_given += 1
                if self._words_given == words:
                    self._words_given = 0
                    self._order.pop()
        elif not was_full:
            self.read.take = True
            if word == 2:
                self._full, self._is_rule = True, run == _RULE
                self._order.pop()

    def _write(self) -> None:
        """Runs to memory."""
        port, turn, bus = self.write, self._turn, self.sizes.bus_bytes
        if self._out_requests.items and port.room:
            port.ask(*self._out_requests.pop())
        if self._out_words.items:
            port.give = True
            if port.word_room:
                self._out_words.pop()
        answered = port.done
        port.take_done = True
        goes = ends = asks = False
        if turn:
            there = turn == _WRITE_PACKET or bool((self._w32 if turn == _WRITE_W32 else self._v32).items)
            free = not self._first or (self._out_requests.room and self._unanswered != _MOST_UNANSWERED)
            goes = there and self._out_words.room and free
        if goes:
            if turn == _WRITE_PACKET:
                address, size = self._packets.items[0]
            else:
                offset, count, _ = self._written.items[0]
                key = "w32_address" if turn == _WRITE_W32 else "v32_address"
                assert self._plan is not None
                address, size = self._plan.item[key] + 4 * offset, 4 * count
            asks = self._first
            after = (-(-size // bus) if self._first else self._run_left) - 1
            ends = after == 0
            self._run_left, self._first = after, ends
            self._out_words.push(True)
            if asks:
                self._out_requests.push((address, size))
            if turn == _WRITE_PACKET:
                if ends:
                    self._packets.pop()
            else:
                (self._w32 if turn == _WRITE_W32 else self._v32).pop()
                if ends and turn == _WRITE_V32:
                    self._written.pop()
        if ends and turn == _WRITE_W32:
            self._turn = _WRITE_V32
        elif ends or not turn:
            if len(self._packets.items) > (turn == _WRITE_PACKET):
                self._turn = _WRITE_PACKET
            elif len(self._written.items) > (turn == _WRITE_V32):
                self._turn = _WRITE_W32
            else:
                self._turn = _NONE
        self._unanswered += asks - answered
