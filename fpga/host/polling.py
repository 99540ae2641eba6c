"""Waiting for the interrupt line by reading it: what a backend without interrupts, or with late ones, does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from ...rtl.registers import register_map

_MAP = register_map()
ISR, IER, GIER = (_MAP.register(name).offset for name in ("isr", "ier", "gier"))
Read32 = Callable[[int], Awaitable[int]]


async def line_is_high(read32: Read32) -> bool:
    """What the interrupt line is, from the registers that make it; reading them changes nothing."""
    return bool(await read32(GIER) & 1 and await read32(ISR) & await read32(IER))


async def wait_by_polling(read32: Read32, timeout_s: float, pause: Callable[[float], None] = time.sleep) -> bool:
    """Until the line is high or the time has passed: True or False.

    Parameters
    ----------
    pause : callable
        Waits so many seconds, or less if it knows that something has happened.
    """
    deadline, step_s = time.monotonic() + timeout_s, 1e-4
    while not await line_is_high(read32):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        pause(min(step_s, left))
        step_s = min(2 * step_s, 0.02)
    return True
