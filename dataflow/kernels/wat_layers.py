"""WebAssembly text of what a mobile network needs beside its pointwise products: one function a layer.

Tensors are binary32 in CHW, each in a buffer of whole vectors. Every operation rounds once in the order the docstrings
give, so that a NumPy model in the same order has the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from .description import LANES, Arithmetic
from .panels import Panel, cut, runs

LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
EXP_TERMS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
DEPTHWISE_VECTORS = 6  # outputs summed at once with stride 1, half as many with stride 2
EXP_LIMIT = 87.0
"""exp(t) for |t| <= 87: t = i ln 2 + r, then the Cephes polynomial in r, multiplied by 2^i."""


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's geometry; ``h`` and ``w`` are the input's, ``pad`` its border of zeros."""

    h: int
    w: int
    k: int
    stride: int
    pad: int

    @property
    def oh(self) -> int:
        """Output height."""
        return (self.h + 2 * self.pad - self.k) // self.stride + 1

    @property
    def ow(self) -> int:
        """Output width."""
        return (self.w + 2 * self.pad - self.k) // self.stride + 1

    @property
    def padded_w(self) -> int:
        """Width with its border."""
        return self.w + 2 * self.pad

    @property
    def padded_elements(self) -> int:
        """One channel with its border, and a vector that strided loads may reach into."""
        return (self.h + 2 * self.pad) * self.padded_w + LANES


def _get(name: str) -> str:
    return f"(local.get ${name})"


def _add(name: str, amount: int) -> str:
    return f"(local.set ${name} (i32.add {_get(name)} (i32.const {amount})))"


def _set(name: str, value: int | str) -> str:
    value = f"(i32.const {value})" if isinstance(value, int) else value
    return f"(local.set ${name} {value})"


def _until(loop: str, name: str, end: int | str) -> str:
    end = f"(i32.const {end})" if isinstance(end, int) else end
    return f"(br_if ${loop} (i32.ne {_get(name)} {end})))"


def _madd(arithmetic: Arithmetic, a: str, b: str, c: str) -> str:
    if arithmetic == "fma":
        return f"(f32x4.relaxed_madd {a} {b} {c})"
    return f"(f32x4.add (f32x4.mul {a} {b}) {c})"


def _splat(value: float) -> str:
    return f"(f32x4.splat (f32.const {value!r}))"


def _clamped(value: str, bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return value
    return f"(f32x4.pmin (f32x4.pmax {value} {_splat(bounds[0])}) {_splat(bounds[1])})"


def _function(name: str, lines: list[str], vectors: tuple[str, ...]) -> str:
    scalars = "".join(f"(local ${n} i32)" for n in ("p", "q", "r", "s", "o", "g", "w", "e"))
    wide = "".join(f"(local ${n} v128)" for n in vectors)
    body = "\n    ".join(lines)
    return f"  (func ${name} {scalars}{wide}\n    {body})"


def _end_of_block(block: str, counter: str, number: int) -> str:
    """An exit that is never taken, as the counter is above 0: without one behind each tap all their loads are alive at
    once and spill (see ``unroll`` of :class:`.description.Kernel`). V8 drops a condition that it has tested before, so
    every ``number`` has its own."""
    return f"(br_if ${block} (i32.eq {_get(counter)} (i32.const {-number})))"


def conv_hwc(
    name: str,
    addresses: tuple[int, int, int],
    channels: tuple[int, int],
    window: Window,
    arithmetic: Arithmetic,
    clamp: tuple[float, float] | None,
) -> str:
    """Dense convolution from padded HWC to CHW: sum = bias, then taps (ky, kx, c) in ascending order.

    ``addresses`` of X with its border, of the weights (:func:`conv_groups` channels at a time: biases, then every tap's
    weights) and of Y; ``channels`` in and out, the latter a multiple of 4.
    """
    (x, weights, y), (ic, oc) = addresses, channels
    vectors, plane = conv_groups(oc) // LANES, 4 * window.oh * window.ow
    sums = tuple(f"a{i}" for i in range(vectors))
    lines = [_set("r", x), _set("q", y), "(loop $rows", _set("p", _get("r"))]
    lines += [_set("e", f"(i32.add {_get('q')} (i32.const {4 * window.ow}))"), "(loop $columns"]
    lines += [_set("w", weights), _set("o", _get("q")), _set("g", oc // (LANES * vectors)), "(loop $groups"]
    lines += [f"(local.set ${a} (v128.load offset={16 * i} {_get('w')}))" for i, a in enumerate(sums)]
    taps = [(ky, kx, c) for ky in range(window.k) for kx in range(window.k) for c in range(ic)]
    lines.append("(block $taps")
    for t, (ky, kx, c) in enumerate(taps, 1):
        offset = 4 * ((ky * window.padded_w + kx) * ic + c)
        lines.append(f"(local.set $x (v128.load32_splat offset={offset} {_get('p')}))")
        for i, a in enumerate(sums):
            weight = f"(v128.load offset={16 * (vectors * t + i)} {_get('w')})"
            lines.append(f"(local.set ${a} {_madd(arithmetic, weight, _get('x'), _get(a))})")
        lines.append(_end_of_block("taps", "g", t) if t < len(taps) else ")")
    for i, a in enumerate(sums):
        lines.append(f"(local.set ${a} {_clamped(_get(a), clamp)})")
        for lane in range(LANES):
            lines.append(f"(v128.store32_lane offset={plane * (4 * i + lane)} {lane} {_get('o')} {_get(a)})")
    lines += [_add("o", plane * LANES * vectors), _add("w", 16 * vectors * (1 + len(taps)))]
    lines += [_add("g", -1), _until("groups", "g", 0), _add("p", 4 * window.stride * ic), _add("q", 4)]
    lines += [_until("columns", "q", _get("e")), _add("r", 4 * window.stride * window.padded_w * ic)]
    lines += [_until("rows", "q", y + plane)]
    return _function(name, lines, (*sums, "x"))


def conv_groups(oc: int) -> int:
    """Output channels that :func:`conv_hwc` sums at once."""
    return 16 if oc % 16 == 0 else LANES


def depthwise(
    name: str,
    addresses: tuple[int, int, int, int],
    channels: int,
    window: Window,
    arithmetic: Arithmetic,
    clamp: tuple[float, float] | None,
) -> str:
    """Depthwise convolution in CHW, output at least 4 wide: sum = bias, then taps (ky, kx) in ascending order.

    ``addresses`` of X, of the weights (per channel a bias and its taps), of Y and of ``window.padded_elements`` floats
    of scratch; the border of zeros is multiplied like any value.
    """
    x, weights, y, scratch = addresses
    pitch, plane = 4 * window.padded_w, 4 * window.oh * window.ow
    lines = [f"(memory.fill (i32.const {scratch}) (i32.const 0) (i32.const {4 * window.padded_elements}))"]
    lines += [_set("o", x), _set("w", weights), _set("q", y), "(loop $channels"]
    inside = scratch + 4 * window.pad * (window.padded_w + 1)
    lines += [_set("p", inside), "(loop $copy"]
    lines += [f"(memory.copy {_get('p')} {_get('o')} (i32.const {4 * window.w}))"]
    lines += [_add("p", pitch), _add("o", 4 * window.w), _until("copy", "p", inside + pitch * window.h)]
    lines += [_set("r", scratch), _set("g", f"(i32.add {_get('q')} (i32.const {plane}))"), "(loop $rows"]
    lines += [_set("p", _get("r"))]
    for number, (panel, count) in enumerate(runs(cut(window.ow, DEPTHWISE_VECTORS // window.stride))):
        loop = f"columns{number}"
        lines += [_set("s", count), f"(loop ${loop}", *_taps(window, panel, arithmetic, clamp)]
        lines += [_add("p", 4 * window.stride * panel.columns), _add("q", 4 * panel.columns)]
        lines += [_add("s", -1), _until(loop, "s", 0)]
    lines += [_add("r", pitch * window.stride), _until("rows", "q", _get("g"))]
    lines += [_add("w", 4 * (1 + window.k**2)), _until("channels", "q", y + plane * channels)]
    return _function(name, lines, (*(f"a{v}" for v in range(DEPTHWISE_VECTORS)), "v"))


def _taps(window: Window, panel: Panel, arithmetic: Arithmetic, clamp: tuple[float, float] | None) -> list[str]:
    """Sums of one panel of outputs at $q: every tap's weight once for all its vectors."""
    sums = [(f"a{v}", start) for v, start in enumerate(panel.starts)]
    lines = [f"(local.set $v (v128.load32_splat {_get('w')}))", *(f"(local.set ${a} {_get('v')})" for a, _ in sums)]
    lines.append("(block $taps")
    for tap in range(window.k**2):
        at = 4 * (tap // window.k * window.padded_w + tap % window.k)
        lines.append(f"(local.set $v (v128.load32_splat offset={4 * (1 + tap)} {_get('w')}))")
        for a, start in sums:
            offset = at + 4 * window.stride * start
            x = f"(v128.load offset={offset} {_get('p')})"
            if window.stride == 2:
                lanes = "0 1 2 3 8 9 10 11 16 17 18 19 24 25 26 27"
                x = f"(i8x16.shuffle {lanes} {x} (v128.load offset={offset + 16} {_get('p')}))"
            lines.append(f"(local.set ${a} {_madd(arithmetic, x, _get('v'), _get(a))})")
        lines.append(_end_of_block("taps", "s", tap) if tap < window.k**2 - 1 else ")")
    return lines + [f"(v128.store offset={4 * start} {_get('q')} {_clamped(_get(a), clamp)})" for a, start in sums]


def pool(name: str, x: int, y: int, channels: int, positions: int) -> str:
    """Mean of each channel: four sums of every fourth position, (s0 + s1) + (s2 + s3), the last positions % 4 one by
    one, then times 1 / positions."""
    whole = positions // LANES * LANES
    lines = [_set("p", x), _set("q", y), "(loop $channels", "(local.set $a (v128.const i32x4 0 0 0 0))"]
    if whole:
        lines += [_set("e", f"(i32.add {_get('p')} (i32.const {4 * whole}))"), "(loop $positions"]
        lines += [f"(local.set $a (f32x4.add {_get('a')} (v128.load {_get('p')})))", _add("p", 16)]
        lines += [_until("positions", "p", _get("e"))]
    lane = [f"(f32x4.extract_lane {i} {_get('a')})" for i in range(LANES)]
    total = f"(f32.add (f32.add {lane[0]} {lane[1]}) (f32.add {lane[2]} {lane[3]}))"
    for i in range(positions - whole):
        total = f"(f32.add {total} (f32.load offset={4 * i} {_get('p')}))"
    lines += [f"(f32.store {_get('q')} (f32.mul {total} (f32.const {1 / positions!r})))"]
    lines += [_add("p", 4 * (positions - whole)), _add("q", 4), _until("channels", "q", y + 4 * channels)]
    return _function(name, lines, ("a",))


def _exp_minus() -> list[str]:
    """$e4 = exp(-$x), with -$x held to +-87."""
    limit = f"(f32x4.pmin (f32x4.pmax (f32x4.neg {_get('x')}) {_splat(-EXP_LIMIT)}) {_splat(EXP_LIMIT)})"
    lines = [f"(local.set $t {limit})"]
    lines += [f"(local.set $i (f32x4.nearest (f32x4.mul {_get('t')} {_splat(LOG2_E)})))"]
    for part in (LN2_HIGH, LN2_LOW):
        lines.append(f"(local.set $t (f32x4.sub {_get('t')} (f32x4.mul {_get('i')} {_splat(part)})))")
    value = _splat(EXP_TERMS[0])
    for term in EXP_TERMS[1:]:
        value = f"(f32x4.add (f32x4.mul {value} {_get('t')}) {_splat(term)})"
    square = f"(f32x4.mul {_get('t')} {_get('t')})"
    value = f"(f32x4.add (f32x4.add (f32x4.mul {value} {square}) {_get('t')}) {_splat(1.0)})"
    power = f"(i32x4.add (i32x4.trunc_sat_f32x4_s {_get('i')}) (i32x4.splat (i32.const 127)))"
    return [*lines, f"(local.set $e4 (f32x4.mul {value} (i32x4.shl {power} (i32.const 23))))"]


def activation(name: str, function: str, address: int, elements: int) -> str:
    """``sigmoid`` 1 / (1 + exp(-x)) or ``silu`` x / (1 + exp(-x)), in place."""
    over = _get("x") if function == "silu" else _splat(1.0)
    lines = [_set("p", address), "(loop $vectors", f"(local.set $x (v128.load {_get('p')}))", *_exp_minus()]
    lines += [f"(v128.store {_get('p')} (f32x4.div {over} (f32x4.add {_splat(1.0)} {_get('e4')})))", _add("p", 16)]
    lines += [_until("vectors", "p", address + 16 * -(-elements // LANES))]
    return _function(name, lines, ("x", "t", "i", "e4"))


def add(name: str, a: int, b: int, y: int, elements: int) -> str:
    """Y = A + B."""
    lines = [_set("p", a), _set("q", b), _set("o", y), "(loop $vectors"]
    lines += [f"(v128.store {_get('o')} (f32x4.add (v128.load {_get('p')}) (v128.load {_get('q')})))"]
    lines += [_add("p", 16), _add("q", 16), _add("o", 16), _until("vectors", "o", y + 16 * -(-elements // LANES))]
    return _function(name, lines, ())


def scale(name: str, gate: int, x: int, y: int, channels: int, positions: int) -> str:
    """Y[c] = gate[c] X[c], positions at least 4; the last vector of a channel may overlap the one before it."""
    whole = positions // LANES * LANES
    multiply = f"(v128.store {_get('q')} (f32x4.mul (v128.load {_get('p')}) {_get('a')}))"
    lines = [_set("o", gate), _set("p", x), _set("q", y), "(loop $channels"]
    lines += [f"(local.set $a (v128.load32_splat {_get('o')}))"]
    lines += [_set("e", f"(i32.add {_get('q')} (i32.const {4 * whole}))"), "(loop $vectors", multiply]
    lines += [_add("p", 16), _add("q", 16), _until("vectors", "q", _get("e"))]
    if whole != positions:
        back = 4 * (LANES - (positions - whole))
        lines += [_add("p", -back), _add("q", -back), multiply, _add("p", 16), _add("q", 16)]
    lines += [_add("o", 4), _until("channels", "o", gate + 4 * channels)]
    return _function(name, lines, ("a",))
