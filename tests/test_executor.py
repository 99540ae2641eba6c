"""The golden executor: a program's training step equals the layer-by-layer reference trainer, bit for bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nmsat.dataflow import Options, Program, compile_program
from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import Kind, Mode, Stage
from nmsat.models import Accelerator, Layer, NmsatError, Sparsity, Workload
from nmsat.models.golden import UpdateRule, pack
from nmsat.models.pruning import make_recipe
from nmsat.models.training import GoldenProducts, ProductOrder, Stack, State, WindowProducts, training_step
from nmsat.models.window import Window
from nmsat.simulator import execute, load_tensors, load_weights, new_image, read_tensor
from nmsat.simulator.executor.update import compressed_copy

RULE = UpdateRule(lr=0.05, momentum=0.9, weight_decay=5e-4)
SCALE = 1024.0
BATCH = 16


def digits(task: str, rows: int, seed: int):
    """Images like the digits': multiples of 1/16, about half of them zero."""
    rng = np.random.default_rng(seed)
    pixels = np.maximum(rng.integers(-16, 17, (rows, 64)), 0) / 16
    x = pixels.astype(np.float16)
    return (x if task == "digits-mlp" else x.reshape(rows, 8, 8, 1)), rng.integers(0, 10, rows).astype(np.int32)


def orders(program: Program) -> GoldenProducts | WindowProducts:
    """The summation order that a program's descriptors state, for the trainer; with a window there is none."""
    found, parts = {}, Counter()
    if lsbs := {item["window_lsb"] for item in program.descriptors if item.kind is Kind.PRODUCT} - {0}:
        (lsb,) = lsbs
        return WindowProducts(Window(lsb, lsb + 17))
    for item in program.descriptors:
        if item.kind is Kind.PRODUCT:
            key = program.layers[item["layer"]], Stage(item["stage"]).name.lower()
            rows = item["k_tile"] if item["mode"] == Mode.WS else None
            found[(*key, parts[key])] = ProductOrder(item["keep"], rows)
            parts[key] += 1
    return GoldenProducts(found)


def rule_words(rule: UpdateRule) -> np.ndarray:
    return np.array([rule.lr, rule.momentum, rule.weight_decay, rule.lam, rule.loss_scale], np.float32)


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


NORMALISED = Workload(
    name="normalised",
    layers=(
        Layer(name="c1", op="conv2d", ic=1, oc=8, kh=3, kw=3, h=8, w=8, pad=1, prune=False),
        Layer(name="n1", op="elementwise", function="batchnorm", oc=8, h=8, w=8),
        Layer(name="r1", op="elementwise", function="relu", oc=8, h=8, w=8),
        Layer(name="c2", op="conv2d", ic=8, oc=16, kh=3, kw=3, h=8, w=8, pad=1, stride=2),
        Layer(name="n2", op="elementwise", function="batchnorm", oc=16, h=4, w=4),
        Layer(name="r2", op="elementwise", function="relu", oc=16, h=4, w=4),
        Layer(name="f1", op="linear", ic=256, oc=16),
        Layer(name="n3", op="elementwise", function="batchnorm", oc=16),
        Layer(name="f2", op="linear", ic=16, oc=10, prune=False),
        Layer(name="loss", op="elementwise", function="cross_entropy", oc=10),
    ),
)


def assert_steps_equal(task, method, sparsity, accelerator, options=None, steps=2, batch=BATCH, encoded=False):
    """Run ``steps`` steps both ways and compare every tensor that both know."""
    net = task if isinstance(task, Workload) else Workload.load(task)
    machine = accelerator if isinstance(accelerator, Accelerator) else Accelerator.load(accelerator)
    program = compile_program(net, machine, method=method, sparsity=sparsity, batch=batch, options=options)
    if encoded:
        program = Program.decode(program.encode())
    stack, recipe = Stack.of(net), make_recipe(method, Sparsity.parse(sparsity), net)
    state = State.initial(stack.initial_weights(3))
    state = replace(state, scale=replace(state.scale, value=SCALE, interval=0))
    image, products = new_image(program), orders(program)
    load_weights(program, image, state.w32)
    compared = 0
    for step in range(steps):
        x, labels = digits(task, batch, step)
        rule = replace(RULE, lam=recipe.lam, loss_scale=SCALE)
        load_tensors(program, image, {"input": x, "labels": labels, "rule": rule_words(rule)})
        before = image.copy()
        after = execute(program, image)
        assert np.array_equal(image, before)
        image = after
        result = training_step(stack, state, recipe, x, labels, RULE, products=products)
        assert not result.skipped
        state = result.state
        compared += compare(program, image, stack, result, Sparsity.parse(sparsity))
        losses = read_tensor(program, image, "losses")
        assert np.isclose(losses.mean(dtype=np.float64), result.loss, rtol=1e-6)  # binary32 losses, binary64 mean
    return program, image, compared


def compare(program, image, stack, result, pattern) -> int:
    names = {item.name for item in program.tensors}
    count = 0
    for layer in stack.layers:
        state = result.state
        wanted = {
            "w32": state.w32[layer.name],
            "v32": state.v32[layer.name],
            "w16": state.w16[layer.name],
            "g": result.gradients.weights[layer.name],
            "dy": result.gradients.outputs[layer.name],
        }
        w16 = state.w16[layer.name].reshape(layer.oc, -1, layer.ic)
        for stage in ("ff", "bp"):
            if f"{layer.name}.{stage}.values" in names:
                values, indices = pack(compressed_copy(w16, pattern, stage, 1))
                wanted |= {f"{stage}.values": values.view(np.float16), f"{stage}.indices": indices}
        for name, value in wanted.items():
            if f"{layer.name}.{name}" in names:
                found = read_tensor(program, image, f"{layer.name}.{name}")
                assert np.array_equal(bits(found), bits(value)), f"{layer.name}.{name}"
                count += 1
    for norm in filter(None, stack.norms):
        found, state = read_tensor(program, image, f"{norm.name}.affine"), result.state
        wanted = [state.w32[norm.name], state.v32[norm.name], result.gradients.weights[norm.name]]
        statistics = result.trace.norms[norm.name]
        wanted += [np.stack([statistics.mean, statistics.variance])]
        assert np.array_equal(bits(found), bits(np.concatenate(wanted))), norm.name
        count += 1
    logits = read_tensor(program, image, f"{stack.layers[-1].name}.y")
    assert np.array_equal(bits(logits), bits(result.trace.logits))
    return count


METHODS = [("dense", "2:8"), *((m, p) for m in ("bdwp", "sr-ste", "sdwp", "sdgp") for p in ("2:8", "2:4"))]


@pytest.mark.parametrize("accelerator", ["sat_4x4", "sat_8x8"])
@pytest.mark.parametrize("flow", ["auto", "os", "ws"])
@pytest.mark.parametrize(("method", "sparsity"), METHODS)
def test_mlp_steps_equal_the_trainer(method, sparsity, flow, accelerator):
    _, _, compared = assert_steps_equal(
        "digits-mlp", method, sparsity, accelerator, Options(dataflow=flow), steps=3, encoded=True
    )
    assert compared >= 3 * 4 * 4


@pytest.mark.parametrize("accelerator", ["sat_4x4", "sat_8x8"])
@pytest.mark.parametrize("flow", ["auto", "os", "ws"])
@pytest.mark.parametrize(("method", "sparsity"), METHODS)
def test_cnn_steps_equal_the_trainer(method, sparsity, flow, accelerator):
    _, _, compared = assert_steps_equal("digits-cnn", method, sparsity, accelerator, Options(dataflow=flow), steps=2)
    assert compared >= 2 * 4 * 4


@pytest.mark.parametrize("task", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize(
    ("method", "sparsity"), [("dense", "2:8"), ("bdwp", "2:8"), ("sr-ste", "2:4"), ("sdgp", "2:8")]
)
def test_window_steps_equal_the_trainer_whatever_the_mapping(task, method, sparsity):
    """One window accumulator: arrays of two sizes, both dataflows, and spills at every few products give the same DRAM."""
    images = []
    for accelerator, flow, lsb, bits in (
        ("sat_4x4", "auto", 33, 64), ("sat_8x8", "os", 33, 64), ("sat_8x8", "ws", 33, 64), ("sat_4x4", "os", 33, 54),
    ):  # fmt: skip
        machine = Accelerator.load(accelerator).replace(accumulator="window", window_lsb=lsb, window_bits=bits)
        program, image, compared = assert_steps_equal(
            task, method, sparsity, machine, Options(dataflow=flow), encoded=True
        )
        assert compared >= 2 * 4 * 4
        products = [item for item in program.descriptors if item.kind is Kind.PRODUCT]
        spilled = any(item["mode"] == Mode.OS and item["k_tile"] for item in products)
        assert spilled == (bits == 54)  # 16 products an element
        images.append(image)
    assert all(np.array_equal(image, images[0]) for image in images[1:])


@pytest.mark.parametrize("task", ["digits-mlp", "digits-cnn"])
def test_pruning_at_use_gives_the_values_of_pruning_at_update(task):
    """Without pre-generation there are no compressed copies; weights, momenta and gradients are the same bits."""
    _, _, compared = assert_steps_equal(task, "bdwp", "2:8", "sat_4x4", Options(pregenerate=False), steps=2)
    assert compared >= 2 * 4 * 4


@pytest.mark.parametrize(("accelerator", "flow"), [("sat_4x4", "os"), ("sat_8x8", "ws")])
@pytest.mark.parametrize(("method", "sparsity"), [("dense", "2:8"), ("bdwp", "2:8"), ("sdgp", "2:4")])
def test_steps_with_batch_normalisation_equal_the_trainer(method, sparsity, accelerator, flow):
    """Behind a convolution, a strided one and a linear layer, with and without ReLU; scale, shift and momenta too."""
    options = Options(dataflow=flow)
    program, _, compared = assert_steps_equal(NORMALISED, method, sparsity, accelerator, options, steps=3, encoded=True)
    assert compared >= 3 * (4 * 4 + 3)
    assert sum(item.flag(fmt.STATISTICS) for item in program.descriptors if item.kind is Kind.PRODUCT) == 3


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_odd_batches(batch):
    assert_steps_equal("digits-cnn", "bdwp", "2:8", "sat_4x4", batch=batch, steps=1)


def test_a_changed_bit_in_memory_is_noticed():
    """The comparison can fail: one weight's last bit more, and the step's results differ."""
    net = Workload.load("digits-mlp")
    program = compile_program(net, Accelerator.load("sat_4x4"), batch=BATCH)
    stack = Stack.of(net)
    weights = stack.initial_weights(3)
    changed = {name: w.copy() for name, w in weights.items()}
    changed["fc2"].reshape(-1).view(np.uint32)[7] ^= 1 << 20
    x, labels = digits("digits-mlp", BATCH, 0)
    results = []
    for start in (weights, changed):
        image = new_image(program)
        load_weights(program, image, start)
        load_tensors(program, image, {"input": x, "labels": labels, "rule": rule_words(RULE)})
        results.append(read_tensor(program, execute(program, image), "fc1.w32"))
    assert not np.array_equal(*results)


@pytest.mark.parametrize("name", ["vit", "bytes-lm", "efficientnet_b0"])
def test_networks_without_defined_values_are_refused_before_anything_runs(name):
    program = compile_program(Workload.load(name), Accelerator.load("sat"), batch=1)
    with pytest.raises(NmsatError, match=r"^program: layer '.*': must be made of operations with defined values, not "):
        execute(program, np.zeros(0, np.uint8))
