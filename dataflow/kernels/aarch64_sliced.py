"""AArch64 assembly of the sliced kernels: four rows of W a vector, one row a lane, one column of X at a time."""

from __future__ import annotations

import numpy as np

from .description import LANES, Kernel
from .packing import SLICE_BYTES


def slice_function(kernel: Kernel, height: int, name: str) -> str:
    """A function of x5 slices of ``height`` rows: x0 a column of X, x1 stream, x3 counts, x4 a column of Y."""
    done, again, row = f".L{name}_done", f".L{name}_steps", f".L{name}_slices"
    lines = [f"{name}:"]
    bounds = list(zip(kernel.clamp or (), ("v30", "v31"), strict=False))
    for bound, register in bounds:
        bits = int(np.float32(bound).view(np.uint32))
        lines += [f"movz w9, #{bits & 0xFFFF}", f"movk w9, #{bits >> 16}, lsl #16", f"dup {register}.4s, w9"]
    lines += [f"{row}:", "mov x10, x1", f"ldr q0, [x1, #{4 * LANES}]", f"add x1, x1, #{SLICE_BYTES}"]
    lines += ["ldr w9, [x3], #4", f"cbz w9, {done}", f"{again}:"]
    for u in range(kernel.unroll):
        lines += _step(kernel)
        last = u == kernel.unroll - 1
        lines += ["subs w9, w9, #1", f"b.ne {again}" if last else f"b.eq {done}"]
    lines.append(f"{done}:")
    for (_, register), order in zip(bounds, ("{b}, {a}", "{a}, {b}"), strict=False):
        lines.append(f"fcmgt v28.4s, {order.format(a='v0.4s', b=register + '.4s')}")
        lines.append(f"bit v0.16b, {register}.16b, v28.16b")
    for lane in range(height):
        lines += [f"ldr w11, [x10, #{4 * lane}]", "add x11, x4, x11", f"st1 {{v0.s}}[{lane}], [x11]"]
    lines += ["subs x5, x5, #1", f"b.ne {row}", "ret"]
    return "\n".join(line if line.endswith(":") else f"    {line}" for line in lines) + "\n"


def _step(kernel: Kernel) -> list[str]:
    """Four columns gathered, times four values."""
    lines = ["ldp w11, w12, [x1]", "ldp w13, w14, [x1, #8]", f"ldr q17, [x1, #{4 * LANES}]", "ldr s16, [x0, x11]"]
    for lane in range(1, LANES):
        offset = f"x{11 + lane}"
        lines += [f"add {offset}, x0, {offset}", f"ld1 {{v16.s}}[{lane}], [{offset}]"]
    lines.append(f"add x1, x1, #{SLICE_BYTES}")
    if kernel.arithmetic == "fma":
        return [*lines, "fmla v0.4s, v16.4s, v17.4s"]
    return [*lines, "fmul v16.4s, v16.4s, v17.4s", "fadd v0.4s, v16.4s, v0.4s"]
