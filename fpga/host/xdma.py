"""Shell A: the card through the character devices of AMD's XDMA driver."""

from __future__ import annotations

import contextlib
import os
import select
from pathlib import Path

from ..board import Board
from .backend import DeviceError
from .polling import wait_by_polling

CHUNK = 1 << 24  # bytes of one transfer; the driver pins its pages
PREFIX = Path("/dev/xdma0")


class XdmaBackend:
    """A :class:`.backend.Backend` on ``<prefix>_user``, ``_h2c_0``, ``_c2h_0`` and, if it is there, ``_events_0``.

    Registers are read and written by four bytes at their offset in ``_user``; memory is read and written at its device
    address as the file's offset, in transfers of at most 16 MiB, which may be short and are then continued.

    Parameters
    ----------
    memory : tuple of int
        First byte address and bytes of the device memory.
    prefix : Path
        Of the device files.

    Raises
    ------
    DeviceError
        A device file is missing or may not be opened.
    """

    def __init__(self, memory: tuple[int, int], prefix: Path = PREFIX) -> None:
        self.memory = memory
        self._files: dict[str, int] = {}
        try:
            for name, mode in (("user", os.O_RDWR), ("h2c_0", os.O_WRONLY), ("c2h_0", os.O_RDONLY)):
                self._files[name] = self._open(prefix, name, mode)
            events = prefix.with_name(f"{prefix.name}_events_0")
            if events.exists():
                self._files["events_0"] = self._open(prefix, "events_0", os.O_RDONLY | os.O_NONBLOCK)
        except DeviceError:
            self._close()
            raise
        self._name = str(prefix)

    @classmethod
    def of(cls, board: Board, prefix: Path = PREFIX) -> XdmaBackend:
        """With all memory of a board, its channels one behind the other from 0, as the block design lays them."""
        return cls((0, len(board.ddr.channels) * board.ddr.gib * 2**30), prefix)

    @staticmethod
    def _open(prefix: Path, name: str, mode: int) -> int:
        path = prefix.with_name(f"{prefix.name}_{name}")
        try:
            return os.open(path, mode | os.O_CLOEXEC)
        except FileNotFoundError:
            hint = "is the card programmed, PCIe rescanned, and the xdma driver loaded (modprobe xdma)?"
            raise DeviceError(f"xdma: {path}: must exist; {hint}") from None
        except OSError as error:
            hint = "may you read and write it?"
            raise DeviceError(f"xdma: {path}: must open; {error.strerror}: {hint}") from None

    def _file(self, name: str) -> int:
        if name not in self._files:
            raise DeviceError("xdma: must be open; it was closed")
        return self._files[name]

    async def read32(self, offset: int) -> int:
        return int.from_bytes(self._transfer("user", "read", offset, 4), "little")

    async def write32(self, offset: int, value: int) -> None:
        self._transfer("user", "write", offset, 4, value.to_bytes(4, "little"))

    async def read(self, address: int, size: int) -> bytes:
        self._check(address, size)
        return self._transfer("c2h_0", "read", address, size)

    async def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self._transfer("h2c_0", "write", address, len(data), data)

    def _check(self, address: int, size: int) -> None:
        first, total = self.memory
        if not first <= address <= address + size <= first + total:
            raise DeviceError.rule("xdma", "address", f"{first:#x} to {first + total:#x}", f"{address:#x} + {size}")

    def _transfer(self, name: str, verb: str, at: int, size: int, data: bytes = b"") -> bytes:
        """All of it, in as many pieces as the driver makes of it; DeviceError if one makes no progress."""
        file, done, found = self._file(name), 0, []
        while done < size:
            try:
                if verb == "read":
                    part = os.pread(file, min(CHUNK, size - done), at + done)
                    found.append(part)
                    moved = len(part)
                else:
                    moved = os.pwrite(file, memoryview(data)[done : done + CHUNK], at + done)
            except OSError as error:
                where = f"{at + done:#x}"
                raise DeviceError(f"xdma: {name}: must {verb} at {where}; {error.strerror}, is the link up?") from None
            if moved <= 0:
                raise DeviceError(
                    f"xdma: {name}: must {verb} {size} bytes at {at:#x}, not {done}; the transfer stopped"
                )
            done += moved
        return b"".join(found)

    async def wait_interrupt(self, timeout_s: float) -> bool:
        """By the event file, which wakes early, and by the registers, which know."""
        events = self._files.get("events_0")
        if events is None:
            return await wait_by_polling(self.read32, timeout_s)

        def pause(seconds: float) -> None:
            waiting = select.poll()
            waiting.register(events, select.POLLIN)
            if waiting.poll(max(1, round(seconds * 1000))):
                with contextlib.suppress(BlockingIOError):
                    os.read(events, 4)  # how many there were; the registers say which

        return await wait_by_polling(self.read32, timeout_s, pause)

    async def close(self) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files = {}
