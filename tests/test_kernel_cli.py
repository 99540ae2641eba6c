"""`nmsat kernel`: list, emit, run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.dataflow.kernels import Kernel, pack
from nmsat.dataflow.kernels.presets import PRESETS, preset
from nmsat.dataflow.kernels.samples import sample_input, sample_weights
from nmsat.models.errors import MissingToolError, NmsatError
from nmsat.simulator.kernels import engines, node, reference
from nmsat.simulator.kernels.engines import execute
from nmsat.simulator.kernels.wasm import load_wasmtime

HAS_NODE = pytest.mark.skipif(
    shutil.which("node") is None,
    reason="Node.js is not installed; install it with: apt-get install nodejs (20 or newer)",
)


def test_list_names_every_preset(capsys):
    assert main(["kernel", "list", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(PRESETS)
    assert {"32x1-standin", "dense"} <= set(PRESETS)
    assert main(["kernel", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(name, capsys):
    command = ["kernel", "run", name, "--shape", "49x21x35", "--engine", "wasmtime", "--engine", "numba", "--json", "-"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["engine"] for r in rows] == ["wasmtime", "numba"]
    assert [r["bits_differing"] for r in rows] == [0, 0]
    assert rows[0]["guards_intact"] is True
    assert rows[0]["footprint_bytes"] > 0


@HAS_NODE
@pytest.mark.parametrize("name", PRESETS)
def test_node_equals_the_reference(name):
    """Fused kernels too: V8 uses the processor's fused multiply-add for relaxed SIMD where there is one."""
    kernel = preset(name)
    for m in (1, 30):
        outcome = execute("node", pack(kernel, sample_weights(kernel, (m, 21, 35), 0.8)), sample_input((m, 21, 35)))
        assert outcome.ok, (name, m, outcome)


@HAS_NODE
@pytest.mark.parametrize("n", [4, 21, 22, 23])
def test_node_runs_slices_of_every_height(n):
    kernel = preset("sliced")
    for m in (1, 2, 3):
        for zeros in (0.7, 1.0):
            packed = pack(kernel, sample_weights(kernel, (m, n, 35), zeros))
            outcome = execute("node", packed, sample_input((m, n, 35)))
            assert outcome.ok, (n, m, zeros, outcome)


@HAS_NODE
def test_node_sees_a_stray_write_and_a_refusal():
    image, _, outputs = node.products_image([(pack(Kernel(), np.ones((2, 2), np.float32)), 5)])
    with node.NodeInstance(image) as instance:
        assert instance.guards_intact()
        instance.put(outputs[0] + 4 * 10, np.zeros(1, np.float32))
        assert not instance.guards_intact()
        with pytest.raises(NmsatError, match=r"^node: run: must be accepted by Node.js"):
            instance.run(layer="no such export")
        with pytest.raises(NmsatError, match=r"^kernel: repeat: must be at least 1, not 0"):
            instance.run(0)


def test_node_missing_says_how_to_install(monkeypatch):
    monkeypatch.setattr(node.shutil, "which", lambda name: None)
    with pytest.raises(MissingToolError, match=r"^Node.js is not installed; install it with: apt-get install nodejs"):
        node.find_node()


def test_wrong_bits_fail(monkeypatch, capsys):
    def broken(packed, x):
        y = reference.multiply(packed, x)
        y[0, 0] = np.nextafter(y[0, 0], np.float32(np.inf))
        return y, None

    monkeypatch.setitem(engines.ENGINES, "numba", broken)
    assert main(["kernel", "run", "sparse", "--shape", "5x4x3", "--engine", "numba"]) == 1
    assert "numba: 1 of 20 values differ in bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run sparse --shape 0x4x4", "nmsat kernel run: argument --shape: must be a positive integer, not '0'"),
        ("run sparse --shape 4x0x4", "must be a positive integer, not '0'"),
        ("run sparse --shape 4x4x0", "must be a positive integer, not '0'"),
        ("run sparse --shape 4x4", "nmsat kernel run: argument --shape: must be MxNxK, not '4x4'"),
        ("run nothing", "nmsat: kernel: must be one of sparse, "),
        ("run sparse --shape 4x4x4 --sparsity 1.5", "nmsat: sparsity: must be a share of zeros from 0 to 1, not 1.5"),
        ("run sparse --shape 4x4x4 --sparsity nan", "nmsat: sparsity: must be a share of zeros from 0 to 1, not nan"),
        ("run sparse --shape 4x4x4 --engine v9", "nmsat: engine: must be one of wasmtime, node, numba"),
        ("run sparse --shape 4x4x4 --seed -1", "nmsat: --seed: must be 0 or more, not -1"),
        ("emit sparse -o /nowhere/x.wat", "nmsat: output: must be in an existing folder, not '/nowhere/x.wat'"),
    ],
)
def test_bad_input_is_one_line(command, message, capsys):
    try:
        code = main(["kernel", *command.split()])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_emitted_modules_stand_alone(tmp_path, capsys):
    """Text and binary hold weights and addresses: only X is written and Y read."""
    wasmtime, m, n, k = load_wasmtime(), 9, 6, 10
    command = ["kernel", "emit", "block2", "--shape", f"{m}x{n}x{k}", "--sparsity", "0.5", "-o"]
    assert main([*command, str(tmp_path / "a.wat")]) == 0
    assert main([*command, str(tmp_path / "a.wasm")]) == 0
    assert main([*command, "-"]) == 0
    assert capsys.readouterr().out == (tmp_path / "a.wat").read_text()
    kernel = preset("block2")
    x = sample_input((m, n, k))
    expected = reference.multiply(pack(kernel, sample_weights(kernel, (m, n, k), 0.5)), x)
    config = wasmtime.Config()
    config.wasm_relaxed_simd = True
    engine = wasmtime.Engine(config)
    for name in ("a.wat", "a.wasm"):
        store = wasmtime.Store(engine)
        exports = wasmtime.Instance(store, wasmtime.Module.from_file(engine, str(tmp_path / name)), []).exports(store)
        memory = exports["memory"]
        memory.write(store, x.tobytes(), exports["x0"].value(store))
        exports["run"](store, 1)
        at = exports["y0"].value(store)
        y = np.frombuffer(bytes(memory.read(store, at, at + 4 * n * m)), np.float32).reshape(n, m)
        assert np.array_equal(y.view(np.uint32), expected.view(np.uint32))


def test_samples_have_the_structure_asked_for():
    for name in ("2:4", "2:8", "1:8"):
        kernel = preset(name)
        w = sample_weights(kernel, (1, 12, 20), 0.0)
        padded = np.zeros((12, 24), bool)
        padded[:, :20] = w != 0
        assert padded.reshape(12, -1, kernel.pattern.group).sum(axis=2).max() == kernel.pattern.keep
    w = sample_weights(preset("block4"), (1, 10, 300), 0.7) != 0
    assert (w[:4].all(axis=0) | ~w[:4].any(axis=0)).all()
    assert (w[8:].all(axis=0) | ~w[8:].any(axis=0)).all()
    assert 0.6 < 1 - sample_weights(preset("sparse"), (1, 100, 100), 0.7).astype(bool).mean() < 0.8


def test_help_has_an_example():
    done = subprocess.run([sys.executable, "-m", "nmsat", "kernel", "run", "--help"], capture_output=True, text=True)
    assert "example: nmsat kernel run" in done.stdout
