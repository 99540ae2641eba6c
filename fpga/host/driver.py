"""The driver: programs and tensors to the device, runs with host steps, results and counters back.

:class:`Driver` is written as coroutines, so that the same code drives a simulation, in which time passes while it
waits, and a card. On a card use :class:`BlockingDriver`, which has the same methods without ``await``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program, Tensor
from ...models.errors import NmsatError
from ...rtl.control import WINDOW
from ...rtl.registers import Register, register_map
from .backend import Backend, DeviceError, blocking

Array = NDArray[Any]
HostStep = Callable[[Descriptor, NDArray[np.uint8]], None]
"""Computes a HOST descriptor on a DRAM image, in place. Only the tensors that the descriptor names are filled."""

PAGE = 4096
_HOST, _ERROR, _DONE = "host", "error", "done"
COUNTERS = (
    "cycles", "host_cycles", "fetch_cycles", "compute_cycles", "load_stall_cycles", "store_stall_cycles",
    "vector_cycles", "read_beats", "write_beats",
)  # fmt: skip


class RunError(DeviceError):
    """A run ended with an error code.

    Attributes
    ----------
    code : int
    name : str
        Of the code, as in docs/registers.md.
    descriptor : int
        Index in the program; of a memory error while several descriptors are at work, that of the first of them.
    """

    def __init__(self, code: int, descriptor: int, layer: str = "") -> None:
        known = {item.code: item for item in register_map().codes}.get(code)
        self.code, self.descriptor = code, descriptor
        self.name = known.name if known else "unknown"
        where = f" ({layer})" if layer else ""
        meaning = known.description if known else "no code of this register map; is the bitstream another version?"
        super().__init__(f"device: descriptor {descriptor}{where}: ended with {code:#04x} {self.name}: {meaning}")


@dataclass(frozen=True, slots=True)
class Counters:
    """What a run took.

    Attributes
    ----------
    totals : dict of str to int
        By register name.
    descriptor_cycles : list of int
        Of each descriptor in order; only the last ``WINDOW`` of a longer program are kept, others are -1.
    """

    totals: dict[str, int]
    descriptor_cycles: list[int] = field(repr=False)


class Driver:
    """One accelerator.

    Parameters
    ----------
    backend : Backend
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._map = register_map()
        self._program: Program | None = None
        self._code_address = self._image_address = 0
        self._free = 0
        self._opened = False

    async def open(self) -> dict[str, int]:
        """See whether the device is one of ours, end what it is doing, and return its geometry.

        Raises
        ------
        DeviceError
            Another core, another version of the registers, or a run that cannot be ended.
        """
        for name, expected in (("identity", self._map.identity), ("version", self._map.version)):
            found = await self.read(name)
            if found != expected:
                raise DeviceError.rule("device", name, f"{expected:#x}", hex(found), "is the right bitstream loaded?")
        self._free = self.backend.memory[0]
        if await self._flag("status", "busy"):
            await self.abort()
        self._opened = True
        geometry = await self.read("geometry")
        return {x.name: geometry >> x.bit & (1 << x.width) - 1 for x in self._map.register("geometry").fields}

    async def close(self) -> None:
        """Give the device back."""
        await self.backend.close()
        self._opened = False

    # registers

    async def read(self, name: str) -> int:
        """A register by name. Of a 64-bit counter that runs, both halves belong together."""
        register = self._map.register(name)
        if register.width == 32:
            return await self.backend.read32(register.offset)
        low, high = register.offsets
        before = await self.backend.read32(high)
        while True:
            value = await self.backend.read32(low)
            after = await self.backend.read32(high)
            if after == before:
                return after << 32 | value
            before = after

    async def write(self, name: str, value: int) -> None:
        """Write a register by name."""
        register = self._map.register(name)
        for place, offset in enumerate(register.offsets):
            await self.backend.write32(offset, value >> 32 * place & 0xFFFFFFFF)

    async def _flag(self, register: str, name: str) -> bool:
        return bool(await self.read(register) & self._map.register(register).field(name).mask)

    def _mask(self, register: str, *names: str) -> int:
        found: Register = self._map.register(register)
        return sum(found.field(name).mask for name in names)

    # memory

    def allocate(self, size: int, align: int = PAGE) -> int:
        """Device address of ``size`` free bytes; :meth:`free_all` gives all of it back.

        Raises
        ------
        DeviceError
            If the device has not so much left, or :meth:`open` was not called.
        """
        if not self._opened:
            raise DeviceError("device: must be opened before memory is allocated")
        first, total = self.backend.memory
        address = -(-self._free // align) * align
        if address + size > first + total:
            raise DeviceError.rule("device", "memory", f"at least {size} bytes", max(0, first + total - address))
        self._free = address + size
        return address

    def free_all(self) -> None:
        """Forget the program and all allocations."""
        self._free, self._program = self.backend.memory[0], None

    async def load(self, program: Program) -> None:
        """Place a program and its DRAM image, and write the descriptors. The image's bytes stay what they were."""
        self.free_all()
        code = descriptor_bytes(program)
        self._code_address = self.allocate(len(code))
        self._image_address = self.allocate(max(1, program.dram_bytes))
        await self.backend.write(self._code_address, code)
        self._program = program

    @property
    def program(self) -> Program:
        """The program that is loaded; DeviceError if none is."""
        if self._program is None:
            raise DeviceError("device: must have a program loaded")
        return self._program

    def _tensor(self, name: str) -> Tensor:
        found = {item.name: item for item in self.program.tensors}.get(name)
        if found is None:
            raise NmsatError.rule("program", "tensor", "one of the program's tensors", name)
        return found

    async def upload(self, tensors: Mapping[str, Array]) -> None:
        """Write tensors of the program.

        Parameters
        ----------
        tensors : mapping of str to array
            Of the tensor's dtype and number of elements.

        Raises
        ------
        NmsatError
            An unknown name, another dtype or size; nothing is then written.
        """
        found = []
        for name, array in tensors.items():
            item, given = self._tensor(name), np.asarray(array)
            if given.dtype != np.dtype(item.dtype):
                raise NmsatError.rule("program", f"{name}.dtype", item.dtype, given.dtype.name)
            if given.nbytes != item.bytes:
                raise NmsatError.rule("program", f"{name}.shape", f"{item.shape}", given.shape)
            found.append((item, np.ascontiguousarray(given, given.dtype.newbyteorder("<")).tobytes()))
        for item, data in found:
            await self.backend.write(self._image_address + item.address, data)

    async def download(self, *names: str) -> dict[str, Array]:
        """Read tensors of the program; all of them if no name is given."""
        items = [self._tensor(name) for name in names] if names else list(self.program.tensors)
        found = {}
        for item in items:
            data = await self.backend.read(self._image_address + item.address, item.bytes)
            array = np.frombuffer(data, np.dtype(item.dtype).newbyteorder("<")).astype(np.dtype(item.dtype))
            found[item.name] = array.reshape(item.shape)
        return found

    async def clear(self) -> None:
        """Zero the whole image, as a fresh one of the golden executor is."""
        size = self.program.dram_bytes
        for at in range(0, size, 1 << 24):
            await self.backend.write(self._image_address + at, bytes(min(1 << 24, size - at)))

    # runs

    def arguments(self) -> dict[str, int]:
        """What the loaded program needs in the argument registers, by name."""
        program = self.program
        return {
            "program": self._code_address, "image_base": self._image_address, "range_low": self._code_address,
            "range_high": self._image_address + max(1, program.dram_bytes),
            "descriptor_limit": len(program.descriptors) + 1, "watchdog": 0,
        }  # fmt: skip

    async def start(self, arguments: Mapping[str, int]) -> None:
        """Start a run and return at once; old causes are cleared, interrupts enabled."""
        for name, value in arguments.items():
            await self.write(name, value)
        await self.write("isr", self._mask("isr", "done", "ready", _HOST, _ERROR))
        await self.write("ier", self._mask("isr", "done", _HOST, _ERROR))
        await self.write("gier", 1)
        await self.write("control", self._mask("control", "ap_start"))

    async def run(self, host: HostStep | None = None, *, timeout_s: float = 10.0, watchdog_cycles: int = 0) -> Counters:
        """Run the loaded program to its end.

        Parameters
        ----------
        host : callable, optional
            Computes HOST descriptors; needed if the program has any.
        timeout_s : float
            Longest wait for the next interrupt, in device time.
        watchdog_cycles : int
            Longest time without a finished descriptor; 0 for any.

        Raises
        ------
        RunError
            The device ended with an error code.
        DeviceError
            No interrupt in time, or the watchdog barked: the run is then aborted.
        """
        program = self.program
        if host is None and any(item.kind is Kind.HOST for item in program.descriptors):
            raise DeviceError("device: host: must be given, the program has HOST descriptors")
        if await self._flag("status", "busy"):
            raise DeviceError("device: must be idle before a run; another process may be using it")
        await self.start(self.arguments() | {"watchdog": watchdog_cycles})
        try:
            await self.serve(host, timeout_s)
        finally:
            await self.write("gier", 0)
        code = await self.read("error_code")
        if code:
            descriptor = await self.read("error_descriptor")
            raise RunError(code, descriptor, self._layer(descriptor))
        return await self.counters()

    async def serve(self, host: HostStep | None = None, timeout_s: float = 10.0) -> None:
        """Answer the interrupts of a run that :meth:`start` began until it is over, well or not: see ``error_code``.

        Raises
        ------
        DeviceError
            As :meth:`run`, of which this is the middle.
        """
        while True:
            if not await self.backend.wait_interrupt(timeout_s):
                await self._give_up(f"no interrupt within {timeout_s} s")
            causes = await self.read("isr")
            await self.write("isr", causes)
            if causes & self._mask("isr", _DONE):
                return
            if causes & self._mask("isr", _ERROR):
                await self._give_up("the watchdog barked")
            if causes & self._mask("isr", _HOST):
                assert host is not None
                await self._host_step(host, await self.read("host_step"))
                await self.write("command", self._mask("command", "resume"))

    async def _give_up(self, reason: str) -> None:
        descriptor = await self.read("descriptors_done")
        await self.abort()
        raise DeviceError(f"device: descriptor {descriptor}{self._layer(descriptor, ' ({})')}: {reason}; aborted")

    def _layer(self, descriptor: int, form: str = "{}") -> str:
        descriptors = self.program.descriptors
        if descriptor >= len(descriptors):
            return ""
        return form.format(self.program.layers[descriptors[descriptor]["layer"]])

    async def _host_step(self, host: HostStep, step: int) -> None:
        """Fetch the tensors that a HOST descriptor names, compute, and write back those that changed."""
        program = self.program
        if step >= len(program.descriptors) or program.descriptors[step].kind is not Kind.HOST:
            raise DeviceError.rule("device", "host_step", "the index of a HOST descriptor", step)
        item = program.descriptors[step]
        named = [item[name] for name in item.fields if name.endswith("_address")]
        tensors = [x for x in program.tensors if any(x.address <= at < x.address + x.bytes for at in named)]
        image = np.zeros(program.dram_bytes, np.uint8)
        before = {}
        for tensor in tensors:
            data = await self.backend.read(self._image_address + tensor.address, tensor.bytes)
            image[tensor.address : tensor.address + tensor.bytes] = np.frombuffer(data, np.uint8)
            before[tensor.name] = data
        host(item, image)
        for tensor in tensors:
            data = image[tensor.address : tensor.address + tensor.bytes].tobytes()
            if data != before[tensor.name]:
                await self.backend.write(self._image_address + tensor.address, data)

    async def abort(self, polls: int = 1000) -> None:
        """End the run that is under way.

        Raises
        ------
        DeviceError
            If it does not end: only a reset of the device helps.
        """
        await self.write("command", self._mask("command", "abort"))
        for _ in range(polls):
            if not await self._flag("status", "busy"):
                return
        raise DeviceError("device: must end a run when it is aborted; it does not, reset it")

    async def counters(self) -> Counters:
        """Counters of the last run."""
        totals = {name: await self.read(name) for name in COUNTERS}
        count = await self.read("descriptors_done")
        cycles = [-1] * count
        for index in range(max(0, count - WINDOW), count):
            await self.write("window_index", index)
            cycles[index] = await self.read("window_cycles")
        return Counters(totals, cycles)


class BlockingDriver:
    """:class:`Driver` on a backend that never suspends: the same methods, without ``await``."""

    def __init__(self, backend: Backend) -> None:
        self.driver = Driver(backend)

    def open(self) -> dict[str, int]:
        return blocking(self.driver.open())

    def close(self) -> None:
        blocking(self.driver.close())

    def load(self, program: Program) -> None:
        blocking(self.driver.load(program))

    def clear(self) -> None:
        blocking(self.driver.clear())

    def upload(self, tensors: Mapping[str, Array]) -> None:
        blocking(self.driver.upload(tensors))

    def download(self, *names: str) -> dict[str, Array]:
        return blocking(self.driver.download(*names))

    def run(self, host: HostStep | None = None, *, timeout_s: float = 10.0, watchdog_cycles: int = 0) -> Counters:
        return blocking(self.driver.run(host, timeout_s=timeout_s, watchdog_cycles=watchdog_cycles))

    def abort(self) -> None:
        blocking(self.driver.abort())

    def counters(self) -> Counters:
        return blocking(self.driver.counters())


def descriptor_bytes(program: Program) -> bytes:
    """What the device executes: the descriptors and END, without the file's header and symbols."""
    return program.encode()[-DESCRIPTOR_BYTES * (len(program.descriptors) + 1) :]
