"""Compiled twins for whole runs: the weight update and the conversions; imported on first use, tested equal."""

from __future__ import annotations

import numpy as np
from numba import njit

from ..golden import UpdateRule, narrow, widen, wuve_update
from ..golden.engines import Mask
from ..golden.floats import F16, F32
from ..golden.kernels import look_up, narrow_bits_into

_WIDE = widen(np.arange(2**16, dtype=np.uint16).view(np.float16))


def fast_narrow(values: F32) -> F16:
    """:func:`nmsat.models.golden.narrow`, compiled; C order."""
    found = np.empty(values.shape, np.float16)
    narrow_bits_into(np.ascontiguousarray(values).reshape(-1).view(np.uint32), found.reshape(-1).view(np.uint16))
    return found


def fast_widen(values: F16) -> F32:
    """:func:`nmsat.models.golden.widen`, compiled; C order."""
    found = np.empty(values.shape, np.float32)
    look_up(np.ascontiguousarray(values).reshape(-1).view(np.uint16), _WIDE, found.reshape(-1))
    return found


@njit(cache=True)
def _flush(x):  # pragma: no cover
    return np.float32(0) * x if abs(x) < np.float32(2.0**-126) else x


@njit(cache=True, error_model="numpy")
def _update(g, w, v, kept, coefficients):  # pragma: no cover
    """Nine rounded and flushed operations an element, in WUVE's order; w and v are overwritten.

    Parameters
    ----------
    g, w, v : float32 arrays (n,)
    kept : bool array (n,) or (0,) to keep all
    coefficients : float32 array (5,)
        1 / loss_scale, weight_decay, lam, momentum, lr.

    Returns
    -------
    bool
        True when every result is finite.
    """
    inverse, decay, lam, momentum, lr = coefficients
    inverse, decay, lam, momentum, lr = _flush(inverse), _flush(decay), _flush(lam), _flush(momentum), _flush(lr)
    fine = True
    for i in range(g.size):
        w_i = _flush(w[i])
        scaled = _flush(_flush(g[i]) * inverse)
        decayed = _flush(scaled + _flush(decay * w_i))
        dropped = lam if kept.size and not kept[i] else np.float32(0)
        gradient = _flush(decayed + _flush(dropped * w_i))
        v_i = _flush(_flush(momentum * _flush(v[i])) + gradient)
        w[i] = _flush(w_i - _flush(lr * v_i))
        v[i] = v_i
        fine &= np.isfinite(w[i]) and np.isfinite(v_i)
    return fine


def fast_update(g: F32, w32: F32, v32: F32, mask: Mask | None, rule: UpdateRule) -> tuple[F32, F32, F16]:
    """:func:`nmsat.models.golden.wuve_update`, compiled; anything that is not finite goes to the definition."""
    w, v = w32.reshape(-1).copy(), v32.reshape(-1).copy()
    kept = np.zeros(0, np.bool_) if mask is None else np.ascontiguousarray(mask).reshape(-1)
    coefficients = np.array([1 / rule.loss_scale, rule.weight_decay, rule.lam, rule.momentum, rule.lr], np.float32)
    if not _update(np.ascontiguousarray(g).reshape(-1), w, v, kept, coefficients):
        return wuve_update(g, w32, v32, mask, rule)
    found = w.reshape(w32.shape)
    return found, v.reshape(v32.shape), narrow(found)
