"""Shell B: the card through XRT. ``pyxrt`` comes with XRT, not from PyPI, and is imported when a backend is made."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ...models.errors import MissingToolError
from ...rtl.registers import register_map
from .backend import DeviceError
from .polling import wait_by_polling

DEFAULT_BYTES = 1 << 30


class XrtBackend:
    """A :class:`.backend.Backend` on an ``.xclbin``: registers through the compute unit, one buffer as device memory.

    Parameters
    ----------
    xclbin : Path
        Made by ``make xclbin``.
    memory_bytes : int
        Size of the buffer; programs and their images are placed inside.
    device : int
        Index of the card, as ``xbutil examine`` lists them.
    bank : int
        Memory bank of the buffer.

    Raises
    ------
    MissingToolError
        XRT is not installed for this Python.
    DeviceError
        No card, no such file, another kernel in it, or not so much memory.
    """

    def __init__(self, xclbin: Path, memory_bytes: int = DEFAULT_BYTES, device: int = 0, bank: int = 0) -> None:
        self._xrt: Any = _pyxrt()
        if not xclbin.is_file():
            raise DeviceError(f"xrt: {xclbin}: must be an existing .xclbin file; make xclbin builds it")
        unit = register_map().name
        opened = self._try(f"device {device}", lambda: self._xrt.device(device))
        identifier = self._try(str(xclbin), lambda: opened.load_xclbin(str(xclbin)))
        name = f"{unit}:{{{unit}_1}}"
        if hasattr(self._xrt, "ip"):
            self._unit: Any = self._try(name, lambda: self._xrt.ip(opened, identifier, name))
        else:  # older: a kernel opened for itself has registers
            mode = self._xrt.kernel.cu_access_mode.exclusive
            self._unit = self._try(name, lambda: self._xrt.kernel(opened, identifier, name, mode))
        self._buffer: Any = self._try(
            f"a buffer of {memory_bytes} bytes", lambda: self._xrt.bo(opened, memory_bytes, self._xrt.bo.normal, bank)
        )
        self.memory = (int(self._buffer.address()), memory_bytes)

    @staticmethod
    def _try(what: str, work: Any) -> Any:
        """XRT reports everything as RuntimeError and the like."""
        try:
            return work()
        except (RuntimeError, OSError, IndexError, ValueError) as error:
            raise DeviceError(f"xrt: {what}: must be usable; {' '.join(str(error).split())[:200]}") from None

    def _open_unit(self) -> Any:
        if self._unit is None:
            raise DeviceError("xrt: must be open; it was closed")
        return self._unit

    async def read32(self, offset: int) -> int:
        unit = self._open_unit()
        return int(self._try(f"register {offset:#x}", lambda: unit.read_register(offset))) & 0xFFFFFFFF

    async def write32(self, offset: int, value: int) -> None:
        unit = self._open_unit()
        self._try(f"register {offset:#x}", lambda: unit.write_register(offset, value))

    def _place(self, address: int, size: int) -> int:
        first, total = self.memory
        if not first <= address <= address + size <= first + total:
            raise DeviceError.rule("xrt", "address", f"{first:#x} to {first + total:#x}", f"{address:#x} + {size}")
        return address - first

    async def read(self, address: int, size: int) -> bytes:
        self._open_unit()
        at, direction = self._place(address, size), self._xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
        if not size:
            return b""
        self._try("memory", lambda: self._buffer.sync(direction, size, at))
        found = memoryview(self._try("memory", lambda: self._buffer.read(size, at))).tobytes()
        if len(found) != size:
            raise DeviceError(f"xrt: memory: must give {size} bytes at {address:#x}, not {len(found)}")
        return found

    async def write(self, address: int, data: bytes) -> None:
        self._open_unit()
        at, direction = self._place(address, len(data)), self._xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE
        if data:
            self._try("memory", lambda: self._buffer.write(data, at))
            self._try("memory", lambda: self._buffer.sync(direction, len(data), at))

    async def wait_interrupt(self, timeout_s: float) -> bool:
        """By reading the registers: with exclusive access the unit's interrupt is not XRT's."""
        return await wait_by_polling(self.read32, timeout_s)

    async def close(self) -> None:
        self._unit = self._buffer = None


def _pyxrt() -> Any:
    try:
        return importlib.import_module("pyxrt")
    except ImportError:
        hint = "install XRT and source its setup.sh; it is not on PyPI"
        raise MissingToolError(f"pyxrt is not installed for this Python: {hint}") from None
