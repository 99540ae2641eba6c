"""Whole runs: the recipes' accuracies within their margins, data, mask statistics, `nmsat train` and what it writes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.models import Accelerator, Layer, Sparsity, Workload
from nmsat.models.errors import MissingToolError, NmsatError
from nmsat.models.pruning import make_recipe
from nmsat.models.training import BlasProducts, Stack, forward, stage_operands
from nmsat.models.training.data import digits
from nmsat.models.training.export import workload_file
from nmsat.models.training.trainer import Settings, accuracy, shaped, train
from nmsat.models.workload_file import WorkloadFile
from nmsat.simulator import simulate

SHORT = Settings(epochs=2)


@pytest.fixture(scope="module")
def data():
    return digits()


def test_the_digits_are_split_once_and_exact(data):
    assert data.train_x.shape == (1257, 8, 8, 1)
    assert data.test_x.shape == (540, 8, 8, 1)
    assert set(np.unique(np.concatenate([data.train_x, data.test_x]).astype(np.float64) * 16)) == set(range(17))
    again, other = digits(), digits(1)
    np.testing.assert_array_equal(again.test_x, data.test_x)
    assert (other.test_y != data.test_y).any()
    assert np.bincount(data.test_y).min() > 30


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingToolError, match=r'^digits: must have scikit-learn; install "nmsat\[data\]"$'):
        digits()


def test_a_network_with_batch_normalisation_learns_and_then_uses_running_statistics(data):
    """A small CNN at 2:8, two epochs; behind training an image's logits do not depend on the others beside it."""
    layers = []
    for place, (ic, oc, size, stride, prune) in enumerate([(1, 8, 8, 1, False), (8, 16, 8, 2, True)]):
        conv = {"ic": ic, "oc": oc, "kh": 3, "kw": 3, "h": size, "w": size, "pad": 1, "stride": stride, "prune": prune}
        layers.append(Layer(name=f"c{place}", op="conv2d", **conv))
        for function in ("batchnorm", "relu"):
            shape = {"oc": oc, "h": size // stride, "w": size // stride}
            layers.append(Layer(name=f"{function}{place}", op="elementwise", function=function, **shape))
    layers.append(Layer(name="fc", op="linear", ic=256, oc=10, prune=False))
    net = Workload(name="net", layers=(*layers, Layer(name="loss", op="elementwise", function="cross_entropy", oc=10)))
    run = train(net, "bdwp", "2:8", seed=0, settings=SHORT, data=data)
    assert run.accuracy > 0.9
    stack, known = Stack.of(net), (run.state.w32, run.state.running)
    assert {name: value.shape for name, value in run.state.running.items()} == {
        "batchnorm0": (2, 8),
        "batchnorm1": (2, 16),
    }
    images = shaped(stack, data.test_x[:5])
    together = forward(stack, run.operands, images, BlasProducts(), *known).logits
    alone = forward(stack, run.operands, images[2:3], BlasProducts(), *known).logits
    np.testing.assert_allclose(together[2:3].astype(float), alone.astype(float), rtol=2**-9, atol=2**-9)
    batch = forward(stack, run.operands, images, BlasProducts(), run.state.w32).logits
    assert np.abs(batch.astype(float) - together.astype(float)).max() > 0.1  # a batch of 5 has other statistics


def pruned_after(run, data) -> float:
    """Accuracy of a dense run's network after one-shot pruning at 2:8."""
    stack = Stack.of(Workload.load("digits-mlp"))
    operands = stage_operands(stack, make_recipe("one-shot", Sparsity(2, 8), stack.workload), run.state.w16, 1.0)
    return accuracy(stack, operands, data.test_x, data.test_y)


def test_recipes_keep_their_margins(data):
    """BDWP within 1.5 points of SR-STE and 2.5 of dense, one-shot at least 5 below, on the narrow MLP at 2:8.

    Two seeds; over five, BDWP has reached 97.00 +- 0.40 % and SR-STE 96.78 +- 0.56 % (docs/training.md).
    """
    found = {"one-shot": 0.0}
    for method in ("dense", "sr-ste", "bdwp"):
        runs = [train("digits-mlp", method, "2:8", seed=s, data=data) for s in range(2)]
        found[method] = float(np.mean([run.accuracy for run in runs]))
        if method == "dense":
            found["one-shot"] = float(np.mean([pruned_after(run, data) for run in runs]))
    assert found["dense"] > 0.955
    assert found["bdwp"] >= found["sr-ste"] - 0.015
    assert found["bdwp"] >= found["dense"] - 0.025
    assert found["one-shot"] <= found["dense"] - 0.05


def test_runs_are_reproducible_and_their_facts_hold(data):
    one, two = (train("digits-mlp", "bdwp", "2:8", seed=4, data=data, settings=SHORT) for _ in range(2))
    other = train("digits-mlp", "bdwp", "2:8", seed=5, data=data, settings=SHORT)
    for name, w in one.state.w32.items():
        np.testing.assert_array_equal(w, two.state.w32[name])
        assert (w != other.state.w32[name]).any()
    assert one.losses[1] < one.losses[0]
    assert len(one.flips) == 1
    assert 0 < one.flips[0] < 0.2
    assert 0.6 < one.overlap < 0.8  # 0.677 for Gaussian weights
    assert one.skipped == 0


def test_a_fixed_mask_does_not_flip(data):
    run = train("digits-mlp", "one-shot", "2:8", data=data, settings=SHORT)
    dense = train("digits-mlp", "dense", "dense", data=data, settings=SHORT)
    assert run.accuracy == pruned_after(dense, data)
    assert run.flips == ()  # chosen after the last step
    assert run.overlap == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"training: epochs: must be at least 1, not 0"),
        ({"lr": float("nan")}, r"training: lr: must be a positive number, not nan"),
        ({"batch": 2000}, r"training: batch: must be at most 1257, not 2000"),
    ],
)
def test_bad_settings_are_refused(settings, message, data):
    with pytest.raises(NmsatError, match=f"^{message}$"):
        train("digits-mlp", "bdwp", "2:8", data=data, settings=Settings(**settings))


def test_a_network_of_another_input_size_is_refused(data):
    layers = (
        Layer(name="a", op="linear", ic=32, oc=10),
        Layer(name="loss", op="elementwise", function="cross_entropy", oc=10),
    )
    with pytest.raises(NmsatError, match=r"^net: layer 'a': must be for inputs of 64 pixels, not \(32,\)$"):
        shaped(Stack.of(Workload(name="net", layers=layers)), data.test_x)


# --- what a run writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bdwp", "sr-ste", "sdgp", "global", "one-shot"])
def test_the_workload_file_holds_the_network(method, data, tmp_path):
    workload = Workload.load("digits-mlp")
    run = train(workload, method, "2:8", data=data, settings=Settings(epochs=1))
    workload_file(workload, method, run, batch=32).save(tmp_path / "w.yaml")
    found = WorkloadFile.load(tmp_path / "w.yaml")
    stages = {(n, s) for n, s in found.masks}
    assert stages == {
        "bdwp": {("fc2", "ff"), ("fc2", "bp"), ("fc3", "ff"), ("fc3", "bp")},
        "sr-ste": {("fc2", "ff"), ("fc3", "ff")},
        "one-shot": {("fc2", "ff"), ("fc3", "ff")},
    }.get(method, set())
    for name in ("fc1", "fc2", "fc3", "fc4"):
        weights = found.weights[name].reshape(run.state.w32[name].shape)
        used = run.operands[name]
        if ("fc2", "ff") in stages:  # the dense master and its mask give back what the forward product reads
            mask = found.mask(name, "ff") if (name, "ff") in stages else np.ones(weights.shape, bool)
            kept = np.where(np.asarray(mask).reshape(weights.shape), weights, np.float32(0))
            np.testing.assert_array_equal(kept.astype(np.float16), used.ff)
            np.testing.assert_array_equal(weights, run.state.w32[name])
        else:
            np.testing.assert_array_equal(weights.astype(np.float16), used.ff)


def test_train_writes_accuracy_and_a_workload_that_runs(tmp_path, capsys):
    out = tmp_path / "trained"
    arguments = ["train", "digits-mlp", "--method", "bdwp", "--sparsity", "2:4", "--seeds", "2", "--epochs", "1"]
    assert main([*arguments, "-o", str(out)]) == 0
    assert "digits-mlp bdwp" in capsys.readouterr().out
    record = json.loads((out / "accuracy.json").read_text())
    assert {"task", "method", "sparsity", "seeds", "accuracies", "accuracy_mean", "accuracy_std"} <= record.keys()
    assert (record["task"], record["method"], record["sparsity"]) == ("digits-mlp", "bdwp", "2:4")
    assert len(record["accuracies"]) == len(record["seeds"]) == 2
    assert record["accuracy_mean"] == pytest.approx(np.mean(record["accuracies"]))
    assert all(0.3 < a < 1 for a in record["accuracies"])
    loaded = Workload.load(str(out / "workload.yaml"))
    result = simulate(loaded, Accelerator.load("sat_4x4"), method="bdwp", sparsity="2:4", batch=32)
    assert result.totals["speedup_over_dense"] > 1


def test_several_methods_share_a_folder_and_json(tmp_path, capsys):
    out = tmp_path / "many"
    arguments = ["train", "digits-mlp", "--method", "dense,erk", "--seeds", "1", "--epochs", "1", "--json", "-"]
    assert main([*arguments, "-o", str(out)]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["method"] for r in records] == ["dense", "erk"]
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*")) == [
        f"{m}/{n}" for m in ("dense", "erk") for n in ("accuracy.json", "workload.npz", "workload.yaml")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("digits-rnn", "TASK: must be one of digits-mlp, digits-cnn"),
        ("digits-mlp --method bwdp", "method: must be one of dense, sr-ste"),
        ("digits-mlp --sparsity 9:8", "sparsity.keep: must be 1 to 8, not 9"),
        ("digits-mlp --sparsity 2:7", "sparsity.group: must be one of 2, 4, 8, 16, 32, not 7"),
        ("digits-cnn --sparsity 2:32", "sparsity: must be one whose M divides ic=16 and oc=32 of layer 'conv2'"),
        ("digits-mlp --lr nan", "lr: must be a positive number, not nan"),
        ("digits-mlp --decay all", "decay: must be one of ff, bp, union, none, not 'all'"),
        ("digits-mlp --lr 1e30 --epochs 1 --seeds 1", "lower the learning rate"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", *arguments.split(), "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not out.exists()


def test_an_output_that_is_no_folder_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for name in (tmp_path / "file", tmp_path / "no" / "where"):
        assert main(["train", "digits-mlp", "-o", str(name)]) == 2
        assert "-o: must be" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"


def test_sparsity_may_be_given_as_an_object(data):
    run = train("digits-mlp", "sdgf", Sparsity(2, 8), data=data, settings=SHORT)
    assert str(run.operands["fc2"].ff_pattern) == "2:8"
