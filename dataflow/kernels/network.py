"""A whole convolutional network lowered to the layers of one wasm module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...models.errors import NmsatError
from ...models.workload import Layer, Workload
from . import wat_layers
from .description import LANES, Arithmetic, Kernel
from .image import Image, ImageBuilder
from .packing import Packed, pack
from .presets import GROUPED, SLICED, SPARSE
from .wat_layers import Window, conv_groups

F32 = NDArray[np.float32]
Kind = Literal["conv", "depthwise", "product", "pool", "sigmoid", "silu", "add", "scale"]
_FUSED = ("batchnorm", "relu", "silu", "sigmoid")  # read by nobody but their chain: part of the layer before
_RELU = (0.0, float("inf"))
DENSE_FROM = 1 / 3  # share of non-zeros from which a product is computed densely
COPY_FROM = 16.0  # non-zeros a value of X from which copying its panel pays


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One function of the module.

    ``name`` is its result's name, ``inputs`` are the names of what it reads ("" is the network's input), ``channels``
    and ``positions`` the result's size (a pool's positions are its input's); ``window``, ``weights`` (OHWI), ``bias``,
    ``packed`` and ``clamp`` as the kind needs.
    """

    kind: Kind
    name: str
    inputs: tuple[str, ...]
    channels: int
    positions: int
    window: Window | None = None
    weights: F32 | None = None
    bias: F32 | None = None
    packed: Packed | None = None
    clamp: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A lowered network: its steps, its arithmetic, its input's window."""

    name: str
    arithmetic: Arithmetic
    steps: tuple[Step, ...]

    @property
    def input_window(self) -> Window:
        """The first layer's geometry."""
        window = self.steps[0].window
        if window is None:
            raise NmsatError.rule(self.name, "layers", "a convolution first", self.steps[0].kind)
        return window

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the input with its border of zeros."""
        window, weights = self.input_window, self.steps[0].weights
        assert weights is not None
        return window.h + 2 * window.pad, window.padded_w, weights.shape[3]


def sample_parameters(workload: Workload, sparsity: float, seed: int = 0) -> tuple[dict[str, F32], dict[str, F32]]:
    """Seeded weights (OHWI) and biases of every layer, scaled to keep activations near 1; prunable ones sparse."""
    if not 0 <= sparsity < 1:
        raise NmsatError.rule("", "sparsity", "from 0 to below 1", sparsity)
    rng, weights, biases = np.random.default_rng(seed), {}, {}
    for layer in workload.expanded().layers:
        if not layer.has_weights:
            continue
        shape = (layer.oc, layer.kh, layer.kw, layer.ic // layer.groups)
        values, fan_in = rng.normal(size=shape), float(np.prod(shape[1:]))
        if layer.prune and layer.op == "conv2d":
            values[rng.random(shape) < sparsity] = 0
            fan_in *= 1 - sparsity
        weights[layer.name] = (values * np.sqrt(2 / fan_in)).astype(np.float32)
        biases[layer.name] = (0.1 * rng.normal(size=layer.oc)).astype(np.float32)
    return weights, biases


def lower(
    workload: Workload, weights: dict[str, F32], biases: dict[str, F32], arithmetic: Arithmetic = "fma"
) -> Network:
    """Lower a network: normalisation is taken as folded into weights and biases, ReLU into its layer's epilogue.

    Raises
    ------
    NmsatError
        For a layer these kernels do not have, or one that reads the inside of a fused chain.
    """
    workload = workload.expanded()
    layers, steps = list(workload.layers), []
    reads = workload.inputs_of()
    alias: dict[str, str] = {}
    at = 0
    while at < len(layers):
        layer, chain = layers[at], []
        while at + 1 < len(layers) and layer.is_product and _continues(layers[at + 1], reads, layers[at].name):
            chain.append(layers[at + 1])
            at += 1
        at += 1
        if layer.function == "cross_entropy":
            continue
        inputs = tuple(alias.get(name, name) for name in reads[layer.name]) or ("",)
        functions = [x.function for x in chain]
        step = _step(layer, inputs, weights, biases, arithmetic, "relu" in functions)
        steps.append(step)
        result = step.name
        for function in functions:
            if function in ("silu", "sigmoid"):
                kind: Kind = "silu" if function == "silu" else "sigmoid"
                steps.append(Step(kind, f"{layer.name}.{function}!", (result,), step.channels, step.positions))
                result = steps[-1].name
        alias[chain[-1].name if chain else layer.name] = result
        for inner in [layer, *chain][:-1]:
            if any(inner.name in names for reader, names in reads.items() if reader not in {x.name for x in chain}):
                raise NmsatError.rule(workload.name, layer.name, "read after its activation only", inner.name)
    network = Network(workload.name, arithmetic, tuple(steps))
    if network.steps[0].kind != "conv":
        raise NmsatError.rule(workload.name, "layers", "a convolution of the image first", network.steps[0].kind)
    return network


def _continues(layer: Layer, reads: dict[str, tuple[str, ...]], before: str) -> bool:
    return layer.op == "elementwise" and layer.function in _FUSED and reads[layer.name] == (before,)


def _step(
    layer: Layer,
    inputs: tuple[str, ...],
    weights: dict[str, F32],
    biases: dict[str, F32],
    arithmetic: Arithmetic,
    relu: bool,
) -> Step:
    clamp, size = _RELU if relu else None, layer.oh * layer.ow
    if layer.op == "elementwise":
        if layer.function == "avgpool" and (layer.kh, layer.kw) == (layer.h, layer.w):
            return Step("pool", layer.name, inputs, layer.oc, layer.h * layer.w)
        if layer.function == "add" and len(inputs) == 2:
            return Step("add", layer.name, inputs, layer.oc, size)
        if layer.function == "scale" and len(inputs) == 2:
            return Step("scale", layer.name, inputs, layer.oc, size)
        raise NmsatError.rule("network", layer.name, "a layer of mobile networks", layer.function)
    held, bias = weights[layer.name], biases[layer.name]
    if layer.op in ("depthwise", "conv2d") and layer.kh == layer.kw > 1 and layer.h > 1:
        window = Window(layer.h, layer.w, layer.kh, layer.stride, layer.pad)
        kind: Kind = "depthwise" if layer.op == "depthwise" else "conv"
        if kind == "depthwise" and (window.ow < LANES or window.stride > 2):
            sizes = (window.ow, window.stride)
            raise NmsatError.rule("network", layer.name, "at least 4 wide with stride 1 or 2", sizes)
        if kind == "conv" and (inputs != ("",) or layer.oc % LANES or layer.groups > 1):
            raise NmsatError.rule("network", layer.name, "the first layer, oc a multiple of 4", layer.op)
        return Step(kind, layer.name, inputs, layer.oc, size, window, held, bias, clamp=clamp)
    pointwise = layer.op == "conv2d" and (layer.kh, layer.kw, layer.stride, layer.groups) == (1, 1, 1, 1)
    if not (pointwise or (layer.op == "linear" and layer.tokens == 1)):
        raise NmsatError.rule("network", layer.name, "a layer of mobile networks", layer.op)
    m, matrix = (size if pointwise else 1), held.reshape(layer.oc, layer.ic)
    kernel = replace(choose(matrix, m, arithmetic), clamp=clamp)
    return Step("product", layer.name, inputs, layer.oc, m, packed=pack(kernel, matrix, bias), clamp=clamp)


def choose(weights: F32, m: int, arithmetic: Arithmetic) -> Kernel:
    """A kernel for W (n, k) and m columns by rules of thumb: few columns, density, panels copied where it pays."""
    n, k = weights.shape
    if m < LANES:
        return replace(SLICED, arithmetic=arithmetic)
    nonzeros = int(np.count_nonzero(weights))
    if nonzeros >= DENSE_FROM * n * k:
        return Kernel(mr=12, nr=2, unroll=2, index="dense", panels="copied", arithmetic=arithmetic)
    return replace(SPARSE if nonzeros >= COPY_FROM * k else GROUPED, arithmetic=arithmetic)


def build(network: Network) -> tuple[Image, dict[str, int]]:
    """The module of a network, and the address of every step's result by name ("" is the input's).

    Memory is not shared between tensors, so that every one can be compared after a run.
    """
    builder = ImageBuilder()
    height, width, channels = network.input_shape
    addresses = {"": builder.memory.take(4 * height * width * channels)}
    for step in network.steps:
        size = step.channels * (1 if step.kind == "pool" else step.positions)
        if step.kind in ("silu", "sigmoid"):
            addresses[step.name] = addresses[step.inputs[0]]
        else:
            addresses[step.name] = builder.memory.take(16 * -(-size // LANES))
        _place(builder, network.arithmetic, step, [addresses[name] for name in step.inputs], addresses[step.name])
    builder.addresses |= {"input": addresses[""], "output": addresses[network.steps[-1].name]}
    return builder.build(), addresses


def _place(builder: ImageBuilder, arithmetic: Arithmetic, step: Step, inputs: list[int], y: int) -> None:
    name, window = step.name, step.window
    if step.packed is not None:
        builder.product(name, step.packed, step.positions, inputs[0], y)
    elif step.kind in ("silu", "sigmoid"):
        builder.add(name, wat_layers.activation(name, step.kind, y, step.channels * step.positions))
    elif step.kind == "pool":
        builder.add(name, wat_layers.pool(name, inputs[0], y, step.channels, step.positions))
    elif step.kind == "add":
        builder.add(name, wat_layers.add(name, inputs[0], inputs[1], y, step.channels * step.positions))
    elif step.kind == "scale":
        builder.add(name, wat_layers.scale(name, inputs[0], inputs[1], y, step.channels, step.positions))
    else:
        assert window is not None
        assert step.weights is not None
        assert step.bias is not None
        oc, taps = step.channels, step.weights.reshape(step.channels, -1)
        if step.kind == "depthwise":
            stream = np.concatenate([step.bias[:, None], taps], axis=1)
            scratch = builder.memory.take(4 * window.padded_elements)
            at = (inputs[0], builder.data(stream.astype("<f4").tobytes()), y, scratch)
            builder.add(name, wat_layers.depthwise(name, at, oc, window, arithmetic, step.clamp))
        else:
            rows = np.concatenate([step.bias[:, None], taps], axis=1).reshape(-1, conv_groups(oc), 1 + taps.shape[1])
            at3 = (inputs[0], builder.data(rows.transpose(0, 2, 1).astype("<f4").tobytes()), y)
            sizes = (step.weights.shape[3], oc)
            builder.add(name, wat_layers.conv_hwc(name, at3, sizes, window, arithmetic, step.clamp))
