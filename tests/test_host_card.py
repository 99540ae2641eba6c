"""The card's backends: XDMA on device files, XRT on a stand-in of its module; short transfers, timeouts, missing devices."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import types

import numpy as np
import pytest

from nmsat.dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program, Tensor, field_names
from nmsat.fpga.board import Board
from nmsat.fpga.host import BlockingDriver, DeviceError, blocking
from nmsat.fpga.host import xdma as xdma_module
from nmsat.fpga.host.driver import RunError
from nmsat.fpga.host.xdma import XdmaBackend
from nmsat.fpga.host.xrt import XrtBackend
from nmsat.models.errors import MissingToolError
from nmsat.rtl.registers import register_map

MAP = register_map()
AT = {register.offset: register for register in MAP.registers} | {
    r.offset + 4: r for r in MAP.registers if r.width == 64
}


def at(name: str) -> int:
    return MAP.register(name).offset


class FakeCard:
    """Registers and memory of an accelerator that executes VECTOR as a copy, in Python."""

    def __init__(self, size: int, base: int = 0) -> None:
        self.base, self.memory, self.words = (
            base,
            bytearray(size),
            {at("identity"): MAP.identity, at("version"): MAP.version},
        )
        self.words[at("control")] = 4  # idle
        self.next, self.hang, self.fail = 0, False, 0

    def read32(self, offset: int) -> int:
        return self.words.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        if offset == at("isr"):
            self.words[offset] = self.words.get(offset, 0) & ~value
        elif offset == at("control"):
            if value & 1:
                self.next = 0
                self._go()
        elif offset == at("command"):
            if value & 2:
                self._end(0x30)
            elif value & 1:
                self._go()
        elif (offset in AT and AT[offset].access == "rw") or offset in (at("gier"), at("ier")):
            self.words[offset] = value

    def _word64(self, name: str) -> int:
        return self.read32(at(name)) | self.read32(at(name) + 4) << 32

    def _end(self, code: int) -> None:
        self.words |= {at("status"): 0, at("error_code"): code, at("error_descriptor"): self.next}
        self.words[at("isr")] = self.words.get(at("isr"), 0) | 1

    def _go(self) -> None:
        self.words[at("status")] = 1
        if self.hang:
            return
        image = self._word64("image_base") - self.base
        while True:
            start = self._word64("program") - self.base + self.next * DESCRIPTOR_BYTES
            item = decode_one(bytes(self.memory[start : start + DESCRIPTOR_BYTES]))
            if self.fail and self.next == self.fail:
                return self._end(0x22)
            self.next += 1
            self.words[at("descriptors_done")] = self.next
            if item is None:
                self.words[at("descriptors_done")] = self.next - 1
                return self._end(0)
            if item.kind is Kind.HOST:
                self.words |= {at("status"): 3, at("host_step"): self.next - 1}
                self.words[at("isr")] = self.words.get(at("isr"), 0) | 4
                return None
            source, target, size = (item[name] for name in ("source_address", "target_address", "elements"))
            self.memory[image + target : image + target + size] = self.memory[image + source : image + source + size]


def decode_one(data: bytes) -> Descriptor | None:
    """A descriptor from its bytes; None for END."""
    empty = Program((), (), (), {}).encode()
    if data == empty[-DESCRIPTOR_BYTES:]:
        return None
    program = Program((ANY,), ("layer",), (), {}).encode()
    head = bytearray(program[: -2 * DESCRIPTOR_BYTES] + data + program[-DESCRIPTOR_BYTES:])
    import zlib

    from nmsat.dataflow.program import _HEADER

    header = np.frombuffer(head, _HEADER, 1).copy()
    header["crc32"] = zlib.crc32(bytes(head[_HEADER.itemsize :]))
    head[: _HEADER.itemsize] = header.tobytes()
    return Program.decode(bytes(head)).descriptors[0]


def step(kind: Kind, source: int, target: int, size: int) -> Descriptor:
    fields = dict.fromkeys(field_names(kind), 0) | {
        "kind": int(kind), "source_address": source, "target_address": target, "elements": size,
    }  # fmt: skip
    return Descriptor(kind, fields)


ANY = step(Kind.VECTOR, 0, 0, 1)
PROGRAM = Program(
    (step(Kind.VECTOR, 0, 4096, 4096), step(Kind.HOST, 4096, 8192, 4096), step(Kind.VECTOR, 8192, 12288, 77)),
    ("layer",),
    tuple(Tensor(f"t{k}", 4096 * k, 4096, "uint8", (64, 64)) for k in range(4)),
    {},
)


def double(item, image):
    source, target, size = (item[name] for name in ("source_address", "target_address", "elements"))
    image[target : target + size] = 2 * image[source : source + size]


class FakeOs:
    """What xdma.py takes of ``os``, with a card behind the files; pieces of at most ``short`` bytes."""

    def __init__(self, card: FakeCard, short: int = 1 << 30) -> None:
        self.card, self.short, self.error, self.stuck, self.open_files = card, short, 0, False, {}
        for name in ("O_RDWR", "O_WRONLY", "O_RDONLY", "O_NONBLOCK", "O_CLOEXEC"):
            setattr(self, name, getattr(os, name))

    def open(self, path, mode):
        number = os.open(path, os.O_RDONLY | (mode & os.O_NONBLOCK))
        self.open_files[number] = path.name.partition("_")[2]
        return number

    def close(self, number):
        del self.open_files[number]
        os.close(number)

    def read(self, number, size):
        return os.read(number, size)

    def _fault(self):
        if self.error:
            raise OSError(self.error, os.strerror(self.error))

    def pread(self, number, size, offset):
        self._fault()
        if self.open_files[number] == "user":
            return self.card.read32(offset).to_bytes(4, "little")[:size]
        assert self.open_files[number] == "c2h_0"
        return b"" if self.stuck else bytes(self.card.memory[offset : offset + min(size, self.short)])

    def pwrite(self, number, data, offset):
        self._fault()
        if self.open_files[number] == "user":
            self.card.write32(offset, int.from_bytes(data, "little"))
            return len(data)
        assert self.open_files[number] == "h2c_0"
        part = bytes(data[: self.short])
        if self.stuck:
            return 0
        self.card.memory[offset : offset + len(part)] = part
        return len(part)


@pytest.fixture
def prefix(tmp_path):
    for name in ("user", "h2c_0", "c2h_0"):
        (tmp_path / f"card_{name}").write_bytes(b"")
    return tmp_path / "card"


@pytest.fixture
def fake(monkeypatch):
    found = FakeOs(FakeCard(1 << 16))
    monkeypatch.setattr(xdma_module, "os", found)
    return found


def fake_xrt(card: FakeCard, *, old: bool = False, devices: int = 1):
    """A module with the part of pyxrt that the backend uses."""
    module = types.ModuleType("pyxrt")

    class Device:
        def __init__(self, index):
            if index >= devices:
                raise RuntimeError("Could not open device with index\n'0'")

        def load_xclbin(self, path):
            return "uuid"

    class Unit:
        def __init__(self, device, identifier, name, mode=None):
            if name != "nmsat:{nmsat_1}" or identifier != "uuid" or old != (mode == "exclusive"):
                raise RuntimeError("No such compute unit")

        def read_register(self, offset):
            return card.read32(offset)

        def write_register(self, offset, value):
            card.write32(offset, value)

    class Buffer:
        normal = 0

        def __init__(self, device, size, flags, bank):
            if size > len(card.memory):
                raise RuntimeError("std::bad_alloc")
            self.copy = bytearray(size)

        def address(self):
            return card.base

        def write(self, data, at):
            self.copy[at : at + len(data)] = data

        def read(self, size, at):
            return np.frombuffer(self.copy, np.int8)[at : at + size]

        def sync(self, direction, size, at):
            if direction == "to":
                card.memory[at : at + size] = self.copy[at : at + size]
            else:
                self.copy[at : at + size] = card.memory[at : at + size]

    Unit.cu_access_mode = types.SimpleNamespace(exclusive="exclusive")
    module.device, module.bo = Device, Buffer
    module.xclBOSyncDirection = types.SimpleNamespace(XCL_BO_SYNC_BO_TO_DEVICE="to", XCL_BO_SYNC_BO_FROM_DEVICE="from")
    setattr(module, "kernel" if old else "ip", Unit)
    return module


@pytest.fixture(params=["xdma", "xdma in small pieces", "xrt", "old xrt"])
def device(request, prefix, tmp_path, monkeypatch):
    """(card, backend) of every kind."""
    if request.param.startswith("xdma"):
        card = FakeCard(1 << 16)
        monkeypatch.setattr(xdma_module, "os", FakeOs(card, 1000 if "small" in request.param else 1 << 30))
        return card, XdmaBackend((0, 1 << 16), prefix)
    card = FakeCard(1 << 16, base=0x4_0000_0000)
    monkeypatch.setitem(sys.modules, "pyxrt", fake_xrt(card, old=request.param == "old xrt"))
    (tmp_path / "nmsat.xclbin").write_bytes(b"")
    return card, XrtBackend(tmp_path / "nmsat.xclbin", 1 << 16)


def test_one_driver_runs_programs_on_every_card(device):
    _, backend = device
    driver = BlockingDriver(backend)
    driver.open()
    driver.load(PROGRAM)
    driver.clear()
    data = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    driver.upload({"t0": data})
    counters = driver.run(double, timeout_s=1)
    found = driver.download()
    assert (found["t1"] == data).all()
    assert (found["t2"] == 2 * data).all()
    assert (found["t3"].reshape(-1)[:77] == (2 * data).reshape(-1)[:77]).all()
    assert not found["t3"].reshape(-1)[77:].any()
    assert len(counters.descriptor_cycles) == 3
    driver.close()


def test_errors_and_timeouts_of_every_card(device):
    card, backend = device
    driver = BlockingDriver(backend)
    driver.open()
    driver.load(PROGRAM)
    card.fail = 2
    with pytest.raises(RunError, match=r"^device: descriptor 2 \(layer\): ended with 0x22 read_slverr: "):
        driver.run(double, timeout_s=1)
    card.fail, card.hang = 0, True
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"^device: descriptor \d.*: no interrupt within 0\.05 s; aborted$"):
        driver.run(double, timeout_s=0.05)
    assert 0.05 <= time.monotonic() - began < 5


def test_another_core_is_refused(device):
    card, backend = device
    card.words[at("identity")] = 0xFFFFFFFF  # what PCIe reads from a card that is gone
    with pytest.raises(
        DeviceError, match=r"^device: identity: must be 0x4e4d5341, not '0xffffffff'; is the right bitstream loaded\?$"
    ):
        BlockingDriver(backend).open()


def test_memory_has_ends(device):
    _, backend = device
    first, size = backend.memory
    for address, count in ((first - 1, 1), (first + size, 1), (first + size - 3, 4)):
        with pytest.raises(DeviceError, match="address: must be"):
            blocking(backend.read(address, count))
        with pytest.raises(DeviceError, match="address: must be"):
            blocking(backend.write(address, bytes(count)))
    assert blocking(backend.read(first, 0)) == b""


def test_a_closed_card_is_refused(device):
    _, backend = device
    blocking(backend.close())
    for work in (
        backend.read32(0),
        backend.write32(0, 0),
        backend.read(backend.memory[0], 4),
        backend.write(backend.memory[0], b"1"),
    ):
        with pytest.raises(DeviceError, match=r"must be open; it was closed$"):
            blocking(work)
    blocking(backend.close())


# XDMA alone.
def test_a_transfer_without_progress_is_an_error(fake, prefix):
    backend = XdmaBackend((0, 1 << 16), prefix)
    fake.stuck = True
    with pytest.raises(DeviceError, match=r"^xdma: c2h_0: must read 100 bytes at 0x10, not 0; the transfer stopped$"):
        blocking(backend.read(16, 100))
    with pytest.raises(DeviceError, match=r"^xdma: h2c_0: must write 3 bytes at 0x10, not 0; the transfer stopped$"):
        blocking(backend.write(16, b"abc"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT])
def test_a_lost_link_is_an_error(fake, prefix, number):
    backend = XdmaBackend((0, 1 << 16), prefix)
    fake.error = number
    with pytest.raises(DeviceError, match=r"^xdma: user: must read at 0x58; .*, is the link up\?$"):
        blocking(backend.read32(0x58))


def test_short_reads_of_a_real_file(prefix):
    (prefix.with_name("card_c2h_0")).write_bytes(b"0123456789")
    backend = XdmaBackend((0, 1 << 16), prefix)
    assert blocking(backend.read(3, 4)) == b"3456"
    with pytest.raises(DeviceError, match=r"^xdma: c2h_0: must read 20 bytes at 0x3, not 7; the transfer stopped$"):
        blocking(backend.read(3, 20))
    blocking(backend.write(5, b"abc"))
    assert prefix.with_name("card_h2c_0").read_bytes() == bytes(5) + b"abc"
    blocking(backend.close())


@pytest.mark.parametrize("name", ["user", "h2c_0", "c2h_0"])
def test_a_missing_device_is_one_clear_line(prefix, name):
    before = len(os.listdir("/proc/self/fd"))
    prefix.with_name(f"card_{name}").unlink()
    with pytest.raises(
        DeviceError, match=rf"^xdma: .*card_{name}: must exist; is the card programmed, PCIe rescanned, .*modprobe xdma"
    ):
        XdmaBackend((0, 1), prefix)
    assert len(os.listdir("/proc/self/fd")) == before  # nothing stays open


def test_a_device_that_does_not_open(prefix, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        DeviceError, match=r"^xdma: .*card_user: must open; Permission denied: may you read and write it\?$"
    ):
        XdmaBackend((0, 1), prefix)


def test_the_event_file_wakes_early(fake, prefix):
    events = prefix.with_name("card_events_0")
    os.mkfifo(events)
    backend = XdmaBackend((0, 1 << 16), prefix)
    fake.card.words |= {at("gier"): 1, at("ier"): 1}
    writer = os.open(events, os.O_WRONLY)

    def interrupt():
        time.sleep(0.05)
        fake.card.words[at("isr")] = 1
        os.write(writer, (1).to_bytes(4, "little"))

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert blocking(backend.wait_interrupt(5.0))
    thread.join()
    fake.card.words[at("isr")] = 0
    os.write(writer, (1).to_bytes(4, "little"))  # an event whose cause is gone
    assert not blocking(backend.wait_interrupt(0.05))
    blocking(backend.close())
    os.close(writer)


def test_all_memory_of_the_board(fake, prefix):
    assert XdmaBackend.of(Board.load("vcu1525"), prefix).memory == (0, 64 * 2**30)


# XRT alone.
def test_xrt_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxrt", None)
    with pytest.raises(
        MissingToolError, match=r"^pyxrt is not installed for this Python: install XRT .*; it is not on PyPI$"
    ):
        XrtBackend(tmp_path / "nmsat.xclbin")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"device": 3}, r"^xrt: device 3: must be usable; Could not open device with index '0'$"),
        ({"memory_bytes": 1 << 40}, r"^xrt: a buffer of 1099511627776 bytes: must be usable; std::bad_alloc$"),
        ({"xclbin": "other.xclbin"}, r"other\.xclbin: must be an existing \.xclbin file; make xclbin builds it$"),
    ],
)
def test_xrt_errors_are_one_clear_line(tmp_path, monkeypatch, how, message):
    monkeypatch.setitem(sys.modules, "pyxrt", fake_xrt(FakeCard(1 << 16)))
    (tmp_path / "nmsat.xclbin").write_bytes(b"")
    path = tmp_path / how.pop("xclbin", "nmsat.xclbin")
    with pytest.raises(DeviceError, match=message):
        XrtBackend(path, **{"memory_bytes": 1 << 16} | how)


def test_xrt_with_another_kernel(tmp_path, monkeypatch):
    module = fake_xrt(FakeCard(1 << 16))

    def refuse(*_):
        raise RuntimeError("No such compute unit")

    module.ip = refuse
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    (tmp_path / "nmsat.xclbin").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"^xrt: nmsat:\{nmsat_1\}: must be usable; No such compute unit$"):
        XrtBackend(tmp_path / "nmsat.xclbin", 1 << 16)


# The command line.
def test_run_on_a_card(fake, prefix, tmp_path, capsys):
    from nmsat.__main__ import main

    copies = Program(tuple(d for d in PROGRAM.descriptors if d.kind is Kind.VECTOR), ("layer",), PROGRAM.tensors, {})
    (tmp_path / "program.bin").write_bytes(copies.encode())
    before = bytes(np.random.default_rng(2).integers(0, 256, copies.dram_bytes, dtype=np.uint8))
    (tmp_path / "before.bin").write_bytes(before)
    arguments = [
        "fpga",
        "run",
        str(tmp_path / "program.bin"),
        "--device",
        str(prefix),
        "--image",
        str(tmp_path / "before.bin"),
    ]
    assert main([*arguments, "-o", str(tmp_path / "after.bin"), "--json", str(tmp_path / "counters.json")]) == 0
    expected = bytearray(before)
    expected[4096:8192] = expected[:4096]
    expected[12288 : 12288 + 77] = expected[8192 : 8192 + 77]
    assert (tmp_path / "after.bin").read_bytes() == expected
    assert "2 descriptors" in capsys.readouterr().out
    assert '"descriptor_cycles"' in (tmp_path / "counters.json").read_text()
    assert fake.open_files == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.bin"], "nothing.bin: must be readable; No such file or directory"),
        (["p.bin", "--image", "p.bin"], "p.bin: length: must be 16384 bytes, the program's DRAM, not "),
        (["p.bin"], "xdma: /dev/xdma0_user: must exist; is the card programmed"),
        (["p.bin", "--backend", "xrt"], "--xclbin: must be given with --backend xrt, not None; make xclbin builds it"),
        (["p.bin", "--backend", "xrt", "--xclbin", "x", "--device", "a"], "--device: must be the index of a card"),
        (["p.bin", "--backend", "xrt", "--xclbin", "x"], "pyxrt is not installed for this Python"),
        (["p.bin", "--timeout", "0"], "--timeout: must be more than 0"),
        (["broken.bin"], "broken.bin: must begin with "),
    ],
)
def test_run_without_a_card_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    from nmsat.__main__ import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.bin").write_bytes(PROGRAM.encode())
    (tmp_path / "broken.bin").write_bytes(b"broken")
    assert main(["fpga", "run", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"nmsat: {message}")
    assert err.count("\n") == 1
