"""Clients of memory ports: they ask for runs of bytes, give or take words, and note when."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from ..memory_port import MemoryFault
from ..simulators.bench import Bench


class _Client:
    """What both kinds share: offering requests, one after the other, with random pauses."""

    def __init__(self, bench: Bench, port: str, runs: Any, pause: float, seed: int) -> None:
        self.runs: list[tuple[int, int]] = [tuple(run) for run in runs]
        self.pause, self._random = pause, random.Random(f"{seed} {port}")
        self._p, self.cycle = f"{port}__", 0
        self.requested_at: list[int] = []
        self._offered = False
        bench.set(self._p + "request__valid", 0)

    def _goes(self) -> bool:
        return not self.pause or self._random.random() >= self.pause

    def _drive_request(self, bench: Bench) -> None:
        place = len(self.requested_at)
        if place < len(self.runs) and (self._offered or self._goes()):
            address, size = self.runs[place]
            bench.set(self._p + "request__payload", size << 64 | address)
            bench.set(self._p + "request__valid", 1)
            self._offered = True
        else:
            bench.set(self._p + "request__valid", 0)

    def _sample_request(self, bench: Bench) -> None:
        if self._offered and bench.get(self._p + "request__ready"):
            self.requested_at.append(self.cycle)
            self._offered = False


class Reader(_Client):
    """A reading client.

    Parameters
    ----------
    bench : Bench
    port : str
        The :class:`..memory_port.ReadClient`.
    runs : sequence of (address, bytes)
    pause : float
        Probability of not asking, or not taking, in a cycle.

    Attributes
    ----------
    results : list of (bytes, error)
        Of every run that has ended.
    requested_at, word_at : list of int
        Cycle in which each request or word was taken.

    Raises
    ------
    AssertionError
        From ``sample``: a word changed while it waited, or came for no run.
    """

    def __init__(self, bench: Bench, port: str, runs: Any, pause: float = 0.0, seed: int = 0) -> None:
        super().__init__(bench, port, runs, pause, seed)
        self._bits = bench.widths[self._p + "words__payload"] - 3
        self.results: list[tuple[bytes, int]] = []
        self.word_at: list[int] = []
        self._words: list[bytes] = []
        self._ready, self._waiting = False, None

    @property
    def done(self) -> bool:
        """Every run has ended."""
        return len(self.results) == len(self.runs)

    def drive(self, bench: Bench) -> None:
        self._drive_request(bench)
        self._ready = self._goes()
        bench.set(self._p + "words__ready", int(self._ready))

    def sample(self, bench: Bench) -> None:
        self._sample_request(bench)
        word = bench.get(self._p + "words__payload") if bench.get(self._p + "words__valid") else None
        assert self._waiting is None or word == self._waiting, f"{self._p}words: must stay as offered"
        self._waiting = None if self._ready else word
        if word is not None and self._ready:
            self.word_at.append(self.cycle)
            self._take(word)
        self.cycle += 1

    def _take(self, word: int) -> None:
        assert len(self.results) < len(self.requested_at), f"{self._p}words: must belong to a run"
        bits = self._bits
        error = word >> bits + 1
        self._words.append((word & (1 << bits) - 1).to_bytes(bits // 8, "little"))
        if word >> bits & 1:
            _, size = self.runs[len(self.results)]
            expected = 1 if error == MemoryFault.RANGE else -(-size * 8 // bits)
            assert len(self._words) == expected, f"{self._p}words: must be {expected}, not {len(self._words)}"
            self.results.append((b"".join(self._words)[:size], error))
            self._words = []


class Writer(_Client):
    """A writing client; bytes after a run's last are random.

    Parameters
    ----------
    runs : sequence of (address, bytes of data)

    Attributes
    ----------
    errors : list of int
        Of every run that is done.
    requested_at, word_at, done_at : list of int
        Cycle in which each request, word or done was taken.
    """

    def __init__(self, bench: Bench, port: str, runs: Any, pause: float = 0.0, seed: int = 0) -> None:
        super().__init__(bench, port, [(address, len(data)) for address, data in runs], pause, seed)
        size = bench.widths[self._p + "words__payload"] // 8
        self._words: deque[int] = deque()
        for _, data in runs:
            for k in range(0, len(data), size):
                piece = data[k : k + size]
                self._words.append(int.from_bytes(piece + self._random.randbytes(size - len(piece)), "little"))
        self.errors: list[int] = []
        self.word_at: list[int] = []
        self.done_at: list[int] = []
        self._valid = self._ready = False

    @property
    def done(self) -> bool:
        """Every run is done."""
        return len(self.errors) == len(self.runs)

    def drive(self, bench: Bench) -> None:
        self._drive_request(bench)
        self._valid = bool(self._words) and (self._valid or self._goes())
        if self._valid:
            bench.set(self._p + "words__payload", self._words[0])
        bench.set(self._p + "words__valid", int(self._valid))
        self._ready = self._goes()
        bench.set(self._p + "done__ready", int(self._ready))

    def sample(self, bench: Bench) -> None:
        self._sample_request(bench)
        if self._valid and bench.get(self._p + "words__ready"):
            self._words.popleft()
            self.word_at.append(self.cycle)
            self._valid = False
        if self._ready and bench.get(self._p + "done__valid"):
            assert len(self.errors) < len(self.requested_at), f"{self._p}done: must belong to a run"
            self.errors.append(bench.get(self._p + "done__payload"))
            self.done_at.append(self.cycle)
        self.cycle += 1
