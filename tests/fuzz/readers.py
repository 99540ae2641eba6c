"""Feed mutated files to one reader: `python tests/fuzz/readers.py KIND FILES SEED FOLDER`.

Every file must be read or refused by an NmsatError of one line, within 10 s and the address space set here. Prints a JSON object:
files, refused, and the failures with the seed that makes them again. Run by tests/test_importers_fuzz.py in a process of its
own, so that a crash or a full memory of a library is a failure too.
"""

from __future__ import annotations

import faulthandler
import io
import json
import random
import resource
import signal
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

SEEDS = Path(__file__).resolve().parents[1] / "fixtures"
ADDRESS_SPACE_BYTES = 3 * 2**30  # numba, onnx and their threads' stacks take 1.5 GiB of it before the first file
INTERESTING = [
    b"\xff" * 8,
    b"\x00" * 8,
    b"\xff\xff\xff\xff\x07",
    b"\x7f",
    b"\x80",
    b"-1",
    b"99999999999",
    b"1e999",
    b"NaN",
]
INTERESTING += [
    b"[]",
    b"{}",
    b"null",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"PK\x03\x04",
    b"../../x",
    b"0",
    b":",
    b"(,",
]


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to eight small edits of a file, sometimes a cut or a splice."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(found) + 1) if found else 0
        kind = rng.randrange(8)
        if kind <= 1 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and at < len(found):
            found[at] = rng.randrange(256)
        elif kind == 3:
            found[at:at] = rng.choice(INTERESTING)
        elif kind == 4:
            piece = rng.choice(INTERESTING)
            found[at : at + len(piece)] = piece
        elif kind == 5:
            del found[at : at + rng.choice((1, 2, 4, 64, 1000))]
        elif kind == 6 and rng.random() < 0.3:
            del found[at:]
        elif kind == 7:
            start = rng.randrange(len(other) + 1)
            found[at:at] = other[start : start + rng.choice((1, 8, 64))]
    return bytes(found)


def edited_archive(rng: random.Random, data: bytes) -> bytes:
    """An archive with one member edited, its checksum put right: JSON leaf by leaf, raw bytes as any file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {item.filename: archive.read(item) for item in archive.infolist()}
    documents = [name for name in members if name.endswith(".json")]
    name = rng.choice(documents if rng.random() < 0.8 else list(members))
    if name.endswith(".json") and rng.random() < 0.9:
        document = json.loads(members[name])
        for _ in range(rng.choice((1, 1, 2, 4))):
            _edit(rng, document)
        members[name] = json.dumps(document).encode()
    elif rng.random() < 0.2:
        del members[name]
    else:
        members[name] = mutated(rng, members[name], rng.choice(list(members.values())))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return packed.getvalue()


def _edit(rng: random.Random, document: Any) -> None:
    """Replace, delete, double or swap something at a random depth."""
    at = document
    while isinstance(at, dict | list) and at:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = rng.choice(keys)
        inner = at[key]
        if not (isinstance(inner, dict | list) and inner) or rng.random() < 0.06:
            values = (None, -1, 0, 1, 2**31, 2**70, 1e308, "", "x", "../x", [], {}, [[]], True, inner, [inner], at)
            value = rng.choice(values[:-1]) if rng.random() < 0.9 else at[rng.choice(keys)]
            if rng.random() < 0.15:
                del at[key]
            elif isinstance(at, list) and rng.random() < 0.3:
                at.insert(key, value)
            else:
                at[key] = value
            return
        at = inner


def small_onnx() -> bytes:
    """A model whose bytes are structure rather than weights: every kind of node the reader knows."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)

    def constant(name: str, *shape: int) -> object:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node(
            "Conv", ["x", "a.weight"], ["1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], group=1
        ),
        helper.make_node("BatchNormalization", ["1", "s", "s", "s", "s"], ["2"]),
        helper.make_node("Relu", ["2"], ["3"]),
        helper.make_node("MaxPool", ["3"], ["4"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Reshape", ["4", "shape"], ["5"]),
        helper.make_node("Transpose", ["wt"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["5", "w"], ["6"]),
        helper.make_node("Transpose", ["6"], ["7"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["6", "7"], ["8"]),
        helper.make_node("Softmax", ["8"], ["9"], axis=-1),
        helper.make_node("MatMul", ["9", "6"], ["10"]),
        helper.make_node("Add", ["10", "6"], ["11"]),
        helper.make_node("Sigmoid", ["11"], ["12"]),
        helper.make_node("Mul", ["11", "12"], ["13"]),
        helper.make_node("ReduceMean", ["13", "axis"], ["14"], keepdims=0),
        helper.make_node("Gemm", ["14", "b.weight"], ["y"], transB=1),
    ]
    held = [constant("a.weight", 4, 2, 3, 3), constant("s", 4), constant("wt", 4, 4), constant("b.weight", 3, 4)]
    held += [numpy_helper.from_array(np.array(x, np.int64), n) for n, x in (("shape", [-1, 4, 4]), ("axis", [1]))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def originals(kind: str, folder: Path) -> list[bytes]:
    from nmsat.models import Workload
    from nmsat.models.workload_file import save_workload

    if kind == "onnx":
        return [small_onnx()] * 4 + [(SEEDS / f"{x}.onnx").read_bytes() for x in ("block416_legacy", "cnn24_dynamo")]
    if kind == "pt2":
        return [(SEEDS / f"{x}.pt2").read_bytes() for x in ("mlp28", "wave24", "wave24", "block416", "cnn24_core")]
    layers = [
        {"name": "a", "op": "linear", "ic": 16, "oc": 8},
        {"name": "b", "op": "conv2d", "ic": 8, "oc": 8, "kh": 3, "kw": 3},
    ]
    layers[0]["extra"] = [{"kind": "low-rank", "rank": 2}]
    layers[1] |= {"h": 5, "w": 5, "pad": 1, "extra": [{"kind": "block-diagonal", "blocks": 4, "side": "out"}]}
    net = Workload.model_validate({"name": "n", "layers": layers})
    rng = np.random.default_rng(1)
    weights = {"a": rng.normal(size=(8, 1, 1, 16)).astype(np.float32), "b": np.ones((8, 3, 3, 8), np.float32)}
    weights["a"].reshape(-1, 8)[:, 2:] = 0
    weights |= {"a.down": np.ones((2, 1, 1, 16), np.float32), "a.up": np.ones((8, 1, 1, 2), np.float32)}
    facts = {"masks": {("a", "ff"): weights["a"] != 0}, "patterns": {("a", "ff"): "2:8"}, "activations": {"b": 0.5}}
    save_workload(folder / "net.yaml", net, batch=2, weights=weights, **facts)
    if kind == "yaml":
        return [(folder / "net.yaml").read_bytes()]
    if kind == "workload-npz":
        return [(folder / "net.npz").read_bytes()]
    (folder / "net.yaml").write_text(json.dumps({"name": "n", "layers": layers}))
    named = {f"{k}.weight": x.transpose(0, 3, 1, 2) if k == "b" else x[:, 0, 0] for k, x in weights.items()}
    if kind == "npz":
        np.savez(folder / "net.npz", **named)
        np.savez_compressed(folder / "packed.npz", **named)
        return [(folder / f"{x}.npz").read_bytes() for x in ("net", "packed")]
    from safetensors.numpy import save

    return [save({k: np.ascontiguousarray(x) for k, x in named.items()}, metadata={"format": "np"})]


def read(kind: str, folder: Path, content: bytes) -> None:
    from nmsat.models.importers import import_network
    from nmsat.models.workload_file import load_workload, sha256_of

    if kind in ("yaml", "workload-npz"):
        if kind == "yaml":
            (folder / "net.yaml").write_bytes(content)
        else:  # with its digest put right, so that more than the digest is tried
            (folder / "net.npz").write_bytes(content)
            text = (folder / "net.yaml").read_text()
            before = text.split("sha256: ")[1][:64]
            (folder / "net.yaml").write_text(text.replace(before, sha256_of(folder / "net.npz")))
        load_workload(folder / "net.yaml")
        return
    path = folder / f"net.{kind}"
    path.write_bytes(content)
    import_network(path, batch=2)


def main(kind: str, files: int, seed: int, folder: Path) -> None:
    from nmsat.models import NmsatError

    warnings.simplefilter("error")
    faulthandler.enable()
    seeds = originals(kind, folder)
    for content in seeds:
        read(kind, folder, content)  # the originals are good
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))

    def late(*_: object) -> None:
        raise TimeoutError("10 s")

    signal.signal(signal.SIGALRM, late)
    refused, failures = 0, []
    for number in range(files):
        rng = random.Random(f"{kind}/{seed}/{number}")
        content = rng.choice(seeds)
        if kind == "pt2" and rng.random() < 0.85:
            content = edited_archive(rng, content)
        else:
            content = mutated(rng, content, rng.choice(seeds))
        signal.alarm(10)
        try:
            read(kind, folder, content)
        except NmsatError as error:
            refused += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                failures.append(f"{number}: {str(error)[:300]!r} is no line")
        except Exception as error:  # the point of this program
            failures.append(f"{number}: {type(error).__name__}: {str(error)[:300]}")
        finally:
            signal.alarm(0)
    print(json.dumps({"files": files, "refused": refused, "failures": failures[:20]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
