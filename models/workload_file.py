"""Workload files with weights: the YAML header and the NPZ of weights and masks beside it (docs/workloads.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from .errors import InputFileError, NmsatError
from .golden.engines import pack_mask, unpack_mask
from .npz import NpzReader, write_npz
from .side_products import SideProduct, side_layers
from .sparsity import DENSE, Sparsity
from .stages import (
    DENSITY_TOLERANCE,
    REDUCTION_AXES,
    Accuracy,
    Source,
    StageFacts,
    Stages,
    TensorFile,
    WeightTensor,
    stage_sizes,
)
from .whole_file import whole_file
from .workload import Layer, Workload
from .yaml_io import read_yaml, validate

WEIGHT_DTYPES = ("float16", "float32")
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadFile:
    """A workload with its tensors.

    Attributes
    ----------
    workload : Workload
        Layers with ``weights`` and ``stages``.
    weights : dict of str to float32 or float16 array (oc, kh, kw, ic / groups)
        OHWI by layer name. A dense master where masks are given; else the zeros are the mask.
    masks : dict of (layer, stage) to bool array, same shape
        True where the stage ``ff`` or ``bp`` keeps a weight.
    """

    workload: Workload
    weights: dict[str, NDArray[Any]]
    masks: dict[tuple[str, str], Mask]

    @classmethod
    def build(
        cls,
        workload: Workload,
        *,
        batch: int,
        mode: Literal["train", "infer"] = "train",
        weights: Mapping[str, NDArray[Any]] | None = None,
        masks: Mapping[tuple[str, str], Mask] | None = None,
        patterns: Mapping[tuple[str, str], Sparsity | str] | None = None,
        activations: Mapping[str, float] | None = None,
        source: Source | None = None,
        accuracy: tuple[Accuracy, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> WorkloadFile:
        """Gather a workload and its tensors; sizes and densities are computed here.

        Parameters
        ----------
        weights : mapping of layer name to array (oc, kh, kw, ic / groups) or, for linear, (oc, ic)
            float16 or float32. Side products under the names that they expand to: all of one or none.
        masks : mapping of (layer name, "ff" or "bp") to bool array of the same shape
            What a stage keeps.
        patterns : mapping of (layer name, stage) to N:M
            Of every mask; a stage without one is left to the run. ``dense`` needs no mask.
        activations : mapping of layer name to float
            Measured share of the layer's input that is not zero.

        Raises
        ------
        NmsatError
            If a tensor does not fit its layer, a mask breaks its pattern, or a weight is not finite.
        """
        masks, patterns = dict(masks or {}), {key: Sparsity.parse(p) for key, p in (patterns or {}).items()}
        layers = {layer.name: layer for layer in workload.expanded().layers}
        own = {layer.name for layer in workload.layers}
        for name, stage in (*masks, *patterns, *((name, "ff") for name in weights or {})):
            if name not in (layers if name in (weights or {}) else own) or stage not in REDUCTION_AXES:
                raise NmsatError.rule("workload", f"{name}.{stage}", "a layer of the workload and stage ff or bp", name)
        held = {name: _shaped(layers[name], array) for name, array in (weights or {}).items()}
        kept = {key: _shaped(layers[key[0]], mask) for key, mask in masks.items()}
        plain = workload.model_copy(update={"batch": batch, "mode": mode})
        found = [
            layer.model_copy(
                update={
                    "weights": WeightTensor(tensor=f"{layer.name}.weight") if layer.name in held else None,
                    "stages": _stages(plain, layer, held.get(layer.name), kept, patterns, activations or {}),
                    "extra": _stored(layer, held),
                }
            )
            for layer in workload.layers
        ]
        header = {"source": source, "accuracy": accuracy, "notes": notes, "batch": batch, "mode": mode}
        data = plain.model_copy(update={"layers": tuple(found), **header})
        data = data.model_copy(
            update={"tensors": TensorFile(file="unsaved", sha256="0" * 64) if held or kept else None}
        )
        result = cls(validate(Workload, data.model_dump(), "workload"), held, kept)
        result.check("workload")
        return result

    @classmethod
    def load(cls, path: str | Path) -> WorkloadFile:
        """Read and check a workload file and its tensors.

        Raises
        ------
        InputFileError
            If either file is unreadable or anything in the YAML differs from what the tensors say.
        """
        return cls.of(read_yaml(Path(path)), Path(path))

    @classmethod
    def of(cls, data: dict[str, Any], path: Path) -> WorkloadFile:
        """:meth:`load` for a YAML that has been parsed already."""
        where = str(path)
        workload = validate(Workload, data, where)
        if workload.tensors is None:
            return cls(workload, {}, {})
        tensors = path.parent / workload.tensors.file
        with NpzReader(tensors) as arrays:
            digest = sha256_of(tensors)
            if digest != workload.tensors.sha256:
                hint = "the two files belong to different networks"
                raise NmsatError.rule(where, "tensors.sha256", f"that of {tensors.name}", workload.tensors.sha256, hint)
            weights = {
                layer.name: _weights(layer, arrays, where) for layer in workload.expanded().layers if layer.weights
            }
            masks = {
                (layer.name, stage): _mask(layer, facts.mask, arrays, where)
                for layer in workload.layers
                for stage, facts in _sparse_stages(layer)
                if facts.mask
            }
        result = cls(workload, weights, masks)
        result.check(where)
        return result

    def check(self, where: str) -> None:
        """Hold masks to their patterns and densities and weights to numbers; breaking either is an NmsatError."""
        for name, array in self.weights.items():
            if not np.isfinite(array).all():
                at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise NmsatError.rule(where, f"{name}.weights", "finite numbers", f"{array[at]} at {list(at)}")
        for layer in self.workload.layers:
            for stage, facts in _sparse_stages(layer):
                mask = self.mask(layer.name, stage)
                if mask is not None and facts.pattern is not None:
                    _check_mask(layer, stage, facts, mask, f"{where}: {layer.name}.stages.{stage}")

    def mask(self, layer: str, stage: str) -> Mask | None:
        """What a stage keeps, bool (oc, kh, kw, ic / groups).

        The stage's own mask, else the non-zero weights, else None where the file has neither.
        """
        if (layer, stage) in self.masks:
            return self.masks[layer, stage]
        return self.weights[layer] != 0 if layer in self.weights else None

    def save(self, path: str | Path) -> None:
        """Write the YAML and, beside it, the NPZ of the same stem: each whole or not at all, the YAML last.

        Raises
        ------
        NmsatError
            If the file name does not end in .yaml or .yml, or a file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise NmsatError.rule("", "output", "a .yaml file", str(path))
        arrays = {f"{name}.weight": array for name, array in self.weights.items()}
        arrays |= {f"{name}.{stage}": pack_mask(mask) for (name, stage), mask in self.masks.items()}
        workload = self.workload.model_copy(update={"tensors": None})
        target = path.with_suffix(".npz")
        try:
            with ExitStack() as files:  # renamed in reverse: the YAML comes last
                header = files.enter_context(whole_file(path))
                if arrays:
                    partial = files.enter_context(whole_file(target))
                    with partial.open("wb") as file:
                        write_npz(file, arrays)
                    tensors = TensorFile(file=target.name, sha256=sha256_of(partial))
                    workload = workload.model_copy(update={"tensors": tensors})
                header.write_text(workload_yaml(workload))
        except OSError as error:
            raise NmsatError(f"{path}: must be writable; {error.strerror}") from None


def save_workload(path: str | Path, workload: Workload, *, batch: int, **facts: Any) -> WorkloadFile:
    """:meth:`WorkloadFile.build` and :meth:`WorkloadFile.save` in one call; returns what was written."""
    built = WorkloadFile.build(workload, batch=batch, **facts)
    built.save(path)
    return WorkloadFile.load(path)


def load_workload(path: str | Path) -> WorkloadFile:
    """:meth:`WorkloadFile.load`."""
    return WorkloadFile.load(path)


def workload_yaml(workload: Workload) -> str:
    """The YAML text of a workload: only what differs from the defaults, one line a layer where it fits."""
    data = workload.model_dump(mode="json", exclude_defaults=True)
    for layer, item in zip(workload.layers, data["layers"], strict=True):
        for stage, facts in _all_stages(layer):
            if facts.pattern is not None:
                item["stages"][stage]["pattern"] = str(facts.pattern)
        if layer.pattern is not None:
            item["pattern"] = str(layer.pattern)
    head = {"format": workload.format, **{key: value for key, value in data.items() if key != "layers"}}
    text = yaml.dump(head, sort_keys=False, allow_unicode=True, width=10**6)
    lines = [yaml.dump([item], sort_keys=False, default_flow_style=None, width=10**6) for item in data["layers"]]
    return text + "layers:\n" + "".join(lines)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; one that cannot be read is an InputFileError."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputFileError(f"{path}: must be readable; {error.strerror}") from None


def group_counts(mask: Mask, axis: Literal["in", "out"], group: int) -> NDArray[np.uint8]:
    """Kept weights of every group of ``group`` channels, at most 32, along an axis of an OHWI mask.

    Returns
    -------
    uint8 array
        ``in``: (oc, kh, kw, ic / groups / M); ``out``: (oc / M, kh, kw, ic / groups).
    """
    oc, kh, kw, ic = mask.shape
    if axis == "in":
        return mask.reshape(oc, kh, kw, ic // group, group).sum(axis=4, dtype=np.uint8)
    return mask.reshape(oc // group, group, kh, kw, ic).sum(axis=1, dtype=np.uint8)


def _check_mask(layer: Layer, stage: str, facts: StageFacts, mask: Mask, place: str) -> None:
    pattern = facts.pattern or DENSE
    measured = int(np.count_nonzero(mask)) / mask.size
    if facts.density is not None and abs(facts.density - measured) > DENSITY_TOLERANCE:
        raise InputFileError(f"{place}.density: must be {measured:.6f}, the share its mask keeps, not {facts.density}")
    if pattern.is_dense:
        return
    counts = group_counts(mask, REDUCTION_AXES[stage], pattern.group)
    broken = counts > pattern.keep
    if broken.any():
        at = [int(i) for i in np.argwhere(broken)[0]]
        rule = f"must keep at most {pattern.keep} of {pattern.group} along {REDUCTION_AXES[stage]}"
        more = f"{int(broken.sum())} groups break it"
        raise InputFileError(f"{place}.mask: {rule}, not {int(counts[broken][0])} at group {at}; {more}")


def _stages(
    workload: Workload,
    layer: Layer,
    weights: NDArray[Any] | None,
    masks: Mapping[tuple[str, str], Mask],
    patterns: Mapping[tuple[str, str], Sparsity],
    activations: Mapping[str, float],
) -> Stages | None:
    """Facts of a layer's stages; None for elementwise layers."""
    sizes = stage_sizes(layer, workload.batch or 1)
    if not sizes:
        return None
    train = workload.mode == "train"
    wanted = {"ff": True, "bp": train and workload.input_gradient(layer), "wu": train}
    found: dict[str, StageFacts] = {}
    for stage, (m, n, k) in sizes.items():
        if not wanted[stage]:
            continue
        key = layer.name, stage
        pattern, mask = patterns.get(key), masks.get(key)
        sparse = pattern is not None and not pattern.is_dense
        kept = mask if mask is not None else weights if pattern is not None else None
        found[stage] = StageFacts(
            m=m,
            n=n,
            k=k,
            sparse="weights" if sparse else "none",
            pattern=pattern,
            axis=REDUCTION_AXES[stage] if sparse else None,
            mask=f"{layer.name}.{stage}" if mask is not None else None,
            density=round(int(np.count_nonzero(kept)) / kept.size, 6) if kept is not None else None,
            activation_density=None if stage == "bp" else activations.get(layer.name),
        )
    unused = [stage for stage in REDUCTION_AXES if not wanted[stage] and (layer.name, stage) in masks]
    if unused:
        raise NmsatError.rule("workload", f"{layer.name}.{unused[0]}", "a stage the layer has", unused[0])
    return Stages(**found)


def _stored(layer: Layer, held: Mapping[str, NDArray[Any]]) -> tuple[SideProduct, ...]:
    """Side products with whether their weights are held: all of one or none."""
    found, made = [], side_layers(layer)
    for item in layer.extra:
        names = [part.name for part in made[item.place]]
        there = [name for name in names if name in held]
        if there and there != names:
            raise NmsatError.rule("workload", f"{layer.name}.extra", f"given weights for all of {names}", there)
        found.append(item.model_copy(update={"stored": bool(there)}))
    return tuple(found)


def _all_stages(layer: Layer) -> list[tuple[str, StageFacts]]:
    names = ("ff", "bp", "wu") if layer.stages else ()
    return [(name, facts) for name in names if layer.stages and (facts := layer.stages.of(name))]


def _sparse_stages(layer: Layer) -> list[tuple[str, StageFacts]]:
    return [(name, facts) for name, facts in _all_stages(layer) if name in REDUCTION_AXES]


def _shaped(layer: Layer, array: NDArray[Any]) -> NDArray[Any]:
    """An array in its layer's OHWI shape."""
    wanted = layer.weight_shape
    found = np.ascontiguousarray(array)
    if not layer.has_weights or found.shape not in (
        wanted,
        wanted[:1] + wanted[3:] if layer.op == "linear" else wanted,
    ):
        rule = f"of shape {wanted} (OHWI)" if layer.has_weights else "left out, the layer has no weights"
        raise NmsatError.rule("workload", f"{layer.name}.weights", rule, found.shape)
    if found.dtype != np.bool_ and found.dtype.name not in WEIGHT_DTYPES:
        raise NmsatError.rule("workload", f"{layer.name}.weights", "float16 or float32 (masks bool)", found.dtype.name)
    return found.reshape(wanted)


def _weights(layer: Layer, arrays: NpzReader, where: str) -> NDArray[Any]:
    assert layer.weights is not None
    place, name = f"{layer.name}.weights.tensor", layer.weights.tensor
    if layer.weights.layout not in ("OHWI", "OI"):
        raise NmsatError.rule(where, f"{layer.name}.weights.layout", "OHWI in a workload file", layer.weights.layout)
    if name not in arrays:
        raise NmsatError.rule(where, place, f"an array of {arrays.path.name}", name)
    array = arrays[name]
    if array.dtype.name not in WEIGHT_DTYPES or array.shape != layer.weight_shape:
        rule = f"a float16 or float32 array of shape {layer.weight_shape}"
        raise NmsatError.rule(where, place, rule, f"{array.dtype.name} {array.shape}")
    return array


def _mask(layer: Layer, name: str, arrays: NpzReader, where: str) -> Mask:
    if name not in arrays:
        raise NmsatError.rule(where, f"{layer.name}.stages", f"masks of {arrays.path.name}", name)
    packed = arrays[name]
    size = -(-layer.weight_elements // 8)
    if packed.dtype != np.uint8 or packed.shape != (size,):
        rule = f"{size} bytes, one bit a weight"
        raise NmsatError.rule(where, f"{layer.name}: mask {name}", rule, f"{packed.dtype.name} {packed.shape}")
    if layer.weight_elements % 8 and packed[-1] >> layer.weight_elements % 8:
        raise NmsatError.rule(where, f"{layer.name}: mask {name}", "zero beyond its last weight", "a set bit")
    return unpack_mask(packed, layer.weight_shape)
