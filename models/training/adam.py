"""AdamW on the host in binary32: WUVE updates by momentum SGD alone, transformers are trained with this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..golden import narrow
from ..golden.floats import F16, F32
from .step import LossScale

FIRST_SCALE = 2.0**16  # of a mean over thousands of rows; too large a one costs a few skipped steps


@dataclass(frozen=True, slots=True)
class AdamRule:
    """Coefficients of one update (Kingma and Ba, arXiv 1412.6980; decoupled decay: arXiv 1711.05101).

    Attributes
    ----------
    lr, weight_decay : float
        w = w - lr * (m / (sqrt(v) + epsilon) + weight_decay * w), m and v corrected for their start at zero.
    lam : float
        Decay of dropped weights, added to the gradient as WUVE does: Adam then divides it by the gradient's own size.
    loss_scale : float
        Power of two that the gradient is divided by.
    """

    lr: float
    weight_decay: float = 0.01
    lam: float = 0.0
    loss_scale: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "lam"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise NmsatError.rule("training", name, "finite and not negative", value)


@dataclass(frozen=True, slots=True, eq=False)
class AdamState:
    """Everything an Adam step changes.

    Attributes
    ----------
    w32, m32, v32 : dict of float32 arrays
        Master weights, first and second moments.
    w16 : dict of float16 arrays
        Weights as the products and the selection see them.
    scale : LossScale
    steps : int
        Updates done.
    """

    w32: dict[str, F32]
    m32: dict[str, F32]
    v32: dict[str, F32]
    w16: dict[str, F16]
    scale: LossScale = field(default_factory=lambda: LossScale(FIRST_SCALE))
    steps: int = 0

    @classmethod
    def initial(cls, weights: Mapping[str, F32], scale: LossScale | None = None) -> AdamState:
        """Moments are zero; ``w16`` is the rounded master weight."""
        m32, v32 = ({name: np.zeros_like(w) for name, w in weights.items()} for _ in range(2))
        rounded = {name: narrow(w) for name, w in weights.items()}
        return cls(dict(weights), m32, v32, rounded, scale or LossScale(FIRST_SCALE))


def adam_update(
    g: F32, w: F32, m: F32, v: F32, kept: NDArray[np.bool_] | None, rule: AdamRule, step: int
) -> tuple[F32, F32, F32, F16]:
    """One tensor's update.

    Parameters
    ----------
    g, w, m, v : float32 arrays of one shape
        Gradient times the loss scale, master weight, moments.
    kept : bool array or None
        Weights that the decay term spares; None: there is no such term.
    step : int
        Updates including this one, from 1.

    Returns
    -------
    w, m, v : float32 arrays; w16 : float16 array
    """
    gradient: F32 = g * np.float32(1 / rule.loss_scale)
    if kept is not None and rule.lam:
        gradient = gradient + np.where(kept, np.float32(0), np.float32(rule.lam)) * w
    new_m: Any = np.float32(rule.beta1) * m + np.float32(1 - rule.beta1) * gradient
    new_v: Any = np.float32(rule.beta2) * v + np.float32(1 - rule.beta2) * (gradient * gradient)
    size = np.float32(rule.lr / (1 - rule.beta1**step))
    root = np.sqrt(new_v * np.float32(1 / (1 - rule.beta2**step))) + np.float32(rule.epsilon)
    new_w: Any = w * np.float32(1 - rule.lr * rule.weight_decay) - size * (new_m / root)
    return new_w, new_m, new_v, narrow(new_w)
