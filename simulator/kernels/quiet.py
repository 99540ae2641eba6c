"""Timings of a quiet core: by CPU time, while no other thread shares the core's width.

A virtual machine's core may be half of a physical one. What runs on the other half slows a kernel by up to half and
stays unseen in CPU time and load, so every timing lies between two of a loop that fills the core's width, and counts
only if both ran at the loop's full speed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ...models.errors import NmsatError
from .wasm import load_wasmtime

_CHAIN = """(func (export "chain") (param $n i32) (result i32) (local $a i32) (loop $l
 (local.set $a (i32.xor (i32.add (local.get $a) (i32.mul (local.get $a) (local.get $n))) (local.get $n)))
 (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (local.get $a))"""
CHAIN_CYCLES = 5  # multiply 3, add 1, exclusive or 1
_SHORT, _LONG = 20_000, 420_000  # turns of the chain: their difference is free of what a call costs
_SUMS, _SUM_ROUNDS, _SUM_TURNS = 8, 6, 20_000
_SLOWER = 1.12  # than one sum a cycle and adder: the loop's own branch included, it had the core to itself
_BUSY = 40  # timings in a row on a busy core before the next one is tried


def _width_text() -> str:
    """Independent sums: as many a cycle as the core has adders or issue slots."""
    names = [f"$s{i}" for i in range(_SUMS)]
    adds = " ".join(f"(local.set {s} (i32.add (local.get {s}) (local.get $n)))" for s in names * _SUM_ROUNDS)
    total = "(local.get $s0)"
    for s in names[1:]:
        total = f"(i32.xor {total} (local.get {s}))"
    variables = " ".join(f"(local {s} i32)" for s in names)
    back = "(br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))"
    return f'(func (export "width") (param $n i32) (result i32) {variables} (loop $l {adds} {back}) {total})'


@dataclass(slots=True)
class Timed:
    """What is timed: ``run(repeat)`` returns CPU seconds; ``seconds`` is the least a run among quiet timings."""

    run: Callable[[int], float]
    repeat: int
    process: int = 0
    seconds: float = float("inf")
    quiet: int = 0


@dataclass(slots=True)
class QuietCore:
    """A core of ``adders`` integer adders, its clock, and what a call from Python costs.

    Raises
    ------
    MissingToolError
        If wasmtime is not installed.
    """

    adders: int
    cores: list[int] = field(default_factory=lambda: sorted(os.sched_getaffinity(0)))
    short: float = 1.0
    long: float = 1.0
    _calls: tuple[Callable[[int], object], ...] = ()

    def __post_init__(self) -> None:
        wasmtime = load_wasmtime()
        engine = wasmtime.Engine()
        store = wasmtime.Store(engine)
        module = wasmtime.Module(engine, f"(module {_CHAIN} {_width_text()})")
        exports = wasmtime.Instance(store, module, []).exports(store)
        self._calls = tuple(lambda n, f=exports[name]: f(store, n) for name in ("chain", "width"))

    def _time(self, which: int, turns: int) -> float:
        self._calls[which](1)  # what a kernel has driven from the caches is Python's affair
        start = time.thread_time()
        self._calls[which](turns)
        return time.thread_time() - start

    def is_quiet(self) -> bool:
        """Whether independent sums run as fast as the core's adders allow."""
        spent = min(self._time(1, _SUM_TURNS) for _ in range(2))  # the first one may start from cold caches
        sums = (spent - self.call_seconds) * self.clock_hz / _SUM_TURNS
        return sums <= _SLOWER * _SUMS * _SUM_ROUNDS / self.adders

    def read_clock(self) -> None:
        """Read the clock and the cost of a call once more; the least times count."""
        self.short = min(self.short, self._time(0, _SHORT))
        self.long = min(self.long, self._time(0, _LONG))

    @property
    def clock_hz(self) -> float:
        """Clock, by a chain of dependent instructions: the least of a long one less the least of a short one."""
        return CHAIN_CYCLES * (_LONG - _SHORT) / (self.long - self.short)

    @property
    def call_seconds(self) -> float:
        """CPU seconds of a call from Python into wasm."""
        return self.short - CHAIN_CYCLES * _SHORT / self.clock_hz

    def measure(self, points: list[Timed], rounds: int, most: int) -> None:
        """Time every point in turn until each has ``rounds`` quiet timings, in at most ``most`` rounds.

        A core that stays busy gives way to the next one this process may use.

        Raises
        ------
        NmsatError
            If a point was never timed on a quiet core.
        """
        mine, at, busy = os.sched_getaffinity(0), 0, 0
        for _ in range(100):
            self.read_clock()
        try:
            for _ in range(most):
                if all(point.quiet >= rounds for point in points):
                    break
                self.read_clock()
                for point in points:
                    point.run(2)  # its data is where one run leaves it, not where another point's has put it
                    before = self.is_quiet()
                    spent = point.run(point.repeat) / point.repeat
                    after = self.is_quiet()
                    if before and after:
                        point.quiet, busy = point.quiet + 1, 0
                        point.seconds = min(point.seconds, spent)
                    else:
                        busy += 1
                    if busy >= _BUSY and len(self.cores) > 1:
                        at, busy = (at + 1) % len(self.cores), 0
                        for process in {0, *(p.process for p in points)}:
                            os.sched_setaffinity(process, {self.cores[at]})
        finally:
            os.sched_setaffinity(0, mine)
        never = sum(not point.quiet for point in points)
        if never:
            raise NmsatError.rule("quiet", "timings", "taken on a quiet core", f"{never} points without one")
