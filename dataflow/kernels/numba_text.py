"""Python text of a kernel for numba: one function a block height, its arithmetic and clamp written out."""

from __future__ import annotations

from .description import Kernel

_FUSED = """
@intrinsic
def fma(typing, a, b, c):
    def build(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), build

"""


def module(kernel: Kernel, heights: tuple[int, ...]) -> str:
    """A module with ``section_h(rows, counts, channels, values, bias, scale, x, y)`` for each block height h.

    Arguments are a section's arrays, the biases (n,), the scales (n,; unused unless int8), X (k, m) and Y (n, m). It
    needs numba alone, and gives the reference's bits.
    """
    fused = kernel.arithmetic == "fma"
    names = (
        "from numba import njit, types\nfrom numba.extending import intrinsic" if fused else "from numba import njit"
    )
    parts = [f'"""{kernel.name}, generated."""\n\nimport numpy as np\n{names}\n', _FUSED if fused else ""]
    parts += [_section(kernel, height) for height in heights]
    return "\n".join(parts)


def _section(kernel: Kernel, height: int) -> str:
    madd = "fma({w}, {x}, {c})" if kernel.arithmetic == "fma" else "{w} * {x} + {c}"
    scaled = kernel.values == "int8"
    lines = [
        '@njit(error_model="numpy")',
        f"def section_{height}(rows, counts, channels, values, bias, scale, x, y):",
        "    m, at = x.shape[1], 0",
        "    for block in range(len(rows)):",
    ]
    for h in range(height):
        lines.append(f"        y[rows[block, {h}]] = {'np.float32(0)' if scaled else f'bias[rows[block, {h}]]'}")
    lines.append("        for _ in range(counts[block]):")
    for h in range(height):
        step = madd.format(w="w", x="source[j]", c="target[j]")
        if h == 0 or kernel.index == "sliced":
            lines.append(f"            source = x[channels[at, {h}]]")
        lines += [f"            w, target = np.float32(values[at, {h}]), y[rows[block, {h}]]"]
        lines += ["            for j in range(m):", f"                target[j] = {step}"]
    lines.append("            at += 1")
    if scaled or kernel.clamp is not None:
        lines.append(f"        for h in range({height}):")
        lines += ["            row = rows[block, h]", "            target = y[row]"]
        lines.append("            for j in range(m):")
        value = madd.format(w="target[j]", x="scale[row]", c="bias[row]") if scaled else "target[j]"
        lines.append(f"                v = {value}")
        for bound, sign in zip(kernel.clamp or (), "<>", strict=False):
            limit = f"np.float32({bound!r})"
            lines.append(f"                v = {limit} if v {sign} {limit} else v")
        lines.append("                target[j] = v")
    return "\n".join(lines) + "\n"
