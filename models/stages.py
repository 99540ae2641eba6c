"""What a workload file says of a layer beyond its shape: its weight tensor and its three stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from .errors import NmsatError
from .sparsity import Sparsity

if TYPE_CHECKING:
    from .workload import Layer

SIZE_LIMIT = 2**31 - 1  # every loop count of a descriptor is a 32-bit field
DENSITY_TOLERANCE = 1e-6  # densities are written with six decimals

Count = Annotated[int, Field(ge=1, le=2**62)]
Density = Annotated[float, Field(ge=0, le=1)]
Axis = Literal["in", "out"]
Layout = Literal["OHWI", "OIHW", "HWIO", "OI", "IO"]
REDUCTION_AXES: dict[str, Axis] = {"ff": "in", "bp": "out"}  # the weight axis that a stage's product sums over


def _pattern(value: object) -> Sparsity:
    try:
        return Sparsity.parse(value, key="")
    except NmsatError as error:
        raise ValueError(str(error)) from None


Pattern = Annotated[
    Sparsity,
    BeforeValidator(_pattern),
    WithJsonSchema({"type": "string", "pattern": "^(dense|[0-9]+:[0-9]+)$"}),
]


class WeightTensor(BaseModel, frozen=True):
    """Where a layer's weights are: a tensor of the workload's tensor file.

    ``layout`` is the order of its axes. Files that nmsat writes are OHWI; a linear layer's OI is the same memory.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    tensor: str = Field(min_length=1, max_length=256)
    layout: Layout = "OHWI"


class StageFacts(BaseModel, frozen=True):
    """One stage's product: C[m, n] = sum_k A[m, k] B[k, n], once a group, for the file's whole batch.

    ``pattern`` None leaves the choice to the run's method and sparsity; ``dense`` says the stage runs dense.
    Everything here but ``activation_density`` can be recomputed from the shape, the batch and the mask, and is.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    m: Count
    n: Count
    k: Count
    sparse: Literal["none", "weights"] = "none"
    pattern: Pattern | None = None
    axis: Axis | None = Field(default=None, description="weight axis of the groups: in (ff) or out (bp)")
    mask: str | None = Field(default=None, max_length=256, description="packed mask in the tensor file")
    density: Density | None = Field(default=None, description="share of weights that the mask keeps")
    activation_density: Density | None = Field(
        default=None, description="measured share of activations that are not zero: X in ff and wu, dY in bp"
    )


class Stages(BaseModel, frozen=True):
    """The stages of a layer; a forward-only file has ff alone, the first layer has no bp."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ff: StageFacts
    bp: StageFacts | None = None
    wu: StageFacts | None = None

    def of(self, stage: str) -> StageFacts | None:
        """Facts of ``ff``, ``bp`` or ``wu``."""
        return getattr(self, stage)


class Accuracy(BaseModel, frozen=True):
    """One accuracy fact of the network, as its maker measured it; nmsat cannot recompute it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: str = Field(min_length=1, max_length=128)
    metric: str = Field(default="top-1", max_length=64)
    value: float
    std: float | None = Field(default=None, ge=0)
    seeds: int | None = Field(default=None, ge=1, le=10**6)
    note: str = Field(default="", max_length=1000)


class Source(BaseModel, frozen=True):
    """What a workload was made from."""

    model_config = ConfigDict(extra="forbid", strict=True)

    file: str = Field(min_length=1, max_length=1024)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    tool: str = Field(default="", max_length=256)


class TensorFile(BaseModel, frozen=True):
    """The NPZ beside a workload file, with its digest: a pair half replaced is noticed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    file: str = Field(min_length=1, max_length=255, pattern=r"^[^/\\]+$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


def stage_sizes(layer: Layer, batch: int) -> dict[str, tuple[int, int, int]]:
    """(m, n, k) of a layer's three products, one group's (docs/workloads.md); {} for elementwise layers.

    A strided convolution's bp is given as a whole, although it runs in phases.
    """
    if layer.op == "elementwise":
        return {}
    if layer.op == "attention":
        t, d = layer.tokens, layer.head_dim
        return {"ff": (t, t, d), "bp": (t, t, d), "wu": (t, d, t)}
    if layer.op == "linear":
        rows = batch * layer.tokens
        return {"ff": (rows, layer.oc, layer.ic), "bp": (rows, layer.ic, layer.oc), "wu": (layer.ic, layer.oc, rows)}
    ic, oc, taps = layer.ic // layer.groups, layer.oc // layer.groups, layer.kh * layer.kw
    pixels = batch * layer.oh * layer.ow
    return {
        "ff": (pixels, oc, taps * ic),
        "bp": (batch * layer.h * layer.w, ic, taps * oc),
        "wu": (taps * ic, oc, pixels),
    }


def check_stages(layer: Layer, batch: int, *, first: bool, train: bool) -> None:
    """Hold a layer's stages to what follows from its shape.

    Raises
    ------
    ValueError
        Names the stage and the rule.
    """
    stages = layer.stages
    if stages is None:
        return
    if layer.op == "elementwise":
        raise ValueError(f"{layer.name}.stages: must be left out of an elementwise layer")
    if first and stages.bp is not None:
        raise ValueError(
            f"{layer.name}.stages.bp: must be left out of the first layer, nobody needs its input gradient"
        )
    if not train and (stages.bp or stages.wu):
        raise ValueError(f"{layer.name}.stages: must hold ff alone in mode infer")
    for name, sizes in stage_sizes(layer, batch).items():
        facts = stages.of(name)
        if facts is None:
            continue
        place = f"{layer.name}.stages.{name}"
        if (facts.m, facts.n, facts.k) != sizes:
            found = f"{facts.m}, {facts.n}, {facts.k}"
            raise ValueError(
                f"{place}: m, n, k must be {sizes[0]}, {sizes[1]}, {sizes[2]} by shape and batch, not {found}"
            )
        _check_pattern(layer, name, facts, place)
    if stages.wu and len({stages.ff.activation_density, stages.wu.activation_density} - {None}) > 1:
        rule = f"must be {stages.ff.activation_density} as in ff, both read X, not {stages.wu.activation_density}"
        raise ValueError(f"{layer.name}.stages.wu.activation_density: {rule}")


def _check_pattern(layer: Layer, stage: str, facts: StageFacts, place: str) -> None:
    pattern = facts.pattern
    sparse = pattern is not None and not pattern.is_dense
    if not layer.has_weights and (facts.mask or sparse or facts.sparse == "weights"):
        raise ValueError(f"{place}: must be dense, {layer.op} has no weights")
    if stage == "wu" and (facts.mask or sparse):
        raise ValueError(f"{place}: must be dense, both its operands change every step")
    if facts.mask and (facts.density is None or pattern is None):
        raise ValueError(f"{place}: must give pattern and density with a mask")
    if facts.sparse != ("weights" if sparse else "none"):
        raise ValueError(f"{place}.sparse: must be {'weights' if sparse else 'none'} for {pattern}, not {facts.sparse}")
    if pattern is None or pattern.is_dense:
        return
    if layer.op == "depthwise":
        raise ValueError(f"{place}.pattern: must be dense for depthwise, which has one channel a group, not {pattern}")
    wanted = REDUCTION_AXES[stage]
    if facts.axis != wanted:
        raise ValueError(f"{place}.axis: must be {wanted}, the axis that {stage} sums over, not {facts.axis}")
    length = (layer.ic if wanted == "in" else layer.oc) // layer.groups
    if length % pattern.group:
        rule = f"must divide the {length} {wanted}put channels of a group"
        raise ValueError(f"{place}.pattern: {rule}, not {pattern}; declare a layer with a tail dense")
