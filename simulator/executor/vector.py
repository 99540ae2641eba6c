"""VECTOR and HOST descriptors in values.

Every step of a pass takes and gives binary16; inside a step sums and products are binary32. Fusing steps into passes
therefore never changes a value. Backward, the pass is run forward again from its stored source, so that each step has
its operands, and then walked in reverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.program import Descriptor, Stage, steps_of
from ...models.errors import NmsatError
from ...models.golden import (
    ACTIVATIONS,
    NORMALISATIONS,
    activate,
    activation_gradient,
    add,
    apply_mask,
    narrow,
    relu,
    relu_mask,
    widen,
)
from . import host
from .image import Memory
from .norm import norm, norm_gradient
from .update import read_rule

F16 = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Pool:
    """Window of a pooling step over (images, h, w, c)."""

    kind: str
    window_y: int
    window_x: int
    stride: int
    pad: int

    def windows(self, x: NDArray[Any], fill: Any) -> NDArray[Any]:
        """(images, oh, ow, c, window): a window's pixels row by row, ``fill`` outside the image."""
        pad = self.pad
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(padded, (self.window_y, self.window_x), axis=(1, 2))
        view = view[:, :: self.stride, :: self.stride]
        return view.reshape(*view.shape[:4], -1)

    def forward(self, x: F16) -> F16:
        """Largest value, the first of equals; or the sum in window order times binary32(1 / window)."""
        if self.kind == "maxpool":
            found = self.windows(x, np.float16(-np.inf))
            return np.take_along_axis(found, _first_largest(found)[..., None], -1)[..., 0]
        found = widen(np.ascontiguousarray(self.windows(x, np.float16(0))))
        return narrow(_in_order(np.moveaxis(found, -1, 0)) * self._share())

    def backward(self, x: F16, dy: F16) -> F16:
        """Gradient of the input: a pixel's windows are added in binary32, from the last window place to the first."""
        images, height, width, channels = x.shape
        pad, (oh, ow) = self.pad, dy.shape[1:3]
        total = np.zeros((images, height + 2 * pad, width + 2 * pad, channels), np.float32)
        chosen = _first_largest(self.windows(x, np.float16(-np.inf))) if self.kind == "maxpool" else None
        wide = widen(dy)
        for place in range(self.window_y * self.window_x - 1, -1, -1):
            ty, tx = divmod(place, self.window_x)
            part = wide if chosen is None else np.where(chosen == place, wide, np.float32(0))
            rows = slice(ty, ty + (oh - 1) * self.stride + 1, self.stride)
            columns = slice(tx, tx + (ow - 1) * self.stride + 1, self.stride)
            total[:, rows, columns] = add(total[:, rows, columns], part)
        if self.kind == "avgpool":
            total = total * self._share()
        return narrow(np.ascontiguousarray(total[:, pad : pad + height, pad : pad + width]))

    def _share(self) -> np.float32:
        return np.float32(1 / (self.window_y * self.window_x))


def _first_largest(windows: NDArray[Any]) -> NDArray[np.intp]:
    """Place of the largest value, the first of equals; a NaN is larger than all."""
    return np.argmax(windows, axis=-1)


def _in_order(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum along the first axis in ascending order, starting at +0."""
    total = np.zeros(parts.shape[1:], np.float32)
    for part in parts:
        total = add(total, part)
    return total


def run_vector(item: Descriptor, memory: Memory) -> None:
    """Execute one VECTOR or HOST descriptor."""
    names = steps_of(item["steps"])
    if names == ["statistics"]:  # exact sums, which the application of the gradient forms again
        return
    if names == ["softmax"]:
        _softmax(item, memory)
        return
    source = _read(memory, item["source_address"], _shape(item))
    stream = [source]
    for name in names:
        stream.append(_forward(name, item, memory, stream[-1]))
    if item["stage"] == Stage.FF:
        result = stream[-1]
    elif names[-1:] == ["cross_entropy"]:
        labels = memory.at(item["labels_address"], "int32").first(_rows(source))
        scale = read_rule(memory, item["rule_address"]).loss_scale
        result = host.loss_gradient(stream[-2], labels, scale)
        result = _walk_back(names[:-1], item, memory, stream[:-1], result)
    else:
        result = _walk_back(names, item, memory, stream, _gradient(item, memory, stream[-1].shape))
    memory.at(item["target_address"], "float16").first(result.size)[:] = result.reshape(-1)


def _walk_back(names: list[str], item: Descriptor, memory: Memory, stream: list[F16], gradient: F16) -> F16:
    for place in range(len(names) - 1, -1, -1):
        before, after = stream[place], stream[place + 1]
        if names[place] == "relu":
            gradient = apply_mask(gradient, relu_mask(after))
        elif names[place] in ("maxpool", "avgpool"):
            gradient = _pool(item, names[place]).backward(before, gradient)
        elif names[place] in NORMALISATIONS:
            gradient = norm_gradient(names[place], item, memory, before, gradient)
        elif names[place] in ACTIVATIONS:
            gradient = activation_gradient(names[place], before, gradient)
        elif names[place] != "add":
            raise _unknown(names[place])
        elif item["second_target_address"]:  # an addition hands its gradient to both operands as it is
            memory.at(item["second_target_address"], "float16").first(gradient.size)[:] = gradient.reshape(-1)
    return gradient


def _forward(name: str, item: Descriptor, memory: Memory, x: F16) -> F16:
    if name == "relu":
        return relu(x)
    if name == "add":
        return narrow(add(widen(x), widen(_read(memory, item["second_address"], x.shape))))
    if name in ("maxpool", "avgpool"):
        return _pool(item, name).forward(x)
    if name in NORMALISATIONS:
        return norm(name, item, memory, x)
    if name in ACTIVATIONS:
        return activate(name, x)
    if name == "cross_entropy":
        if item["stage"] == Stage.FF and item["labels_address"]:
            labels = memory.at(item["labels_address"], "int32").first(_rows(x))
            memory.at(item["loss_address"], "float32").first(_rows(x))[:] = host.losses(x, labels)
        return host.probabilities(x)
    raise _unknown(name)


def _gradient(item: Descriptor, memory: Memory, shape: tuple[int, ...]) -> F16:
    """The gradients of the result, added in binary32 in their order, rounded once."""
    keys = ("gradient_address", "gradient_1_address", "gradient_2_address")[: item["gradients"]]
    parts = [_read(memory, item[key], shape) for key in keys]
    if not parts:
        raise NmsatError.rule("program", "gradients", "at least 1", 0)
    total = widen(parts[0])
    for part in parts[1:]:
        total = add(total, widen(part))
    return narrow(total)


def _softmax(item: Descriptor, memory: Memory) -> None:
    shape = _shape(item)
    probabilities = _read(memory, item["source_address"], shape)
    if item["stage"] == Stage.FF:
        result = host.attention_softmax(probabilities, item["head_dim"])
    else:
        gradient = _read(memory, item["gradient_address"], shape)
        result = host.attention_softmax_gradient(probabilities, gradient, item["head_dim"])
    memory.at(item["target_address"], "float16").first(result.size)[:] = result.reshape(-1)


def _pool(item: Descriptor, name: str) -> Pool:
    return Pool(name, item["window_y"], item["window_x"], item["stride"], item["pad"])


def _shape(item: Descriptor) -> tuple[int, int, int, int]:
    return item["images"], item["h"], item["w"], item["c"]


def _rows(x: F16) -> int:
    return x.size // x.shape[-1]


def _read(memory: Memory, address: int, shape: tuple[int, ...]) -> F16:
    return memory.at(address, "float16").first(int(np.prod(shape))).reshape(shape).copy()


def _unknown(name: str) -> NmsatError:
    return NmsatError.rule("program", "steps", "functions with defined values", name)
