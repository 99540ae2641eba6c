"""Workload files with weights: round trip, everything recomputed, nothing half-written."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest
import yaml

from nmsat.models import Accelerator, NmsatError, Sparsity, Workload
from nmsat.models.golden import nm_mask, pack_mask
from nmsat.models.stages import Accuracy, stage_sizes
from nmsat.models.workload_file import WorkloadFile, load_workload, save_workload, sha256_of
from nmsat.simulator import simulate


def tensors(seed: int = 1):
    """Dense masters of digits-cnn and both masks of its two prunable layers."""
    workload, rng = Workload.load("digits-cnn"), np.random.default_rng(seed)
    weights = {x.name: rng.normal(size=x.weight_shape).astype(np.float32) for x in workload.layers if x.has_weights}
    masks, patterns = {}, {}
    for name in ("conv2", "conv3"):
        for stage, axis in (("ff", -1), ("bp", 0)):
            masks[name, stage] = nm_mask(weights[name].astype(np.float16), Sparsity(2, 8), axis)
            patterns[name, stage] = Sparsity(2, 8)
    return workload, {"weights": weights, "masks": masks, "patterns": patterns}


def written(tmp_path, **changes):
    workload, facts = tensors()
    save_workload(tmp_path / "net.yaml", workload, batch=16, **(facts | changes))
    return tmp_path / "net.yaml"


def test_round_trip_keeps_every_bit(tmp_path):
    workload, facts = tensors()
    path = tmp_path / "net.yaml"
    accuracy = (Accuracy(task="digits", value=0.975, std=0.004, seeds=5),)
    save_workload(path, workload, batch=16, accuracy=accuracy, notes=("made by a test",), **facts)
    first = path.read_bytes(), (tmp_path / "net.npz").read_bytes()
    found = load_workload(path)
    for name, array in facts["weights"].items():
        np.testing.assert_array_equal(found.weights[name], array.reshape(found.weights[name].shape), strict=True)
    for key, mask in facts["masks"].items():
        np.testing.assert_array_equal(found.masks[key], mask, strict=True)
    assert found.workload.accuracy == accuracy
    assert found.workload.notes == ("made by a test",)
    found.save(path)
    assert (path.read_bytes(), (tmp_path / "net.npz").read_bytes()) == first
    assert sorted(os.listdir(tmp_path)) == ["net.npz", "net.yaml"]


def test_a_file_without_masks_has_those_of_its_zeros(tmp_path):
    workload, facts = tensors()
    pruned = {name: array.copy() for name, array in facts["weights"].items()}
    pruned["conv2"][~facts["masks"]["conv2", "ff"]] = 0
    save_workload(
        tmp_path / "net.yaml", workload, batch=1, mode="infer", weights=pruned, patterns={("conv2", "ff"): "2:8"}
    )
    found = load_workload(tmp_path / "net.yaml")
    np.testing.assert_array_equal(found.mask("conv2", "ff"), facts["masks"]["conv2", "ff"])
    stages = {layer.name: layer.stages for layer in found.workload.layers}["conv2"]
    assert stages.ff.density == 0.25
    assert stages.bp is stages.wu is None
    assert found.mask("conv2.relu", "ff") is None


def test_measured_masks_drive_the_simulation(tmp_path):
    """Masks 2:8 give the cycles of the method's own 2:8, whatever pattern the run asks for."""
    path, small = written(tmp_path), Accelerator.load("sat_4x4")
    own = simulate(Workload.load("digits-cnn"), small, sparsity="2:8", batch=16).totals["cycles"]
    for asked in ("2:8", "1:4", "dense"):
        assert simulate(Workload.load(path), small, sparsity=asked, batch=16).totals["cycles"] == own
    dense = simulate(Workload.load("digits-cnn"), small, method="dense", batch=16).totals["cycles"]
    assert simulate(Workload.load(path), small, method="dense", batch=16).totals["cycles"] == dense > own


def test_a_stage_of_which_nothing_is_known_is_dense(tmp_path):
    workload, facts = tensors()
    patterns = {key: pattern for key, pattern in facts["patterns"].items() if key[1] == "ff"}
    masks = {key: mask for key, mask in facts["masks"].items() if key[1] == "ff"}
    save_workload(tmp_path / "net.yaml", workload, batch=16, masks=masks, patterns=patterns)
    result = simulate(Workload.load(tmp_path / "net.yaml"), Accelerator.load("sat_4x4"), batch=16)
    found = {(row["layer"], row["stage"]): row["sparsity"] for row in result.layers}
    assert (found["conv2", "ff"], found["conv2", "bp"]) == ("2:8", "dense")


@pytest.mark.parametrize(
    ("mask", "runs"),
    [("2:8", "2:8"), ("4:16", "4:16"), ("4:32", "4:16"), ("8:32", "8:16"), ("16:32", "dense"), ("12:16", "dense")],
)
def test_a_pattern_wider_than_the_select_runs_as_the_tightest_that_fits(mask, runs):
    """sat_4x4 has max_group 16 and max_keep 8; at most N of 32 are at most N of any 16."""
    pattern = Sparsity.parse(mask)
    assert str(Accelerator.load("sat_4x4").narrowed(pattern)) == runs


def test_stage_sizes_are_the_lowering_s():
    """One group's m, n, k by stage; a strided bp is the sum of its phases' useful sizes, so it is compared undivided."""
    for name in ("digits-mlp", "resnet9", "vit"):
        workload = Workload.load(name)
        rows = simulate(workload, Accelerator.load("sat"), method="dense", batch=4).layers
        for layer in workload.layers:
            for stage, sizes in stage_sizes(layer, 4).items():
                if stage == "bp" and (layer.stride > 1 or not workload.input_gradient(layer)):
                    continue
                found = [(r["m"], r["n"], r["k"]) for r in rows if (r["layer"], r["stage"]) == (layer.name, stage)]
                assert sizes in found, (name, layer.name, stage)


def edited(path, change):
    """The YAML with one thing changed."""
    data = yaml.safe_load(path.read_text())
    change(data, {layer["name"]: layer for layer in data["layers"]})
    path.write_text(yaml.safe_dump(data))


LIES = {
    "density": (lambda d, x: x["conv2"]["stages"]["ff"].update(density=0.3), r"conv2.stages.ff.density: must be 0.25"),
    "tighter pattern": (lambda d, x: x["conv2"]["stages"]["ff"].update(pattern="1:8"), "must keep at most 1 of 8"),
    "another group": (lambda d, x: x["conv2"]["stages"]["ff"].update(pattern="1:4"), "must keep at most 1 of 4"),
    "wrong axis": (lambda d, x: x["conv2"]["stages"]["ff"].update(axis="out"), "ff.axis: must be in, the axis that ff"),
    "bp axis": (lambda d, x: x["conv2"]["stages"]["bp"].update(axis="in"), "bp.axis: must be out"),
    "no axis": (lambda d, x: x["conv2"]["stages"]["ff"].pop("axis"), "ff.axis: must be in"),
    "size": (lambda d, x: x["conv2"]["stages"]["ff"].update(k=145), "m, n, k must be 256, 32, 144 by shape and batch"),
    "batch": (lambda d, x: d.update(batch=17), "m, n, k must be"),
    "dense, yet sparse": (lambda d, x: x["conv2"]["stages"]["ff"].update(pattern="dense"), "sparse: must be none"),
    "sparse wu": (lambda d, x: x["conv2"]["stages"]["wu"].update(mask="conv2.ff"), "wu: must be dense"),
    "bp of the first": (
        lambda d, x: x["conv1"]["stages"].update(bp={"m": 1024, "n": 1, "k": 144}),
        "conv1.stages.bp: must be left out of the first layer",
    ),
    "mode": (lambda d, x: d.update(mode="infer"), "must hold ff alone in mode infer"),
    "no batch": (lambda d, x: d.pop("batch"), "batch and mode: must be given"),
    "swapped masks": (lambda d, x: x["conv2"]["stages"]["ff"].update(mask="conv2.bp"), "must keep at most 2 of 8"),
    "other mask": (lambda d, x: x["conv2"]["stages"]["ff"].update(mask="conv3.ff"), "576 bytes, one bit a weight"),
    "no such mask": (lambda d, x: x["conv2"]["stages"]["ff"].update(mask="nothing"), "masks of net.npz"),
    "no such weights": (lambda d, x: x["fc"]["weights"].update(tensor="x"), "an array of net.npz"),
    "weights of another": (lambda d, x: x["fc"]["weights"].update(tensor="conv2.weight"), r"shape \(10, 1, 1, 128\)"),
    "digest": (lambda d, x: d["tensors"].update(sha256="0" * 64), "tensors.sha256: must be that of net.npz"),
    "outside": (lambda d, x: d["tensors"].update(file="../net.npz"), "tensors.file"),
    "tail": (
        lambda d, x: x["fc"]["stages"]["ff"].update(sparse="weights", pattern="2:8", axis="out"),
        "fc.stages.ff.axis",
    ),
    "tail bp": (
        lambda d, x: x["fc"]["stages"]["bp"].update(sparse="weights", pattern="2:8", axis="out"),
        "must divide the 10 output channels of a group, not 2:8; declare a layer with a tail dense",
    ),
    "bare pattern": (lambda d, x: x["conv2"]["stages"]["ff"].update(pattern=128), "bare 2:8"),
    "stages of a relu": (lambda d, x: x["conv2.relu"].update(stages={"ff": {"m": 1, "n": 1, "k": 1}}), "elementwise"),
    "unknown key": (lambda d, x: x["conv2"]["stages"]["ff"].update(desnity=1), "known key"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_one_clear_error(tmp_path, name):
    change, message = LIES[name]
    path = written(tmp_path)
    load_workload(path)
    edited(path, change)
    with pytest.raises(NmsatError, match=message) as caught:
        Workload.load(path)
    assert "\n" not in str(caught.value)


def test_depthwise_is_never_sparse():
    layer = {"name": "d", "op": "depthwise", "ic": 8, "oc": 8, "groups": 8, "kh": 3, "kw": 3, "h": 4, "w": 4, "pad": 1}
    workload = Workload.model_validate({"name": "n", "layers": [layer]})
    with pytest.raises(NmsatError, match="dense for depthwise, which has one channel a group, not 1:8"):
        WorkloadFile.build(
            workload, batch=1, patterns={("d", "ff"): "1:8"}, masks={("d", "ff"): np.ones((8, 3, 3, 1), bool)}
        )


def with_arrays(path, **arrays):
    """The NPZ with some arrays replaced, its digest put right."""
    npz = path.with_suffix(".npz")
    with np.load(npz) as old:
        found = {name: old[name] for name in old.files} | arrays
    np.savez(npz, **found)
    edited(path, lambda d, x: d["tensors"].update(sha256=sha256_of(npz)))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "conv2.weight",
            np.full((32, 3, 3, 16), np.nan, np.float32),
            "conv2.weights: must be finite numbers, not 'nan at",
        ),
        ("fc.weight", np.full((10, 1, 1, 128), np.inf, np.float32), "fc.weights: must be finite numbers, not 'inf at"),
        ("fc.weight", np.zeros((10, 1, 1, 128)), "a float16 or float32 array"),
        ("fc.weight", np.array([None]), "not of Python objects"),
        ("fc.weight", np.zeros(3, "M8[s]"), "must be one of float16"),
        ("fc.weight", np.zeros(3, [("a", "f4")]), "must be one of float16"),
        ("conv2.ff", pack_mask(np.ones((32, 3, 3, 16), bool)), "must be 1.000000, the share its mask keeps, not 0.25"),
        ("conv2.ff", np.zeros(575, np.uint8), "576 bytes, one bit a weight"),
    ],
)
def test_hostile_tensors_are_refused(tmp_path, name, array, message):
    path = written(tmp_path)
    with_arrays(path, **{name: array})
    with pytest.raises(NmsatError, match=message):
        load_workload(path)


def test_a_bit_beyond_the_mask_is_refused(tmp_path):
    workload = Workload.model_validate({"name": "n", "layers": [{"name": "f", "op": "linear", "ic": 4, "oc": 3}]})
    mask = np.tile(np.array([1, 0, 0, 0], bool), (3, 1))
    path = tmp_path / "net.yaml"
    save_workload(path, workload, batch=1, masks={("f", "ff"): mask}, patterns={("f", "ff"): "1:4"})
    with_arrays(path, **{"f.ff": np.array([0b00010001, 0b10000001], np.uint8)})
    with pytest.raises(NmsatError, match="zero beyond its last weight"):
        load_workload(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04K\x01.", b"x" * 100])
def test_what_is_no_npz_is_refused(tmp_path, content):
    path = written(tmp_path)
    path.with_suffix(".npz").write_bytes(content)
    with pytest.raises(NmsatError, match="must be a readable NPZ file"):
        load_workload(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = written(tmp_path)
    with (
        zipfile.ZipFile(path.with_suffix(".npz"), "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("fc.weight.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(2**20))
    with pytest.raises(NmsatError, match="must hold at most 100 times its"):
        load_workload(path)


def test_a_shape_larger_than_its_bytes_is_refused(tmp_path):
    path = written(tmp_path)
    npz = path.with_suffix(".npz")
    content = npz.read_bytes().replace(b"(10, 1, 1, 128)", b"(10, 1, 9, 128)")
    npz.write_bytes(content)
    edited(path, lambda d, x: d["tensors"].update(sha256=sha256_of(npz)))
    with pytest.raises(NmsatError, match=r"fc.weight: must (hold the 46080 bytes of its shape|be a readable array)"):
        load_workload(path)


def test_the_missing_half_is_named(tmp_path):
    path = written(tmp_path)
    path.with_suffix(".npz").unlink()
    with pytest.raises(NmsatError, match=r"net.npz: must be an existing file"):
        load_workload(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"conv2": np.zeros((3, 3), np.float32)}}, r"of shape \(32, 3, 3, 16\) \(OHWI\)"),
        ({"weights": {"conv2": np.zeros((32, 3, 3, 16), np.int32)}}, "float16 or float32"),
        ({"weights": {"conv2.relu": np.zeros(3, np.float32)}}, "left out, the layer has no weights"),
        ({"weights": {"nobody": np.zeros(3, np.float32)}}, "a layer of the workload"),
        ({"masks": {("conv1", "bp"): np.zeros((16, 3, 3, 1), bool)}}, "a stage the layer has"),
        ({"masks": {("conv2", "wu"): np.zeros((32, 3, 3, 16), bool)}}, "stage ff or bp"),
        ({"masks": {("conv2", "ff"): np.zeros((32, 3, 3, 16), bool)}, "patterns": {}}, "must give pattern and density"),
    ],
)
def test_nothing_is_written_of_what_does_not_fit(tmp_path, changes, message):
    with pytest.raises(NmsatError, match=message):
        written(tmp_path, **changes)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_pair(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    _, facts = tensors(seed=2)

    def full(*_args, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nmsat.models.workload_file.write_npz", full)
    with pytest.raises(NmsatError, match="must be writable; No space left"):
        written(tmp_path, **facts)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    with pytest.raises(NmsatError, match=r"a .yaml file"):
        load_workload(path).save(tmp_path / "net.txt")
