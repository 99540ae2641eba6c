"""The zoo equals its builders, and its multiply-accumulate totals equal the contract's oracles."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmsat.models import Workload
from nmsat.models.zoo.build import ZOO, to_yaml

ROOT = Path(__file__).resolve().parents[1]
ORACLES = {  # forward GMAC a sample
    "resnet9": 1.162, "vit": 0.641, "vgg19": 0.398, "resnet18_tiny": 2.222, "resnet50": 4.089, "resnet18": 1.814,
    "mobilenet_v1": 0.569,
}  # fmt: skip
POINTWISE = {
    "mobilenet_v1": 539.5,
    "mobilenet_v2": 267.9,
    "efficientnet_b0": 338.5,
}  # million, 1x1 layers, batch 1


@pytest.mark.parametrize("name", sorted(ZOO))
def test_files_are_current(name):
    assert (ROOT / f"models/zoo/{name}.yaml").read_text() == to_yaml(name)


def test_names():
    assert Workload.names() == sorted(ZOO)
    assert len(ZOO) == 14


@pytest.mark.parametrize(("name", "gmac"), sorted(ORACLES.items()))
def test_macs(name, gmac):
    assert round(Workload.load(name).macs / 1e9, 3) == gmac


@pytest.mark.parametrize(("name", "million"), sorted(POINTWISE.items()))
def test_pointwise_macs(name, million):
    layers = Workload.load(name).layers
    total = sum(x.macs for x in layers if x.op == "conv2d" and x.kh == 1)
    assert total / 1e6 == pytest.approx(million, abs=0.06)  # the oracles have one decimal


def test_feature_maps_chain():
    """Every convolution of a plain chain reads what the layer before it wrote."""
    for name in ("vgg19", "resnet9", "mobilenet_v1"):
        previous = None
        for layer in Workload.load(name).layers:
            if layer.op == "linear" or layer.function == "cross_entropy":
                continue
            channels = layer.oc if layer.op == "elementwise" else layer.ic
            if previous is not None:
                assert (channels, layer.h, layer.w) == previous, f"{name} {layer.name}"
            previous = (layer.oc, layer.oh, layer.ow)


@pytest.mark.parametrize(
    "name", ["resnet9", "resnet18", "resnet50", "resnet18_tiny", "mobilenet_v2", "efficientnet_b0"]
)
def test_residual_edges_join_maps_of_one_size(name):
    net = Workload.load(name)
    layers, inputs, adds = {layer.name: layer for layer in net.layers}, net.inputs_of(), 0
    for layer in net.layers:
        if layer.function == "add":
            first, second = (layers[source] for source in inputs[layer.name])
            assert (first.oc, first.oh, first.ow) == (second.oc, second.oh, second.ow) == (layer.oc, layer.h, layer.w)
            adds += 1
        elif layer.op in ("conv2d", "depthwise") and inputs[layer.name]:
            source = layers[inputs[layer.name][0]]
            assert (source.oc, source.oh, source.ow) == (layer.ic, layer.h, layer.w), layer.name
    assert (
        adds
        == {"resnet9": 2, "resnet18": 8, "resnet18_tiny": 8, "resnet50": 16, "mobilenet_v2": 10, "efficientnet_b0": 9}[
            name
        ]
    )
