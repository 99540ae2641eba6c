"""The pointwise products of a network: what the sparse kernels are generated for."""

from __future__ import annotations

from collections import Counter

from ...models.workload import Layer, Workload

Shape = tuple[int, int, int]
NETWORKS = ("mobilenet_v1", "mobilenet_v2", "efficientnet_b0")


def is_pointwise(layer: Layer) -> bool:
    """True for a 1x1, stride 1, ungrouped convolution over more than one position."""
    sizes = (layer.kh, layer.kw, layer.stride, layer.pad, layer.groups)
    return layer.op == "conv2d" and sizes == (1, 1, 1, 0, 1) and layer.h * layer.w > 1


def pointwise(workload: Workload) -> Counter[Shape]:
    """(m, n, k) of every pointwise layer of one sample, with how often it occurs, in network order."""
    return Counter((x.oh * x.ow, x.oc, x.ic) for x in workload.layers if is_pointwise(x))


def all_shapes(networks: tuple[str, ...] = NETWORKS) -> list[Shape]:
    """Every distinct pointwise shape of the named zoo networks, and the sparse 1000 x 1280 classifier (m = 1)."""
    shapes: dict[Shape, None] = {}
    for name in networks:
        shapes |= dict.fromkeys(pointwise(Workload.load(name)))
    if "efficientnet_b0" in networks:
        shapes[1, 1000, 1280] = None
    return list(shapes)
