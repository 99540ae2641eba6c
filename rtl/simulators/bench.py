"""What a test body sees of a simulated design, whatever simulates it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

Body = Callable[..., Awaitable[Any]]

GUARD_CYCLES = 20  # a block is watched this long after its last word: nothing more may leave


class Bench(ABC):
    """A design with a clock, one cycle at a time.

    A cycle is: :meth:`set` inputs, ``await settle()``, :meth:`get` outputs, ``await tick()``. Registers change in
    ``tick``. Values are unsigned integers, one a port, named as in the Verilog (``a__payload``). A test body is an
    ``async def body(bench, **arguments)`` at the top level of a module; arguments and result consist of what JSON
    can hold, because some simulators run in a process of their own.
    """

    widths: dict[str, int]
    """Width in bits of every port but the clock, which the bench drives itself."""

    @abstractmethod
    def set(self, port: str, value: int) -> None:
        """Set an input from now on."""

    @abstractmethod
    def get(self, port: str) -> int:
        """An output, as of the last ``settle``."""

    @abstractmethod
    async def settle(self) -> None:
        """Let the inputs work through to the outputs, within the cycle."""

    @abstractmethod
    async def tick(self) -> None:
        """End the cycle with a rising edge of the clock."""

    async def reset(self, cycles: int = 2) -> None:
        """Hold ``rst`` high for some cycles, if the design has it; inputs keep their values."""
        if "rst" in self.widths:
            self.set("rst", 1)
            for _ in range(cycles):
                await self.settle()
                await self.tick()
            self.set("rst", 0)


def finish(body: Awaitable[Any]) -> Any:
    """Run a body whose bench never really waits."""
    steps = body.__await__()
    try:
        next(steps)
    except StopIteration as done:
        return done.value
    raise RuntimeError("a test body may await its bench only")
