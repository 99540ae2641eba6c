"""Lowering against brute force: convolution gradients by definition, with the geometry the descriptors carry."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.dataflow.lowering import (
    backward_products,
    forward_products,
    groups_after,
    stage_pattern,
    update_products,
)
from nmsat.dataflow.program import Stage
from nmsat.models import DENSE, Layer, Sparsity, Workload
from nmsat.models.methods import METHODS

CASES = [
    (3, 1, 1, 8),
    (3, 2, 1, 8),
    (3, 2, 1, 7),
    (1, 2, 0, 8),
    (5, 2, 2, 9),
    (7, 2, 3, 14),
    (2, 3, 0, 8),
    (1, 1, 0, 1),
    (3, 3, 2, 7),
]


def conv(layer: Layer, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Direct convolution, x (b, h, w, i), w OHWI."""
    padded = np.pad(x, ((0, 0), (layer.pad, layer.pad), (layer.pad, layer.pad), (0, 0)))
    out = np.zeros((x.shape[0], layer.oh, layer.ow, layer.oc))
    for y in range(layer.oh):
        for z in range(layer.ow):
            patch = padded[
                :,
                y * layer.stride : y * layer.stride + layer.kh,
                z * layer.stride : z * layer.stride + layer.kw,
            ]
            out[:, y, z] = np.einsum("bijc,oijc->bo", patch, w)
    return out


def gather(source: np.ndarray, item) -> np.ndarray:
    """im2col by the product's own axes: (images*out_y*out_x, taps_y*taps_x*channels)."""
    b, c = source.shape[0], source.shape[3]
    out = np.zeros((b, item.y.out, item.x.out, item.y.taps, item.x.taps, c))
    for y in range(item.y.out):
        for x in range(item.x.out):
            for ty in range(item.y.taps):
                for tx in range(item.x.taps):
                    sy = y * item.y.step + ty * item.y.tap_step + item.y.origin
                    sx = x * item.x.step + tx * item.x.tap_step + item.x.origin
                    if 0 <= sy < item.y.size and 0 <= sx < item.x.size:
                        out[:, y, x, ty, tx] = source[:, sy, sx]
    return out.reshape(b * item.y.out * item.x.out, -1)


@pytest.mark.parametrize(("kernel", "stride", "pad", "size"), CASES)
def test_the_three_products_of_a_convolution(kernel, stride, pad, size):
    layer = Layer(name="a", op="conv2d", ic=3, oc=4, kh=kernel, kw=kernel, h=size, w=size, stride=stride, pad=pad)
    rng, batch = np.random.default_rng(7), 2
    x, w = rng.normal(size=(batch, size, size, 3)), rng.normal(size=(4, kernel, kernel, 3))
    dy = rng.normal(size=(batch, layer.oh, layer.ow, 4))
    (ff,) = forward_products(layer, batch, DENSE, 32)
    columns = gather(x, ff)
    y = conv(layer, x, w)
    assert columns.shape == (ff.m, ff.k)
    assert np.allclose((columns @ w.reshape(4, -1).T).reshape(y.shape), y)
    (wu,) = update_products(layer, batch, 32)
    assert (wu.m, wu.n, wu.k) == (kernel * kernel * 3, 4, batch * layer.oh * layer.ow)
    dw = columns.T @ dy.reshape(-1, 4)
    # the gradient by definition: <dy, conv(x, w)> is bilinear, so <dw, w> == <dy, y> and <dx, x> == <dy, y>
    assert np.isclose(np.sum(dw * w.reshape(4, -1).T), np.sum(dy * y))
    dx = np.full((batch, size, size, 3), 0.0)
    written = np.zeros((size, size), int)
    for item in backward_products(layer, batch, DENSE, 32, gradient_sparse=False):
        stored_y = [item.y.first_tap + t * item.y.tap_stride for t in range(item.y.taps)]
        stored_x = [item.x.first_tap + t * item.x.tap_stride for t in range(item.x.taps)]
        taps = w[:, stored_y][:, :, stored_x]  # O, ty, tx, I
        b_operand = taps.transpose(1, 2, 0, 3).reshape(item.k, item.n)
        part = (gather(dy, item) @ b_operand).reshape(batch, item.y.out, item.x.out, 3)
        rows = slice(item.y.target_first, None, item.y.target_step)
        cols = slice(item.x.target_first, None, item.x.target_step)
        dx[:, rows, cols] = part
        written[rows, cols] += 1
    assert written.max() == 1
    expected = np.zeros_like(dx)
    for o in range(3):  # dX by definition: the derivative along every input
        unit = np.zeros((1, size, size, 3))
        for i in range(size):
            for j in range(size):
                unit[:] = 0
                unit[0, i, j, o] = 1
                response = conv(layer, unit, w)[0]
                expected[:, i, j, o] = np.einsum("byxo,yxo->b", dy, response)
    assert np.allclose(dx, expected)


@pytest.mark.parametrize(
    ("method", "sparse"), [("dense", ""), ("sr-ste", "f"), ("sdgp", "b"), ("sdwp", "b"), ("bdwp", "fb")]
)
def test_sparse_stages(method, sparse):
    layer, pattern = Layer(name="a", op="linear", ic=16, oc=32), Sparsity(2, 8)
    got = [stage_pattern(layer, stage, METHODS[method], pattern) != DENSE for stage in Stage]
    assert got == ["f" in sparse, "b" in sparse, False]


@pytest.mark.parametrize(("ic", "oc", "prune"), [(8, 12, True), (12, 8, True), (8, 8, False)])
def test_layers_that_stay_dense(ic, oc, prune):
    layer = Layer(name="a", op="linear", ic=ic, oc=oc, prune=prune)
    assert stage_pattern(layer, Stage.FF, METHODS["bdwp"], Sparsity(2, 8)) == DENSE


def test_forward_macs_are_conserved():
    for name in Workload.names():
        for layer in Workload.load(name).layers:
            if layer.is_product:
                products = forward_products(layer, 3, DENSE, 32)
                assert sum(item.macs for item in products) == 3 * layer.macs, f"{name} {layer.name}"


def test_attention_gradients():
    layer = Layer(name="a", op="attention", heads=2, head_dim=16, tokens=5)
    for products in (
        backward_products(layer, 3, DENSE, 32, gradient_sparse=False),
        update_products(layer, 3, 32),
    ):
        assert [(p.m, p.n, p.k, p.count) for p in products] in (
            [(5, 5, 16, 6), (5, 16, 5, 6)],
            [(5, 16, 5, 6)] * 2,
        )


def test_first_layer_has_no_input_gradient():
    net = Workload.load("resnet18")
    assert [layer.name for layer in net.layers if layer.is_product and not net.input_gradient(layer)] == ["conv1"]
    assert Workload.load("bert_base").input_gradient(Workload.load("bert_base").layers[0])


def test_elementwise_layers_follow_their_product():
    groups = groups_after(Workload.load("llama_7b_block"))
    assert groups[0][0] is None
    assert [x.function for x in groups[0][1]] == ["rmsnorm"]
    assert sum(1 + len(after) for _, after in groups) == 1 + len(Workload.load("llama_7b_block").layers)
