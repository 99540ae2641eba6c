"""Memory behind the ports of a unit, without DMA and bus: every port has a memory of its own that answers at once."""

from __future__ import annotations

from collections import deque
from typing import Any

from ..simulators.bench import Bench


class ReadPort:
    """Answers a :class:`..memory_port.ReadClient` from an image.

    Parameters
    ----------
    port : str
        Name of the client.
    image : bytearray
    latency : int
        Cycles from a request to its first word; words then follow one a cycle.
    """

    def __init__(self, bench: Bench, port: str, image: bytearray, latency: int = 10) -> None:
        self.port, self.image, self.latency = port, image, latency
        self._bits = bench.widths[f"{port}__words__payload"] - 3
        self._words: deque[tuple[int, int]] = deque()
        self._cycle = 0
        self._offered = False
        bench.set(f"{port}__request__ready", 1)

    def drive(self, bench: Bench) -> None:
        """Offer the next word when its time has come."""
        self._offered = bool(self._words) and self._words[0][0] <= self._cycle
        bench.set(f"{self.port}__words__valid", int(self._offered))
        if self._offered:
            bench.set(f"{self.port}__words__payload", self._words[0][1])

    def sample(self, bench: Bench) -> None:
        """Take a request, see a word taken."""
        if self._offered and bench.get(f"{self.port}__words__ready"):
            self._words.popleft()
        if bench.get(f"{self.port}__request__valid"):
            request = bench.get(f"{self.port}__request__payload")
            address, size = request & (1 << 64) - 1, request >> 64
            if address + size > len(self.image) or not size:
                raise RuntimeError(f"{self.port}: read of {size} bytes at {address:#x}")
            data = bytes(self.image[address : address + size])
            step = self._bits // 8
            for at in range(0, size, step):
                last = at + step >= size
                word = int.from_bytes(data[at : at + step], "little") | last << self._bits
                self._words.append((self._cycle + self.latency, word))
        self._cycle += 1


class WritePort:
    """Takes what a :class:`..memory_port.WriteClient` writes; ``latency`` cycles from the last word to ``done``."""

    def __init__(self, bench: Bench, port: str, image: bytearray, latency: int = 10) -> None:
        self.port, self.image, self.latency = port, image, latency
        self._bits = bench.widths[f"{port}__words__payload"]
        self._requests: deque[tuple[int, int]] = deque()
        self._data = b""
        self._done: deque[int] = deque()
        self._cycle = 0
        bench.set(f"{port}__request__ready", 1)
        bench.set(f"{port}__words__ready", 1)

    def drive(self, bench: Bench) -> None:
        """Offer an acknowledgement when its time has come."""
        self._offered = bool(self._done) and self._done[0] <= self._cycle
        bench.set(f"{self.port}__done__valid", int(self._offered))

    def sample(self, bench: Bench) -> None:
        """Take requests and words."""
        if self._offered and bench.get(f"{self.port}__done__ready"):
            self._done.popleft()
        if bench.get(f"{self.port}__request__valid"):
            request = bench.get(f"{self.port}__request__payload")
            address, size = request & (1 << 64) - 1, request >> 64
            if address + size > len(self.image) or not size:
                raise RuntimeError(f"{self.port}: write of {size} bytes at {address:#x}")
            self._requests.append((address, size))
        if bench.get(f"{self.port}__words__valid"):
            self._data += bench.get(f"{self.port}__words__payload").to_bytes(self._bits // 8, "little")
        while self._requests:
            address, size = self._requests[0]
            padded = -(-size * 8 // self._bits) * self._bits // 8
            if len(self._data) < padded:
                break
            self.image[address : address + size] = self._data[:size]
            self._data = self._data[padded:]
            self._requests.popleft()
            self._done.append(self._cycle + self.latency)
        self._cycle += 1


async def run_unit(
    bench: Bench, *, descriptors: list[str], image: str, reads: list[str], writes: list[str], latency: int = 10,
    limit: int = 200_000,
) -> dict[str, Any]:  # fmt: skip
    """Run descriptors one after the other on a unit.

    Parameters
    ----------
    descriptors, image : hexadecimal text
        Little endian bytes of every descriptor; memory before.
    reads, writes : list of str
        The unit's clients.
    limit : int
        Cycles a descriptor may take.

    Returns
    -------
    dict
        ``image``: memory after. ``status``, ``cycles`` of every descriptor, from accepting it to its ``done``.
    """
    memory = bytearray.fromhex(image)
    ports: list[Any] = [ReadPort(bench, name, memory, latency) for name in reads]
    ports += [WritePort(bench, name, memory, latency) for name in writes]
    bench.set("start__valid", 0)
    bench.set("done__ready", 1)
    for port in ports:
        port.drive(bench)
    await bench.reset()
    status, cycles = [], []
    for text in descriptors:
        bench.set("start__payload", int.from_bytes(bytes.fromhex(text), "little"))
        bench.set("start__valid", 1)
        begun, ended = -1, False
        for cycle in range(limit):
            for port in ports:
                port.drive(bench)
            await bench.settle()
            for port in ports:
                port.sample(bench)
            if begun < 0 and bench.get("start__ready"):
                begun = cycle
            ended = bool(bench.get("done__valid"))
            if ended:
                status.append(bench.get("done__payload"))
                cycles.append(cycle - begun)
            await bench.tick()
            if begun >= 0:
                bench.set("start__valid", 0)
            if ended:
                break
        if not ended:
            status.append(-1)
            break
    return {"image": memory.hex(), "status": status, "cycles": cycles}
