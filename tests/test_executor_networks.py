"""Programs of branching networks: values against a plain float64 forward pass, gradients against its differences."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest

from nmsat.dataflow import Options, compile_program
from nmsat.dataflow.program import Kind, Stage
from nmsat.models import Accelerator, Layer, Workload
from nmsat.models.side_products import SideProduct
from nmsat.simulator import execute, load_tensors, load_weights, new_image, read_tensor

BATCH = 3
SCALE = 256.0


ERF = np.vectorize(erf)
SMOOTH = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + ERF(x / np.sqrt(2))) / 2,
}
NORMS = ("batchnorm", "layernorm", "rmsnorm")


def each(name, function, c, size=1, **more):
    return Layer(name=name, op="elementwise", function=function, oc=c, h=size, w=size, **more)


RESIDUAL = Workload(
    name="residual",
    layers=(
        Layer(name="stem", op="conv2d", ic=2, oc=8, kh=3, kw=3, h=6, w=6, pad=1),
        each("stem.relu", "relu", 8, 6),
        Layer(name="a", op="conv2d", ic=8, oc=8, kh=3, kw=3, h=6, w=6, pad=1),
        each("a.add", "add", 8, 6, inputs=("a", "stem.relu")),
        each("a.relu", "relu", 8, 6),
        each("a.pool", "maxpool", 8, 6, kh=3, kw=3, stride=2, pad=1),
        Layer(name="down", op="conv2d", ic=8, oc=8, h=3, w=3, kh=1, kw=1, stride=2),
        Layer(
            name="b", op="depthwise", ic=8, oc=8, groups=8, kh=3, kw=3, h=3, w=3, stride=2, pad=1, inputs=("a.pool",)
        ),
        each("b.relu", "relu", 8, 2),
        Layer(name="c", op="conv2d", ic=8, oc=8, groups=2, kh=3, kw=3, h=2, w=2, pad=1),
        each("c.add", "add", 8, 2, inputs=("c", "down")),
        each("c.pool", "avgpool", 8, 2, kh=2, kw=2, stride=1),
        Layer(name="fc", op="linear", ic=8, oc=5),
        each("loss", "cross_entropy", 5),
    ),
)
ATTENTION = Workload(
    name="attention",
    layers=(
        Layer(name="patch", op="linear", ic=6, oc=8, tokens=4),
        Layer(name="qkv", op="linear", ic=8, oc=24, tokens=4),
        Layer(name="attention", op="attention", heads=2, head_dim=4, tokens=4),
        Layer(name="proj", op="linear", ic=8, oc=8, tokens=4),
        Layer(name="add", op="elementwise", function="add", oc=8, tokens=4, inputs=("proj", "patch")),
        Layer(name="fc", op="linear", ic=32, oc=5),
        Layer(name="loss", op="elementwise", function="cross_entropy", oc=5),
    ),
)
NORMALISED = Workload(  # residual blocks as ResNets have them, additions inside passes
    name="normalised",
    layers=(
        Layer(name="stem", op="conv2d", ic=2, oc=8, kh=3, kw=3, h=6, w=6, pad=1),
        each("stem.bn", "batchnorm", 8, 6),
        each("stem.relu", "relu", 8, 6),
        Layer(name="a", op="conv2d", ic=8, oc=8, kh=3, kw=3, h=6, w=6, pad=1),
        each("a.bn", "batchnorm", 8, 6),
        each("a.add", "add", 8, 6, inputs=("a.bn", "stem.relu")),
        each("a.relu", "relu", 8, 6),
        Layer(name="b", op="conv2d", ic=8, oc=16, kh=3, kw=3, h=6, w=6, pad=1, stride=2),
        each("b.bn", "batchnorm", 16, 3),
        Layer(name="down", op="conv2d", ic=8, oc=16, h=6, w=6, stride=2, inputs=("a.relu",)),
        each("down.bn", "batchnorm", 16, 3),
        each("c.add", "add", 16, 3, inputs=("down.bn", "b.bn")),
        each("c.silu", "silu", 16, 3),
        each("c.pool", "avgpool", 16, 3, kh=3, kw=3, stride=1),
        Layer(name="fc", op="linear", ic=16, oc=5),
        each("loss", "cross_entropy", 5),
    ),
)
ROWS = Workload(
    name="rows",
    layers=(
        Layer(name="patch", op="linear", ic=6, oc=8, tokens=4),
        each("norm", "layernorm", 8, tokens=4),
        Layer(name="up", op="linear", ic=8, oc=16, tokens=4),
        each("gelu", "gelu", 16, tokens=4),
        Layer(name="out", op="linear", ic=16, oc=8, tokens=4),
        each("rms", "rmsnorm", 8, tokens=4),
        each("gate", "sigmoid", 8, tokens=4),
        Layer(name="fc", op="linear", ic=32, oc=5),
        each("loss", "cross_entropy", 5),
    ),
)
SIDE = Workload(  # low-rank and block-diagonal terms, beside and around a convolution and a linear layer
    name="side",
    layers=(
        Layer(name="a", op="conv2d", ic=2, oc=8, kh=3, kw=3, h=6, w=6, pad=1, stride=2, extra=(
            SideProduct(kind="low-rank", rank=3), SideProduct(kind="block-diagonal", blocks=4, side="out"),
        )),
        each("a.relu", "relu", 8, 3),
        Layer(name="b", op="conv2d", ic=8, oc=8, h=3, w=3, kh=3, kw=3, pad=1, extra=(
            SideProduct(kind="block-diagonal", blocks=2, side="in"),
        )),
        Layer(name="fc", op="linear", ic=72, oc=5, extra=(
            SideProduct(kind="block-diagonal", blocks=8, side="in"), SideProduct(kind="low-rank", rank=2),
        )),
        each("loss", "cross_entropy", 5),
    ),
).expanded()  # fmt: skip
TASKS = {
    "side": (SIDE, (BATCH, 6, 6, 2)),
    "residual": (RESIDUAL, (BATCH, 6, 6, 2)),
    "attention": (ATTENTION, (BATCH, 24)),
    "normalised": (NORMALISED, (BATCH, 6, 6, 2)),
    "rows": (ROWS, (BATCH, 24)),
}


def windows(x, layer, fill=0.0):
    p = layer.pad
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, (layer.kh, layer.kw), axis=(1, 2))
    return view[:, :: layer.stride, :: layer.stride]  # b, y, x, c, ky, kx


def product(layer, x, w):
    if layer.op == "linear":
        return x.reshape(-1, layer.tokens, layer.ic) @ w.reshape(layer.oc, layer.ic).T
    if layer.op == "attention":
        b, t, h, d = len(x), layer.tokens, layer.heads, layer.head_dim
        q, k, v = np.moveaxis(x.reshape(b, t, 3, h, d), 2, 0)
        scores = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(d))
        return np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(-1, keepdims=True), v).reshape(b, t, h * d)
    found = windows(x.reshape(len(x), layer.h, layer.w, layer.ic), layer)
    outer, inner = layer.oc // layer.groups, layer.ic // layer.groups
    parts = [
        np.einsum("byxcij,oijc->byxo", found[:, :, :, g * inner : (g + 1) * inner], w[g * outer : (g + 1) * outer])
        for g in range(layer.groups)
    ]
    return np.concatenate(parts, axis=-1)


def normalised(kind, x, affine):
    axis = tuple(range(x.ndim - 1)) if kind == "batchnorm" else -1
    centred = x if kind == "rmsnorm" else x - x.mean(axis=axis, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axis, keepdims=True) + 1e-5) * affine[0] + affine[1]


def losses(net, weights, x, labels):
    """Losses of a batch in float64, straight from the layers' definitions; also every layer's output."""
    outputs, inputs = {}, net.inputs_of()
    for layer in net.layers:
        sources = [outputs[name] for name in inputs[layer.name]] or [x]
        source = sources[0]
        if layer.is_product:
            value = product(layer, source, weights.get(layer.name))
        elif layer.function == "relu":
            value = np.maximum(source, 0)
        elif layer.function == "add":
            value = source.reshape(sources[1].shape) + sources[1]
        elif layer.function == "maxpool":
            value = windows(source, layer, -np.inf).max(axis=(-2, -1))
        elif layer.function == "avgpool":
            value = windows(source, layer).mean(axis=(-2, -1))
        elif layer.function in SMOOTH:
            value = SMOOTH[layer.function](source)
        elif layer.function in NORMS:
            value = normalised(layer.function, source, weights[layer.name])
        else:
            rows = source.reshape(len(x), -1)
            value = np.log(np.exp(rows).sum(-1)) - rows[np.arange(len(rows)), labels]
        outputs[layer.name] = value
    return value, outputs


def run(task, method="dense", options=None, accelerator="sat_4x4", lr=0.0):
    net, shape = TASKS[task]
    rng = np.random.default_rng(11)
    weights = {
        layer.name: (rng.normal(size=(layer.oc, layer.kh, layer.kw, layer.ic // layer.groups)) * 0.5)
        .astype(np.float16)
        .astype(np.float32)
        for layer in net.layers
        if layer.has_weights
    }
    for layer in net.layers:
        if layer.function in NORMS:
            weights[layer.name] = rng.uniform(0.5, 1.5, (2, layer.oc)).astype(np.float32)
    x = rng.normal(size=shape).astype(np.float16)
    labels = rng.integers(0, 5, BATCH).astype(np.int32)
    program = compile_program(net, Accelerator.load(accelerator), method=method, batch=BATCH, options=options)
    image = new_image(program)
    load_weights(program, image, weights)
    words = np.array([lr, 0, 0, 0, SCALE], np.float32)
    load_tensors(program, image, {"input": x, "labels": labels, "rule": words})
    return net, program, execute(program, image), weights, x, labels


@pytest.mark.parametrize("flow", ["auto", "os", "ws"])
@pytest.mark.parametrize("task", TASKS)
def test_outputs_follow_the_definition(task, flow):
    net, program, image, weights, x, labels = run(task, options=Options(dataflow=flow))
    expected, outputs = losses(net, {k: v.astype(float) for k, v in weights.items()}, x.astype(float), labels)
    found = read_tensor(program, image, "losses")
    assert np.allclose(found, expected, rtol=0.02, atol=0.02)  # a dozen binary16 roundings of values around 1 to 8
    name = net.layers[-2].name if net.layers[-2].is_product else "fc"
    logits = read_tensor(program, image, f"{name}.y")
    assert np.allclose(logits.reshape(BATCH, -1), outputs[name].reshape(BATCH, -1), rtol=0.02, atol=0.03)


@pytest.mark.parametrize("task", TASKS)
def test_gradients_follow_the_differences_of_the_loss(task):
    """dW of every layer along random directions: branches, pools, phases, heads and groups must all be wired right."""
    net, program, image, weights, x, labels = run(task)
    wide = {name: w.astype(float) for name, w in weights.items()}
    rng, step = np.random.default_rng(5), 1e-5
    for name, w in wide.items():
        stored = read_tensor(program, image, f"{name}.affine")[4:6] if w.ndim == 2 else None
        g = (read_tensor(program, image, f"{name}.g").reshape(w.shape) if stored is None else stored) / SCALE
        for _ in range(4):
            direction = rng.normal(size=w.shape)
            ends = [losses(net, wide | {name: w + s * step * direction}, x.astype(float), labels)[0] for s in (1, -1)]
            difference = (ends[0].mean() - ends[1].mean()) / (2 * step)
            # binary16 activations and gradients: 2^-11 each, some ten in a row, cancellation between the terms
            assert abs(np.sum(g * direction) - difference) < 0.02 * np.linalg.norm(g), name


@pytest.mark.parametrize("method", ["bdwp", "sdgp", "sr-ste", "sdwp"])
def test_every_flow_and_array_reads_the_same_operands(method):
    """Only the order of sums differs between schedules: results agree within its rounding."""
    results = []
    for flow, accelerator in (("os", "sat_4x4"), ("ws", "sat_8x8"), ("auto", "sat")):
        _, program, image, *_ = run("residual", method, Options(dataflow=flow), accelerator, lr=0.01)
        results.append({name: read_tensor(program, image, f"{name}.w32") for name in ("stem", "a", "b", "c", "fc")})
    for name, value in results[0].items():
        for other in results[1:]:
            assert np.allclose(value, other[name], atol=2e-3), name


def test_the_gradients_of_a_tensor_with_several_readers_are_added():
    _, program, image, *_ = run("attention")
    parts = [read_tensor(program, image, name) for name in ("qkv.dx", "proj.dy")]
    total = read_tensor(program, image, "patch.dy")
    exact = (parts[0].astype(np.float32) + parts[1].astype(np.float32)).astype(np.float16)
    assert np.array_equal(total.view(np.uint16), exact.view(np.uint16))


def test_a_stride_that_passes_over_pixels_leaves_their_gradient_zero():
    _, program, image, *_ = run("residual")
    found = read_tensor(program, image, "down.dx").reshape(BATCH, 3, 3, 8)
    assert not found[:, 1].any()
    assert not found[:, :, 1].any()
    assert found[:, ::2, ::2].any()


def test_host_descriptors_are_the_losses_and_the_softmax():
    _, program, *_ = run("attention")
    hosts = [(program.layers[d["layer"]], Stage(d["stage"])) for d in program.descriptors if d.kind is Kind.HOST]
    assert hosts == [
        ("attention", Stage.FF),
        ("loss", Stage.FF),
        ("loss", Stage.BP),
        ("attention", Stage.BP),
    ]
