"""Agents for ``amaranth.lib.stream`` ports, and the test body that runs one block between a driver and a monitor.

Agents know a port's name and a :class:`~..simulators.bench.Bench`, nothing else; they work on every simulator, and in a
user's own cocotb test through :class:`~..simulators.cocotb_bench.CocotbBench`. In every cycle call ``drive`` of each
agent, ``await bench.settle()``, ``sample`` of each agent, ``await bench.tick()``.
"""

from __future__ import annotations

import random
from typing import Any

from ..simulators.bench import GUARD_CYCLES, Bench


class StreamDriver:
    """The giving side of a stream. While it has nothing to offer, the payload is random: nothing may depend on it.

    Parameters
    ----------
    bench : Bench
    port : str
        The stream; its signals are ``<port>__payload``, ``__valid`` and ``__ready``.
    words : list of int
        Payloads to send, in order.
    idle : float
        Probability that a word is held back for a cycle.
    seed : int
        Of the pauses and of the payload meanwhile.

    Attributes
    ----------
    accepted_at : list of int
        Cycle in which each word was taken, counted from the first call of ``drive``.
    """

    def __init__(self, bench: Bench, port: str, words: list[int], idle: float = 0.0, seed: int = 0) -> None:
        self.port, self.words, self.idle = port, words, idle
        self.accepted_at: list[int] = []
        self._random = random.Random(f"{seed} {port}")
        self._bits = bench.widths[f"{port}__payload"]
        self._offered, self._cycle = False, -1

    @property
    def done(self) -> bool:
        """Whether every word was taken."""
        return len(self.accepted_at) == len(self.words)

    def drive(self, bench: Bench) -> None:
        """Set valid and payload for this cycle. A word that was offered stays until it is taken."""
        self._cycle += 1
        if not self.done and not self._offered:
            self._offered = not self.idle or self._random.random() >= self.idle
        word = self.words[len(self.accepted_at)] if self._offered else self._random.getrandbits(self._bits)
        bench.set(f"{self.port}__payload", word)
        bench.set(f"{self.port}__valid", int(self._offered))

    def sample(self, bench: Bench) -> None:
        """See whether the word was taken."""
        if self._offered and bench.get(f"{self.port}__ready"):
            self.accepted_at.append(self._cycle)
            self._offered = False


class StreamMonitor:
    """The taking side of a stream.

    Parameters
    ----------
    port : str
    stall : float
        Probability that there is no room in a cycle.
    seed : int
        Of the pauses.

    Attributes
    ----------
    words, left_at : list of int
        What left, and the cycle in which it did.
    broken : int
        Cycles in which a word that was offered and not taken changed or vanished.
    """

    def __init__(self, port: str, stall: float = 0.0, seed: int = 0) -> None:
        self.port, self.stall = port, stall
        self.words: list[int] = []
        self.left_at: list[int] = []
        self.broken = 0
        self._random = random.Random(f"{seed} {port}")
        self._waiting: int | None = None
        self._room, self._cycle = False, -1

    def drive(self, bench: Bench) -> None:
        """Set ready for this cycle."""
        self._cycle += 1
        self._room = not self.stall or self._random.random() >= self.stall
        bench.set(f"{self.port}__ready", int(self._room))

    def sample(self, bench: Bench) -> None:
        """Take a word if there is one, and hold the design to the rules of a stream."""
        valid = bool(bench.get(f"{self.port}__valid"))
        word = bench.get(f"{self.port}__payload") if valid else None
        if self._waiting is not None and word != self._waiting:
            self.broken += 1
        self._waiting = word if valid and not self._room else None
        if word is not None and self._room:
            self.words.append(word)
            self.left_at.append(self._cycle)


async def run_stream(
    bench: Bench,
    *,
    words: list[int],
    expected: int,
    constants: dict[str, int] | None = None,
    idle: float = 0.0,
    stall: float = 0.0,
    seed: int = 0,
    reset_after: int | None = None,
) -> dict[str, Any]:
    """Send words into port ``i`` and collect what leaves port ``o``.

    Parameters
    ----------
    words : list of int
        Payloads.
    expected : int
        Words to wait for; then the block is watched for ``GUARD_CYCLES`` more, in which nothing may leave.
    constants : dict, optional
        Values of the other inputs, set before the reset.
    idle, stall, seed
        Pauses of the driver and the monitor.
    reset_after : int, optional
        Reset the block after this many cycles in the middle of the words, and start again.

    Returns
    -------
    dict
        ``words``; ``cycles``: first word in to last word out, inclusive, as seen at the ports; ``broken``: cycles in
        which the block broke the rules of a stream.
    """
    for port, value in (constants or {}).items():
        bench.set(port, value)
    broken, driver, monitor = 0, StreamDriver(bench, "i", []), StreamMonitor("o")
    for limit in ([] if reset_after is None else [reset_after]) + [2000 + 60 * (len(words) + expected)]:
        await bench.reset()
        driver, monitor = StreamDriver(bench, "i", words, idle, seed), StreamMonitor("o", stall, seed)
        guard = 0
        for _ in range(limit):
            driver.drive(bench)
            monitor.drive(bench)
            await bench.settle()
            driver.sample(bench)
            monitor.sample(bench)
            await bench.tick()
            guard += driver.done and len(monitor.words) >= expected
            if guard == GUARD_CYCLES:
                break
        broken += monitor.broken
    cycles = monitor.left_at[-1] - driver.accepted_at[0] + 1 if monitor.words else 0
    return {"words": monitor.words, "cycles": cycles, "broken": broken}


async def run_streams(bench: Bench, *, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """:func:`run_stream` on several sets of arguments, one after the other on the same block."""
    return [await run_stream(bench, **run) for run in runs]
