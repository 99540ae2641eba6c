"""WebAssembly text of the sliced kernels: four rows of W a vector, one row a lane, one column of X at a time."""

from __future__ import annotations

from .description import LANES, Kernel
from .packing import SLICE_BYTES


def slice_function(kernel: Kernel, height: int, name: str, parameters: tuple[str, ...]) -> str:
    """A function of $n slices of ``height`` rows for one column of X: $w stream, $z counts, $in and $out columns.

    Two loads of 64 bits fetch a step's four offsets, where four of 32 keep the load ports busier.
    """
    lines = [
        "(local.set $h (local.get $w))",
        f"(local.set $a (v128.load offset={4 * LANES} (local.get $w)))",
        _bump("w", SLICE_BYTES),
        f"(local.set $e (i32.add (local.get $w) (i32.mul (i32.load (local.get $z)) (i32.const {SLICE_BYTES}))))",
        _bump("z", 4),
        "(block $done (br_if $done (i32.eq (local.get $w) (local.get $e))) (loop $k",
    ]
    for u in range(kernel.unroll):
        lines += _step(kernel)
        if u < kernel.unroll - 1:
            lines.append("(br_if $done (i32.eq (local.get $w) (local.get $e)))")
    lines.append("(br_if $k (i32.ne (local.get $w) (local.get $e)))))")
    for bound, op in zip(kernel.clamp or (), ("pmax", "pmin"), strict=False):
        lines.append(f"(local.set $a (f32x4.{op} (local.get $a) (f32x4.splat (f32.const {bound!r}))))")
    for lane in range(height):
        at = f"(i32.add (local.get $out) (i32.load offset={4 * lane} (local.get $h)))"
        lines.append(f"(v128.store32_lane {lane} {at} (local.get $a))")
    body = "\n    ".join(lines)
    listed = " ".join(f"(param ${p} i32)" for p in parameters)
    back = "(br_if $n0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))"
    return (
        f"  (func ${name} {listed}\n    (local $e i32)(local $h i32)(local $i i64)(local $j i64)(local $a v128)\n"
        f"    (loop $n0\n    {body}\n    {back}))"
    )


def _step(kernel: Kernel) -> list[str]:
    """Four columns gathered, times four values. Cranelift's multiply-add overwrites its first factor: the columns."""
    offsets = ["(local.get $i)", "(i64.shr_u (local.get $i) (i64.const 32))"]
    offsets += [offset.replace("$i", "$j") for offset in offsets]
    at = [f"(f32.load (i32.add (local.get $in) (i32.wrap_i64 {offset})))" for offset in offsets]
    x = f"(f32x4.splat {at[0]})"
    for lane in range(1, LANES):
        x = f"(f32x4.replace_lane {lane} {x} {at[lane]})"
    values = f"(v128.load offset={4 * LANES} (local.get $w))"
    fused = kernel.arithmetic == "fma"
    total = f"f32x4.relaxed_madd {x} {values} (local.get $a)"
    return [
        "(local.set $i (i64.load (local.get $w)))",
        "(local.set $j (i64.load offset=8 (local.get $w)))",
        f"(local.set $a ({total if fused else f'f32x4.add (f32x4.mul {values} {x}) (local.get $a)'}))",
        _bump("w", SLICE_BYTES),
    ]


def _bump(name: str, amount: int) -> str:
    return f"(local.set ${name} (i32.add (local.get ${name}) (i32.const {amount})))"
