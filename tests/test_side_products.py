"""Side products and activation densities: expansion, values by their formula, files, refusals, what the simulation says."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from nmsat.dataflow import compile_program
from nmsat.models import Accelerator, InputFileError, Layer, NmsatError, Sparsity, Workload
from nmsat.models.golden import nm_mask
from nmsat.models.importers import import_network
from nmsat.models.side_products import SideProduct
from nmsat.models.training import Stack
from nmsat.models.training.export import workload_file
from nmsat.models.training.trainer import Settings, shaped, train
from nmsat.models.workload_file import load_workload, save_workload
from nmsat.simulator import execute, load_tensors, load_weights, new_image, read_tensor, simulate

ACCELERATOR = Accelerator.load("sat_4x4")
LOW_RANK = SideProduct(kind="low-rank", rank=2)
INNER = SideProduct(kind="block-diagonal", blocks=4, side="in")
OUTER = SideProduct(kind="block-diagonal", blocks=2, side="out")


def linear(*extra, **more) -> Workload:
    first = Layer(name="first", op="linear", ic=8, oc=16)
    return Workload(name="net", layers=(first, Layer(name="fc", op="linear", ic=16, oc=8, extra=extra, **more)))


def test_expansion_names_shapes_and_edges():
    after = Layer(name="after", op="linear", ic=8, oc=8)
    add = Layer(name="add", op="elementwise", function="add", oc=8, inputs=("after", "fc"))
    net = Workload(name="net", layers=(*linear(LOW_RANK, INNER, OUTER).layers, after, add))
    found = {x.name: (x.op, x.ic, x.oc, x.groups, x.inputs) for x in net.expanded().layers}
    assert found == {
        "first": ("linear", 8, 16, 1, ()),
        "fc.in": ("conv2d", 16, 16, 4, ("first",)),
        "fc": ("linear", 16, 8, 1, ("fc.in",)),
        "fc.out": ("conv2d", 8, 8, 2, ("fc",)),
        "fc.down": ("linear", 16, 2, 1, ("first",)),
        "fc.up": ("linear", 2, 8, 1, ("fc.down",)),
        "fc.sum": ("elementwise", 1, 8, 1, ("fc.up", "fc.out")),
        "after": ("linear", 8, 8, 1, ("fc.sum",)),
        "add": ("elementwise", 1, 8, 1, ("after", "fc.sum")),
    }
    assert net.macs == net.expanded().macs == 128 + 16 * 4 + 128 + 8 * 4 + 32 + 16 + 64
    plain = linear()
    assert plain.expanded() is plain


def test_a_first_layer_hands_back_no_gradient_but_takes_those_of_its_terms():
    net = Workload(name="net", layers=(Layer(name="a", op="linear", ic=8, oc=8, extra=(INNER, LOW_RANK)),)).expanded()
    assert {x.name: net.input_gradient(x) for x in net.layers if x.is_product} == {
        "a.in": False, "a": True, "a.down": False, "a.up": True,
    }  # fmt: skip


def blocks(weights: np.ndarray) -> np.ndarray:
    """(C, 1, 1, C / b) weights of a grouped 1x1 convolution as one (C, C) matrix."""
    channels, size = weights.shape[0], weights.shape[3]
    found = np.zeros((channels, channels))
    for row in range(channels):
        first = row // size * size
        found[row, first : first + size] = weights[row, 0, 0]
    return found


def integers(layer: Layer, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-1, 2, layer.weight_shape).astype(np.float32)


def test_values_are_those_of_the_formula():
    """y = A (W (B x)) + U (D x) on small integers, for which every sum is exact."""
    net, rng = linear(LOW_RANK, INNER, OUTER, tokens=1), np.random.default_rng(1)
    weights = {layer.name: integers(layer, rng) for layer in net.expanded().layers if layer.has_weights}
    program = compile_program(net, ACCELERATOR, method="dense", batch=3, mode="infer")
    image, x = new_image(program), rng.integers(-2, 3, (3, 8)).astype(np.float16)
    load_weights(program, image, weights)
    load_tensors(program, image, {"input": x})
    w = {name: array[:, 0, 0].astype(float) for name, array in weights.items()}
    h = x.astype(float) @ w["first"].T
    inside = h @ blocks(weights["fc.in"]).T @ w["fc"].T @ blocks(weights["fc.out"]).T
    expected = inside + h @ w["fc.down"].T @ w["fc.up"].T
    found = read_tensor(program, execute(program, image), "fc.sum.y")
    np.testing.assert_array_equal(found.astype(float), expected)


def test_the_simulation_is_that_of_the_expanded_network():
    net = linear(LOW_RANK, OUTER, tokens=16)
    found, spelled = (simulate(x, ACCELERATOR, sparsity="2:8", batch=4) for x in (net, net.expanded()))
    assert found.layers == spelled.layers
    assert found.totals["cycles"] > simulate(linear(tokens=16), ACCELERATOR, sparsity="2:8", batch=4).totals["cycles"]
    patterns = {(row["layer"], row["stage"]): row["sparsity"] for row in found.layers}
    assert patterns["fc", "ff"] == "2:8"
    assert {patterns[name, "ff"] for name in ("fc.out", "fc.down", "fc.up")} == {"dense"}


@pytest.mark.parametrize(
    "layer, message",
    [
        ({"extra": [{"kind": "low-rank", "rank": 8}]}, "extra.rank: must be below 8, .*, not 8"),
        ({"extra": [{"kind": "low-rank", "blocks": 2}]}, r"low-rank: must give rank, not \['blocks'\]"),
        ({"extra": [{"kind": "block-diagonal", "blocks": 2}]}, r"block-diagonal: must give blocks and side, not \['blocks'\]"),
        ({"extra": [{"kind": "block-diagonal", "blocks": 3, "side": "in"}]}, "extra.blocks: must divide the 16 input channels, not 3"),
        ({"extra": [{"kind": "block-diagonal", "blocks": 3, "side": "out"}]}, "extra.blocks: must divide the 8 output channels, not 3"),
        ({"extra": [{"kind": "low-rank", "rank": 1}, {"kind": "low-rank", "rank": 2}]}, "extra: must be at most one low-rank term .*"),
        ({"extra": [{"kind": "sparse", "rank": 1}]}, "kind: .*"),
        ({"extra": [{"kind": "low-rank", "rank": 0}]}, "rank: .*"),
        ({"op": "depthwise", "oc": 16, "groups": 16, "extra": [{"kind": "low-rank", "rank": 1}]}, "extra: must be left out of depthwise with groups=16"),
        ({"name": "n" * 126, "extra": [{"kind": "low-rank", "rank": 1}]}, "layer 'n*': extra: name: .* at most 128 characters"),
        ({"ic": 2**31 - 1, "oc": 1, "tokens": 2**30, "extra": [{"kind": "block-diagonal", "blocks": 1, "side": "in"}]}, "layer 'fc': extra: .*must stay below 2.62"),
        ({"name": "fc", "extra": [{"kind": "low-rank", "rank": 1}], "then": "fc.up"}, "layers: names must be unique, not 'fc.up' twice; a side product has that name"),
    ],
)  # fmt: skip
def test_what_is_no_side_product_is_one_clear_error(layer, message, tmp_path):
    then = layer.pop("then", None)
    layers = [{"name": "fc", "op": "linear", "ic": 16, "oc": 8} | layer]
    if then:
        layers.append({"name": then, "op": "linear", "ic": 8, "oc": 8})
    (tmp_path / "net.yaml").write_text(yaml.safe_dump({"name": "net", "layers": layers}))
    with pytest.raises(InputFileError, match=message) as error:
        Workload.load(tmp_path / "net.yaml")
    assert "\n" not in str(error.value)


def parts(net: Workload, seed: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {x.name: rng.normal(size=x.weight_shape).astype(np.float32) for x in net.expanded().layers if x.has_weights}


def test_a_file_holds_their_weights(tmp_path):
    net = linear(LOW_RANK, INNER)
    weights = parts(net)
    masks = {("fc", "ff"): nm_mask(weights["fc"].astype(np.float16), Sparsity(2, 8), -1)}
    path = tmp_path / "net.yaml"
    saved = save_workload(path, net, batch=4, weights=weights, masks=masks, patterns={("fc", "ff"): "2:8"})
    found = load_workload(path)
    assert found.workload == saved.workload
    assert [item.stored for item in found.workload.layers[1].extra] == [True, True]
    assert found.weights.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found.weights[name], array)
    rows = simulate(found.workload, ACCELERATOR, batch=4).layers
    assert {row["layer"] for row in rows} >= {"fc", "fc.in", "fc.down", "fc.up"}


def test_files_that_lie_about_them(tmp_path):
    net = linear(LOW_RANK)
    weights = parts(net)
    with pytest.raises(
        NmsatError, match=r"fc.extra: must be given weights for all of \['fc.down', 'fc.up'\], not \['fc.up'\]"
    ):
        save_workload(tmp_path / "a.yaml", net, batch=4, weights={k: v for k, v in weights.items() if k != "fc.down"})
    with pytest.raises(NmsatError, match=r"fc.down.weights: must be of shape .*, not"):
        save_workload(tmp_path / "a.yaml", net, batch=4, weights=weights | {"fc.down": weights["fc.up"]})
    with pytest.raises(NmsatError, match=r"fc.up.ff: must be a layer of the workload"):
        save_workload(tmp_path / "a.yaml", net, batch=4, patterns={("fc.up", "ff"): "dense"})
    assert not list(tmp_path.iterdir())
    path = tmp_path / "net.yaml"
    save_workload(path, net, batch=4, weights=weights)
    for old, new, message in (
        ("rank: 2", "rank: 3", "fc.down.weights.tensor: must be a float16 or float32 array of shape"),
        (
            "kind: low-rank, rank: 2",
            "kind: block-diagonal, blocks: 2, side: in",
            "fc.in.weights.tensor: must be an array of net.npz",
        ),
    ):
        text = path.read_text()
        assert old in text
        (tmp_path / "lie.yaml").write_text(text.replace(old, new))
        with pytest.raises(NmsatError, match=message):
            load_workload(tmp_path / "lie.yaml")


def test_an_import_finds_their_tensors(tmp_path):
    net = linear(LOW_RANK)
    weights = parts(net)
    weights["fc"] *= nm_mask(weights["fc"].astype(np.float16), Sparsity(2, 8), -1)
    np.savez(tmp_path / "net.npz", **{f"{name}.weight": array[:, 0, 0] for name, array in weights.items()})
    (tmp_path / "net.yaml").write_text(yaml.safe_dump({
        "name": "net", "layers": [
            {"name": "first", "op": "linear", "ic": 8, "oc": 16},
            {"name": "fc", "op": "linear", "ic": 16, "oc": 8, "extra": [{"kind": "low-rank", "rank": 2}]},
        ],
    }))  # fmt: skip
    found = import_network(tmp_path / "net.npz", batch=4)
    assert {row["layer"]: row["pattern"] for row in found.layers} == {
        "first": "dense", "fc": "2:8", "fc.down": "dense", "fc.up": "dense",
    }  # fmt: skip
    np.testing.assert_array_equal(found.network.weights["fc.up"], weights["fc.up"])
    found.network.save(tmp_path / "out.yaml")
    assert load_workload(tmp_path / "out.yaml").workload.layers[1].extra == (
        LOW_RANK.model_copy(update={"stored": True}),
    )


def test_the_reference_trainer_refuses_them():
    layers = (*linear(LOW_RANK).layers, Layer(name="loss", op="elementwise", function="cross_entropy", oc=8))
    with pytest.raises(NmsatError, match=r"net: layer 'fc.down': must be a layer that reads the one before it"):
        Stack.of(Workload(name="net", layers=layers))


def test_activation_densities_beside_the_simulation(tmp_path):
    net = linear(tokens=4)
    path = tmp_path / "net.yaml"
    save_workload(path, net, batch=4, weights=parts(net), activations={"fc": 0.25})
    found = load_workload(path).workload
    ff, wu = found.layers[1].stages.ff, found.layers[1].stages.wu
    assert (ff.activation_density, wu.activation_density) == (0.25, 0.25)
    known, unknown = (simulate(x, ACCELERATOR, method="dense", batch=4) for x in (found, net))
    rows = {(row["layer"], row["stage"]): row for row in known.layers}
    assert rows["fc", "ff"]["activation_density"] == rows["fc", "wu"]["activation_density"] == 0.25
    assert rows["fc", "bp"]["activation_density"] is rows["first", "ff"]["activation_density"] is None
    assert known.totals["cycles"] == unknown.totals["cycles"]  # the array multiplies by zeros all the same
    lost = 3 * (rows["fc", "ff"]["useful_macs"] + rows["fc", "wu"]["useful_macs"]) // 4
    assert known.totals["nonzero_macs"] == known.totals["useful_macs"] - lost
    assert "nonzero_macs" not in unknown.totals
    text = path.read_text()
    for old, new, message in (
        ("activation_density: 0.25", "activation_density: 1.5", "activation_density"),
        (
            "activation_density: 0.25",
            "activation_density: 0.5",
            "fc.stages.wu.activation_density: must be 0.5 as in ff, both read X, not 0.25",
        ),
    ):
        (tmp_path / "lie.yaml").write_text(text.replace(old, new, 1))
        with pytest.raises(InputFileError, match=message):
            load_workload(tmp_path / "lie.yaml")


def test_training_measures_them():
    """Shares of non-zero pixels and of what the ReLUs let through, over the test images."""
    run = train("digits-mlp", "bdwp", "2:8", settings=Settings(epochs=1))
    built = workload_file(Workload.load("digits-mlp"), "bdwp", run, batch=16)
    stages = {layer.name: layer.stages for layer in built.workload.layers if layer.stages}
    assert stages["fc1"].ff.activation_density == run.activations["fc1"]
    assert all(0.1 < share < 0.9 for share in run.activations.values())
    from nmsat.models.training.data import digits

    images = shaped(Stack.of(Workload.load("digits-mlp")), digits().test_x)
    assert run.activations["fc1"] == round(np.count_nonzero(images) / images.size, 6)
