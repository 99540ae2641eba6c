"""Files that lie: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nmsat.__main__ import main

LAYER = "format: nmsat-workload/1\nname: n\nlayers:\n- {name: a, op: linear, ic: 16, oc: 8}\n"


def linear(weight: onnx.TensorProto, dims: tuple = ("n", 16)) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", weight.name], ["y"], transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def tensor(array: np.ndarray | None = None) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones((8, 16), np.float32) if array is None else array, "w")


def lying_dims(*dims: int) -> onnx.ModelProto:
    weight = tensor()
    del weight.dims[:]
    weight.dims.extend(dims)
    return linear(weight)


def external(**facts: str) -> onnx.ModelProto:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 16], data_location=TensorProto.EXTERNAL)
    for key, value in facts.items():
        weight.external_data.add(key=key, value=value)
    return linear(weight)


def node(op: str, *inputs: str) -> onnx.ModelProto:
    model = linear(tensor())
    del model.graph.node[:]
    model.graph.node.append(helper.make_node(op, inputs or ["x", "w"], ["y"]))
    return model


def nan() -> np.ndarray:
    found = np.ones((8, 16), np.float32)
    found[2, 3] = np.nan
    return found


ONNX = {
    "dims larger than the data": (lying_dims(8, 17), "must hold the 544 bytes of its shape, not 512"),
    "absurd dims": (lying_dims(2**40, 2**40), "at most 2\\^40 values"),
    "negative dims": (lying_dims(-8, 16), "dims: must be at most"),
    "outside": (external(location="../secret.bin"), "external data: must be a file in the model's folder"),
    "absolute": (external(location="/etc/passwd"), "external data: must be a file in the model's folder"),
    "no location": (external(), "external data: must be a file in the model's folder"),
    "a link outside": (external(location="link.bin"), "external data: must be a file in the model's folder"),
    "too short": (external(location="short.bin"), "the 512 bytes of the shape, inside the 100"),
    "offset beyond": (external(location="short.bin", offset="99999999999"), "inside the 100 of short.bin"),
    "length lies": (external(location="long.bin", length="4"), "the 512 bytes of the shape"),
    "offset no number": (external(location="long.bin", offset="-8"), "offset: must be a number"),
    "NaN": (linear(tensor(nan())), r"weight: must be finite numbers, not 'nan at \[2, 3\]"),
    "integers": (linear(tensor(np.ones((8, 16), np.int64))), "weight: must be of floating point"),
    "open dimension": (
        linear(tensor(), ("n", "features")),
        "open in its batch alone, not 'features'; give it with --dim",
    ),
    "features differ": (linear(tensor(), ("n", 17)), "must be"),
    "batch 0": (linear(tensor(), (0, 16)), "must be of a batch from 1"),
    "refused op": (node("ConvTranspose"), "ConvTranspose is not supported"),
    "unwritten input": (node("Gemm", "x", "nowhere"), "must read values written before it, not 'nowhere'"),
    "no product": (node("Relu", "x"), "must hold at least one convolution"),
    "computed weights": (node("Gemm", "x", "x"), "must have constant weights"),
}


@pytest.mark.parametrize("name", ONNX)
def test_hostile_onnx(name, tmp_path, capsys):
    model, message = ONNX[name]
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(512))
    (inside / "short.bin").write_bytes(bytes(100))
    (inside / "long.bin").write_bytes(bytes(1000))
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "net.onnx").write_bytes(model.SerializeToString())
    refused(inside / "net.onnx", message, capsys)


def refused(path: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir(path.parent))
    assert main(["export", str(path), "-o", str(path.parent / "w.yaml"), "--json", str(path.parent / "w.json")]) == 2
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert re.search(message, line), line
    assert sorted(os.listdir(path.parent)) == before


def test_external_data_inside_the_folder_is_read(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(16) + np.ones((8, 16), np.float32).tobytes())
    (tmp_path / "net.onnx").write_bytes(external(location="w.bin", offset="16", length="512").SerializeToString())
    assert main(["export", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "w.yaml"), "-q"]) == 0


def safetensors(header: object, data: bytes = bytes(512), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = {"dtype": "F32", "shape": [8, 16], "data_offsets": [0, 512]}
SAFETENSORS = {
    "empty": (b"", "must be a safetensors file, not 0 bytes"),
    "header longer than the file": (safetensors({}, length=2**63), "header must fit the file"),
    "no JSON": (safetensors(b"{"), "header must be JSON"),
    "deep JSON": (safetensors(b"[" * 100_000), "header must be JSON"),
    "no object": (safetensors([]), "header must be a JSON object"),
    "beyond the file": (safetensors({"a": ENTRY | {"data_offsets": [0, 2**40]}}), "inside the 512 bytes of data"),
    "backwards": (safetensors({"a": ENTRY | {"data_offsets": [512, 0]}}), "inside the 512 bytes of data"),
    "negative": (safetensors({"a": ENTRY | {"data_offsets": [-512, 0]}}), "an entry of dtype, shape"),
    "absurd shape": (safetensors({"a": ENTRY | {"shape": [2**40, 2**20]}}), "the bytes of shape"),
    "shape of text": (safetensors({"a": ENTRY | {"shape": "8x16"}}), "an entry of dtype, shape"),
    "integers": (safetensors({"a": ENTRY | {"dtype": "I32"}}), "dtype: must be one of F16, F32, F64, BF16"),
    "another layer": (safetensors({"b": ENTRY}), "a: must be given a tensor a.weight or a, not 'b'"),
    "another shape": (safetensors({"a": ENTRY | {"shape": [16, 8]}}), r"of shape \(8, 1, 1, 16\)"),
    "NaN": (safetensors({"a": ENTRY}, b"\xff" * 512), "must be finite numbers"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_hostile_safetensors(name, tmp_path, capsys):
    content, message = SAFETENSORS[name]
    (tmp_path / "net.yaml").write_text(LAYER)
    (tmp_path / "net.safetensors").write_bytes(content)
    refused(tmp_path / "net.safetensors", message, capsys)


class Evil:
    """Unpickling it writes a file."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("unpickled",)


def test_a_pickled_npz_is_never_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(LAYER)
    np.savez(tmp_path / "net.npz", a=np.array([Evil()], object))
    refused(tmp_path / "net.npz", r"not of Python objects \(a pickle\)", capsys)
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as archive:
        archive.writestr("a.npy", pickle.dumps(Evil()))
    refused(tmp_path / "net.npz", "must be a readable array", capsys)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors", ".npz", ".txt"])
def test_missing_files_and_folders(suffix, tmp_path, capsys):
    refused(tmp_path / f"nothing{suffix}", "must be", capsys)
    (tmp_path / f"folder{suffix}").mkdir()
    refused(tmp_path / f"folder{suffix}", "must be", capsys)


def test_a_tensor_file_needs_its_yaml(tmp_path, capsys):
    np.savez(tmp_path / "net.npz", a=np.ones((8, 16), np.float32))
    refused(tmp_path / "net.npz", "must have a workload YAML net.yaml beside it", capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pattern", "9:8"], "sparsity"),
        (["--pattern", "two"], 'must be a pattern such as "2:8"'),
        (["--dim", "seq"], "--dim: must be NAME=SIZE"),
        (["--batch", "1048577"], "batch: must be an integer from 1 to 1048576"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, capsys):
    (tmp_path / "net.onnx").write_bytes(linear(tensor()).SerializeToString())
    assert main(["export", str(tmp_path / "net.onnx"), "-o", str(tmp_path / "w.yaml"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["net.onnx"]
