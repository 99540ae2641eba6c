"""Memory behind the ports of a unit: values from an image, the time of every word from a model of the ports.

The model is :class:`nmsat.simulator.machine.memory.DmaModel`, or :class:`RandomMemory`, which pauses at random.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..memory_port import QUEUE, MemoryFault
from ..simulators.bench import Bench

Fault = tuple[int, int, int]
"""First byte, first byte after, and the error (:class:`MemoryFault`) of runs that touch what lies between."""


class RandomRead:
    """A read port: words a latency after their request, one a cycle but for random pauses.

    ``room``, ``word`` (0 none, 1 one, 2 a run's last) hold in this cycle; ``ask`` and ``take`` act in it.
    """

    def __init__(self, beat_bytes: int, latency: int, stall: float, rng: random.Random) -> None:
        self.beat_bytes, self.latency, self.stall, self._random = beat_bytes, latency, stall, rng
        self._runs: deque[list[int]] = deque()  # [earliest cycle, words left]
        self._asked: tuple[int, int] | None = None
        self.cycle, self.room, self.word, self.take = 0, True, 0, False

    def ask(self, address: int, size: int) -> None:
        """Give a request in this cycle."""
        self._asked = address, size

    def step(self) -> None:
        """End the cycle."""
        if self.take and self.word:
            self._runs[0][1] -= 1
            if not self._runs[0][1]:
                self._runs.popleft()
            self.word = 0
        if self._asked is not None:
            self._runs.append([self.cycle + self.latency, max(1, -(-self._asked[1] // self.beat_bytes))])
        self.cycle += 1
        self.room = len(self._runs) <= QUEUE and self._random.random() >= self.stall
        if not self.word and self._runs and self._runs[0][0] <= self.cycle and self._random.random() >= self.stall:
            self.word = 2 if self._runs[0][1] == 1 else 1
        self._asked, self.take = None, False


class RandomWrite:
    """A write port: ``done`` a latency after a run's request and last word.

    ``room``, ``word_room``, ``done`` hold in this cycle; ``ask``, ``give`` and ``take_done`` act in it.
    """

    def __init__(self, beat_bytes: int, latency: int, stall: float, rng: random.Random) -> None:
        self.beat_bytes, self.latency, self.stall, self._random = beat_bytes, latency, stall, rng
        self._runs: deque[int] = deque()  # words
        self._words = 0
        self._dones: deque[int] = deque()
        self._asked: tuple[int, int] | None = None
        self.cycle, self.room, self.word_room, self.done = 0, True, True, False
        self.give = self.take_done = False

    def ask(self, address: int, size: int) -> None:
        """Give a request in this cycle."""
        self._asked = address, size

    def step(self) -> None:
        """End the cycle."""
        if self.done and self.take_done:
            self._dones.popleft()
            self.done = False
        if self._asked is not None:
            self._runs.append(max(1, -(-self._asked[1] // self.beat_bytes)))
        self._words += self.give and self.word_room
        while self._runs and self._words >= self._runs[0]:
            self._words -= self._runs.popleft()
            self._dones.append(self.cycle + self.latency)
        self.cycle += 1
        self.room = len(self._runs) <= QUEUE and self._random.random() >= self.stall
        self.word_room = self._random.random() >= self.stall
        self.done = self.done or bool(self._dones and self._dones[0] <= self.cycle)
        self._asked, self.give, self.take_done = None, False, False


class RandomMemory:
    """Ports of a unit's clients, each with a memory of its own."""

    def __init__(
        self, readers: Sequence[str], writers: Sequence[str], beat_bytes: int, *, latency: int = 12,
        stall: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        rng = random.Random(seed)
        self.readers = {name: RandomRead(beat_bytes, latency, stall, rng) for name in readers}
        self.writers = {name: RandomWrite(beat_bytes, latency, stall, rng) for name in writers}

    def step(self) -> None:
        """End the cycle."""
        for port in (*self.readers.values(), *self.writers.values()):
            port.step()


class UnitMemory:
    """An agent for all memory ports of a unit.

    In every cycle: ``drive``, ``await bench.settle()``, ``sample``, ``await bench.tick()``.

    Parameters
    ----------
    bench : Bench
    ports : DmaModel or RandomMemory
        Its readers and writers have the names of the unit's clients.
    image : bytearray
        Read and written in place.
    faults : sequence of Fault

    Attributes
    ----------
    events : list of (cycle, port, what)
        Every request and word in the order of its handshake.
    """

    def __init__(self, bench: Bench, ports: Any, image: bytearray, faults: Sequence[Fault] = ()) -> None:
        self.ports, self.image, self.faults = ports, image, faults
        self.events: list[tuple[int, str, str]] = []
        self._cycle = 0
        self._data: dict[str, deque[tuple[int, int]]] = {name: deque() for name in ports.readers}
        self._runs: dict[str, deque[tuple[int, int]]] = {name: deque() for name in ports.writers}
        self._words: dict[str, bytearray] = {name: bytearray() for name in ports.writers}
        self._errors: dict[str, deque[int]] = {name: deque() for name in ports.writers}
        self._bits = {
            **{name: bench.widths[f"{name}__words__payload"] - 3 for name in ports.readers},
            **{name: bench.widths[f"{name}__words__payload"] for name in ports.writers},
        }

    def _fault(self, address: int, size: int) -> int:
        found = [code for low, high, code in self.faults if address < high and address + size > low]
        if address + size > len(self.image) or not size:
            found.append(MemoryFault.RANGE)
        return max(found, default=0)

    def drive(self, bench: Bench) -> None:
        """Offer what the ports offer in this cycle."""
        for name, port in self.ports.readers.items():
            bench.set(f"{name}__request__ready", int(port.room))
            bench.set(f"{name}__words__valid", int(port.word > 0))
            if port.word:
                bench.set(f"{name}__words__payload", self._data[name][0][0])
        for name, port in self.ports.writers.items():
            bench.set(f"{name}__request__ready", int(port.room))
            bench.set(f"{name}__words__ready", int(port.word_room))
            bench.set(f"{name}__done__valid", int(port.done))
            if port.done:
                bench.set(f"{name}__done__payload", self._errors[name][0])

    def sample(self, bench: Bench) -> None:
        """See what the unit does, and end the ports' cycle."""
        for name, port in self.ports.readers.items():
            if port.word and bench.get(f"{name}__words__ready"):
                self._data[name].popleft()
                port.take = True
                self.events.append((self._cycle, name, "word"))
            if port.room and bench.get(f"{name}__request__valid"):
                self._read(name, *self._request(bench, name, port))
        for name, port in self.ports.writers.items():
            if port.done and bench.get(f"{name}__done__ready"):
                self._errors[name].popleft()
                port.take_done = True
            if port.room and bench.get(f"{name}__request__valid"):
                self._runs[name].append(self._request(bench, name, port))
            if bench.get(f"{name}__words__valid"):
                port.give = True
                if port.word_room:
                    word = bench.get(f"{name}__words__payload")
                    self._words[name] += word.to_bytes(self._bits[name] // 8, "little")
                    self.events.append((self._cycle, name, "word"))
            self._write(name)
        self.ports.step()
        self._cycle += 1

    def _request(self, bench: Bench, name: str, port: Any) -> tuple[int, int]:
        payload = bench.get(f"{name}__request__payload")
        address, size = payload & (1 << 64) - 1, payload >> 64
        refused = name in self._data and self._fault(address, size) == MemoryFault.RANGE
        port.ask(address, 1 if refused and isinstance(port, RandomRead) else size)
        self.events.append((self._cycle, name, f"{address:#x} {size}"))
        return address, size

    def _read(self, name: str, address: int, size: int) -> None:
        bits, error = self._bits[name], self._fault(address, size)
        step = bits // 8
        if error == MemoryFault.RANGE:
            size = 1
        for at in range(0, size, step):
            piece = bytes(step) if error else bytes(self.image[address + at : address + min(at + step, size)])
            last = at + step >= size
            self._data[name].append((int.from_bytes(piece, "little") | last << bits | error << bits + 1, last))

    def _write(self, name: str) -> None:
        """Runs whose words have all come reach memory."""
        runs, words, step = self._runs[name], self._words[name], self._bits[name] // 8
        while runs:
            address, size = runs[0]
            padded = -(-size // step) * step
            if len(words) < padded:
                return
            error = self._fault(address, size)
            if not error:
                self.image[address : address + size] = words[:size]
            del words[:padded]
            runs.popleft()
            self._errors[name].append(error)


async def run_descriptors(
    bench: Bench, words: Sequence[int], memory: UnitMemory, *, limit: int = 20_000
) -> list[tuple[int | None, int | None]]:
    """Descriptors one after the other on a unit, after a reset.

    Returns
    -------
    list of (status, cycles)
        Of each: cycles from accepting it to its ``done``. (None, None), and no more, where ``limit`` cycles were not
        enough.
    """
    found: list[tuple[int | None, int | None]] = []
    bench.set("done__ready", 1)
    bench.set("start__valid", 0)
    memory.drive(bench)
    await bench.reset()
    for word in words:
        begun, done = None, False
        bench.set("start__payload", word)
        bench.set("start__valid", 1)
        for cycle in range(limit):
            memory.drive(bench)
            await bench.settle()
            memory.sample(bench)
            if begun is None and bench.get("start__ready"):
                begun = cycle
            done = bool(bench.get("done__valid"))
            if done and begun is not None:
                found.append((bench.get("done__payload"), cycle - begun))
            await bench.tick()
            if begun is not None:
                bench.set("start__valid", 0)
            if done:
                break
        if not done:
            return [*found, (None, None)]
    return found


class _Noted:
    """A model's port whose requests are noted."""

    def __init__(self, port: Any, name: str, events: list[tuple[str, str]]) -> None:
        self.__dict__.update(_port=port, _name=name, _events=events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._port, name, value)

    def ask(self, address: int, size: int) -> None:
        self._events.append((self._name, f"{address:#x} {size}"))
        self._port.ask(address, size)


def run_model(
    make: Callable[[Any, Any], Any], ports: Any, item: Any, *, limit: int = 60_000
) -> tuple[int, list[tuple[int, str, str]]]:
    """A descriptor on a unit's cycle model, between ports ``read`` and ``write``: cycles, and events as UnitMemory's.

    Raises
    ------
    RuntimeError
        It takes more than ``limit`` cycles.
    """
    now: list[tuple[str, str]] = []
    read, write = (_Noted(port, name, now) for name, port in (*ports.readers.items(), *ports.writers.items()))
    model = make(read, write)
    model.start(item)
    events: list[tuple[int, str, str]] = []
    for cycle in range(limit):
        if model.done:
            return cycle, events
        model.step()
        now += [("read", "word")] * bool(read.word and read.take)
        now += [("write", "word")] * bool(write.word_room and write.give)
        events += [(cycle, *event) for event in now]
        now.clear()
        ports.step()
    raise RuntimeError(f"the model must end within {limit} cycles")


def first_difference(
    one: Sequence[tuple[int, str, str]], other: Sequence[tuple[int, str, str]]
) -> tuple[int, list[Any], list[Any]] | None:
    """The first cycle in which two lists of events differ, with what each has in it; None if none does."""
    sides: tuple[dict[int, list[Any]], ...] = ({}, {})
    for side, events in zip(sides, (one, other), strict=True):
        for cycle, port, what in events:
            side.setdefault(cycle, []).append((port, what))
    for cycle in sorted({*sides[0], *sides[1]}):
        found, wanted = (sorted(side.get(cycle, [])) for side in sides)
        if found != wanted:
            return cycle, found, wanted
    return None
