"""The x86-64 code that V8's optimising compiler makes of one wasm function, from Node's record of generated code.

Node writes every function it compiles to a jitdump file (the format of Linux perf, ``tools/perf/Documentation/
jitdump-specification.txt``) when asked to, so the code that runs is read instead of guessed.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

from ...models.errors import NmsatError
from .node import find_node
from .wasm import load_wasmtime

_COMPILE = "new WebAssembly.Module(require('fs').readFileSync(process.argv[1]))"
_FLAGS = (
    "--perf-prof",
    "--no-liftoff",  # the optimising compiler alone, and at once
    "--no-wasm-lazy-compilation",
    "--no-wasm-dynamic-tiering",
    "--experimental-wasm-relaxed-simd",
)
_MAGIC = 0x4A695444
_LOAD = 0  # record kind: a function's code


def function_code(text: str, name: str) -> bytes:
    """Machine code of the function ``name`` of a module in WebAssembly text.

    Raises
    ------
    MissingToolError
        If Node.js or wasmtime (which translates the text) is not installed.
    NmsatError
        If Node refuses the module or leaves no record of the function.
    """
    node, wasmtime = find_node(), load_wasmtime()
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "module.wasm"
        module.write_bytes(wasmtime.wat2wasm(text))
        command = [node, *_FLAGS, "-e", _COMPILE, str(module)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise NmsatError.rule("node", "module", "compiled by Node.js", done.stderr.strip().splitlines()[-1:])
        records = [path.read_bytes() for path in sorted(Path(folder).glob("jit-*.dump"))]
    for data in records:
        for found, code in _functions(data):
            if name in found and "turbofan" in found:
                return code
    raise NmsatError.rule("node", "code", f"recorded for {name}; Node.js 20 on Linux does", f"{len(records)} records")


def _functions(data: bytes) -> list[tuple[str, bytes]]:
    """(name, code) of every function in a jitdump file."""
    magic, _, at = struct.unpack_from("<III", data, 0)
    if magic != _MAGIC:
        raise NmsatError.rule("node", "jitdump", f"begun by {_MAGIC:#x}", hex(magic))
    found = []
    while at + 16 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == _LOAD:
            (code_bytes,) = struct.unpack_from("<Q", data, at + 40)
            end = data.index(b"\0", at + 56)
            found.append((data[at + 56 : end].decode(errors="replace"), data[end + 1 : end + 1 + code_bytes]))
        at += max(size, 16)
    return found
