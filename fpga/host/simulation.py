"""The backend that drives a simulated accelerator: registers over AXI4-Lite, memory by the testbench's agent."""

from __future__ import annotations

from typing import Any

from ...models.accelerator import Accelerator
from ...models.memory_timing import MemoryTiming
from ...rtl.simulators.bench import Bench
from ...rtl.testbench.bus import AxiLiteMaster, Line, Loop
from ...rtl.testbench.compiled_memory import CompiledMemory
from ...rtl.testbench.memory import AxiMemory
from .backend import DeviceError

MEMORY_BASE = 0x1_0000_0000
"""Address of the simulated memory: not 0, and beyond 32 bits, so that every address bit is used."""


class SimulationBackend:
    """A :class:`.backend.Backend` on a bench that runs the top with ``s_axi_control``, ``m_axi`` and ``interrupt``.

    Memory is read and written without taking time, as if the host's copies were over.

    Parameters
    ----------
    bench : Bench
    size : int
        Bytes of memory.
    timing : MemoryTiming, SlowedTiming or StallingTiming
        Of the memory.
    clock_mhz : int
        What a second is.
    register_pause : float
        Probability of pauses on the register bus.
    seed : int
        Of those.
    interrupt_cycles : int
        From the interrupt to the host's hearing of it.
    memory_options
        More arguments of AxiMemory: ``faults``, ``late``, ``writable``, ``strict``, ``keep_log``. Without any, the
        deterministic memory of a compiled design is machine code, too, and runs to the interrupt by itself.
    """

    def __init__(
        self, bench: Bench, size: int, timing: Any, clock_mhz: int, *, register_pause: float = 0.0, seed: int = 0,
        interrupt_cycles: int = 0, **memory_options: Any,
    ) -> None:  # fmt: skip
        self.bench, self.clock_mhz, self.interrupt_cycles = bench, clock_mhz, interrupt_cycles
        self.memory: tuple[int, int] = (MEMORY_BASE, size)
        self._alone = not memory_options and CompiledMemory.fits(bench, timing)
        make: Any = CompiledMemory if self._alone else AxiMemory
        self.axi = make(bench, "m_axi", timing, bytearray(size), base=MEMORY_BASE, **memory_options)
        self.bus = AxiLiteMaster(bench, "s_axi_control", register_pause, seed)
        self.line = Line("interrupt")
        self.loop = Loop(bench, [self.axi, self.bus, self.line])

    @classmethod
    def of(cls, bench: Bench, accelerator: Accelerator, size: int, **options: Any) -> SimulationBackend:
        """The backend with the deterministic memory that an accelerator's file describes."""
        return cls(bench, size, MemoryTiming.of(accelerator), accelerator.clock_mhz, **options)

    async def reset(self) -> None:
        """Reset the design and the buses; memory keeps its content."""
        self.axi.reset(self.bench)
        self.bus.reset(self.bench)
        await self.bench.reset()

    async def read32(self, offset: int) -> int:
        return await self.loop.finish(self.bus.read(offset))

    async def write32(self, offset: int, value: int) -> None:
        await self.loop.finish(self.bus.write(offset, value))

    async def read(self, address: int, size: int) -> bytes:
        at = self._place(address, size)
        return bytes(self.axi.image[at : at + size])

    async def write(self, address: int, data: bytes) -> None:
        at = self._place(address, len(data))
        self.axi.image[at : at + len(data)] = data

    def _place(self, address: int, size: int) -> int:
        first, total = self.memory
        if not first <= address <= address + size <= first + total:
            raise DeviceError.rule("device", "address", f"{first:#x} to {first + total:#x}", f"{address:#x} + {size}")
        return address - first

    async def wait_interrupt(self, timeout_s: float) -> bool:
        await self.loop.step()  # first: the line falls a cycle after its cause was cleared
        left = round(timeout_s * self.clock_mhz * 1e6) - 1
        if self._alone and not self.line.high:  # no access is under way
            self.loop.cycle += self.axi.run(max(0, left), self.line.port)
            self.line.sample(self.bench)
        while not self._alone and not self.line.high and left > 0:
            await self.loop.step()
            left -= 1
        if self.line.high:
            for _ in range(self.interrupt_cycles):
                await self.loop.step()
        return self.line.high

    async def close(self) -> None:
        pass
