"""Numerics of the accumulators: rounded dot products against the exact ones, and training in both arithmetics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..models.golden import WindowSums, narrow, product_os, product_window, to_bits
from ..models.golden.floats import F16, F32
from ..models.golden.window_kernels import drain
from ..models.sparsity import Sparsity
from ..models.training import WindowProducts
from ..models.window import Window
from .figure import CYCLE, MARKERS, WIDTH, Figure, plain_log

LSBS = (24, 30, 33, 36)
LENGTHS = (64, 512, 4096, 16384)
SCALES = (1, 2**8, 2**16)
GRADIENT = 1e-5  # standard deviation of dY before the loss scale
ROWS, COLS = 20, 50  # of every product: 1,000 dot products
DOT_COLUMNS = (
    "data", "k", "loss_scale", "accumulator", "misrounded", "mean_ulp", "max_ulp", "subnormal", "zero_instead",
    "flagged",
)  # fmt: skip
BITS = 79 - 33  # W - L of the windows used here: any k


@njit(cache=True)
def _exact(a, b, high, low):  # pragma: no cover
    """Sums of exact products in units of 2^-48 as high * 2^32 + low; k below 2^20."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            coarse, fine = 0, 0  # units of 2^-24 and 2^-48
            for k in range(a.shape[1]):
                p = a[i, k] * b[k, j]
                whole = np.floor(p * 16777216.0)
                coarse += np.int64(whole)
                fine += np.int64((p * 16777216.0 - whole) * 16777216.0)
            coarse += fine >> 24
            fine = ((coarse & 0xFF) << 24) + (fine & 0xFFFFFF)
            high[i, j], low[i, j] = coarse >> 8, fine


def exact_products(a: F16, b: F16) -> tuple[NDArray[np.float64], F16]:
    """Exact C = A B: as binary64 (rounded to odd first, for comparisons), and rounded once to binary16.

    Parameters
    ----------
    a, b : float16 arrays (m, k) and (k, n), finite, k below 2^20
    """
    shape = a.shape[0], b.shape[1]
    high, low = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    _exact(a.astype(np.float64), b.astype(np.float64), high, low)
    out = np.empty(shape, np.float32)
    drain(high.reshape(-1), low.reshape(-1), np.zeros(high.size, np.bool_), 48, True, out.reshape(-1))
    return (high.astype(np.float64) * 2.0**32 + low) * 2.0**-48, narrow(out)


def operands(data: str, k: int, scale: float, rng: np.random.Generator) -> tuple[F16, F16]:
    """Random A and B like those of a stage: activations behind a ReLU, He-normal weights, scaled gradients."""
    a, b = rng.standard_normal((ROWS, k)), rng.standard_normal((k, COLS))
    if data == "FF":
        a, b = np.maximum(a, 0), b * np.sqrt(2 / k)
    elif data == "BP":
        a, b = a * GRADIENT * scale, b * np.sqrt(2 / k)
    else:  # WU
        a, b = np.maximum(a, 0), b * GRADIENT * scale
    return a.astype(np.float16), b.astype(np.float16)


def dot_rows(seed: int = 0) -> Iterator[tuple[Any, ...]]:
    """Rows of DOT_COLUMNS: every kind of data, length, loss scale and accumulator."""
    for data in ("FF", "BP", "WU"):
        for k in LENGTHS:
            for scale in (1,) if data == "FF" else SCALES:
                a, b = operands(data, k, scale, np.random.default_rng([seed, k, scale, ord(data[0])]))
                value, exact = exact_products(a, b)
                values, places = b[:, None, :], np.zeros((k, 1, COLS), np.uint8)
                found: list[tuple[str, F16, float]] = [("fp32", narrow(product_os(a, values, places, 1)), 0.0)]
                for lsb in LSBS:
                    sums = product_window(a, values, places, 1, Window(lsb, lsb + BITS))
                    found.append((f"L = {lsb}", sums.to_binary16(), float(sums.flagged.mean())))
                for name, half, flagged in found:
                    yield (data, k, scale, name, *_compare(half, exact, value), flagged)


def _compare(half: F16, exact: F16, value: NDArray[np.float64]) -> tuple[float, ...]:
    """(share misrounded, mean and largest error in ulps, share of subnormal results, of zeros that should not be)."""
    magnitude = np.maximum(np.abs(value), 2.0**-14)
    ulp = 2.0 ** (np.floor(np.log2(magnitude)) - 10)
    error = np.abs(half.astype(np.float64) - value) / ulp
    wrong = (to_bits(half) != to_bits(exact)) & ~((half == 0) & (exact == 0))
    subnormal = (np.abs(value) < 2.0**-14) & (value != 0)
    return (
        *map(float, (wrong.mean(), error.mean(), error.max(), subnormal.mean(), ((half == 0) & (exact != 0)).mean())),
    )


@dataclass(slots=True)
class Watched:
    """Window products that count what leaves them.

    Attributes
    ----------
    inner : WindowProducts
    outputs, flagged, infinite : int
        Results, those whose flag was set, those of binary16 range exceeded (flagged ones left out).
    """

    inner: WindowProducts
    outputs: int = 0
    flagged: int = 0
    infinite: int = 0
    largest: float = field(default=0.0)

    def multiply(self, layer: str, stage: str, part: int, a: F16, b: F16, pattern: Sparsity, swapped: bool) -> F32:
        """As the watched products."""
        sums: WindowSums = self.inner.sums(a, b, pattern, swapped)
        found = sums.to_binary32(odd=stage != "wu")
        size = np.abs(found[~sums.flagged])
        self.outputs += found.size
        self.flagged += int(sums.flagged.sum())
        self.infinite += int((size >= 65520).sum()) if stage != "wu" else 0
        self.largest = max(self.largest, float(size.max(initial=0)))
        return np.ascontiguousarray(found.T) if swapped else found


def training_rows(
    task: str, seeds: range, lsbs: tuple[int | None, ...], given: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A record a run of BDWP 2:8 with each accumulator: losses, accuracy, counts.

    Parameters
    ----------
    lsbs : tuple of int or None
        L of windows; None is binary32.
    given : dict
        As in ``nmsat train``.
    """
    from ..models.training.tasks import get_task

    job = get_task(task)
    settings = job.settings(given)
    for seed in seeds:
        for lsb in lsbs:
            watched = None if lsb is None else Watched(WindowProducts(Window(lsb, lsb + BITS)))
            run = job.run("bdwp", "2:8", seed, settings, watched, iter)
            record = {
                "task": task, "seed": seed, "accumulator": "fp32" if lsb is None else f"L = {lsb}",
                "accuracy": run.accuracy, "losses": list(run.losses), "skipped_steps": run.skipped,
            }  # fmt: skip
            if watched:
                record |= {"outputs": watched.outputs, "flagged": watched.flagged, "infinite": watched.infinite}
                record |= {"largest": watched.largest}
            yield record


def dot_figure(rows: list[tuple[Any, ...]]) -> Figure:
    """Share of misrounded results against k, one panel a kind of data at its best loss scale."""
    names = ["fp32", *(f"L = {lsb}" for lsb in LSBS)]

    def draw(plt: Any) -> Any:
        plt.rcParams["text.parse_math"] = True  # ticks are powers of two
        fig, panels = plt.subplots(1, 3, figsize=(WIDTH, 3.2), sharey=True)
        for axes, (data, scale) in zip(panels, (("FF", 1), ("BP", 2**16), ("WU", 2**16)), strict=True):
            for index, name in enumerate(names):
                some = [row for row in rows if row[0] == data and row[2] == scale and row[3] == name]
                shares = [max(100 * row[4], 0.05) for row in some]
                axes.plot([r[1] for r in some], shares, color=CYCLE[index], marker=MARKERS[index], ms=4, label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            plain_log(axes.yaxis)
            axes.set_title(f"{data}, loss scale {scale:,}")
            axes.set_xlabel("k")
        panels[0].set_ylabel("misrounded results (%; none: 0.05)")
        panels[0].legend()
        return fig

    caption = "Results that differ from the exact dot product rounded to binary16; 1,000 a point, random data."
    return Figure("misrounded", "Misrounded results", caption, DOT_COLUMNS, tuple(rows), draw)


def loss_figure(records: list[dict[str, Any]]) -> Figure:
    """Loss curves over each other, and below less those of binary32 with the same seed; a panel a task."""
    tasks = list(dict.fromkeys(record["task"] for record in records))
    names = list(dict.fromkeys(record["accumulator"] for record in records))
    base = {(r["task"], r["seed"]): r["losses"] for r in records if r["accumulator"] == "fp32"}
    rows = [
        (r["task"], r["seed"], r["accumulator"], at + 1, loss, loss - base[r["task"], r["seed"]][at])
        for r in records
        for at, loss in enumerate(r["losses"])
    ]

    def draw(plt: Any) -> Any:
        fig, panels = plt.subplots(2, len(tasks), figsize=(WIDTH, 5.2), squeeze=False, sharex="col")
        for (above, below), task in zip(panels.T, tasks, strict=True):
            for record in records:
                if record["task"] == task:
                    index, seed = names.index(record["accumulator"]), record["seed"]
                    label = record["accumulator"] if seed == 0 else None
                    style = {"color": CYCLE[index], "marker": MARKERS[index], "ms": 3, "lw": 0.9, "alpha": 0.8}
                    some = [row for row in rows if row[:3] == (task, seed, record["accumulator"])]
                    for axes, column in ((above, 4), (below, 5)):
                        axes.plot([r[3] for r in some], [r[column] for r in some], label=label, **style)
            above.set_title(task)
            below.set_xlabel("round")
            above.legend()
        panels[0][0].set_ylabel("mean training loss")
        panels[1][0].set_ylabel("minus fp32's, same seed")
        return fig

    caption = "Loss by round (an epoch of the digits, a tenth of the language model's steps), BDWP 2:8, a line a seed."
    columns = ("task", "seed", "accumulator", "round", "loss", "loss_less_fp32")
    return Figure("losses", "Loss curves", caption, columns, tuple(rows), draw)
