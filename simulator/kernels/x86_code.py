"""The x86-64 code that a wasm engine makes of a panel function, read into instruction streams (extra ``wasm``).

Register pressure, spills and the moves around a loop are the compiler's doing, so the code itself is read instead of
guessed: compiling one panel function takes milliseconds (Node.js: a tenth of a second) and its streams are cached.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...dataflow.kernels.description import Kernel
from ...dataflow.kernels.panels import Panel
from ...dataflow.kernels.wat import panel_function, panel_name
from ...models.errors import MissingToolError, NmsatError
from .pipeline import Instruction
from .row_streams import RowCode
from .v8_code import function_code

_FUSED_JUMPS = frozenset({"cmp", "test", "sub", "add", "and", "dec", "inc"})
_MOVES = {"movdqa", "movaps", "movapd", "vmovdqa", "vmovaps", "vmovapd"}
_VECTOR_OPS = {
    "mulps": "multiply",
    "mulss": "multiply",
    "addps": "add",
    "addss": "add",
    "subps": "add",
    "maxps": "minmax",
    "minps": "minmax",
    "maxss": "minmax",
    "minss": "minmax",
    "pbroadcastd": "broadcast",
    "broadcastss": "broadcast",
    "shufps": "broadcast",
    "pshufd": "broadcast",
    "movd": "int_to_vector",
    "cvtsi2ss": "int_to_vector",
    "insertps": "broadcast",
    "xorps": "logic",
    "pxor": "logic",
    "andps": "logic",
    "orps": "logic",
    "cvtdq2ps": "add",
    "cmpps": "minmax",
    "blendvps": "broadcast",
    "pmovsxbd": "broadcast",
}


@lru_cache(maxsize=4096)
def panel_code(kernel: Kernel, height: int, panel: Panel, engine: str = "wasmtime") -> RowCode:
    """Streams of the code of one panel function, made by ``engine``: wasmtime or v8.

    Raises
    ------
    MissingToolError
        If wasmtime or capstone, or for v8 Node.js, is not installed.
    NmsatError
        If the code has no loop over stored blocks or an instruction that the model does not know.
    """
    try:
        import capstone
        import wasmtime
    except ImportError:
        raise MissingToolError(
            'reading wasm code needs wasmtime and capstone; install them with: pip install "nmsat[wasm]"'
        ) from None
    name = panel_name(kernel, height, panel)
    text = f'(module (memory 1 1)\n{panel_function(kernel, height, panel)}\n(export "f" (func ${name})))'
    if engine == "v8":
        code = function_code(text, name)
    else:
        config = wasmtime.Config()
        config.wasm_simd = config.wasm_relaxed_simd = True
        code = _text_section(bytes(wasmtime.Module(wasmtime.Engine(config), text).serialize()))
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    found: list[Any] = []
    for item in decoder.disasm(code, 0):
        found.append(item)
        if item.mnemonic == "ret":
            break
    code = _split(found)
    rows = 1 if kernel.index == "sliced" else height  # a slice's rows share a vector
    written = rows * len(panel.starts) * kernel.unroll * (kernel.pattern.keep if kernel.pattern else 1)
    multiplies = sum(x.op.startswith(("fma", "multiply")) for x in code.loops[-1])
    if not multiplies or multiplies % written:
        raise NmsatError.rule(engine, "code", f"a loop of a multiple of {written} multiplies", multiplies)
    return replace(code, repeats=multiplies // written)


def _text_section(elf: bytes) -> bytes:
    """The .text bytes of an ELF64 file: the compiled functions, the first one at offset 0."""
    table, size, count, names = struct.unpack_from("<Q10xHHH", elf, 0x28)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    strings = sections[names][4]
    for name, _, _, _, offset, length in sections:
        if elf[strings + name :].startswith(b".text\0"):
            return elf[offset : offset + length]
    raise NmsatError.rule("wasmtime", "module", "an ELF file with a .text section", len(elf))


def _target(item: Any) -> int:
    return int(item.op_str, 16) if item.mnemonic.startswith("j") else -1


def _split(code: list[Any]) -> RowCode:
    """Head, loops and tail of a row: the innermost loops that multiply, the paths around them and around panels."""
    at = {item.address: i for i, item in enumerate(code)}
    back = [(at[_target(x)], i) for i, x in enumerate(code) if at.get(_target(x), len(code)) <= i]
    multiplies = [i for i, x in enumerate(code) if re.search("fmadd|mulps|mulss", x.mnemonic)]
    spans = [(a, b) for a, b in back if any(a <= i <= b for i in multiplies)]
    inner = sorted(s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans))
    outer = [s for s in spans if s not in inner and all(s[0] <= i[0] and i[1] <= s[1] for i in inner)]
    if not inner or not outer:
        raise NmsatError.rule("wasm engine", "code", "a loop over rows around a loop over blocks", len(code))
    row, every = max(outer), min(outer)  # of grouped panels: a row in one panel, and in all of them
    paths, where = [], row[0]
    for first, last in inner:
        paths.append(_path(code, at, where, first, last))  # a loop may be entered behind its first instructions
        where = last
        if code[last].mnemonic == "jmp":  # rotated: the exit is in the middle
            targets = [at.get(_target(x), -1) for x in code[first:last] if x.mnemonic.startswith("j")]
            where = next(target for target in targets if target > last)
        else:
            where += 1
    tail = [*_path(code, at, where, row[1]), code[row[1]]]
    around = []
    if every != row:
        around = [*_path(code, at, every[0], row[0]), *_path(code, at, row[1] + 1, every[1]), code[every[1]]]
    loops = tuple(_stream([*_path(code, at, a, b), code[b]], last_exits=True) for a, b in inner)
    between = tuple(_stream(path) for path in paths[1:])
    return RowCode(_stream(paths[0]), loops, _stream(tail), between, around=_stream(around))


def _path(code: list[Any], at: dict[int, int], start: int, first: int, last: int | None = None) -> list[Any]:
    """Instructions of the shortest path from ``start`` up to, not including, ``first`` (to ``last``, if given)."""
    goals = range(first, (first if last is None else last) + 1)
    seen: dict[int, int | None] = {start: None}
    queue = [start]
    goal = first
    for i in queue:
        if i in goals:
            goal = i
            break
        steps = [] if code[i].mnemonic in ("jmp", "ret") else [i + 1]
        steps += [at[_target(code[i])]] if _target(code[i]) in at else []
        for step in steps:
            if step not in seen and step < len(code):
                seen[step] = i
                queue.append(step)
    if goal not in seen:
        raise NmsatError.rule("wasm engine", "code", "connected", f"{start} to {goal}")
    path, here = [], seen[goal]
    while here is not None:
        path.append(code[here])
        here = seen[here]
    return path[::-1]


def _stream(code: list[Any], last_exits: bool = False) -> tuple[Instruction, ...]:
    """Decode; a compare fuses with the jump behind it, which then waits for the compare's operands."""
    found: list[Instruction] = []
    compared: tuple[str, ...] = ()
    checked = False  # the stack against its limit in memory: V8's jump behind it is never taken and ends no block
    for number, item in enumerate(code):
        follower = code[number + 1].mnemonic if number + 1 < len(code) else ""
        if checked:
            checked = False
            continue
        if item.op_str.startswith("rsp, ") and item.mnemonic == "cmp" and follower.startswith("j"):
            checked = True
            found.append(Instruction("alu_load", (), _names(item, item.regs_access()[0])))
            continue
        if item.mnemonic in ("cmp", "test") and follower.startswith("j") and "ptr" not in item.op_str:
            compared = _names(item, item.regs_access()[0])
            continue
        decoded = _instruction(item)
        if decoded.op == "branch":
            decoded = Instruction("branch", (), compared)
        found.append(decoded)
    if last_exits:
        where = max(i for i, x in enumerate(found) if x.op == "branch")
        found[where] = Instruction("branch", (), found[where].reads, exits=True)
    return tuple(found)


def _names(item: Any, registers: Any) -> tuple[str, ...]:
    names = (item.reg_name(r) for r in registers)
    return tuple(_canonical(name) for name in names if not name.endswith("flags"))


def _canonical(name: str) -> str:
    """rax of eax, ax and al; r8 of r8d; xmm3 stays."""
    match = re.fullmatch(r"(r\d+)[dwb]?", name)
    if match:
        return match[1]
    return "r" + name[1:] if len(name) == 3 and name[0] == "e" else name


def _instruction(item: Any) -> Instruction:
    import capstone

    reads, writes = (_names(item, registers) for registers in item.regs_access())
    op, slot, stores = item.mnemonic, "", False
    operands = item.operands
    memory = [o for o in operands if o.type == capstone.x86.X86_OP_MEM]
    if memory and op != "lea":
        stores = operands[0].type == capstone.x86.X86_OP_MEM and op not in ("cmp", "test")
        base = item.reg_name(memory[0].mem.base) if memory[0].mem.base else ""
        slot = f"[{base}+{memory[0].mem.disp}]" if base in ("rsp", "rbp") else ""
    vector = any(r.startswith(("xmm", "ymm")) for r in (*reads, *writes))
    kind = _kind(op, bool(memory) and op != "lea", stores, vector)
    if stores:
        return Instruction(kind, (slot,) if slot else (), reads)
    return Instruction(kind, writes, (*reads, slot) if slot else reads)


def _kind(op: str, memory: bool, stores: bool, vector: bool) -> str:
    """The core's operation for one mnemonic."""
    if stores:
        return "vector_store" if vector else "scalar_store"
    if op == "nop":
        return "move"  # an issue slot and nothing else
    if op == "jmp":
        return "jump"
    if op.startswith("j"):
        return "branch"
    if vector:
        bare = op.removeprefix("v")
        if op in _MOVES and not memory:
            return "move"
        if bare.startswith(("movdqu", "movups", "movdqa", "movaps")) or (memory and bare in ("movss", "movd")):
            return "vector_load"
        if memory and bare in ("broadcastss", "pbroadcastd"):
            return "broadcast_load"
        if "fmadd" in bare or "fnmadd" in bare:
            return "fma_load" if memory else "fma"
        known = _VECTOR_OPS.get(bare)
        if known:
            return f"{known}_load" if memory else known
    elif op in ("mov", "movzx", "movsx", "movsxd"):
        return "scalar_load" if memory else ("scalar_move" if op == "mov" else "alu")
    elif op in ("imul", "mul"):
        return "integer_multiply"
    elif op.startswith("set") or op in (
        "add",
        "sub",
        "and",
        "or",
        "xor",
        "shl",
        "shr",
        "sar",
        "lea",
        "cmp",
        "test",
        "shrx",
        "shlx",
        "inc",
        "dec",
    ):
        return "alu_load" if memory else "alu"
    raise NmsatError.rule("stream", "mnemonic", "one the cycle model knows", op)
