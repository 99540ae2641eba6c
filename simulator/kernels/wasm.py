"""Generated WebAssembly run in this process by wasmtime (optional extra ``wasm``)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels import wat
from ...dataflow.kernels.packing import Packed
from ...dataflow.kernels.streams import row_constant, streams
from ...models.errors import MissingToolError, NmsatError
from .reference import check_input

F32 = NDArray[np.float32]
GUARD_BYTES = 256
GUARD_WORD = 0xDEADBEEF  # a NaN with a payload: read by mistake it shows, overwritten it shows
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

    def guards(self, memory: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mask (bytes,) of everything outside the buffers."""
        mask = np.ones(len(memory), bool)
        for address, size in self.buffers:
            mask[address : address + size] = False
        return mask


def load_wasmtime() -> Any:
    """The wasmtime package, or how to install it."""
    try:
        import wasmtime
    except ImportError:
        raise MissingToolError('wasmtime is not installed; install it with: pip install "nmsat[wasm]"') from None
    return wasmtime


class WasmProgram:
    """One or more packed products in one module; product i reads X_i and writes Y_i.

    Parameters
    ----------
    products : list of (Packed, int)
        Packed weights and the columns m of each product.

    Raises
    ------
    NmsatError
        If the memory limit of wasm is exceeded (the message says how much is needed).
    MissingToolError
        If wasmtime is not installed.
    """

    def __init__(self, products: list[tuple[Packed, int]]) -> None:
        wasmtime = load_wasmtime()
        self.products, self.memory_map = products, Memory()
        self.inputs, self.outputs = [], []
        self._contents: list[tuple[int, bytes]] = []
        calls = []
        for packed, m in products:
            self.inputs.append(self.memory_map.take(4 * packed.k * m))
            self.outputs.append(self.memory_map.take(4 * packed.n * m))
            calls.append(self._place(packed, m))
        wat.pages(self.memory_map.end)
        layers, functions = [], {}
        for number, (packed, m) in enumerate(products):
            name = f"layer{number}"
            text, more = wat.layer(name, packed.kernel, m, calls[number])
            layers.append((name, text))
            functions |= more
        self.text = wat.module(layers, functions, self.memory_map.end)
        config = wasmtime.Config()
        config.wasm_simd = True
        config.wasm_relaxed_simd = True
        engine = wasmtime.Engine(config)
        self.store = wasmtime.Store(engine)
        instance = wasmtime.Instance(self.store, wasmtime.Module(engine, self.text), [])
        exports = instance.exports(self.store)
        self._memory, self._run = exports["memory"], exports["run"]
        self._layers = [exports[name] for name, _ in layers]
        view = self._view()
        view[:] = np.frombuffer(np.uint32(GUARD_WORD).tobytes() * (len(view) // 4), np.uint8)
        for address, data in self._contents:
            view[address : address + len(data)] = np.frombuffer(data, np.uint8)
        self._mask = self.memory_map.guards(view)
        self._guards = view[self._mask].copy()

    def _place(self, packed: Packed, m: int) -> list[wat.Call]:
        calls = []
        for section in packed.sections:
            s = streams(packed, section, m)
            place = {}
            for name in ("values", "indices", "counts", "scales"):
                data = getattr(s, name)
                place[name] = self.memory_map.take(len(data))
                self._contents.append((place[name], data))
            counts = place["counts"] if s.counts else row_constant(packed, section)
            calls.append(
                wat.Call(
                    section.height,
                    self.inputs[-1] + s.in_start,
                    place["values"],
                    place["indices"],
                    counts,
                    self.outputs[-1] + s.out_start,
                    len(section.counts),
                    4 * m,
                    place["scales"],
                )
            )
        return calls

    def _view(self) -> NDArray[np.uint8]:
        size = self._memory.data_len(self.store)
        base = ctypes.addressof(self._memory.data_ptr(self.store).contents)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(base))

    def write(self, number: int, x: F32) -> None:
        """Copy X (k, m) of product ``number`` into the module's memory."""
        packed, m = self.products[number]
        x = check_input(packed, x)
        if x.shape[1] != m:
            raise NmsatError.rule("kernel", "x", f"of {m} columns", x.shape)
        self._view()[self.inputs[number] :][: x.nbytes] = x.reshape(-1).view(np.uint8)

    def read(self, number: int) -> F32:
        """A copy of Y (n, m) of product ``number``."""
        packed, m = self.products[number]
        data = self._view()[self.outputs[number] :][: 4 * packed.n * m]
        return data.copy().view(np.float32).reshape(packed.n, m)

    def run(self, repeat: int = 1) -> None:
        """Run every product in turn, ``repeat`` (at least 1) times, without leaving wasm."""
        if repeat < 1:
            raise NmsatError.rule("kernel", "repeat", "at least 1", repeat)
        self._run(self.store, repeat)

    def guards_intact(self) -> bool:
        """True while every byte outside the buffers and every stream byte is what it was."""
        view = self._view()
        if not np.array_equal(view[self._mask], self._guards):
            return False
        return all(view[a : a + len(d)].tobytes() == d for a, d in self._contents)


def multiply(packed: Packed, x: F32) -> F32:
    """Y (n, m) of a packed matrix and X (k, m), computed by generated wasm."""
    program = WasmProgram([(packed, check_input(packed, x).shape[1])])
    program.write(0, x)
    program.run()
    return program.read(0)
