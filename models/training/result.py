"""What a run leaves behind, whatever it trained: accuracy, losses, weights, and what the masks did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..golden.floats import F16, F32
from ..pruning.recipes import Operands
from ..pruning.statistics import flip_rate, overlap

Progress = Callable[[Iterable[int]], Iterable[int]]


class Weights(Protocol):
    """What every optimizer's state holds: master weights and their rounded copies by name."""

    @property
    def w32(self) -> dict[str, F32]: ...

    @property
    def w16(self) -> dict[str, F16]: ...


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """A finished run.

    Attributes
    ----------
    accuracy : float
        Share of test images, or of validation bytes, predicted right, 0..1, with the operands that the recipe uses at
        the end.
    losses : tuple of float
        Mean training loss of every round: an epoch of the digits, a tenth of a language model's steps.
    flips : tuple of float
        Flip rate of the forward masks from round to round, all pruned layers together (one fewer than rounds).
    overlap : float
        P(BP keeps | FF keeps) at the end, averaged over the layers that both stages prune; 0 without any.
    skipped : int
        Steps given up because a gradient overflowed.
    state, operands
        The trained weights, and what the stages make of them.
    activations : dict of float
        Share of every layer's input that is not zero, over the test images; empty where it was not measured.
    """

    accuracy: float
    losses: tuple[float, ...]
    flips: tuple[float, ...]
    overlap: float
    skipped: int
    state: Weights
    operands: dict[str, Operands] = field(repr=False)
    activations: dict[str, float] = field(default_factory=dict)


class MaskWatch:
    """Follows the forward masks from round to round; ``flips`` are the rates at which their bits change."""

    def __init__(self) -> None:
        self._before: dict[str, NDArray[np.bool_]] = {}
        self._flips: list[float] = []

    def see(self, operands: Mapping[str, Operands]) -> None:
        """Take in the operands at the end of a round; the first round with masks has nothing to compare with."""
        masks = pattern_masks(operands, "ff")
        if masks and masks.keys() == self._before.keys():
            pairs = [(self._before[name].reshape(-1), mask.reshape(-1)) for name, mask in masks.items()]
            self._flips.append(flip_rate(*(np.concatenate(side) for side in zip(*pairs, strict=True))))
        self._before = masks

    @property
    def flips(self) -> tuple[float, ...]:
        """Share of bits that changed, one number for each pair of rounds."""
        return tuple(self._flips)


def pattern_masks(operands: Mapping[str, Operands], stage: str) -> dict[str, NDArray[np.bool_]]:
    """Masks of the layers whose operand is N:M in a stage, ``ff`` or ``bp``."""
    picked = {
        name: (used.ff, used.ff_pattern) if stage == "ff" else (used.bp, used.bp_pattern)
        for name, used in operands.items()
    }
    return {name: array != 0 for name, (array, pattern) in picked.items() if not pattern.is_dense}


def mask_overlap(operands: Mapping[str, Operands]) -> float:
    """Mean of P(BP keeps | FF keeps) over the layers that both stages prune; 0 without any."""
    ff, bp = pattern_masks(operands, "ff"), pattern_masks(operands, "bp")
    both = [overlap(ff[name], bp[name]) for name in ff if name in bp]
    return float(np.mean(both)) if both else 0.0


def one_thread() -> AbstractContextManager[Any]:
    """BLAS with one thread, where threadpoolctl is there to ask for it: these matrices are too small for two."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(1, user_api="blas")
