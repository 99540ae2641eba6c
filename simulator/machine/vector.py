"""The vector unit in cycles: VECTOR descriptors, equal to the RTL at its ports in every cycle.

The model follows the unit's handshakes (``nmsat.rtl.vector_unit``) with counts in place of values. It covers what is
executed: descriptors that the unit refuses and faults have no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...dataflow.program import Descriptor, Kind, Stage, steps_of
from ...models.accelerator import Accelerator
from ...models.errors import NmsatError
from .memory import WORDS_AHEAD
from .parts import Pipe, Queue

SEGMENT = 64
TAGS = 32
_MOST_UNANSWERED = 255
_SHARE_CYCLES = 6
POOLS = {"maxpool", "avgpool"}
Run = tuple[int, int, int, bool, bool]
"""First element before and behind the pool, elements, whether results leave with it, whether it is its window's second
walk."""


@dataclass(frozen=True, slots=True)
class VectorSizes:
    """What the unit is generated for: bytes of a memory word, elements a cycle, latency of its adders."""

    bus_bytes: int
    lanes: int
    adder_latency: int

    @classmethod
    def of(cls, accelerator: Accelerator) -> VectorSizes:
        """The unit of an accelerator: one port feeds ``bus_bytes / 2`` lanes at most."""
        bus = accelerator.axi_data_bits // 8
        lanes = min(accelerator.vector_lanes, bus // 2)
        return cls(bus, 1 << lanes.bit_length() - 1, accelerator.adder_latency_cycles)


def operands_of(item: Descriptor) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(number, address) of the operands that a pass reads: source, second, gradients; and in a window's second walk."""
    names, forward = steps_of(item["steps"]), item["stage"] == Stage.FF
    added = "add" in names
    last_relu = added and "relu" in names[names.index("add") :]
    scatter, found = scatters(item), []
    pooled = next((place for place, name in enumerate(names) if name in POOLS), len(names))
    if forward or scatter or "relu" in names[:pooled]:
        found.append((0, item["source_address"]))
    if added and (forward or scatter or last_relu):
        found.append((1, item["second_address"]))
    keys = ("gradient_address", "gradient_1_address", "gradient_2_address")
    gradients = [] if forward else [(2 + k, item[key]) for k, key in enumerate(keys[: item["gradients"]])]
    return (found, gradients) if scatter else (found + gradients, [])


def runs_of(item: Descriptor) -> Iterator[Run | None]:
    """What the walk gives cycle by cycle: a run, or None for a place outside the image."""
    images, height, width, channels = (item[name] for name in ("images", "h", "w", "c"))
    if not POOLS & set(steps_of(item["steps"])):
        count = images * height * width * channels
        for start in range(0, count, SEGMENT):
            yield start, start, min(SEGMENT, count - start), True, False
        return
    backward = item["stage"] != Stage.FF
    twice, spread = scatters(item), backward and not scatters(item)
    high, wide, stride, pad = (item[name] for name in ("window_y", "window_x", "stride", "pad"))
    target = 0
    for image in range(images):
        for y in range(-pad, height + pad - high + 1, stride):
            for x in range(-pad, width + pad - wide + 1, stride):
                for start in range(0, channels, SEGMENT):
                    count = min(SEGMENT, channels - start)
                    for second in (False, True)[: 1 + twice]:
                        for place_y in range(y, min(y + high, height)):
                            for place_x in range(x, min(x + wide, width)):
                                if place_y < 0 or place_x < 0:
                                    yield None
                                    continue
                                last = place_y == min(y + high, height) - 1 and place_x == min(x + wide, width) - 1
                                pixel = (image * height + place_y) * width + place_x
                                emit = second if twice else last or spread
                                yield pixel * channels + start, target + start, count, emit, second
                target += channels


def scatters(item: Descriptor) -> bool:
    """Whether a pass is a maximum's backward: windows are walked twice, the largest place is found, then written."""
    return item["stage"] != Stage.FF and "maxpool" in steps_of(item["steps"])


def setup_cycles(item: Descriptor) -> int:
    """From the cycle that takes the descriptor to the one in which the unit begins with it."""
    names = set(steps_of(item["steps"]))
    if not names & POOLS:
        return 12
    if item["stage"] == Stage.FF:
        return 30 + (27 if "avgpool" in names else 0)
    return 58 + max(item["h"] // item["window_y"], item["w"] // item["window_x"])


class PoolModel:
    """The pooling stage: words of the lanes in, words of results out.

    ``word`` and ``room`` are as at the start of the cycle, given what the lanes offer; ``step`` ends it.
    """

    __slots__ = ("_adding", "_lanes", "_mean", "_number", "_on", "_sharing", "places", "results")

    def __init__(self, lanes: int, adder_latency: int) -> None:
        self._lanes, self._number = lanes, 0
        self._on = self._mean = False
        self._adding: deque[bool | None] = deque([None] * (adder_latency + 1))  # whether it is the last place's
        self._sharing: deque[bool] = deque([False] * _SHARE_CYCLES)
        self.places = Queue(TAGS)
        self.results = Queue(max(2, SEGMENT // lanes))

    def begin(self, names: list[str]) -> None:
        """The next descriptor's steps."""
        self._on, self._mean = bool(POOLS & set(names)), "avgpool" in names

    def step(self, offered: bool, ready: bool) -> tuple[bool, bool]:
        """End a cycle: whether the lanes' word was taken, and whether a result left, if the taker is ``ready``."""
        there = offered and bool(self.places.items)
        entered: bool | None = None
        if self._mean:
            taken = False
            if there:
                _, last = self.places.items[0]
                idle = not any(x is not None for x in self._adding) and not any(self._sharing)
                taken = self._number != 0 or (idle and not (last and self.results.items))
                entered = last if taken else None
            left = ready and bool(self.results.items)
            if left:
                self.results.pop()
        else:
            last = there and (not self._on or self.places.items[0][1])
            taken = there and (ready or not last)
            left = taken and last
        if self._sharing.pop():
            self.results.push(True)
        self._sharing.appendleft(self._adding.pop() is True)
        self._adding.appendleft(entered)
        if taken:
            ends = (self._number + 1) * self._lanes >= self.places.items[0][0]
            if ends:
                self.places.pop()
            self._number = 0 if ends else self._number + 1
        return taken, left


class VectorModel:
    """The unit between its two memory ports.

    In every cycle: look at ``room`` and ``done``, set what the controller does (:meth:`start`, ``take_done``), call
    :meth:`step`, then the ports' step.

    Parameters
    ----------
    sizes : VectorSizes
    read, write : port models
        As of :class:`.memory.DmaModel`.

    Attributes
    ----------
    room, done : bool
        A descriptor would be taken; one has been executed.
    """

    def __init__(self, sizes: VectorSizes, read: Any, write: Any) -> None:
        self.sizes, self.read, self.write = sizes, read, write
        words = 2 * SEGMENT // sizes.bus_bytes
        self._slices = sizes.bus_bytes // (2 * sizes.lanes)
        self.room, self.done, self.take_done = True, False, False
        self._given: Descriptor | None = None
        self._waiting: Descriptor | None = None  # while it is checked
        self._item: Descriptor | None = None
        self._setup = 0
        self._state = "IDLE"
        self._used: tuple[list[tuple[int, int]], ...] = ([], [])
        self._phase = self._given_words = self._inside = 0
        self._walk: Iterator[Run | None] = iter(())
        self._walking, self._run = False, None
        self._pool = PoolModel(sizes.lanes, sizes.adder_latency)
        self._requests, self._order = Queue(2), Queue(TAGS)
        self._counts, self._tags = Queue(TAGS), Queue(TAGS)
        self._operands = [Queue(2 * words) for _ in range(5)]
        self._lanes = Pipe(2 * sizes.adder_latency + 4)
        self._joined = self._collected = 0
        self._runs, self._results = Queue(2), Queue(2 * words)
        self._out_requests, self._out_words = Queue(2), Queue(WORDS_AHEAD)
        self._first, self._run_left, self._unanswered = True, 0, 0
        self._queues = (
            self._requests, self._order, self._counts, self._tags, *self._operands, self._runs, self._results,
            self._pool.places, self._pool.results,
            self._out_requests, self._out_words,
        )  # fmt: skip

    def start(self, item: Descriptor) -> None:
        """Give a descriptor in this cycle; only if there is ``room``."""
        names, known = set(steps_of(item["steps"])), {"relu", "add"} | POOLS
        if item.kind is not Kind.VECTOR or not names <= known:
            raise NmsatError.rule("vector model", "descriptor", f"VECTOR, of {sorted(known)}", sorted(names))
        self._given = item

    def step(self) -> None:
        """End the cycle."""
        if self._item is not None:
            working = bool(self._walking or self._inside or self._runs.items or self._unanswered)
            self._inside += self._ask() - self._compute()
            self._take()
            self._give()
            for queue in self._queues:
                queue.step()
            self._lanes.step()
            self._control(working)
        elif self._setup:
            self._setup -= 1
            if not self._setup:
                self._item, self._waiting, self._state = self._waiting, None, "BEGIN"
        if self._given is not None:
            self._waiting, self._given, self._setup = self._given, None, setup_cycles(self._given) - 1
        self.room = self._item is None and not self._setup
        self.done, self.take_done = self._state == "DONE", False

    def _control(self, working: bool) -> None:
        item, state = self._item, self._state
        assert item is not None
        if state == "BEGIN":
            self._used = operands_of(item)
            self._phase, self._walk = 0, runs_of(item)
            self._advance()
            self._pool.begin(steps_of(item["steps"]))
            self._state = "RUN"
        elif state == "RUN" and not working:
            self._state = "DONE"
        elif state == "DONE" and self.take_done:
            self._state, self._item = "IDLE", None

    def _ask(self) -> bool:
        """A request for a run of an operand; whether it was the last one of these elements."""
        if self._requests.items and self.read.room:
            self.read.ask(*self._requests.pop())
        queues = (self._requests, self._order, self._counts, self._pool.places, self._tags)
        if not self._walking:
            return False
        if self._run is None:
            self._advance()
            return False
        if not all(queue.room for queue in queues):
            return False
        offset, target, count, emit, second = self._run
        operand, address = self._used[second][self._phase]
        self._requests.push((address + 2 * (target if operand >= 2 else offset), 2 * count))
        self._order.push((operand, -(-2 * count // self.sizes.bus_bytes)))
        last = self._phase == len(self._used[second]) - 1
        self._phase = 0 if last else self._phase + 1
        if not last:
            return False
        assert self._item is not None
        self._counts.push((count, second))
        self._pool.places.push((count, emit))
        if emit:
            self._tags.push((target if self._item["stage"] == Stage.FF else offset, count))
        self._advance()
        return emit

    def _advance(self) -> None:
        """The walk's next cycle."""
        try:
            self._run = next(self._walk)
            self._walking = True
        except StopIteration:
            self._walking = False

    def _take(self) -> None:
        """A word from memory."""
        if not self.read.word or not self._order.items:
            return
        operand, words = self._order.items[0]
        if self._operands[operand].room:
            self.read.take = True
            self._operands[operand].push(True)
            self._given_words += 1
            if self._given_words == words:
                self._given_words = 0
                self._order.pop()

    def _compute(self) -> bool:
        """Operands into the lanes, results out of them; whether a run's last result left."""
        lanes, slices, ended = self.sizes.lanes, self._slices, False
        count, second = self._counts.items[0] if self._counts.items else (0, False)
        operands = [self._operands[number] for number, _ in self._used[second]]
        if count and self._lanes.ready and all(queue.items for queue in operands):
            last = (self._joined + 1) * lanes >= count
            if last or self._joined % slices == slices - 1:
                for queue in operands:
                    queue.pop()
            if last:
                self._counts.pop()
            self._joined = 0 if last else self._joined + 1
            self._lanes.push(True)
        room = bool(self._tags.items) and self._runs.room and self._results.room
        taken, left = self._pool.step(self._lanes.word is not None, room)
        if taken:
            self._lanes.pop()
        if left:
            ended = (self._collected + 1) * lanes >= self._tags.items[0][1]
            if ended or self._collected % slices == slices - 1:
                self._results.push(True)
            if ended:
                self._runs.push(self._tags.pop())
            self._collected = 0 if ended else self._collected + 1
        return ended

    def _give(self) -> None:
        """Runs to memory."""
        port = self.write
        if self._out_requests.items and port.room:
            port.ask(*self._out_requests.pop())
        if self._out_words.items:
            port.give = True
            if port.word_room:
                self._out_words.pop()
        answered = port.done
        port.take_done = True
        asks = False
        free = not self._first or (self._out_requests.room and self._unanswered != _MOST_UNANSWERED)
        if self._runs.items and self._results.items and self._out_words.room and free:
            assert self._item is not None
            offset, count = self._runs.items[0]
            asks = self._first
            after = (-(-2 * count // self.sizes.bus_bytes) if asks else self._run_left) - 1
            self._out_words.push(self._results.pop())
            if asks:
                self._out_requests.push((self._item["target_address"] + 2 * offset, 2 * count))
            if not after:
                self._runs.pop()
            self._run_left, self._first = after, not after
        self._unanswered += asks - answered
