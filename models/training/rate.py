"""What every task's hyperparameters have in common: least lengths of a run, a rate that falls by half a cosine."""

from __future__ import annotations

from math import cos, isfinite, pi

from ..errors import NmsatError


def check_run(lr: float, **lengths: tuple[int, int]) -> None:
    """Hold hyperparameters to their ranges.

    Parameters
    ----------
    lr : float
        Greatest learning rate.
    lengths : (value, least)
        Counts by the name that the user knows.

    Raises
    ------
    NmsatError
        For a count below its least or a rate that is not a positive number.
    """
    for name, (value, least) in lengths.items():
        if value < least:
            raise NmsatError.rule("training", name, f"at least {least}", value)
    if not (isfinite(lr) and lr > 0):
        raise NmsatError.rule("training", "lr", "a positive number", lr)


def half_cosine(lr: float, progress: float) -> float:
    """``lr`` at progress 0, 0 at 1."""
    return lr * 0.5 * (1 + cos(pi * progress))
