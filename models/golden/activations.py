"""GELU, SiLU and sigmoid of binary16, forward and backward.

A function of one binary16 has 65,536 values. Each is formed in binary64, rounded to binary32 and then to binary16; the
derivative is rounded to binary32, multiplied by the gradient and rounded to binary16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import erf, exp, isnan, pi, sqrt

import numpy as np

from ..errors import NmsatError
from .floats import F16, F32, canonical, from_bits, narrow, to_bits, widen


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))  # neither exponential overflows


def _sigmoid_slope(x: float) -> float:
    return _sigmoid(x) * _sigmoid(-x)


def _silu(x: float) -> float:
    return x * _sigmoid(x)


def _silu_slope(x: float) -> float:
    return _sigmoid(x) + x * _sigmoid_slope(x)


def _gelu(x: float) -> float:
    return x * (1 + erf(x / sqrt(2))) / 2


def _gelu_slope(x: float) -> float:
    return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * pi)


_FORMULAS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "gelu": (_gelu, _gelu_slope),
    "silu": (_silu, _silu_slope),
    "sigmoid": (_sigmoid, _sigmoid_slope),
}
ACTIVATIONS = tuple(_FORMULAS)


def activate(name: str, x: F16) -> F16:
    """The function's value, float16 in the shape of ``x``; NaN gives NaN, an unknown name an NmsatError."""
    return _tables(name)[0][to_bits(x)]


def activation_gradient(name: str, x: F16, dy: F16) -> F16:
    """narrow(dy * slope at x), float16 in the shape of ``x``."""
    with np.errstate(all="ignore"):
        return narrow(widen(dy) * _tables(name)[1][to_bits(x)])


@cache
def _tables(name: str) -> tuple[F16, F32]:
    """Values (float16) and slopes (float32) by bit pattern; at infinities the limits."""
    if name not in _FORMULAS:
        raise NmsatError.rule("golden", "activation", f"one of {', '.join(_FORMULAS)}", name)
    value, slope = _FORMULAS[name]
    points = from_bits(np.arange(2**16, dtype=np.uint16)).astype(np.float64).tolist()
    values = np.array([_at(value, x, _last(name, x)) for x in points], np.float64)
    slopes = np.array([_at(slope, x, float(x > 0 and name != "sigmoid")) for x in points], np.float64)
    with np.errstate(all="ignore"):
        return narrow(values.astype(np.float32)), canonical(slopes.astype(np.float32))


def _at(function: Callable[[float], float], x: float, limit: float) -> float:
    if isnan(x):
        return x
    return limit if abs(x) == float("inf") else function(x)


def _last(name: str, x: float) -> float:
    """Limit of the value: sigmoid goes to 0 and 1, the others to -0 and infinity."""
    if x > 0:
        return 1.0 if name == "sigmoid" else x
    return 0.0 if name == "sigmoid" else -0.0
