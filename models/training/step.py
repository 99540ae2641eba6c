"""One training step in mixed precision: binary16 operands, binary32 sums and master weights, dynamic loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import Normalised, UpdateRule, add, narrow
from ..golden.floats import F16, F32
from ..pruning.recipes import Operands, Recipe
from ..workload import Layer
from .loss import cross_entropy, cross_entropy_gradient
from .network import Gradients, Stack, Trace, backward, forward
from .products import BlasProducts, Products

LEAST_SCALE, GREATEST_SCALE = 1.0, 2.0**24
RUNNING = np.float32(0.1)  # weight of a step's statistics in the running ones


@dataclass(frozen=True, slots=True)
class LossScale:
    """Dynamic loss scale: halved at an overflow, doubled after ``interval`` steps without one.

    Attributes
    ----------
    value : float
        Power of two, so that scaling is exact and WUVE's reciprocal too.
    good_steps : int
        Steps since the last change.
    interval : int
        0 keeps the scale as it is.
    """

    value: float = 1024.0
    good_steps: int = 0
    interval: int = 500

    def after(self, overflow: bool) -> LossScale:
        """The scale of the next step.

        Raises
        ------
        NmsatError
            If a gradient overflows at the least scale already.
        """
        if overflow:
            if self.value <= LEAST_SCALE:
                raise NmsatError.rule("training", "gradients", "finite at loss scale 1", float("inf"), "lower the rate")
            return replace(self, value=self.value / 2, good_steps=0)
        if self.interval and self.good_steps + 1 >= self.interval:
            return replace(self, value=min(2 * self.value, GREATEST_SCALE), good_steps=0)
        return replace(self, good_steps=self.good_steps + 1)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Everything a step changes.

    Attributes
    ----------
    w32, v32 : dict of float32 arrays
        Master weights and momenta, OHWI or (O, I); scale and shift (2, channels) of a normalisation.
    w16 : dict of float16 arrays
        Weights as the products and the selection see them.
    scale : LossScale
    running : dict of float32 arrays (2, channels)
        Mean and variance of normalisations, averaged over steps: the host's, for inference.
    """

    w32: dict[str, F32]
    v32: dict[str, F32]
    w16: dict[str, F16]
    scale: LossScale = field(default_factory=LossScale)
    running: dict[str, F32] = field(default_factory=dict)

    @classmethod
    def initial(cls, weights: Mapping[str, F32], scale: LossScale | None = None) -> State:
        """Momenta are zero; ``w16`` is the rounded master weight."""
        momenta = {name: np.zeros_like(w) for name, w in weights.items()}
        return cls(dict(weights), momenta, {n: narrow(w) for n, w in weights.items()}, scale or LossScale())


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """A step's outcome: the new state (unchanged weights after an overflow), the loss before it, what it computed."""

    state: State
    loss: float
    skipped: bool
    operands: dict[str, Operands]
    trace: Trace
    gradients: Gradients


class HasLayers(Protocol):
    """A network's products in forward order."""

    @property
    def layers(self) -> tuple[Layer, ...]: ...


def stage_operands(stack: HasLayers, recipe: Recipe, w16: Mapping[str, F16], progress: float) -> dict[str, Operands]:
    """What the stages multiply with at ``progress`` (0..1); weights of no product (embeddings) are left alone."""
    layers = {layer.name: layer for layer in stack.layers}
    recipe.begin({name: w16[name] for name in layers}, layers, progress)
    return {layer.name: recipe.operands(layer, w16[layer.name], progress) for layer in stack.layers}


def training_step(
    stack: Stack,
    state: State,
    recipe: Recipe,
    x: F16,
    labels: NDArray[np.integer],
    rule: UpdateRule,
    *,
    progress: float = 0.0,
    products: Products | None = None,
) -> StepResult:
    """One step: operands from w16, forward, loss, backward, WUVE's update of every layer.

    Parameters
    ----------
    rule : UpdateRule
        Coefficients; ``lam`` and ``loss_scale`` are set from the recipe and the state.
    products : Products, optional
        BLAS by default.

    Raises
    ------
    NmsatError
        If the loss is not a number, or gradients overflow at the least loss scale.
    """
    from .kernels import fast_update

    products = products or BlasProducts()
    operands = stage_operands(stack, recipe, state.w16, progress)
    trace = forward(stack, operands, x, products, state.w32)
    loss = cross_entropy(trace.logits, labels)
    if not np.isfinite(loss):
        raise NmsatError.rule("training", "loss", "finite", loss, "lower the learning rate")
    scale = state.scale.value
    gradient = cross_entropy_gradient(trace.logits, labels, scale)
    gradients = backward(stack, operands, trace, gradient, products, state.w32)
    after = state.scale.after(gradients.overflow)
    if gradients.overflow:
        return StepResult(replace(state, scale=after), loss, True, operands, trace, gradients)
    rule = replace(rule, lam=recipe.lam, loss_scale=scale)
    new = State({}, {}, {}, after, {name: _averaged(state, name, found) for name, found in trace.norms.items()})
    plain = replace(rule, weight_decay=0.0, lam=0.0)  # scale and shift do not decay
    for name, g in gradients.weights.items():
        kept, used = (operands[name].kept, rule) if name in operands else (None, plain)
        found = fast_update(g, state.w32[name], state.v32[name], kept, used)
        new.w32[name], new.v32[name], new.w16[name] = found
    return StepResult(new, loss, False, operands, trace, gradients)


def _averaged(state: State, name: str, found: Normalised) -> F32:
    """Running mean and variance after a step; the first step's are its own."""
    now = np.stack([found.mean, found.variance])
    before = state.running.get(name, now)
    return add(before, np.multiply(RUNNING, now - before, dtype=np.float32))
