"""The command line: forms of output, bad input in one line with exit code 2, nothing half-written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise

import pytest

from nmsat.__main__ import main
from nmsat.dataflow.program import Program

ROW_KEYS = (
    "layer stage op m n k groups sparsity dataflow interleave tiles cycles compute_cycles stall_cycles macs useful_macs "
    "utilization dram_read_bytes dram_write_bytes energy_pj"
).split()
TOTAL_KEYS = (
    "cycles seconds macs useful_macs utilization gflops_dense_equivalent dram_read_bytes dram_write_bytes energy_j "
    "speedup_over_dense"
).split()


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("semantics", ["nmsat", "scalesim"])
def test_run_json(capsys, semantics):
    code, out, err = run(capsys, "run", "resnet18", "--semantics", semantics, "--json", "-")
    data = json.loads(out)
    assert (code, err) == (0, "")
    assert all(key in data["totals"] for key in TOTAL_KEYS)
    assert all(key in row for row in data["layers"] for key in ROW_KEYS)
    assert data["meta"]["semantics"] == semantics


def test_run_writes_every_form(capsys, tmp_path):
    names = {key: str(tmp_path / key) for key in ("csv", "json", "trace")}
    options = [part for key, name in names.items() for part in (f"--{key}", name)]
    code, out, _ = run(capsys, "run", "vgg19", "--batch", "16", *options)
    assert code == 0
    assert "vgg19 on sat: bdwp 2:8, batch 16, train" in out
    events = json.loads((tmp_path / "trace").read_text())["traceEvents"]
    total = json.loads((tmp_path / "json").read_text())["totals"]["cycles"]
    spans = [event for event in events if event["ph"] == "X"]
    assert round(sum(event["dur"] for event in spans) * 200) == total
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-6 for a, b in pairwise(spans))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csv", "json", "trace"]


def test_schedule_forms(capsys, tmp_path):
    binary, readable = tmp_path / "p.bin", tmp_path / "p.json"
    base = ["schedule", "digits-mlp", "-a", "sat_4x4", "--batch", "16", "-q", "-o"]
    assert run(capsys, *base, str(binary))[0] == 0
    assert run(capsys, *base, str(readable))[0] == 0
    program = Program.decode(binary.read_bytes())
    shown = json.loads(readable.read_text())
    assert len(shown["descriptors"]) == len(program.descriptors)
    code, out, _ = run(capsys, "schedule", "digits-mlp", "--layer", "fc2", "--json", "-")
    assert code == 0
    assert {item["layer"] for item in json.loads(out)["descriptors"]} == {"fc2"}


def test_list(capsys):
    _, out, _ = run(capsys, "list", "--json", "-")
    data = json.loads(out)
    assert len(data["workloads"]) == 14
    assert [item["name"] for item in data["accelerators"]] == ["sat", "sat_4x4", "sat_8x8", "sat_window"]
    assert "resnet50" in run(capsys, "list", "workloads")[1]
    assert run(capsys, "list", "-q")[1] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothere"], r"nmsat: workload 'nothere': must be one of bert_base, .*, or a \.yaml or .* or \.npz file"),
        (["run", "none.yaml"], r"nmsat: none\.yaml: must be an existing file; there is none of that name"),
        (["run", "{dir}/"], r"nmsat: .*: must be a file, not a folder"),
        (["run", "resnet18", "-a", "nothere"], r"nmsat: accelerator 'nothere': must be one of sat, sat_4x4, sat_8x8, sat_window, or a .yaml or .yml file"),
        (["run", "resnet18", "--sparsity", "8:2"], r"nmsat: sparsity\.keep: must be 1 to 2, not 8; .*"),
        (["run", "resnet18", "--sparsity", "2"], r'nmsat: sparsity: must be a pattern such as "2:8" or "dense", not \'2\''),
        (["run", "resnet18", "--batch", "0"], r"nmsat run: argument --batch: must be a positive integer, not '0'; see nmsat run --help"),
        (["run", "resnet18", "--batch", "1099511627776"], r"nmsat: batch: must be an integer from 1 to 1048576, not 1099511627776"),
        (["run", "resnet18", "--dataflow", "is"], r"nmsat: --dataflow: must be auto, os or ws, not 'is'; is exists under --semantics scalesim only"),
        (["run", "bert_base", "--semantics", "scalesim"], r"nmsat: layer 'block0\.attention': op: must be conv2d, .*"),
        (["run", "resnet18", "--json", "{dir}"], r"nmsat: output: must be a file, not a folder, not .*"),
        (["run", "resnet18", "--csv", "{dir}/no/x.csv"], r"nmsat: output: must be in an existing folder, not .*"),
        (["run", "digits-mlp", "-a", "sat_4x4", "--sparsity", "2:32"], r"nmsat: sparsity\.group: must be at most max_group = 16 .*"),
        (["schedule", "vgg19", "--layer", "x"], r"nmsat: --layer: must be a layer of vgg19, not 'x'"),
        (["schedule", "vgg19", "-o", "p.txt"], r"nmsat: -o: must be a \.json \(readable\) or \.bin \(encoded\) file, not 'p\.txt'"),
        (["frobnicate"], r"nmsat: argument COMMAND: invalid choice: 'frobnicate' .*; see nmsat --help"),
        ([], r"nmsat: the following arguments are required: COMMAND; see nmsat --help"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(capsys, tmp_path, arguments, message):
    arguments = [part.replace("{dir}", str(tmp_path)) for part in arguments]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.fullmatch(message, err.strip()), err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_leaves_output_files_alone(capsys, tmp_path):
    target = tmp_path / "result.json"
    target.write_text("precious")
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"\x00\xff\x13")
    assert run(capsys, "run", str(bad), "--json", str(target))[0] == 2
    assert target.read_text() == "precious"


@pytest.mark.parametrize("verb", ["list", "run", "schedule", "report"])
def test_every_verb_has_help_with_an_example(capsys, verb):
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert f"example: nmsat {verb}" in out


def test_help_imports_nothing_heavy():
    code = "import sys; from nmsat.__main__ import _parser; _parser(); print(sorted({'numpy', 'numba', 'pydantic', 'rich', 'matplotlib', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
