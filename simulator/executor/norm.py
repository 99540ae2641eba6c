"""Normalisation steps of a pass: their parameters in memory, their statistics, the update of scale and shift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...dataflow.program import AFFINE, Descriptor, Stage
from ...models.golden import normalise, normalise_gradient, wuve_update
from ...models.golden.floats import F16, F32
from .image import Memory
from .update import read_rule


def norm(kind: str, item: Descriptor, memory: Memory, x: F16) -> F16:
    """The step's result; forward, batch statistics are left beside the parameters for the host's running ones."""
    affine = _affine(item, memory, x)
    found = normalise(kind, x.reshape(-1, x.shape[-1]), affine[0], affine[1])
    if kind == "batchnorm" and item["stage"] == Stage.FF:
        affine[AFFINE.index("mean")], affine[AFFINE.index("variance")] = found.mean, found.variance
    return found.y.reshape(x.shape)


def norm_gradient(kind: str, item: Descriptor, memory: Memory, x: F16, dy: F16) -> F16:
    """Gradient of the step's input; then scale and shift are updated by the rule, without weight decay."""
    affine = _affine(item, memory, x)
    found = normalise(kind, x.reshape(-1, x.shape[-1]), affine[0], affine[1])
    dx, *gradients = normalise_gradient(kind, dy.reshape(found.y.shape), found, affine[0])
    rule = replace(read_rule(memory, item["rule_address"]), weight_decay=0.0, lam=0.0)
    affine[4:6] = np.stack(gradients)
    affine[0:2], affine[2:4], _ = wuve_update(affine[4:6], affine[0:2], affine[2:4], None, rule)
    return dx.reshape(x.shape)


def _affine(item: Descriptor, memory: Memory, x: F16) -> F32:
    """Rows of AFFINE, a view of memory."""
    return memory.at(item["affine_address"], "float32").first(len(AFFINE) * x.shape[-1]).reshape(len(AFFINE), -1)
