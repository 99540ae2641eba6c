"""What of a program the hardware does not execute, known before it runs: a reason a descriptor, no codes.

The units check every descriptor again and end with a code (docs/registers.md). Here are the features of legal programs
that they refuse with ``unsupported``, and what depends on the accelerator a program was made for.
"""

from __future__ import annotations

from ..dataflow import program as fmt
from ..dataflow.program import Descriptor, Kind, Mode, Program, Stage, steps_of
from ..models.accelerator import Accelerator
from .product.sizes import DIMENSION_BITS

POOLS = {"maxpool", "avgpool"}
_DIMENSIONS = ("m", "n", "kc", "count", "inner", "images", "in_h", "in_w", "in_c", "out_h", "out_w")


def refusals(program: Program, accelerator: Accelerator) -> list[tuple[str, str]]:
    """(layer, what of it) of every descriptor that the top of an accelerator refuses; empty if it runs."""
    check = {
        Kind.PRODUCT: _product, Kind.VECTOR: _vector, Kind.UPDATE: _update, Kind.PRUNE: _update,
        Kind.HOST: lambda item, accelerator: None,
    }  # fmt: skip
    found = [(item, check[item.kind](item, accelerator)) for item in program.descriptors]
    return [(f"layer {program.layers[item['layer']]!r}", reason) for item, reason in found if reason is not None]


def _pattern(keep: int, group: int, accelerator: Accelerator) -> str | None:
    """The pattern, if the hardware has not been made for it."""
    return f"pattern {keep}:{group}" if keep > accelerator.max_keep or group > accelerator.max_group else None


def _product(item: Descriptor, accelerator: Accelerator) -> str | None:
    transposed, swapped = item.flag(fmt.TRANSPOSED_A), item.flag(fmt.SWAPPED)
    columns_run = swapped or item["c_stride_n"] != 1
    shared = (item["n"] | item["c_stride_m"] | item["c_repeat"] | item["c_outer"]) % 8 != 0
    summed_in_binary32 = accelerator.accumulator == "fp32"
    other = item["k_tile"] != accelerator.rows if item["mode"] == Mode.WS else summed_in_binary32 and item["k_tile"]
    reasons = (
        (item.flag(fmt.ONLINE_PRUNE), "an operand pruned on its way in"),
        (item["window_lsb"] != 0 and summed_in_binary32, "window sums"),
        (transposed and item["block"] > 1, "the weight gradient of a depthwise convolution"),
        (item.flag(fmt.WRITE_MASK) and (columns_run or shared), "a ReLU mask whose rows share bytes"),
        (item.flag(fmt.WRITE_MASK) and item.flag(fmt.OUT_FP32), "a ReLU mask of binary32 results"),
        (columns_run and (item["c_stride_m"] != 1 or not (transposed or swapped)), "results apart both ways"),
        (any(item[name] >> DIMENSION_BITS for name in _DIMENSIONS), f"a size of 2^{DIMENSION_BITS} or more"),
        (other, "a mapping made for another array"),
    )  # fmt: skip
    sizes = (*_DIMENSIONS, "taps_y", "taps_x", "keep", "group", "block")
    last = _pattern(item["keep"], item["group"], accelerator) or (
        None if all(map(item.__getitem__, sizes)) else "size 0"
    )
    return next((text for wrong, text in reasons if wrong), last)


def _vector(item: Descriptor, accelerator: Accelerator) -> str | None:
    names, backward = steps_of(item["steps"]), item["stage"] == Stage.BP
    if unknown := [name for name in names if name not in {"relu", "add"} | POOLS]:
        return f"{unknown[0]} on the lanes"
    place = next((k for k, name in enumerate(names) if name in POOLS), len(names))
    before, behind = names[:place], names[place + 1 :]
    if before.count("add") > 1 or set(behind) - {"relu"}:
        return f"the vector pass {'+'.join(names)}"
    if not (backward and place < len(names)):
        return None
    mean, relu_first = names[place] == "avgpool", "relu" in before[: before.index("add")] if "add" in before else False
    high, wide, stride = item["window_y"], item["window_x"], item["stride"]
    if (high, wide, item["pad"]) != (stride, stride, 0) or item["h"] % high or item["w"] % wide:
        return "the gradient of a pool whose windows overlap, are padded or leave a rest"
    if (mean and behind) or (not mean and relu_first):
        return f"the gradient of {'+'.join(names)}"
    return None


def _update(item: Descriptor, accelerator: Accelerator) -> str | None:
    patterns = [(item[f"{side}_keep"], item[f"{side}_group"]) for side in ("ff", "bp", "mask")]
    found = [_pattern(keep, group, accelerator) for keep, group in patterns if keep]
    return next((reason for reason in found if reason is not None), None)
