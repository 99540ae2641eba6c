"""Normalisations and activations: exact sums against fractions, every rounding spelled out, all 2^16 activations."""

from __future__ import annotations

from fractions import Fraction
from math import erf, exp, pi, sqrt

import numpy as np
import pytest

from nmsat.models import NmsatError
from nmsat.models.golden import (
    ACTIVATIONS,
    NORMALISATIONS,
    activate,
    activation_gradient,
    narrow,
    nearest_ratio,
    normalise,
    normalise_gradient,
    to_bits,
    widen,
)
from nmsat.models.golden.normalisation import EPSILON, column_dots, column_sums, moments

RNG = np.random.default_rng(7)
F32 = np.float32


def exact(values) -> list[Fraction]:
    return [Fraction(float(value)) for value in values]


def nearest(value: Fraction) -> np.float32:
    """Binary32 nearest to a fraction, by trying the neighbours of a guess; ties go to the even pattern."""
    guess = F32(float(value))
    around = [np.nextafter(guess, F32(-np.inf)), guess, np.nextafter(guess, F32(np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - value), int(to_bits(x)) & 1))


def arrays(rows: int, channels: int):
    """Values of many sizes: subnormal, ordinary, large with a small spread, up to the greatest."""
    scale = np.resize([1, 2.0**-22, 300, 1e-3, 20000], channels)
    shift = np.resize([0, 0, 1000, 1, 0], channels)
    return (RNG.normal(size=(rows, channels)) * scale + shift).clip(-65504, 65504).astype(np.float16)


def same(a, b) -> bool:
    return np.array_equal(to_bits(np.asarray(a)), to_bits(np.asarray(b)))


@pytest.mark.parametrize("bits", [1, 12, 24, 25, 26, 60, 120])
def test_a_ratio_is_rounded_once(bits):
    for _ in range(300):
        numerator = int(RNG.integers(0, 2**31)) ** 4 % (1 << bits) + 1
        denominator = int(RNG.integers(1, 2**31)) << int(RNG.integers(0, 100))
        for sign in (1, -1):
            assert same(nearest_ratio(sign * numerator, denominator), nearest(Fraction(sign * numerator, denominator)))


@pytest.mark.parametrize(
    "numerator, denominator, expected",
    [
        (0, 3, 0.0),
        (2**24 + 1, 1, 2.0**24),  # a tie goes to the even side
        (2**24 + 3, 1, 2.0**24 + 4),
        ((2**24 + 1) * 3 + 1, 3, 2.0**24 + 2),  # a little more than a tie does not
        (1, 2**149, 2.0**-149),
        (1, 2**150, 0.0),  # half the least subnormal: a tie
        (3, 2**151, 2.0**-149),
        (2**23 - 1, 2**149, (2**23 - 1) * 2.0**-149),
        (-5, 2, -2.5),
    ],
)
def test_edges_of_the_ratio(numerator, denominator, expected):
    assert same(nearest_ratio(numerator, denominator), F32(expected))


def test_sums_are_exact_and_have_no_order():
    x, y = arrays(57, 10), arrays(57, 10)
    order = RNG.permutation(57)
    assert column_sums(x) == [2**24 * sum(exact(column)) for column in x.T]
    products = [
        2**48 * sum(a * b for a, b in zip(exact(p), exact(q), strict=True)) for p, q in zip(x.T, y.T, strict=True)
    ]
    assert column_dots(x, y) == products == column_dots(x[order], y[order])
    greatest = np.full((3, 1), 65504, np.float16)
    assert column_dots(greatest, -greatest) == [-3 * 65504**2 * 2**48]


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_moments_are_rounded_once(kind):
    x = arrays(40, 10)
    mean, variance = moments(kind, x)
    for group, (found_mean, found_variance) in zip(
        x.T if kind == "batchnorm" else x, zip(mean, variance, strict=True), strict=True
    ):
        values = exact(group)
        centre = 0 if kind == "rmsnorm" else sum(values) / len(values)
        assert same(found_mean, nearest(Fraction(centre)))
        assert same(found_variance, nearest(sum(v * v for v in values) / len(values) - centre * centre))


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_every_rounding_is_where_the_definition_has_it(kind):
    """One value at a time, in binary32 scalars."""
    x, dy = arrays(9, 4), arrays(9, 4) / np.float16(64)
    gamma, beta = RNG.uniform(0.5, 2, (2, 4)).astype(F32)
    found = normalise(kind, x, gamma, beta)
    dx, d_gamma, d_beta = normalise_gradient(kind, dy, found, gamma)
    mean, variance = moments(kind, x)
    g = narrow(gamma * widen(dy))
    for row, channel in np.ndindex(x.shape):
        at = channel if kind == "batchnorm" else row
        inverse = F32(1) / np.sqrt(variance[at] + EPSILON)
        unit = narrow((F32(x[row, channel]) - mean[at]) * inverse)
        assert same(found.unit[row, channel], unit)
        assert same(found.y[row, channel], narrow(gamma[channel] * F32(unit) + beta[channel]))
        group = (slice(None), channel) if kind == "batchnorm" else (row, slice(None))
        gs, us = exact(g[group]), exact(found.unit[group])
        centre = F32(0) if kind == "rmsnorm" else nearest(sum(gs) / len(gs))
        along = nearest(sum(a * b for a, b in zip(gs, us, strict=True)) / len(gs))
        wanted = narrow(((F32(g[row, channel]) - centre) - F32(unit) * along) * inverse)
        assert same(dx[row, channel], wanted)
    for channel in range(4):
        column = list(zip(exact(dy[:, channel]), exact(found.unit[:, channel]), strict=True))
        assert same(d_gamma[channel], nearest(sum((a * b for a, b in column), Fraction(0))))
        assert same(d_beta[channel], nearest(sum((a for a, _ in column), Fraction(0))))


def test_given_statistics_replace_the_batch_s():
    x, one, zero = arrays(5, 3), np.ones(3, F32), np.zeros(3, F32)
    mean, variance = np.array([1, 2, 3], F32), np.array([4, 1, 0.25], F32)
    found = normalise("batchnorm", x, one, zero, (mean, variance))
    assert same(found.unit, narrow((widen(x) - mean) * (F32(1) / np.sqrt(variance + EPSILON))))
    assert found.mean is mean


def test_what_is_not_finite_makes_its_group_nan():
    x = arrays(4, 3)
    x[1, 2] = np.inf
    one, zero = np.ones(3, F32), np.zeros(3, F32)
    assert list(np.isnan(normalise("batchnorm", x, one, zero).y).any(axis=0)) == [False, False, True]
    assert list(np.isnan(normalise("layernorm", x, one, zero).y).all(axis=1)) == [False, True, False, False]
    found = normalise("batchnorm", x, one, zero)
    assert set(to_bits(found.mean)[2:]) == {0x7FC00000}
    assert np.isnan(normalise_gradient("batchnorm", x, normalise("batchnorm", arrays(4, 3), one, zero), one)[1][2])


def test_a_constant_channel_is_zero():
    x = np.full((6, 1), 3, np.float16)
    found = normalise("batchnorm", x, np.ones(1, F32), np.full(1, 0.5, F32))
    assert not found.unit.any()
    assert found.variance == 0
    assert set(found.y.reshape(-1)) == {np.float16(0.5)}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "groupnorm"}, "kind: must be one of batchnorm, layernorm, rmsnorm, not 'groupnorm'"),
        ({"x": np.ones((2, 3), F32)}, "x.dtype: must be float16, not 'float32'"),
        ({"gamma": np.ones(2, F32)}, r"gamma.shape: must be \(channels,\) of x \(rows, channels\), not \(2,\)"),
        ({"beta": np.ones(3)}, "beta.dtype: must be float32, not 'float64'"),
        ({"x": np.ones((0, 3), np.float16)}, "gamma.shape: .*"),
    ],
)
def test_bad_operands_are_one_line(change, message):
    given = {"kind": "batchnorm", "x": np.ones((2, 3), np.float16), "gamma": np.ones(3, F32), "beta": np.ones(3, F32)}
    with pytest.raises(NmsatError, match=f"^golden: {message}$"):
        normalise(**given | change)


EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)]


def sigmoid(x):
    return exp(-np.logaddexp(0, -x))


FORMULAS = {
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "gelu": (
        lambda x: x * (1 + erf(x / sqrt(2))) / 2,
        lambda x: (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * pi),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_rounded_from_binary64(name):
    """All finite values: within half a unit of binary16, and the little that rounding through binary32 adds."""
    value, slope = FORMULAS[name]
    points = FINITE.astype(np.float64)
    expected = np.array([value(x) for x in points.tolist()])
    found = activate(name, FINITE)
    unit = 2.0 ** (np.frexp(np.maximum(np.abs(found.astype(np.float64)), 2.0**-14))[1] - 11)
    assert (np.abs(found.astype(np.float64) - expected) <= unit * (0.5 + 2.0**-12)).all()
    slopes = activation_gradient(name, FINITE, np.ones_like(FINITE))
    wanted = np.array([slope(x) for x in points.tolist()])
    assert np.allclose(slopes.astype(np.float64), wanted, rtol=2**-11, atol=2**-24)


@pytest.mark.parametrize(
    "name, low, high, high_slope",
    [("sigmoid", 0x0000, 0x3C00, 0.0), ("silu", 0x8000, 0x7C00, 1.0), ("gelu", 0x8000, 0x7C00, 1.0)],
)
def test_limits(name, low, high, high_slope):
    ends = np.array([-np.inf, np.inf, np.nan], np.float16)
    assert list(to_bits(activate(name, ends))) == [low, high, 0x7E00]
    assert list(activation_gradient(name, ends[:2], np.ones(2, np.float16))) == [0, high_slope]


def test_an_unknown_activation_is_one_line():
    with pytest.raises(NmsatError, match=r"^golden: activation: must be one of gelu, silu, sigmoid, not 'tanh'$"):
        activate("tanh", EVERY)
