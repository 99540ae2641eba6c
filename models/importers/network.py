"""What every reader builds: layers in forward order, who reads whom, and the weights in OHWI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputFileError, NmsatError
from ..stages import SIZE_LIMIT
from ..workload import Workload
from ..yaml_io import validate

MAX_LAYERS = 100_000


@dataclass
class Network:
    """A network while it is read.

    Values of the source's graph are known by name; ``writers`` says which layers a value comes from, through
    whatever costs nothing (reshapes, transposes, biases).
    """

    where: str
    layers: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    writers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)
    numbers: Counter[str] = field(default_factory=Counter)
    tool: str = ""

    def unique(self, wanted: str) -> str:
        """A layer name nobody has."""
        base = wanted.strip("/.").replace("/", ".")[-110:] or "layer"
        name = base
        while name in self.names:
            self.numbers[base] += 1
            name = f"{base}_{self.numbers[base] + 1}"
        self.names.add(name)
        return name

    def sources(self, values: Iterable[str]) -> tuple[str, ...]:
        """Layers that some values come from, in order, each once."""
        return tuple(dict.fromkeys(name for value in values for name in self.writers.get(value, ())))

    def alias(self, outputs: Iterable[str], inputs: Iterable[str]) -> None:
        """Outputs that cost nothing: they come from where the inputs do."""
        found = self.sources(inputs)
        for name in outputs:
            self.writers[name] = found

    def add(self, wanted: str, op: str, output: str, inputs: Iterable[str], **fields: Any) -> str:
        """Append a layer; returns its name."""
        if len(self.layers) >= MAX_LAYERS:
            raise InputFileError(f"{self.where}: must have at most {MAX_LAYERS} layers")
        name = self.unique(wanted)
        entry: dict[str, Any] = {"name": name, "op": op, **{k: v for k, v in fields.items() if v is not None}}
        reads = self.sources(inputs)
        before = (self.layers[-1]["name"],) if self.layers else ()
        if reads != before:
            entry["inputs"] = list(reads)
        self.layers.append(entry)
        self.writers[output] = (name,)
        return name

    def weighted(self, wanted: str, op: str, output: str, source: str, weights: NDArray[Any], **fields: Any) -> str:
        """Append a layer with weights (OHWI)."""
        name = self.add(wanted, op, output, [source], **fields)
        self.weights[name] = weights
        return name

    def gate(self, output: str, moving: list[str]) -> bool:
        """x * sigmoid(x), x * gelu's bracket: the activation that is there already; False for another product."""
        if len(moving) != 2:
            return False
        by_name = {entry["name"]: entry for entry in self.layers[-64:]}
        for one, other in (moving, moving[::-1]):
            writers = self.sources([one])
            entry = by_name.get(writers[0]) if len(writers) == 1 else None
            if entry is None or entry.get("function") not in ("sigmoid", "gelu"):
                continue
            place = self.layers.index(entry)
            before = (self.layers[place - 1]["name"],) if place else ()
            if tuple(entry.get("inputs", before)) == self.sources([other]):
                entry["function"] = "silu" if entry["function"] == "sigmoid" else "gelu"
                self.writers[output] = (entry["name"],)
                return True
        return False

    def workload(self, name: str, description: str = "") -> Workload:
        """The layers as a workload; what breaks a rule is an InputFileError.

        As in the zoo, the first product and a final linear layer are left out of the pruning methods.
        """
        products = [entry for entry in self.layers if entry["op"] != "elementwise"]
        if not products:
            raise InputFileError(f"{self.where}: must hold at least one convolution, linear layer or attention")
        products[0]["prune"] = False
        if products[-1]["op"] == "linear":
            products[-1]["prune"] = False
        data = {"name": name[:128], "description": description, "layers": self.layers}
        return validate(Workload, data, self.where)


def per_sample(shape: tuple[int, ...], batch: int, where: str) -> dict[str, int]:
    """Fields of an elementwise layer over a value of (batch, ...): images are NCHW, all else rows of features."""
    total = elements(shape)
    if not shape or total % batch:
        raise InputFileError(f"{where}: must hold a whole number of samples, not {shape} for a batch of {batch}")
    if len(shape) == 4 and shape[0] == batch:
        return {"oc": shape[1], "h": shape[2], "w": shape[3]}
    return {"oc": shape[-1], "tokens": total // batch // shape[-1]}


def elements(shape: Iterable[int]) -> int:
    """Elements of a shape."""
    total = 1
    for length in shape:
        total *= length
    return total


def window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilation: tuple[int, int],
    where: str,
    ceil: bool = False,
) -> tuple[dict[str, int], bool]:
    """Layer fields of a sliding window, and whether they are exact.

    A workload's layer has one stride and one symmetric padding. Other paddings, and dilation, become the input size
    that gives the same output without padding: the same products, but the border counts as memory.

    Parameters
    ----------
    pads : (top, left, bottom, right)

    Raises
    ------
    InputFileError
        For strides that differ where both matter, or a window larger than its input.
    """
    for value in (*size, *kernel, *stride, *dilation):
        if not 1 <= value <= SIZE_LIMIT:
            raise NmsatError.rule(where, "kernel, stride, dilation and size", f"1 to {SIZE_LIMIT}", value)
    if min(pads) < 0 or max(pads) > SIZE_LIMIT:
        raise NmsatError.rule(where, "pads", f"0 to {SIZE_LIMIT}", pads)
    out = []
    for axis in (0, 1):
        room = size[axis] + pads[axis] + pads[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1
        if room < 0:
            raise NmsatError.rule(where, "kernel", "at most the padded input", f"{kernel[axis]} on {size[axis]}")
        steps = -(-room // stride[axis]) if ceil else room // stride[axis]
        if ceil and steps * stride[axis] >= size[axis] + pads[axis]:
            steps -= 1  # the last window must start inside the input
        out.append(steps + 1)
    step = stride[0] if out[0] > 1 or out[1] == 1 else stride[1]
    if any(out[axis] > 1 and stride[axis] != step for axis in (0, 1)):
        raise NmsatError.rule(where, "stride", "the same along both axes", stride, "such a layer is not supported")
    fields = {"kh": kernel[0], "kw": kernel[1], "stride": step}
    exact = len(set(pads)) == 1 and dilation == (1, 1) and pads[0] < max(kernel)
    if exact and all((size[a] + 2 * pads[0] - kernel[a]) // step + 1 == out[a] for a in (0, 1)):
        return fields | {"h": size[0], "w": size[1], "pad": pads[0]}, True
    tight = [(out[a] - 1) * step + kernel[a] for a in (0, 1)]
    return fields | {"h": tight[0], "w": tight[1]}, False


def as_weights(array: NDArray[Any], layout: str, where: str) -> NDArray[Any]:
    """A weight of any layout as OHWI, float16 or float32, finite.

    Raises
    ------
    InputFileError
        For other dimensions than the layout's, another dtype, or a NaN or infinity.
    """
    orders = {"OHWI": (0, 1, 2, 3), "OIHW": (0, 2, 3, 1), "HWIO": (3, 0, 1, 2), "OI": (0, 1), "IO": (1, 0)}
    order = orders[layout]
    if array.ndim != len(order) or not array.size:
        raise NmsatError.rule(where, "weight.shape", f"{layout}, no axis 0 long", array.shape)
    if array.dtype.name not in ("float16", "float32", "float64"):
        raise NmsatError.rule(where, "weight", "of floating point", array.dtype.name)
    if array.dtype.name == "float64":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if not np.isfinite(array).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise NmsatError.rule(where, "weight", "finite numbers", f"{array[tuple(at)]} at {at} ({layout})")
    found = np.ascontiguousarray(array.transpose(order))
    return found if found.ndim == 4 else found[:, None, None, :]


def conv_fields(weights: NDArray[Any], channels: int, groups: int, where: str) -> tuple[str, dict[str, int]]:
    """(op, fields) of a convolution by its OHWI weights; depthwise where every group is one channel in and out."""
    oc, _, _, ic = weights.shape
    if groups < 1 or channels != ic * groups or oc % groups:
        rule = f"{ic} x groups input channels by its weight, groups dividing {oc}"
        raise NmsatError.rule(where, "channels", rule, f"{channels} channels, {groups} groups")
    op = "depthwise" if groups > 1 and groups == oc == channels else "conv2d"
    return op, {"ic": channels, "oc": oc, "groups": groups}


def sibling_yaml(path: Path) -> Path | None:
    """The YAML of the same stem beside a tensor file."""
    for suffix in (".yaml", ".yml"):
        found = path.with_suffix(suffix)
        if found.is_file():
            return found
    return None
