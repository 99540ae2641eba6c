"""A whole network on generated kernels, and its NumPy model in the same order of operations."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...dataflow.kernels import wat_layers
from ...dataflow.kernels.network import Network, Step, build
from ...models.errors import NmsatError
from . import compiled
from .node import NodeInstance
from .reference import clamp, fma, multiply_add
from .wasm import WasmInstance

F32 = NDArray[np.float32]


def sample_image(network: Network, seed: int) -> F32:
    """A seeded image (H, W, C) float32 for a network."""
    window = network.input_window
    shape = (window.h, window.w, network.input_shape[2])
    return np.random.default_rng([seed, 2]).normal(size=shape).astype(np.float32)


def padded_input(network: Network, image: F32) -> F32:
    """Image (H, W, C) float32 with the first layer's border of zeros.

    Raises
    ------
    NmsatError
        If it has another shape or type, or holds a NaN.
    """
    height, width, channels = network.input_shape
    window = network.input_window
    shape = (window.h, window.w, channels)
    if image.shape != shape or image.dtype != np.float32:
        raise NmsatError.rule("network", "image", f"float32 of shape {shape}", f"{image.dtype} {image.shape}")
    if np.isnan(image).any():
        raise NmsatError.rule("network", "image", "free of NaN", "a NaN")
    found = np.zeros((height, width, channels), np.float32)
    found[window.pad : height - window.pad, window.pad : width - window.pad] = image
    return found


def reference(network: Network, image: F32) -> dict[str, F32]:
    """Every step's result by name, (channels, positions) or (channels,), bit-equal to the generated module's.

    Products use the numba twin, itself bit-equal to the NumPy reference; the rest is NumPy.
    """
    results: dict[str, F32] = {"": padded_input(network, image)}
    for step in network.steps:
        inputs = [results[name] for name in step.inputs]
        results[step.name] = _result(network, step, inputs)
    return results


def _result(network: Network, step: Step, inputs: list[F32]) -> F32:
    if step.packed is not None:
        return compiled.multiply(step.packed, inputs[0].reshape(step.packed.k, -1))
    if step.kind == "pool":
        return pool(inputs[0].reshape(step.channels, -1))
    if step.kind in ("sigmoid", "silu"):
        return activation(step.kind, inputs[0])
    if step.kind == "add":
        return inputs[0] + inputs[1]
    if step.kind == "scale":
        return inputs[0].reshape(-1, 1) * inputs[1]
    return clamp(_convolution(network, step, inputs[0]), step.clamp)


def _convolution(network: Network, step: Step, x: F32) -> F32:
    window, weights = step.window, step.weights
    assert window is not None
    assert weights is not None
    assert step.bias is not None
    madd = fma if network.arithmetic == "fma" else multiply_add
    if step.kind == "depthwise":
        border = ((0, 0), (window.pad, window.pad), (window.pad, window.pad))
        x = np.pad(x.reshape(step.channels, window.h, window.w), border)
    else:
        x = x.transpose(2, 0, 1)
    total = np.broadcast_to(step.bias[:, None, None], (step.channels, window.oh, window.ow)).copy()
    last_y, last_x = window.stride * (window.oh - 1) + 1, window.stride * (window.ow - 1) + 1
    for ky in range(window.k):
        for kx in range(window.k):
            part = x[:, ky : ky + last_y : window.stride, kx : kx + last_x : window.stride]
            for c in range(weights.shape[3]):
                column = part if step.kind == "depthwise" else part[c]
                total = madd(weights[:, ky, kx, c][:, None, None], column, total)
    return total.reshape(step.channels, -1)


def pool(x: F32) -> F32:
    """Mean over positions of X (channels, positions) in the order of the generated code."""
    positions = x.shape[1]
    whole = positions // 4 * 4
    sums = np.zeros((len(x), 4), np.float32)
    for first in range(0, whole, 4):
        sums += x[:, first : first + 4]
    total = (sums[:, 0] + sums[:, 1]) + (sums[:, 2] + sums[:, 3])
    for at in range(whole, positions):
        total = total + x[:, at]
    return np.asarray(total * np.float32(1 / positions), np.float32)


def activation(function: str, x: F32) -> F32:
    """``sigmoid`` or ``silu`` by the generated code's exponential."""
    f32 = np.float32
    limit = f32(wat_layers.EXP_LIMIT)
    t = np.clip(-x, -limit, limit)
    exponent = np.rint(t * f32(wat_layers.LOG2_E))
    for part in (wat_layers.LN2_HIGH, wat_layers.LN2_LOW):
        t = t - exponent * f32(part)
    value = np.full_like(t, wat_layers.EXP_TERMS[0])
    for term in wat_layers.EXP_TERMS[1:]:
        value = value * t + f32(term)
    value = (value * (t * t) + t) + f32(1)
    power = ((exponent.astype(np.int32) + 127) << 23).view(np.float32)
    return np.asarray((x if function == "silu" else f32(1)) / (f32(1) + value * power), np.float32)


@dataclass(frozen=True, slots=True)
class NetworkOutcome:
    """A network's run: least CPU seconds of an image, and how every tensor compares with the reference."""

    seconds: float
    values: int
    bits_differing: int
    guards_intact: bool
    memory_bytes: int

    @property
    def ok(self) -> bool:
        """True if every bit is right and no guard was touched."""
        return self.bits_differing == 0 and self.guards_intact


def run(network: Network, image: F32, engine: str = "wasmtime", rounds: int = 3) -> NetworkOutcome:
    """Run an image (H, W, C) through the generated module and compare every tensor that is still in its memory.

    Raises
    ------
    MissingToolError
        If the engine is not installed.
    NmsatError
        If the image is not the network's.
    """
    start, expected = padded_input(network, image), reference(network, image)
    module, addresses = build(network)
    if engine == "node":
        with NodeInstance(module) as node:
            node.put(addresses[""], start)
            seconds = min(node.run() for _ in range(rounds + 1))
            return _compare(network, node, addresses, expected, seconds)
    instance = WasmInstance(module)
    instance.put(addresses[""], start)
    return _compare(network, instance, addresses, expected, min(_timed(instance) for _ in range(rounds + 1)))


def _timed(instance: WasmInstance) -> float:
    start = time.thread_time()
    instance.run()
    return time.thread_time() - start


def _compare(
    network: Network,
    instance: WasmInstance | NodeInstance,
    addresses: dict[str, int],
    expected: dict[str, F32],
    seconds: float,
) -> NetworkOutcome:
    overwritten = {step.inputs[0] for step in network.steps if step.kind in ("sigmoid", "silu")}
    values = differing = 0
    for step in network.steps:
        if step.name not in overwritten:
            golden = expected[step.name]
            found = instance.get(addresses[step.name], golden.shape)
            differing += int(np.count_nonzero(found.view(np.uint32) != golden.view(np.uint32)))
            values += golden.size
    memory_bytes = instance.image.memory_bytes
    return NetworkOutcome(seconds, values, differing, instance.guards_intact(), memory_bytes)
