"""Whole sparse networks on a Snapdragon 835 beside the latencies published with google-research fastconvnets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dataflow.kernels.description import Kernel
from ..models.core import Core
from ..models.workload import Layer, Workload
from ..simulator.kernels.network import LayerTime, Pruning, layer_times

TILE = Kernel(mr=16)
"""The tile of the published kernels: 16 columns, one index and one replicated weight a non-zero."""

PUBLISHED: tuple[tuple[str, float, float, float], ...] = (
    # network, width or depth factor, share of zeros, milliseconds
    ("mobilenet_v1", 0.75, 0.90, 21.0),
    ("mobilenet_v1", 1.0, 0.90, 31.0),
    ("mobilenet_v1", 1.4, 0.90, 58.0),
    ("mobilenet_v2", 0.8, 0.85, 26.0),
    ("mobilenet_v2", 1.15, 0.85, 40.0),
    ("mobilenet_v2", 1.4, 0.85, 54.0),
    ("mobilenet_v2", 1.8, 0.80, 102.0),
    ("mobilenet_v2", 2.0, 0.85, 93.0),
    ("efficientnet_b0", 1.0, 0.80, 80.0),
    ("efficientnet_b1", 1.1, 0.85, 110.0),
)
DENSE_MS = {"mobilenet_v1": 86.0, "mobilenet_v2": 53.0}
"""Dense float inference on the same phone, one thread (README of XNNPACK)."""


@dataclass(frozen=True, slots=True)
class PhoneRow:
    """One network: published and modelled milliseconds, and the prediction of a fit that never saw it."""

    network: str
    zeros: float
    published_ms: float
    raw_ms: float
    silu_m: float
    fitted_ms: float = 0.0
    unseen_ms: float = 0.0

    @property
    def fitted_error(self) -> float:
        """Relative error with both coefficients fitted to every network."""
        return self.fitted_ms / self.published_ms - 1

    @property
    def unseen_error(self) -> float:
        """Relative error with the coefficients fitted to the other networks."""
        return self.unseen_ms / self.published_ms - 1


def round_width(value: float, step: int = 8) -> int:
    """Channels rounded to a multiple of 8, never below 90 % of the value."""
    rounded = max(step, int(value + step / 2) // step * step)
    return rounded + step if rounded < 0.9 * value else rounded


class _Net:
    """Collects layers while tracking size and channels."""

    def __init__(self, size: int, first: int) -> None:
        self.size, self.channels = (size + 1) // 2, first
        stem: dict[str, Any] = {"ic": 3, "oc": first, "kh": 3, "kw": 3, "h": size, "w": size, "stride": 2, "pad": 1}
        self.layers = [Layer(name="conv0", op="conv2d", prune=False, **stem)]

    def depthwise(self, name: str, kernel: int, stride: int) -> None:
        c, s = self.channels, self.size
        sizes: dict[str, Any] = {"kh": kernel, "kw": kernel, "h": s, "w": s, "stride": stride, "pad": kernel // 2}
        self.layers.append(Layer(name=name, op="depthwise", ic=c, oc=c, groups=c, **sizes))
        self.size = self.layers[-1].oh

    def pointwise(self, name: str, oc: int) -> None:
        self.layers.append(Layer(name=name, op="conv2d", ic=self.channels, oc=oc, h=self.size, w=self.size))
        self.channels = oc

    def silu(self) -> None:
        last = self.layers[-1]
        more: dict[str, Any] = {"oc": last.oc, "h": last.oh, "w": last.ow}
        self.layers.append(Layer(name=f"{last.name}.silu", op="elementwise", function="silu", **more))

    def linear(self, name: str, ic: int, oc: int, prune: bool = False) -> None:
        self.layers.append(Layer(name=name, op="linear", ic=ic, oc=oc, prune=prune))


def mobilenet_v1(width: float) -> tuple[Workload, tuple[tuple[str, int], ...]]:
    """MobileNet v1 of a width, and its blocks: 4 rows in the last layer."""
    net = _Net(224, round_width(32 * width))
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for number, (oc, stride) in enumerate(plan):
        net.depthwise(f"dw{number}", 3, stride)
        net.pointwise(f"pw{number}", round_width(oc * width))
    net.linear("fc", net.channels, 1000)
    return Workload(name=f"mobilenet_v1 x{width:g}", layers=tuple(net.layers)), ((f"pw{len(plan) - 1}", 4),)


_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(width: float, blocked: bool = True) -> tuple[Workload, tuple[tuple[str, int], ...]]:
    """MobileNet v2 of a width, and its blocks: 2 rows from inverted residual 11 on."""
    net, number, heights = _Net(224, round_width(32 * width)), 0, []
    for expansion, oc, count, first in _V2:
        for i in range(count):
            wide = net.channels * expansion
            if expansion > 1:
                net.pointwise(f"expand{number}", wide)
            net.depthwise(f"dw{number}", 3, first if i == 0 else 1)
            net.pointwise(f"project{number}", round_width(oc * width))
            if blocked and number >= 11:
                heights += [(f"expand{number}", 2), (f"project{number}", 2)]
            number += 1
    net.pointwise("last", round_width(1280 * max(1.0, width)))
    net.linear("fc", net.channels, 1000)
    return Workload(name=f"mobilenet_v2 x{width:g}", layers=tuple(net.layers)), tuple(heights)


_B = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
      (6, 320, 1, 1, 3))  # fmt: skip


def efficientnet(name: str, depth: float, size: int) -> tuple[Workload, tuple[tuple[str, int], ...]]:
    """EfficientNet B0 or B1: SiLU behind every convolution but projections, squeeze-and-excite, a sparse classifier."""
    net, number = _Net(size, 32), 0
    net.silu()
    for expansion, oc, count, first, kernel in _B:
        for i in range(int(np.ceil(count * depth))):
            narrow = net.channels
            if expansion > 1:
                net.pointwise(f"expand{number}", narrow * expansion)
                net.silu()
            net.depthwise(f"dw{number}", kernel, first if i == 0 else 1)
            net.silu()
            squeezed = max(1, narrow // 4)
            net.linear(f"squeeze{number}", net.channels, squeezed)
            net.linear(f"excite{number}", squeezed, net.channels)
            net.pointwise(f"project{number}", oc)
            number += 1
    net.pointwise("last", 1280)
    net.silu()
    net.linear("fc", 1280, 1000, prune=True)
    return Workload(name=name, layers=tuple(net.layers)), ()


def network(name: str, factor: float, zeros: float) -> tuple[Workload, Pruning]:
    """A published network and its pruning."""
    if name == "mobilenet_v1":
        workload, heights = mobilenet_v1(factor)
    elif name == "mobilenet_v2":
        workload, heights = mobilenet_v2(factor, blocked=zeros != 0.80)
    else:
        workload, heights = efficientnet(name, factor, 224 if name.endswith("b0") else 240)
    return workload, Pruning(zeros=zeros, heights=heights)


def raw(times: list[LayerTime], core: Core) -> tuple[float, float]:
    """(milliseconds before the network factor and SiLU, millions of SiLU elements)."""
    cycles = sum(time.cycles for time in times)
    return 1e3 * cycles / core.clock_hz, sum(time.silu_elements for time in times) / 1e6


def fit(rows: list[PhoneRow], core: Core) -> tuple[float, float]:
    """(network_factor, silu_cycles) of least squared relative error, neither negative."""
    from scipy.optimize import nnls

    published = np.array([row.published_ms for row in rows])
    columns = np.array([[row.raw_ms, 1e9 * row.silu_m / core.clock_hz] for row in rows])
    factor, silu = nnls(columns / published[:, None], np.ones(len(rows)))[0]
    return float(factor), float(silu)


def measure() -> tuple[list[PhoneRow], float, float]:
    """Every published network with fitted and leave-one-out predictions, and the two fitted coefficients."""
    core, rows = Core.load("cortex-a73"), []
    for name, factor, zeros, published in PUBLISHED:
        workload, pruning = network(name, factor, zeros)
        rows.append(PhoneRow(workload.name, zeros, published, *raw(layer_times(core, workload, pruning, TILE), core)))
    factor, silu = fit(rows, core)
    done = []
    for number, row in enumerate(rows):
        other = fit(rows[:number] + rows[number + 1 :], core)
        both = [f * row.raw_ms + 1e9 * s * row.silu_m / core.clock_hz for f, s in ((factor, silu), other)]
        done.append(PhoneRow(row.network, row.zeros, row.published_ms, row.raw_ms, row.silu_m, *both))
    return done, factor, silu


def mean_error(rows: list[PhoneRow], start: str = "") -> float:
    """Mean absolute leave-one-out error of the networks whose name starts so."""
    return float(np.mean([abs(row.unseen_error) for row in rows if row.network.startswith(start)]))


def speedups() -> list[tuple[str, float, float, float]]:
    """(network, zeros, dense ms, speed-up of sparse over dense), both by the model with fitted coefficients."""
    core, found = Core.load("cortex-a73"), []
    for name, zeros in (("mobilenet_v1", 0.9), ("mobilenet_v2", 0.85), ("efficientnet_b0", 0.8)):
        workload, pruning = network(name, 1.0, zeros)
        ms = []
        for chosen, tile in ((Pruning(), None), (pruning, TILE)):
            base, silu = raw(layer_times(core, workload, chosen, tile), core)
            ms.append(core.network_factor.value * base + 1e9 * core.silu_cycles.value * silu / core.clock_hz)
        found.append((workload.name, zeros, ms[0], ms[0] / ms[1]))
    return found


def markdown(rows: list[PhoneRow], factor: float, silu: float) -> str:
    """The rows, the errors and the speed-ups as Markdown."""
    lines = [
        "| network | zeros | published ms | fitted ms | error | unseen ms | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.network} | {r.zeros:.2f} | {r.published_ms:.0f} | {r.fitted_ms:.1f} | {100 * r.fitted_error:+.1f} % "
            f"| {r.unseen_ms:.1f} | {100 * r.unseen_error:+.1f} % |"
        )
    text = (
        f"Leave-one-out error, mean: {100 * mean_error(rows):.1f} % (bar 10 %), MobileNets "
        f"{100 * mean_error(rows, 'mobilenet'):.1f} % (bar 6 %). Fitted: network_factor {factor:.3f}, "
        f"silu_cycles {silu:.2f}."
    )
    lines += ["", text, "", "| network | zeros | dense ms (model) | dense ms (published) | sparse over dense (model) |"]
    lines.append("|---|---|---|---|---|")
    for name, zeros, dense, speedup in speedups():
        known = DENSE_MS.get(name.split()[0])
        lines.append(f"| {name} | {zeros:.2f} | {dense:.1f} | {known or ''} | {speedup:.2f} |")
    return "\n".join([*lines, "", "Published speed-ups of sparse over dense at equal accuracy: 1.3 to 2.4.", ""])
