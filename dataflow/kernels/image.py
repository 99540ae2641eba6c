"""A wasm module and the memory it starts from: functions, addresses, weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...models.errors import NmsatError
from . import wat
from .packing import Packed
from .panels import copied_bytes
from .streams import row_constant, streams

GUARD_BYTES = 256
ALIGN = 64


class Memory:
    """Addresses of a linear memory: every buffer between guard words, none overlapping."""

    def __init__(self) -> None:
        self.end = GUARD_BYTES
        self.buffers: list[tuple[int, int]] = []

    def take(self, size_bytes: int) -> int:
        """Address of a new buffer, 64-byte aligned, followed by guard words."""
        address = -(-self.end // ALIGN) * ALIGN
        self.end = address + size_bytes + GUARD_BYTES
        self.buffers.append((address, size_bytes))
        return address


@dataclass(frozen=True, slots=True)
class Image:
    """What an engine needs to run: any engine that takes this text and these bytes gives the same result.

    Attributes
    ----------
    text : str
        The module, WebAssembly text format.
    memory_bytes : int
        Bytes used, the guard behind the last buffer included.
    contents : tuple of (int, bytes)
        What lies where at the start: weights, indices, counts.
    buffers : tuple of (int, int)
        (address, bytes) of every buffer; everything else is guard.
    layers : tuple of str
        Exported functions in running order, each ``name(repeat)``; ``run(repeat)`` runs them all.
    addresses : dict of str to int
        Exported i32 constants: where inputs and outputs lie.
    """

    text: str
    memory_bytes: int
    contents: tuple[tuple[int, bytes], ...]
    buffers: tuple[tuple[int, int], ...]
    layers: tuple[str, ...]
    addresses: dict[str, int]

    def whole_text(self) -> str:
        """The module with its contents as data segments: nothing else is needed to run it."""
        end = self.text.rindex(")")
        lines = []
        for address, content in self.contents:
            escaped = "".join(f"\\{byte:02x}" for byte in content)
            lines.append(f'  (data (i32.const {address}) "{escaped}")\n')
        return self.text[:end] + "".join(lines) + ")\n"


@dataclass(slots=True)
class ImageBuilder:
    """Collects layers, the functions they call and the data they read."""

    memory: Memory = field(default_factory=Memory)
    contents: list[tuple[int, bytes]] = field(default_factory=list)
    layers: list[tuple[str, str]] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)

    def data(self, content: bytes) -> int:
        """Address of a buffer that starts with ``content``."""
        address = self.memory.take(len(content))
        self.contents.append((address, content))
        return address

    def add(self, name: str, text: str) -> None:
        """A layer's function ``$name`` without arguments."""
        if name in dict(self.layers):
            raise NmsatError.rule("wasm", "layer", "named once", name)
        self.layers.append((name, text))

    def product(self, name: str, packed: Packed, m: int, x_address: int, y_address: int) -> None:
        """A layer that reads X (k, m) and writes Y (n, m), both binary32 and contiguous.

        Raises
        ------
        NmsatError
            If an address is not a multiple of 4, or X and Y overlap.
        """
        x_bytes, y_bytes = 4 * packed.k * m, 4 * packed.n * m
        for key, address in (("x", x_address), ("y", y_address)):
            if address % 4:
                raise NmsatError.rule(name, key, "aligned to 4 bytes", address)
        if x_address < y_address + y_bytes and y_address < x_address + x_bytes:
            raise NmsatError.rule(name, "y", f"clear of the {x_bytes} bytes of x at {x_address}", y_address)
        calls, copied = [], copied_bytes(packed.kernel, m, packed.k)
        scratch = self.memory.take(copied) if copied else 0
        for section in packed.sections:
            s = streams(packed, section, m)
            values, indices, counts, scales = (self.data(b) for b in (s.values, s.indices, s.counts, s.scales))
            calls.append(
                wat.Call(
                    height=section.height,
                    in_bytes=x_address,
                    first=s.in_start,
                    values=values,
                    indices=indices,
                    counts=counts if s.counts else row_constant(packed, section),
                    out_bytes=y_address + s.out_start,
                    blocks=len(section.counts),
                    pitch=4 * m,
                    scales=scales,
                    x_pitch=packed.kernel.x_pitch(m),
                    k=packed.k,
                    scratch=scratch,
                )
            )
        text, functions = wat.layer(name, packed.kernel, m, calls)
        self.functions |= functions
        self.add(name, text)

    def build(self) -> Image:
        """The finished module.

        Raises
        ------
        NmsatError
            If the memory of wasm cannot hold it (the message says how much is needed).
        """
        text = wat.module(self.layers, self.functions, self.memory.end, self.addresses)
        names = tuple(name for name, _ in self.layers)
        return Image(text, self.memory.end, tuple(self.contents), tuple(self.memory.buffers), names, self.addresses)
