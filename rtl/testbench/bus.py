"""The host's end of an AXI4-Lite bus, and the loop that runs agents cycle by cycle."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..simulators.bench import Bench


class Agent(Protocol):
    """Something that sets inputs and looks at outputs, once a cycle each."""

    def drive(self, bench: Bench) -> None:
        """Set inputs for this cycle."""
        ...

    def sample(self, bench: Bench) -> None:
        """Look at the outputs of this cycle."""
        ...


class HangError(RuntimeError):
    """What was waited for did not come."""


class Access:
    """A register access under way: ``done`` and, of a read, ``value``."""

    __slots__ = ("done", "offset", "response", "strobe", "value", "write")

    def __init__(self, write: bool, offset: int, value: int = 0, strobe: int = 15) -> None:
        self.write, self.offset, self.value, self.strobe = write, offset, value, strobe
        self.done, self.response = False, -1


class Loop:
    """A bench and its agents.

    Attributes
    ----------
    cycle : int
        Cycles run so far.
    """

    def __init__(self, bench: Bench, agents: Sequence[Any]) -> None:
        self.bench, self.agents, self.cycle = bench, list(agents), 0

    async def step(self) -> None:
        """One cycle."""
        bench = self.bench
        for agent in self.agents:
            agent.drive(bench)
        await bench.settle()
        for agent in self.agents:
            agent.sample(bench)
        await bench.tick()
        self.cycle += 1

    async def until(self, reached: Callable[[], Any], limit: int, what: str) -> None:
        """Run until ``reached()`` is true; HangError after ``limit`` cycles."""
        for _ in range(limit):
            if reached():
                return
            await self.step()
        if not reached():
            raise HangError(f"{what}: must come within {limit} cycles")

    async def finish(self, access: Access, limit: int = 200) -> int:
        """Run until a register access is answered; its value."""
        kind = "write" if access.write else "read"
        await self.until(lambda: access.done, limit, f"{kind} of {access.offset:#x}")
        return access.value


class Line:
    """Watches an output of one bit; ``high`` is its value in the last cycle."""

    def __init__(self, port: str) -> None:
        self.port, self.high = port, False

    def drive(self, bench: Bench) -> None:
        pass

    def sample(self, bench: Bench) -> None:
        self.high = bool(bench.get(self.port))


class AxiLiteMaster:
    """An AXI4-Lite master: accesses in order, one of each kind at a time, with random pauses if asked for.

    Parameters
    ----------
    bench : Bench
    port : str
        Its signals are ``<port>__awaddr`` and so on.
    pause : float
        Probability, a channel and cycle, of not offering or not taking.
    seed : int
        Of the pauses.

    Raises
    ------
    AssertionError
        From ``sample``: the slave broke a rule of AXI.
    """

    def __init__(self, bench: Bench, port: str, pause: float = 0.0, seed: int = 0) -> None:
        self._p = f"{port}__"
        self.pause, self._random = pause, random.Random(f"{seed} {port}")
        self._writes: deque[Access] = deque()
        self._reads: deque[Access] = deque()
        self._aw = self._w = self._ar = False  # taken, of the access at the head
        self._valid = {"aw": False, "w": False, "ar": False}
        self._ready = {"b": False, "r": False}
        self._waiting: dict[str, int | None] = {"b": None, "r": None}
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            bench.set(self._p + name, 0)

    def write(self, offset: int, value: int, strobe: int = 15) -> Access:
        """Begin a write."""
        self._writes.append(Access(True, offset, value, strobe))
        return self._writes[-1]

    def read(self, offset: int) -> Access:
        """Begin a read."""
        self._reads.append(Access(False, offset))
        return self._reads[-1]

    def reset(self, bench: Bench) -> None:
        """Forget everything under way, as a bus does that is reset."""
        self._writes.clear()
        self._reads.clear()
        self._aw = self._w = self._ar = False
        for channel in self._valid:
            self._offer(bench, channel, False)
        self._waiting = dict.fromkeys(self._waiting)

    def _goes(self) -> bool:
        return not self.pause or self._random.random() >= self.pause

    def drive(self, bench: Bench) -> None:
        if not self._writes and not self._reads:
            return  # whatever was offered has been taken, or it would be waiting for its answer
        p = self._p
        write = self._writes[0] if self._writes else None
        read = self._reads[0] if self._reads else None
        self._offer(bench, "aw", write is not None and not self._aw)
        if write is not None:
            bench.set(p + "awaddr", write.offset)
            bench.set(p + "wdata", write.value)
            bench.set(p + "wstrb", write.strobe)
        self._offer(bench, "w", write is not None and not self._w)
        self._offer(bench, "ar", read is not None and not self._ar)
        if read is not None:
            bench.set(p + "araddr", read.offset)
        for channel in self._ready:
            self._ready[channel] = self._goes()
            bench.set(f"{p}{channel}ready", self._ready[channel])

    def _offer(self, bench: Bench, channel: str, wanted: bool) -> None:
        self._valid[channel] = wanted and (self._valid[channel] or self._goes())
        bench.set(f"{self._p}{channel}valid", self._valid[channel])

    def sample(self, bench: Bench) -> None:
        p = self._p
        taken = {
            channel: valid and bool(bench.get(f"{p}{channel}ready")) for channel, valid in self._valid.items() if valid
        }
        for channel in taken:
            if taken[channel]:
                self._valid[channel] = False
        self._aw |= taken.get("aw", False)
        self._w |= taken.get("w", False)
        self._ar |= taken.get("ar", False)
        self._answer(bench, "b", self._writes, self._aw and self._w)
        self._answer(bench, "r", self._reads, self._ar)

    def _answer(self, bench: Bench, channel: str, accesses: deque[Access], due: bool) -> None:
        """See whether the access at the head is answered."""
        if not accesses and self._waiting[channel] is None:
            return
        p = self._p + channel
        valid = bool(bench.get(p + "valid"))
        answer = (bench.get(p + "resp") << 32 | (bench.get(p + "data") if channel == "r" else 0)) if valid else None
        waited = self._waiting[channel]
        assert waited is None or waited == answer, f"{p}: must stay as offered until it is taken"
        assert not valid or due, f"{p}valid: must not come before address and data were taken"
        self._waiting[channel] = answer if not self._ready[channel] else None
        if answer is not None and self._ready[channel]:
            access = accesses.popleft()
            access.done, access.response = True, answer >> 32
            if channel == "r":
                access.value, self._ar = answer & 0xFFFFFFFF, False
            else:
                self._aw = self._w = False
