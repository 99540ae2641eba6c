"""AArch64 assembly text of the sparse kernels (GNU syntax, Advanced SIMD)."""

from __future__ import annotations

import numpy as np

from ...models.errors import NmsatError
from .aarch64_sliced import slice_function
from .description import LANES, Kernel
from .packing import Packed
from .panels import Panel, copied_bytes, cut, passes, runs
from .streams import row_constant, streams

IN, W, D, Z, OUT, N, OS, B, STRIDE = (f"x{i}" for i in range(9))
COUNT, LEFT, INDEX, POINTER, NEXT, STEP = "w9", "x10", "w11", "x12", "x13", "x14"
_SUMS = 16  # v0..v15 hold sums, v16..v27 columns of X, v28..v31 weights


class _Writer:
    """Lines of one panel function; registers as in the module's constants."""

    def __init__(self, kernel: Kernel, height: int, panel: Panel, name: str) -> None:
        self.kernel, self.height, self.panel, self.name = kernel, height, panel, name
        self.lines: list[str] = []
        self.offsets = [4 * start for start in panel.starts]
        copied = kernel.panels == "copied" and panel.lanes == LANES
        self.sources = [16 * v for v in range(len(panel.starts))] if copied else self.offsets
        self.record = 4 + kernel.value_bytes * height if kernel.stream == "interleaved" else 0
        self.labels = 0

    def put(self, *lines: str) -> None:
        self.lines += [f"    {line}" for line in lines]

    def label(self) -> str:
        self.labels += 1
        return f".L{self.name}_{self.labels}"

    def here(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def sum(self, h: int, v: int) -> str:
        return f"v{h * len(self.offsets) + v}"

    def vector(self, operation: str, number: int, base: str, offset: int) -> str:
        """Load or store of one vector, or of one value in panels below four columns; any multiple of 4 as offset."""
        size = "q" if self.panel.lanes == LANES else "s"
        near = offset % 16 == 0 if size == "q" else True
        instruction = operation if near else {"ldr": "ldur", "str": "stur"}[operation]
        return f"{instruction} {size}{number}, [{base}, #{offset}]"

    def weight(self, register: int, offset: int) -> None:
        """One value in lane 0."""
        if self.kernel.values == "int8":
            self.put(f"ldrsb {INDEX}, [{W}, #{offset}]", f"scvtf s{register}, {INDEX}")
        else:
            self.put(f"ldr s{register}, [{W}, #{offset}]")

    def column(self, pointer: str, weights: list[str]) -> None:
        """sums += w x for every vector and row of one stored column; ``weights`` are lanes such as v28.s[0]."""
        for first in range(0, len(self.sources), 10):
            part = list(enumerate(self.sources))[first : first + 10]
            self.put(*(self.vector("ldr", 16 + v - first, pointer, offset) for v, offset in part))
            for v, _ in part:
                for h, lane in enumerate(weights):
                    self.madd(self.sum(h, v), f"v{16 + v - first}", lane)

    def madd(self, total: str, x: str, lane: str) -> None:
        if self.kernel.arithmetic == "fma":
            self.put(f"fmla {total}.4s, {x}.4s, {lane}")
        else:
            self.put(f"fmul v27.4s, {x}.4s, {lane}", f"fadd {total}.4s, v27.4s, {total}.4s")

    def step(self) -> None:
        """One stored block and the pointer bumps behind it."""
        kernel, size = self.kernel, self.kernel.value_bytes
        for h in range(self.height):
            self.weight(28 + h, (4 if self.record else 0) + size * h)
        lanes = [f"v{28 + h}.s[0]" for h in range(self.height)]
        if self.record:
            self.put(f"ldrsw {NEXT}, [{W}], #{self.record}")
        else:
            self.put(f"add {W}, {W}, #{size * self.height}")
            if kernel.index != "dense":
                self.put(f"ldrsw {NEXT}, [{D}], #4")
        self.move(lanes, NEXT)

    def move(self, lanes: list[str], amount: str) -> None:
        if self.kernel.index == "absolute":
            self.put(f"add {POINTER}, {IN}, {amount}")
            self.column(POINTER, lanes)
        elif self.kernel.index == "delta":
            self.column(IN, lanes)
            self.put(f"add {IN}, {IN}, {amount}")
        else:
            self.column(POINTER, lanes)
            self.put(f"add {POINTER}, {POINTER}, {STRIDE}")

    @property
    def by_four(self) -> bool:
        """Four weights a load and four steps in two loads: separate binary32 streams of single rows."""
        kernel = self.kernel
        plain = not self.record and kernel.values == "f32" and kernel.broadcast == "splat"
        return plain and self.height == 1 and kernel.unroll == 4 and kernel.index in ("delta", "absolute")

    def four(self) -> None:
        self.put(f"ldr q28, [{W}], #16", f"ldpsw x13, x14, [{D}], #8", f"ldpsw x15, x16, [{D}], #8")
        for lane, amount in enumerate(("x13", "x14", "x15", "x16")):
            self.move([f"v28.s[{lane}]"], amount)

    def group(self) -> None:
        """One N:M group: an index word, ``keep`` values, and the step to the next group."""
        pattern = self.kernel.pattern
        assert pattern is not None
        load = "ldrb" if pattern.index_bytes == 1 else "ldrh"
        self.put(f"{load} w15, [{D}], #{pattern.index_bytes}")
        for j in range(pattern.keep):
            self.weight(28, self.kernel.value_bytes * j)
            self.put(f"ubfx w12, w15, #{j * pattern.index_bits}, #{pattern.index_bits}")
            self.put(f"madd {POINTER}, {POINTER}, {STRIDE}, {IN}")
            self.column(POINTER, ["v28.s[0]"])
        self.put(f"add {W}, {W}, #{self.kernel.value_bytes * pattern.keep}")
        self.put(f"add {IN}, {IN}, {STRIDE}, lsl #{pattern.group.bit_length() - 1}")

    def loop(self) -> None:
        """All stored blocks of one row block; the count register holds blocks, or groups of an N:M row."""
        done = self.label()
        if self.by_four:
            rest, again = self.label(), self.label()
            self.put(f"lsr {INDEX}, {COUNT}, #2", f"and {COUNT}, {COUNT}, #3", f"cbz {INDEX}, {rest}")
            self.here(again)
            self.four()
            self.put(f"subs {INDEX}, {INDEX}, #1", f"b.ne {again}")
            self.here(rest)
        self.put(f"cbz {COUNT}, {done}")
        again = self.label()
        self.here(again)
        unroll = 1 if self.by_four or self.kernel.index == "packed" else self.kernel.unroll
        for u in range(unroll):
            if self.kernel.index == "packed":
                self.group()
            else:
                self.step()
            self.put(f"subs {COUNT}, {COUNT}, #1", f"b.ne {again}" if u == unroll - 1 else f"b.eq {done}")
        self.here(done)

    def head(self) -> None:
        """Read the count and the biases of a row block."""
        kernel = self.kernel
        if self.record:
            self.put(f"ldr {COUNT}, [{W}]", f"ldrsw {STEP}, [{W}, #4]", f"str {STEP}, [sp, #64]")
        elif kernel.index in ("delta", "absolute"):
            self.put(f"ldr {COUNT}, [{Z}], #4")
        else:
            self.put(f"mov {COUNT}, w3")
        for h in range(self.height):
            offset = 8 + 4 * h if self.record else kernel.value_bytes * h
            if kernel.values == "f32":
                self.put(f"ldr s{28 + h}, [{W}, #{offset}]")
            for v in range(len(self.offsets)):
                total = self.sum(h, v)
                bias = f"dup {total}.4s, v{28 + h}.s[0]" if kernel.values == "f32" else f"movi {total}.4s, #0"
                self.put(bias)
        if kernel.values == "f32":
            self.put(f"add {W}, {W}, #{8 + 4 * self.height if self.record else kernel.value_bytes * self.height}")
        if kernel.index == "dense":
            self.put(f"mov {POINTER}, {IN}")
        elif kernel.index == "packed":
            self.put(f"str {IN}, [sp, #72]")

    def store(self) -> None:
        """Scale, clamp and store the sums."""
        kernel, columns = self.kernel, range(len(self.offsets))
        if kernel.values == "int8":
            for h in range(self.height):
                self.put(f"ldr s29, [{B}, #{4 * h}]", f"ldr s28, [{B}, #{4 * (self.height + h)}]")
                self.put("dup v29.4s, v29.s[0]")
                for v in columns:
                    self.put("mov v30.16b, v29.16b")
                    self.madd("v30", self.sum(h, v), "v28.s[0]")
                    self.put(f"mov {self.sum(h, v)}.16b, v30.16b")
            self.put(f"add {B}, {B}, #{8 * self.height}")
        for bound, order in zip(kernel.clamp or (), ("{b}, {a}", "{a}, {b}"), strict=False):
            bits = int(np.float32(bound).view(np.uint32))
            self.put(f"movz {INDEX}, #{bits & 0xFFFF}", f"movk {INDEX}, #{bits >> 16}, lsl #16", f"dup v29.4s, {INDEX}")
            for h in range(self.height):
                for v in columns:
                    total = self.sum(h, v)
                    self.put(f"fcmgt v28.4s, {order.format(a=total + '.4s', b='v29.4s')}")
                    self.put(f"bit {total}.16b, v29.16b, v28.16b")
        self.put(f"mov {POINTER}, {OUT}")
        for h in range(self.height):
            if h:
                self.put(f"add {POINTER}, {POINTER}, {OS}")
            for v, offset in enumerate(self.offsets):
                self.put(self.vector("str", int(self.sum(h, v)[1:]), POINTER, offset))

    def tail(self) -> None:
        """Finish a row block and step to the next."""
        kernel = self.kernel
        self.store()
        if self.record:
            self.put(f"ldr {STEP}, [sp, #64]", f"add {OUT}, {OUT}, {STEP}")
        else:
            self.put(f"add {OUT}, {OUT}, {OS}, lsl #{self.height.bit_length() - 1}")
        if kernel.index == "packed":
            self.put(f"ldr {IN}, [sp, #72]")

    def grouped(self) -> None:
        """One row block of the interleaved stream for a group of panels; [sp] keeps what each of them starts from."""
        panel = self.label()
        self.put(f"str {W}, [sp, #96]", f"str {IN}, [sp, #104]", f"str {OUT}, [sp, #112]")
        self.put(f"ldr {LEFT}, [sp, #80]", f"str {LEFT}, [sp, #120]")
        self.here(panel)
        self.put(f"ldr {W}, [sp, #96]")
        self.head()
        self.loop()
        self.store()
        self.put(f"add {OUT}, {OUT}, #{4 * self.panel.columns}")
        self.put(f"ldr {STEP}, [sp, #88]", f"mov {POINTER}, {IN}", f"ldr {IN}, [sp, #104]", f"add {IN}, {IN}, {STEP}")
        self.put(f"str {IN}, [sp, #104]", f"ldr {LEFT}, [sp, #120]", f"subs {LEFT}, {LEFT}, #1")
        self.put(f"str {LEFT}, [sp, #120]", f"b.ne {panel}")
        self.put(f"ldr {LEFT}, [sp, #80]", f"sub {LEFT}, {LEFT}, #1", f"msub {IN}, {LEFT}, {STEP}, {POINTER}")
        self.put(f"ldr {OUT}, [sp, #112]", f"ldr {STEP}, [sp, #64]", f"add {OUT}, {OUT}, {STEP}")

    def function(self) -> str:
        grouped = self.kernel.group > 1
        self.lines.append(f"{self.name}:")
        self.put("sub sp, sp, #128")
        self.put(*([f"stp {LEFT}, x15, [sp, #80]"] if grouped else []))
        self.put(*(f"stp d{8 + 2 * i}, d{9 + 2 * i}, [sp, #{16 * i}]" for i in range(4)))
        again = self.label()
        self.here(again)
        if grouped:
            self.grouped()
        else:
            self.head()
            self.loop()
            self.tail()
        self.put(f"subs {N}, {N}, #1", f"b.ne {again}")
        self.put(*(f"ldp d{8 + 2 * i}, d{9 + 2 * i}, [sp, #{16 * i}]" for i in range(4)))
        self.put("add sp, sp, #128", "ret")
        return "\n".join(self.lines) + "\n"


def check(kernel: Kernel) -> None:
    """Refuse a kernel whose sums do not fit the registers.

    Raises
    ------
    NmsatError
        If vectors a row times rows exceed 16.
    """
    if kernel.accumulators > _SUMS:
        raise NmsatError.rule("aarch64", "mr", f"at most {4 * _SUMS // kernel.nr} for nr = {kernel.nr}", kernel.mr)


def panel_function(kernel: Kernel, height: int, panel: Panel, name: str) -> str:
    """Assembly of the function that multiplies every row block of a section by one panel of columns.

    Arguments x0..x8: X, values, indices, counts (or a row's constant count), Y, row blocks, Y's pitch, scales,
    X's pitch; of grouped panels also x10, their number, and x15, the bytes between them in X.
    """
    check(kernel)
    if kernel.index == "sliced":
        return slice_function(kernel, height, name)
    return _Writer(kernel, height, panel, name).function()


def layer(packed: Packed, m: int, name: str = "nmsat_layer") -> str:
    """Assembly of ``void name(const float *x, float *y)`` for X (k, m) and Y (n, m), its weights included."""
    kernel = packed.kernel
    functions: dict[tuple[int, tuple[int, ...]], str] = {}
    texts, body, data = [], [], []
    copied = copied_bytes(kernel, m, packed.k)
    x_pitch = kernel.x_pitch(m)
    for number, section in enumerate(packed.sections):
        s, label = streams(packed, section, m), f"{name}_{number}"
        for stream in ("values", "indices", "counts", "scales"):
            data += [".balign 16", f"{label}_{stream}:", *_bytes(getattr(s, stream))]
        constant = row_constant(packed, section)
        if kernel.pattern is not None:
            constant //= kernel.pattern.index_bytes
        for panel, count in runs(cut(m, kernel.vectors, kernel.lanes(m))):
            key = (section.height, panel.starts)
            if key not in functions:
                functions[key] = f"{name}_h{section.height}_{len(functions)}"
                texts.append(panel_function(kernel, section.height, panel, functions[key]))
                texts.append(_copy(panel, functions[key] + "_copy") if copied else "")
            start, step = 4 * panel.column, 4 * panel.columns
            for group, times in passes(count, kernel.group):
                loop, apart = f".L{label}_{start}", packed.k * x_pitch if copied else step
                body += [f"ldr x19, ={start}", f"{loop}:"]
                source = [f"ldr x9, ={s.in_start}", "add x0, x20, x19", "add x0, x0, x9"]
                if copied:
                    body += [f"mov x22, #{group}", "add x23, x20, x19", f"ldr x24, ={name}_scratch", f"{loop}_copy:"]
                    body += ["mov x0, x23", f"ldr x1, ={4 * m}", "mov x2, x24", f"ldr x3, ={x_pitch}"]
                    body += [f"ldr x4, ={packed.k}", f"bl {functions[key]}_copy", f"add x23, x23, #{step}"]
                    body += [f"ldr x9, ={apart}", "add x24, x24, x9", "subs x22, x22, #1", f"b.ne {loop}_copy"]
                    source = [f"ldr x0, ={name}_scratch + {s.in_start}"]
                counts = f"{label}_counts" if s.counts else str(constant)
                body += [*source, f"ldr x1, ={label}_values", f"ldr x2, ={label}_indices", f"ldr x3, ={counts}"]
                body += [f"ldr x9, ={s.out_start}", "add x4, x21, x19", "add x4, x4, x9"]
                body += [f"ldr x5, ={len(section.counts)}", f"ldr x6, ={4 * m}", f"ldr x7, ={label}_scales"]
                body += [f"ldr x8, ={x_pitch}", f"mov x10, #{group}", f"ldr x15, ={apart}", f"bl {functions[key]}"]
                end = start + times * group * step
                body += [f"ldr x9, ={group * step}", "add x19, x19, x9", f"ldr x9, ={end}", "cmp x19, x9"]
                body += [f"b.ne {loop}"]
                start = end
    saved = ["x19, x20, [sp, #16]", "x21, x22, [sp, #32]", "x23, x24, [sp, #48]"]
    enter = ["stp x29, x30, [sp, #-64]!", *(f"stp {pair}" for pair in saved), "mov x20, x0", "mov x21, x1"]
    leave = [*(f"ldp {pair}" for pair in saved), "ldp x29, x30, [sp], #64", "ret"]
    code = [line if line.endswith(":") else f"    {line}" for line in [*enter, *body, *leave]]
    scratch = [".bss", ".balign 64", f"{name}_scratch:", f".zero {copied}"] if copied else []
    head = [".text", f".global {name}", f"{name}:"]
    parts = [*head, *code, "    .ltorg", *texts, '.section .rodata, "a"', *data, *scratch]
    return "\n".join(part for part in parts if part) + "\n"


def _bytes(content: bytes) -> list[str]:
    return ["    .byte " + ",".join(map(str, content[first : first + 32])) for first in range(0, len(content), 32)]


def _copy(panel: Panel, name: str) -> str:
    """Copy x4 rows of a panel from x0, x1 bytes apart, to x2, x3 bytes apart."""
    lines = [f"{name}:"]
    for v, start in enumerate(panel.starts):
        load = "ldr" if start % 4 == 0 else "ldur"
        lines.append(f"    {load} q16, [x0, #{4 * start}]\n    str q16, [x2, #{16 * v}]")
    lines += ["    add x0, x0, x1", "    add x2, x2, x3", "    subs x4, x4, #1", f"    b.ne {name}", "    ret"]
    return "\n".join(lines) + "\n"
