"""Masks, allocations, schedules, recipes and mask statistics."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.models import Layer, Sparsity, Workload
from nmsat.models.errors import NmsatError
from nmsat.models.golden import compress_reference, decompress
from nmsat.models.methods import METHODS
from nmsat.models.pruning import (
    RECIPES,
    DynamicNM,
    FixedMask,
    Leak,
    Tightening,
    block_mask,
    channel_mask,
    check_fit,
    densities,
    erk,
    flip_rate,
    global_magnitude,
    keep_largest,
    magnitude,
    magnitude_nm,
    make_recipe,
    overlap,
    random_mask,
    uniform,
)

P28 = Sparsity(2, 8)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


def layer(name: str = "a", ic: int = 16, oc: int = 32, **more) -> Layer:
    return Layer(name=name, op="linear", ic=ic, oc=oc, **more)


# --- masks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "count", "kept"),
    [
        ([], 0, []),
        ([1.0], 0, [0]),
        ([1.0], 1, [1]),
        ([1.0, 1.0, 1.0], 2, [1, 1, 0]),  # ties keep the lower index
        ([-0.0, 0.0, 0.0], 1, [1, 0, 0]),
        ([1.0, 3.0, 2.0], 2, [0, 1, 1]),
        ([1.0, np.inf, 2.0], 1, [0, 1, 0]),
    ],
)
def test_keep_largest(scores, count, kept):
    assert keep_largest(np.array(scores), count).astype(int).tolist() == kept


def test_keep_largest_refuses():
    with pytest.raises(NmsatError, match=r"^pruning: scores: must be numbers, not nan"):
        keep_largest(np.array([1.0, np.nan]), 1)
    with pytest.raises(NmsatError, match=r"^pruning: count: must be 0 to 2, not 3$"):
        keep_largest(np.zeros(2), 3)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_densities_out_of_range_are_refused(density):
    for rule in (lambda: magnitude(gaussian(4, 4), density), lambda: erk({"a": (4, 4)}, density)):
        with pytest.raises(NmsatError, match=r"^pruning: density: must be above 0, at most 1, not"):
            rule()


@pytest.mark.parametrize(
    ("size", "density", "kept"), [(1, 0.1, 1), (7, 0.5, 4), (8, 0.5, 4), (9, 0.25, 2), (5, 1.0, 5)]
)
def test_unstructured_masks_keep_the_asked_number(size, density, kept):
    w = gaussian(1, size)
    assert magnitude(w, density).sum() == kept
    assert random_mask((1, size), density, 3).sum() == kept
    assert np.abs(w[magnitude(w, density)]).min() >= np.abs(w[~magnitude(w, density)]).max(initial=0)


def test_random_masks_are_seeded():
    one, two, other = (random_mask((64, 64), 0.25, s) for s in (1, 1, 2))
    assert (one == two).all()
    assert 0.3 < flip_rate(one, other) < 0.45  # independent: 2 * 0.25 * 0.75 = 0.375, deviation under 0.01


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 32), st.sampled_from([2, 4, 8, 16, 32]), st.integers(0, 1), st.integers(0, 99))
def test_nm_masks_are_golden_selection(keep, group, axis, seed):
    pattern = Sparsity(min(keep, group), group)
    w = np.round(gaussian(64, 32, seed=seed))  # many ties and zeros
    mask = magnitude_nm(w, pattern, axis)
    np.testing.assert_array_equal(np.where(mask, w, 0), decompress(compress_reference(w, pattern, axis)))
    assert (mask.sum() == w.size * pattern.keep // pattern.group) or pattern.is_dense


def test_blocks_and_channels():
    w = np.array([[1, 0, 3], [1, 0, 3], [5, 2, 0], [0, 2, 0], [9, 1, 1]], np.float16)
    blocks = block_mask(w, 1 / 3, height=2)  # scores 2 0 6 / 5 4 0 / 9 1 1: 9, 6 and 5 stay
    assert blocks.astype(int).tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert channel_mask(w, 0.4).all(axis=1).tolist() == [False, False, True, False, True]
    assert channel_mask(gaussian(8, 3, 3, 4), 0.25).reshape(8, -1).sum(axis=1).tolist().count(36) == 2
    with pytest.raises(NmsatError, match=r"^pruning: height: must be at least 1, not 0$"):
        block_mask(w, 0.5, 0)


# --- allocation -------------------------------------------------------------------------------------------------------


def test_erk_solves_again_when_a_layer_exceeds_one():
    shapes = {"small": (8, 8), "wide": (256, 256), "conv": (64, 3, 3, 64)}
    found = erk(shapes, 0.25)
    sizes = {name: np.prod(shape) for name, shape in shapes.items()}
    assert found["small"] == 1.0
    assert sum(found[n] * sizes[n] for n in shapes) == pytest.approx(0.25 * sum(sizes.values()))
    ratio = (256 + 256) / sizes["wide"] / ((64 + 3 + 3 + 64) / sizes["conv"])
    assert found["wide"] / found["conv"] == pytest.approx(ratio)  # the rest keep their proportions
    assert all(0 < d <= 1 for d in found.values())


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 5), st.integers(1, 5), st.integers(1, 64)), min_size=1, max_size=6
    ),
    st.floats(0.01, 1.0),
)
def test_erk_meets_its_budget(shapes, density):
    named = {str(i): shape for i, shape in enumerate(shapes)}
    found = erk(named, density)
    total = sum(float(np.prod(shape)) for shape in shapes)
    spent = sum(found[n] * float(np.prod(shape)) for n, shape in named.items())
    assert spent == pytest.approx(density * total, rel=1e-9)
    assert all(0 <= d <= 1 + 1e-12 for d in found.values())
    assert uniform(named, density) == dict.fromkeys(named, density)


def test_global_magnitude_has_one_threshold():
    weights = {"big": gaussian(16, 16) * np.float16(4), "small": gaussian(16, 16, seed=1)}
    kept = global_magnitude(weights, 0.25)
    assert sum(mask.sum() for mask in kept.values()) == 128
    least = min(np.abs(weights[n][kept[n]]).min() for n in weights if kept[n].any())
    most = max(np.abs(weights[n][~kept[n]]).max() for n in weights)
    assert least >= most
    assert densities(kept)["big"] > densities(kept)["small"]


# --- schedules --------------------------------------------------------------------------------------------------------


def test_leaks():
    assert [Leak("linear", 0.5).beta(p) for p in (0, 0.25, 0.5, 1)] == [1, 0.5, 0, 0]
    exponential = [Leak("exponential", 0.5).beta(p) for p in (0, 0.25, 0.499, 0.5)]
    assert exponential[0] == 1
    assert exponential[1] == pytest.approx(np.exp(-2.5))
    assert 0 < exponential[2] < 0.01
    assert exponential[3] == 0
    assert Leak().beta(0) == 0


@pytest.mark.parametrize(
    ("shape", "target", "widest", "expected"),
    [
        ("none", "2:8", 32, "2:8"),
        ("stepwise", "2:8", 32, "7:8 4:8 2:8"),
        ("stepwise", "1:8", 32, "7:8 4:8 2:8 1:8"),
        ("stepwise", "3:8", 32, "7:8 4:8 3:8"),
        ("stepwise", "1:2", 32, "1:2"),
        ("stepwise", "3:4", 32, "3:4"),
        ("geometric", "2:8", 32, "8:32 4:16 2:8"),
        ("geometric", "2:8", 16, "4:16 2:8"),
        ("geometric", "8:32", 32, "8:32"),
    ],
)
def test_tightenings(shape, target, widest, expected):
    steps = Tightening(shape).patterns(Sparsity.parse(target), widest)
    assert " ".join(map(str, steps)) == expected
    assert [Tightening(shape).pattern(Sparsity.parse(target), p, widest) for p in (0, 1)] == [steps[0], steps[-1]]


def test_tightening_reaches_its_end_at_span():
    rule = Tightening("stepwise", 0.5)
    shown = [str(rule.pattern(P28, p)) for p in (0, 0.24, 0.25, 0.49, 0.5, 1)]
    assert shown == ["7:8", "7:8", "4:8", "4:8", "2:8", "2:8"]


@pytest.mark.parametrize("make", [lambda: Leak("cubic"), lambda: Tightening("cubic")])
def test_unknown_schedules_are_refused(make):
    with pytest.raises(NmsatError, match=r"^pruning: \w+.shape: must be one of none, .* not 'cubic'$"):
        make()


@pytest.mark.parametrize("span", [0.0, 1.1, float("nan")])
def test_spans_out_of_range_are_refused(span):
    with pytest.raises(NmsatError, match=r"^pruning: span: must be above 0, at most 1, not"):
        Leak("linear", span)


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_operands_are_sparse_where_the_method_says_so(method):
    w = gaussian(32, 16)
    recipe = make_recipe(method, P28, Workload(name="w", layers=(layer(),)))
    found = recipe.operands(layer(), w, 0.5)
    rule = METHODS[method]
    for used, pattern, axis, wanted in (
        (found.ff, found.ff_pattern, 1, rule.ff_weights),
        (found.bp, found.bp_pattern, 0, rule.bp_weights),
    ):
        assert pattern == (P28 if wanted else Sparsity(1, 1))
        np.testing.assert_array_equal(used, decompress(compress_reference(w, P28, axis)) if wanted else w)
    assert (found.gradient_pattern == P28) == rule.bp_gradient
    assert (found.kept is not None) == (method == "sr-ste")
    assert recipe.lam == (2e-4 if method == "sr-ste" else 0)


@pytest.mark.parametrize("decay", ["ff", "bp", "union", "none"])
def test_decay_targets(decay):
    w = gaussian(32, 16)
    recipe = make_recipe("bdwp", P28, Workload(name="w", layers=(layer(),)), decay=decay, lam=1e-3)
    ff, bp = magnitude_nm(w, P28, 1), magnitude_nm(w, P28, 0)
    expected = {"ff": ff, "bp": bp, "union": ff | bp, "none": None}[decay]
    found = recipe.operands(layer(), w, 0).kept
    assert (found is None) if expected is None else (found == expected).all()
    assert recipe.lam == (0 if decay == "none" else 1e-3)


@pytest.mark.parametrize(
    "dense", [layer(prune=False), layer(pattern=Sparsity(1, 1)), Layer(name="a", op="conv2d", ic=12, oc=16, kh=1, kw=1)]
)
def test_what_stays_dense(dense):
    w = gaussian(dense.oc, dense.ic)
    found = DynamicNM("bdwp", METHODS["bdwp"], P28).operands(dense, w, 0)
    assert found.ff is w
    assert found.bp is w
    assert found.ff_pattern.is_dense


def test_a_layer_s_own_pattern_wins():
    found = DynamicNM("bdwp", METHODS["bdwp"], P28).operands(layer(pattern=Sparsity(1, 4)), gaussian(32, 16), 0)
    assert found.ff_pattern == found.bp_pattern == Sparsity(1, 4)


def test_mdgf_leaks_then_is_bdwp():
    w = gaussian(32, 16)
    work = Workload(name="w", layers=(layer(),))
    recipe, plain = make_recipe("mdgf", P28, work), make_recipe("bdwp", P28, work)
    found = recipe.operands(layer(), w, 0.3)  # beta = 1 - 0.3 / 0.6
    mask = magnitude_nm(w, P28, 1)
    np.testing.assert_array_equal(
        found.ff, np.where(mask, w, (w.astype(np.float32) * np.float32(0.5)).astype(np.float16))
    )
    assert found.ff_pattern.is_dense  # a leaking operand is a dense one
    np.testing.assert_array_equal(recipe.operands(layer(), w, 0.6).ff, plain.operands(layer(), w, 0.6).ff)
    assert recipe.operands(layer(), w, 0.6).ff_pattern == P28


def test_sdgf_tightens():
    work = Workload(name="w", layers=(layer(ic=32),))
    w = gaussian(32, 32)
    recipe = make_recipe("sdgf", P28, work)
    assert [str(recipe.operands(layer(ic=32), w, p).ff_pattern) for p in (0, 0.3, 0.6)] == ["7:8", "4:8", "2:8"]
    narrow = make_recipe("sdgf-geometric", P28, work)
    assert [str(narrow.operands(layer(ic=32), w, p).ff_pattern) for p in (0, 0.3, 0.6)] == ["8:32", "4:16", "2:8"]
    assert str(narrow.operands(layer(ic=16), w[:, :16], 0).ff_pattern) == "4:16"  # 32 does not divide 16


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("one-shot", 1.0),
        ("magnitude", 0.5),
        ("global", 0.5),
        ("random", 0),
        ("erk", 0),
        ("block", 0.5),
        ("channel", 0.5),
    ],
)
def test_fixed_masks_are_chosen_once_and_kept(name, start):
    layers = {"a": layer("a"), "b": layer("b", 32, 16), "c": layer("c", 16, 10, prune=False)}
    recipe = make_recipe(name, P28, Workload(name="w", layers=tuple(layers.values())))
    assert isinstance(recipe, FixedMask)
    weights = {n: gaussian(x.oc, x.ic, seed=i) for i, (n, x) in enumerate(layers.items())}
    if start:
        recipe.begin(weights, layers, start - 0.01)
        assert recipe.operands(layers["a"], weights["a"], 0).ff is weights["a"]
    recipe.begin(weights, layers, start)
    first = recipe.operands(layers["a"], weights["a"], start)
    kept = {n: recipe.operands(x, weights[n], start).ff != 0 for n, x in layers.items()}
    assert kept["c"].all()
    total = sum(kept[n].sum() for n in "ab")
    assert total == pytest.approx(256, abs=1)  # a quarter of 2 * 512; ERK rounds a layer
    assert first.bp_pattern.is_dense
    assert (first.ff == first.bp).all()
    recipe.begin({n: -w[::-1] for n, w in weights.items()}, layers, 1.0)
    assert (recipe.operands(layers["a"], weights["a"], 1.0).ff == first.ff).all()


def test_one_shot_obeys_its_pattern():
    work = Workload(name="w", layers=(layer(),))
    recipe = make_recipe("one-shot", P28, work)
    w = gaussian(32, 16)
    recipe.begin({"a": w}, {"a": layer()}, 1.0)
    found = recipe.operands(layer(), w, 1.0)
    assert found.ff_pattern == P28
    np.testing.assert_array_equal(found.ff, decompress(compress_reference(w, P28, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: make_recipe("bwdp", P28, w), r"method: must be one of dense, .*, not 'bwdp'"),
        (lambda w: make_recipe("bdwp", Sparsity(1, 1), w), r"sparsity: must be an N:M pattern for bdwp, not 'dense'"),
        (
            lambda w: make_recipe("bdwp", Sparsity(2, 32), w),
            r"w: sparsity: must be one whose M divides ic=16 and oc=32 of layer 'a', not '2:32'; .*",
        ),
        (
            lambda w: make_recipe("bdwp", P28, w, decay="all"),
            r"pruning: decay: must be one of ff, bp, union, none, not 'all'",
        ),
        (lambda w: make_recipe("erk", P28, w, decay="ff"), r"decay: must be none for erk, not 'ff'; .*"),
    ],
)
def test_bad_recipes_are_refused(call, message):
    with pytest.raises(NmsatError, match=f"^{message}$"):
        call(Workload(name="w", layers=(layer(),)))


def test_check_fit_looks_at_prunable_layers_only():
    check_fit(
        Workload(name="w", layers=(layer(ic=3, prune=False), layer("b", pattern=Sparsity(1, 2)))), Sparsity(2, 32)
    )


def test_every_recipe_can_be_made():
    work = Workload.load("digits-cnn")
    assert [make_recipe(name, P28, work).name for name in RECIPES] == list(RECIPES)


# --- statistics -------------------------------------------------------------------------------------------------------


def overlap_of_independent_groups(keep: int, group: int) -> Fraction:
    """P(BP keeps | FF keeps) when a weight meets different others in its two groups.

    u, the share of weights larger than it, is uniform on 0..1; a group of M keeps it with probability
    q(u) = sum over i < N of C(M-1, i) u^i (1-u)^(M-1-i). The answer is M/N times the integral of q^2.
    """
    total = Fraction(0)
    for i in range(keep):
        for j in range(keep):
            pairs = comb(group - 1, i) * comb(group - 1, j)
            total += Fraction(pairs, (2 * group - 1) * comb(2 * group - 2, i + j))  # a Beta integral
    return total * group / keep


@pytest.mark.parametrize(
    ("keep", "group", "known"), [(2, 4, 0.745), (2, 8, 0.673), (2, 16, 0.643), (1, 8, None), (4, 16, None)]
)
def test_overlap_of_both_masks_on_gaussian_weights(keep, group, known):
    """Measured masks against the exact value; ``known`` are figures of one draw of 64x64x3x3 weights each."""
    pattern, exact = Sparsity(keep, group), float(overlap_of_independent_groups(keep, group))
    draws = (gaussian(64, 3, 3, 64, seed=s) for s in range(10))
    found = [overlap(magnitude_nm(w, pattern, 3), magnitude_nm(w, pattern, 0)) for w in draws]
    assert np.mean(found) == pytest.approx(exact, abs=0.005)  # one draw deviates by 0.002 to 0.0055
    if known is not None:
        assert exact == pytest.approx(known, abs=0.008)


def test_flip_rate_and_densities():
    a = np.array([[True, False], [True, True]])
    b = np.array([[True, True], [False, True]])
    assert flip_rate(a, b) == 0.5
    assert flip_rate(a, a) == 0
    assert overlap(a, b) == pytest.approx(2 / 3)
    assert overlap(np.zeros(3, bool), np.ones(3, bool)) == 0
    assert flip_rate(np.zeros(0, bool), np.zeros(0, bool)) == 0
    assert densities({"a": a, "e": np.zeros(0, bool)}) == {"a": 0.75, "e": 0.0}
    with pytest.raises(NmsatError, match=r"^pruning: mask.shape: must be \(2, 2\) like the other mask, not \(1,\)$"):
        flip_rate(a, np.zeros(1, bool))
