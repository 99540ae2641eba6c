"""The AArch64 text of the kernels' loops, and its reading into instruction streams.

Registers: x1 input column, x2 values, x3 index steps, x4 blocks left, x5 output, x6 output pitch, x7 counts; v0 to v7
hold inputs, v24 to v27 weights, the sums use the rest.
"""

from __future__ import annotations

import re

from ...dataflow.kernels.description import Kernel
from ...models.errors import NmsatError
from .pipeline import Instruction

SUMS = (*range(8, 24), 28, 29, 30, 31)
_REGISTER = re.compile(r"\b([vqdswx])(\d+)\b")


def loop_text(kernel: Kernel, height: int, vectors: int) -> list[str]:
    """One iteration of the loop over stored blocks of ``height`` rows, for a panel of ``vectors`` vectors.

    unroll 1 is the shipped kernels' loop: a replicated weight, one index step, ``vectors`` multiply-adds. unroll 2 and
    4 (height 1) read the weights of an iteration as one vector and multiply by lane.

    Raises
    ------
    NmsatError
        If the sums do not fit the register file, or for an int8 or packed N:M kernel.
    """
    if height * vectors > len(SUMS):
        raise NmsatError.rule("kernel", "mr", f"at most {4 * (len(SUMS) // height)} for {height} rows", 4 * vectors)
    if kernel.values != "f32" or kernel.index in ("packed", "sliced"):
        raise NmsatError.rule("kernel", "index", "delta, absolute or dense, f32 values", kernel.name)
    lines = _weights(kernel, height)
    for step in range(kernel.unroll):
        lines += _column(kernel, height, vectors, step)
    lines += [f"subs x4, x4, #{kernel.unroll}", "b.ne 1b"]
    return lines


def _weights(kernel: Kernel, height: int) -> list[str]:
    lines, unroll = [], kernel.unroll
    if height == 1 and unroll == 1:
        lines.append("ld1r {v24.4s}, [x2], #4")
    elif height * unroll == 2:
        lines += ["ldr d24, [x2]", "add x2, x2, #8"]
    else:
        quads = -(-height * unroll // 4)
        lines += [f"ldr q{24 + i}, [x2, #{16 * i}]" for i in range(quads)]
        lines.append(f"add x2, x2, #{16 * quads}")
    if kernel.index != "dense":
        lines += ["ldpsw x10, x11, [x3], #8", "ldpsw x12, x13, [x3], #8"][: unroll // 2] or ["ldrsw x10, [x3], #4"]
    return lines


def _column(kernel: Kernel, height: int, vectors: int, step: int) -> list[str]:
    base, lines = "x1", []
    if kernel.index == "absolute":
        base = "x14"
        lines.append(f"add x14, x1, x{10 + step}")
    pairs = vectors // 2
    lines += [f"ldp q{2 * i}, q{2 * i + 1}, [{base}, #{32 * i}]" for i in range(pairs)]
    if vectors % 2:
        lines.append(f"ldr q{vectors - 1}, [{base}, #{16 * (vectors - 1)}]")
    for h in range(height):
        lane = step * height + h
        weight = "v24.4s" if height * kernel.unroll == 1 else f"v{24 + lane // 4}.s[{lane % 4}]"
        lines += [f"fmla v{SUMS[h * vectors + v]}.4s, v{v}.4s, {weight}" for v in range(vectors)]
    if kernel.index == "delta":
        lines.append(f"add x1, x1, x{10 + step}")
    elif kernel.index == "dense":
        lines.append("add x1, x1, x6")
    return lines


def row_text(kernel: Kernel, height: int, vectors: int) -> tuple[list[str], list[str]]:
    """What runs before and after the loop for every row block: count and bias; clamp, stores, step to the next."""
    head = ["ldr w4, [x7], #4"]
    for h in range(height):
        first = SUMS[h * vectors]
        head.append(f"ld1r {{v{first}.4s}}, [x2], #4")
        head += [f"mov v{SUMS[h * vectors + v]}.16b, v{first}.16b" for v in range(1, vectors)]
    head.append("cbz x4, 2f")
    tail: list[str] = []
    for h in range(height):
        sums = [SUMS[h * vectors + v] for v in range(vectors)]
        if kernel.clamp is not None:
            tail += [f"{op} v{s}.4s, v{s}.4s, v{b}.4s" for op, b in (("fmax", 30), ("fmin", 31)) for s in sums]
        base = "x5" if h == 0 else "x15"
        tail += [
            f"stp q{a}, q{b}, [{base}, #{32 * i}]" for i, (a, b) in enumerate(zip(sums[::2], sums[1::2], strict=False))
        ]
        if vectors % 2:
            tail.append(f"str q{sums[-1]}, [{base}, #{16 * (vectors - 1)}]")
        tail.append(f"add x15, {base}, x6")
    return head, [*tail, "add x5, x15, x6", "subs x8, x8, #1", "b.ne 0b"]


_OPS = {
    "ld1r": "broadcast_load",
    "fmla": "fma",
    "fmul": "multiply",
    "fadd": "add",
    "fmax": "minmax",
    "fmin": "minmax",
    "dup": "broadcast",
    "add": "alu",
    "sub": "alu",
    "subs": "alu",
    "cmp": "alu",
    "cbz": "branch",
    "cbnz": "branch",
    "b": "branch",
    "prfm": "prefetch",
    "ldpsw": "scalar_load_pair",
    "ldrsw": "scalar_load",
}


def decode(lines: list[str]) -> tuple[Instruction, ...]:
    """Read assembly text into a stream; an unknown mnemonic is an :class:`NmsatError`."""
    return tuple(_instruction(line) for line in lines)


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" ")
    registers = [("v" if kind in "vqds" else "x") + number for kind, number in _REGISTER.findall(rest)]
    vector = bool(re.match(r"\{?[vqds]\d", rest))
    op = _OPS.get(name.split(".")[0], "")
    if name in ("ldr", "ldp", "str", "stp"):
        kind = "load" if name[0] == "l" else "store"
        op = f"{'vector' if vector else 'scalar'}_{kind}" + ("_pair" if name[2] == "p" else "")
    elif name == "mov":
        op = "move" if vector else "alu"
    elif op == "alu" and "sxtw" in rest:
        op = "alu_extended"
    if not op:
        raise NmsatError.rule("stream", "mnemonic", "one the cycle model knows", name)
    if op == "branch":
        return Instruction(op, (), tuple(registers), exits=False)
    if "[" in rest and name not in ("fmla", "fmul", "dup"):
        before, _, address = rest.partition("[")
        data = [("v" if kind in "vqds" else "x") + number for kind, number in _REGISTER.findall(before)]
        base = registers[len(data)]
        back = base if re.search(r"\], *#", "[" + address) else ""
        if "store" in op:
            return Instruction(op, (), (*data, base), writeback=back)
        return Instruction(op, tuple(data), (base,), writeback=back)
    if op == "fma":
        return Instruction(op, (registers[0],), tuple(registers), addend=registers[0])
    if name == "cmp":
        return Instruction(op, (), tuple(registers))
    return Instruction(op, (registers[0],), tuple(registers[1:]))
