"""Which sparsity a weight has: every export format ends in dense tensors with zeros, so the zeros are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import NmsatError
from ..sparsity import DENSE, GROUP_SIZES, Sparsity

BLOCKS = (4, 2)  # output channels that share their zeros; one channel is unstructured
FIRST_VIOLATIONS = 5
NEARLY = 0.01  # share of groups that may break a pattern which most of the others fill
FILLED = 0.5  # share of groups that must hold exactly N for a pattern to be the maker's own

Axis = Literal["in", "out"]
Kind = Literal["dense", "N:M", "channels", "block", "unstructured"]


@dataclass(frozen=True, slots=True)
class AxisPattern:
    """N:M of a weight along one axis.

    Attributes
    ----------
    intended : Sparsity
        The asked pattern or, under ``auto``, the one that almost all groups fill; DENSE where there is none.
    legal : Sparsity
        The tightest N:M that no group breaks, DENSE where there is none: what the hardware can run.
    groups, short_groups, violations : int
        Groups of the intended pattern; those with fewer than N, and with more than N non-zeros.
    first : tuple of positions
        (oc, ky, kx, ic) of the first violating groups' first channels.
    """

    axis: Axis
    intended: Sparsity
    legal: Sparsity
    groups: int = 0
    short_groups: int = 0
    violations: int = 0
    first: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Detection:
    """What the zeros of one weight say.

    Attributes
    ----------
    kind : str
        ``dense`` (no zero), ``channels`` (all zeros are whole channels), ``N:M``, ``block`` or ``unstructured``.
    density : float
        Share of non-zeros.
    ff, bp : AxisPattern
        Along input and along output channels.
    block : int
        Output channels that share their zeros: 4, 2 or 1.
    zero_outputs, zero_inputs : int
        Channels that are all zero.
    """

    kind: Kind
    density: float
    ff: AxisPattern
    bp: AxisPattern
    block: int
    zero_outputs: int
    zero_inputs: int


def detect(weights: NDArray[Any], groups: int = 1, wanted: Sparsity | None = None) -> Detection:
    """Find the tightest patterns of a weight.

    Parameters
    ----------
    weights : array (oc, kh, kw, ic / groups)
        OHWI; zeros of either sign are zeros. Or a bool mask.
    groups : int
        Groups of the convolution: output channels are grouped inside one.
    wanted : Sparsity, optional
        Pattern to hold both axes to; None: find it.

    Raises
    ------
    NmsatError
        For a weight that is not 4-D or is empty.
    """
    if weights.ndim != 4 or not weights.size:
        raise NmsatError.rule("detector", "weights.shape", "(oc, kh, kw, ic), none of them 0", weights.shape)
    mask = np.ascontiguousarray(weights != 0)
    density = int(np.count_nonzero(mask)) / mask.size
    oc, _, _, ic = mask.shape
    ff = _along(mask, "in", ic, density, wanted)
    bp = _along(mask, "out", oc // groups, density, wanted)
    outputs, inputs = np.asarray(mask.any(axis=(1, 2, 3))), np.asarray(mask.any(axis=(0, 1, 2)))
    block = next((size for size in BLOCKS if oc % size == 0 and density < 1 and _shares(mask, size)), 1)
    kind = _kind(mask, density, ff, bp, block, outputs, inputs)
    return Detection(kind, density, ff, bp, block, int((~outputs).sum()), int((~inputs).sum()))


def _along(mask: NDArray[np.bool_], axis: Axis, length: int, density: float, wanted: Sparsity | None) -> AxisPattern:
    if density == 1 and (wanted is None or wanted.is_dense):
        return AxisPattern(axis, DENSE, DENSE)
    counts = _counts(mask, axis, length)
    legal = DENSE
    for group, found in counts.items():
        most = max(int(found.max()), 1)
        if most / group < legal.density:
            legal = Sparsity(most, group)
    if wanted is not None:
        usable = not wanted.is_dense and wanted.group in counts
        intended = wanted if usable else DENSE
    else:
        intended = _intended(counts, legal)
    if intended.is_dense:
        return AxisPattern(axis, intended, legal)
    found = counts[intended.group]
    broken = np.argwhere(found > intended.keep)
    scale = (1, 1, 1, intended.group) if axis == "in" else (intended.group, 1, 1, 1)
    first = tuple(tuple(int(i) * s for i, s in zip(place, scale, strict=True)) for place in broken[:FIRST_VIOLATIONS])
    short = int((found < intended.keep).sum())
    return AxisPattern(axis, intended, legal, found.size, short, len(broken), first)


def _counts(mask: NDArray[np.bool_], axis: Axis, length: int) -> dict[int, NDArray[np.uint8]]:
    """Kept weights of every group (:func:`..workload_file.group_counts`) for all M that divide the channels.

    A group of 2 M is two groups of M: each M costs half of the one before.
    """
    place = 3 if axis == "in" else 0
    found: dict[int, NDArray[np.uint8]] = {}
    held = mask.view(np.uint8)
    for group in GROUP_SIZES:
        if length % group:
            break
        even, odd = ((slice(None),) * place + (slice(first, None, 2),) for first in (0, 1))
        held = held[even] + held[odd]
        found[group] = held
    return found


def _intended(counts: dict[int, NDArray[np.uint8]], legal: Sparsity) -> Sparsity:
    """The pattern the maker most likely meant: almost nobody breaks it and most fill it; else the legal one."""
    best = legal
    for group, found in counts.items():
        shares = np.array([np.count_nonzero(found == kept) for kept in range(group + 1)]) / found.size
        keep = max(int(shares.argmax()), 1)
        nearly = shares[keep + 1 :].sum() <= NEARLY and shares[keep] >= FILLED
        if keep < group and nearly and keep / group < best.density:
            best = Sparsity(keep, group)
    return best


def _shares(mask: NDArray[np.bool_], size: int) -> bool:
    """True when every block of ``size`` output channels has its zeros in the same places."""
    blocks = mask.reshape(mask.shape[0] // size, size, -1)
    return bool((blocks == blocks[:, :1]).all())


def _kind(
    mask: NDArray[np.bool_],
    density: float,
    ff: AxisPattern,
    bp: AxisPattern,
    block: int,
    outputs: NDArray[np.bool_],
    inputs: NDArray[np.bool_],
) -> Kind:
    if density == 1:
        return "dense"
    if np.count_nonzero(mask) == mask.shape[1] * mask.shape[2] * int(outputs.sum()) * int(inputs.sum()):
        return "channels"
    for found in (ff, bp):
        fills = found.groups - found.short_groups - found.violations >= FILLED * found.groups
        if not found.intended.is_dense and found.violations <= NEARLY * found.groups and fills:
            return "N:M"
    return "block" if block > 1 else "unstructured"
