"""Drives an array through its ports, on any simulator, and reports what left and when.

Written against the bench interface only: ``set``, ``get``, ``settle`` and ``tick`` of ports by name.
"""

from __future__ import annotations

import random
from typing import Any

from .array_streams import pack

BUFFER_CYCLES = 2  # the output buffer: one cycle to write, one to read


async def run_array(
    bench: Any,
    *,
    commands: list[int],
    west: list[list[int]],
    north: list[list[int]],
    partial: list[int],
    outputs: int,
    widths: dict[str, int],
    idle: float = 0.0,
    seed: int = 0,
    reset_after: int | None = None,
    limit_cycles: int = 1_000_000,
) -> dict[str, Any]:
    """Reset the array, then run one sequence.

    Parameters
    ----------
    bench : Bench
        A design with the ports of :class:`.stce.Stce`.
    commands, west, north, partial, outputs
        See :class:`.array_streams.ArrayStreams`.
    widths : dict
        Bits of a word at ``west`` and ``north``.
    idle : float
        Probability with which each lane of each port has no word, or no room, in a cycle.
    seed : int
        Of those.
    reset_after : int, optional
        Reset the array after this many cycles and run the sequence from its start.
    limit_cycles : int
        A sequence that takes longer has failed.

    Returns
    -------
    dict
        ``south``: words of every column. ``cycles``: first word in to last word out, inclusive.
    """
    await bench.reset()
    arguments = (bench, commands, west, north, partial, outputs, widths, idle, seed)
    if reset_after is not None:
        await _run(*arguments, reset_after)
        await bench.reset()
    south, cycles = await _run(*arguments, limit_cycles)
    if any(len(words) != outputs for words in south):
        raise RuntimeError(f"the array gave {min(map(len, south))} of {outputs} words in {limit_cycles} cycles")
    return {"south": south, "cycles": cycles}


class _Lanes:
    """The giving side of lanes of words. A word that was offered stays offered until it is taken."""

    def __init__(self, port: str, width: int, lanes: int) -> None:
        self.port, self.width = port, width
        self.at, self.offered = [0] * lanes, [False] * lanes

    def offer(self, bench: Any, word_of: Any, go: Any) -> None:
        """Set the port; ``word_of(lane, number)`` is the lane's next word or None."""
        words = []
        for lane, number in enumerate(self.at):
            word = word_of(lane, number)
            self.offered[lane] = word is not None and (self.offered[lane] or go())
            words.append(word if self.offered[lane] else None)
        payload, valid = pack(words, self.width)
        bench.set(f"{self.port}__payload", payload)
        bench.set(f"{self.port}__valid", valid)

    def taken(self, bench: Any) -> bool:
        """Count what the array took; whether there was anything."""
        ready = bench.get(f"{self.port}__ready")
        moved = [lane for lane, offered in enumerate(self.offered) if offered and ready >> lane & 1]
        for lane in moved:
            self.at[lane] += 1
            self.offered[lane] = False
        return bool(moved)


async def _run(
    bench: Any,
    commands: list[int],
    west: list[list[int]],
    north: list[list[int]],
    partial: list[int],
    outputs: int,
    widths: dict[str, int],
    idle: float,
    seed: int,
    limit_cycles: int,
) -> tuple[list[list[int]], int]:
    rng = random.Random(seed)
    cols = len(north)
    south: list[list[int]] = [[] for _ in range(cols)]
    left: list[list[int]] = [[] for _ in range(cols)]
    first, last, cycle = -1, -1, 0

    def go() -> bool:
        return not idle or rng.random() >= idle

    def known(words: list[list[int]]) -> Any:
        return lambda lane, number: words[lane][number] if number < len(words[lane]) else None

    def buffered(lane: int, number: int) -> int | None:
        if number >= len(partial) or partial[number] >= len(left[lane]):
            return None
        source = partial[number]
        return south[lane][source] if left[lane][source] + BUFFER_CYCLES <= cycle else None

    command = _Lanes("command", 32, 1)
    inputs = _Lanes("west", widths["west"], len(west)), _Lanes("north", widths["north"], cols)
    sums = _Lanes("partial", 32, cols)
    while any(len(words) < outputs for words in south) and cycle < limit_cycles:
        command.offer(bench, known([commands]), go)
        inputs[0].offer(bench, known(west), go)
        inputs[1].offer(bench, known(north), go)
        sums.offer(bench, buffered, go)
        room = sum(1 << c for c in range(cols) if go())
        bench.set("south__ready", room)
        await bench.settle()
        command.taken(bench)
        sums.taken(bench)
        moved = [lanes.taken(bench) for lanes in inputs]
        if any(moved) and first < 0:
            first = cycle
        leaving = bench.get("south__valid") & room
        payload = bench.get("south__payload") if leaving else 0
        for c in range(cols):
            if leaving >> c & 1:
                south[c].append(payload >> 32 * c & 0xFFFFFFFF)
                left[c].append(cycle)
                last = cycle
        await bench.tick()
        cycle += 1
    return south, last - first + 1
