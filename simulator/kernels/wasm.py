"""Generated WebAssembly run in this process by wasmtime (optional extra ``wasm``)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels import wat
from ...dataflow.kernels.image import Image, ImageBuilder
from ...dataflow.kernels.packing import Packed
from ...models.errors import MissingToolError, NmsatError
from .reference import check_input

F32 = NDArray[np.float32]
GUARD_WORD = 0xDEADBEEF  # a NaN with a payload: read by mistake it shows, overwritten it shows


def load_wasmtime() -> Any:
    """The wasmtime package, or how to install it."""
    try:
        import wasmtime
    except ImportError:
        raise MissingToolError('wasmtime is not installed; install it with: pip install "nmsat[wasm]"') from None
    return wasmtime


def first_memory(image: Image) -> NDArray[np.uint8]:
    """The memory a module starts from (bytes,): guard words, zeroed buffers, contents."""
    size = wat.pages(image.memory_bytes) * wat.PAGE_BYTES
    memory = np.full(size // 4, GUARD_WORD, "<u4").view(np.uint8)
    for address, data in image.contents:
        memory[address : address + len(data)] = np.frombuffer(data, np.uint8)
    return memory


class WasmInstance:
    """A module in wasmtime, with its memory and its guards.

    Raises
    ------
    MissingToolError
        If wasmtime is not installed.
    """

    def __init__(self, image: Image) -> None:
        wasmtime = load_wasmtime()
        self.image = image
        config = wasmtime.Config()
        config.wasm_simd = True
        config.wasm_relaxed_simd = True
        engine = wasmtime.Engine(config)
        self.store = wasmtime.Store(engine)
        instance = wasmtime.Instance(self.store, wasmtime.Module(engine, image.text), [])
        exports = instance.exports(self.store)
        self._memory, self._run = exports["memory"], exports["run"]
        self._layers = {name: exports[name] for name in image.layers}
        view = self._view()
        view[:] = first_memory(image)
        self._mask = np.ones(len(view), bool)
        for address, size in image.buffers:
            self._mask[address : address + size] = False
        self._guards = view[self._mask].copy()

    def _view(self) -> NDArray[np.uint8]:
        size = self._memory.data_len(self.store)
        base = ctypes.addressof(self._memory.data_ptr(self.store).contents)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(base))

    def put(self, address: int, values: F32) -> None:
        """Copy binary32 values to an address."""
        self._view()[address:][: values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)

    def get(self, address: int, shape: tuple[int, ...]) -> F32:
        """A copy of the binary32 values at an address."""
        data = self._view()[address:][: 4 * int(np.prod(shape))]
        return data.copy().view(np.float32).reshape(shape)

    def run(self, repeat: int = 1, layer: str | None = None) -> None:
        """Run every layer in turn, or one, ``repeat`` (at least 1) times, without leaving wasm."""
        if repeat < 1:
            raise NmsatError.rule("kernel", "repeat", "at least 1", repeat)
        (self._run if layer is None else self._layers[layer])(self.store, repeat)

    def guards_intact(self) -> bool:
        """True while every byte outside the buffers and every byte of the contents is what it was."""
        view = self._view()
        if not np.array_equal(view[self._mask], self._guards):
            return False
        return all(view[a : a + len(d)].tobytes() == d for a, d in self.image.contents)


class WasmProgram(WasmInstance):
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
        self.products = products
        image, self.inputs, self.outputs = products_image(products)
        super().__init__(image)

    @property
    def text(self) -> str:
        """The module in text form."""
        return self.image.text

    def write(self, number: int, x: F32) -> None:
        """Copy X (k, m) of product ``number`` into the module's memory."""
        packed, m = self.products[number]
        x = check_input(packed, x)
        if x.shape[1] != m:
            raise NmsatError.rule("kernel", "x", f"of {m} columns", x.shape)
        self.put(self.inputs[number], x)

    def read(self, number: int) -> F32:
        """A copy of Y (n, m) of product ``number``."""
        packed, m = self.products[number]
        return self.get(self.outputs[number], (packed.n, m))


def products_image(products: list[tuple[Packed, int]]) -> tuple[Image, list[int], list[int]]:
    """A module of products named ``layer0``, ``layer1``, ..., and the addresses of their X and Y."""
    builder, inputs, outputs = ImageBuilder(), [], []
    for number, (packed, m) in enumerate(products):
        inputs.append(builder.memory.take(4 * packed.k * m))
        outputs.append(builder.memory.take(4 * packed.n * m))
        builder.addresses |= {f"x{number}": inputs[-1], f"y{number}": outputs[-1]}
        builder.product(f"layer{number}", packed, m, inputs[-1], outputs[-1])
    return builder.build(), inputs, outputs


def multiply(packed: Packed, x: F32) -> F32:
    """Y (n, m) of a packed matrix and X (k, m), computed by generated wasm."""
    program = WasmProgram([(packed, check_input(packed, x).shape[1])])
    program.write(0, x)
    program.run()
    return program.read(0)
