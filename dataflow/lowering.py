"""Lowering: a layer becomes its matrix products and vector passes, stage by stage.

Nothing here knows the array: sizes, operands and geometry only. How a product is cut and ordered is
:mod:`.schedule`'s choice; how steps are laid out in memory is :mod:`.compiler`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from ..models.methods import Method
from ..models.sparsity import DENSE, Sparsity
from ..models.workload import Layer, Workload
from .program import Stage

BYTES16 = 2
NORMS = frozenset({"batchnorm", "layernorm", "rmsnorm"})
ROW_STATISTICS = frozenset({"layernorm", "rmsnorm", "softmax"})  # need a second look at their row
POOLS = frozenset({"maxpool", "avgpool"})


@dataclass(frozen=True, slots=True)
class Axis:
    """Implicit im2col along one image axis: input = out * step + tap * tap_step + origin."""

    size: int = 1
    out: int = 1
    taps: int = 1
    step: int = 1
    tap_step: int = 1
    origin: int = 0
    first_tap: int = 0  # stored tap = first_tap + tap * tap_stride
    tap_stride: int = 1
    target_first: int = 0  # output pixel = target_first + out * target_step
    target_step: int = 1
    target_size: int = 1


@dataclass(frozen=True, slots=True)
class Product:
    """C[m, n] = sum_k A[m, k] B[k, n], k = taps * kc, ``count`` times.

    ``a_bytes`` are the distinct bytes of A (raw feature map, not im2col) of all repeats; ``pattern`` is B's.
    ``swapped``: B is the activation gradient (SDGP), so m and n are exchanged against the stage's own.
    """

    layer: Layer
    stage: Stage
    m: int
    n: int
    kc: int
    pattern: Sparsity
    a_bytes: int
    y: Axis = Axis()
    x: Axis = Axis()
    count: int = 1
    images: int = 1
    channels: int = 1
    transposed: bool = False
    swapped: bool = False
    weights_are_b: bool = True
    out_fp32: bool = False
    part: str = ""  # which of several products of a stage: qk, av, phase, ...
    epilogue: int = 0  # RELU, STATISTICS and APPLY_MASK flags of the program
    block: int = 1  # depthwise: channels computed together, of which only the diagonal is wanted

    @property
    def taps(self) -> int:
        """Kernel taps that contribute."""
        return 1 if self.transposed else self.y.taps * self.x.taps

    @property
    def k(self) -> int:
        """Reduction length."""
        return self.taps * self.kc

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates; of a depthwise block only its diagonal counts."""
        return self.m * self.n * self.count * self.k // self.block

    @property
    def c_bytes(self) -> int:
        """Bytes of the result of all repeats."""
        return self.m * self.n * self.count * (4 if self.out_fp32 else BYTES16)


@dataclass(frozen=True, slots=True)
class VectorPass:
    """One pass of the vector lanes over memory; ``layers`` are fused, the last one's output is the result."""

    layers: tuple[Layer, ...]
    stage: Stage
    functions: tuple[str, ...]
    elements: int
    lane_cycles: int
    read_bytes: int
    write_bytes: int
    gather: bool = False  # backward: add the gradients of a product's output that several layers read

    @property
    def layer(self) -> Layer:
        """The layer a report names: the last one."""
        return self.layers[-1]


@dataclass(frozen=True, slots=True)
class Update:
    """WUVE update and SORE pre-generation of one layer's weights."""

    layer: Layer
    ff: Sparsity
    bp: Sparsity | None
    pregenerate: bool


@dataclass(frozen=True, slots=True)
class Prune:
    """SORE at use time: N:M of a dense binary16 operand on its way into the array."""

    layer: Layer
    stage: Stage
    elements: int
    pattern: Sparsity
    gradient: bool = False  # the operand is dY (SDGP), and its compressed copy goes through memory


Step = Product | VectorPass | Update | Prune


def stage_pattern(layer: Layer, stage: Stage, method: Method, sparsity: Sparsity) -> Sparsity:
    """Pattern of the layer's pruned operand in a stage; DENSE where the rules of section 2 leave it dense."""
    measured = None if method.bp_gradient else layer.measured(stage.name.lower())
    wanted = measured or layer.pattern or sparsity
    used = {Stage.FF: method.ff_weights, Stage.BP: method.bp_weights or method.bp_gradient, Stage.WU: False}
    if measured and used[stage]:
        return measured  # groups of a mask lie along this stage's axis alone
    prunable = layer.prune and layer.op in ("conv2d", "linear") and not wanted.is_dense
    if not (used[stage] and prunable):
        return DENSE
    per_group = layer.ic // layer.groups, layer.oc // layer.groups
    return wanted if all(size % wanted.group == 0 for size in per_group) else DENSE


def _forward_axes(layer: Layer) -> tuple[Axis, Axis]:
    return (
        Axis(layer.h, layer.oh, layer.kh, layer.stride, 1, -layer.pad, target_size=layer.oh),
        Axis(layer.w, layer.ow, layer.kw, layer.stride, 1, -layer.pad, target_size=layer.ow),
    )


def _phases(size: int, out: int, kernel: int, stride: int, pad: int) -> list[Axis]:
    """Backward axis of a strided convolution, one entry a phase of the input pixels (only useful taps)."""
    phases = []
    for phase in range(min(stride, size)):
        first = (phase + pad) % stride
        taps = len(range(first, kernel, stride))
        origin = (phase + pad) // stride
        count = ceil((size - phase) / stride)
        phases.append(Axis(out, count, taps, 1, -1, origin, first, stride, phase, stride, size))
    return phases


def forward_products(layer: Layer, batch: int, pattern: Sparsity, max_group: int) -> list[Product]:
    """Products of the forward stage (for depthwise: through the selector, ``max_group`` channels at a time)."""
    if layer.op == "linear":
        rows = batch * layer.tokens
        return [_linear(layer, Stage.FF, rows, layer.oc, layer.ic, pattern)]
    if layer.op == "attention":
        return [_attention(layer, Stage.FF, batch, part) for part in ("qk", "av")]
    y, x = _forward_axes(layer)
    if layer.op == "depthwise":
        return [_depthwise(layer, Stage.FF, batch, y, x, max_group)]
    return [_conv(layer, Stage.FF, batch, layer.ic // layer.groups, layer.oc // layer.groups, y, x, pattern)]


def backward_products(
    layer: Layer, batch: int, pattern: Sparsity, max_group: int, *, gradient_sparse: bool
) -> list[Product]:
    """Products of the backward stage: dX = dY * W^T; a strided convolution has one a phase with taps."""
    if layer.op == "attention":
        return [_attention(layer, Stage.BP, batch, part) for part in ("d_scores", "dq")]
    if layer.op == "linear":
        found = [_linear(layer, Stage.BP, batch * layer.tokens, layer.ic, layer.oc, pattern)]
    else:
        found = []
        for y in _phases(layer.h, layer.oh, layer.kh, layer.stride, layer.pad):
            for x in _phases(layer.w, layer.ow, layer.kw, layer.stride, layer.pad):
                if not (y.taps and x.taps):
                    continue
                if layer.op == "depthwise":
                    found.append(_depthwise(layer, Stage.BP, batch, y, x, max_group))
                else:
                    kc, n = layer.oc // layer.groups, layer.ic // layer.groups
                    found.append(_conv(layer, Stage.BP, batch, kc, n, y, x, pattern))
    if gradient_sparse and not pattern.is_dense:
        found = [_swap(item) for item in found]
    return found


def update_products(layer: Layer, batch: int, max_group: int) -> list[Product]:
    """Products of the weight-update stage: dW = X^T dY, dense."""
    if layer.op == "attention":
        return [_attention(layer, Stage.WU, batch, part) for part in ("dv", "dk")]
    if layer.op == "linear":
        rows = batch * layer.tokens
        feature_map = Axis(rows, rows, target_size=rows)
        return [
            Product(
                layer,
                Stage.WU,
                layer.ic,
                layer.oc,
                rows,
                DENSE,
                rows * layer.ic * BYTES16,
                feature_map,
                channels=layer.ic,
                transposed=True,
                weights_are_b=False,
                out_fp32=True,
            )
        ]
    y, x = _forward_axes(layer)
    pixels = batch * layer.oh * layer.ow
    ic, oc, count, block = layer.ic // layer.groups, layer.oc // layer.groups, layer.groups, 1
    if layer.op == "depthwise":
        ic = oc = block = _block(layer, max_group)
        count = layer.ic // block
    return [
        Product(
            layer,
            Stage.WU,
            layer.kh * layer.kw * ic,
            oc,
            pixels,
            DENSE,
            batch * layer.h * layer.w * layer.ic * 2,
            y,
            x,
            count,
            batch,
            ic,
            transposed=True,
            weights_are_b=False,
            out_fp32=True,
            block=block,
        )
    ]


def _linear(layer: Layer, stage: Stage, m: int, n: int, k: int, pattern: Sparsity) -> Product:
    rows = Axis(m, m, target_size=m)
    return Product(layer, stage, m, n, k, pattern, m * k * BYTES16, rows, Axis(), channels=k)


def _conv(layer: Layer, stage: Stage, batch: int, kc: int, n: int, y: Axis, x: Axis, pattern: Sparsity) -> Product:
    a_bytes = batch * y.size * x.size * kc * layer.groups * BYTES16
    m = batch * y.out * x.out
    return Product(layer, stage, m, n, kc, pattern, a_bytes, y, x, layer.groups, batch, kc)


def _block(layer: Layer, max_group: int) -> int:
    """Largest power of two of channels that the select covers and that divides the layer's channels."""
    block = 1
    while block * 2 <= max_group and layer.ic % (block * 2) == 0:
        block *= 2
    return block


def _depthwise(layer: Layer, stage: Stage, batch: int, y: Axis, x: Axis, max_group: int) -> Product:
    """Depthwise through the N:M select: blocks of M channels, weights block-diagonal, exactly 1:M."""
    block = _block(layer, max_group)
    pattern = Sparsity(1, block) if block > 1 else DENSE
    a_bytes = batch * y.size * x.size * layer.ic * BYTES16
    m, blocks = batch * y.out * x.out, layer.ic // block
    return Product(layer, stage, m, block, block, pattern, a_bytes, y, x, blocks, batch, block, block=block)


def _attention(layer: Layer, stage: Stage, batch: int, part: str) -> Product:
    t, d = layer.tokens, layer.head_dim
    m, n, k = (t, t, d) if part in ("qk", "d_scores") else (t, d, t)
    count = batch * layer.heads
    rows = Axis(t, t, target_size=t)
    return Product(
        layer,
        stage,
        m,
        n,
        k,
        DENSE,
        count * m * k * BYTES16,
        rows,
        Axis(),
        count,
        channels=k,
        transposed=part in ("dv", "dk"),
        weights_are_b=False,
        part=part,
    )


def _swap(item: Product) -> Product:
    """Exchange the operands, so that the activation gradient is the sparse B and weights stream as A."""
    a_bytes = item.k * item.n * item.count * BYTES16
    return replace(item, m=item.n, n=item.m, a_bytes=a_bytes, swapped=True, weights_are_b=False)


def vector_pass(
    layers: list[Layer], batch: int, *, train: bool, fused_relu: bool, kept: frozenset[str] = frozenset()
) -> VectorPass | None:
    """Fuse consecutive elementwise layers into one forward pass; None where the product's epilogue does all of it.

    ``kept`` names layers whose output somebody else reads too: inside the run it costs one more write.

    Forward, training: batch statistics come from the product's epilogue; the pass normalises, adds,
    activates, pools. Row statistics (layernorm, softmax) take a second slot a element. Inference:
    batch normalisation is folded into the weights.
    """
    layers = [layer for layer in layers if train or layer.function != "batchnorm"]
    functions = tuple(layer.function or "" for layer in layers)
    if not layers or (functions == ("relu",) and fused_relu):
        return None
    first, last = layers[0], layers[-1]
    elements_in = batch * input_elements(first)
    elements = batch * last.out_elements
    slots = max(elements_in, elements) * (2 if set(functions) & ROW_STATISTICS else 1)
    adds = sum(batch * layer.out_elements * BYTES16 for layer in layers if layer.function in ("add", "scale"))
    mask = elements // 8 if train and set(functions) & {"relu", "maxpool"} else 0
    in_epilogue = not train and not set(functions) & (ROW_STATISTICS | POOLS)
    read = adds + (0 if in_epilogue else elements_in * BYTES16)
    write = 0 if in_epilogue else elements * BYTES16 + mask
    write += sum(batch * layer.out_elements * BYTES16 for layer in layers[:-1] if layer.name in kept)
    return VectorPass(tuple(layers), Stage.FF, functions, elements, slots, read, write)


def backward_passes(
    layers: list[Layer], batch: int, *, fused_relu: bool
) -> tuple[VectorPass | None, VectorPass | None]:
    """Backward of a fused group: (reduction or None, application or None).

    Batch normalisation reduces dY and dY*x over the batch first: the reduction reads the saved activation and
    takes dY from the product that makes it (same chain, on chip). The application reads dY, the
    saved activation and the mask, and writes the gradient. A residual add reads the other branch's gradient.
    """
    functions = tuple(layer.function or "" for layer in layers)
    if not layers or (functions == ("relu",) and fused_relu):
        return None, None
    first, last = layers[0], layers[-1]
    elements_in = batch * input_elements(first)
    elements_out = batch * last.out_elements
    adds = sum(batch * layer.out_elements * BYTES16 for layer in layers if layer.function == "add")
    saved = set(functions) - {"add", "avgpool"}
    mask = elements_out // 8 if set(functions) & {"relu", "maxpool"} else 0
    reduction = None
    if "batchnorm" in functions:
        read = elements_in * BYTES16 + mask
        reduction = VectorPass(tuple(layers), Stage.BP, ("statistics",), 2 * first.oc, elements_in, read, 8 * first.oc)
    read = elements_out * BYTES16 + (elements_in * BYTES16 if saved else 0) + mask + adds
    slots = max(elements_in, elements_out) * (2 if set(functions) & ROW_STATISTICS else 1)
    apply = VectorPass(tuple(layers), Stage.BP, functions, elements_in, slots, read, elements_in * BYTES16)
    return reduction, apply


def gather_pass(layer: Layer, batch: int, parts: int, *, relu: bool) -> VectorPass:
    """Add the gradients that the readers of a product's output left, and apply its ReLU."""
    elements = batch * layer.out_elements
    functions = ("add", "relu") if relu else ("add",)
    read = elements * BYTES16 * (parts + relu)
    return VectorPass((layer,), Stage.BP, functions, elements, elements, read, elements * BYTES16, gather=True)


def input_elements(layer: Layer) -> int:
    """Elements of the input of an elementwise layer, one sample."""
    if layer.function in POOLS:
        return layer.oc * layer.h * layer.w
    if layer.function == "swiglu":
        return 2 * layer.out_elements
    return layer.out_elements


def relu_only(layers: list[Layer]) -> bool:
    """True for a lone ReLU, which a product's epilogue does."""
    return [layer.function for layer in layers] == ["relu"]


def kept_layers(workload: Workload) -> frozenset[str]:
    """Layers that somebody other than the next layer reads."""
    inputs = workload.inputs_of()
    following = dict(zip((layer.name for layer in workload.layers), workload.layers[1:], strict=False))
    return frozenset(
        name
        for reader, names in inputs.items()
        for name in names
        if name not in following or following[name].name != reader
    )


def groups_after(workload: Workload) -> list[tuple[Layer | None, list[Layer]]]:
    """The network as (product, elementwise layers that follow it); the first product may be None."""
    found: list[tuple[Layer | None, list[Layer]]] = [(None, [])]
    for layer in workload.layers:
        if layer.is_product:
            found.append((layer, []))
        else:
            found[-1][1].append(layer)
    return found if found[0][1] else found[1:]
