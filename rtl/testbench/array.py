"""Random legal cases of the array: whole products, output- and weight-stationary, in all patterns it can run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from ...models import golden
from ...models.accelerator import Accelerator
from ..array_bench import run_array
from ..array_parameters import ArrayParameters
from ..array_streams import as_json, north_width, os_streams, ws_streams
from ..simulators.bench import Bench
from ..stce import Stce
from .case import Block, Case

_PATTERNS = (
    (1, 1), (2, 2), (4, 4), (8, 8), (1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8), (2, 16), (4, 16), (8, 16), (8, 32),
    (3, 4), (3, 8), (5, 16), (16, 32), (7, 7),
)  # fmt: skip


async def run_arrays(bench: Bench, *, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Products one after the other on the same array, with a reset before each.

    Returns
    -------
    list of dict
        ``words``: what every column gave, column after column; ``cycles``: first word in to last word out, inclusive.
    """
    found = []
    for run in runs:
        await bench.reset()
        arguments = {**run, "idle": max(run.get("idle", 0.0), run.get("stall", 0.0))}
        arguments.pop("stall", None)
        count = run["outputs"] + max(map(len, (*run["west"], *run["north"])))
        limit = 2000 + round(20 * count / (1 - arguments["idle"]) ** 2)
        result = await run_array(bench, **arguments, limit_cycles=limit, strict=False)
        words = [word for column in result["south"] for word in column]
        found.append({"words": words, "cycles": result["cycles"], "broken": result["broken"]})
    return found


_FEW = np.array([0, 0x8000, 0x3C00, 0xBC00, 0x4000, 0xC000, 0x1400, 0x9400, 0x0001, 0x8001, 0x0200, 0x83FF], np.uint16)
STYLES = ("ordinary", "wide", "cancelling", "special")


def _operand(numbers: np.random.Generator, shape: tuple[int, ...], style: str, window: bool) -> np.ndarray:
    """binary16 numbers.

    ``ordinary``: normally distributed. ``wide``: any finite pattern, so that exponents lie far apart and subnormals
    occur. ``cancelling``: a few powers of two, zeros and subnormals, so that sums become zero. ``special``: the same,
    with infinities and a few NaNs. With a window most of the wide ones stay below 2^8: a product of 2^16 would hide the
    others of its output behind the flag.
    """
    anything = numbers.integers(0, 1 << 16, shape).astype(np.uint16)
    if style == "ordinary":
        return numbers.normal(size=shape).astype(np.float16)
    if style == "wide":
        if window:
            large = (anything >> 10 & 31 > 22) & (numbers.random(shape) < 0.98)
            anything = np.where(large, anything & 0xBFFF, anything).astype(np.uint16)
        return np.where(anything & 0x7C00 == 0x7C00, anything & 0x83FF, anything).astype(np.uint16).view(np.float16)
    few = numbers.choice(_FEW, shape)
    if style == "special":
        few = np.where(numbers.random(shape) < 0.05, anything & 0x8000 | 0x7C00, few)
        few = np.where(numbers.random(shape) < 0.01, anything | 0x7E00, few)
    return few.astype(np.uint16).view(np.float16)


def draw_stce(rng: random.Random, accelerator: Accelerator) -> Case:
    """A product of a few tiles."""
    p, numbers = ArrayParameters.from_accelerator(accelerator), np.random.default_rng(rng.getrandbits(64))
    keep, group = rng.choice([(n, m) for n, m in _PATTERNS if n <= p.max_keep and m <= p.max_group])
    ws = bool(rng.getrandbits(1))
    groups = rng.randint(1, 3 * p.rows if ws and p.rows <= 8 else max(6, p.rows))
    n = rng.randint(1, 2 * p.cols + 1)
    full = -(-p.adder_latency // keep)  # 1 with a window
    interleave = rng.choice((1, full, rng.randint(1, full)))
    m = rng.randint(1, 3 * p.rows) if ws else rng.randint(1, 2 * p.rows * interleave + 1)
    chunk = rng.choice((m, rng.randint(1, m)))
    style, window = rng.choice(STYLES), p.window is not None
    a = _operand(numbers, (m, groups * group), style, window)
    values = _operand(numbers, (groups, keep, n), style, window)
    places = np.sort(np.argsort(numbers.random((groups, group, n)), axis=1)[:, :keep], axis=1).astype(np.uint8)
    segment = rng.randint(1, min(groups, p.window.terms // keep)) if p.window and not ws else None
    if p.window:
        c = golden.product_window(a, values, places, group, p.window)
        if ws:
            streams = ws_streams(p, a, values, places, group, chunk)
        else:
            streams = os_streams(p, a, values, places, group, 1, segment)
    elif ws:
        streams, c = ws_streams(p, a, values, places, group, chunk), golden.product_ws(a, values, places, group, p.rows)
    else:
        streams, c = os_streams(p, a, values, places, group, interleave), golden.product_os(a, values, places, group)
    cut = {"m_chunk": chunk} if ws else {"segment": segment} if p.window else {"interleave": interleave}
    parameters = {
        "array": f"{p.rows}x{p.cols}", "dataflow": "ws" if ws else "os", "pattern": f"{keep}:{group}", "m": m, "n": n,
        "groups": groups, **cut,
    }  # fmt: skip
    widths = {"west": 16 * p.max_group, "north": north_width(p), "sum": p.sum_bits}
    arguments = {**as_json(streams), "widths": widths}
    timing = (
        "stce",
        p,
        "ws" if ws else "os",
        a,
        values,
        places,
        group,
        None if ws else interleave,
        chunk if ws else None,
        segment,
    )
    if isinstance(c, golden.WindowSums):
        # of a flagged word only the two highest bits are specified
        bits, top = p.sum_bits, 3 << p.sum_bits - 2
        masks = np.array([(1 << bits) - 1, top], object)[c.flagged.astype(np.intp)]
        expected = _expected(streams, c.words(), masks, p.cols)
    else:
        expected = _expected(streams, golden.to_bits(c), np.full(c.shape, 0xFFFFFFFF, object), p.cols)
    return Case(parameters, arguments, expected, timing)


def _expected(streams: Any, c: np.ndarray, masks: np.ndarray, cols: int) -> list[tuple[int, int]]:
    """Words of every column. Only the last word of a place is specified, the earlier ones are sums of a part of k."""
    bits, mask = (np.zeros((streams.rows, streams.cols), object) for _ in range(2))
    bits[: c.shape[0], : c.shape[1]], mask[: c.shape[0], : c.shape[1]] = c, masks
    last = {place: number for number, place in enumerate(map(tuple, streams.places.tolist()))}
    found = []
    for column in range(cols):
        for number, (row, col) in enumerate(streams.places.tolist()):
            specified = last[row, col] == number
            found.append((int(bits[row, col + column]), int(mask[row, col + column]) if specified else 0))
    return found


def _one_element(accelerator: Accelerator) -> Accelerator:
    return accelerator.replace(rows=1, cols=1)


ARRAY_BLOCKS = (
    Block("stce", Stce.from_accelerator, run_arrays, draw_stce),
    Block(
        "uspe",
        lambda accelerator: Stce.from_accelerator(_one_element(accelerator)),
        run_arrays,
        lambda rng, accelerator: draw_stce(rng, _one_element(accelerator)),
    ),
)
