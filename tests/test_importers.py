"""Networks of other tools: the fixtures are PyTorch's own exports (tests/fixtures/make_networks.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from nmsat.__main__ import main
from nmsat.models import Accelerator, NmsatError, Sparsity, Workload
from nmsat.models.importers import detect, import_network
from nmsat.models.importers.detector import _counts
from nmsat.models.sparsity import GROUP_SIZES
from nmsat.models.workload_file import group_counts, load_workload
from nmsat.simulator import simulate

FIXTURES = Path(__file__).parent / "fixtures"
CNN = {  # layer: (op, OHWI, pattern)
    "stem": ("conv2d", (16, 3, 3, 3), "dense"),
    "down": ("conv2d", (32, 3, 3, 16), "2:4"),
    "depth": ("depthwise", (32, 3, 3, 1), "dense"),
    "point": ("conv2d", (32, 1, 1, 32), "2:4"),
    "grouped": ("conv2d", (16, 3, 3, 16), "4:16"),
    "fc": ("linear", (10, 1, 1, 16), "dense"),
}
BLOCK = {
    "embed": ("linear", (32, 1, 1, 12), "dense"),
    "qkv": ("linear", (96, 1, 1, 32), "4:16"),
    "proj": ("linear", (32, 1, 1, 32), "4:16"),
    "fc1": ("linear", (64, 1, 1, 32), "4:16"),
    "fc2": ("linear", (32, 1, 1, 64), "4:16"),
    "head": ("linear", (4, 1, 1, 32), "dense"),
}
MLP = {
    "0": ("linear", (64, 1, 1, 64), "2:8"),
    "2": ("linear", (64, 1, 1, 64), "2:8"),
    "4": ("linear", (10, 1, 1, 64), "dense"),
}
WAVE = {
    "stem": ("conv2d", (16, 1, 7, 2), "dense"),
    "wide": ("conv2d", (32, 1, 4, 16), "2:4"),
    "depth": ("depthwise", (32, 1, 3, 1), "dense"),
    "far": ("conv2d", (16, 1, 3, 32), "2:4"),
    "fc": ("linear", (8, 1, 1, 16), "dense"),
}
NETWORKS = {
    "cnn24_legacy.onnx": CNN,
    "cnn24_dynamo.onnx": CNN,
    "cnn24_bn.onnx": CNN,
    "block416_legacy.onnx": BLOCK,
    "block416_dynamo.onnx": BLOCK,
    "block416_attention.onnx": BLOCK,
    "mlp28_dynamo.onnx": MLP,
    "cnn24.pt2": CNN,
    "cnn24_core.pt2": CNN,
    "block416.pt2": BLOCK,
    "block416_core.pt2": BLOCK,
    "mlp28.pt2": MLP,
    "wave24.pt2": WAVE,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_shapes_and_patterns_of_real_exports(name):
    """Both exporters, BN folded and not: the same names, OHWI shapes and patterns, whatever the file calls its weights."""
    found = import_network(FIXTURES / name, batch=4)
    assert {row["layer"]: (row["op"], tuple(row["shape"]), row["pattern"]) for row in found.layers} == NETWORKS[name]
    for row in found.layers:
        if row["pattern"] != "dense":
            assert row["axis"] == "in"
            assert row["runs"]["ff"] == row["pattern"]
            assert row["density"] == Sparsity.parse(row["pattern"]).density
        assert row["violations"] == 0


def functions(workload: Workload) -> list[str]:
    return [layer.function or layer.op for layer in workload.layers]


CNN_TAIL = ["conv2d", "silu", "conv2d", "add", "conv2d", "avgpool", "linear"]
BLOCK_OPS = [
    *("linear", "layernorm", "linear", "attention", "linear", "add"),
    *("linear", "gelu", "linear", "add", "avgpool", "linear"),
]


@pytest.mark.parametrize("name", ["cnn24_legacy.onnx", "cnn24_dynamo.onnx"])
def test_what_lies_between_the_products(name):
    workload = import_network(FIXTURES / name).network.workload
    assert functions(workload) == ["conv2d", "relu", "maxpool", "conv2d", "relu", "depthwise", *CNN_TAIL[1:]]
    down = next(layer for layer in workload.layers if layer.name == "down")
    assert (down.h, down.w, down.stride, down.pad, down.oh) == (8, 8, 2, 1, 4)
    add = next(layer for layer in workload.layers if layer.function == "add")
    relu = workload.layers[4].name
    assert set(add.inputs or ()) == {relu, "point"}


def test_batch_normalisation_is_kept_where_the_file_keeps_it():
    kept = import_network(FIXTURES / "cnn24_bn.onnx").network.workload
    assert functions(kept).count("batchnorm") == 4
    folded = import_network(FIXTURES / "cnn24_legacy.onnx").network.workload
    assert functions(folded).count("batchnorm") == 0


def test_folding_keeps_the_forward_mask_and_changes_the_weights():
    folded, kept = (import_network(FIXTURES / f"cnn24_{x}.onnx").network for x in ("legacy", "bn"))
    for name in ("down", "point"):
        assert not np.array_equal(folded.weights[name], kept.weights[name])
        np.testing.assert_array_equal(folded.mask(name, "ff"), kept.mask(name, "ff"))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("block416")])
def test_attention_is_found(name):
    """Written out by either exporter, as ONNX's Attention node (opset 23), as ATen's one operator or decomposed."""
    workload = import_network(FIXTURES / name).network.workload
    assert functions(workload) == BLOCK_OPS
    attention = workload.layers[3]
    assert (attention.heads, attention.head_dim, attention.tokens) == (2, 16, 9)


# --- archives of torch.export -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archive", "other"),
    [
        ("cnn24.pt2", "cnn24_bn.onnx"),
        ("cnn24_core.pt2", "cnn24_bn.onnx"),
        ("block416.pt2", "block416_dynamo.onnx"),
        ("block416_core.pt2", "block416_dynamo.onnx"),
        ("mlp28.pt2", "mlp28_dynamo.onnx"),
    ],
)
def test_an_archive_holds_what_onnx_holds(archive, other):
    """The same weights to the bit, masks, shapes and cycles as the ONNX file of the same model, BN not folded."""
    found, expected = (import_network(FIXTURES / name, batch=4) for name in (archive, other))
    assert functions(found.network.workload) == functions(expected.network.workload)
    assert found.network.weights.keys() == expected.network.weights.keys()
    for name, weights in expected.network.weights.items():
        np.testing.assert_array_equal(found.network.weights[name], weights)
    sat = Accelerator.load("sat_8x8")
    cycles = [simulate(x.without_batch(), sat, batch=4).totals["cycles"] for x in (found, expected)]
    assert cycles[0] == cycles[1]


def test_an_archive_needs_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["export", str(FIXTURES / "mlp28.pt2"), "-o", str(tmp_path / "w.yaml"), "-q"]) == 0
    found = load_workload(tmp_path / "w.yaml")
    assert found.workload.source is not None
    assert found.workload.source.tool == "torch.export 2.13.0+cpu"
    assert main(["run", str(FIXTURES / "cnn24.pt2"), "-a", "sat_8x8", "--batch", "4", "-q"]) == 0


@pytest.mark.parametrize("name", ["wave24.pt2", "wave24_dynamo.onnx", "wave24_legacy.onnx"])
def test_one_dimensional_convolutions(name):
    """Height 1; what has no symmetric padding becomes the input length that gives the same output."""
    found = import_network(FIXTURES / name, batch=3)
    layers = {layer.name: layer for layer in found.network.workload.layers}
    seen = {n: (layers[n].w, layers[n].kw, layers[n].stride, layers[n].ow) for n in ("stem", "wide", "depth", "far")}
    assert seen == {"stem": (69, 7, 2, 32), "wide": (19, 4, 1, 16), "depth": (18, 3, 1, 16), "far": (14, 3, 1, 12)}
    assert all((layer.h, layer.kh, layer.oh) == (1, 1, 1) for n, layer in layers.items() if n in seen)
    assert layers["depth"].groups == 32
    pool = next(layer for layer in layers.values() if layer.function == "maxpool")
    assert (pool.kh, pool.kw, pool.stride, pool.w) == (1, 2, 2, 32)
    rows = {row["layer"]: row["pattern"] for row in found.layers}
    assert (rows["wide"], rows["far"]) == ("2:4", "2:4")
    attention = next(layer for layer in layers.values() if layer.op == "attention")
    assert (attention.heads, attention.head_dim, attention.tokens) == (1, 16, 12)
    last = [layer for layer in layers.values() if layer.op == "linear"]
    assert [(layer.ic, layer.oc, layer.tokens) for layer in last] == [(16, 8, 12)]
    assert simulate(found.without_batch(), Accelerator.load("sat_4x4"), batch=3).totals["macs"] > 0


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_dequantised_weights(axis, tmp_path):
    """int8 weights with a scale for all, or one an output or input channel, and a zero point: zeros stay zeros."""
    rng = np.random.default_rng(3)
    held = rng.integers(-127, 128, (16, 32)).astype(np.int8)
    held[held == 0] = 1
    held.reshape(-1, 4)[:, 2:] = 0
    scale = np.float32(0.25) if axis is None else rng.uniform(0.1, 1, held.shape[axis]).astype(np.float32)
    zero = np.zeros_like(scale, dtype=np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], **({} if axis is None else {"axis": axis})),
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, name="fc"),
    ]
    constants = {"q": held, "s": np.asarray(scale), "z": np.asarray(zero)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (tmp_path / "q.onnx").write_bytes(model.SerializeToString())
    found = import_network(tmp_path / "q.onnx")
    (row,) = found.layers
    assert (row["shape"], row["pattern"], row["axis"]) == ([16, 1, 1, 32], "2:4", "in")
    wide = scale if axis is None else scale.reshape((-1, 1) if axis == 0 else (1, -1))
    (weights,) = found.network.weights.values()
    np.testing.assert_array_equal(weights[:, 0, 0], held.astype(np.float32) * wide)


def test_zeros_per_block_counts_removed_weights():
    """torch.ao.pruning's zeros_per_block=6 of 8 is our 2:8."""
    rows = {row["layer"]: row for row in import_network(FIXTURES / "mlp28_dynamo.onnx").layers}
    assert (rows["0"]["pattern"], rows["0"]["density"]) == ("2:8", 0.25)
    assert rows["0"]["axes"]["in"]["short_groups"] == 0


def test_oihw_is_not_ohwi():
    """A 2:4 along OIHW's flat order, kernel taps first, is no 2:4 along input channels."""
    rng = np.random.default_rng(1)
    flat = rng.normal(size=(32, 16 * 9)).astype(np.float32)
    np.put_along_axis(flat.reshape(-1, 4), rng.random((32 * 36, 4)).argsort(axis=1)[:, :2], 0, axis=1)
    assert detect(flat.reshape(32, 3, 3, 16)).ff.intended == Sparsity(2, 4)
    assert detect(np.ascontiguousarray(flat.reshape(32, 16, 3, 3).transpose(0, 2, 3, 1))).ff.intended != Sparsity(2, 4)


@pytest.mark.parametrize("batch", [1, 7])
def test_real_masks_drive_the_simulation(batch, tmp_path):
    """A 2:8 network costs what the method's own 2:8 costs forward, directly and through its file."""
    network = FIXTURES / "mlp28_dynamo.onnx"
    assert main(["export", str(network), "-o", str(tmp_path / "w.yaml"), "--batch", str(batch), "-q"]) == 0
    sat = Accelerator.load("sat")
    found = [simulate(Workload.load(path), sat, batch=batch, mode="infer") for path in (network, tmp_path / "w.yaml")]
    assert found[0].totals["cycles"] == found[1].totals["cycles"]
    rows = {row["layer"]: row["sparsity"] for row in found[0].layers if row["stage"] == "ff"}
    assert rows == {"0": "2:8", "2": "2:8", "4": "dense"}
    dense = simulate(Workload.load(network), sat, method="dense", batch=batch, mode="infer")
    assert dense.totals["useful_macs"] > found[0].totals["useful_macs"]


def test_an_unpruned_network_is_left_to_the_run(tmp_path):
    """Without a zero anywhere the run's method and pattern apply, as to a network of the zoo."""
    (tmp_path / "net.yaml").write_text(
        "format: nmsat-workload/1\nname: n\nlayers:\n"
        "- {name: a, op: linear, ic: 32, oc: 32}\n- {name: b, op: linear, ic: 32, oc: 32}\n- {name: c, op: linear, ic: 32, oc: 8}\n"
    )
    weights = {f"{x}.weight": np.ones((32 if x != "c" else 8, 32), np.float32) for x in "abc"}
    np.savez(tmp_path / "net.npz", **weights)
    found = import_network(tmp_path / "net.npz")
    assert all(row["runs"] == {} for row in found.layers)
    rows = simulate(Workload.load(tmp_path / "net.npz"), Accelerator.load("sat"), sparsity="2:4", batch=4).layers
    assert {row["sparsity"] for row in rows if (row["layer"], row["stage"]) == ("b", "ff")} == {"2:4"}


def test_what_breaks_a_pattern_is_listed_and_runs_at_the_tightest_legal_one(tmp_path, capsys):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(64, 64)).astype(np.float32)
    weight.reshape(-1, 8)[:, 2:] = 0
    weight[3, 8:11] = 1
    weight[9, 16:21] = 1
    (tmp_path / "net.yaml").write_text(
        "format: nmsat-workload/1\nname: n\nlayers:\n- {name: a, op: linear, ic: 64, oc: 64}\n"
    )
    np.savez(tmp_path / "net.npz", a=weight)
    out = tmp_path / "w.yaml"
    assert main(["export", str(tmp_path / "net.npz"), "-o", str(out), "--json", "-"]) == 0
    row = json.loads(capsys.readouterr().out)["layers"][0]
    assert (row["pattern"], row["axis"], row["violations"]) == ("2:8", "in", 2)
    assert row["first_violations"] == [[3, 0, 0, 8], [9, 0, 0, 16]]
    assert row["runs"]["ff"] == row["axes"]["in"]["legal"] == "11:32"  # 5 + 2 + 2 + 2
    most = (weight.reshape(-1, 32) != 0).sum(axis=1).max()
    assert Sparsity.parse(row["runs"]["ff"]).keep == most
    workload = load_workload(out).workload
    assert any("2 of 512 groups break 2:8 along in" in note for note in workload.notes)
    assert main(["run", str(out)]) == 0
    assert "a: 2 of 512 groups break 2:8 along in" in capsys.readouterr().out


def test_a_layer_held_to_a_pattern_it_does_not_have_runs_dense(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "net.yaml").write_text(
        "format: nmsat-workload/1\nname: n\nlayers:\n- {name: a, op: linear, ic: 64, oc: 64}\n"
    )
    np.savez(tmp_path / "net.npz", a=rng.normal(size=(64, 64)).astype(np.float32))
    row = import_network(tmp_path / "net.npz", pattern="2:8").layers[0]
    assert (row["kind"], row["violations"], row["runs"]["ff"]) == ("dense", 512, "dense")


def made(kind: str, oc: int = 64, ic: int = 64, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(oc, 3, 3, ic)).astype(np.float32)
    if kind == "outputs":
        found[::2] = 0
    elif kind == "inputs":
        found[..., 5:50] = 0
    elif kind.startswith("block"):
        size = int(kind[5:])
        found *= np.repeat(rng.random((oc // size, 3, 3, ic)) < 0.3, size, axis=0)
    elif kind == "unstructured":
        found *= rng.random(found.shape) < 0.1
    return found


@pytest.mark.parametrize(
    ("kind", "expected", "block"),
    [
        ("dense", "dense", 1),
        ("outputs", "channels", 1),
        ("inputs", "channels", 4),
        ("block2", "block", 2),
        ("block4", "block", 4),
        ("unstructured", "unstructured", 1),
    ],
)
def test_other_structures(kind, expected, block):
    found = detect(made(kind))
    assert (found.kind, found.block) == (expected, block)


@pytest.mark.parametrize("axis", ["in", "out"])
@pytest.mark.parametrize("group", [2, 4, 8, 16, 32])
def test_every_pattern_is_found_on_its_axis(group, axis):
    """N of every M kept: N:M is found, not 2N:2M; the other axis has another pattern or none."""
    rng = np.random.default_rng(group)
    for keep in {1, group // 2, group - 1}:
        order = rng.random((32, 2, 3, 64 // group, group)).argsort(axis=-1)
        mask = (order < keep).reshape(32, 2, 3, 64)
        weights = mask if axis == "in" else np.ascontiguousarray(mask.transpose(3, 1, 2, 0))
        found = detect(weights)
        along = found.ff if axis == "in" else found.bp
        assert (along.intended, along.legal, along.violations, along.short_groups) == (Sparsity(keep, group),) * 2 + (
            0,
            0,
        )
        assert found.kind == "N:M"


def test_fewer_than_n_are_allowed_and_counted():
    weights = np.zeros((8, 1, 1, 64), np.float32)
    weights.reshape(-1, 8)[:, :2] = 1
    weights.reshape(-1, 8)[5:12, 1] = 0
    found = detect(weights).ff
    assert (found.intended, found.short_groups, found.violations) == (Sparsity(2, 8), 7, 0)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 1, 1, 2), (3, 1, 1, 7), (33, 1, 1, 31), (32, 1, 1, 1), (2, 3, 3, 64)]
)
def test_odd_shapes_and_empty_weights(shape):
    assert detect(np.ones(shape, np.float32)).kind == "dense"
    empty = detect(np.zeros(shape, np.float32))
    assert (empty.kind, empty.density) == ("channels", 0)
    with pytest.raises(NmsatError, match="detector"):
        detect(np.zeros((0, 1, 1, 4)))


def test_out_groups_stay_inside_a_convolution_group():
    """16 output channels in 4 groups of 4: no pattern of 8 along out."""
    weights = np.zeros((16, 1, 1, 4), np.float32)
    weights[::8] = 1
    assert detect(weights, groups=4).bp.legal.group <= 4


def test_short_groups_cost_their_slots_and_are_not_useful(tmp_path):
    """Half of a 2:8's values gone: the cycles of 2:8, half its useful multiplies."""
    text = "format: nmsat-workload/1\nname: n\nlayers:\n- {name: a, op: linear, ic: 64, oc: 64}\n"
    (tmp_path / "net.yaml").write_text(text)
    weight = np.zeros((64, 64), np.float32)
    weight.reshape(-1, 8)[:, :2] = 1
    np.savez(tmp_path / "net.npz", a=weight)
    full = simulate(Workload.load(tmp_path / "net.npz"), Accelerator.load("sat"), batch=64, mode="infer")
    weight[:32] = 0
    np.savez(tmp_path / "net.npz", a=weight)
    half = simulate(Workload.load(tmp_path / "net.npz"), Accelerator.load("sat"), batch=64, mode="infer")
    assert half.totals["cycles"] == full.totals["cycles"]
    assert (full.totals["useful_macs"], half.totals["useful_macs"]) == (64**3 // 4, 64**3 // 8)
    assert [row["density"] for row in half.layers] == [0.125]
    assert half.totals["utilization"] == pytest.approx(full.totals["utilization"] / 2)
    half.to_csv()


@pytest.mark.parametrize("axis", ["in", "out"])
@pytest.mark.parametrize("shape", [(32, 3, 3, 64), (12, 1, 1, 6), (8, 1, 2, 4), (5, 1, 1, 7)])
def test_counts_of_all_groups_follow_from_those_of_two(axis, shape):
    mask = np.random.default_rng(1).random(shape) < 0.4
    length = shape[3] if axis == "in" else shape[0]
    found = _counts(mask, axis, length)
    assert list(found) == [group for group in GROUP_SIZES if length % group == 0]
    for group, counts in found.items():
        np.testing.assert_array_equal(counts, group_counts(mask, axis, group))
