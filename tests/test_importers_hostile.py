"""Files that lie: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import io
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


# --- archives of torch.export -----------------------------------------------------------------------------------------

MLP = Path(__file__).parent / "fixtures" / "mlp28.pt2"
MODEL, WEIGHTS = "mlp28/models/model.json", "mlp28/data/weights/model_weights_config.json"


def archive(change=lambda members: None, names=lambda name: name) -> bytes:
    """The MLP's archive with its members changed; JSON ones are given parsed."""
    with zipfile.ZipFile(MLP) as held:
        members = {item.filename: held.read(item) for item in held.infolist()}
    parsed = {k: json.loads(v) if k.endswith(".json") else v for k, v in members.items()}
    change(parsed)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parsed.items():
            made.writestr(names(name), json.dumps(content).encode() if not isinstance(content, bytes) else content)
    return packed.getvalue()


def entry(members: dict) -> dict:
    return members[WEIGHTS]["config"]["0.weight"]


def put(place: str, value: object):
    """Change one field of the first weight's entry."""

    def change(members: dict) -> None:
        held = entry(members)
        *path, last = place.split(".")
        for key in path:
            held = held[key]
        held[last] = value

    return change


def nodes(members: dict) -> list:
    return members[MODEL]["graph_module"]["graph"]["nodes"]


def values(members: dict) -> dict:
    return members[MODEL]["graph_module"]["graph"]["tensor_values"]


def no_hint(members: dict) -> None:
    values(members)["x" if "x" in values(members) else "input"]["sizes"][0]["as_expr"]["hint"] = None


def int64(value: int) -> dict:
    return {"as_int": value}


def bad_weight(members: dict) -> None:
    name = f"mlp28/data/weights/{entry(members)['path_name']}"
    members[name] = np.full(64 * 64, np.nan, np.float32).tobytes()


ARCHIVES = {
    "no zip": (lambda: b"PK\x03\x04 nothing", "must be a torch.export archive"),
    "cut": (lambda: MLP.read_bytes()[:9000], "must be a torch.export archive"),
    "old": (
        lambda: archive(names=lambda name: name.replace("models/model.json", "serialized_exported_program.json")),
        "an archive of old torch holds a pickle; export again with torch 2.9 or newer",
    ),
    "pickle": (lambda: archive(put("use_pickle", True)), "must be raw bytes, not a pickle"),
    "two tops": (lambda: archive(names=lambda n: n.replace("mlp28/byteorder", "x/byteorder")), "with one top folder"),
    "big endian": (lambda: archive(lambda m: m.update({"mlp28/byteorder": b"big"})), "byteorder: must be little, not 'big'"),
    "no model": (lambda: archive(lambda m: m.pop(MODEL)), "models: must be one JSON program"),
    "no json": (lambda: archive(lambda m: m.update({MODEL: b"{"})), "must be JSON"),
    "deep json": (lambda: archive(lambda m: m.update({MODEL: b"[" * 100_000})), "must be JSON"),
    "missing weight": (lambda: archive(lambda m: m[WEIGHTS]["config"].pop("0.weight")), "must be among the archive's weights"),
    "missing bytes": (lambda: archive(put("path_name", "../../etc/passwd")), "with the member data/weights/../../etc/passwd"),
    "dtype": (lambda: archive(put("tensor_meta.dtype", 9)), "dtype: must be one of 1, 2,"),
    "size": (lambda: archive(put("tensor_meta.sizes", [int64(64), int64(2**40)])), "sizes and strides: must be inside"),
    "negative": (lambda: archive(put("tensor_meta.sizes", [int64(-1), int64(64)])), "sizes and strides: must be inside"),
    "stride": (lambda: archive(put("tensor_meta.strides", [int64(65), int64(1)])), "sizes and strides: must be inside"),
    "negative stride": (lambda: archive(put("tensor_meta.strides", [int64(-64), int64(1)])), "sizes and strides: must be inside"),
    "bomb": (lambda: archive(lambda m: (put("tensor_meta.sizes", [int64(10**6)] * 2)(m), put("tensor_meta.strides", [int64(0)] * 2)(m))), "sizes and strides: must be inside"),
    "offset": (lambda: archive(put("tensor_meta.storage_offset", int64(1))), "sizes and strides: must be inside"),
    "nan": (lambda: archive(bad_weight), "weight: must be finite numbers"),
    "open size": (lambda: archive(no_hint), "must have known sizes"),
    "unwritten": (lambda: archive(lambda m: nodes(m).pop(0)), "must read values written before it"),
    "operator": (lambda: archive(lambda m: nodes(m)[0].update(target="torch.ops.aten.einsum.default")), "einsum is not supported"),
    "control flow": (lambda: archive(lambda m: nodes(m)[0].update(target="torch.ops.higher_order.cond")), "is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_lie(name, tmp_path, capsys):
    make, message = ARCHIVES[name]
    (tmp_path / "net.pt2").write_bytes(make())
    assert main(["export", str(tmp_path / "net.pt2"), "-o", str(tmp_path / "w.yaml")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"nmsat: {tmp_path / 'net.pt2'}")
    assert error.count("\n") == 1
    assert not (tmp_path / "w.yaml").exists()


def test_the_changed_archive_is_good_without_a_change(tmp_path):
    (tmp_path / "net.pt2").write_bytes(archive())
    assert main(["export", str(tmp_path / "net.pt2"), "-o", str(tmp_path / "w.yaml"), "-q"]) == 0


def test_a_pickle_in_an_archive_is_never_opened(tmp_path):
    """Sample inputs are a pickle that torch writes; whatever stands there changes nothing."""
    hostile = pickle.dumps(Ellipsis)
    (tmp_path / "net.pt2").write_bytes(archive(lambda m: m.update({"mlp28/data/sample_inputs/model.pt": hostile})))
    assert main(["export", str(tmp_path / "net.pt2"), "-o", str(tmp_path / "w.yaml"), "-q"]) == 0
