"""WebAssembly text of the sparse kernels: one function a panel form, one driver a layer."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.errors import NmsatError
from .description import LANES, Kernel
from .panels import Panel, cut, passes, runs
from .wat_sliced import slice_function

PARAMETERS = ("in", "w", "d", "z", "out", "n", "os", "b", "stride")
PAGE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Call:
    """Addresses and sizes of one section: the constants of its panel functions.

    ``in_bytes`` is the address of X, ``first`` the byte offset of the first stored column; ``scratch`` holds a copied
    panel (0: none) of ``k`` rows.
    """

    height: int
    in_bytes: int
    first: int
    values: int
    indices: int
    counts: int
    out_bytes: int
    blocks: int
    pitch: int
    scales: int
    x_pitch: int
    k: int
    scratch: int = 0


class _Writer:
    """Lines of one panel function."""

    def __init__(self, kernel: Kernel, height: int, panel: Panel) -> None:
        self.kernel, self.height, self.panel = kernel, height, panel
        self.lines: list[str] = []
        self.offsets = [4 * start for start in panel.starts]
        copied = kernel.panels == "copied" and panel.lanes == LANES
        self.sources = [16 * v for v in range(len(panel.starts))] if copied else self.offsets
        self.load = "v128.load" if panel.lanes == LANES else "v128.load32_zero"
        self.pairs = [(h, v) for h in range(height) for v in range(len(self.offsets))]
        self.record = 4 + kernel.value_bytes * height if kernel.stream == "interleaved" else 0

    def put(self, *lines: str) -> None:
        self.lines += lines

    def bump(self, name: str, amount: int | str) -> None:
        amount = f"(i32.const {amount})" if isinstance(amount, int) else amount
        self.put(f"(local.set ${name} (i32.add (local.get ${name}) {amount}))")

    def weight(self, offset: int) -> str:
        """One value in all lanes, at $w + offset."""
        if self.kernel.values == "int8":
            return f"(f32x4.splat (f32.convert_i32_s (i32.load8_s offset={offset} (local.get $w))))"
        load = "v128.load" if self.kernel.broadcast == "presplat" else "v128.load32_splat"
        return f"({load} offset={offset} (local.get $w))"

    def madd(self, weight: str, x: str, acc: str) -> str:
        """weight * x + acc; Cranelift overwrites the first factor, and of the two only x is not used again."""
        if self.kernel.arithmetic == "fma":
            return f"(f32x4.relaxed_madd {x} {weight} {acc})"
        return f"(f32x4.add (f32x4.mul {weight} {x}) {acc})"

    def column(self, pointer: str, weights: list[str]) -> None:
        """acc += w x for every vector and row of one stored column."""
        shared = self.height > 1
        for h, weight in enumerate(weights):
            self.put(f"(local.set $v{h} {weight})")
        for v, offset in enumerate(self.sources):
            x = f"({self.load} offset={offset} (local.get ${pointer}))"
            if shared:
                self.put(f"(local.set $x {x})")
                x = "(local.get $x)"
            for h in range(self.height):
                acc = f"$a{h}_{v}"
                self.put(f"(local.set {acc} {self.madd(f'(local.get $v{h})', x, f'(local.get {acc})')})")

    def step(self) -> None:
        """One stored block and the pointer bumps behind it."""
        kernel, size = self.kernel, self.kernel.value_bytes
        base = 4 if self.record else 0
        weights = [self.weight(base + size * h) for h in range(self.height)]
        at = "(i32.load (local.get $w))" if self.record else "(i32.load (local.get $d))"
        if kernel.index == "absolute":
            self.put(f"(local.set $p (i32.add (local.get $in) {at}))")
        self.column("in" if kernel.index == "delta" else "p", weights)
        if kernel.index == "delta":
            self.bump("in", at)
        elif kernel.index == "dense":
            self.bump("p", "(local.get $stride)")
        self.bump("w", self.record or size * self.height)
        if not self.record and kernel.index != "dense":
            self.bump("d", 4)

    def group(self) -> None:
        """One N:M group: an index word, ``keep`` values, and the step to the next group."""
        pattern = self.kernel.pattern
        assert pattern is not None
        load = "i32.load8_u" if pattern.index_bytes == 1 else "i32.load16_u"
        self.put(f"(local.set $i ({load} (local.get $d)))")
        for j in range(pattern.keep):
            index = f"(i32.shr_u (local.get $i) (i32.const {j * pattern.index_bits}))" if j else "(local.get $i)"
            if j < pattern.keep - 1 or (8 * pattern.index_bytes) % pattern.index_bits:
                index = f"(i32.and {index} (i32.const {pattern.group - 1}))"
            self.put(f"(local.set $p (i32.add (local.get $in) (i32.mul {index} (local.get $stride))))")
            self.column("p", [self.weight(self.kernel.value_bytes * j)])
            if j < pattern.keep - 1:
                other = ("e", "w", "in", "out")[j]  # never equal, see unroll; V8 drops a condition it has tested before
                self.put(f"(br_if $done (i32.eq (local.get $d) (local.get ${other})))")
        self.bump("w", self.kernel.value_bytes * pattern.keep)
        self.bump("d", pattern.index_bytes)
        self.bump("in", f"(i32.mul (local.get $stride) (i32.const {pattern.group}))")

    def loop(self) -> None:
        """All stored blocks of one row block; $e is the end of the stream that moves."""
        kernel = self.kernel
        cursor = "w" if self.record or kernel.index == "dense" else "d"
        more = f"(i32.ne (local.get ${cursor}) (local.get $e))"
        self.put(f"(block $done (br_if $done (i32.eq (local.get ${cursor}) (local.get $e))) (loop $k")
        for u in range(kernel.unroll):
            if kernel.index == "packed":
                self.group()
            else:
                self.step()
            if u < kernel.unroll - 1:
                self.put(f"(br_if $done (i32.eq (local.get ${cursor}) (local.get $e)))")
        self.put(f"(br_if $k {more})))")

    def sums(self, pointer: str) -> None:
        """Set the sums to the biases at $pointer; int8: to 0."""
        for h in range(self.height):
            if self.kernel.values == "int8":
                bias = "(v128.const i32x4 0 0 0 0)"
            elif self.record:
                bias = f"(v128.load32_splat offset={8 + 4 * h} (local.get ${pointer}))"
            else:
                bias = self.weight(self.kernel.value_bytes * h)
            self.put(f"(local.set $v{h} {bias})")
        self.put(*(f"(local.set $a{h}_{v} (local.get $v{h}))" for h, v in self.pairs))

    def head(self) -> None:
        """Read the count and the biases of a row block, set the sums and the end of its stream."""
        kernel = self.kernel
        if self.record:
            self.put(
                "(local.set $c (i32.load (local.get $w)))",
                "(local.set $s (i32.load offset=4 (local.get $w)))",
            )
        elif kernel.index in ("delta", "absolute"):
            self.put("(local.set $c (i32.load (local.get $z)))")
            self.bump("z", 4)
        else:
            self.put("(local.set $c (local.get $z))")
        self.sums("w")
        if kernel.values != "int8":
            self.bump("w", 8 + 4 * self.height if self.record else kernel.value_bytes * self.height)
        if self.record:
            end = f"(i32.add (local.get $w) (i32.mul (local.get $c) (i32.const {self.record})))"
        elif kernel.index == "dense":
            step = kernel.value_bytes * self.height
            end = f"(i32.add (local.get $w) (i32.mul (local.get $c) (i32.const {step})))"
        elif kernel.index == "packed":
            end = "(i32.add (local.get $d) (local.get $c))"
        else:
            end = "(i32.add (local.get $d) (i32.shl (local.get $c) (i32.const 2)))"
        self.put(f"(local.set $e {end})")
        if kernel.index == "dense":
            self.put("(local.set $p (local.get $in))")
        elif kernel.index == "packed":
            self.put("(local.set $q (local.get $in))")

    def store(self, pointer: str) -> None:
        """Scale, clamp and store the sums at $pointer."""
        kernel = self.kernel
        if kernel.values == "int8":
            for h in range(self.height):
                self.put(f"(local.set $v{h} (v128.load32_splat offset={4 * h} (local.get $b)))")
                self.put(f"(local.set $x (v128.load32_splat offset={4 * (self.height + h)} (local.get $b)))")
                for v in range(len(self.offsets)):
                    acc = f"(local.get $a{h}_{v})"
                    self.put(f"(local.set $a{h}_{v} {self.madd(acc, '(local.get $x)', f'(local.get $v{h})')})")
            self.bump("b", 8 * self.height)
        if kernel.clamp is not None:
            for bound, op in zip(kernel.clamp, ("pmax", "pmin"), strict=True):
                constant = f"(f32x4.splat (f32.const {bound!r}))"
                for h, v in self.pairs:
                    self.put(f"(local.set $a{h}_{v} (f32x4.{op} (local.get $a{h}_{v}) {constant}))")
        for h in range(self.height):
            if h:
                self.put("(local.set $p (i32.add (local.get $p) (local.get $os)))")
            else:
                self.put(f"(local.set $p (local.get ${pointer}))")
            for v, offset in enumerate(self.offsets):
                value = f"(local.get $p) (local.get $a{h}_{v})"
                store = f"v128.store offset={offset} {value}"
                self.put(
                    f"({store})" if self.panel.lanes == LANES else f"(v128.store32_lane offset={offset} 0 {value})"
                )

    def tail(self) -> None:
        """Finish a row block and step to the next."""
        kernel = self.kernel
        self.store("out")
        if self.record:
            self.bump("out", "(local.get $s)")
        else:
            self.bump("out", f"(i32.mul (local.get $os) (i32.const {self.height}))")
        if kernel.index == "packed":
            self.put("(local.set $in (local.get $q))")

    def grouped(self) -> None:
        """One row block of the interleaved stream for $g panels, whose columns of X lie $gs bytes apart."""
        start = 8 + 4 * self.height
        self.put(
            "(local.set $c (i32.load (local.get $w)))",
            "(local.set $s (i32.load offset=4 (local.get $w)))",
            "(local.set $h (local.get $w))",
            f"(local.set $e (i32.add (local.get $w) (i32.const {start})))",
            f"(local.set $e (i32.add (local.get $e) (i32.mul (local.get $c) (i32.const {self.record}))))",
            "(local.set $q (local.get $in))",
            "(local.set $o (local.get $out))",
            "(local.set $t (local.get $g))",
            "(loop $panel",
        )
        self.sums("h")
        self.put(f"(local.set $w (i32.add (local.get $h) (i32.const {start})))")
        self.loop()
        self.store("o")
        self.bump("o", 4 * self.panel.columns)
        self.bump("q", "(local.get $gs)")
        self.put(
            "(local.set $i (local.get $in))",
            "(local.set $in (local.get $q))",
            "(br_if $panel (local.tee $t (i32.sub (local.get $t) (i32.const 1)))))",
            "(local.set $in (i32.sub (local.get $i) (i32.mul (local.get $gs) (i32.sub (local.get $g) (i32.const 1)))))",
        )
        self.bump("out", "(local.get $s)")

    def function(self, name: str) -> str:
        if self.kernel.group > 1:
            self.grouped()
        else:
            self.head()
            self.loop()
            self.tail()
        parameters = " ".join(f"(param ${p} i32)" for p in parameters_of(self.kernel))
        scalars = "(local $c i32)(local $e i32)(local $i i32)(local $p i32)(local $q i32)(local $s i32)"
        scalars += "".join(f"(local ${x} i32)" for x in "hot" if self.kernel.group > 1)
        vectors = "".join(f"(local $a{h}_{v} v128)" for h, v in self.pairs)
        vectors += "".join(f"(local $v{h} v128)" for h in range(self.height)) + "(local $x v128)"
        body = "\n    ".join(self.lines)
        back = "(br_if $n0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))"
        return f"  (func ${name} {parameters}\n    {scalars}{vectors}\n    (loop $n0\n    {body}\n    {back}))"


def parameters_of(kernel: Kernel) -> tuple[str, ...]:
    """Parameters of a kernel's panel functions."""
    return (*PARAMETERS, "g", "gs") if kernel.group > 1 else PARAMETERS


def panel_name(kernel: Kernel, height: int, panel: Panel) -> str:
    """A function name that is equal exactly for panels of equal code."""
    shape = "_".join(map(str, panel.starts))
    bounds = "" if kernel.clamp is None else "".join(f"c{float(b).hex()}" for b in kernel.clamp)
    return f"{kernel.name}.h{height}.l{panel.lanes}.{shape}{bounds}".replace(":", "of").replace("+", "p")


def panel_function(kernel: Kernel, height: int, panel: Panel) -> str:
    """WAT of the function that multiplies every row block of a section by one panel of columns."""
    name = panel_name(kernel, height, panel)
    if kernel.index == "sliced":
        return slice_function(kernel, height, name, PARAMETERS)
    return _Writer(kernel, height, panel).function(name)


def copy_name(panel: Panel) -> str:
    """A name for the copy of panels of this form."""
    return "copy." + "_".join(map(str, panel.starts))


def copy_function(panel: Panel) -> str:
    """WAT of the function that copies a panel of $k rows, $pitch bytes apart, to rows $width bytes apart."""
    moves = "\n    ".join(
        f"(v128.store offset={16 * v} (local.get $to) (v128.load offset={4 * start} (local.get $from)))"
        for v, start in enumerate(panel.starts)
    )
    return (
        f"  (func ${copy_name(panel)} (param $from i32) (param $pitch i32) (param $to i32) (param $width i32) "
        f"(param $k i32)\n    (loop $row\n    {moves}\n"
        "    (local.set $from (i32.add (local.get $from) (local.get $pitch)))\n"
        "    (local.set $to (i32.add (local.get $to) (local.get $width)))\n"
        "    (br_if $row (local.tee $k (i32.sub (local.get $k) (i32.const 1))))))"
    )


def layer(name: str, kernel: Kernel, m: int, calls: list[Call]) -> tuple[str, dict[str, str]]:
    """Driver of one layer, and the panel functions it needs by name."""
    functions: dict[str, str] = {}
    body: list[str] = []
    for call in calls:
        vectors = kernel.vectors
        if call.height < kernel.nr and not call.scratch:  # the last rows, one by one: as many sums as registers hold
            vectors = max(1, min(kernel.vectors * kernel.nr // call.height, 7))
        for panel, count in runs(cut(m, vectors, kernel.lanes(m))):
            function = panel_name(kernel, call.height, panel)
            functions[function] = functions.get(function) or panel_function(kernel, call.height, panel)
            if call.scratch and panel.lanes == LANES:
                copy = copy_name(panel)
                functions[copy] = functions.get(copy) or copy_function(panel)
            step, start = 4 * panel.columns, 4 * panel.column
            for group, times in passes(count, kernel.group):
                once = _pass(kernel, panel, call, function, group, m)
                body += _loop("o", f"$l{len(body)}", start, group * step, times, once)
                start += times * group * step
    text = "\n    ".join(body)
    return f"  (func ${name} (local $o i32) (local $u i32) (local $to i32)\n    {text})", functions


def _loop(name: str, label: str, start: int, step: int, times: int, body: list[str]) -> list[str]:
    """``body`` with $name = start, start + step, ..., ``times`` of them."""
    bump = f"(local.set ${name} (i32.add (local.get ${name}) (i32.const {step})))"
    back = f"(br_if {label} (i32.ne (local.get ${name}) (i32.const {start + times * step}))))"
    return [f"(local.set ${name} (i32.const {start}))", f"(loop {label}", *body, bump, back]


def _pass(kernel: Kernel, panel: Panel, call: Call, function: str, group: int, m: int) -> list[str]:
    """One pass over the rows, for the ``group`` panels from byte $o of a row on."""
    lines, step = [], 4 * panel.columns
    here, source = "(local.get $o)", f"(i32.add (local.get $o) (i32.const {call.in_bytes + call.first}))"
    apart = step
    if call.scratch and panel.lanes == LANES:
        apart, x = call.k * call.x_pitch, f"(i32.const {call.in_bytes})"
        source = f"(i32.const {call.scratch + call.first})"
        sizes = f"(i32.const {4 * m}) (local.get $to) (i32.const {call.x_pitch}) (i32.const {call.k})"
        copy = [
            f"(call ${copy_name(panel)} (i32.add (i32.add {here} (local.get $u)) {x}) {sizes})",
            f"(local.set $to (i32.add (local.get $to) (i32.const {apart})))",
        ]
        lines = [f"(local.set $to (i32.const {call.scratch}))", *_loop("u", "$copy", 0, step, group, copy)]
    arguments = (
        f"{source} (i32.const {call.values}) (i32.const {call.indices}) "
        f"(i32.const {call.counts}) (i32.add {here} (i32.const {call.out_bytes})) (i32.const {call.blocks}) "
        f"(i32.const {call.pitch}) (i32.const {call.scales}) (i32.const {call.x_pitch})"
    )
    if kernel.group > 1:
        arguments += f" (i32.const {group}) (i32.const {apart})"
    return [*lines, f"(call ${function} {arguments})"]


def pages(memory_bytes: int) -> int:
    """Wasm pages that hold ``memory_bytes``.

    Raises
    ------
    NmsatError
        If they exceed the 4 GiB of a 32-bit wasm memory.
    """
    count = -(-memory_bytes // PAGE_BYTES)
    if count > 65536:
        raise NmsatError.rule("wasm", "memory", "at most 4 GiB", f"{memory_bytes} bytes")
    return count


def module(
    layers: list[tuple[str, str]],
    functions: dict[str, str],
    memory_bytes: int,
    addresses: dict[str, int] | None = None,
) -> str:
    """A module that exports its memory, ``run`` (every layer in turn) and every layer by name, all ``name(repeat)``.

    ``addresses`` become exported i32 constants.
    """
    limit = pages(memory_bytes)
    lines = ["(module", f'  (memory (export "memory") {limit} {limit})']
    for name, address in (addresses or {}).items():
        lines.append(f'  (global (export "{name}") i32 (i32.const {address}))')
    lines += [functions[name] for name in sorted(functions)] + [text for _, text in layers]
    calls = " ".join(f"(call ${name})" for name, _ in layers)
    lines.append(_repeated("run", calls))
    lines += [_repeated(name, f"(call ${name})") for name, _ in layers]
    return "\n".join([*lines, ")"]) + "\n"


def _repeated(name: str, calls: str) -> str:
    back = "(br_if $again (local.tee $repeat (i32.sub (local.get $repeat) (i32.const 1))))"
    return f'  (func (export "{name}") (param $repeat i32) (loop $again {calls} {back}))'
