"""Patterns by layer: the knapsack is exact, cycles add up as simulated, and one pattern everywhere is beaten."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.__main__ import main
from nmsat.dataflow import Options
from nmsat.models import Accelerator, Sparsity, Workload
from nmsat.models.errors import NmsatError
from nmsat.models.pruning.knapsack import choose
from nmsat.models.workload_file import WorkloadFile
from nmsat.reports.allocation_study import (
    ACCELERATOR,
    BATCH,
    BUDGETS,
    EPOCHS,
    NETWORKS,
    SEEDS,
    load_record,
    means,
    measure,
    to_markdown,
)
from nmsat.simulator import simulate
from nmsat.simulator.allocate import apply, bare, chain_cycles, problem, weight_error

ROOT = Path(__file__).resolve().parents[1]
SMALL = Accelerator.load("sat_4x4")
classes = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=5
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(classes, st.integers(0, 50))
def test_the_knapsack_by_trying_everything(found, budget):
    costs, errors = [[c for c, _ in k] for k in found], [[e / 7 for _, e in k] for k in found]
    every = [
        (sum(e[o] for e, o in zip(errors, pick, strict=True)), sum(c[o] for c, o in zip(costs, pick, strict=True)))
        for pick in itertools.product(*(range(len(k)) for k in found))
    ]
    legal = [item for item in every if item[1] <= budget]
    if not legal:
        with pytest.raises(NmsatError, match="budget: must be at least"):
            choose(costs, errors, budget)
        return
    picked = choose(costs, errors, budget)
    error = sum(e[o] for e, o in zip(errors, picked, strict=True))
    cost = sum(c[o] for c, o in zip(costs, picked, strict=True))
    assert error == pytest.approx(min(legal)[0], abs=1e-12)  # sums rounded in another order
    assert cost <= budget


def test_a_large_network_is_solved():
    """54 layers of 15 patterns: 10^63 networks."""
    rng = np.random.default_rng(1)
    scale = rng.integers(10**5, 10**8, 54)
    shares = np.sort(rng.uniform(0.05, 1, 15))
    costs = [[int(size * share) for share in shares] for size in scale]
    errors = [sorted(rng.uniform(0, 1, 15).tolist(), reverse=True) for _ in scale]
    budget = int(0.4 * scale.sum())
    picked = choose(costs, errors, budget)
    spent = sum(c[o] for c, o in zip(costs, picked, strict=True))
    error = sum(e[o] for e, o in zip(errors, picked, strict=True))
    assert spent <= budget
    for k in range(54):  # no single exchange helps
        for option in range(15):
            if spent - costs[k][picked[k]] + costs[k][option] <= budget:
                assert error - errors[k][picked[k]] + errors[k][option] >= error - 1e-12


@pytest.fixture(scope="module")
def network() -> WorkloadFile:
    workload, rng = Workload.load("digits-cnn"), np.random.default_rng(0)
    weights = {
        layer.name: rng.normal(0, 1, layer.weight_shape).astype(np.float32)
        for layer in workload.layers if layer.has_weights
    }  # fmt: skip
    return WorkloadFile.build(workload, batch=32, weights=weights)


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("method", ["bdwp", "sr-ste"])
def test_cycles_are_the_simulators(network, mode, overlap, method):
    """Every combination of two layers' patterns, predicted by sums and simulated whole."""
    step = {
        "method": method,
        "batch": 32,
        "mode": mode,
        "options": Options(dram_overlap=overlap, forward_on_chip=overlap),
    }
    found = problem(network, SMALL, patterns=["dense", "2:8", "1:16"], **step)
    assert list(found.options) == ["conv2", "conv3"]
    for picks in itertools.product(*found.options.values()):
        patterns = {choice.layer: choice.pattern for choice in picks}
        file = apply(network, patterns, method=method, batch=32, mode=mode)
        simulated = simulate(file.workload, SMALL, **step).totals["cycles"]
        assert found.fixed_cycles + sum(choice.cycles for choice in picks) == simulated, patterns


def test_chains_cover_the_whole_step(network):
    result = simulate(bare(network.workload), SMALL, batch=32)
    assert sum(chain_cycles(result).values()) == result.totals["cycles"]


def test_weight_error_by_hand():
    weights = np.array([[1.0, -2.0, 3.0, 0.5]], np.float32).reshape(1, 1, 1, 4)
    assert weight_error(weights, Sparsity(2, 4), ["ff"], "absolute") == 1 + 0.25
    assert weight_error(weights, Sparsity(1, 4), ["ff"], "relative") == pytest.approx((1 + 4 + 0.25) / 14.25)
    assert weight_error(weights, Sparsity.dense(), ["ff"], "absolute") == 0
    assert weight_error(0 * weights, Sparsity(1, 4), ["ff"], "relative") == 0
    tall = weights.reshape(4, 1, 1, 1)
    assert weight_error(tall, Sparsity(2, 4), ["bp"], "absolute") == 1 + 0.25


def test_more_cycles_never_err_more(network):
    found = problem(network, SMALL, batch=32)
    low, high = found.best(10**9).cycles, found.uniform(Sparsity(1, 16)).cycles
    errors = [found.best(budget).error for budget in np.linspace(high, low, 25).astype(int).tolist()]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0  # dense fits
    for pattern in ("2:4", "2:8", "1:8"):
        uniform = found.uniform(Sparsity.parse(pattern))
        best = found.best(uniform.cycles)
        assert best.cycles <= uniform.cycles
        assert best.error <= uniform.error


def test_trained_networks_err_less_at_equal_cycles():
    """The committed record: five seeds of two networks, three budgets."""
    record = load_record()
    for run in record["runs"]:
        for row in run["budgets"]:
            assert row["allocated"]["cycles"] <= row["uniform"]["cycles"]
            assert row["allocated"]["error"] <= row["uniform"]["error"]
    for row in means(record):
        assert 0.75 < row["allocated_error"] / row["uniform_error"] < 0.99
        assert -0.001 < row["allocated_accuracy"] - row["uniform_accuracy"] < 0.06
    assert to_markdown(record) in (ROOT / "docs/allocation.md").read_text()


def test_the_record_is_of_its_command():
    record = load_record()
    assert record["command"] == "python -m nmsat.reports.allocation_study reports/accuracy/allocation.json"
    assert (record["accelerator"], record["batch"], record["epochs"]) == (ACCELERATOR, BATCH, EPOCHS)
    assert [(run["network"], run["seed"]) for run in record["runs"]] == list(itertools.product(NETWORKS, range(SEEDS)))
    for run in record["runs"]:
        rows = [row[kind] for row in run["budgets"] for kind in ("uniform", "allocated")]
        images = 540 * np.array([run["dense_accuracy"], *(row["accuracy"] for row in rows)])
        assert np.allclose(images, np.rint(images), atol=1e-6)
        assert [row["budget"] for row in run["budgets"]] == list(BUDGETS)
        curve = np.array(run["curve"])
        assert (np.diff(curve, axis=0) * [1, -1] >= 0).all()  # more cycles, no more error
        for row in run["budgets"]:  # no point of the curve is better than the choice within the same budget
            within = curve[curve[:, 0] <= row["uniform"]["cycles"], 1]
            assert row["allocated"]["error"] <= within.min() + 1e-12


def test_every_choice_in_the_record_costs_its_cycles():
    """Each network with the recorded patterns, simulated again."""
    accelerator, seen = Accelerator.load(ACCELERATOR), set()
    for run in load_record()["runs"]:
        base = NETWORKS[run["network"]]()
        for row in (row[kind] for row in run["budgets"] for kind in ("uniform", "allocated")):
            key = run["network"], tuple(row["patterns"].items())
            if key in seen:
                continue
            seen.add(key)
            layers = tuple(
                layer.model_copy(
                    update={"pattern": Sparsity.parse(row["patterns"][layer.name])}
                    if layer.name in row["patterns"]
                    else {"prune": False}
                )
                for layer in base.layers
            )
            network = base.model_copy(update={"layers": layers})
            assert simulate(network, accelerator, batch=BATCH, mode="infer").totals["cycles"] == row["cycles"], key
    assert len(seen) > 10


def test_the_record_can_be_made_again():
    """One network trained for an epoch: the same code, other numbers than the record's eight epochs."""
    again = measure("digits-cnn", 0, epochs=1)
    assert [row["budget"] for row in again["budgets"]] == list(BUDGETS)
    assert again["budgets"][1]["allocated"]["error"] < again["budgets"][1]["uniform"]["error"]
    record = next(run for run in load_record()["runs"] if (run["network"], run["seed"]) == ("digits-cnn", 0))
    cycles = [[row["uniform"]["cycles"] for row in run["budgets"]] for run in (again, record)]
    assert cycles[0] == cycles[1]  # what the weights do not change


def test_the_command(network, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network.save("net.yaml")
    command = ["allocate", "net.yaml", "--budget", "2:8", "-a", "sat_4x4", "-o", "out.yaml", "--json", "out.json"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    data = json.loads(Path("out.json").read_text())
    assert data["allocated"]["cycles"] <= data["budget_cycles"] == data["uniform"]["cycles"]
    assert f"{data['allocated']['cycles']:,} cycles of at most {data['budget_cycles']:,}" in printed
    assert main(["run", "out.yaml", "-a", "sat_4x4", "-q", "--json", "run.json"]) == 0
    assert json.loads(Path("run.json").read_text())["totals"]["cycles"] == data["allocated"]["cycles"]
    budget = str(data["budget_cycles"])
    assert main(["allocate", "net.yaml", "--budget", budget, "-a", "sat_4x4", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["allocated"] == data["allocated"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "1000"], "--budget: must be at least "),
        (["--budget", "soon"], "--budget: must be "),
        (["--budget", "3:7"], "sparsity.group: must be one of 2, 4, 8, 16, 32, not 7"),
        (["--budget", "2:8", "--patterns", "2:8,x"], "must be "),
        (
            ["--budget", "2:8", "--patterns", "1:4"],
            "--budget: must be one of the patterns, where dense is none, not '2:8'",
        ),
        (["--budget", "2:8", "--patterns", "16:32"], "sparsity.keep: must be at most max_keep = 8"),
        (["--budget", "2:8", "-o", "out.txt"], "-o: must be a .yaml file, not 'out.txt'"),
    ],
)
def test_bad_input(network, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    network.save("net.yaml")
    assert main(["allocate", "net.yaml", "-a", "sat_4x4", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.npz", "net.yaml"]


def test_a_file_without_weights(tmp_path, capsys):
    path = ROOT / "models/zoo/digits-cnn.yaml"
    assert main(["allocate", str(path), "--budget", "2:8", "-a", "sat_4x4"]) == 2
    assert "conv2.weights: must be given, not None; export or train it with weights" in capsys.readouterr().err
