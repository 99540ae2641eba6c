"""Drives an array through its ports, on any simulator, and reports what left and when.

Written against the bench interface only: ``set``, ``get``, ``settle`` and ``tick`` of ports by name.
"""

from __future__ import annotations

import random
from typing import Any

from .array_streams import pack
from .simulators.bench import GUARD_CYCLES

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
    strict: bool = True,
    due: list[int] | None = None,
) -> dict[str, Any]:
    """Reset the array, run one sequence, and watch the array for ``GUARD_CYCLES`` more, in which nothing may leave.

    Parameters
    ----------
    bench : Bench
        A design with the ports of :class:`.stce.Stce`.
    commands, west, north, partial, outputs
        See :class:`.array_streams.ArrayStreams`.
    widths : dict
        Bits of a word at ``west``, ``north`` and, unless it is 32, ``sum``: at ``partial`` and ``south``.
    idle : float
        Probability with which each lane of each port has no word, or no room, in a cycle. The payload of a lane without
        a word is random.
    seed : int
        Of those.
    reset_after : int, optional
        Reset the array after this many cycles and run the sequence from its start.
    limit_cycles : int
        A sequence that takes longer has failed.
    strict : bool
        Raise on words too few or too many; otherwise the result has what there was.
    due : list of int, optional
        First cycle after the reset in which each command may be offered.

    Returns
    -------
    dict
        ``south``: words of every column. ``left``: the cycles in which they left. ``cycles``: first word in to last
        word out, inclusive. ``broken``: lanes and cycles in which a word that was offered and not
        taken changed or vanished.
    """
    await bench.reset()
    arguments = (bench, commands, west, north, partial, outputs, widths, idle, seed, due or [0] * len(commands))
    broken = 0
    if reset_after is not None:
        broken += (await _run(*arguments, reset_after)).broken
        await bench.reset()
    found = await _run(*arguments, limit_cycles)
    south = found.words
    if strict and any(len(words) != outputs for words in south):
        counts = f"{min(map(len, south))} to {max(map(len, south))}"
        raise RuntimeError(f"the array gave {counts} words a column, not {outputs}, in {limit_cycles} cycles")
    cycles = found.last - found.first + 1
    return {"south": south, "left": found.left, "cycles": cycles, "broken": broken + found.broken}


class _Lanes:
    """The giving side of lanes of words. A word that was offered stays offered until it is taken."""

    def __init__(self, port: str, width: int, lanes: int, rng: random.Random) -> None:
        self.port, self.width, self._random = port, width, rng
        self.at, self.offered = [0] * lanes, [False] * lanes

    def offer(self, bench: Any, word_of: Any, go: Any) -> None:
        """Set the port; ``word_of(lane, number)`` is the lane's next word or None."""
        words, valid = [], 0
        for lane, number in enumerate(self.at):
            word = word_of(lane, number)
            self.offered[lane] = word is not None and (self.offered[lane] or go())
            valid |= self.offered[lane] << lane
            words.append(word if self.offered[lane] else self._random.getrandbits(self.width))
        bench.set(f"{self.port}__payload", pack(words, self.width))
        bench.set(f"{self.port}__valid", valid)

    def taken(self, bench: Any) -> bool:
        """Count what the array took; whether there was anything."""
        ready = bench.get(f"{self.port}__ready")
        moved = [lane for lane, offered in enumerate(self.offered) if offered and ready >> lane & 1]
        for lane in moved:
            self.at[lane] += 1
            self.offered[lane] = False
        return bool(moved)


class _South:
    """The taking side: words of every column, when they left, and whether the array keeps the rules of a stream."""

    def __init__(self, cols: int, width: int) -> None:
        self.width = width
        self.words: list[list[int]] = [[] for _ in range(cols)]
        self.left: list[list[int]] = [[] for _ in range(cols)]
        self.first, self.last, self.broken = -1, -1, 0
        self._room = 0
        self._waiting: dict[int, int] = {}

    def drive(self, bench: Any, go: Any) -> None:
        """Say which columns have room."""
        self._room = sum(1 << c for c in range(len(self.words)) if go())
        bench.set("south__ready", self._room)

    def sample(self, bench: Any, cycle: int) -> None:
        """Take what there is."""
        valid = bench.get("south__valid")
        payload = bench.get("south__payload") if valid else 0
        mask, columns = (1 << self.width) - 1, range(len(self.words))
        offered = {c: payload >> self.width * c & mask for c in columns if valid >> c & 1}
        self.broken += sum(offered.get(c) != word for c, word in self._waiting.items())
        self._waiting = {c: word for c, word in offered.items() if not self._room >> c & 1}
        for c, word in offered.items():
            if self._room >> c & 1:
                self.words[c].append(word)
                self.left[c].append(cycle)
                self.last = cycle


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
    due: list[int],
    limit_cycles: int,
) -> _South:
    rng, garbage = random.Random(seed), random.Random(f"{seed} garbage")
    cols, width = len(north), widths.get("sum", 32)
    south = _South(cols, width)
    cycle = guard = 0

    def go() -> bool:
        return not idle or rng.random() >= idle

    def known(words: list[list[int]]) -> Any:
        return lambda lane, number: words[lane][number] if number < len(words[lane]) else None

    def tile(_: int, number: int) -> int | None:
        return commands[number] if number < len(commands) and due[number] <= cycle else None

    def buffered(lane: int, number: int) -> int | None:
        if number >= len(partial) or partial[number] >= len(south.left[lane]):
            return None
        source = partial[number]
        return south.words[lane][source] if south.left[lane][source] + BUFFER_CYCLES <= cycle else None

    command = _Lanes("command", bench.widths["command__payload"], 1, garbage)
    inputs = _Lanes("west", widths["west"], len(west), garbage), _Lanes("north", widths["north"], cols, garbage)
    sums = _Lanes("partial", width, cols, garbage)
    while cycle < limit_cycles and guard < GUARD_CYCLES:
        command.offer(bench, tile, go)
        inputs[0].offer(bench, known(west), go)
        inputs[1].offer(bench, known(north), go)
        sums.offer(bench, buffered, go)
        south.drive(bench, go)
        await bench.settle()
        command.taken(bench)
        sums.taken(bench)
        moved = [lanes.taken(bench) for lanes in inputs]
        if any(moved) and south.first < 0:
            south.first = cycle
        south.sample(bench, cycle)
        await bench.tick()
        cycle += 1
        guard += all(len(words) >= outputs for words in south.words)
    return south
