"""How sparsity sets in over a run, as functions of progress (0 at the first step, 1 at the end)."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isfinite

from ..errors import NmsatError
from ..sparsity import GROUP_SIZES, Sparsity

LEAKS = ("none", "linear", "exponential")
TIGHTENINGS = ("none", "stepwise", "geometric")


@dataclass(frozen=True, slots=True)
class Leak:
    """MdGf (arXiv 2402.04744): what a dropped weight still lets through, beta, falls from 1 to 0.

    Attributes
    ----------
    shape : "none", "linear" or "exponential"
        linear: 1 - progress / span. exponential: e^(-5 progress / span), cut to 0 at ``span``.
    span : float
        Progress at which beta is 0; until then the operands are dense.
    """

    shape: str = "none"
    span: float = 0.6

    def __post_init__(self) -> None:
        if self.shape not in LEAKS:
            raise NmsatError.rule("pruning", "leak.shape", f"one of {', '.join(LEAKS)}", self.shape)
        _check_span(self.span)

    def beta(self, progress: float) -> float:
        """Factor of dropped weights, 0..1."""
        if self.shape == "none" or progress >= self.span:
            return 0.0
        return 1 - progress / self.span if self.shape == "linear" else exp(-5 * progress / self.span)


@dataclass(frozen=True, slots=True)
class Tightening:
    """SdGf (arXiv 2402.04744): the pattern itself tightens, in equal steps that end at ``span``.

    Attributes
    ----------
    shape : "none", "stepwise" or "geometric"
        stepwise: (M-1):M, then M/2:M, M/4:M ... down to N:M. geometric: N and M shrink together at one ratio,
        from the widest pattern of at most 32: 8:32, 4:16, 2:8 for 2:8.
    span : float
        Progress at which N:M is reached.
    """

    shape: str = "none"
    span: float = 0.6

    def __post_init__(self) -> None:
        if self.shape not in TIGHTENINGS:
            raise NmsatError.rule("pruning", "tightening.shape", f"one of {', '.join(TIGHTENINGS)}", self.shape)
        _check_span(self.span)

    def patterns(self, target: Sparsity, widest: int = max(GROUP_SIZES)) -> tuple[Sparsity, ...]:
        """Patterns in the order they are used, ``target`` last; ``widest`` bounds M of the geometric ones."""
        if self.shape == "none" or target.is_dense:
            return (target,)
        if self.shape == "stepwise":
            keeps = [target.group - 1]
            keep = target.group // 2
            while keep > target.keep:
                keeps.append(keep)
                keep //= 2
            return (*(Sparsity(keep, target.group) for keep in keeps if keep > target.keep), target)
        found = [target]
        while found[0].group * 2 <= min(widest, max(GROUP_SIZES)):
            found.insert(0, Sparsity(found[0].keep * 2, found[0].group * 2))
        return tuple(found)

    def pattern(self, target: Sparsity, progress: float, widest: int = max(GROUP_SIZES)) -> Sparsity:
        """The pattern at ``progress``."""
        steps = self.patterns(target, widest)
        before = len(steps) - 1
        return steps[min(before, int(progress / self.span * before))] if before else target


def _check_span(span: float) -> None:
    if not (isfinite(span) and 0 < span <= 1):
        raise NmsatError.rule("pruning", "span", "above 0, at most 1", span)
