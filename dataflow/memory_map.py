"""Where tensors lie in DRAM: placed in order of first use, each on its own page, channels innermost."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..models.sparsity import DENSE, Sparsity
from ..models.workload import Layer
from .edges import INPUT, Edges
from .program import AFFINE, RULE, Stage, Tensor

ALIGN = 4096
_BYTES = {"float16": 2, "float32": 4, "int32": 4, "uint8": 1}


@dataclass
class MemoryMap:
    """Places tensors; every method returns an address (or a pair of them) and places what is not there yet."""

    edges: Edges
    batch: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    top: int = 0

    def place(self, name: str, dtype: str, shape: tuple[int, ...]) -> int:
        """Address of a tensor by name."""
        if name in self.tensors:
            return self.tensors[name].address
        size = _BYTES[dtype]
        for length in shape:
            size *= length
        self.tensors[name] = Tensor(name, self.top, size, dtype, shape)
        address, self.top = self.top, self.top + -(-size // ALIGN) * ALIGN
        return address

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a held tensor: images, then rows or pixels, channels innermost."""
        if name != INPUT:
            layer = self.edges.layers[name]
            if layer.op in ("conv2d", "depthwise"):
                return (self.batch, layer.oh, layer.ow, layer.oc)
            if layer.op == "elementwise" and layer.tokens == 1 and (layer.oh, layer.ow) != (1, 1):
                return (self.batch, layer.oh, layer.ow, layer.oc)
        elif (first := self.edges.workload.layers[0]).op in ("conv2d", "depthwise"):
            return (self.batch, first.h, first.w, first.ic)
        return (self.batch, self.edges.elements(name))

    def output(self, name: str) -> int:
        """A held output; ``input`` is the network's own."""
        return self.place(INPUT if name == INPUT else f"{name}.y", "float16", self._shape(name))

    def input(self, layer: Layer) -> int:
        """What a layer reads first."""
        return self.output(self.edges.source(layer.name))

    def gradients(self, name: str) -> list[int]:
        """The tensors whose sum is the gradient of a held tensor."""
        return [self.place(item, "float16", self._shape(name)) for item in self.edges.gradients(name)]

    def gradient(self, name: str) -> int:
        """The whole gradient of a product's output."""
        return self.place(f"{name}.dy", "float16", self._shape(name))

    def handed_back(self, layer: Layer) -> int:
        """The tensor that takes the gradient which a layer computes for its first input."""
        source = self.edges.source(layer.name)
        found = [item for item in self.edges.contributions[source] if item.reader == layer.name]
        name = self.edges.written(source, found[0]) if found else f"{layer.name}.dx"
        return self.place(name, "float16", self._shape(source))

    def handed_aside(self, layer: Layer) -> int:
        """The tensor that takes the gradient of an addition's other operand; 0 where nobody wants it."""
        source = self.edges.sources(layer.name)[1]
        for item in self.edges.contributions[source]:
            if (item.reader, item.kind) == (layer.name, "other"):
                return self.place(self.edges.written(source, item), "float16", self._shape(source))
        return 0

    def affine(self, layer: Layer) -> int:
        """A normalisation's scale and shift with their momenta and gradients, and batch statistics: rows of AFFINE."""
        return self.place(f"{layer.name}.affine", "float32", (len(AFFINE), layer.oc))

    def mask(self, name: str) -> int:
        """ReLU mask of a held output, a bit an element."""
        return self.place(f"{name}.mask", "uint8", (-(-self.batch * self.edges.elements(name) // 8),))

    def weights(self, layer: Layer, stage: Stage, pattern: Sparsity) -> tuple[int, int]:
        """(values, indices) of the weight operand of a stage; indices 0 where dense."""
        if pattern.is_dense:
            return self.place(f"{layer.name}.w16", "float16", self.weight_shape(layer)), 0
        outer, inner = layer.oc, layer.ic // layer.groups
        if stage is Stage.BP:
            outer, inner = layer.ic, layer.oc // layer.groups
        groups = (outer, layer.kh, layer.kw, inner // pattern.group)
        name = f"{layer.name}.{stage.name.lower()}"
        values = self.place(f"{name}.values", "float16", (*groups, pattern.keep))
        return values, self.place(f"{name}.indices", "uint8", (*groups, pattern.index_bytes))

    @staticmethod
    def weight_shape(layer: Layer) -> tuple[int, ...]:
        """OHWI."""
        return (layer.oc, layer.kh, layer.kw, layer.ic // layer.groups)

    def pruned_gradient(self, layer: Layer, pattern: Sparsity) -> tuple[int, int]:
        """(values, indices) of the pruned output gradient of SDGP."""
        groups = self.batch * layer.out_elements // pattern.group
        values = self.place(f"{layer.name}.dy.values", "float16", (groups, pattern.keep))
        return values, self.place(f"{layer.name}.dy.indices", "uint8", (groups, pattern.index_bytes))

    def weight_gradient(self, layer: Layer) -> int:
        """dW in the order of the weights; WUVE reads it on its way, so it need not reach memory."""
        return self.place(f"{layer.name}.g", "float32", self.weight_shape(layer))

    def master(self, layer: Layer) -> dict[str, int]:
        """Addresses of master weight and momentum."""
        shape = self.weight_shape(layer)
        return {f"{name}_address": self.place(f"{layer.name}.{name}", "float32", shape) for name in ("w32", "v32")}

    def scores(self, layer: Layer, stage: Stage) -> int:
        """Attention scores (FF: then probabilities; BP: their gradients)."""
        name = f"{layer.name}.scores" if stage is Stage.FF else f"{layer.name}.dscores"
        return self.place(name, "float16", (self.batch, layer.heads, layer.tokens, layer.tokens))

    def rule(self) -> int:
        """Coefficients of the update."""
        return self.place("rule", "float32", (len(RULE),))

    def labels(self, rows: int) -> dict[str, int]:
        """Classes and losses of cross entropy."""
        return {
            "labels_address": self.place("labels", "int32", (rows,)),
            "loss_address": self.place("losses", "float32", (rows,)),
        }


__all__ = ["ALIGN", "DENSE", "MemoryMap"]
