"""The cycle model of wasm kernels beside timings: the points, their errors, the tables of reports/kernel_model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..dataflow.kernels import STANDIN, Kernel
from ..dataflow.kernels.presets import GROUPED, preset
from ..models.core import Core
from ..models.errors import NmsatError
from ..simulator.kernels.predict import Shape, predict, sample

FOLDER = Path(__file__).parent / "kernel_model"
SHAPES: tuple[Shape, ...] = (
    (3136, 24, 96),
    (3136, 144, 24),
    (784, 256, 256),
    (196, 512, 512),
    (49, 960, 160),
    (196, 96, 576),
)
KERNELS: dict[str, tuple[Kernel, ...]] = {
    "fitted": (
        *(Kernel(mr=mr) for mr in (8, 16, 24, 28)),
        replace(GROUPED, mr=24, group=8),
        STANDIN,
        Kernel(mr=16, index="dense"),
    ),
    "unseen": tuple(preset(name) for name in ("sparse", "sparse-in-place", "sparse-simd", "block2", "2:8", "dense")),
}
MEDIAN_BAR, HIGH_BAR = 0.08, 0.15
_HEAD = "| set | kernel | m x n x k | zeros | measured | model | error | bound |"


@dataclass(frozen=True, slots=True)
class WasmPoint:
    """One product: cycles measured and predicted, and what the model says holds it back."""

    group: str
    kernel: str
    shape: Shape
    zeros: float
    measured: float
    model: int
    bound: str

    @property
    def error(self) -> float:
        """Model over measurement, less 1."""
        return self.model / self.measured - 1


def products() -> Iterator[tuple[str, Kernel, Shape, float]]:
    """(group, kernel, shape, share of zeros) of the 78 points; the memory costs may be fitted to group ``fitted``."""
    for group, kernels in KERNELS.items():
        for number, shape in enumerate(SHAPES):
            for kernel in kernels:
                yield group, kernel, shape, 0.0 if kernel.index == "dense" else (0.8, 0.9)[number % 2]


def spread(points: list[WasmPoint], group: str) -> tuple[float, float]:
    """Median and 90th percentile of the error's size in a group."""
    errors = [abs(point.error) for point in points if point.group == group]
    return float(np.median(errors)), float(np.quantile(errors, 0.9))


def summary(core: str, points: list[WasmPoint]) -> tuple[list[str], bool]:
    """A line a group, and whether every bar is met."""
    lines, met = [], True
    for group in KERNELS:
        median, high = spread(points, group)
        ok = median <= MEDIAN_BAR and high <= HIGH_BAR
        met &= ok
        lines.append(
            f"kernel_model {core} {group}: {sum(p.group == group for p in points)} points, "
            f"median {100 * median:.1f} %, bar <= 8; 90th percentile {100 * high:.1f} %, bar <= 15: "
            f"{'PASS' if ok else 'MISS'}"
        )
    return lines, met


def markdown(core: str, points: list[WasmPoint], note: str) -> str:
    """The table of a core; ``note`` says how its measured column came about."""
    lines = [*summary(core, points)[0], note]
    rows = [_HEAD, "|---|---|---|---|---|---|---|---|"]
    for p in points:
        size = "x".join(map(str, p.shape))
        rows.append(
            f"| {p.group} | {p.kernel} | {size} | {p.zeros} | {p.measured:,.0f} | {p.model:,} | "
            f"{100 * p.error:+.0f} % | {p.bound} |"
        )
    return "\n\n".join(lines) + "\n\n" + "\n".join(rows) + "\n"


def read(text: str) -> tuple[list[WasmPoint], str]:
    """Points and note of a table that :func:`markdown` wrote.

    Raises
    ------
    NmsatError
        If there is no such table.
    """
    before, found, after = text.partition(_HEAD)
    if not found:
        raise NmsatError.rule("kernel_model", "table", f"headed by {_HEAD}", text[:80])
    points = []
    for line in after.splitlines()[2:]:
        group, kernel, size, zeros, measured, model, _, bound = (cell.strip() for cell in line.strip("|").split("|"))
        m, n, k = map(int, size.split("x"))
        cycles = float(measured.replace(",", ""))
        points.append(WasmPoint(group, kernel, (m, n, k), float(zeros), cycles, int(model.replace(",", "")), bound))
    return points, before.strip().split("\n\n")[-1]


def renewed(core: Core, points: list[WasmPoint]) -> list[WasmPoint]:
    """The same measurements beside what the model says now."""
    kernels = {kernel.name: kernel for group in KERNELS.values() for kernel in group}
    found = []
    for point in points:
        now = predict(core, sample(kernels[point.kernel], *point.shape[1:], point.zeros), point.shape[0])
        found.append(replace(point, model=now.cycles, bound=now.bound))
    return found
