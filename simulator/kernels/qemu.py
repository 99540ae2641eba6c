"""Generated AArch64 assembly run under user-mode emulation, when the tools are installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels import aarch64
from ...dataflow.kernels.packing import Packed
from ...models.errors import MissingToolError, NmsatError
from .reference import check_input
from .wasm import GUARD_WORD

F32 = NDArray[np.float32]
_TOOLS = ("aarch64-linux-gnu-as", "aarch64-linux-gnu-ld", "qemu-aarch64")
_GUARD_WORDS = 1024
# A program without a C library: reads X from standard input, runs the layer, writes all buffers and guards.
_START = """
.text
.global _start
_start:
    ldr x19, =x
    ldr x20, ={x_bytes}
.Lread:
    cbz x20, .Lrun
    mov x0, #0
    mov x1, x19
    mov x2, x20
    mov x8, #63
    svc #0
    cmp x0, #0
    b.le .Lfail
    add x19, x19, x0
    sub x20, x20, x0
    b .Lread
.Lrun:
    ldr x0, =x
    ldr x1, =y
    bl nmsat_layer
    ldr x19, =region
    ldr x20, =region_end
    sub x20, x20, x19
.Lwrite:
    cbz x20, .Ldone
    mov x0, #1
    mov x1, x19
    mov x2, x20
    mov x8, #64
    svc #0
    cmp x0, #0
    b.le .Lfail
    add x19, x19, x0
    sub x20, x20, x0
    b .Lwrite
.Ldone:
    mov x0, #0
    mov x8, #93
    svc #0
.Lfail:
    mov x0, #1
    mov x8, #93
    svc #0
    .ltorg
.data
.balign 4096
region:
    .fill {guard}, 4, {word}
x:  .fill {x_words}, 4, 0
    .fill {guard}, 4, {word}
y:  .fill {y_words}, 4, {word}
    .fill {guard}, 4, {word}
region_end:
"""


def find_tools() -> None:
    """Do nothing, or say how to install what is missing."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        install = "apt-get install binutils-aarch64-linux-gnu qemu-user"
        raise MissingToolError(f"{', '.join(missing)} not installed; install with: {install}")


def multiply(packed: Packed, x: F32) -> tuple[F32, bool]:
    """Y (n, m) of a packed matrix and X (k, m) from emulated AArch64, and whether its guards are intact.

    Raises
    ------
    MissingToolError
        If the assembler, the linker or qemu is not installed.
    NmsatError
        If the program does not assemble or ends with an error.
    """
    find_tools()
    x = check_input(packed, x)
    m, guard = x.shape[1], _GUARD_WORDS
    start = _START.format(x_bytes=x.nbytes, guard=guard, word=GUARD_WORD, x_words=x.size, y_words=packed.n * m)
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder) / "a.s", Path(folder) / "a.out"
        source.write_text(start + aarch64.layer(packed, m))
        _call("aarch64-linux-gnu-as", "-o", f"{folder}/a.o", str(source))
        _call("aarch64-linux-gnu-ld", "-o", str(binary), f"{folder}/a.o")
        written = np.frombuffer(_call("qemu-aarch64", str(binary), data=x.tobytes()), np.uint32)
    first, last = guard + x.size + guard, guard + x.size + guard + packed.n * m
    around = np.concatenate([written[:guard], written[guard + x.size : first], written[last:]])
    same_x = written[guard : guard + x.size].tobytes() == x.tobytes()
    y = written[first:last].view(np.float32).reshape(packed.n, m).copy()
    return y, bool((around == GUARD_WORD).all()) and same_x


def _call(*command: str, data: bytes = b"") -> bytes:
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-1:])
        raise NmsatError.rule("aarch64", command[0], "successful", done.returncode, said)
    return done.stdout
