"""Axes over the fields of layers, over several fields together, and over what cycles do not depend on."""

from __future__ import annotations

import csv
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.__main__ import main
from nmsat.models import Accelerator, Workload
from nmsat.models.errors import NmsatError
from nmsat.simulator import simulate
from nmsat.simulator.explore.inline import InlineExecutor
from nmsat.simulator.explore.spec import AXIS_FIELDS, SweepSpec
from nmsat.simulator.explore.sweep import run_sweep

HEAD = "format: nmsat-sweep/1\n"
# what a layer of a network may become: legal values, and some that only break together with others
FIELDS: dict[str, dict[str, list[Any]]] = {
    "digits-cnn": {
        "layers.conv2.oc": [8, 32, 33],
        "layers.conv2.groups": [1, 2, 3],
        "layers.conv3.ic": [16, 32],
        "layers.conv3.pad": [0, 1, 2],
        "layers.*.h": [2, 4, 9],
        "layers.conv1.kw": [1, 3, 5],
        "layers.fc.prune": [False, True],
        "layers.fc.tokens": [1, 7],
        "layers.conv2.pattern": ["2:4", "dense", "1:8"],
        "layers.conv2.input_gradient": [False, True],
        "layers.conv1.relu.function": ["relu", "gelu"],
    },
    "llama_7b_block": {
        "layers.*.tokens": [1, 33, 2048],
        "layers.attention.heads": [1, 32],
        "layers.attention.head_dim": [64, 128],
        "layers.gate_up.oc": [1024, 22016],
        "layers.norm*.oc": [512, 4096],
        "layers.*o*.pattern": ["1:4", "2:8"],
    },
}


def changed(name: str, changes: dict[str, Any]) -> Workload:
    """The network with its file's text changed: nothing of the sweep's own code."""
    data = yaml.safe_load((Path(__file__).resolve().parents[1] / f"models/zoo/{name}.yaml").read_text())
    for key, value in changes.items():
        pattern, field = key.removeprefix("layers.").rsplit(".", 1)
        for layer in data["layers"]:
            if layer["name"] == pattern or (
                "*" in pattern
                and re.fullmatch(pattern.replace("*", ".*"), layer["name"])
                and (layer["op"] in ("conv2d", "linear") if field == "pattern" else field in layer)
            ):
                layer[field] = value
    return Workload.model_validate(data)


def swept(folder: Path, text: str) -> tuple[SweepSpec, dict[int, dict[str, str]]]:
    """The sweep's rows by number."""
    (folder / "s.yaml").write_text(HEAD + text)
    spec = SweepSpec.load(folder / "s.yaml")
    run_sweep(spec, folder / "out", executor=InlineExecutor())
    with (folder / "out/results.csv").open(newline="") as file:
        return spec, {int(row["point"]): row for row in csv.DictReader(file)}


def check(row: dict[str, str], totals: dict[str, Any]) -> None:
    for key in ("cycles", "stall_cycles", "dram_read_bytes", "dram_write_bytes", "dram_footprint_bytes"):
        assert int(row[key]) == totals[key], (key, row)
    for key in ("seconds", "utilization", "energy_j", *({"speedup_over_dense"} & row.keys())):
        assert float(row[key]) == pytest.approx(totals[key], rel=1e-8), (key, row)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), name=st.sampled_from(sorted(FIELDS)), method=st.sampled_from(["dense", "bdwp", "sdgp"]))
def test_every_point_equals_simulate(tmp_path_factory, data, name, method):
    keys = data.draw(st.lists(st.sampled_from(sorted(FIELDS[name])), min_size=1, max_size=3, unique=True))
    axes = {key: FIELDS[name][key] for key in keys} | {"dram_mb_s": [19200, 153600]}
    text = yaml.safe_dump(
        {"workload": name, "set": {"method": method, "batch": 4}, "axes": axes, "also": ["speedup_over_dense"]}
    )
    spec, found = swept(tmp_path_factory.mktemp("fields"), text)
    values = spec.values()
    assert list(values)[-1] == "dram_mb_s"  # layers vary slowest: designs of a network run side by side
    for number, point in enumerate(product(*values.values())):
        changes = dict(zip(values, point, strict=True))
        design = Accelerator.load("sat").replace(dram_mb_s=changes.pop("dram_mb_s"))
        try:
            totals = simulate(changed(name, changes), design, method=method, batch=4).totals
        except (NmsatError, ValueError):
            assert number not in found, changes
            continue
        check(found[number], totals)


def test_a_sequence_length_and_a_width(tmp_path):
    """A * sets every layer that gives the field; fields of one axis go together."""
    text = """\
workload: bert_base
set: {batch: 1}
axes:
  layers.*.tokens: {from: 128, to: 384, step: 128}
  width: [1024, 3072]
  side: [16, 32]
together:
  width: [layers.block0.fc1.oc, layers.block0.gelu.oc, layers.block0.fc2.ic]
  side: [rows, cols]
"""
    spec, found = swept(tmp_path, text)
    assert spec.values() == {"layers.*.tokens": [128, 256, 384], "width": [1024, 3072], "side": [16, 32]}
    assert list(found[0])[:4] == ["point", "layers.*.tokens", "width", "side"]
    assert len(found) == 12
    for number in (0, 7, 11):
        row = found[number]
        width, side = int(row["width"]), int(row["side"])
        fields = ("block0.fc1.oc", "block0.gelu.oc", "block0.fc2.ic")
        network = changed(
            "bert_base", {"layers.*.tokens": int(row["layers.*.tokens"])} | {f"layers.{f}": width for f in fields}
        )
        check(row, simulate(network, Accelerator.load("sat").replace(rows=side, cols=side), batch=1).totals)
    assert int(found[8]["cycles"]) > int(found[0]["cycles"])


def test_every_field_of_the_accelerator_is_an_axis(tmp_path):
    """What cycles do not depend on, too: the energy table changes energies, the memory port of the RTL nothing."""
    assert set(Accelerator.model_fields) - set(AXIS_FIELDS) == {"format", "name", "description"}
    table = tmp_path / "double.yaml"
    shipped = Path(__file__).resolve().parents[1] / "models/energy/vcu1525.yaml"
    content = yaml.safe_load(shipped.read_text())
    content["name"] = "double"
    for event in content["events"].values():
        for key in ("typical", "low", "high"):
            event[key] = 2 * event[key]
    table.write_text(yaml.safe_dump(content))
    axes = f"energy_table: [vcu1525, {table}]\n  axi_data_bits: [256, 512]\n  memory_latency_cycles: {{from: 20, to: 60, count: 3}}"
    _, found = swept(tmp_path, f"workload: digits-mlp\naxes:\n  {axes}\n")
    assert len(found) == 12
    assert len({row["cycles"] for row in found.values()}) == 1
    for row in found.values():
        design = Accelerator.load("sat").replace(energy_table=row["energy_table"])
        check(row, simulate(Workload.load("digits-mlp"), design).totals)


def test_combinations_that_no_layer_can_have_are_refused_with_their_number(tmp_path, capsys):
    text = "workload: digits-cnn\naxes: {layers.conv2.oc: [32, 33], layers.conv2.groups: [1, 2], rows: [4, 8, 16]}\n"
    (tmp_path / "s.yaml").write_text(HEAD + text)
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "12 points, 9 can run" in out
    assert "3 refused: layer 'conv2': groups: must divide oc=33, not 2" in out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {layers.fc.oc: [0]}", "layers.fc.oc: must be greater than or equal to 1, not 0"),
        ("axes: {layers.fc.oc: [1.5]}", "layers.fc.oc: must be a valid integer, not 1.5"),
        ("axes: {layers.fc.oc: []}", "axes.layers.fc.oc: must have at least one value"),
        ("axes: {layers.fc.op: [conv]}", "layers.fc.op: must be 'conv2d', 'linear'"),
        ("axes: {layers.fc.pattern: [2:4]}", 'YAML reads a bare 2:4 as the base-60 number 124; write "2:4" in quotes'),
        ("axes: {layers.fc.prune: {from: 0, to: 1, count: 2}}", "axes.layers.fc.prune: must be a list, not a range"),
        ("axes: {layers.fc.size: [1]}", "axes.layers.fc.size: must be layers.NAME.FIELD, FIELD one of op, ic, oc"),
        ("axes: {layers.oc: [1]}", "axes.layers.oc: must be layers.NAME.FIELD"),
        ("axes: {layers.fc9.oc: [1]}", r"layers.fc9.oc: must be a layer of 'digits-cnn' \(conv1, conv1.relu"),
        ("axes: {layers.*.heads: [1]}", r"layers.\*.heads: must be a layer of 'digits-cnn' that has heads, not '\*'"),
        ("axes: {layers.*.ic: [1], layers.fc.ic: [2]}", r"must be fields that layers.\*.ic does not set, not 'fc'"),
        ("axes: {layers.fc.ic: [1]}\nset: {layers.fc.ic: 2}", "set.layers.fc.ic: must not be an axis too"),
        ("axes: {a: [1]}\ntogether: {a: [rows]}", "together.a: must be two or more fields"),
        ("axes: {a: [1]}\ntogether: {a: [rows, rowz]}", "together.a: rowz: must be one of workload, method"),
        ("axes: {a: [1], rows: [2]}\ntogether: {a: [cols, rows]}", "axes.rows: must not be given twice, axes.a gives"),
        ("axes: {a: [1]}\ntogether: {a: [layers.fc.prune, layers.fc.x]}", "together.a: layers.fc.x: must be layers"),
        ("axes: {rows: [1]}\ntogether: {a: [rows, cols]}", "together.a: must be the name of an axis"),
        ("axes: {cycles: [1]}\ntogether: {cycles: [rows, cols]}", "together.cycles: must be a word of its own"),
        ("axes: {rows: [1]}\nset: {name: x}", "set.name: must be one of workload, method"),
        ("axes: {energy_table: [none]}", "energy table 'none': must be one of vcu1525"),
        ("axes: {axi_data_bits: [48]}", "axi_data_bits: must be a power of two, not 48"),
        ("axes: {method: [magic]}", "method: must be one of dense, sr-ste, sdgp, sdwp, bdwp, not 'magic'"),
        ("axes: {sparsity: ['2:9']}", "sparsity.group: must be one of 2, 4, 8, 16, 32, not 9"),
        ("axes: {batch: [0]}", "batch: must be an integer from 1 to 1048576, not 0"),
        ("axes: {mode: [test]}", "mode: must be one of train, infer, not 'test'"),
        ("axes: {pregenerate: [2]}", "pregenerate: must be true or false, not 2"),
        ("axes: {}", "axes: "),
        ("axes: {accumulator: [fp32, window]}\nalso: [lut]", "accumulator: must be fp32 where lut, ff, dsp, uram are"),
        ("axes: {rows: [8]}\naccelerator: sat_window\nalso: [dsp]", "accumulator: must be fp32 where lut, ff, dsp"),
        ("axes: {rows: {from: .nan, to: 4, count: 2}}", "axes.rows.*from: must be a finite number"),
        ("axes: {rows: {from: 1, to: 1.0e+15, step: 1.0e-300}}", "step: must be at most 1,000,000 values"),
        ("axes: {rows: {from: 1, to: 1.0e+30, count: 3}}", "axes.rows.*to: must be less than or equal to 1"),
        ("axes: {rows: [1]}\nconstraints: [{figure: cycles, max: .nan}]", "max: must be a finite number"),
        ("axes: {rows: [1]}\nobjectives: [beauty]", "objectives.0: must be "),
    ],
)
def test_bad_fields(tmp_path, capsys, text, message):
    (tmp_path / "s.yaml").write_text(f"{HEAD}workload: digits-cnn\n{text}\n")
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "-q"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith(f"nmsat: {tmp_path / 's.yaml'}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_file_in_the_docs_is_read(tmp_path):
    text = (Path(__file__).resolve().parents[1] / "docs/sweep.md").read_text()
    (tmp_path / "s.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    spec = SweepSpec.load(tmp_path / "s.yaml")
    assert spec.points() == 200
    assert spec.fields()["layers.layer3.0.conv1.w"] == "side"


def test_a_network_that_is_not_there(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(f"{HEAD}axes: {{workload: [digits-cnn, resnet51]}}\n")
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "-q"]) == 2
    assert "workload 'resnet51': must be one of bert_base" in capsys.readouterr().err


def test_layers_of_a_network_with_masks_are_fixed(tmp_path, capsys):
    import numpy as np

    from nmsat.models.workload_file import save_workload

    weights = {"fc2": np.ones((64, 64), np.float32)}
    save_workload(tmp_path / "net.yaml", Workload.load("digits-mlp"), batch=8, weights=weights)
    (tmp_path / "s.yaml").write_text(f"{HEAD}workload: {tmp_path / 'net.yaml'}\naxes: {{layers.fc2.oc: [8]}}\n")
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "-q"]) == 2
    assert "must be a layer without weights and masks of its own, not 'fc2'" in capsys.readouterr().err
