"""A memory behind an AXI4 port: deterministic or stalling at random, failing where told, and strict about the rules."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from ...models.accelerator import Accelerator
from ...models.memory_timing import MemoryTiming
from ..axi import PAGE_BYTES, Response
from ..simulators.bench import Bench


class ProtocolError(AssertionError):
    """A master broke a rule of AXI4, or of this project's masters."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Accesses that fail.

    Attributes
    ----------
    kind : str
        ``read`` or ``write``.
    low, high : int
        Addresses of the beats, high excluded.
    response : int
        SLVERR or DECERR.
    """

    kind: str
    low: int
    high: int
    response: int


class StallingTiming:
    """In place of :class:`MemoryTiming`: every channel pauses at random, latencies differ from burst to burst.

    Parameters
    ----------
    stall : float
        Probability, a channel and cycle, of a pause.
    latency_cycles : int
        Largest latency.
    seed : int
    """

    def __init__(self, stall: float, latency_cycles: int, seed: int) -> None:
        self.stall, self.latency_cycles, self._seed = stall, latency_cycles, seed
        self.reset()

    def reset(self) -> None:
        self._random = random.Random(self._seed)
        self.cycle = 0
        self._reads: deque[list[int]] = deque()
        self._responses: deque[int] = deque()
        self._sizes: deque[int] = deque()  # of write bursts whose data has not come
        self._early = 0  # write beats beyond the known bursts
        self.read_valid = self.response_valid = False
        self.read_address_ready = self.write_address_ready = self.write_ready = self._goes()

    def _goes(self) -> bool:
        return self._random.random() >= self.stall

    def _due(self) -> int:
        return self.cycle + self._random.randint(1, self.latency_cycles)

    def step(
        self, read_beats: int, write_beats: int, read_taken: bool, write_taken: bool, response_taken: bool
    ) -> None:
        if read_taken:
            self._reads[0][1] -= 1
            if not self._reads[0][1]:
                self._reads.popleft()
        if response_taken:
            self._responses.popleft()
        if read_beats:
            self._reads.append([self._due(), read_beats])
        if write_beats:
            self._sizes.append(write_beats)
        self._early += write_taken
        while self._sizes and self._early >= self._sizes[0]:
            self._early -= self._sizes.popleft()
            self._responses.append(self._due())
        self.cycle += 1
        due = bool(self._reads) and self._reads[0][0] <= self.cycle
        self.read_valid = due and ((self.read_valid and not read_taken) or self._goes())
        due = bool(self._responses) and self._responses[0] <= self.cycle
        self.response_valid = due and ((self.response_valid and not response_taken) or self._goes())
        self.read_address_ready, self.write_address_ready = self._goes(), self._goes()
        self.write_ready = self._goes()  # data may come before its address


class SlowedTiming(MemoryTiming):
    """A :class:`MemoryTiming` that is never sooner: DRAM pauses at random and bursts take up to twice the latency.

    What a machine takes with it is bounded from below by what it takes with the memory it slows.

    Parameters
    ----------
    accelerator : Accelerator
        Whose memory is slowed.
    stall : float
        Probability, a cycle, that DRAM moves nothing.
    seed : int
    """

    def __init__(self, accelerator: Accelerator, stall: float, seed: int) -> None:
        self._stall, self._seed = stall, seed
        a = accelerator
        self._rated = a.dram_mb_s, a.memory_latency_cycles
        super().__init__(a.axi_data_bits // 8, a.memory_latency_cycles, a.dram_mb_s, a.clock_mhz)

    def reset(self) -> None:
        """Forget every transfer and start the pauses over."""
        self._random = random.Random(self._seed)
        super().reset()

    def step(
        self, read_beats: int, write_beats: int, read_taken: bool, write_taken: bool, response_taken: bool
    ) -> None:
        """End a cycle, see :class:`MemoryTiming`."""
        rate, latency = self._rated
        self._income = 0 if self._random.random() < self._stall else rate
        self._latency = latency + self._random.randint(0, latency)
        super().step(read_beats, write_beats, read_taken, write_taken, response_taken)


class AxiMemory:
    """Agent of a :class:`.bus.Loop`: the slave of an AXI4 port.

    Reads see memory as it was when their address was taken and writes change it when their response is taken (or, with
    ``late``, reads when their first beat is offered and writes as their data comes): a design that does not wait for
    its own writes gets old data in one of the two.

    Parameters
    ----------
    bench : Bench
    port : str
        Its signals are ``<port>__araddr`` and so on.
    timing : MemoryTiming, SlowedTiming or StallingTiming
    image : bytearray
        The memory's content. Accesses outside are answered DECERR.
    base : int
        Address of its first byte, a multiple of the beat.
    late : bool
    faults : sequence of Fault
    writable : sequence of (low, high), optional
        Where bytes may be written; a byte elsewhere is a ProtocolError. Default: anywhere.
    strict : bool
        Look at stalled channels every cycle: a rule more, some time more. Off by default with MemoryTiming.

    Attributes
    ----------
    log : list of tuples
        (cycle, channel, address, beats) of every burst, if ``keep_log``.
    reads, writes : int
        Beats moved.

    Raises
    ------
    ProtocolError
        From ``sample``.
    """

    def __init__(
        self, bench: Bench, port: str, timing: Any, image: bytearray, *, base: int = 0, late: bool = False,
        faults: Any = (), writable: Any = None, strict: bool | None = None, keep_log: bool = False,
    ) -> None:  # fmt: skip
        self.timing, self.image, self.base, self.late = timing, image, base, late
        self.faults = [fault if isinstance(fault, Fault) else Fault(*fault) for fault in faults]
        self.writable = None if writable is None else [tuple(pair) for pair in writable]
        self.strict = not isinstance(timing, MemoryTiming) if strict is None else strict
        self.log: list[tuple[int, str, int, int]] | None = [] if keep_log else None
        self._fixed = isinstance(timing, MemoryTiming)
        self._port = f"{port}__"
        self._size = bench.widths[f"{port}__wstrb"]
        self._all = (1 << self._size) - 1
        p = self._port
        self._arvalid, self._awvalid, self._wvalid = p + "arvalid", p + "awvalid", p + "wvalid"
        self._rready, self._bready = p + "rready", p + "bready"
        self.reads = self.writes = 0
        self.reset(bench)

    def reset(self, bench: Bench) -> None:
        """Forget every transfer, as a bus does that is reset; the content stays, writes without response are lost."""
        self.timing.reset()
        self._bursts: deque[list[Any]] = deque()  # reads: [address, beats left, data or None]
        self._addresses: deque[tuple[int, int]] = deque()  # writes whose data has not all come
        self._data: deque[tuple[int, int, int]] = deque()  # data, strobe, last of beats whose address has not come
        self._gathered: list[tuple[int, int, int]] = []
        self._done: deque[tuple[int, list[tuple[int, int, int]]]] = deque()  # response, beats
        self._stalled: dict[str, Any] = {}
        self._set: dict[str, int] = {}
        for name in ("rvalid", "bvalid", "arready", "awready", "wready", "rdata", "rresp", "rlast", "bresp"):
            self._put(bench, name, 0)

    @property
    def idle(self) -> bool:
        """No transfer is under way."""
        return not (self._bursts or self._addresses or self._data or self._gathered or self._done)

    def _put(self, bench: Bench, name: str, value: int) -> None:
        if self._set.get(name) != value:
            self._set[name] = value
            bench.set(self._port + name, value)

    def drive(self, bench: Bench) -> None:
        """Offer what the timing says."""
        timing, put = self.timing, self._put
        if timing.read_valid:
            burst = self._bursts[0]
            if burst[2] is None:
                burst[2] = self._fetch(burst[0], burst[1])
            data, response = burst[2]
            put(bench, "rdata", data[-burst[1]])
            put(bench, "rresp", response[-burst[1]])
            put(bench, "rlast", int(burst[1] == 1))
            put(bench, "rvalid", 1)
        else:
            put(bench, "rvalid", 0)
        if timing.response_valid:
            put(bench, "bresp", self._done[0][0])
            put(bench, "bvalid", 1)
        else:
            put(bench, "bvalid", 0)
        put(bench, "wready", int(timing.write_ready))
        put(bench, "arready", 1 if self._fixed else int(timing.read_address_ready))
        put(bench, "awready", 1 if self._fixed else int(timing.write_address_ready))

    def sample(self, bench: Bench) -> None:
        """Take what was offered, and hold the master to the rules."""
        get, timing = bench.get, self.timing
        if self.strict:
            self._check_stable(bench)
        read_beats = write_beats = 0
        write_taken = read_taken = response_taken = False
        if (self._fixed or timing.read_address_ready) and get(self._arvalid):
            address, read_beats = self._address(bench, "ar")
            self._bursts.append([address, read_beats, None if self.late else self._fetch(address, read_beats)])
        if (self._fixed or timing.write_address_ready) and get(self._awvalid):
            address, write_beats = self._address(bench, "aw")
            self._addresses.append((address, write_beats))
        if timing.write_ready and get(self._wvalid):
            p = self._port
            self._data.append((get(p + "wdata"), get(p + "wstrb"), get(p + "wlast")))
            write_taken = True
            self.writes += 1
        if self._data:
            self._gather()
        if timing.read_valid and get(self._rready):
            read_taken = True
            self.reads += 1
            burst = self._bursts[0]
            burst[1] -= 1
            if not burst[1]:
                self._bursts.popleft()
        if timing.response_valid and get(self._bready):
            response_taken = True
            _, beats = self._done.popleft()
            if not self.late:
                self._store(beats)
        timing.step(read_beats, write_beats, read_taken, write_taken, response_taken)

    def _address(self, bench: Bench, channel: str) -> tuple[int, int]:
        """Address and beats of a burst whose address is taken."""
        get, p = bench.get, self._port + channel
        address, beats = get(p + "addr"), get(p + "len") + 1
        if 1 << get(p + "size") != self._size:
            raise ProtocolError(f"{p}size: must be a whole beat of {self._size} bytes")
        if get(p + "burst") != 1:
            raise ProtocolError(f"{p}burst: must be INCR")
        if address % self._size:
            raise ProtocolError(f"{p}addr: must be a multiple of {self._size}, not {address:#x}")
        if address // PAGE_BYTES != (address + beats * self._size - 1) // PAGE_BYTES:
            raise ProtocolError(f"{p}addr: must not cross 4 KB, as {beats} beats from {address:#x} do")
        if self.log is not None:
            self.log.append((self.timing.cycle, channel, address, beats))
        return address, beats

    def _gather(self) -> None:
        """Give beats to their bursts."""
        while self._data and self._addresses:
            address, beats = self._addresses[0]
            data, strobe, last = self._data.popleft()
            place = len(self._gathered)
            if last != (place == beats - 1):
                raise ProtocolError(f"{self._port}wlast: must be {int(not last)} on beat {place + 1} of {beats}")
            at = address + place * self._size
            if strobe and self.writable is not None:
                self._check_writable(at, strobe)
            self._gathered.append((at, data, strobe))
            if self.late:
                self._store(self._gathered[-1:])
            if last:
                self._done.append((self._worst("write", address, beats), self._gathered))
                self._gathered = []
                self._addresses.popleft()

    def _check_writable(self, at: int, strobe: int) -> None:
        first = at + (strobe & -strobe).bit_length() - 1
        end = at + strobe.bit_length()
        assert self.writable is not None
        if not any(low <= first and end <= high for low, high in self.writable):
            raise ProtocolError(f"{self._port}wstrb: must not write bytes {first:#x} to {end - 1:#x}")

    def _check_stable(self, bench: Bench) -> None:
        """Valid stays, and what it offers, until it is taken."""
        get, p = bench.get, self._port
        for channel, names in (
            ("ar", ("araddr", "arlen")), ("aw", ("awaddr", "awlen")), ("w", ("wdata", "wstrb", "wlast")),
        ):  # fmt: skip
            valid = get(p + channel + "valid")
            offered = tuple(get(p + name) for name in names) if valid else None
            before = self._stalled.get(channel)
            if before is not None and before != offered:
                raise ProtocolError(f"{p}{channel}: must stay as offered until it is taken")
            self._stalled[channel] = None if self._set[channel + "ready"] else offered

    def _worst(self, kind: str, address: int, beats: int) -> int:
        """Response of a whole burst."""
        return max(self._response(kind, address + k * self._size) for k in range(beats))

    def _response(self, kind: str, at: int) -> int:
        found = 0 if 0 <= at - self.base < len(self.image) else int(Response.DECERR)
        for fault in self.faults:
            if fault.kind == kind and fault.low < at + self._size and at < fault.high:
                found = max(found, fault.response)
        return found

    def _fetch(self, address: int, beats: int) -> tuple[list[int], list[int]]:
        """Data and response of every beat of a read."""
        size, start = self._size, address - self.base
        if start >= 0 and start + beats * size <= len(self.image) and not self.faults:
            found = self.image[start : start + beats * size]
            return [int.from_bytes(found[k : k + size], "little") for k in range(0, beats * size, size)], [0] * beats
        data = []
        for k in range(beats):
            at = start + k * size
            data.append(int.from_bytes(self.image[at : at + size], "little") if 0 <= at < len(self.image) else 0)
        return data, [self._response("read", address + k * size) for k in range(beats)]

    def _store(self, beats: list[tuple[int, int, int]]) -> None:
        """Change memory; beats that fail change nothing."""
        size, image = self._size, self.image
        for address, data, strobe in beats:
            at = address - self.base
            if (self.faults or not 0 <= at < len(image)) and self._response("write", address):
                continue
            found = data.to_bytes(size, "little")
            if strobe == self._all and at + size <= len(image):
                image[at : at + size] = found
            else:
                for k in range(size):
                    if strobe >> k & 1 and at + k < len(image):
                        image[at + k] = found[k]
