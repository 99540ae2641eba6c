"""The reference trainer's step: products, geometry, loss and update against independent arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.models import Layer, Sparsity, Workload
from nmsat.models.errors import NmsatError
from nmsat.models.golden import UpdateRule, narrow, nm_mask, wuve_update
from nmsat.models.pruning import Operands, make_recipe
from nmsat.models.training import (
    BlasProducts,
    GoldenProducts,
    LossScale,
    ProductOrder,
    Stack,
    State,
    backward,
    cross_entropy,
    cross_entropy_gradient,
    forward,
    softmax,
    stage_operands,
    training_step,
)
from nmsat.models.training.kernels import fast_update
from nmsat.models.training.network import input_gradient, weight_gradient, weight_shape

METHODS = ["dense", "sr-ste", "sdgp", "sdwp", "bdwp"]
RULE = UpdateRule(lr=0.05, momentum=0.9, weight_decay=5e-4)


def batch_of(task: str, rows: int, seed: int = 0):
    """Images like the digits': multiples of 1/16, about half of them zero."""
    rng = np.random.default_rng(seed)
    pixels = np.maximum(rng.integers(-16, 17, (rows, 64)), 0) / 16
    x = pixels.astype(np.float16)
    return (x if task == "digits-mlp" else x.reshape(rows, 8, 8, 1)), rng.integers(0, 10, rows)


def one_step(task, method, products=None, rows=16, sparsity="2:8", steps=1):
    stack = Stack.of(Workload.load(task))
    recipe = make_recipe(method, Sparsity.parse(sparsity), stack.workload)
    state = State.initial(stack.initial_weights(3))
    for step in range(steps):
        x, labels = batch_of(task, rows, step)
        result = training_step(stack, state, recipe, x, labels, RULE, products=products)
        state = result.state
    return stack, result


# --- loss ---------------------------------------------------------------------------------------------------------


def test_softmax_gradient_is_the_stated_order():
    rng = np.random.default_rng(1)
    logits = (rng.normal(size=(7, 10)) * 4).astype(np.float16)
    labels = rng.integers(0, 10, 7)
    found = cross_entropy_gradient(logits, labels, 256.0)
    for row in range(7):
        wide = [np.float32(x) for x in logits[row]]
        powers = [np.float32(np.exp(np.float64(np.float32(x - max(wide))))) for x in wide]
        total = powers[0]
        for power in powers[1:]:
            total = np.float32(total + power)
        for c in range(10):
            p = np.float32(powers[c] / total)
            expected = np.float16(np.float32(np.float32(p - np.float32(c == labels[row])) * np.float32(256.0 / 7)))
            assert found[row, c].tobytes() == expected.tobytes()


def test_loss_is_the_log_of_softmax():
    logits = np.array([[1, 2, 3], [0, 0, 0]], np.float16)
    assert cross_entropy(logits, np.array([2, 0])) == pytest.approx((0.40760596 + np.log(3)) / 2)
    assert softmax(logits).sum(axis=1) == pytest.approx(1, abs=1e-6)  # ten binary32 roundings
    assert np.isnan(cross_entropy(np.array([[np.nan, 1]], np.float16), np.array([0])))


def test_gradient_overflow_is_infinite_not_an_exception():
    found = cross_entropy_gradient(np.array([[0, 10]], np.float16), np.array([0]), 2.0**20)
    assert np.isinf(found).all()


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3), np.float32), [0, 1], r"golden: logits.dtype: must be float16, not 'float32'"),
        (np.zeros(3, np.float16), [0], r"training: logits.shape: must be \(rows, classes\), not \(3,\)"),
        (np.zeros((2, 3), np.float16), [0, 3], r"training: labels: must be 0 to 2, not 3"),
        (np.zeros((2, 3), np.float16), [0], r"training: labels: must be 2 integers, not .*"),
        (np.zeros((2, 3), np.float16), [0.0, 1.0], r"training: labels: must be 2 integers, not .*"),
    ],
)
def test_loss_refuses(logits, labels, message):
    with pytest.raises(NmsatError, match=f"^{message}$"):
        cross_entropy_gradient(logits, np.array(labels))


# --- products and geometry ------------------------------------------------------------------------------------------

CONVS = [
    # ic oc kh kw h w stride pad
    (1, 2, 1, 1, 1, 1, 1, 0),
    (3, 2, 3, 3, 4, 5, 1, 1),
    (2, 3, 3, 3, 5, 4, 2, 1),
    (2, 2, 2, 3, 5, 7, 3, 1),
    (2, 2, 1, 1, 5, 5, 2, 0),  # three phases without taps
    (1, 2, 5, 5, 6, 6, 2, 2),
]


def conv(ic, oc, kh, kw, h, w, stride, pad):
    return Layer(name="c", op="conv2d", ic=ic, oc=oc, kh=kh, kw=kw, h=h, w=w, stride=stride, pad=pad)


def direct(layer, x, w, dy):
    """(y, dx, dw) of a convolution by definition, integers in float64."""
    y = np.zeros((len(x), layer.oh, layer.ow, layer.oc))
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for oy in range(layer.oh):
        for ox in range(layer.ow):
            for ty in range(layer.kh):
                for tx in range(layer.kw):
                    iy, ix = oy * layer.stride + ty - layer.pad, ox * layer.stride + tx - layer.pad
                    if 0 <= iy < layer.h and 0 <= ix < layer.w:
                        y[:, oy, ox] += x[:, iy, ix] @ w[:, ty, tx].T
                        dx[:, iy, ix] += dy[:, oy, ox] @ w[:, ty, tx]
                        dw[:, ty, tx] += dy[:, oy, ox].T @ x[:, iy, ix]
    return y, dx, dw


@pytest.mark.parametrize("products", [BlasProducts(), GoldenProducts(), GoldenProducts({}, ProductOrder(4, 3))])
@pytest.mark.parametrize("shape", CONVS, ids=str)
def test_convolution_by_definition(shape, products):
    layer = conv(*shape)
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 4, (2, layer.h, layer.w, layer.ic)).astype(np.float16)
    w = rng.integers(-3, 4, weight_shape(layer)).astype(np.float16)
    dy = rng.integers(-3, 4, (2, layer.oh, layer.ow, layer.oc)).astype(np.float16)
    y, dx, dw = direct(layer, x.astype(float), w.astype(float), dy.astype(float))
    used = Operands(w, w)
    classifier = Layer(name="loss", op="elementwise", function="cross_entropy", oc=layer.oc, h=layer.oh, w=layer.ow)
    stack = Stack.of(Workload(name="one", layers=(layer, classifier)))
    trace = forward(stack, {"c": used}, x, products)
    np.testing.assert_array_equal(trace.logits.reshape(y.shape), y)  # small integers: every order is exact
    np.testing.assert_array_equal(input_gradient(layer, used, dy, products), dx)
    np.testing.assert_array_equal(weight_gradient(layer, trace.columns[0], dy, products), dw)


@pytest.mark.parametrize("task", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [ProductOrder(), ProductOrder(4), ProductOrder(2, 4), ProductOrder(1, 8)], ids=str)
def test_golden_and_blas_differ_by_rounding_only(task, method, order):
    stack, fast = one_step(task, method)
    _, exact = one_step(task, method, GoldenProducts({}, order))
    assert fast.loss == pytest.approx(exact.loss, rel=1e-3)  # logits are binary16: 2^-11 each
    for name in stack.weight_shapes():
        a, b = fast.gradients.weights[name], exact.gradients.weights[name]
        # dY is rounded to binary16 a layer; a rounding may flip a ReLU or a pruned gradient, so few elements may differ
        assert np.quantile(np.abs(a - b), 0.95) <= 0.01 * np.abs(b).max()


def test_golden_orders_are_really_different_orders():
    found = [
        one_step("digits-cnn", "bdwp", GoldenProducts({}, order))[1] for order in (ProductOrder(), ProductOrder(4, 2))
    ]
    assert any((found[0].state.w32[n] != found[1].state.w32[n]).any() for n in found[0].state.w32)


def test_orders_are_looked_up_by_layer_stage_and_part():
    orders = {("a", "bp"): ProductOrder(2), ("a", "bp", 1): ProductOrder(4)}
    golden = GoldenProducts(orders, ProductOrder(8))
    found = [golden.order("a", "bp", 0).lanes, golden.order("a", "bp", 1).lanes, golden.order("a", "ff", 0).lanes]
    assert found == [2, 4, 8]


def mlp_by_hand(state, x, labels, method, pattern, scale):
    """The MLP's step spelled out: no layer graph, no recipes, sums one after the other (OS, one lane)."""

    def product(a, b):  # (m, k) (k, n): k ascending, each sum rounded
        acc = np.zeros((a.shape[0], b.shape[1]), np.float32)
        for k in range(a.shape[1]):
            acc = acc + a[:, k, None].astype(np.float32) * b[None, k].astype(np.float32)
        return acc

    def masked(w, axis):
        return np.where(nm_mask(w, pattern, axis), w, np.float16(0))

    def product_lanes(a, b):  # N:M operand B: lane i sums the i-th kept value of every group
        keep = nm_mask(b, pattern, 0)
        lanes = [np.zeros((a.shape[0], b.shape[1]), np.float32) for _ in range(pattern.keep)]
        for n in range(b.shape[1]):
            for first in range(0, len(b), pattern.group):
                kept = [k for k in range(first, first + pattern.group) if keep[k, n]]
                for lane, k in enumerate(kept):
                    lanes[lane][:, n] += a[:, k].astype(np.float32) * np.float32(b[k, n])
        total = lanes[0]
        for lane in lanes[1:]:
            total = total + lane
        return total

    names = ["fc1", "fc2", "fc3", "fc4"]
    sparse = {"fc2", "fc3"} if method != "dense" else set()
    acts, masks = [x], []
    for name in names:
        w = state.w16[name]
        use = name in sparse and method in ("bdwp", "sr-ste")
        z = (product_lanes(acts[-1], masked(w, 1).T) if use else product(acts[-1], w.T)).astype(np.float16)
        masks.append(z > 0)
        acts.append(np.where(z > 0, z, np.float16(0)) if name != "fc4" else z)
    dy = cross_entropy_gradient(acts[-1], labels, scale)
    new = {}
    for i in (3, 2, 1, 0):
        name = names[i]
        g = product(acts[i].T, dy).T
        w = state.w16[name]
        if i:
            if name in sparse and method in ("bdwp", "sdwp"):
                dx = product_lanes(dy, masked(w, 0))
            elif name in sparse and method == "sdgp":
                dx = product_lanes(w.T, masked(dy, 1).T).T
            else:
                dx = product(dy, w)
            dy = np.where(masks[i - 1], dx.astype(np.float16), np.float16(0))
        kept = nm_mask(w, pattern, 1) if name in sparse and method == "sr-ste" else None
        rule = UpdateRule(0.05, 0.9, 5e-4, 2e-4 if method == "sr-ste" else 0.0, scale)
        new[name] = wuve_update(np.ascontiguousarray(g), state.w32[name], state.v32[name], kept, rule)
    return new


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", ["2:8", "2:4", "1:2"])
def test_an_mlp_step_spelled_out(method, sparsity):
    stack = Stack.of(Workload.load("digits-mlp"))
    recipe = make_recipe(method, Sparsity.parse(sparsity), stack.workload)
    state = State.initial(stack.initial_weights(1))
    for step in range(2):
        x, labels = batch_of("digits-mlp", 5, step)
        expected = mlp_by_hand(state, x, labels, method, Sparsity.parse(sparsity), state.scale.value)
        state = training_step(stack, state, recipe, x, labels, RULE, products=GoldenProducts()).state
        for name, (w32, v32, w16) in expected.items():
            np.testing.assert_array_equal(state.v32[name], v32, err_msg=f"{name} step {step}")
            np.testing.assert_array_equal(state.w32[name], w32)
            np.testing.assert_array_equal(state.w16[name], w16)


def test_gradients_are_derivatives():
    """Central differences of the loss in binary64, on a stack whose operands are dense."""
    stack, result = one_step("digits-cnn", "dense", rows=8)
    x, labels = batch_of("digits-cnn", 8)
    weights = {n: w.astype(np.float64) for n, w in State.initial(stack.initial_weights(3)).w16.items()}

    def loss() -> float:
        a = x.astype(np.float64)
        for layer, has_relu in zip(stack.layers, stack.relus, strict=True):
            w = weights[layer.name]
            if layer.op == "conv2d":
                a, _, _ = direct(layer, a, w, np.zeros((len(a), layer.oh, layer.ow, layer.oc)))
            else:
                a = a.reshape(len(a), -1) @ w.T
            a = np.maximum(a, 0) if has_relu else a
        shifted = a - a.max(axis=1, keepdims=True)
        return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(a)), labels]).mean())

    rng = np.random.default_rng(0)
    for name, w in weights.items():
        g = result.gradients.weights[name] / 1024.0
        for _ in range(3):
            place = tuple(int(rng.integers(size)) for size in w.shape)
            kept, h = w[place], 1e-4
            w[place] = kept + h
            above = loss()
            w[place] = kept - h
            slope = (above - loss()) / (2 * h)
            w[place] = kept
            assert slope == pytest.approx(
                g[place], abs=0.01 * float(np.abs(g).max())
            )  # binary16 activations and gradients


# --- update, loss scale, errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rule", [RULE, UpdateRule(0.1, 0.9, 1e-4, 2e-4, 1024.0), UpdateRule(1e-30, 1e-39, 1e-30, 1.0, 2.0**100)], ids=str
)
def test_the_compiled_update_is_wuve_s(rule, seed):
    """Bit for bit, subnormals, signed zeros, infinities and NaNs included."""
    rng = np.random.default_rng(seed)
    specials = np.array([0, -0.0, 1e-38, -1e-38, 1e-40, -1e-40, 1.2e-38, 3e38], np.float32)
    drawn = [(rng.normal(size=999) * 10.0 ** rng.integers(-38, 6, 999)).astype(np.float32) for _ in range(3)]
    for array in drawn:
        array[rng.permutation(999)[:200]] = rng.choice(specials, 200)
    if seed == 3:
        drawn[0][:3], drawn[1][1:4], drawn[2][2:5] = np.inf, -np.inf, np.nan
    g, w, v = drawn
    for mask in (None, rng.random(999) < 0.3):
        expected, found = wuve_update(g, w, v, mask, rule), fast_update(g, w, v, mask, rule)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def test_loss_falls_over_golden_steps():
    stack = Stack.of(Workload.load("digits-mlp"))
    recipe = make_recipe("bdwp", Sparsity(2, 8), stack.workload)
    state = State.initial(stack.initial_weights(0))
    x, labels = batch_of("digits-mlp", 16)
    losses = []
    for _ in range(10):
        result = training_step(stack, state, recipe, x, labels, RULE, products=GoldenProducts())
        state = result.state
        losses.append(result.loss)
    assert losses[-1] < 0.7 * losses[0]


def test_the_loss_scale_cancels_exactly_where_nothing_rounds():
    """Powers of two scale every gradient exactly as long as binary16 neither overflows nor becomes subnormal."""
    stack = Stack.of(Workload.load("digits-mlp"))
    x, labels = batch_of("digits-mlp", 8)
    found = []
    for value in (256.0, 1024.0):
        state = State.initial(stack.initial_weights(0), LossScale(value))
        recipe = make_recipe("dense", Sparsity(1, 1), stack.workload)
        found.append(training_step(stack, state, recipe, x, labels, RULE).state.w32["fc4"])
    np.testing.assert_array_equal(found[0], found[1])


def test_an_overflow_skips_the_step_and_halves_the_scale():
    stack = Stack.of(Workload.load("digits-mlp"))
    state = State.initial(stack.initial_weights(0), LossScale(2.0**24))
    recipe = make_recipe("sdgp", Sparsity(2, 8), stack.workload)
    x, labels = batch_of("digits-mlp", 8)
    result = training_step(stack, state, recipe, x, labels, RULE)
    assert result.skipped
    assert result.state.scale.value == 2.0**23
    assert result.state.w32 is state.w32


def test_loss_scale_grows_after_good_steps_and_gives_up_at_one():
    scale = LossScale(4.0, interval=2)
    values = [scale.value]
    for overflow in (False, False, True, True, True):
        scale = scale.after(overflow)
        values.append(scale.value)
    assert values == [4.0, 4.0, 8.0, 4.0, 2.0, 1.0]
    with pytest.raises(
        NmsatError, match=r"^training: gradients: must be finite at loss scale 1, not inf; lower the rate$"
    ):
        scale.after(True)
    assert LossScale(8.0, interval=0).after(False).value == 8.0
    assert LossScale(2.0**24, interval=1).after(False).value == 2.0**24


def test_a_loss_that_is_not_a_number_is_an_error():
    stack = Stack.of(Workload.load("digits-mlp"))
    weights = {name: np.full(shape, 6e4, np.float32) for name, shape in stack.weight_shapes().items()}
    recipe = make_recipe("dense", Sparsity(1, 1), stack.workload)
    x, labels = batch_of("digits-mlp", 4)
    with pytest.raises(NmsatError, match=r"^training: loss: must be finite, not nan; lower the learning rate$"):
        training_step(stack, State.initial(weights), recipe, x, labels, RULE)


@pytest.mark.parametrize(
    ("layers", "shown"),
    [
        ([Layer(name="p", op="linear", ic=2, oc=2), Layer(name="g", op="elementwise", function="gelu", oc=2)], "gelu"),
        ([Layer(name="p", op="linear", ic=2, oc=2)], "linear"),
        ([Layer(name="p", op="depthwise", ic=2, oc=2, groups=2)], "depthwise"),
    ],
)
def test_other_graphs_are_refused(layers, shown):
    with pytest.raises(NmsatError, match=rf"^net: layer .*{shown}.*; the reference trainer runs chains only$"):
        Stack.of(Workload(name="net", layers=tuple(layers)))


def test_a_branch_is_refused():
    layers = (
        Layer(name="a", op="linear", ic=4, oc=4),
        Layer(name="b", op="linear", ic=4, oc=4),
        Layer(name="c", op="linear", ic=4, oc=4, inputs=("a",)),
        Layer(name="loss", op="elementwise", function="cross_entropy", oc=4),
    )
    with pytest.raises(NmsatError, match=r"^net: layer 'c': must be a layer that reads the one before it"):
        Stack.of(Workload(name="net", layers=layers))


def test_backward_stops_at_an_infinite_gradient():
    stack = Stack.of(Workload.load("digits-mlp"))
    state = State.initial(stack.initial_weights(0))
    recipe = make_recipe("dense", Sparsity(1, 1), stack.workload)
    operands = stage_operands(stack, recipe, state.w16, 0.0)
    x, labels = batch_of("digits-mlp", 4)
    trace = forward(stack, operands, x, BlasProducts())
    gradient = cross_entropy_gradient(trace.logits, labels)
    gradient[0, 0] = np.inf
    found = backward(stack, operands, trace, gradient, BlasProducts())
    assert found.overflow
    assert found.weights == {}


def test_initial_weights_are_seeded_and_have_he_s_variance():
    stack = Stack.of(Workload.load("digits-cnn"))
    one, two, other = (stack.initial_weights(s) for s in (1, 1, 2))
    for name, shape in stack.weight_shapes().items():
        np.testing.assert_array_equal(one[name], two[name])
        assert (one[name] != other[name]).any()
        assert one[name].std() == pytest.approx(np.sqrt(2 / np.prod(shape[1:])), rel=0.2)  # 144 samples at least
    assert narrow(one["fc"]).dtype == np.float16
