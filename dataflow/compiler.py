"""compile_program: a workload and an accelerator become a program."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import __version__
from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.methods import Method, get_method
from ..models.sparsity import Sparsity
from ..models.workload import Layer, Workload
from . import lowering, program
from .assembler import Assembler
from .edges import Edges
from .lowering import Product, Prune, Step, Update, VectorPass
from .program import Program, Stage
from .schedule import Options

MODES = ("train", "infer")


def compile_program(
    workload: Workload,
    accelerator: Accelerator,
    *,
    method: str = "bdwp",
    sparsity: str | Sparsity = "2:8",
    batch: int = 512,
    mode: str = "train",
    options: Options | None = None,
) -> Program:
    """Compile one training step (or one inference) of a batch.

    Parameters
    ----------
    method : str
        dense, sr-ste, sdgp, sdwp or bdwp.
    sparsity : str or Sparsity
        Pattern of the pruned operands; layers may override it.
    batch : int
        Samples, 1 to 2^20.
    mode : str
        ``train`` (forward, backward, update) or ``infer`` (forward only).

    Raises
    ------
    NmsatError
        For an illegal argument, a size beyond the descriptor's fields, or a buffer too small for any tile.
    """
    options = options or Options()
    pattern = Sparsity.parse(sparsity)
    recipe = get_method(method)
    if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= 2**20:
        raise NmsatError.rule("", "batch", "an integer from 1 to 1048576", batch)
    if mode not in MODES:
        raise NmsatError.rule("", "mode", f"one of {', '.join(MODES)}", mode)
    if recipe.name != "dense":
        accelerator.check_pattern(pattern)
    source, workload = workload, workload.expanded()
    edges = Edges(workload, train=mode == "train")
    chains = _Lowerer(workload, accelerator, recipe, pattern, batch, options, edges).chains(mode == "train")
    meta = {
        "nmsat": __version__,
        "workload": workload.name,
        "workload_hash": source.config_hash(),
        "accelerator": accelerator.name,
        "accelerator_hash": accelerator.config_hash(),
        "method": recipe.name,
        "sparsity": str(pattern),
        "batch": batch,
        "mode": mode,
    }
    return Assembler(workload, accelerator, options, batch, edges).assemble(chains, meta)


@dataclass
class _Lowerer:
    """Orders a network's steps into chains: steps of one chain run concurrently, tile by tile."""

    workload: Workload
    accelerator: Accelerator
    method: Method
    sparsity: Sparsity
    batch: int
    options: Options
    edges: Edges

    def chains(self, train: bool) -> list[list[Step]]:
        groups = self.edges.groups
        kept = lowering.kept_layers(self.workload)
        forward: list[list[Step]] = []
        pending: VectorPass | None = None
        for layer, after in groups:
            if layer is not None:
                steps = [self._with_epilogue(step, after, train) for step in self._forward(layer)]
                forward.append([*([pending] if pending else []), *steps])
                pending = None
            fused = self._fused(after)
            pending = lowering.vector_pass(after, self.batch, train=train, fused_relu=fused, kept=kept) or pending
        if pending:
            forward.append([pending])
        return forward + (self._backward_chains(groups) if train else [])

    def _fused(self, after: list[Layer]) -> bool:
        """True when the product before does a lone ReLU in its epilogue."""
        return bool(after) and after[0].name in self.edges.fused

    def _with_epilogue(self, step: Step, after: list[Layer], train: bool) -> Step:
        """Fuse into the product what follows it: a lone ReLU, the sums of a batch normalisation."""
        if not isinstance(step, Product) or step.layer.op == "attention":
            return step
        flags = program.RELU | program.WRITE_MASK * train if self._fused(after) else 0
        if train and after and after[0].function == "batchnorm":
            flags |= program.STATISTICS
        return replace(step, epilogue=flags)

    def _forward(self, layer: Layer) -> list[Step]:
        pattern = self._pattern(layer, Stage.FF)
        products = lowering.forward_products(layer, self.batch, pattern, self.accelerator.max_group)
        steps: list[Step] = [*self._online(layer, Stage.FF, pattern), *products]
        if layer.op == "attention":
            steps.insert(1, self._softmax(layer, Stage.FF))
        return steps

    def _backward_chains(self, groups: list[tuple[Layer | None, list[Layer]]]) -> list[list[Step]]:
        """One chain a layer: gradient application, dX, the earlier layer's reduction, dW, update."""
        chains: list[list[Step]] = []
        for index in range(len(groups) - 1, -1, -1):
            layer, after = groups[index]
            _, apply = lowering.backward_passes(after, self.batch, fused_relu=self._fused(after))
            chain: list[Step] = [apply] if apply else []
            if layer is not None:
                if self.edges.gathered(layer.name):
                    parts = len(self.edges.contributions[layer.name])
                    chain.append(lowering.gather_pass(layer, self.batch, parts, relu=self._fused(after)))
                earlier = groups[index - 1][1] if index else []
                source = self.edges.source(layer.name)
                masked = source in self.edges.fused.values() and self.edges.sole(source)
                chain += [self._masked(step) if masked else step for step in self._backward(layer)]
                reduction, _ = lowering.backward_passes(earlier, self.batch, fused_relu=self._fused(earlier))
                chain += [reduction] if reduction else []
                chain += self._update(layer)
            if chain:
                chains.append(chain)
        return chains

    @staticmethod
    def _masked(step: Step) -> Step:
        return replace(step, epilogue=program.APPLY_MASK) if isinstance(step, Product) else step

    def _backward(self, layer: Layer) -> list[Step]:
        if not self.workload.input_gradient(layer):
            return []
        pattern = self._pattern(layer, Stage.BP)
        sparse_gradient = self.method.bp_gradient
        steps: list[Step] = []
        if sparse_gradient and not pattern.is_dense:
            elements = self.batch * layer.out_elements
            steps.append(Prune(layer, Stage.BP, elements, pattern, gradient=True))
        else:
            steps += self._online(layer, Stage.BP, pattern)
        steps += lowering.backward_products(
            layer, self.batch, pattern, self.accelerator.max_group, gradient_sparse=sparse_gradient
        )
        if layer.op == "attention":
            steps.insert(1, self._softmax(layer, Stage.BP))
        return steps

    def _update(self, layer: Layer) -> list[Step]:
        steps: list[Step] = list(lowering.update_products(layer, self.batch, self.accelerator.max_group))
        if layer.has_weights:
            bp = self._pattern(layer, Stage.BP) if self.workload.input_gradient(layer) else None
            if self.method.bp_gradient and bp is not None:
                bp = lowering.DENSE
            steps.append(Update(layer, self._pattern(layer, Stage.FF), bp, self.options.pregenerate))
        return steps

    def _pattern(self, layer: Layer, stage: Stage) -> Sparsity:
        pattern = lowering.stage_pattern(layer, stage, self.method, self.sparsity)
        return pattern if layer.stages is None else self.accelerator.narrowed(pattern)

    def _online(self, layer: Layer, stage: Stage, pattern: Sparsity) -> list[Step]:
        if self.options.pregenerate or pattern.is_dense:
            return []
        return [Prune(layer, stage, layer.weight_elements, pattern)]

    def _softmax(self, layer: Layer, stage: Stage) -> VectorPass:
        elements = self.batch * layer.heads * layer.tokens * layer.tokens
        reads = 2 if stage is Stage.FF else 4
        return VectorPass((layer,), stage, ("softmax",), elements, 2 * elements, reads * elements, 2 * elements)
