"""Whole runs of the language model: windows of the corpus, AdamW, next-byte accuracy on the validation files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..pruning.recipes import LAM, Operands, Recipe, make_recipe
from ..sparsity import Sparsity
from ..workload import Workload
from .adam import AdamRule, AdamState, adam_update
from .corpus import Corpus, standard_library, windows
from .loss import cross_entropy, cross_entropy_gradient
from .products import BlasProducts, Products
from .rate import check_run, half_cosine
from .result import MaskWatch, Progress, RunResult, mask_overlap, one_thread
from .step import stage_operands
from .transformer import EMBEDDINGS, Transformer, language_backward, language_forward

ROUNDS = 10  # losses and mask flips are noted ten times a run
VALIDATION_WINDOWS = 1024
WARM_UP = 0.05  # share of the run over which the rate rises


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """Hyperparameters of a run on the standard library's source.

    Attributes
    ----------
    steps, batch : int
        Updates; windows of the workload's context each.
    lr : float
        Greatest rate, after a linear rise over the first twentieth; then half a cosine to 0.
    decay : str
        Which dropped weights decay: none, whatever the recipe, because Adam turns the term into a pull of the size
        of a gradient (docs/training.md).
    """

    steps: int = 1500
    batch: int = 16
    lr: float = 6e-3
    weight_decay: float = 0.01
    decay: str = "none"
    lam: float = LAM

    def __post_init__(self) -> None:
        check_run(self.lr, steps=(self.steps, ROUNDS), batch=(self.batch, 1))

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress``, 0..1."""
        if progress < WARM_UP:
            return self.lr * (progress + 1 / self.steps) / (WARM_UP + 1 / self.steps)
        return half_cosine(self.lr, (progress - WARM_UP) / (1 - WARM_UP))


def train_language(
    task: str | Workload,
    method: str,
    sparsity: str | Sparsity,
    *,
    seed: int = 0,
    settings: LanguageSettings | None = None,
    corpus: Corpus | None = None,
    products: Products | None = None,
    progress: Progress = iter,
) -> RunResult:
    """Train a byte-level language model.

    Parameters
    ----------
    task : str or Workload
        ``bytes-lm``, or a workload built like it.
    method : str
        A recipe's name.
    sparsity : str or Sparsity
        N:M.
    seed : int
        Of initial weights, windows and random masks; what validates does not depend on it.
    corpus : Corpus, optional
        This interpreter's standard library by default.
    progress : function
        Wraps the rounds.

    Raises
    ------
    NmsatError
        For an unknown method, a pattern that does not divide a layer, a corpus shorter than a window, or a loss that
        is not a number.
    """
    settings = settings or LanguageSettings()
    workload = task if isinstance(task, Workload) else Workload.load(task)
    net = Transformer.of(workload)
    recipe = make_recipe(method, Sparsity.parse(sparsity), workload, decay=settings.decay, lam=settings.lam, seed=seed)
    corpus = corpus or standard_library()
    for data in (corpus.train, corpus.validation):
        if len(data) <= net.context:
            raise NmsatError.rule("training", "corpus", f"longer than a window of {net.context}", len(data))
    rng, products = np.random.default_rng((seed, len(net.layers))), products or BlasProducts()
    state, skipped, losses, watch = AdamState.initial(net.initial_weights(seed)), 0, [], MaskWatch()
    borders = [round(settings.steps * i / ROUNDS) for i in range(ROUNDS + 1)]
    with one_thread():
        for number in progress(range(ROUNDS)):
            total = 0.0
            for step in range(borders[number], borders[number + 1]):
                at = step / settings.steps
                starts = rng.integers(0, len(corpus.train) - net.context, settings.batch)
                x, y = windows(corpus.train, starts, net.context)
                rule = AdamRule(settings.rate(at), settings.weight_decay)
                state, loss, bad = language_step(net, state, recipe, x, y, rule, progress=at, products=products)
                total, skipped = total + loss, skipped + bad
            losses.append(total / (borders[number + 1] - borders[number]))
            watch.see(stage_operands(net, recipe, state.w16, (number + 1) / ROUNDS))
        operands = stage_operands(net, recipe, state.w16, 1.0)
        right = next_byte_accuracy(net, operands, state, corpus.validation, products)
    return RunResult(right, tuple(losses), watch.flips, mask_overlap(operands), skipped, state, operands)


def language_step(
    net: Transformer,
    state: AdamState,
    recipe: Recipe,
    x: NDArray[np.integer],
    y: NDArray[np.integer],
    rule: AdamRule,
    *,
    progress: float = 0.0,
    products: Products | None = None,
) -> tuple[AdamState, float, bool]:
    """One step: operands from w16, forward, loss, backward, Adam's update of every weight.

    Parameters
    ----------
    x, y : integer arrays (batch, tokens)
        Bytes and the bytes that follow them.
    rule : AdamRule
        ``lam`` and ``loss_scale`` are set from the recipe and the state.

    Returns
    -------
    state, loss before the step (nats a byte), whether the step was skipped because a gradient overflowed

    Raises
    ------
    NmsatError
        If the loss is not a number, or gradients overflow at the least loss scale.
    """
    products = products or BlasProducts()
    operands = stage_operands(net, recipe, state.w16, progress)
    trace = language_forward(net, operands, _embeddings(state), x, products)
    labels = y.reshape(-1).astype(np.int64)
    loss = cross_entropy(trace.logits, labels)
    if not np.isfinite(loss):
        raise NmsatError.rule("training", "loss", "finite", loss, "lower the learning rate")
    gradient = cross_entropy_gradient(trace.logits, labels, state.scale.value)
    gradients = language_backward(net, operands, trace, gradient, products)
    after = state.scale.after(gradients.overflow)
    if gradients.overflow:
        return replace(state, scale=after), loss, True
    rule = replace(rule, lam=recipe.lam, loss_scale=state.scale.value)
    new = AdamState({}, {}, {}, {}, after, state.steps + 1)
    for name, g in gradients.weights.items():
        kept = operands[name].kept if name in operands else None
        before = state.w32[name], state.m32[name], state.v32[name]
        found = adam_update(g, *before, kept, rule, new.steps)
        new.w32[name], new.m32[name], new.v32[name], new.w16[name] = found
    return new, loss, False


def next_byte_accuracy(
    net: Transformer, operands: dict[str, Operands], state: AdamState, data: NDArray[np.uint8], products: Products
) -> float:
    """Share of bytes predicted right, 0..1, in windows evenly spread; of equal logits the lower byte counts."""
    count = min(VALIDATION_WINDOWS, (len(data) - 1) // net.context)
    starts = np.linspace(0, len(data) - 1 - net.context, count).astype(np.int64)
    right = 0
    for first in range(0, count, 64):
        x, y = windows(data, starts[first : first + 64], net.context)
        logits = language_forward(net, operands, _embeddings(state), x, products).logits
        right += int((logits.argmax(axis=1) == y.reshape(-1)).sum())
    return right / (count * net.context)


def _embeddings(state: AdamState) -> dict:
    return {name: state.w16[name] for name in EMBEDDINGS}
