"""Layers and workloads: what a network computes, without saying how it is scheduled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .side_products import SideProduct, check_side_products, expanded
from .sparsity import DENSE, Sparsity
from .stages import (
    SIZE_LIMIT,
    Accuracy,
    Pattern,
    Source,
    Stages,
    TensorFile,
    WeightTensor,
    check_stages,
)
from .yaml_io import content_hash, named_file, names_in, read_yaml, validate

FORMAT = "nmsat-workload/1"
_FOLDER = Path(__file__).parent / "zoo"
NETWORK_SUFFIXES = (".onnx", ".pt2", ".safetensors", ".npz")  # read by the importers

Size = Annotated[int, Field(ge=1, le=SIZE_LIMIT)]
Op = Literal["conv2d", "linear", "depthwise", "attention", "elementwise"]
Function = Literal[
    "batchnorm",
    "layernorm",
    "rmsnorm",
    "relu",
    "gelu",
    "silu",
    "sigmoid",
    "swiglu",
    "add",
    "scale",
    "maxpool",
    "avgpool",
    "softmax",
    "cross_entropy",
]
PRODUCT_OPS = frozenset({"conv2d", "linear", "depthwise", "attention"})


class Layer(BaseModel, frozen=True):
    """One layer of a network, sizes for one sample.

    conv2d, depthwise
        ``ic, oc, kh, kw, h, w, stride, pad, groups``; weights are OHWI. depthwise has oc == ic == groups.
    linear
        ``ic, oc`` and ``tokens`` (rows a sample).
    attention
        ``heads``, ``head_dim``, ``tokens``: the two products QK^T and AV of every head.
    elementwise
        ``function`` over an output of ``oc x oh x ow`` (pooling: kernel and stride give the input size).
        Consecutive elementwise layers are fused into one vector pass by the compiler.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=128)
    op: Op
    ic: Size = 1
    oc: Size = 1
    kh: Size = 1
    kw: Size = 1
    h: Size = 1
    w: Size = 1
    stride: Size = 1
    pad: int = Field(default=0, ge=0, le=SIZE_LIMIT)
    groups: Size = 1
    tokens: Size = 1
    heads: Size = 1
    head_dim: Size = 1
    function: Function | None = None
    prune: bool = Field(default=True, description="false keeps the layer dense whatever the method")
    pattern: Pattern | None = Field(default=None, description="overrides the run's pattern for this layer")
    inputs: Annotated[tuple[str, ...] | None, BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = (
        Field(default=None, description="layers read, default: the one before; a residual add names two")
    )
    input_gradient: bool | None = Field(
        default=None, description="false: no backward product; by default only the first product has none"
    )
    weights: WeightTensor | None = Field(default=None, description="where the weights are in the tensor file")
    stages: Stages | None = Field(default=None, description="products, masks and measured densities")
    extra: Annotated[tuple[SideProduct, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = (
        Field(default=(), max_length=3, description="side products: low-rank and block-diagonal terms")
    )

    @model_validator(mode="after")
    def _check(self) -> Layer:
        if self.op == "elementwise":
            if self.function is None:
                raise ValueError("function: must be given for an elementwise layer")
        elif self.function is not None:
            raise ValueError(f"function: must be left out for {self.op}, not {self.function!r}")
        if self.op == "depthwise" and not self.ic == self.oc == self.groups:
            raise ValueError(
                f"groups: must equal ic and oc for depthwise, not groups={self.groups} ic={self.ic} oc={self.oc}"
            )
        if self.op == "linear" and (self.kh, self.kw, self.h, self.w, self.groups) != (1, 1, 1, 1, 1):
            raise ValueError("linear: must not set kh, kw, h, w or groups; use ic, oc and tokens")
        if self.op == "conv2d":
            for key in ("ic", "oc"):
                if getattr(self, key) % self.groups:
                    raise ValueError(f"groups: must divide {key}={getattr(self, key)}, not {self.groups}")
        for size, kernel, key in ((self.h, self.kh, "kh"), (self.w, self.kw, "kw")):
            if size + 2 * self.pad < kernel:
                raise ValueError(f"{key}: must be at most size + 2*pad = {size + 2 * self.pad}, not {kernel}")
        if self.pad and self.pad >= max(self.kh, self.kw):
            raise ValueError(f"pad: must be smaller than the kernel, not {self.pad}")
        check_side_products(self)
        if self.macs > 2**62 or self.out_elements > 2**40:
            raise ValueError(f"layer {self.name!r}: must stay below 2^62 multiply-accumulates a sample")
        return self

    @property
    def oh(self) -> int:
        """Output height."""
        return (self.h + 2 * self.pad - self.kh) // self.stride + 1

    @property
    def ow(self) -> int:
        """Output width."""
        return (self.w + 2 * self.pad - self.kw) // self.stride + 1

    def measured(self, stage: str) -> Sparsity | None:
        """Pattern that the layer's own mask has in a stage (``ff`` or ``bp``); None: the run's method decides.

        A layer that has a pattern in any stage is dense in a stage of which nothing is known.
        """
        if self.stages is None or all(
            facts is None or facts.pattern is None for facts in (self.stages.ff, self.stages.bp)
        ):
            return None
        facts = self.stages.of(stage)
        return DENSE if facts is None or facts.pattern is None else facts.pattern

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """OHWI shape of the weight tensor: (oc, kh, kw, ic / groups)."""
        return self.oc, self.kh, self.kw, self.ic // self.groups

    @property
    def is_product(self) -> bool:
        """True for layers that run on the array."""
        return self.op in PRODUCT_OPS

    @property
    def has_weights(self) -> bool:
        """True for layers with a weight tensor."""
        return self.op in ("conv2d", "linear", "depthwise")

    @property
    def out_elements(self) -> int:
        """Elements of the output of one sample."""
        if self.op == "linear":
            return self.tokens * self.oc
        if self.op == "attention":
            return self.tokens * self.heads * self.head_dim
        return self.oc * self.oh * self.ow * (self.tokens if self.op == "elementwise" else 1)

    @property
    def weight_elements(self) -> int:
        """Elements of the weight tensor (0 where there is none)."""
        if not self.has_weights:
            return 0
        return self.oc * self.kh * self.kw * (self.ic // self.groups)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward product of one sample."""
        if self.op == "linear":
            return self.tokens * self.ic * self.oc
        if self.op == "attention":
            return 2 * self.heads * self.tokens * self.tokens * self.head_dim
        if self.op == "elementwise":
            return 0
        return self.oh * self.ow * self.weight_elements


class Workload(BaseModel, frozen=True):
    """A network: its layers in forward order.

    The fields after ``layers`` are the header of a file made from a network with weights (docs/workloads.md).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["nmsat-workload/1"] = FORMAT
    name: str = Field(min_length=1, max_length=128)
    description: str = Field(default="", max_length=4000)
    layers: Annotated[tuple[Layer, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = Field(
        min_length=1, max_length=100_000
    )
    source: Source | None = None
    tensors: TensorFile | None = Field(default=None, description="NPZ with weights and masks")
    batch: Annotated[int, Field(ge=1, le=2**20)] | None = Field(default=None, description="batch of the stages' sizes")
    mode: Literal["train", "infer"] | None = None
    accuracy: Annotated[tuple[Accuracy, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = ()
    notes: Annotated[
        tuple[Annotated[str, Field(max_length=1000)], ...],
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = Field(default=(), max_length=1000, description="what was simplified when the file was made")

    @model_validator(mode="after")
    def _check(self) -> Workload:
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise ValueError(f"layers: names must be unique, not {layer.name!r} twice")
            for name in layer.inputs or ():
                if name not in seen:
                    raise ValueError(f"layers: {layer.name}.inputs: must name earlier layers, not {name!r}")
            seen.add(layer.name)
        if not any(layer.is_product for layer in self.layers):
            raise ValueError("layers: must hold at least one conv2d, linear, depthwise or attention layer")
        self._check_stages()
        self.expanded()
        return self

    def _check_stages(self) -> None:
        for layer in self.layers:
            if layer.stages is None:
                continue
            if self.batch is None or self.mode is None:
                raise ValueError(f"batch and mode: must be given, {layer.name!r} has stages")
            check_stages(layer, self.batch, first=not self.input_gradient(layer), train=self.mode == "train")
            names = [facts.mask for facts in (layer.stages.ff, layer.stages.bp) if facts and facts.mask]
            if names and self.tensors is None:
                raise ValueError(f"tensors: must be given, {layer.name!r} names the mask {names[0]!r}")

    @classmethod
    def load(cls, name_or_path: str | Path) -> Workload:
        """Load a zoo network by name, a workload YAML (its masks checked), a SCALE-Sim topology CSV or a network file.

        Raises
        ------
        InputFileError
            If there is no such name or file, or the file breaks a rule.
        """
        path = named_file("workload", _FOLDER, name_or_path, (".yaml", ".yml", ".csv", *NETWORK_SUFFIXES))
        if path.suffix.lower() == ".csv":
            from .scalesim_csv import read_topology

            return read_topology(path)
        if path.suffix.lower() in NETWORK_SUFFIXES:
            from .importers import import_network

            return import_network(path).without_batch()
        data = read_yaml(path)
        if "tensors" in data:
            from .workload_file import WorkloadFile

            return WorkloadFile.of(data, path).workload
        return validate(cls, data, str(name_or_path))

    @staticmethod
    def names() -> list[str]:
        """Names of the zoo, sorted."""
        return names_in(_FOLDER)

    def expanded(self) -> Workload:
        """The network with its side products as layers of their own; itself where it has none."""
        return expanded(self)

    @property
    def macs(self) -> int:
        """Forward multiply-accumulates of one sample, side products included."""
        return sum(layer.macs for layer in self.expanded().layers)

    @property
    def weights(self) -> int:
        """Weight elements of the products (biases and normalisation parameters not counted)."""
        return sum(layer.weight_elements for layer in self.expanded().layers)

    def inputs_of(self) -> dict[str, tuple[str, ...]]:
        """Names of the layers that every layer reads; () for the network's own input."""
        found: dict[str, tuple[str, ...]] = {}
        previous: tuple[str, ...] = ()
        for layer in self.layers:
            found[layer.name] = previous if layer.inputs is None else layer.inputs
            previous = (layer.name,)
        return found

    def input_gradient(self, layer: Layer) -> bool:
        """True when the layer's backward product is computed: all but the first product, unless stated."""
        if layer.input_gradient is not None:
            return layer.input_gradient
        return layer is not next(item for item in self.layers if item.is_product)

    def _unset(self) -> dict[str, Any]:
        """Header and layer facts that are not given: a shape alone keeps its hash."""
        header = ("source", "tensors", "batch", "mode", "accuracy", "notes")
        unset: dict[str, Any] = {name: True for name in header if not getattr(self, name)}
        facts = ("weights", "stages", "extra")
        layers = {
            index: {name for name in facts if not getattr(layer, name)} for index, layer in enumerate(self.layers)
        }
        return unset | {"layers": layers}

    def config_hash(self) -> str:
        """:func:`content_hash` of all fields that are given."""
        data: dict[str, Any] = json.loads(self.model_dump_json(exclude=self._unset()))
        return content_hash(data)
