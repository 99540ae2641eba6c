"""The vectorised evaluator equals simulate on every design, to the last cycle and byte."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.dataflow import Options
from nmsat.dataflow.schedule import DATAFLOWS
from nmsat.models import Accelerator, Workload
from nmsat.models.energy_table import BOUNDS, EnergyTable
from nmsat.models.errors import NmsatError
from nmsat.simulator import simulate
from nmsat.simulator.explore import FIELDS, Designs, evaluate, kernels, skeleton_of
from nmsat.simulator.explore.evaluate import _run, energy_j

INTEGERS = (
    "cycles",
    "compute_cycles",
    "stall_cycles",
    "vector_exposed_cycles",
    "dram_read_bytes",
    "dram_write_bytes",
)
BASE = Accelerator.load("sat")


def check(name: str, designs: Designs, *, pregenerate: bool = True, forward_on_chip: bool = True, **step) -> int:
    """Compare every design with simulate; the number of valid ones."""
    workload = Workload.load(name)
    group = int(designs.column("max_group")[0])
    skeleton = skeleton_of(workload, max_group=group, pregenerate=pregenerate, forward_on_chip=forward_on_chip, **step)
    figures = evaluate(skeleton, designs)
    table = EnergyTable.load("vcu1525")
    joules = {bound: energy_j(skeleton, figures, designs, table, {}, bound) for bound in BOUNDS}
    for index in range(len(designs)):
        row = dict(zip(FIELDS, designs.table[index].tolist(), strict=True))
        options = Options(
            dataflow=DATAFLOWS[row["dataflow"]],
            interleave=bool(row["interleave"]),
            tile_overlap=bool(row["tile_overlap"]),
            dram_overlap=bool(row["dram_overlap"]),
            pregenerate=pregenerate,
            forward_on_chip=forward_on_chip,
        )
        try:
            expected = simulate(workload, designs.accelerator(index, BASE), options=options, **step).totals
        except NmsatError:
            assert not figures.valid[index], row
            assert all(getattr(figures, key)[index] == 0 for key in INTEGERS)
            continue
        assert figures.valid[index], row
        assert {key: int(getattr(figures, key)[index]) for key in INTEGERS} == {k: expected[k] for k in INTEGERS}, row
        assert figures.ws_macs[index] == expected["events"]["ws_macs"]
        assert figures.buffer_bytes[index] == expected["events"]["buffer_bytes"]
        # products of binary64 and integers, rounded in another order
        found = [joules[bound][index] for bound in BOUNDS]
        assert found == pytest.approx([expected[f"energy{name}_j"] for name in ("_low", "", "_high")], rel=1e-12)
    return int(figures.valid.sum())


def drawn(rng: np.random.Generator, size: int, max_group: int) -> Designs:
    """Random designs, from ones that fit nothing to ones that hold everything, some equal to their neighbours."""
    table = {
        "rows": rng.choice([1, 2, 3, 4, 8, 17, 32, 128], size),
        "cols": rng.choice([1, 2, 5, 8, 16, 32, 100], size),
        "adder_latency_cycles": rng.choice([1, 2, 5, 8, 13], size),
        "multiplier_latency_cycles": rng.choice([1, 4], size),
        "slr_hop_cycles": rng.choice([0, 2], size),
        "max_keep": np.minimum(rng.choice([1, 2, 4, 8, 32], size), max_group),
        "max_group": np.full(size, max_group),
        "w2e_bytes": 2 ** rng.integers(6, 23, size),
        "n2s_bytes": 2 ** rng.integers(6, 23, size) + rng.choice([0, 12], size),
        "output_bytes": 2 ** rng.integers(6, 23, size),
        "dataflow": rng.choice(DATAFLOWS, size),
        "interleave": rng.choice([0, 1], size),
        "tile_overlap": rng.choice([0, 1], size),
        "accumulator": rng.choice(["fp32", "window"], size),
        "window_lsb": rng.choice([24, 33, 36], size),
        "window_bits": rng.choice([50, 58, 64, 70], size),
        "vector_lanes": rng.choice([1, 3, 128], size),
        "wuve_lanes": rng.choice([1, 32], size),
        "sore_lanes": rng.choice([1, 7, 32], size),
        "clock_mhz": rng.choice([50, 200, 333], size),
        "dram_mb_s": rng.choice([100, 19200, 76800, 10_000_000], size),
        "dram_overlap": rng.choice([0, 1], size),
    }
    return Designs.of(BASE, table)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["digits-mlp", "digits-cnn", "resnet9", "vit", "mobilenet_v2"]),
    method=st.sampled_from(["dense", "sr-ste", "sdgp", "sdwp", "bdwp"]),
    sparsity=st.sampled_from(["2:4", "2:8", "1:2", "8:32"]),
    batch=st.sampled_from([1, 3, 64, 512]),
    mode=st.sampled_from(["train", "infer"]),
    max_group=st.sampled_from([4, 8, 32]),
    pregenerate=st.booleans(),
    forward_on_chip=st.booleans(),
)
def test_every_integer_equals_simulate(
    seed, name, method, sparsity, batch, mode, max_group, pregenerate, forward_on_chip
):
    designs = drawn(np.random.default_rng(seed), 4, max_group)
    step = {"method": method, "sparsity": sparsity, "batch": batch, "mode": mode}
    if method != "dense" and int(sparsity.split(":")[1]) > max_group:
        with pytest.raises(NmsatError, match=r"sparsity\.(keep|group): must be at most max_"):
            check(name, designs, **step)
        return
    check(name, designs, pregenerate=pregenerate, forward_on_chip=forward_on_chip, **step)


def test_a_grid_is_mostly_valid_and_equal():
    """Neighbours share most fields: the evaluator's blocks, with schedules, lanes and memory changing at their borders."""
    axes = [[4, 32], [8, 32], [4, 128], [50, 200], [1000, 2000, 20000, 76800, 500000]]
    names = ["rows", "cols", "vector_lanes", "clock_mhz", "dram_mb_s"]
    columns = dict(zip(names, (g.ravel() for g in np.meshgrid(*axes, indexing="ij")), strict=True))
    assert check("resnet9", Designs.of(BASE, columns), batch=16) == 80


def test_resnet50_equals():
    designs = Designs.of(BASE, {"rows": [32, 64], "dram_mb_s": [19200, 76800]})
    assert check("resnet50", designs) == 2


def test_order_of_designs_does_not_matter():
    rng = np.random.default_rng(5)
    designs = drawn(rng, 300, 32)
    skeleton = skeleton_of(Workload.load("digits-cnn"), batch=16)
    straight = evaluate(skeleton, designs)
    order = rng.permutation(300)
    shuffled = evaluate(skeleton, Designs(designs.table[order]))
    assert 20 < straight.valid.sum() < 280
    for key in (*INTEGERS, "valid"):
        assert (getattr(straight, key)[order] == getattr(shuffled, key)).all()


def test_integer_arithmetic_equals_binary64():
    skeleton = skeleton_of(Workload.load("digits-cnn"), batch=16)
    table = drawn(np.random.default_rng(6), 400, 32).table
    table = table[np.lexsort(table.T[::-1])]
    assert (_run(skeleton, table, np.ones(1)) == _run(skeleton, table, np.ones(1, np.int64))).all()


def test_figures_beyond_binary64_are_calculated_in_integers():
    workload, step = Workload.load("vgg19"), {"batch": 2**18}
    designs = Designs.of(BASE, {"clock_mhz": 2000, "dram_mb_s": [1, 7]})
    skeleton = skeleton_of(workload, **step)
    assert (_run(skeleton, designs.table, np.ones(1))[:, kernels.VALID] == kernels.TOO_LARGE).all()
    assert check("vgg19", designs, **step) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [0]}, r"rows: .*greater than or equal to 1"),
        ({"speed": [1]}, "speed: must be one of rows, cols"),
        ({"rows": [1, 2], "cols": [1, 2, 3]}, "rows: must be one value or 3, not '?2 values"),
        ({"dataflow": ["is"]}, "dataflow: must be one of auto, os, ws, not 'is'"),
        ({"interleave": [2]}, "interleave: must be true or false, not 2"),
        ({"max_keep": [16], "max_group": [8]}, "max_keep: must be at most max_group in every design"),
    ],
)
def test_bad_designs(changes, message):
    with pytest.raises(NmsatError, match=message):
        Designs.of(BASE, changes)


def test_a_skeleton_serves_one_max_group():
    skeleton = skeleton_of(Workload.load("digits-mlp"), max_group=8)
    with pytest.raises(NmsatError, match=re.escape("max_group: must be 8 as in the skeleton")):
        evaluate(skeleton, Designs.of(BASE, {}))


def test_unknown_energy_coefficient():
    skeleton = skeleton_of(Workload.load("digits-mlp"))
    designs = Designs.of(BASE, {})
    with pytest.raises(NmsatError, match="joule: must be one of mac_os_pj"):
        energy_j(skeleton, evaluate(skeleton, designs), designs, EnergyTable.load("vcu1525"), {"joule": 1.0})
