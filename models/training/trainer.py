"""Whole runs: epochs of training steps on the digits, the accuracy after them, what the masks did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import UpdateRule
from ..golden.floats import F16
from ..pruning.recipes import LAM, Operands, make_recipe
from ..sparsity import Sparsity
from ..workload import Workload
from .data import Split, digits
from .network import Stack, forward
from .products import BlasProducts, Products
from .rate import check_run, half_cosine
from .result import MaskWatch, Progress, RunResult, mask_overlap, one_thread
from .step import State, stage_operands, training_step


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyperparameters of a run on the digits.

    Attributes
    ----------
    epochs, batch : int
        The images that do not fill the last batch of an epoch are left out of it.
    lr : float
        At the first step; it falls to 0 by half a cosine.
    decay : str or None
        Which dropped weights decay; None: as the recipe is defined.
    """

    epochs: int = 20
    batch: int = 32
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: str | None = None
    lam: float = LAM

    def __post_init__(self) -> None:
        check_run(self.lr, epochs=(self.epochs, 1), batch=(self.batch, 1))

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress``, 0..1."""
        return half_cosine(self.lr, progress)


def train(
    task: str | Workload,
    method: str,
    sparsity: str | Sparsity,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    data: Split | None = None,
    products: Products | None = None,
    progress: Progress = iter,
) -> RunResult:
    """Train a network on the digits.

    Parameters
    ----------
    task : str or Workload
        ``digits-mlp``, ``digits-cnn``, or a chain of layers on 8x8 images with 10 classes.
    method : str
        A recipe's name.
    sparsity : str or Sparsity
        N:M.
    seed : int
        Of initial weights, batches and random masks; the split of the data does not depend on it.
    progress : function
        Wraps the epochs.

    Raises
    ------
    NmsatError
        For an unknown method, a pattern that does not divide a layer, or a loss that is not a number.
    """
    settings = settings or Settings()
    workload = task if isinstance(task, Workload) else Workload.load(task)
    stack = Stack.of(workload)
    recipe = make_recipe(method, Sparsity.parse(sparsity), workload, decay=settings.decay, lam=settings.lam, seed=seed)
    data = data or digits()
    rng = np.random.default_rng((seed, len(stack.layers)))
    images, per_epoch = shaped(stack, data.train_x), len(data.train_x) // settings.batch
    if not per_epoch:
        raise NmsatError.rule("training", "batch", f"at most {len(data.train_x)}", settings.batch)
    state, steps, skipped = State.initial(stack.initial_weights(seed)), settings.epochs * per_epoch, 0
    losses: list[float] = []
    watch = MaskWatch()
    with one_thread():
        for epoch in progress(range(settings.epochs)):
            order, total = rng.permutation(len(images)), 0.0
            for index in range(per_epoch):
                at = (epoch * per_epoch + index) / steps
                chosen = order[index * settings.batch : (index + 1) * settings.batch]
                rule = UpdateRule(settings.rate(at), settings.momentum, settings.weight_decay)
                x, y = images[chosen], data.train_y[chosen]
                result = training_step(stack, state, recipe, x, y, rule, progress=at, products=products)
                state, total, skipped = result.state, total + result.loss, skipped + result.skipped
            losses.append(total / per_epoch)
            watch.see(stage_operands(stack, recipe, state.w16, (epoch + 1) / settings.epochs))
        operands = stage_operands(stack, recipe, state.w16, 1.0)
        right = accuracy(stack, operands, data.test_x, data.test_y, products, state)
        read = forward(stack, operands, shaped(stack, data.test_x), BlasProducts(), state.w32, state.running).inputs
    found = {layer.name: _density(x) for layer, x in zip(stack.layers, read, strict=True)}
    return RunResult(right, tuple(losses), watch.flips, mask_overlap(operands), skipped, state, operands, found)


def _density(x: F16) -> float:
    """Share of values that are not zero."""
    return round(int(np.count_nonzero(x)) / x.size, 6)


def accuracy(
    stack: Stack,
    operands: dict[str, Operands],
    images: F16,
    labels: NDArray[np.integer],
    products: Products | None = None,
    state: State | None = None,
) -> float:
    """Share of images whose largest logit is at the label; of equal logits the lower class counts.

    ``state`` gives a stack that normalises its scale, shift and running statistics.
    """
    known = (state.w32, state.running) if state else (None, None)
    logits = forward(stack, operands, shaped(stack, images), products or BlasProducts(), *known).logits
    return float((logits.argmax(axis=1) == labels).mean())


def shaped(stack: Stack, images: F16) -> F16:
    """Images as the first layer reads them: (batch, h, w, ic), or (batch, ic) for a linear layer."""
    first = stack.layers[0]
    shape = (first.ic,) if first.op == "linear" else (first.h, first.w, first.ic)
    if images[:1].size != np.prod(shape):
        raise NmsatError.rule(stack.workload.name, f"layer {first.name!r}", "for inputs of 64 pixels", shape)
    return images.reshape(len(images), *shape)
