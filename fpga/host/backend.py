"""What a driver needs of a card, or of a simulation of one."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from ...models.errors import NmsatError

Result = TypeVar("Result")


class DeviceError(NmsatError):
    """The device did not do what it must: no answer in time, a short transfer, an error code."""


class Backend(Protocol):
    """Registers, memory and the interrupt of one accelerator.

    All methods are coroutines, because in a simulation time passes while they wait. Those of a card return without
    ever suspending, so that :func:`blocking` can run a driver on it without an event loop.
    """

    memory: tuple[int, int]
    """First byte address and size in bytes of the device memory that a driver may use."""

    async def read32(self, offset: int) -> int:
        """The 32-bit register at a byte offset."""
        ...

    async def write32(self, offset: int, value: int) -> None:
        """Write the 32-bit register at a byte offset; it has arrived when this returns."""
        ...

    async def read(self, address: int, size: int) -> bytes:
        """Exactly ``size`` bytes of device memory; DeviceError if fewer come."""
        ...

    async def write(self, address: int, data: bytes) -> None:
        """Write device memory, all of it or DeviceError."""
        ...

    async def wait_interrupt(self, timeout_s: float) -> bool:
        """Wait until the interrupt line is high, at once if it is; False when so much device time has passed.

        A backend without interrupts may poll ``isr``.
        """
        ...

    async def close(self) -> None:
        """Give the device back; further calls are errors."""
        ...


def blocking(work: Awaitable[Result]) -> Result:
    """Run a driver's coroutine on a backend that never suspends, and return its result.

    Raises
    ------
    RuntimeError
        If it suspends: the backend is a simulation and needs its own loop.
    """
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: Any = done.value
        return result
    raise RuntimeError("this backend suspends: await the driver inside its simulation")
