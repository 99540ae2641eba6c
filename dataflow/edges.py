"""Which tensor a network's edges are: who holds an output, who reads it, where its gradient comes from.

A product writes one tensor, a fused vector pass another; layers inside a pass have a tensor only where somebody outside
reads them. The gradient of a tensor is the sum of one contribution a reader, added in the readers' order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..models.workload import Layer, Workload
from . import lowering

INPUT = "input"
MAX_GRADIENTS = 3  # gradient addresses of a vector descriptor
LANE_FUNCTIONS = frozenset({"relu", "add", "maxpool", "avgpool"})  # values defined in the vector lanes
HOST_FUNCTIONS = lowering.NORMS | {"gelu", "silu", "sigmoid"}  # values computed by the host, anywhere in a pass


@dataclass(frozen=True, slots=True)
class Contribution:
    """Part of a tensor's gradient: a product's dX, a pass's dX, or what an addition hands to its other operand."""

    reader: str
    kind: str  # product, pass or other


@dataclass
class Edges:
    """The tensors along a workload's edges (docs/accelerator.md, section 9).

    In inference batch normalisation is folded into the weights: its layers vanish and their readers read the product.
    """

    workload: Workload
    train: bool = True

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.workload.layers}

    @cached_property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        """Layers that every layer reads, folded ones looked through; () for the network's input."""
        found = self.workload.inputs_of()
        there = {layer.name for layer, after in self.groups for layer in (layer, *after) if layer}
        return {
            name: tuple(item for item in map(self._folded, names) if item)
            for name, names in found.items()
            if name in there
        }

    def _folded(self, name: str) -> str:
        named = self.workload.inputs_of()
        while not self.train and name and self.layers[name].function == "batchnorm":
            name = named[name][0] if named[name] else ""
        return name

    @cached_property
    def groups(self) -> list[tuple[Layer | None, list[Layer]]]:
        """(product, elementwise layers after it), folded ones left out."""
        return [
            (layer, [item for item in after if self.train or item.function != "batchnorm"])
            for layer, after in lowering.groups_after(self.workload)
        ]

    @cached_property
    def fused(self) -> dict[str, str]:
        """ReLU layers that a product's epilogue does: their output is the product's tensor."""
        found = {}
        for layer, after in self.groups:
            if layer is None or layer.op == "attention" or not lowering.relu_only(after):
                continue
            if [name for name, read in self.inputs.items() if layer.name in read] == [after[0].name]:
                found[after[0].name] = layer.name
        return found

    @cached_property
    def passes(self) -> list[list[Layer]]:
        """Elementwise layers that run in vector passes."""
        return [after for _, after in self.groups if after and after[0].name not in self.fused]

    @cached_property
    def first_of(self) -> dict[str, str]:
        """Elementwise layer to the first layer of its pass."""
        return {layer.name: run[0].name for run in self.passes for layer in run}

    def sources(self, name: str) -> tuple[str, ...]:
        """Holders of a layer's inputs; ``input`` where it reads the network's own."""
        return tuple(self.fused.get(item, item) for item in self.inputs[name]) or (INPUT,)

    def source(self, name: str) -> str:
        """Holder of the layer's first input."""
        return self.sources(name)[0]

    @cached_property
    def kept(self) -> frozenset[str]:
        """Layers inside a pass whose output others read, too."""
        following = {run[i].name: run[i + 1].name for run in self.passes for i in range(len(run) - 1)}
        return frozenset(
            source
            for name in self.inputs
            for place, source in enumerate(self.sources(name))
            if source in following and (following[source] != name or place)
        )

    @property
    def last(self) -> str:
        """Holder of the network's output, whose gradient comes from outside."""
        layer, after = self.groups[-1]
        name = after[-1].name if after else layer.name if layer else INPUT
        return self.fused.get(name, name)

    @cached_property
    def contributions(self) -> dict[str, tuple[Contribution, ...]]:
        """Readers of every held tensor that hand a gradient back, in forward order."""
        found: dict[str, list[Contribution]] = {name: [] for name in (INPUT, *self.layers)}
        for layer, after in reversed(self.groups):
            run = [] if not after or after[0].name in self.fused else after
            if run and (run[-1].name == self.last or any(found[item.name] for item in run)):
                for place in range(len(run) - 1, -1, -1):
                    self._of_pass(run, place, found)
            if layer is not None and self.workload.input_gradient(layer):
                found[self.source(layer.name)].insert(0, Contribution(layer.name, "product"))
        return {name: tuple(items) for name, items in found.items()}

    def _of_pass(self, run: list[Layer], place: int, found: dict[str, list[Contribution]]) -> None:
        name = run[place].name
        for operand, source in enumerate(self.sources(name)):
            if operand == 0 and place == 0:
                found[source].insert(0, Contribution(name, "pass"))
            elif operand or source != run[place - 1].name:
                found[source].insert(0, Contribution(name, "other"))

    def sole(self, name: str) -> bool:
        """True when a tensor's gradient is written whole by its only reader."""
        items = self.contributions[name]
        return len(items) == 1 and items[0].kind != "other" and not self.gathered(name)

    def gathered(self, name: str) -> bool:
        """True when a product's output needs a pass that adds (and masks) its gradients before the product's own."""
        if name == INPUT or not self.layers[name].is_product or name == self.last:
            return False
        items = self.contributions[name]
        plain = [item.kind == "product" and self.layers[item.reader].op != "attention" for item in items]
        other = any(item.kind == "other" for item in items)
        return len(items) > 1 or other or (name in self.fused.values() and not all(plain))

    def written(self, name: str, item: Contribution) -> str:
        """Name of the tensor in which a reader of ``name`` leaves its contribution."""
        if self.sole(name):
            return f"{name}.dy"
        if item.kind != "other":
            return f"{item.reader}.dx"
        if self.first_of[item.reader] == item.reader:  # an addition that begins its pass: both operands get the same
            source = self.source(item.reader)
            return f"{source}.dy" if self.sole(source) else f"{item.reader}.dx"
        return f"{item.reader}.d2"

    def gradients(self, name: str) -> list[str]:
        """Tensors whose sum is the gradient of a held tensor; the network's own output has its gradient loaded."""
        if name == self.last:
            return [f"{name}.dy"]
        return [self.written(name, item) for item in self.contributions[name]]

    def elements(self, name: str) -> int:
        """Elements of a held tensor, one sample."""
        if name != INPUT:
            return self.layers[name].out_elements
        return max(
            self.read_elements(layer) for layer in self.workload.layers if not self.inputs.get(layer.name, (INPUT,))
        )

    @staticmethod
    def read_elements(layer: Layer) -> int:
        """Elements of a layer's first input, one sample."""
        if layer.op == "elementwise":
            return lowering.input_elements(layer)
        if layer.op == "attention":
            return 3 * layer.out_elements
        return layer.tokens * layer.ic if layer.op == "linear" else layer.ic * layer.h * layer.w

    def fits(self, layer: Layer) -> bool:
        """True when a product reads exactly the tensor it is given, so that its values are defined."""
        sources = self.sources(layer.name)
        return len(sources) == 1 and self.elements(sources[0]) == self.read_elements(layer)

    def defined(self, run: list[Layer]) -> bool:
        """True when a vector pass has defined values: known functions on a straight line of tensors that fit."""
        for place, layer in enumerate(run):
            sources = self.sources(layer.name)
            known = layer.function in LANE_FUNCTIONS | HOST_FUNCTIONS
            known |= layer.function == "cross_entropy" and layer is run[-1]
            straight = sources[0] == run[place - 1].name if place else True
            operands = [self.elements(source) for source in sources]
            wanted = [self.read_elements(layer)] * (2 if layer.function == "add" else 1)
            if not (known and straight and operands == wanted and layer.name not in self.kept):
                return False
        functions = [layer.function for layer in run]
        once = (("add",), lowering.POOLS, lowering.NORMS)  # a descriptor has one set of their fields
        single = all(sum(functions.count(name) for name in names) <= 1 for names in once)
        lanes = LANE_FUNCTIONS.issuperset(functions)  # they write one gradient, the host writes two
        single &= "add" not in functions[1:] or not self.train or not lanes
        few = len(self.gradients(run[-1].name)) <= MAX_GRADIENTS
        return single and few and len(run) <= 8
