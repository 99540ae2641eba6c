"""Random legal cases of the vector engines: SORE, the transpose buffer, WUVE, the epilogue."""

# Amaranth's operators and ports are built at run time; the checker cannot follow them.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from amaranth.lib import data

from ...models import golden
from ...models.accelerator import Accelerator
from ...models.sparsity import Sparsity
from ..blocks import largest_group
from ..epilogue import Epilogue
from ..sore import Sore
from ..transposer import Transposer
from ..window_drain import Drain
from ..wuve import RULE, Wuve, rule_fields
from .case import Block, Case
from .stream import run_streams

_TIES = np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0xBC00, 0x7C00, 0xFC00], np.uint16)
_EDGES = np.array(
    [0, 1, 0x7FFFFF, 0x800000, 0x33000000, 0x33000001, 0x387FF000, 0x477FF000, 0x3F800000, 0x3F801000, 0x3F803000,
     0x47C00000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001], np.uint32,
)  # fmt: skip


def joined(values: Any, bits: int) -> int:
    """One integer of equal fields, the first lowest."""
    found = 0
    for place, value in enumerate(values):
        found |= int(value) << bits * place
    return found


def word_of(layout: data.StructLayout, fields: Mapping[str, int]) -> int:
    """A payload from its fields, unsigned bit patterns; fields left out are 0."""
    found = 0
    for name, value in fields.items():
        place = layout[name]
        found |= (value & ((1 << place.width) - 1)) << place.offset
    return found


def _numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """binary32 patterns: half ordinary numbers, a quarter anything, a quarter corners."""
    ordinary = rng.normal(size=shape).astype(np.float32).view(np.uint32)
    anything = rng.integers(0, 1 << 32, shape, np.uint32)
    corners = rng.choice(_EDGES, shape) | rng.integers(0, 2, shape, np.uint32) << np.uint32(31)
    kind = rng.integers(0, 4, shape)
    return np.where(kind < 2, ordinary, np.where(kind == 2, anything, corners))


@lru_cache(maxsize=64)
def _model(make: Callable[[Accelerator], Any], accelerator: Accelerator) -> Any:
    """A component for the sake of its layouts; marked as used, or Amaranth would warn that it never is."""
    component = make(accelerator)
    component._MustUse__used = True
    return component


def _numpy(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(64))


def _transposer(accelerator: Accelerator) -> Transposer:
    return Transposer(size=largest_group(accelerator))


def draw_sore(rng: random.Random, accelerator: Accelerator) -> Case:
    """Groups of one pattern, values full of ties, zeros and infinities; the last word may not be full."""
    sore = _model(Sore.from_accelerator, accelerator)
    i, o, lanes = sore.i_layout, sore.o_layout, sore.lanes
    group = rng.choice([m for m in (1, 2, 4, 8, 16, 32) if m <= sore.max_group])
    pattern = Sparsity(rng.randint(1, min(group, sore.max_keep)), group)
    count, numbers = rng.choice((1, lanes, lanes + 1, rng.randint(1, 6 * lanes))), _numpy(rng)
    anything = numbers.integers(0, 0x7C01, (count, group)) | numbers.integers(0, 2, (count, group)) << 15
    dense = np.where(numbers.random((count, group)) < 0.5, numbers.choice(_TIES, (count, group)), anything)
    dense = dense.astype(np.uint16)
    planes = [x.tobytes() for x in golden.pack(golden.compress(golden.from_bits(dense.reshape(-1)), pattern))]
    sizes = 2 * pattern.keep, len(planes[1]) // count
    words, expected = [], []
    for k in range(0, count, lanes):
        groups = min(lanes, count - k)
        fields = {"groups": groups, "keep": pattern.keep, "group": pattern.group}
        words.append(word_of(i, fields | {"values": joined(dense[k : k + groups].reshape(-1), 16)}))
        parts = [
            int.from_bytes(plane[k * n : (k + groups) * n], "little") for plane, n in zip(planes, sizes, strict=True)
        ]
        value = word_of(o, fields | {"values": parts[0], "indices": parts[1]})
        masks = {"values": (1 << 8 * groups * sizes[0]) - 1, "indices": (1 << 8 * groups * sizes[1]) - 1}
        expected.append((value, word_of(o, {**dict.fromkeys(("groups", "keep", "group", "nan"), -1), **masks})))
    parameters = {"lanes": lanes, "pattern": f"{pattern.keep}:{pattern.group}", "groups": count}
    return Case(parameters, {"words": words, "expected": len(words)}, expected, ("sore", count, lanes))


def draw_transposer(rng: random.Random, accelerator: Accelerator) -> Case:
    """Tiles of random height and width."""
    size, numbers = largest_group(accelerator), _numpy(rng)
    block = _model(_transposer, accelerator)
    tiles = [(rng.randint(1, size), rng.randint(1, size)) for _ in range(rng.randint(1, 6))]
    words, expected = [], []
    for rows, cols in tiles:
        tile = numbers.integers(0, 1 << 16, (rows, size))
        for r in range(rows):
            fields = {"values": joined(tile[r], 16), "last": int(r == rows - 1), "cols": cols}
            words.append(word_of(block.i_layout, fields))
        for c in range(cols):
            fields = {"values": joined(tile[:, c], 16), "rows": rows, "last": int(c == cols - 1)}
            mask = {"values": (1 << 16 * rows) - 1, "rows": -1, "last": -1}
            expected.append((word_of(block.o_layout, fields), word_of(block.o_layout, mask)))
    parameters = {"size": size, "tiles": [f"{rows}x{cols}" for rows, cols in tiles]}
    return Case(parameters, {"words": words, "expected": len(expected)}, expected, ("transposer", tiles))


def draw_wuve(rng: random.Random, accelerator: Accelerator) -> Case:
    """Weights, gradients and momenta of every class, under a random update rule."""
    lanes, numbers = accelerator.wuve_lanes, _numpy(rng)
    block = _model(Wuve.from_accelerator, accelerator)
    rule = golden.UpdateRule(
        rng.choice((0.1, 1e-3, 0.0)), rng.choice((0.9, 0.0, 1.0)), rng.choice((5e-4, 0.0)), rng.choice((2e-4, 0.0)),
        2.0 ** rng.randint(-20, 40),
    )  # fmt: skip
    count = lanes * rng.randint(1, 12)
    bits, mask = _numbers(numbers, (3, count)), numbers.random(count) < 0.5
    results = [golden.to_bits(x) for x in golden.wuve_update(*map(golden.from_bits, bits), mask, rule)]
    words, expected = [], []
    for k in range(0, count, lanes):
        fields = {name: joined(bits[row, k : k + lanes], 32) for row, name in enumerate("gwv")}
        words.append(word_of(block.i_layout, fields | {"mask": joined(mask[k : k + lanes], 1)}))
        out = {
            name: joined(found[k : k + lanes], width)
            for name, found, width in zip(("w32", "v32", "w16"), results, (32, 32, 16), strict=True)
        }
        expected.append((word_of(block.o_layout, out), (1 << block.o_layout.size) - 1))
    parameters = {"lanes": lanes, "weights": count, "momentum": rule.momentum, "lam": rule.lam}
    constants = {"rule": word_of(RULE, rule_fields(rule))}
    arguments = {"words": words, "expected": len(words), "constants": constants}
    return Case(parameters, arguments, expected, ("wuve", count, lanes))


def draw_epilogue(rng: random.Random, accelerator: Accelerator) -> Case:
    """Sums of every class; ReLU and the gradient's mask on or off a word."""
    lanes, numbers = accelerator.cols, _numpy(rng)
    block = _model(Epilogue.from_accelerator, accelerator)
    words, expected = [], []
    count = rng.randint(1, 30)
    for _ in range(count):
        x, mask = _numbers(numbers, (lanes,)), numbers.random(lanes) < 0.5
        relu, apply = rng.getrandbits(1), rng.getrandbits(1)
        fields = {"x": joined(x, 32), "mask": joined(mask, 1), "relu": relu, "apply_mask": apply}
        words.append(word_of(block.i_layout, fields))
        narrow = golden.narrow(golden.from_bits(x))
        result = golden.relu(narrow) if relu else narrow
        result = golden.apply_mask(result, mask) if apply else result
        out = {"x16": joined(golden.to_bits(result), 16), "mask": joined(golden.relu_mask(narrow), 1)}
        expected.append((word_of(block.o_layout, out), (1 << block.o_layout.size) - 1))
    arguments = {"words": words, "expected": count}
    return Case({"lanes": lanes, "words": count}, arguments, expected, ("epilogue", count * lanes, lanes))


def draw_drain(rng: random.Random, accelerator: Accelerator) -> Case:
    """Sums of every length, halfway cases and flagged words, both roundings."""
    block = _model(Drain.from_accelerator, accelerator)
    lanes, window = accelerator.cols, block.window
    words, expected = [], []
    count = rng.randint(1, 30)
    for _ in range(count):
        totals = [_sum(rng, window.sum_bits - 2) for _ in range(lanes)]
        flagged = [rng.random() < 0.1 for _ in range(lanes)]
        sums = golden.WindowSums.of_integers(totals, flagged, window)
        junk = [rng.getrandbits(window.sum_bits - 2) if flag else 0 for flag in flagged]
        odd = rng.getrandbits(1)
        fields = {"x": joined(sums.words() | np.array(junk, object), window.sum_bits), "odd": odd}
        words.append(word_of(block.i_layout, fields))
        result = golden.to_bits(sums.to_binary32(odd=bool(odd)))
        expected.append((word_of(block.o_layout, {"x": joined(result, 32)}), (1 << block.o_layout.size) - 1))
    arguments = {"words": words, "expected": count}
    return Case({"lanes": lanes, "words": count}, arguments, expected, ("drain", count * lanes, lanes))


def _sum(rng: random.Random, bits: int) -> int:
    """A sum of any length, or near the middle between two binary16 or binary32 numbers."""
    length = rng.randint(0, bits)
    found = rng.getrandbits(length) if length else 0
    kept = rng.choice((0, 11, 24))
    if kept and length > kept + 1:
        found = (found >> length - kept << length - kept) + (1 << length - kept - 1) + rng.choice((-1, 0, 1))
    return found if rng.getrandbits(1) else -found


VECTOR_BLOCKS = (
    Block("sore", Sore.from_accelerator, run_streams, draw_sore),
    Block("transposer", _transposer, run_streams, draw_transposer),
    Block("wuve", Wuve.from_accelerator, run_streams, draw_wuve),
    Block("epilogue", Epilogue.from_accelerator, run_streams, draw_epilogue),
    Block("drain", Drain.from_accelerator, run_streams, draw_drain),
)
