"""Recipes: what a training step uses in place of a dense weight, forward and backward.

One protocol, two kinds. :class:`DynamicNM` selects N:M anew from the dense master weights every step (SR-STE, SDGP,
SDWP, BDWP, and MdGf and SdGf by their schedules). :class:`FixedMask` selects once, at a stated point of the run, and
keeps that mask (one-shot, magnitude, random, ERK, global, block, channel).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import NmsatError
from ..golden import narrow
from ..golden.floats import F16
from ..methods import METHODS, Method, get_method
from ..sparsity import DENSE, GROUP_SIZES, Sparsity
from ..workload import Layer, Workload
from . import allocation, masks
from .masks import Mask
from .schedules import Leak, Tightening

DECAYS = ("ff", "bp", "union", "none")
LAM = 2e-4  # SR-STE's usual decay of dropped weights (arXiv 2102.04010)


@dataclass(frozen=True, slots=True, eq=False)
class Operands:
    """What the stages of one layer multiply with in one step.

    Attributes
    ----------
    ff, bp : float16 arrays, OHWI or (O, I)
        Weights of the forward and backward product, +0 where dropped.
    ff_pattern, bp_pattern : Sparsity
        How the array runs them: N:M, or dense.
    gradient_pattern : Sparsity
        N:M of the output gradient in the backward product (SDGP), or dense.
    kept : bool array or None
        Weights that the decay term spares; None: there is no decay.
    """

    ff: F16
    bp: F16
    ff_pattern: Sparsity = DENSE
    bp_pattern: Sparsity = DENSE
    gradient_pattern: Sparsity = DENSE
    kept: Mask | None = None


class Recipe(Protocol):
    """What a trainer asks of a recipe."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    @property
    def lam(self) -> float:
        """Coefficient of the decay term."""
        ...

    def begin(self, weights: Mapping[str, F16], layers: Mapping[str, Layer], progress: float) -> None:
        """See all prunable weights before the step at ``progress`` (0..1; 1 after the last step)."""
        ...

    def operands(self, layer: Layer, w16: F16, progress: float) -> Operands:
        """The layer's operands of this step."""
        ...


def prunable(layer: Layer) -> bool:
    """True where a recipe may touch the layer: convolutions and linear layers that do not say ``prune: false``."""
    return layer.prune and layer.op in ("conv2d", "linear")


def fits(layer: Layer, group: int) -> bool:
    """True when groups of ``group`` channels leave no tail, input and output side alike."""
    return (layer.ic // layer.groups) % group == 0 and (layer.oc // layer.groups) % group == 0


def check_fit(workload: Workload, pattern: Sparsity) -> None:
    """NmsatError unless the pattern divides the channels of every layer that may be pruned."""
    for layer in workload.layers:
        wanted = layer.pattern or pattern
        if prunable(layer) and not wanted.is_dense and not fits(layer, wanted.group):
            rule = f"one whose M divides ic={layer.ic} and oc={layer.oc} of layer {layer.name!r}"
            hint = "or mark the layer prune: false"
            raise NmsatError.rule(workload.name, "sparsity", rule, str(wanted), hint)


@dataclass(frozen=True, slots=True)
class DynamicNM:
    """Masks taken from the dense master weight every step (section 2 of docs/accelerator.md).

    Attributes
    ----------
    method : Method
        Which operands are N:M.
    pattern : Sparsity
        N:M at the end of the run; a layer's own pattern overrides it.
    decay : "ff", "bp", "union" or "none"
        Weights that the decay term pulls to zero: those the forward mask drops, those the backward mask drops, or
        (union) those that neither mask keeps.
    lam : float
        Its coefficient.
    leak, tightening
        MdGf and SdGf.
    """

    name: str
    method: Method
    pattern: Sparsity
    decay: str = "none"
    lam: float = 0.0
    leak: Leak = field(default_factory=Leak)
    tightening: Tightening = field(default_factory=Tightening)

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise NmsatError.rule("pruning", "decay", f"one of {', '.join(DECAYS)}", self.decay)

    def begin(self, weights: Mapping[str, F16], layers: Mapping[str, Layer], progress: float) -> None:
        """Nothing to prepare: every step selects anew."""

    def operands(self, layer: Layer, w16: F16, progress: float) -> Operands:
        pattern = self._pattern(layer, progress)
        if pattern.is_dense:
            return Operands(w16, w16)
        ff_mask = (
            masks.magnitude_nm(w16, pattern, -1) if self.method.ff_weights or self.decay in ("ff", "union") else None
        )
        bp_mask = (
            masks.magnitude_nm(w16, pattern, 0) if self.method.bp_weights or self.decay in ("bp", "union") else None
        )
        beta = self.leak.beta(progress)
        leaking = DENSE if beta else pattern
        ff, bp = w16, w16
        if self.method.ff_weights and ff_mask is not None:
            ff = _leaky(w16, ff_mask, beta)
        if self.method.bp_weights and bp_mask is not None:
            bp = _leaky(w16, bp_mask, beta)
        return Operands(
            ff,
            bp,
            leaking if self.method.ff_weights else DENSE,
            leaking if self.method.bp_weights else DENSE,
            pattern if self.method.bp_gradient else DENSE,
            self._kept(ff_mask, bp_mask),
        )

    def _pattern(self, layer: Layer, progress: float) -> Sparsity:
        wanted = layer.pattern or self.pattern
        if self.method.name == "dense" or wanted.is_dense or not prunable(layer) or not fits(layer, wanted.group):
            return DENSE
        widest = max(group for group in GROUP_SIZES if fits(layer, group))
        return self.tightening.pattern(wanted, progress, widest)

    def _kept(self, ff: Mask | None, bp: Mask | None) -> Mask | None:
        if self.decay == "union" and ff is not None and bp is not None:
            return ff | bp
        return {"ff": ff, "bp": bp}.get(self.decay)


Choice = Callable[[Mapping[str, F16]], dict[str, Mask]]


@dataclass(slots=True)
class FixedMask:
    """Dense until ``start``, then one mask for the rest of the run, the same forward and backward.

    Attributes
    ----------
    choose : function of all prunable weights
        Returns their masks.
    start : float
        Progress at which the masks are chosen: 0 before training, 1 after it (one-shot, no retraining).
    pattern : Sparsity
        N:M that the masks obey along the input channels, or dense. The backward product is never N:M: its groups
        lie along the output channels.
    """

    name: str
    choose: Choice
    start: float
    pattern: Sparsity = DENSE
    lam: float = 0.0
    chosen: dict[str, Mask] | None = None

    def begin(self, weights: Mapping[str, F16], layers: Mapping[str, Layer], progress: float) -> None:
        """Choose the masks at the first step at or after ``start``."""
        if self.chosen is None and progress >= self.start:
            self.chosen = self.choose({name: w for name, w in weights.items() if prunable(layers[name])})

    def operands(self, layer: Layer, w16: F16, progress: float) -> Operands:
        if self.chosen is None or layer.name not in self.chosen:
            return Operands(w16, w16)
        masked = np.where(self.chosen[layer.name], w16, np.float16(0))
        return Operands(masked, masked, layer.pattern or self.pattern)


def _leaky(w16: F16, mask: Mask, beta: float) -> F16:
    """w16 where kept, binary16(beta * w16) where dropped: the product is formed in binary32."""
    dropped = narrow(w16.astype(np.float32) * np.float32(beta)) if beta else np.float16(0)
    return np.where(mask, w16, dropped)


RECIPES = (
    *METHODS,
    "mdgf",
    "mdgf-exponential",
    "sdgf",
    "sdgf-geometric",
    "one-shot",
    "magnitude",
    "global",
    "random",
    "erk",
    "block",
    "channel",
)


def make_recipe(
    name: str, pattern: Sparsity, workload: Workload, *, decay: str | None = None, lam: float = LAM, seed: int = 0
) -> Recipe:
    """Build a recipe by its name on the command line.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`. mdgf and sdgf schedule the masks of BDWP. Unstructured recipes read the pattern as
        the density N/M.
    pattern : Sparsity
        N:M.
    workload : Workload
        Its layers' channels must be multiples of M wherever ``prune`` allows pruning.
    decay : str, optional
        Which dropped weights decay; by default "ff" for sr-ste (its definition) and "none" elsewhere.
    lam : float
        Coefficient of the decay term, where there is one.
    seed : int
        Of random masks.

    Raises
    ------
    NmsatError
        For an unknown name, or a pattern that does not divide a layer.
    """
    if name not in RECIPES:
        raise NmsatError.rule("", "method", f"one of {', '.join(RECIPES)}", name)
    if name != "dense":
        if pattern.is_dense:
            raise NmsatError.rule("", "sparsity", f"an N:M pattern for {name}", "dense")
        check_fit(workload, pattern)
    if name in METHODS or name.startswith(("mdgf", "sdgf")):
        return _dynamic(name, pattern, decay, lam)
    if decay not in (None, "none"):
        raise NmsatError.rule("", "decay", f"none for {name}", decay, "its masks do not move")
    choose, start = _choice(name, pattern, seed)
    return FixedMask(name, choose, start, pattern if name == "one-shot" else DENSE)


def _dynamic(name: str, pattern: Sparsity, decay: str | None, lam: float) -> DynamicNM:
    method = get_method(name if name in METHODS else "bdwp")
    decay = decay if decay is not None else ("ff" if name == "sr-ste" else "none")
    leak = {"mdgf": "linear", "mdgf-exponential": "exponential"}.get(name, "none")
    tightening = {"sdgf": "stepwise", "sdgf-geometric": "geometric"}.get(name, "none")
    lam = 0.0 if decay == "none" else lam
    return DynamicNM(name, method, pattern, decay, lam, Leak(leak), Tightening(tightening))


def _choice(name: str, pattern: Sparsity, seed: int) -> tuple[Choice, float]:
    density = pattern.density

    def each(rule: Callable[[F16], Mask]) -> Choice:
        return lambda weights: {layer: rule(w) for layer, w in weights.items()}

    def drawn(allocate: Callable[[dict[str, tuple[int, ...]], float], dict[str, float]]) -> Choice:
        def choose(weights: Mapping[str, F16]) -> dict[str, Mask]:
            shapes = {layer: w.shape for layer, w in weights.items()}
            shares = allocate(shapes, density)
            return {
                layer: masks.random_mask(shapes[layer], shares[layer], (seed, index))
                for index, layer in enumerate(shapes)
            }

        return choose

    return {
        "one-shot": (each(lambda w: masks.magnitude_nm(w, pattern, -1)), 1.0),
        "magnitude": (each(lambda w: masks.magnitude(w, density)), 0.5),
        "global": (lambda weights: allocation.global_magnitude(weights, density), 0.5),
        "random": (drawn(allocation.uniform), 0.0),
        "erk": (drawn(allocation.erk), 0.0),
        "block": (each(lambda w: masks.block_mask(w, density)), 0.5),
        "channel": (each(lambda w: masks.channel_mask(w, density)), 0.5),
    }[name]
