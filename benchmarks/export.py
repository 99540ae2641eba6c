"""`nmsat export` of a ResNet-50-sized ONNX file (25 M weights, 2:8): bar < 5 s and < 1 GB peak, whole process."""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from nmsat.models import Workload

BAR_SECONDS, BAR_MB = 5, 1000


def resnet50(path: Path) -> int:
    """The zoo's ResNet-50 as ONNX nodes, its convolutions pruned 2:8; returns the number of weights."""
    rng, nodes, held, total = np.random.default_rng(1), [], [], 0
    net = Workload.load("resnet50")
    writers = net.inputs_of()
    for layer in net.layers:
        source = [writers[layer.name][0] if writers[layer.name] else "x"]
        if layer.op == "elementwise":
            if layer.function == "add":
                nodes.append(helper.make_node("Add", list(writers[layer.name]), [layer.name], name=layer.name))
            elif layer.function in ("maxpool", "avgpool"):
                kind = "MaxPool" if layer.function == "maxpool" else "AveragePool"
                shape = {"kernel_shape": [layer.kh, layer.kw], "strides": [layer.stride] * 2, "pads": [layer.pad] * 4}
                nodes.append(helper.make_node(kind, source, [layer.name], **shape))
            else:  # batch normalisation is folded; the loss is the trainer's
                op = "Relu" if layer.function == "relu" else "Identity"
                nodes.append(helper.make_node(op, source, [layer.name]))
            continue
        shape = (layer.oc, layer.kh, layer.kw, layer.ic)
        weight = rng.standard_normal(shape, np.float32)
        if layer.ic % 8 == 0 and layer.op == "conv2d":
            weight.reshape(-1, 8)[:, 2:] = 0
        total += weight.size
        name = f"{layer.name}.weight"
        if layer.op == "conv2d":
            held.append(numpy_helper.from_array(np.ascontiguousarray(weight.transpose(0, 3, 1, 2)), name))
            shape = {"kernel_shape": [layer.kh, layer.kw], "strides": [layer.stride] * 2, "pads": [layer.pad] * 4}
            nodes.append(helper.make_node("Conv", [*source, name], [layer.name], **shape))
        else:
            held.append(numpy_helper.from_array(weight.reshape(layer.oc, layer.ic), name))
            nodes.append(helper.make_node("Flatten", source, [f"{name}.flat"]))
            nodes.append(helper.make_node("Gemm", [f"{name}.flat", name], [layer.name], transB=1))
    first = net.layers[0]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", first.ic, first.h, first.w])
    y = helper.make_tensor_value_info(net.layers[-1].name, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "resnet50", [x], [y], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(model.SerializeToString())
    return total


def export(folder: Path) -> tuple[float, float, float]:
    """(seconds, CPU seconds, peak resident MB) of one export in a process of its own."""
    command = [sys.executable, "-m", "nmsat", "export", str(folder / "net.onnx"), "-o", str(folder / "w.yaml"), "-q"]
    start = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"export failed: {status}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


with tempfile.TemporaryDirectory() as name:
    weights = resnet50(Path(name) / "net.onnx")
    runs = [export(Path(name)) for _ in range(3)]
seconds, cpu, peak = min(run[0] for run in runs), min(run[1] for run in runs), max(run[2] for run in runs)
missed = seconds >= BAR_SECONDS or peak >= BAR_MB
verdict = "MISS" if missed else "PASS"
bars = f"bar < {BAR_SECONDS} s, < {BAR_MB} MB"
found = f"{seconds:.2f} s ({cpu:.2f} s of CPU time), {peak:.0f} MB peak"
print(f"export {weights / 1e6:.1f} M weights: {found}, {bars}: {verdict}")
sys.exit(missed)
