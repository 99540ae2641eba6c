"""The memory system in cycles: the RTL's DMA, register by register, on the testbench's memory.

Nothing is moved, only counted: equal to the RTL at the clients' ports in every cycle (tests/test_machine_memory.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ...models.accelerator import Accelerator
from ...models.memory_timing import MemoryTiming

QUEUE = 4
"""Requests that a port takes ahead of the one it cuts."""
WORDS_AHEAD = 8
"""Words that a writing unit keeps ready."""
_TOP = 1 << 64


class _Splitter:
    """Requests to bursts: queue, located run, run being cut. A run is (first address, bytes, refused)."""

    __slots__ = (
        "absolute",
        "beat",
        "beat_bytes",
        "burst_beats",
        "cuts",
        "cutting",
        "left",
        "located",
        "queue",
        "refused",
        "run",
        "settings",
        "waiting_runs",
    )

    def __init__(
        self, beat_bytes: int, burst_beats: int, settings: _Settings, absolute: bool, waiting_runs: int
    ) -> None:
        self.beat_bytes, self.burst_beats, self.settings, self.absolute = beat_bytes, burst_beats, settings, absolute
        self.waiting_runs = waiting_runs
        self.queue: deque[tuple[int, int]] = deque()
        self.cuts: deque[tuple[int, int, bool]] = deque()  # first beat, beats, refused
        self.located: tuple[int, int] | None = None
        self.cutting = self.refused = False
        self.beat = self.left = 0

    @property
    def idle(self) -> bool:
        return not self.cutting and not self.cuts and self.located is None and not self.queue

    def length(self) -> int:
        """Beats of the burst at hand."""
        room = self.burst_beats - self.beat % self.burst_beats
        return min(self.left, room)

    def step(
        self, asked: tuple[int, int] | None, granted: int, dropped: bool, run_room: bool
    ) -> tuple[int, int, bool, bool] | None:
        """End a cycle; the run that moved to the shifter, if one did: (offset, words, extra, refused)."""
        moved = None
        free = not self.cutting or (self.refused and dropped) or (granted and granted == self.left)
        if granted:
            self.beat += granted
            self.left -= granted
        ahead = len(self.cuts) < self.waiting_runs if self.waiting_runs else free
        leaves = self.located is not None and ahead and run_room
        cut = self.cuts.popleft() if free and self.cuts else None
        if leaves:
            assert self.located is not None
            first, size = self.located
            settings, beat_bytes = self.settings, self.beat_bytes
            beats = -(-(first % beat_bytes + size) // beat_bytes)
            words = -(-size // beat_bytes)
            refused = (
                settings.refuse or first >= _TOP or not size or first < settings.low or first + size > settings.high
            )
            moved = (first % beat_bytes, words, beats != words, refused)
            if self.waiting_runs:
                self.cuts.append((first // beat_bytes, beats, refused))
            else:
                cut = first // beat_bytes, beats, refused
        if free:
            self.cutting, self.refused = cut is not None, False
        if cut is not None:
            self.beat, self.left, self.refused = cut
        if self.located is None or leaves:
            if self.queue:
                address, size = self.queue.popleft()
                self.located = (address if self.absolute else address + self.settings.base, size)
            else:
                self.located = None
        if asked is not None:
            self.queue.append(asked)
        return moved


class _Settings:
    """What all ports share: image base and allowed range, as the registers say."""

    __slots__ = ("base", "high", "low", "refuse")

    def __init__(self, base: int, low: int, high: int) -> None:
        self.base, self.low, self.high, self.refuse = base, low, high, False


class ReadPortModel:
    """A read port at the start of a cycle.

    Attributes
    ----------
    room : bool
        A request would be taken.
    word : int
        0: no word waits; 1: one does; 2: a run's last.
    take : bool
        Set it: the word is taken in this cycle. Cleared by every step.
    """

    __slots__ = (
        "_asked", "_begun", "_buffer", "_depth", "_inner", "_left", "_outer", "_runs", "_splitter", "active",
        "room", "take", "word",
    )  # fmt: skip

    def __init__(self, splitter: _Splitter, buffer_beats: int, queued_runs: int) -> None:
        self._splitter, self._buffer, self._depth = splitter, buffer_beats, queued_runs
        self._runs: deque[tuple[int, int, bool, bool]] = deque()
        self._asked: tuple[int, int] | None = None
        self._begun, self._left = False, 0
        self._inner, self._outer = 0, False
        self.room, self.word, self.take, self.active = True, 0, False, False

    def ask(self, address: int, size: int) -> None:
        """Give a request in this cycle; only if there is ``room``."""
        self._asked, self.active = (address, size), True

    @property
    def idle(self) -> bool:
        """As the hardware's: no run is under way and no word waits."""
        return self._splitter.idle and not self._runs and not self.word

    @property
    def silent(self) -> bool:
        """No burst can be asked for until words are taken."""
        splitter = self._splitter
        full = splitter.cutting and not splitter.refused and not self.burst()
        return splitter.idle or (full and (splitter.located is not None or not splitter.queue))

    def burst(self) -> int:
        """Beats of the burst that is offered, 0 if none is."""
        splitter = self._splitter
        if not splitter.cutting or splitter.refused:
            return 0
        length = splitter.length()
        return length if self._buffer >= length else 0

    def step(self, granted: int, beat: bool) -> None:
        """End a cycle: beats of the burst that was granted, whether a beat came."""
        runs, popped, finished = self._runs, False, False
        word = self.word
        if word and self.take:
            word = 0
        if runs and not word:
            offset, words, extra, refused = runs[0]
            begun, left = self._begun, self._left
            tail = begun and left == 1 and not extra and offset != 0
            if self._outer or tail or refused:
                direct = offset == 0 or (words == 1 and not extra)
                last = refused or (left == 1 if begun else direct and words == 1)
                emits = begun or direct or refused
                popped = not tail and not refused
                finished = emits and last
                word = (2 if last else 1) if emits else 0
                self._begun = not finished
                self._left = left - 1 if begun else words - direct
        if self._inner and (not self._outer or popped):
            self._inner -= 1
            self._outer = True
        elif popped:
            self._outer = False
        self._inner += beat
        run_room = len(runs) < self._depth
        if finished:
            runs.popleft()
        self._buffer += popped - granted
        moved = self._splitter.step(self._asked, granted, True, run_room)
        if moved is not None:
            runs.append(moved)
        self._asked, self.take, self.word = None, False, word
        self.room = len(self._splitter.queue) < QUEUE
        self.active = not self.idle


class WritePortModel:
    """A write port at the start of a cycle.

    Attributes
    ----------
    room, word_room : bool
        A request, a word would be taken.
    done : bool
        A run's ``done`` waits.
    give, take_done : bool
        Set them: a word is offered, the ``done`` is taken in this cycle. Cleared by every step. A word that is offered
        without ``word_room`` is not taken.
    """

    __slots__ = (
        "_asked", "_begun", "_depth", "_dones", "_dropped", "_in_flight", "_inner", "_left", "_made", "_outer", "_room",
        "_runs", "_splitter", "_under_way", "_waiting", "active", "done", "give", "room", "take_done", "word_room",
    )  # fmt: skip

    def __init__(self, splitter: _Splitter, buffer_beats: int, queued_runs: int) -> None:
        self._splitter, self._room, self._depth = splitter, buffer_beats, queued_runs
        self._runs: deque[tuple[int, int, bool, bool]] = deque()
        self._asked: tuple[int, int] | None = None
        self._begun = self._made = self._outer = False
        self._left = self._inner = self._dones = self._dropped = self._in_flight = self._under_way = self._waiting = 0
        self.room, self.word_room, self.done, self.give, self.take_done = True, False, False, False, False
        self.active = False

    def ask(self, address: int, size: int) -> None:
        """Give a request in this cycle; only if there is ``room``."""
        self._asked, self.active = (address, size), True

    @property
    def idle(self) -> bool:
        """As the hardware's: no run is under way and every ``done`` is taken."""
        return self._splitter.idle and not self._under_way

    @property
    def beat(self) -> bool:
        """A beat may be sent."""
        return self._outer

    @property
    def silent(self) -> bool:
        """No run has bursts that are still to be asked for."""
        return self._splitter.idle

    def burst(self) -> int:
        """Beats of the burst that is offered, 0 if none is."""
        splitter = self._splitter
        if not splitter.cutting or splitter.refused:
            return 0
        length = splitter.length()
        return length if self._waiting >= length else 0

    def last(self, length: int) -> bool:
        """Whether a burst of this length ends its run."""
        return length == self._splitter.left

    def step(self, granted: int, sent: bool, answered: bool, run_ends: bool) -> None:
        """End a cycle: beats granted, whether a beat was sent, a response came, and ended its run."""
        runs, splitter = self._runs, self._splitter
        makes = finished = drops = False
        if runs:
            _, words, extra, refused = runs[0]
            rest = self._left if self._begun else words
            if (self.give and self.word_room) if rest else self._room > 0:
                last = rest <= 1 if refused else (rest == 0 if extra else rest == 1)
                finished, makes = last, not refused
                drops = last and refused
                self._begun, self._left = not last, rest - (rest != 0)
        refusal = splitter.refused and self._dropped > 0 and self._in_flight == 0
        run_room = len(runs) < QUEUE and self._under_way != self._depth
        taken = self.done and self.take_done
        if self._inner and (not self._outer or sent):
            self._inner -= 1
            self._outer = True
        elif sent:
            self._outer = False
        self._inner += self._made
        self._waiting += self._made - granted
        self._made = makes
        self._room += sent - makes
        self._dones += ((answered and run_ends) or refusal) - taken
        self._in_flight += (granted > 0) - answered
        self._dropped += drops - refusal
        moved = splitter.step(self._asked, granted, refusal, run_room)
        if finished:
            runs.popleft()
        if moved is not None:
            runs.append(moved)
        self._under_way += (moved is not None) - taken
        self._asked, self.give, self.take_done = None, False, False
        self.room = len(splitter.queue) < QUEUE
        self.done = self._dones > 0
        self.word_room = False
        if runs:
            _, words, _, refused = runs[0]
            self.word_room = (self._left if self._begun else words) != 0 and (refused or self._room > 0)
        self.active = not self.idle


class _Turns:
    """Who is served: the first port in turn that asks."""

    __slots__ = ("first", "ports")

    def __init__(self, ports: int) -> None:
        self.ports, self.first = ports, 0

    def grant(self, bursts: list[int]) -> int:
        """The port served, given the beats each asks for; -1 if none asks."""
        for k in range(self.ports):
            port = (self.first + k) % self.ports
            if bursts[port]:
                self.first = (port + 1) % self.ports
                return port
        return -1


class DmaModel:
    """All ports of a DMA on the deterministic memory.

    In every cycle: look at the ports, give them what the clients do, then :meth:`step`.

    Parameters
    ----------
    readers, writers : sequences of str
        Clients, in the order of the RTL's.
    beat_bytes, outstanding, outstanding_writes, burst_beats : int
        ``outstanding_writes``: as many as reads by default.
    timing : MemoryTiming
    image_base, range_low, range_high : int
    absolute : sequence of str
        Clients without image base.

    Attributes
    ----------
    readers, writers : dict of str to port
    cycle : int
        Cycles since the reset.
    """

    def __init__(
        self, *, readers: Sequence[str], writers: Sequence[str], beat_bytes: int, outstanding: int, burst_beats: int,
        timing: MemoryTiming, outstanding_writes: int | None = None, image_base: int = 0, range_low: int = 0,
        range_high: int = _TOP - 1, absolute: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._settings = _Settings(image_base, range_low, range_high)
        self._timing, self._outstanding = timing, outstanding
        self._outstanding_writes = outstanding if outstanding_writes is None else outstanding_writes

        def splitter(name: str, waiting_runs: int) -> _Splitter:
            return _Splitter(beat_bytes, burst_beats, self._settings, name in absolute, waiting_runs)

        self.readers = {
            name: ReadPortModel(splitter(name, 0), max(4, outstanding * burst_beats), outstanding + QUEUE)
            for name in readers
        }
        self.writers = {
            name: WritePortModel(splitter(name, QUEUE), max(4, 4 * burst_beats), self._outstanding_writes + QUEUE)
            for name in writers
        }
        self._reads, self._writes = list(self.readers.values()), list(self.writers.values())
        self._read_turns, self._write_turns = _Turns(len(readers)), _Turns(len(writers))
        self._ar = self._aw = 0  # beats of the burst on the address channel
        self._read_order: deque[list[int]] = deque()  # [port, beats to come]
        self._jobs: deque[list[int]] = deque()  # [port, beats to send]
        self._write_order: deque[tuple[int, bool]] = deque()
        self._w = False  # a beat is on the write data channel
        self.cycle = 0

    @classmethod
    def of(
        cls, accelerator: Accelerator, readers: Sequence[str], writers: Sequence[str], absolute: Sequence[str] = (),
        image_base: int = 0,
    ) -> DmaModel:  # fmt: skip
        """The DMA of an accelerator, on the memory that its file describes."""
        beat_bytes = accelerator.axi_data_bits // 8
        return cls(
            readers=readers, writers=writers, absolute=absolute, beat_bytes=beat_bytes, image_base=image_base,
            outstanding=accelerator.axi_outstanding, outstanding_writes=accelerator.axi_outstanding_writes,
            burst_beats=min(16, 1024 // beat_bytes),
            timing=MemoryTiming.of(accelerator),
        )  # fmt: skip

    @property
    def idle(self) -> bool:
        """As the hardware's ``idle``: nothing is queued, in flight or waiting to be taken."""
        return (
            not self._read_order and not self._write_order
            and all(port.idle for port in self._reads) and all(port.idle for port in self._writes)
        )  # fmt: skip

    @property
    def silent(self) -> bool:
        """Nothing moves unless a client gives or takes something."""
        ports = (*self._reads, *self._writes)
        return not self._read_order and not self._write_order and all(port.silent for port in ports)

    def refuse(self, on: bool) -> None:
        """The hardware's input ``refuse``, from this cycle on."""
        self._settings.refuse = on

    def step(self) -> None:
        """End the cycle."""
        timing = self._timing
        read_grant = write_grant = -1
        granted = 0
        # reads
        beat_port = -1
        read_taken = timing.read_valid
        read_active = read_taken or self._ar or any(port.active for port in self._reads)
        ar, self._ar = self._ar, 0
        if read_active:
            if len(self._read_order) < self._outstanding:
                bursts = [port.burst() for port in self._reads]
                read_grant = self._read_turns.grant(bursts)
                granted = bursts[read_grant] if read_grant >= 0 else 0
            if read_taken:
                head = self._read_order[0]
                beat_port = head[0]
                head[1] -= 1
                if not head[1]:
                    self._read_order.popleft()
            for place, port in enumerate(self._reads):
                if port.active or place == beat_port:
                    port.step(granted if place == read_grant else 0, place == beat_port)
            if read_grant >= 0:
                self._ar = granted
                self._read_order.append([read_grant, granted])
        # writes
        aw, self._aw = self._aw, 0
        write_taken = self._w and timing.write_ready
        answered = timing.response_valid
        if self._write_order or aw or any(port.active for port in self._writes):
            granted, ends = 0, False
            if len(self._write_order) < self._outstanding_writes:
                bursts = [port.burst() for port in self._writes]
                write_grant = self._write_turns.grant(bursts)
                if write_grant >= 0:
                    granted = bursts[write_grant]
                    ends = self._writes[write_grant].last(granted)
            sender = -1
            if self._jobs and (not self._w or timing.write_ready):
                job = self._jobs[0]
                if self._writes[job[0]].beat:
                    sender = job[0]
                    job[1] -= 1
                    if not job[1]:
                        self._jobs.popleft()
            self._w = sender >= 0 or (self._w and not write_taken)
            answer_port, run_ends = self._write_order.popleft() if answered else (-1, False)
            for place, port in enumerate(self._writes):
                if port.active:
                    port.step(granted if place == write_grant else 0, place == sender, place == answer_port, run_ends)
            if write_grant >= 0:
                self._aw = granted
                self._jobs.append([write_grant, granted])
                self._write_order.append((write_grant, ends))
        timing.step(ar, aw, read_taken, write_taken, answered)
        self.cycle += 1
