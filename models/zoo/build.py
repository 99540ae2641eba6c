"""The zoo's networks, as code: ``python -m nmsat.models.zoo.build DIR`` writes the YAML files.

Sources: the papers that define each network; widths, strides and paddings as in their reference
implementations. Multiply-accumulate totals are checked by tests/test_zoo.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
FIRST = {"input_gradient": True}  # of a first product whose input, an embedding, is trained


class Net:
    """Collects layer entries while tracking the feature map's size and channels."""

    def __init__(self, channels: int, size: int) -> None:
        self.c, self.s = channels, size
        self.layers: list[Entry] = []

    def add(self, name: str, op: str, **fields: Any) -> None:
        self.layers.append({"name": name, "op": op, **fields})

    @property
    def last(self) -> str:
        """Name of the latest layer."""
        return self.layers[-1]["name"]

    def reads(self, *names: str) -> None:
        """The latest layer reads these instead of the one before it."""
        if names != (self.layers[-2]["name"],):
            self.layers[-1]["inputs"] = list(names)

    def residual(self, name: str, function: str, other: str) -> None:
        """An elementwise layer of the one before and another."""
        before = self.last
        self.each(name, function)
        self.reads(before, other)

    def conv(self, name: str, oc: int, k: int, stride: int = 1, pad: int | None = None, **more: Any) -> None:
        pad = k // 2 if pad is None else pad
        self.add(name, "conv2d", ic=self.c, oc=oc, kh=k, kw=k, h=self.s, w=self.s, stride=stride, pad=pad, **more)
        self.s, self.c = (self.s + 2 * pad - k) // stride + 1, oc

    def depthwise(self, name: str, k: int, stride: int = 1) -> None:
        p = k // 2
        self.add(
            name,
            "depthwise",
            ic=self.c,
            oc=self.c,
            groups=self.c,
            kh=k,
            kw=k,
            h=self.s,
            w=self.s,
            stride=stride,
            pad=p,
        )
        self.s = (self.s + 2 * p - k) // stride + 1

    def each(self, name: str, *functions: str) -> None:
        for function in functions:
            self.add(f"{name}.{function}", "elementwise", function=function, oc=self.c, h=self.s, w=self.s)

    def pool(self, name: str, function: str, k: int, stride: int, pad: int = 0) -> None:
        self.add(
            name,
            "elementwise",
            function=function,
            oc=self.c,
            kh=k,
            kw=k,
            h=self.s,
            w=self.s,
            stride=stride,
            pad=pad,
        )
        self.s = (self.s + 2 * pad - k) // stride + 1

    def head(self, classes: int) -> None:
        self.add("fc", "linear", ic=self.c * self.s * self.s, oc=classes, prune=False)
        self.add("loss", "elementwise", function="cross_entropy", oc=classes)


def _residual_pair(net: Net, name: str, width: int) -> None:
    skip = net.last
    for i in (1, 2):
        net.conv(f"{name}.{i}", width, 3)
        net.each(f"{name}.{i}", "batchnorm", "relu")
    net.residual(f"{name}.2", "add", skip)


def resnet9() -> Net:
    """ResNet9 for CIFAR-10, the variant of the SDGP experiments."""
    net = Net(3, 32)
    net.conv("conv0", 128, 3, prune=False)
    net.each("conv0", "batchnorm", "relu")
    net.conv("conv1", 256, 5, 2, 2)
    net.each("conv1", "batchnorm", "relu")
    _residual_pair(net, "res1", 256)
    net.conv("conv2", 512, 3)
    net.each("conv2", "batchnorm", "relu")
    net.pool("pool2", "maxpool", 2, 2)
    _residual_pair(net, "res2", 512)
    net.conv("conv3", 256, 3, pad=0)
    net.each("conv3", "batchnorm", "relu")
    net.pool("pool3", "maxpool", net.s, net.s)
    net.head(10)
    return net


def vgg19() -> Net:
    """VGG19 with batch normalisation for CIFAR-100."""
    net = Net(3, 32)
    for stage, (count, width) in enumerate(((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)), 1):
        for i in range(1, count + 1):
            net.conv(f"conv{stage}_{i}", width, 3, **({"prune": False} if net.c == 3 else {}))
            net.each(f"conv{stage}_{i}", "batchnorm", "relu")
        net.pool(f"pool{stage}", "maxpool", 2, 2)
    net.head(100)
    return net


def _resnet(net: Net, blocks: tuple[int, ...], bottleneck: bool, classes: int) -> Net:
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), 1):
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}.{block}"
            c_in, s_in, skip = net.c, net.s, net.last
            entry = skip
            out = width * 4 if bottleneck else width
            shapes = (
                ((width, 1, 1), (width, 3, stride), (out, 1, 1)) if bottleneck else ((width, 3, stride), (out, 3, 1))
            )
            if stride != 1 or c_in != out:
                net.conv(f"{name}.downsample", out, 1, stride, 0)
                net.each(f"{name}.downsample", "batchnorm")
                net.c, net.s, skip = c_in, s_in, net.last
            for i, (oc, k, s) in enumerate(shapes, 1):
                net.conv(f"{name}.conv{i}", oc, k, s)
                if i == 1:
                    net.reads(entry)
                net.each(f"{name}.conv{i}", "batchnorm")
                if i == len(shapes):
                    net.residual(f"{name}.conv{i}", "add", skip)
                net.each(f"{name}.conv{i}", "relu")
    net.pool("avgpool", "avgpool", net.s, net.s)
    net.head(classes)
    return net


def resnet18_tiny() -> Net:
    """ResNet18 for 64x64 images, 3x3 stem, 200 classes."""
    net = Net(3, 64)
    net.conv("conv1", 64, 3, prune=False)
    net.each("conv1", "batchnorm", "relu")
    return _resnet(net, (2, 2, 2, 2), False, 200)


def _imagenet_stem() -> Net:
    net = Net(3, 224)
    net.conv("conv1", 64, 7, 2, prune=False)
    net.each("conv1", "batchnorm", "relu")
    net.pool("maxpool", "maxpool", 3, 2, 1)
    return net


def resnet18() -> Net:
    """ResNet18 for ImageNet."""
    return _resnet(_imagenet_stem(), (2, 2, 2, 2), False, 1000)


def resnet50() -> Net:
    """ResNet50 v1.5 for ImageNet (stride in the 3x3 convolution)."""
    return _resnet(_imagenet_stem(), (3, 4, 6, 3), True, 1000)


def mobilenet_v1() -> Net:
    """MobileNet v1 1.0 for ImageNet."""
    net = Net(3, 224)
    net.conv("conv0", 32, 3, 2, prune=False)
    net.each("conv0", "batchnorm", "relu")
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for i, (width, stride) in enumerate(plan, 1):
        net.depthwise(f"block{i}.dw", 3, stride)
        net.each(f"block{i}.dw", "batchnorm", "relu")
        net.conv(f"block{i}.pw", width, 1)
        net.each(f"block{i}.pw", "batchnorm", "relu")
    net.pool("avgpool", "avgpool", net.s, net.s)
    net.head(1000)
    return net


def _inverted(net: Net, name: str, expand: int, k: int, stride: int, width: int, act: str, se: int = 0) -> None:
    c_in, entry = net.c, net.last
    if expand != 1:
        net.conv(f"{name}.expand", c_in * expand, 1)
        net.each(f"{name}.expand", "batchnorm", act)
    net.depthwise(f"{name}.dw", k, stride)
    net.each(f"{name}.dw", "batchnorm", act)
    if se:
        c, s, wide = net.c, net.s, net.last
        net.pool(f"{name}.se.pool", "avgpool", s, s)
        net.add(f"{name}.se.reduce", "linear", ic=c, oc=se, prune=False)
        net.add(f"{name}.se.reduce.{act}", "elementwise", function=act, oc=se)
        net.add(f"{name}.se.expand", "linear", ic=se, oc=c, prune=False)
        net.add(f"{name}.se.expand.sigmoid", "elementwise", function="sigmoid", oc=c)
        net.s = s
        net.residual(f"{name}.se", "scale", wide)
    net.conv(f"{name}.project", width, 1)
    net.each(f"{name}.project", "batchnorm")
    if stride == 1 and c_in == width:
        net.residual(f"{name}.project", "add", entry)


def mobilenet_v2() -> Net:
    """MobileNet v2 1.0 for ImageNet."""
    net = Net(3, 224)
    net.conv("conv0", 32, 3, 2, prune=False)
    net.each("conv0", "batchnorm", "relu")
    plan = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    index = 0
    for expand, width, count, stride in plan:
        for i in range(count):
            _inverted(net, f"block{index}", expand, 3, stride if i == 0 else 1, width, "relu")
            index += 1
    net.conv("conv_last", 1280, 1)
    net.each("conv_last", "batchnorm", "relu")
    net.pool("avgpool", "avgpool", net.s, net.s)
    net.head(1000)
    return net


def efficientnet_b0() -> Net:
    """EfficientNet-B0 for ImageNet, squeeze-and-excite at a quarter of the block's input width."""
    net = Net(3, 224)
    net.conv("conv0", 32, 3, 2, prune=False)
    net.each("conv0", "batchnorm", "silu")
    plan = [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ]
    index = 0
    for expand, k, stride, width, count in plan:
        for i in range(count):
            _inverted(net, f"block{index}", expand, k, stride if i == 0 else 1, width, "silu", net.c // 4)
            index += 1
    net.conv("conv_last", 1280, 1)
    net.each("conv_last", "batchnorm", "silu")
    net.pool("avgpool", "avgpool", net.s, net.s)
    net.head(1000)
    return net


def _encoder(net: Net, i: int, dim: int, heads: int, mlp: int, tokens: int, post_norm: bool, **more: Any) -> None:
    def each(name: str, function: str, width: int = dim) -> None:
        net.add(f"block{i}.{name}", "elementwise", function=function, oc=width, tokens=tokens)

    skip = net.last if net.layers else ""
    if not post_norm:
        each("norm1", "layernorm")
    net.add(f"block{i}.qkv", "linear", ic=dim, oc=3 * dim, tokens=tokens, **more)
    net.add(f"block{i}.attention", "attention", heads=heads, head_dim=dim // heads, tokens=tokens)
    net.add(f"block{i}.proj", "linear", ic=dim, oc=dim, tokens=tokens)
    each("add1", "add")
    if skip:
        net.reads(f"block{i}.proj", skip)
    skip = net.last
    each("norm2" if not post_norm else "norm1", "layernorm")
    skip = net.last if post_norm else skip
    net.add(f"block{i}.fc1", "linear", ic=dim, oc=mlp, tokens=tokens)
    each("gelu", "gelu", mlp)
    net.add(f"block{i}.fc2", "linear", ic=mlp, oc=dim, tokens=tokens)
    each("add2", "add")
    net.reads(f"block{i}.fc2", skip)
    if post_norm:
        each("norm2", "layernorm")


def vit() -> Net:
    """ViT for CIFAR-100: dim 512, depth 6, 8 heads, mlp 512, patch 4, 65 tokens."""
    net = Net(512, 1)
    net.add("patch", "linear", ic=48, oc=512, tokens=64, prune=False)
    for i in range(6):
        _encoder(net, i, 512, 8, 512, 65, post_norm=False)
    net.add("norm", "elementwise", function="layernorm", oc=512, tokens=65)
    net.add("head", "linear", ic=512, oc=100, prune=False)
    net.add("loss", "elementwise", function="cross_entropy", oc=100)
    return net


def bert_base() -> Net:
    """BERT base encoder at sequence length 128 (embeddings and pooler not included)."""
    net = Net(768, 1)
    for i in range(12):
        more = {"input_gradient": True} if i == 0 else {}
        _encoder(net, i, 768, 12, 3072, 128, post_norm=True, **more)
    return net


def llama_7b_block() -> Net:
    """One decoder block of a 7-billion-parameter LLaMA at sequence length 2048 (attention not causal-skipped)."""
    net, dim, mlp, tokens = Net(4096, 1), 4096, 11008, 2048
    net.add("norm1", "elementwise", function="rmsnorm", oc=dim, tokens=tokens)
    net.add("qkv", "linear", ic=dim, oc=3 * dim, tokens=tokens, input_gradient=True)
    net.add("attention", "attention", heads=32, head_dim=128, tokens=tokens)
    net.add("proj", "linear", ic=dim, oc=dim, tokens=tokens)
    net.add("add1", "elementwise", function="add", oc=dim, tokens=tokens)  # its skip is the block's input
    net.add("norm2", "elementwise", function="rmsnorm", oc=dim, tokens=tokens)
    net.add("gate_up", "linear", ic=dim, oc=2 * mlp, tokens=tokens)
    net.add("swiglu", "elementwise", function="swiglu", oc=mlp, tokens=tokens)
    net.add("down", "linear", ic=mlp, oc=dim, tokens=tokens)
    net.add("add2", "elementwise", function="add", oc=dim, tokens=tokens)
    net.reads("down", "add1")
    return net


def digits_mlp() -> Net:
    """MLP 64-64-64-64-10 for scikit-learn's digits, no biases."""
    net = Net(64, 1)
    for i in range(1, 4):
        net.add(f"fc{i}", "linear", ic=64, oc=64, **({"prune": False} if i == 1 else {}))
        net.add(f"fc{i}.relu", "elementwise", function="relu", oc=64)
    net.add("fc4", "linear", ic=64, oc=10, prune=False)
    net.add("loss", "elementwise", function="cross_entropy", oc=10)
    return net


def digits_cnn() -> Net:
    """CNN for the 8x8 digits: 1-16 k3, 16-32 k3 s2, 32-32 k3 s2, classifier 128-10; no biases."""
    net = Net(1, 8)
    net.conv("conv1", 16, 3, prune=False)
    net.each("conv1", "relu")
    net.conv("conv2", 32, 3, 2)
    net.each("conv2", "relu")
    net.conv("conv3", 32, 3, 2)
    net.each("conv3", "relu")
    net.head(10)
    return net


def bytes_lm() -> Net:
    """Language model over bytes: dim 128, depth 2, 4 heads, mlp 512, context 64 (no biases, no embeddings)."""
    net, dim, mlp, tokens = Net(128, 1), 128, 512, 64

    def each(name: str, function: str, width: int = dim) -> None:
        net.add(name, "elementwise", function=function, oc=width, tokens=tokens)

    for block in ("block0", "block1"):
        skip = net.last if net.layers else None
        each(f"{block}.norm1", "rmsnorm")
        net.add(f"{block}.qkv", "linear", ic=dim, oc=3 * dim, tokens=tokens, **({} if skip else FIRST))
        net.add(f"{block}.attention", "attention", heads=4, head_dim=dim // 4, tokens=tokens)
        net.add(f"{block}.proj", "linear", ic=dim, oc=dim, tokens=tokens)
        each(f"{block}.add1", "add")  # the first block's skip is the embedding, the network's input
        if skip:
            net.reads(f"{block}.proj", skip)
        each(f"{block}.norm2", "rmsnorm")
        net.add(f"{block}.fc1", "linear", ic=dim, oc=mlp, tokens=tokens)
        each(f"{block}.relu", "relu", mlp)
        net.add(f"{block}.fc2", "linear", ic=mlp, oc=dim, tokens=tokens)
        each(f"{block}.add2", "add")
        net.reads(f"{block}.fc2", f"{block}.add1")
    each("norm", "rmsnorm")
    net.add("head", "linear", ic=dim, oc=256, tokens=tokens, prune=False)
    net.add("loss", "elementwise", function="cross_entropy", oc=256, tokens=tokens)
    return net


ZOO: dict[str, Callable[[], Net]] = {
    "bert_base": bert_base,
    "bytes-lm": bytes_lm,
    "digits-cnn": digits_cnn,
    "digits-mlp": digits_mlp,
    "efficientnet_b0": efficientnet_b0,
    "llama_7b_block": llama_7b_block,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet18_tiny": resnet18_tiny,
    "resnet50": resnet50,
    "resnet9": resnet9,
    "vgg19": vgg19,
    "vit": vit,
}


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def to_yaml(name: str) -> str:
    """The YAML text of one zoo network: a header and one line a layer."""
    build = ZOO[name]
    lines = ["format: nmsat-workload/1", f"name: {name}"]
    lines += [f'description: "{(build.__doc__ or "").strip()}"', "layers:"]
    for entry in build().layers:
        body = ", ".join(f"{key}: {_value(value)}" for key, value in entry.items())
        lines.append(f"- {{{body}}}")
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write every network's YAML file into ``folder``."""
    for name in ZOO:
        (folder / f"{name}.yaml").write_text(to_yaml(name))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
