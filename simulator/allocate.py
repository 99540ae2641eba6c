"""Patterns layer by layer: the least weight error that a budget of simulated cycles allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..dataflow.schedule import Options
from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.methods import Method, get_method
from ..models.pruning import knapsack
from ..models.pruning.masks import Mask, magnitude_nm
from ..models.sparsity import DENSE, Sparsity
from ..models.workload import Layer, Workload
from ..models.workload_file import WorkloadFile
from .result import RunResult
from .run import simulate

# dense, and at most half of 4, 8 or 16
PATTERNS = ("dense", *(f"{keep}:{group}" for group in (4, 8, 16) for keep in range(1, group // 2 + 1)))
_AXES = {"ff": -1, "bp": 0}
Error = Literal["relative", "absolute"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A layer's pattern, its cycles (all stages, with what runs in its chains) and its weight error."""

    layer: str
    pattern: Sparsity
    cycles: int
    error: float


@dataclass(frozen=True, slots=True)
class Allocation:
    """A pattern a layer.

    Attributes
    ----------
    choices : tuple of Choice
        Of the layers that could be pruned.
    cycles : int
        Of the whole step, fixed layers included.
    error : float
        Sum over layers and pruned stages; what it sums is said by :func:`weight_error`.
    """

    choices: tuple[Choice, ...]
    cycles: int
    error: float

    def patterns(self) -> dict[str, Sparsity]:
        """Layer to pattern."""
        return {choice.layer: choice.pattern for choice in self.choices}


@dataclass(frozen=True, slots=True)
class Problem:
    """What can be chosen: options a layer, and the cycles that no choice changes."""

    options: dict[str, tuple[Choice, ...]]
    fixed_cycles: int

    def best(self, budget: int) -> Allocation:
        """The allocation of least error within ``budget`` cycles; NmsatError if even the sparsest exceeds it."""
        names = list(self.options)
        costs = [[choice.cycles for choice in self.options[name]] for name in names]
        errors = [[choice.error for choice in self.options[name]] for name in names]
        cheapest = self.fixed_cycles + sum(min(c) for c in costs)
        if budget < cheapest:
            hint = "allow sparser patterns or more cycles"
            raise NmsatError.rule("", "--budget", f"at least {cheapest:,} cycles", f"{budget:,}", hint)
        picks = knapsack.choose(costs, errors, budget - self.fixed_cycles)
        return self._of([self.options[name][pick] for name, pick in zip(names, picks, strict=True)])

    def uniform(self, pattern: Sparsity) -> Allocation:
        """One pattern wherever a layer can take it, dense elsewhere."""
        found = []
        for options in self.options.values():
            by_pattern = {choice.pattern: choice for choice in options}
            if pattern not in by_pattern and DENSE not in by_pattern:
                raise NmsatError.rule("", "--budget", "one of the patterns, where dense is none", str(pattern))
            found.append(by_pattern.get(pattern) or by_pattern[DENSE])
        return self._of(found)

    def _of(self, choices: Sequence[Choice]) -> Allocation:
        cycles = self.fixed_cycles + sum(choice.cycles for choice in choices)
        return Allocation(tuple(choices), cycles, sum(choice.error for choice in choices))


def problem(
    network: WorkloadFile,
    accelerator: Accelerator,
    *,
    method: str = "bdwp",
    patterns: Sequence[str | Sparsity] | None = None,
    batch: int = 512,
    mode: str = "train",
    options: Options | None = None,
    error: Error = "relative",
) -> Problem:
    """Simulate the network once a pattern and weigh what each pattern drops; by default PATTERNS the array can run.

    A chain's cycles depend on the pattern of its own layer alone, so a choice's cycles are sums of layers' cycles:
    ``simulate`` of the chosen network gives the same total to the cycle (tests/test_allocate.py).

    Raises
    ------
    NmsatError
        A prunable layer has no weights, no pattern is given, or none fits any layer.
    """
    parsed = list(dict.fromkeys(map(Sparsity.parse, PATTERNS if patterns is None else patterns)))
    if patterns is None:
        limits = accelerator.max_keep, accelerator.max_group
        parsed = [p for p in parsed if p.is_dense or (p.keep <= limits[0] and p.group <= limits[1])]
    kind = get_method(method)
    if not (kind.ff_weights or kind.bp_weights):
        raise NmsatError.rule("", "--method", "one that prunes weights", method)
    if not parsed:
        raise NmsatError.rule("", "--patterns", "at least one pattern", "none")
    plain = bare(network.workload)
    layers = [layer for layer in plain.layers if _prunable(layer, parsed)]
    if not layers:
        raise NmsatError.rule(plain.name, "layers", "at least one that a pattern divides", "none of them")
    for layer in layers:
        if layer.name not in network.weights:
            raise NmsatError.rule(plain.name, f"{layer.name}.weights", "given", None, "export or train it with weights")
    costs: dict[Sparsity, dict[str, int]] = {}
    for pattern in parsed:
        result = simulate(
            plain, accelerator, method="dense" if pattern.is_dense else method, sparsity=pattern, batch=batch,
            mode=mode, options=options,
        )  # fmt: skip
        costs[pattern] = chain_cycles(result)
    stages = _stages(kind, mode)
    found = {
        layer.name: tuple(
            Choice(
                layer.name, pattern, costs[pattern].get(layer.name, 0),
                weight_error(network.weights[layer.name], pattern, _of_layer(plain, layer, stages), error),
            )
            for pattern in parsed if pattern.is_dense or _fits(layer, pattern)
        )
        for layer in layers
    }  # fmt: skip
    fixed = costs[parsed[0]]
    return Problem(found, sum(fixed.values()) - sum(fixed.get(name, 0) for name in found))


def bare(workload: Workload) -> Workload:
    """The network without masks and patterns of its own; layers that must stay dense stay so."""
    layers = tuple(
        layer.model_copy(update={"stages": None, "weights": None, "pattern": None}) for layer in workload.layers
    )
    return workload.model_copy(update={"layers": layers, "tensors": None, "notes": (), "accuracy": (), "source": None})


def chain_cycles(result: RunResult) -> dict[str, int]:
    """Cycles of every layer: its chains, vector work beside its products included; "" has chains without a product."""
    owner: dict[int, str] = {}
    for row in result.layers:
        if row["op"] == "matmul" and owner.setdefault(row["chain"], row["layer"]) != row["layer"]:
            raise NmsatError(f"chain {row['chain']}: must hold products of one layer")
    found: dict[str, int] = {}
    for row in result.layers:
        name = owner.get(row["chain"], "")
        found[name] = found.get(name, 0) + row["cycles"]
    return found


def weight_error(weights: NDArray[Any], pattern: Sparsity, stages: Sequence[str], error: Error) -> float:
    """Squares of the weights that a pattern's masks drop, summed over the stages; relative: over those of the layer."""
    if pattern.is_dense or not stages:
        return 0.0
    squares = weights.astype(np.float64) ** 2
    dropped = sum(float(squares[~mask].sum()) for mask in masks(weights, pattern, stages).values())
    whole = float(squares.sum())
    return dropped / whole if error == "relative" and whole else dropped


def masks(weights: NDArray[Any], pattern: Sparsity, stages: Sequence[str]) -> dict[str, Mask]:
    """N:M masks of the largest binary16 magnitudes: forward along input channels, backward along output channels."""
    w16 = weights.astype(np.float16)
    return {stage: magnitude_nm(w16, pattern, _AXES[stage]) for stage in stages}


def apply(
    network: WorkloadFile, patterns: Mapping[str, Sparsity], *, method: str, batch: int, mode: str
) -> WorkloadFile:
    """The network with each layer's pattern and its masks: what ``nmsat run`` and the kernels read."""
    stages, kept, used = _stages(get_method(method), mode), {}, {}
    plain = bare(network.workload)
    layers = tuple(
        layer.model_copy(update={"pattern": patterns[layer.name]}) if layer.name in patterns else layer
        for layer in plain.layers
    )
    for layer in layers:
        pattern = patterns.get(layer.name)
        if pattern is None:
            continue
        for stage in _of_layer(plain, layer, stages):
            used[layer.name, stage] = pattern
        if not pattern.is_dense:
            found = masks(network.weights[layer.name], pattern, _of_layer(plain, layer, stages))
            kept |= {(layer.name, stage): mask for stage, mask in found.items()}
    return WorkloadFile.build(
        plain.model_copy(update={"layers": layers}),
        batch=batch,
        mode="train" if mode == "train" else "infer",
        weights=network.weights,
        masks=kept,
        patterns=used,
        notes=(f"patterns allocated for {method} by weight error under a budget of cycles",),
    )


def _stages(method: Method, mode: str) -> list[str]:
    both = [("ff", method.ff_weights), ("bp", method.bp_weights and mode == "train")]
    return [stage for stage, pruned in both if pruned]


def _of_layer(workload: Workload, layer: Layer, stages: Sequence[str]) -> list[str]:
    return [stage for stage in stages if stage == "ff" or workload.input_gradient(layer)]


def _prunable(layer: Layer, patterns: Sequence[Sparsity]) -> bool:
    product = layer.prune and layer.op in ("conv2d", "linear")
    return product and any(not pattern.is_dense and _fits(layer, pattern) for pattern in patterns)


def _fits(layer: Layer, pattern: Sparsity) -> bool:
    return (layer.ic // layer.groups) % pattern.group == 0 and (layer.oc // layer.groups) % pattern.group == 0
