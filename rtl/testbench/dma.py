"""Runs of several clients through a DMA into the testbench's memory, checked byte by byte."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from ...models.memory_timing import MemoryTiming
from ..memory_port import MemoryFault
from ..simulators.bench import Bench
from ..simulators.compiled import CompiledBench
from .bus import Loop
from .clients import Reader, Writer
from .compiled_memory import CompiledMemory
from .memory import AxiMemory, StallingTiming

IMAGE_BASE = 0x1_2345_6000


def contents(size: int, seed: int) -> bytearray:
    """A memory's random first content."""
    return bytearray(random.Random(f"image {seed}").randbytes(size))


def data_of(address: int, size: int, number: int) -> bytes:
    """What a test writes: bytes that follow from place and number."""
    return random.Random(f"{address} {size} {number}").randbytes(size)


class Busy:
    """Agent that notes the cycles in which the DMA is not idle."""

    def __init__(self) -> None:
        self.cycles: list[int] = []
        self._cycle = 0

    def drive(self, bench: Bench) -> None:
        pass

    def sample(self, bench: Bench) -> None:
        if not bench.get("idle"):
            self.cycles.append(self._cycle)
        self._cycle += 1


async def dma_runs(
    bench: Bench, *, readers: dict[str, Any], writers: dict[str, Any], size: int, timing: dict[str, Any],
    allowed: Any = None, faults: Any = (), pause: float = 0.0, seed: int = 0, late: bool = False,
    limit: int = 100_000, reset_after: int | None = None, refuse_after: int | None = None, absolute: Any = (),
    compiled: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Carry out runs and compare what was read and what is then in memory.

    Parameters
    ----------
    readers, writers : dict of str to list of (address, bytes)
        Runs of every client, as it would ask for them: before the image base is added.
    size : int
        Bytes of memory from the image base on.
    timing : dict
        Arguments of MemoryTiming or of StallingTiming.
    allowed : (low, high), optional
        Range, as addresses before the base is added; default the whole memory. Bytes outside must not be written.
    faults : list of (kind, low, high, response)
        Addresses before the base is added.
    reset_after : int, optional
        Reset everything after so many cycles and start again.
    refuse_after : int, optional
        Refuse new runs from that cycle on.
    absolute : list of str
        Readers to whose addresses the DMA adds no image base: their runs are.
    compiled : bool
        The memory of :mod:`.compiled_memory`, without the range, faults and log of the other.

    Returns
    -------
    dict
        For every client ``requested_at``, ``word_at`` and (writers) ``done_at`` and ``errors`` of its runs;
        ``differing``: wrong bytes that were read, where the run did not fail; ``digest`` of memory at the end;
        ``cycles``; ``busy``: those in which the DMA was not idle; ``log`` of bursts; ``beats``.
    """
    low, high = allowed or (0, size)
    memory_timing = (StallingTiming if "stall" in timing else MemoryTiming)(**timing)
    image = contents(size, seed)
    memory: Any
    if compiled:
        assert isinstance(bench, CompiledBench)
        assert isinstance(memory_timing, MemoryTiming)
        memory = CompiledMemory(bench, "axi", memory_timing, image, base=IMAGE_BASE)
    else:
        memory = AxiMemory(
            bench, "axi", memory_timing, image, base=IMAGE_BASE, late=late, keep_log=True, strict=True,
            writable=[(IMAGE_BASE + low, IMAGE_BASE + high)],
            faults=[(kind, IMAGE_BASE + first, IMAGE_BASE + end, code) for kind, first, end, code in faults],
        )  # fmt: skip
    bench.set("image_base", IMAGE_BASE)
    bench.set("range_low", IMAGE_BASE + low)
    bench.set("range_high", IMAGE_BASE + high)
    bench.set("refuse", 0)
    clients: dict[str, Any] = {}
    loop, busy = Loop(bench, []), Busy()
    for cycles in ([reset_after] if reset_after is not None else []) + [limit]:
        clients = {name: Reader(bench, f"reader_{name}", runs, pause, seed) for name, runs in readers.items()}
        for name, runs in writers.items():
            given = [(at, data_of(at, count, k)) for k, (at, count) in enumerate(runs)]
            clients[name] = Writer(bench, f"writer_{name}", given, pause, seed)
        busy = Busy()
        loop = Loop(bench, [busy, memory, *clients.values()])
        await bench.reset()
        memory.reset(bench)
        for _ in range(cycles):
            if loop.cycle == refuse_after:
                bench.set("refuse", 1)
            await loop.step()
            if all(client.done for client in clients.values()):
                break
    finished = all(client.done for client in clients.values())
    cycles, not_idle = loop.cycle, list(busy.cycles)
    for _ in range(30):  # nothing may follow
        await loop.step()
    found: dict[str, Any] = {}
    before, differing = contents(size, seed), 0
    for name, client in clients.items():
        found[name] = {
            key: getattr(client, key)
            for key in ("requested_at", "word_at", "done_at", "errors")
            if hasattr(client, key)
        }
        if isinstance(client, Reader):
            found[name]["errors"] = [error for _, error in client.results]
            for (at, _), (data, error) in zip(client.runs, client.results, strict=False):
                if error == MemoryFault.NONE:
                    at -= IMAGE_BASE if name in absolute else 0
                    differing += sum(x != y for x, y in zip(data, before[at : at + len(data)], strict=True))
    log = [] if compiled else memory.log
    return {
        "clients": found, "busy": not_idle, "differing": differing, "cycles": cycles,
        "finished": finished, "idle": bench.get("idle"),
        "digest": hashlib.sha256(image).hexdigest(), "beats": [memory.reads, memory.writes],
        "log": [[cycle, channel, address - IMAGE_BASE, beats] for cycle, channel, address, beats in log],
    }  # fmt: skip


async def dma_cases(bench: Bench, *, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """:func:`dma_runs` on several sets of arguments, one after the other on the same DMA."""
    return [await dma_runs(bench, **case) for case in cases]
