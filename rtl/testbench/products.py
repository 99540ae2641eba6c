"""Random legal PRODUCT descriptors with a memory image: every way in which operands can lie, at small sizes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...dataflow import program as fmt
from ...dataflow.program import Descriptor, Kind, Program, Tensor, descriptor
from ...models.accelerator import Accelerator
from ...models.golden import compress, pack
from ...models.sparsity import Sparsity

PATTERNS = ((1, 2), (1, 4), (2, 4), (2, 8), (4, 8), (2, 16), (4, 16), (8, 16), (3, 4), (5, 16))
_PAGE = 4096


class _Image:
    """Tensors placed one after the other, each on its own page, with contents."""

    def __init__(self, numbers: np.random.Generator) -> None:
        self.numbers, self.top = numbers, _PAGE
        self.tensors: list[Tensor] = []
        self.contents: list[np.ndarray] = []

    def place(self, name: str, values: np.ndarray) -> int:
        data = np.ascontiguousarray(values).reshape(-1)
        address = self.top
        self.tensors.append(Tensor(name, address, data.nbytes, data.dtype.name, (len(data),)))
        self.contents.append(data)
        self.top += -(-data.nbytes // _PAGE) * _PAGE
        return address

    def halves(self, count: int) -> np.ndarray:
        """binary16 numbers, some of them odd: Inf, NaN, subnormal."""
        ordinary = self.numbers.normal(size=count).astype(np.float16)
        anything = self.numbers.integers(0, 1 << 16, count).astype(np.uint16).view(np.float16)
        return np.where(self.numbers.random(count) < 0.01, anything, ordinary)

    def bytes(self) -> np.ndarray:
        image = np.zeros(self.top, np.uint8)
        for item, data in zip(self.tensors, self.contents, strict=True):
            image[item.address : item.address + item.bytes] = data.view(np.uint8)
        return image


def compressed(image: _Image, name: str, groups: int, pattern: Sparsity) -> tuple[int, int]:
    """Addresses of the planes of ``groups`` random groups."""
    dense = image.numbers.normal(size=(groups, pattern.group)).astype(np.float16)
    kept = compress(dense, pattern, axis=1)
    values, indices = pack(kept)
    return (
        image.place(f"{name}.values", np.asarray(values).view(np.float16)),
        image.place(f"{name}.indices", np.asarray(indices).view(np.uint8)),
    )


def random_products(
    accelerator: Accelerator, count: int, seed: int, kinds: Sequence[str] = ("mapped", "transposed", "swapped", "block")
) -> tuple[Program, np.ndarray]:
    """A program of ``count`` unrelated products, and memory before it.

    Returns
    -------
    program : Program
    image : uint8 array
    """
    rng, numbers = random.Random(f"products {seed}"), np.random.default_rng(seed)
    image = _Image(numbers)
    found = [_product(rng, image, accelerator, number, rng.choice(kinds)) for number in range(count)]
    program = Program(tuple(found), ("random",), tuple(image.tensors), {"accelerator": accelerator.name})
    data = np.zeros(program.dram_bytes, np.uint8)
    data[:] = image.bytes()[: len(data)]
    return program, data


def _axis(rng: random.Random, swapped: bool = False) -> dict[str, int]:
    """One axis of a convolution: sizes, taps and the phase of the output."""
    size, taps = rng.randint(1, 6), rng.choice((1, 1, 2, 3))
    step, tap_step = rng.choice(((1, 1), (2, 1), (1, -1))) if taps > 1 else (rng.choice((1, 2)), 1)
    out = rng.randint(1, 4)
    first, target = rng.randint(0, 1), rng.choice((1, 2))
    return {
        "size": size, "taps": taps, "step": step, "tap_step": tap_step, "out": out,
        "origin": rng.randint(-2, 1) if tap_step > 0 else rng.randint(0, 2),
        "b_first": rng.randint(0, 1), "b_step": rng.choice((1, 2)),
        "c_first": first, "c_step": target, "c_size": first + (out - 1) * target + 1 + rng.randint(0, 1),
    }  # fmt: skip


def _pattern(rng: random.Random, accelerator: Accelerator, kind: str) -> tuple[int, int]:
    if kind == "transposed" or (kind == "mapped" and rng.random() < 0.5):
        dense = rng.choice([n for n in (1, 2, 4, 8) if n <= accelerator.max_keep])
        return dense, dense
    return rng.choice([(n, m) for n, m in PATTERNS if n <= accelerator.max_keep and m <= accelerator.max_group])


def _product(rng: random.Random, image: _Image, accelerator: Accelerator, number: int, kind: str) -> Descriptor:
    swapped, transposed, block = kind == "swapped", kind == "transposed", 1
    keep, group = _pattern(rng, accelerator, kind)
    sparse = keep != group
    y, x = _axis(rng), _axis(rng)
    images = rng.randint(1, 3)
    pixels = images * y["out"] * x["out"]
    channels = group * rng.randint(1, 3) if sparse else rng.randint(1, 20)
    columns = rng.randint(1, 2 * accelerator.cols + 1)
    if kind == "block":
        block = rng.choice([size for size in (2, 4, 8, 16) if size <= accelerator.max_group])
        keep, group, channels, columns = 1, block, block, block
    count, inner = rng.choice(((1, 1), (1, 1), (2, 2), (2, 1), (3, 2)))
    flags, taps = 0, y["taps"] * x["taps"]
    m, n, kc = (columns, pixels, channels) if swapped else (pixels, columns, channels)
    if transposed:
        m, n, kc = taps * channels, columns, pixels
    fields: dict[str, int] = {
        "images": images, "in_c": channels,
        **{f"{key}_{axis}": part[name] for axis, part in (("y", y), ("x", x)) for key, name in (
            ("taps", "taps"), ("step", "step"), ("tap_step", "tap_step"), ("origin", "origin"),
            ("b_first", "b_first"), ("b_step", "b_step"), ("c_first", "c_first"), ("c_step", "c_step"),
        )},
        "in_h": y["size"], "in_w": x["size"], "out_h": y["out"], "out_w": x["out"], "c_h": y["c_size"],
        "c_w": x["c_size"],
    }  # fmt: skip
    rows_of_taps, columns_of_taps = (part["b_first"] + (part["taps"] - 1) * part["b_step"] + 1 for part in (y, x))
    stored_taps = rows_of_taps * columns_of_taps
    fields["b_taps_x"] = columns_of_taps
    # the mapped operand
    pixel = channels * count + (group if sparse else rng.randint(0, 3))
    pixel += -pixel % group if swapped else 0
    mapped_elements = images * y["size"] * x["size"] * pixel + channels * count
    mapped_repeat, inner_steps = channels, {"inner": inner}
    if swapped:
        mapped_elements += -mapped_elements % group
    # the strided operand
    strided_columns = columns
    along_k = (sparse and not swapped) or rng.random() < 0.5
    if kind == "block":
        strides = {"b_stride_k": stored_taps, "b_stride_tap": 1, "b_stride_n": stored_taps}
        size = block * stored_taps
    elif transposed:
        wide = columns + rng.randint(0, 2)
        strides, size = {"b_stride_k": wide, "b_stride_n": 1, "b_stride_tap": 0}, wide * pixels
    elif along_k:
        strides = {"b_stride_k": 1, "b_stride_tap": channels, "b_stride_n": stored_taps * channels}
        size = strided_columns * stored_taps * channels
    else:
        strides = {"b_stride_k": stored_taps * columns, "b_stride_tap": columns, "b_stride_n": 1}
        size = channels * stored_taps * columns
    pattern = Sparsity(keep, group)
    sides = ("b", "a") if swapped else ("a", "b")
    fields |= strides | inner_steps | {"a_pixel": pixel, "count": count}
    repeats = {sides[0]: (mapped_repeat, mapped_repeat * inner), sides[1]: (size, size * inner)}
    for side, (near, far) in repeats.items():
        fields |= {f"{side}_repeat": near, f"{side}_outer": far}
    if swapped:
        values, indices = compressed(image, f"p{number}.b", mapped_elements // group, pattern)
        fields |= {"b_address": values, "index_address": indices}
        fields["a_address"] = image.place(f"p{number}.a", image.halves(size * count))
    else:
        fields["a_address"] = image.place(f"p{number}.a", image.halves(mapped_elements))
        if sparse and kind != "block":
            values, indices = compressed(image, f"p{number}.b", size * count // group, pattern)
            fields |= {"b_address": values, "index_address": indices}
        else:
            fields["b_address"] = image.place(f"p{number}.b", image.halves(size * count))
    flags |= _results(rng, image, number, fields, kind, (m, n), columns, images)
    flags |= fmt.SWAPPED * swapped | fmt.TRANSPOSED_A * transposed
    if kind == "block":
        fields |= {"index_address": 0}
    groups = (1 if transposed else taps) * -(-kc // group)
    return descriptor(
        Kind.PRODUCT, flags=flags, m=m, n=n, kc=kc, keep=keep, group=group, block=block,
        **_mapping(rng, accelerator, m, keep, groups), **fields,
    )  # fmt: skip


def _results(
    rng: random.Random, image: _Image, number: int, fields: dict[str, int], kind: str, shape: tuple[int, int],
    columns: int, images: int,
) -> int:  # fmt: skip
    """Strides of C, its epilogue and masks; the flags."""
    m, n = shape
    count, inner = fields["count"], fields["inner"]
    plane = images * fields["c_h"] * fields["c_w"]
    wide = columns * count
    mask = kind == "mapped" and columns % 8 == 0 and rng.random() < 0.7
    if kind == "transposed":
        fields |= {"c_stride_m": 1, "c_stride_n": m, "c_repeat": m * n, "c_outer": m * n * inner}
        elements, flags = m * n * count, fmt.OUT_FP32
        if rng.random() < 0.3:  # as attention's dK: rows of a wider tensor
            fields |= {"c_stride_m": wide, "c_stride_n": 1, "c_repeat": columns, "c_outer": columns * inner}
            elements, flags = m * wide, 0
    elif kind == "swapped":
        fields |= {"c_stride_m": 1, "c_stride_n": wide, "c_repeat": m, "c_outer": m * inner}
        elements, flags = plane * wide, rng.choice((0, fmt.APPLY_MASK))
    else:
        fields |= {"c_stride_m": wide, "c_stride_n": 1, "c_repeat": columns, "c_outer": columns * inner}
        elements = plane * wide
        choices = [0, fmt.RELU, fmt.APPLY_MASK, fmt.OUT_FP32, fmt.RELU | fmt.APPLY_MASK]
        flags = fmt.RELU | fmt.WRITE_MASK if mask else rng.choice(choices)
    kind_of = np.float32 if flags & fmt.OUT_FP32 else np.float16
    before = image.numbers.integers(0, 256, elements * np.dtype(kind_of).itemsize).astype(np.uint8)
    fields["c_address"] = image.place(f"p{number}.c", before.view(kind_of))
    if flags & (fmt.APPLY_MASK | fmt.WRITE_MASK):
        bits = image.numbers.integers(0, 256, -(-elements // 8)).astype(np.uint8)
        fields["mask_address"] = image.place(f"p{number}.mask", bits)
    return flags


def _mapping(rng: random.Random, accelerator: Accelerator, m: int, keep: int, groups: int) -> dict[str, Any]:
    window = accelerator.window
    common = {"n_chunk": accelerator.cols, "window_lsb": window.lsb if window else 0}
    if rng.random() < 0.5:
        most = min(m, accelerator.output_bytes // (accelerator.sum_bytes * accelerator.cols))
        return common | {
            "mode": fmt.Mode.WS, "k_tile": accelerator.rows, "interleave": 1, "m_chunk": rng.randint(1, most),
        }  # fmt: skip
    full = -(-accelerator.sum_latency_cycles // keep)
    found = common | {"mode": fmt.Mode.OS, "interleave": rng.randint(1, full), "m_chunk": m}
    if window and groups > 1 and (groups * keep > window.terms or rng.random() < 0.5):
        found["k_tile"] = rng.randint(1, min(groups - 1, window.terms // keep))
    return found
