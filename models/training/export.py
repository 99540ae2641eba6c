"""A trained network as a workload file: dense master weights and both masks, or masked weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..sparsity import DENSE, Sparsity
from ..stages import Accuracy
from ..workload import Workload
from ..workload_file import WorkloadFile
from .result import RunResult


def workload_file(
    workload: Workload, method: str, result: RunResult, *, batch: int, accuracy: Accuracy | None = None
) -> WorkloadFile:
    """Gather what a run produced.

    N:M operands get their mask and pattern, forward along the input channels, backward along the output channels, and
    the dense master weight is kept beside them: training can go on. The weights of a fixed mask are stored with its
    zeros.
    """
    weights: dict[str, NDArray[np.float32]] = {}
    masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
    patterns: dict[tuple[str, str], Sparsity] = {}
    for layer in workload.layers:
        if not layer.has_weights:
            continue
        used = result.operands[layer.name]
        master = result.state.w32[layer.name]
        fixed = (
            used.ff_pattern.is_dense and used.ff is used.bp and bool((used.ff != result.state.w16[layer.name]).any())
        )
        weights[layer.name] = np.where(used.ff != 0, master, np.float32(0)) if fixed else master
        for stage, array, pattern in (("ff", used.ff, used.ff_pattern), ("bp", used.bp, used.bp_pattern)):
            if stage == "bp" and not workload.input_gradient(layer):
                continue
            patterns[layer.name, stage] = pattern
            if not pattern.is_dense:
                masks[layer.name, stage] = array != 0
    facts = (accuracy,) if accuracy else ()
    return WorkloadFile.build(
        workload,
        batch=batch,
        weights=weights,
        masks=masks,
        patterns={key: pattern for key, pattern in patterns.items() if key in masks or pattern == DENSE},
        activations=result.activations,
        accuracy=facts,
        notes=(f"trained by {method}",),
    )
