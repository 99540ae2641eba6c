"""Side products of a layer: low-rank and block-diagonal terms beside or around its weights, as layers of their own.

``y = A (W (B x)) + U (D x)``: W are the layer's own weights (pruned or not), B and A block-diagonal matrices over the
input and output channels, D and U a low-rank term. SLiM is W + U D, ARMOR is A W B. A side product is dense. Everything
that schedules, times or executes a network sees only the layers it expands to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from .workload import Layer, Workload

Size = Annotated[int, Field(ge=1, le=2**31 - 1)]


class SideProduct(BaseModel, frozen=True):
    """One term of a layer.

    low-rank
        ``rank``: the layer's own geometry down to ``rank`` channels (``NAME.down``), 1x1 up to its outputs
        (``NAME.up``), added to its result (``NAME.sum``).
    block-diagonal
        ``blocks`` and ``side``: a matrix of that many blocks over the input (``NAME.in``) or output channels
        (``NAME.out``).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["low-rank", "block-diagonal"]
    rank: Size | None = None
    blocks: Size | None = None
    side: Literal["in", "out"] | None = None
    stored: bool = Field(default=False, description="the tensor file has its weights, as <layer name>.weight")

    @model_validator(mode="after")
    def _check(self) -> SideProduct:
        wanted = {"rank"} if self.kind == "low-rank" else {"blocks", "side"}
        given = {key for key in ("rank", "blocks", "side") if getattr(self, key) is not None}
        if given != wanted:
            raise ValueError(f"{self.kind}: must give {' and '.join(sorted(wanted))}, not {sorted(given)}")
        return self

    @property
    def place(self) -> str:
        """Which of a layer's three terms it is."""
        return self.side or "low-rank"


def check_side_products(layer: Layer) -> None:
    """Hold a layer's side products to its shape; ValueError names what is wrong."""
    if not layer.extra:
        return
    if layer.op not in ("conv2d", "linear") or layer.groups != 1:
        raise ValueError(f"extra: must be left out of {layer.op} with groups={layer.groups}")
    places = [item.place for item in layer.extra]
    if len(set(places)) < len(places):
        raise ValueError(f"extra: must be at most one low-rank term and one block-diagonal a side, not {places}")
    for item in layer.extra:
        channels = layer.ic if item.side == "in" else layer.oc
        least = min(layer.kh * layer.kw * layer.ic, layer.oc)
        if item.rank is not None and item.rank >= least:
            raise ValueError(f"extra.rank: must be below {least}, the layer's own rank at most, not {item.rank}")
        if item.blocks is not None and channels % item.blocks:
            raise ValueError(f"extra.blocks: must divide the {channels} {item.side}put channels, not {item.blocks}")


def expanded(workload: Workload) -> Workload:
    """The network with every side product as layers; itself where it has none.

    Raises
    ------
    ValueError
        If a name that expansion makes is taken.
    """
    if not any(layer.extra for layer in workload.layers):
        return workload
    reads, ends, found = workload.inputs_of(), {}, []
    for layer in workload.layers:
        sources = tuple(ends.get(name, name) for name in reads[layer.name])
        layers = _expand(layer, sources, workload.input_gradient(layer)) if layer.extra else [_reading(layer, sources)]
        ends[layer.name] = layers[-1].name
        found += layers
    names = [layer.name for layer in found]
    taken = next((name for name in names if names.count(name) > 1), None)
    if taken is not None:
        raise ValueError(f"layers: names must be unique, not {taken!r} twice; a side product has that name")
    content = {name: getattr(workload, name) for name in workload.model_fields_set}
    return type(workload).model_validate(content | {"layers": tuple(found)})


def side_layers(layer: Layer) -> dict[str, tuple[Layer, ...]]:
    """The products that every side product expands to, by place; they read nobody yet.

    Raises
    ------
    ValueError
        If one of them breaks a rule of layers: its name is too long, it is too large.
    """
    try:
        return {item.place: tuple(_products(layer, item)) for item in layer.extra}
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"])
        raise ValueError(f"layer {layer.name!r}: extra: {place}{': ' if place else ''}{found['msg']}") from None


def _expand(layer: Layer, sources: tuple[str, ...], gradient: bool) -> list[Layer]:
    made, order = side_layers(layer), []
    main = layer.model_copy(update={"extra": (), "inputs": sources, "input_gradient": gradient})
    if "in" in made:
        order.append(_reading(made["in"][0], sources, gradient))
        main = _reading(main, (order[0].name,), True)
    order.append(main)
    if "out" in made:
        order.append(_reading(made["out"][0], (main.name,)))
    if "low-rank" in made:
        down, up = made["low-rank"]
        result = order[-1].name
        order += [_reading(down, sources, gradient), _reading(up, (down.name,)), _sum(layer, (up.name, result))]
    return order


def _products(layer: Layer, item: SideProduct) -> list[Layer]:
    make: Any = type(layer)
    base = {"prune": False}
    if item.kind == "low-rank":
        assert item.rank is not None
        shape = {name: getattr(layer, name) for name in ("kh", "kw", "h", "w", "stride", "pad", "tokens", "ic")}
        down = make(name=f"{layer.name}.down", op=layer.op, oc=item.rank, **shape, **base)
        wide = {"tokens": layer.tokens} if layer.op == "linear" else {"h": layer.oh, "w": layer.ow}
        found = [down, make(name=f"{layer.name}.up", op=layer.op, ic=item.rank, oc=layer.oc, **wide, **base)]
    else:
        channels = layer.ic if item.side == "in" else layer.oc
        height, width = (layer.h, layer.w) if item.side == "in" else (layer.oh, layer.ow)
        size = {"h": layer.tokens, "w": 1} if layer.op == "linear" else {"h": height, "w": width}
        blocks = {"ic": channels, "oc": channels, "groups": item.blocks}
        found = [make(name=f"{layer.name}.{item.side}", op="conv2d", **blocks, **size, **base)]
    if not item.stored:
        return found
    return [x.model_copy(update={"weights": _tensor(x.name)}) for x in found]


def _tensor(name: str) -> Any:
    from .stages import WeightTensor

    return WeightTensor(tensor=f"{name}.weight")


def _sum(layer: Layer, sources: tuple[str, ...]) -> Layer:
    make: Any = type(layer)
    shape = {"tokens": layer.tokens} if layer.op == "linear" else {"h": layer.oh, "w": layer.ow}
    return make(name=f"{layer.name}.sum", op="elementwise", function="add", oc=layer.oc, inputs=sources, **shape)


def _reading(layer: Layer, sources: tuple[str, ...], gradient: bool | None = None) -> Layer:
    """The layer with its inputs named, and whether it hands a gradient back."""
    update: dict[str, Any] = {"inputs": sources}
    return layer.model_copy(update=update if gradient is None else update | {"input_gradient": gradient})
