"""Whole networks in one wasm module equal the NumPy model bit for bit; weights of workload files become kernels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.dataflow.kernels import wat_layers
from nmsat.dataflow.kernels.from_workload import kernel_for, matrices
from nmsat.dataflow.kernels.network import build, choose, lower, sample_parameters
from nmsat.models import Layer, Workload
from nmsat.models.errors import NmsatError
from nmsat.models.workload_file import WorkloadFile
from nmsat.simulator.kernels import network_values as networks
from nmsat.simulator.kernels.network_values import activation, pool, reference, run


def elementwise(name: str, function: str, oc: int, size: int, **more) -> Layer:
    return Layer(name=name, op="elementwise", function=function, oc=oc, h=size, w=size, **more)


def small(act: str = "silu", size: int = 13, k: int = 3, stride: int = 2) -> Workload:
    """Every kind of layer: convolution, depthwise, squeeze-and-excite, residual add, pool, classifier."""
    half = (size + 1) // 2
    low = (half + 2 * (k // 2) - k) // stride + 1
    return Workload(
        name="small",
        layers=(
            Layer(name="conv", op="conv2d", ic=3, oc=20, kh=3, kw=3, h=size, w=size, stride=2, pad=1, prune=False),
            elementwise("conv.bn", "batchnorm", 20, half),
            elementwise("conv.act", act, 20, half),
            Layer(
                name="dw",
                op="depthwise",
                ic=20,
                oc=20,
                groups=20,
                kh=k,
                kw=k,
                h=half,
                w=half,
                stride=stride,
                pad=k // 2,
            ),
            elementwise("dw.act", act, 20, low),
            elementwise("pool", "avgpool", 20, low, kh=low, kw=low, stride=low),
            Layer(name="reduce", op="linear", ic=20, oc=6, prune=False),
            elementwise("reduce.act", act, 6, 1),
            Layer(name="expand", op="linear", ic=6, oc=20, prune=False),
            elementwise("gate", "sigmoid", 20, 1),
            elementwise("se", "scale", 20, low, inputs=["gate", "dw.act"]),
            Layer(name="pw", op="conv2d", ic=20, oc=20, h=low, w=low),
            elementwise("pw.bn", "batchnorm", 20, low),
            elementwise("add", "add", 20, low, inputs=["pw.bn", "dw.act"]),
            elementwise("last", "avgpool", 20, low, kh=low, kw=low, stride=low),
            Layer(name="fc", op="linear", ic=20, oc=10, prune=False),
            elementwise("loss", "cross_entropy", 10, 1),
        ),
    )


def lowered(workload: Workload, arithmetic="mul_add", sparsity: float = 0.6):
    return lower(workload, *sample_parameters(workload, sparsity), arithmetic)


def picture(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "efficientnet_b0"])
def test_whole_networks_equal_the_reference(name):
    """Full size, plain SIMD; every tensor, not the logits alone."""
    outcome = run(lowered(Workload.load(name), sparsity=0.9), picture(224), rounds=1)
    assert outcome.values > 5_000_000
    assert outcome.bits_differing == 0
    assert outcome.guards_intact


@pytest.mark.parametrize("arithmetic", ["mul_add", "fma"])
@pytest.mark.parametrize("act", ["relu", "silu"])
@pytest.mark.parametrize(
    ("size", "k", "stride"), [(13, 3, 1), (13, 5, 1), (15, 3, 2), (16, 5, 2), (31, 3, 1), (32, 5, 2)]
)
def test_small_networks_equal_the_reference(arithmetic, act, size, k, stride):
    assert run(lowered(small(act, size, k, stride), arithmetic), picture(size), rounds=1).ok


@pytest.mark.parametrize("arithmetic", ["mul_add", "fma"])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_few_columns_take_slices(arithmetic, zeros):
    weights = np.where(np.random.default_rng(0).random((8, 64)) < zeros, 0, 1).astype(np.float32)
    chosen = [choose(weights, m, arithmetic) for m in (1, 2, 3, 4, 49)]
    assert [kernel.index == "sliced" for kernel in chosen] == [True, True, True, False, False]
    assert {kernel.arithmetic for kernel in chosen} == {arithmetic}


def test_the_classifier_of_a_network_runs_slices():
    network = lowered(small(), "fma")
    products = {step.name: step for step in network.steps if step.packed is not None}
    assert {name: step.packed.kernel.index == "sliced" for name, step in products.items()} == {
        "reduce": True, "expand": True, "pw": False, "fc": True
    }  # fmt: skip


def test_node_runs_the_same_module():
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed; install it with: apt-get install nodejs (20 or newer)")
    assert run(lowered(small(), "fma"), picture(13), "node", rounds=1).ok


def test_the_reference_is_the_definition():
    """Against a float64 model written from the definitions; sums of at most 30 terms, values near 1."""
    workload, image = small("silu", 15, 5, 2), picture(15)
    weights, biases = sample_parameters(workload, 0.6)
    found = reference(lower(workload, weights, biases), image)

    def conv(x, name, stride, depthwise):
        w, b = weights[name].astype(float), biases[name].astype(float)
        pad = w.shape[1] // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        size = (x.shape[1] - w.shape[1]) // stride + 1
        y = np.empty((len(w), size, size))
        for c, i, j in np.ndindex(y.shape):
            part = x[:, i * stride : i * stride + w.shape[1], j * stride : j * stride + w.shape[2]]
            part = part[c : c + 1] if depthwise else part
            y[c, i, j] = (part * w[c].transpose(2, 0, 1)).sum() + b[c]
        return y

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def linear(x, name):
        return weights[name].reshape(len(biases[name]), -1).astype(float) @ x + biases[name]

    x = conv(image.transpose(2, 0, 1).astype(float), "conv", 2, False)
    x = x * sigmoid(x)
    x = conv(x, "dw", 2, True)
    x = x * sigmoid(x)
    r = linear(x.mean(axis=(1, 2)), "reduce")
    gate = sigmoid(linear(r * sigmoid(r), "expand"))
    y = weights["pw"].reshape(20, 20).astype(float) @ (gate[:, None, None] * x).reshape(20, -1) + biases["pw"][:, None]
    y = (y + x.reshape(20, -1)).mean(axis=1)
    np.testing.assert_allclose(found["fc"].reshape(-1), linear(y, "fc"), atol=1e-5, rtol=1e-5)


def test_activations_are_accurate():
    """The polynomial is good to a few units in the last place where float64 is the truth."""
    x = np.linspace(-80, 80, 100_001).astype(np.float32)
    truth = 1 / (1 + np.exp(-x.astype(float)))
    np.testing.assert_allclose(activation("sigmoid", x), truth, rtol=1e-6)
    np.testing.assert_allclose(activation("silu", x), x * truth, rtol=1e-6)


@pytest.mark.parametrize("positions", [1, 2, 3, 4, 5, 49, 196])
def test_pool_is_a_mean(positions):
    x = np.random.default_rng(positions).normal(size=(5, positions)).astype(np.float32)
    np.testing.assert_allclose(pool(x), x.mean(axis=1, dtype=float), rtol=1e-5, atol=1e-6)


def test_a_planted_fault_is_seen(monkeypatch):
    """The generated code with another constant differs from the model, and only there."""
    right = wat_layers.pool
    monkeypatch.setattr(wat_layers, "pool", lambda *a: right(*a).replace("f32.mul", "f32.add"))
    outcome = run(lowered(small()), picture(13), rounds=1)
    assert not outcome.ok
    assert outcome.bits_differing > 0
    assert outcome.guards_intact


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((13, 13, 4), np.float32), r"^network: image: must be float32 of shape \(13, 13, 3\)"),
        (np.zeros((13, 13, 3)), r"^network: image: must be float32 of shape \(13, 13, 3\), not 'float64"),
        (np.full((13, 13, 3), np.nan, np.float32), r"^network: image: must be free of NaN"),
    ],
)
def test_images_are_checked(image, message):
    with pytest.raises(NmsatError, match=message):
        run(lowered(small()), image)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("network vit", "must be a"),
        ("network resnet18", "must be"),
        ("network mobilenet_v1 --sparsity 1", "nmsat: sparsity: must be from 0 to below 1, not 1.0"),
        ("network mobilenet_v1 --seed -1", "nmsat: --seed: must be 0 or more, not -1"),
        ("network nothing", "must be"),
        ("pack nothing.yaml", "nothing.yaml"),
    ],
)
def test_bad_input_is_one_line(command, message, capsys):
    assert main(["kernel", *command.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def pruned_file(tmp_path) -> tuple[str, Workload, dict[str, np.ndarray]]:
    """small() with 4-row blocks in "pw", a 2:4 mask over a dense master in "fc", single weights dropped elsewhere."""
    workload, rng, kept = small("relu"), np.random.default_rng(3), {}
    for layer in workload.layers:
        if layer.has_weights:
            shape = (layer.oc, layer.kh, layer.kw, layer.ic // layer.groups)
            kept[layer.name] = rng.normal(size=shape).astype(np.float32) * (rng.random(shape) < 0.4)
    kept["pw"] = rng.normal(size=(20, 1, 1, 20)) * np.repeat(rng.random((5, 1, 1, 20)) < 0.3, 4, axis=0)
    kept = {name: w.astype(np.float32) for name, w in kept.items()}
    master = rng.normal(size=(10, 1, 1, 20)).astype(np.float32)
    mask = (rng.random((10, 5, 4)).argsort(axis=2).argsort(axis=2) < 2).reshape(master.shape)
    file = WorkloadFile.build(
        workload,
        batch=1,
        mode="infer",
        weights=kept | {"fc": master},
        masks={("fc", "ff"): mask},
        patterns={("fc", "ff"): "2:4"},
    )
    file.save(tmp_path / "net.yaml")
    return str(tmp_path / "net.yaml"), workload, kept | {"fc": np.where(mask, master, np.float32(0))}


def test_pack_reads_any_masked_workload(tmp_path, capsys):
    path, _, kept = pruned_file(tmp_path)
    assert main(["kernel", "pack", path, "--json", "-"]) == 0
    rows = {row["layer"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"reduce", "expand", "pw", "fc"}
    assert rows["pw"]["kernel"].startswith("4x4-")
    assert rows["fc"]["kernel"].startswith("28x1-")
    for name, row in rows.items():
        assert row["nonzeros"] == np.count_nonzero(kept[name]), name
    assert rows["pw"]["footprint_bytes"] < 0.6 * rows["pw"]["dense_bytes"]
    assert main(["kernel", "pack", path]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_workload_file_runs_whole(tmp_path, capsys):
    path, workload, kept = pruned_file(tmp_path)
    assert main(["kernel", "network", path, "--json", "-", "--rounds", "1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bits_differing"] == 0
    assert facts["steps"] == len(lowered(workload).steps)
    file = WorkloadFile.load(path)
    for name, matrix in matrices(file).items():
        assert np.array_equal(matrix, kept[name].reshape(matrix.shape))
        assert kernel_for(matrix).nr == (4 if name == "pw" else 1)


def test_weights_are_needed(tmp_path):
    with pytest.raises(NmsatError, match=r"^small: reduce.weights: must be in the file, not None; export it"):
        matrices(WorkloadFile(small(), {}, {}))


def test_network_modules_share_no_tensor():
    """Every tensor has a buffer of its own but activations, which work in place."""
    network = lowered(small())
    _, addresses = build(network)
    in_place = {step.name for step in network.steps if step.kind in ("silu", "sigmoid")}
    kept = [address for name, address in addresses.items() if name not in in_place]
    assert len(set(kept)) == len(kept)
    assert networks.padded_input(network, picture(13)).shape == network.input_shape == (15, 15, 3)
