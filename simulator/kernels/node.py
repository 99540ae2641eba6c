"""Generated WebAssembly run by Node.js (V8), when it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels.image import Image
from ...dataflow.kernels.packing import Packed
from ...models.errors import MissingToolError, NmsatError
from .reference import check_input
from .wasm import first_memory, load_wasmtime, products_image

F32 = NDArray[np.float32]
_SCRIPT = Path(__file__).with_name("engine.js")


def find_node() -> str:
    """Path of the ``node`` program, or how to install it."""
    path = shutil.which("node")
    if path is None:
        raise MissingToolError("Node.js is not installed; install it with: apt-get install nodejs (20 or newer)")
    return path


class NodeInstance:
    """A module in a Node process of its own; close it, or use it in a ``with`` statement.

    Raises
    ------
    MissingToolError
        If Node.js or wasmtime (which translates the module's text) is not installed.
    NmsatError
        If Node refuses the module.
    """

    def __init__(self, image: Image) -> None:
        node, wasmtime = find_node(), load_wasmtime()
        self.image = image
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "bytes"
        module = Path(self._folder.name) / "module.wasm"
        module.write_bytes(wasmtime.wat2wasm(image.text))
        self._start = first_memory(image)
        self._file.write_bytes(self._start.tobytes())
        command = [node, "--experimental-wasm-relaxed-simd", str(_SCRIPT), str(module), str(self._file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask("put", self._file, 0)

    def _ask(self, *words: object) -> float:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write("\t".join(map(str, words)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"node ended with code {process.wait()}"}
        if "error" in answer:
            raise NmsatError.rule("node", str(words[0]), "accepted by Node.js", answer["error"])
        return float(answer["value"])

    @property
    def process(self) -> int:
        """Process id of this Node."""
        return self._process.pid

    def put(self, address: int, values: F32) -> None:
        """Copy binary32 values to an address."""
        self._file.write_bytes(np.ascontiguousarray(values).tobytes())
        self._ask("put", self._file, address)

    def get(self, address: int, shape: tuple[int, ...]) -> F32:
        """A copy of the binary32 values at an address."""
        self._ask("get", self._file, address, 4 * int(np.prod(shape)))
        return np.frombuffer(self._file.read_bytes(), np.float32).reshape(shape).copy()

    def run(self, repeat: int = 1, layer: str = "run") -> float:
        """CPU seconds of the whole Node process for ``repeat`` runs of a layer, or of all."""
        if repeat < 1:
            raise NmsatError.rule("kernel", "repeat", "at least 1", repeat)
        return self._ask("run", layer, repeat)

    def guards_intact(self) -> bool:
        """True while every byte outside the buffers and every byte of the contents is what it was."""
        self._ask("get", self._file, 0, len(self._start))
        now = np.frombuffer(self._file.read_bytes(), np.uint8)
        free = np.zeros(len(now), bool)
        for address, size in self.image.buffers:
            free[address : address + size] = True
        for address, data in self.image.contents:
            free[address : address + len(data)] = False
        return bool(((now == self._start) | free).all())

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> NodeInstance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def multiply(packed: Packed, x: F32) -> tuple[F32, bool]:
    """Y (n, m) of a packed matrix and X (k, m) from Node, and whether its guards are intact."""
    m = check_input(packed, x).shape[1]
    image, inputs, outputs = products_image([(packed, m)])
    with NodeInstance(image) as node:
        node.put(inputs[0], x)
        node.run()
        return node.get(outputs[0], (packed.n, m)), node.guards_intact()
