"""When the memory answers: a cycle-exact definition shared by the RTL's testbench and the cycle model."""

from __future__ import annotations

from collections import deque

from .accelerator import Accelerator


class MemoryTiming:
    """A memory behind an AXI4 port that takes every address at once and answers after a fixed latency.

    * A read burst whose address is taken in cycle t may give its first beat from t + latency on, later beats a cycle
      apart, in order of addresses.
    * A write burst's beats are taken from the cycle after its address was; its response comes ``latency`` cycles after
      its last beat, one a cycle, in order.
    * Beats of both directions share the DRAM's bandwidth: a budget grows by ``dram_mb_s`` a cycle and a beat takes
      ``beat_bytes * clock_mhz`` of it; what is left over when nothing is to be moved is kept up to one beat. When
      the budget is enough for one beat only, reads and writes that wait take turns, reads first.

    A cycle is: look at ``read_valid``, ``write_ready`` and ``response_valid``, then call :meth:`step` with what
    happened on the channels.

    Parameters
    ----------
    beat_bytes, latency_cycles, dram_mb_s, clock_mhz : int
        Those of the accelerator.

    Attributes
    ----------
    read_valid, write_ready, response_valid : bool
        What the memory offers in this cycle; offers of reads and responses stay until taken.
    """

    __slots__ = (
        "_budget", "_cap", "_cost", "_income", "_latency", "_offered", "_read_turn", "_reads", "_responses", "_writes",
        "cycle", "read_valid", "response_valid", "write_ready",
    )  # fmt: skip

    def __init__(self, beat_bytes: int, latency_cycles: int, dram_mb_s: int, clock_mhz: int) -> None:
        self._latency, self._income, self._cost = latency_cycles, dram_mb_s, beat_bytes * clock_mhz
        self._cap = max(self._cost + dram_mb_s - 1, 2 * self._cost if dram_mb_s >= 2 * self._cost else 0)
        self.reset()

    @classmethod
    def of(cls, accelerator: Accelerator) -> MemoryTiming:
        """The memory that an accelerator's file describes."""
        a = accelerator
        return cls(a.axi_data_bits // 8, a.memory_latency_cycles, a.dram_mb_s, a.clock_mhz)

    @property
    def rates(self) -> tuple[int, int, int, int]:
        """Latency in cycles, the budget's growth a cycle, what a beat takes of it, and the most it holds."""
        return self._latency, self._income, self._cost, self._cap

    def reset(self) -> None:
        """Forget every transfer; the budget is full."""
        self.cycle = 0
        self._reads: deque[list[int]] = deque()  # [earliest cycle, beats left]
        self._writes: deque[int] = deque()  # beats left
        self._responses: deque[int] = deque()  # earliest cycle
        self._budget, self._read_turn, self._offered = self._cap, True, False
        self.read_valid = self.write_ready = self.response_valid = False

    @property
    def idle(self) -> bool:
        """No transfer is under way: cycles may pass by :meth:`skip`."""
        return not self._reads and not self._writes and not self._responses

    def step(
        self, read_beats: int, write_beats: int, read_taken: bool, write_taken: bool, response_taken: bool
    ) -> None:
        """End a cycle.

        Parameters
        ----------
        read_beats, write_beats : int
            Of the burst whose address was taken; 0 if none was.
        read_taken, write_taken, response_taken : bool
            Whether a beat or a response was.
        """
        cycle = self.cycle
        reads, writes, responses = self._reads, self._writes, self._responses
        if read_taken:
            self.read_valid = False
            head = reads[0]
            head[1] -= 1
            if not head[1]:
                reads.popleft()
        if self.write_ready:
            self._read_turn = True  # also if no beat came: reads must not wait for one that depends on them
        if write_taken:
            self._budget -= self._cost
            writes[0] -= 1
            if not writes[0]:
                writes.popleft()
                responses.append(cycle + self._latency)
        if response_taken:
            responses.popleft()
        if read_beats:
            reads.append([cycle + self._latency, read_beats])
        if write_beats:
            writes.append(write_beats)
        self.cycle = cycle = cycle + 1
        budget = self._budget + self._income
        self._budget = budget = min(budget, self._cap)
        wants_read = not self.read_valid and bool(reads) and reads[0][0] <= cycle
        wants_write = bool(writes)
        cost = self._cost
        self.write_ready = False
        if wants_read and budget >= cost and (self._read_turn or not wants_write or budget >= 2 * cost):
            self.read_valid = True
            self._budget = budget = budget - cost
            self._read_turn = False
        if wants_write and budget >= cost:
            self.write_ready = True
        self.response_valid = bool(responses) and responses[0] <= cycle

    def skip(self, cycles: int) -> None:
        """Let idle cycles pass."""
        self.cycle += cycles
        self._budget = min(self._cap, self._budget + cycles * self._income)
