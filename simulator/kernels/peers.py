"""Other people's sparse and dense products, timed beside the generated kernels."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels import Kernel, pack
from ...models.errors import MissingToolError
from . import compiled

F32 = NDArray[np.float32]
Timed = Callable[[int], float]
"""Runs a product ``repeat`` times and returns CPU seconds, all runs together."""


def in_thread(call: Callable[[], object]) -> Timed:
    """Time a call by this thread's CPU clock."""

    def run(repeat: int) -> float:
        start = time.thread_time()
        for _ in range(repeat):
            call()
        return time.thread_time() - start

    return run


def scipy_csr(weights: F32, x: F32) -> Timed:
    """``scipy.sparse.csr_array(W) @ X``."""
    try:
        from scipy import sparse
    except ImportError:
        raise MissingToolError('scipy is not installed; install it with: pip install "nmsat[peers]"') from None
    matrix = sparse.csr_array(weights)
    return in_thread(lambda: matrix @ x)


def blas_dense(weights: F32, x: F32) -> Timed:
    """NumPy's BLAS on one thread, zeros and all."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingToolError('threadpoolctl is not installed; install it with: pip install "nmsat[peers]"') from None
    out = np.empty((len(weights), x.shape[1]), np.float32)

    def run(repeat: int) -> float:
        with threadpool_limits(1):
            return in_thread(lambda: np.matmul(weights, x, out=out))(repeat)

    return run


def numba_rows(weights: F32, x: F32) -> Timed:
    """Our kernel compiled by numba with this processor's widest vectors."""
    packed = pack(Kernel(), weights)
    out = compiled.multiply(packed, x)
    return in_thread(lambda: compiled.multiply(packed, x, out))


class _Xnnpack:
    """The C library, loaded once."""

    library: Any = None

    @classmethod
    def load(cls) -> Any:
        if cls.library is None:
            name = ctypes.util.find_library("XNNPACK")
            if name is None:
                raise MissingToolError("XNNPACK is not installed; install it with: apt-get install libxnnpack0")
            library = ctypes.CDLL(name)
            if library.xnn_initialize(None):
                raise MissingToolError("XNNPACK does not run on this processor; leave it out")
            cls.library = library
        return cls.library


def xnnpack(weights: F32, x: F32) -> Timed:
    """XNNPACK's sparse 1x1 convolution (NCHW, binary32); it takes weights with two thirds of zeros or more."""
    library = _Xnnpack.load()
    n, k = weights.shape
    m = x.shape[1]
    operator, bias = ctypes.c_void_p(), np.zeros(n, np.float32)
    u32, size, real, pointer = ctypes.c_uint32, ctypes.c_size_t, ctypes.c_float, ctypes.c_void_p
    create = library.xnn_create_convolution2d_nchw_f32
    create.argtypes = [u32] * 11 + [size] * 4 + [pointer] * 2 + [real] * 2 + [u32] + [pointer]
    sizes = (0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, k, n, k, n)
    weights = np.ascontiguousarray(weights)
    unbounded = (-np.inf, np.inf)
    status = create(*sizes, weights.ctypes.data, bias.ctypes.data, *unbounded, 0, ctypes.byref(operator))
    if status:
        raise MissingToolError(f"XNNPACK refuses this product (status {status}); leave it out")
    spare = 64  # its vector loads may run past the end of X
    source, out = np.zeros(k * m + spare, np.float32), np.empty(n * m + spare, np.float32)
    source[: k * m] = x.reshape(-1)
    setup = library.xnn_setup_convolution2d_nchw_f32
    setup.argtypes = [pointer, size, size, size, pointer, pointer, pointer]
    if setup(operator, 1, 1, m, source.ctypes.data, out.ctypes.data, None):
        raise MissingToolError("XNNPACK refuses this product's sizes; leave it out")
    run = library.xnn_run_operator
    run.argtypes = [pointer, pointer]
    timed = in_thread(lambda: run(operator, None))
    timed(1)
    expected = weights @ x
    if not np.allclose(out[: n * m].reshape(n, m), expected, atol=1e-3, rtol=1e-3):
        raise MissingToolError("XNNPACK computes another product here; leave it out")
    keep = (weights, bias, source, out)
    return lambda repeat: timed(repeat) if keep else 0.0


_TFJS = """
const tf = require('@tensorflow/tfjs-core');
require('@tensorflow/tfjs-backend-cpu');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const path = require('path');
wasm.setWasmPaths(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm')) + path.sep);
tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
const fs = require('fs');
const [, wFile, xFile, n, k, m] = process.argv;
const read = (file) => new Float32Array(new Uint8Array(fs.readFileSync(file)).buffer);
(async () => {
  await tf.setBackend('wasm');
  const w = tf.tensor2d(read(wFile), [Number(n), Number(k)]), x = tf.tensor2d(read(xFile), [Number(k), Number(m)]);
  const lines = require('readline').createInterface({ input: process.stdin });
  process.stdout.write('0\\n');
  lines.on('line', (line) => {
    const start = process.cpuUsage();
    for (let i = 0; i < Number(line); i++) tf.matMul(w, x).dispose();
    const used = process.cpuUsage(start);
    process.stdout.write((used.user + used.system) / 1e6 + '\\n');
  });
})();
"""


class Tfjs:
    """TensorFlow.js's dense wasm product in Node; ``folder`` holds its node_modules (default: NODE_PATH)."""

    def __init__(self, weights: F32, x: F32, work: Path, folder: str | None = None) -> None:
        node, modules = shutil.which("node"), folder or os.environ.get("NODE_PATH", "")
        if node is None or not (Path(modules) / "@tensorflow/tfjs-backend-wasm").is_dir():
            raise MissingToolError(
                "tfjs is not installed; install it with: npm install @tensorflow/tfjs-core "
                "@tensorflow/tfjs-backend-cpu @tensorflow/tfjs-backend-wasm, and set NODE_PATH to that node_modules"
            )
        files = [work / "w.bin", work / "x.bin"]
        for file, values in zip(files, (weights, x), strict=True):
            file.write_bytes(np.ascontiguousarray(values).tobytes())
        sizes = [*weights.shape, x.shape[1]]
        command = [node, "-e", _TFJS, *map(str, files), *map(str, sizes)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "NODE_PATH": modules}
        )
        self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MissingToolError("tfjs does not start; leave it out")
        return float(json.loads(line))

    def __call__(self, repeat: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{repeat}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


PEERS: dict[str, tuple[str, Callable[[F32, F32], Timed]]] = {
    # name: engine, maker
    "scipy-csr": ("scipy", scipy_csr),
    "blas-dense": ("blas", blas_dense),
    "numba": ("numba", numba_rows),
    "xnnpack": ("libxnnpack", xnnpack),
}
