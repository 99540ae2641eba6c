"""From a network to a workload file: every weight's pattern found, every stage given what it can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import NmsatError
from ..sparsity import DENSE, Sparsity
from ..stages import Source
from ..workload import Layer, Workload
from ..workload_file import WorkloadFile, sha256_of
from .detector import AxisPattern, Detection, detect
from .network import Network

MAX_NOTES = 200


@dataclass(frozen=True, slots=True)
class Imported:
    """A network as a workload, with what was found in its weights.

    Attributes
    ----------
    network : WorkloadFile
        Layers, weights and each stage's pattern, masks being the weights' own zeros.
    layers : list of dict
        One row a layer with weights (docs/workloads.md lists the keys).
    """

    network: WorkloadFile
    layers: list[dict[str, Any]]

    def without_batch(self) -> Workload:
        """The workload alone, for a run that names its own batch and mode."""
        return self.network.workload.model_copy(update={"batch": None, "mode": None, "tensors": None})


def import_network(
    path: str | Path,
    *,
    batch: int | None = None,
    mode: Literal["train", "infer"] = "train",
    pattern: str | Sparsity = "auto",
    dims: Mapping[str, int] | None = None,
) -> Imported:
    """Read a network file and find the patterns of its weights.

    Parameters
    ----------
    path : str or Path
        .onnx, .pt2, .safetensors or .npz.
    batch : int, optional
        Batch of the stages' sizes; None: 1.
    mode : "train" or "infer"
        ``infer`` leaves the backward stages out.
    pattern : str or Sparsity
        ``auto`` finds each layer's tightest pattern; ``N:M`` holds every layer to one and lists what breaks it.
    dims : mapping of str to int, optional
        Sizes of an ONNX file's symbolic dimensions other than the batch.

    Raises
    ------
    NmsatError
        For a file that cannot be used or an illegal argument.
    """
    path = Path(path)
    wanted = None if pattern == "auto" else Sparsity.parse(pattern, key="pattern")
    if mode not in ("train", "infer"):
        raise NmsatError.rule("", "mode", "train or infer", mode)
    if batch is not None and not 1 <= batch <= 2**20:
        raise NmsatError.rule("", "batch", "an integer from 1 to 1048576", batch)
    found = _read(path, dims)
    workload = found.workload(path.stem, f"Made from {path.name}.")
    layers = {layer.name: layer for layer in workload.expanded().layers}
    own = {layer.name: layer for layer in workload.layers}
    seen = {name: detect(weight, layers[name].groups, wanted) for name, weight in found.weights.items()}
    pruned = wanted is not None or any(item.density < 1 for item in seen.values())
    patterns: dict[tuple[str, str], Sparsity] = {}
    for name, item in seen.items() if pruned else ():
        if name not in own:
            continue  # a side product is dense
        for stage in ("ff", "bp") if mode == "train" and workload.input_gradient(own[name]) else ("ff",):
            patterns[name, stage] = _runs(layers[name], item.ff if stage == "ff" else item.bp)
    rows = [_row(layers[name], item, patterns) for name, item in seen.items()]
    notes = [*(f"{text} ({count}x)" for text, count in found.notes.items()), *_broken(rows)]
    if len(notes) > MAX_NOTES:
        notes = [*notes[:MAX_NOTES], f"and {len(notes) - MAX_NOTES} more"]
    built = WorkloadFile.build(
        workload,
        batch=batch or 1,
        mode=mode,
        weights=found.weights,
        patterns=patterns,
        source=Source(file=path.name, sha256=sha256_of(path), tool=found.tool),
        notes=tuple(note[:1000] for note in notes),
    )
    return Imported(built, rows)


def _read(path: Path, dims: Mapping[str, int] | None) -> Network:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        from .onnx_graph import read_onnx

        return read_onnx(path, dims)
    if suffix in (".safetensors", ".npz"):
        from .tensor_files import read_tensors

        return read_tensors(path)
    if suffix == ".pt2":
        from .pt2_graph import read_pt2

        return read_pt2(path)
    raise NmsatError.rule(str(path), "", "a .onnx, .pt2, .safetensors or .npz file", suffix)


def _runs(layer: Layer, found: AxisPattern) -> Sparsity:
    """What a stage runs: the intended pattern where nothing breaks it, else the tightest that nothing breaks."""
    if layer.op == "depthwise":
        return DENSE
    return found.legal if found.violations or found.intended.is_dense else found.intended


def _row(layer: Layer, item: Detection, patterns: Mapping[tuple[str, str], Sparsity]) -> dict[str, Any]:
    best = item.ff if item.bp.intended.is_dense or item.ff.intended.density <= item.bp.intended.density else item.bp
    named = not best.intended.is_dense and layer.op != "depthwise"
    runs = {stage: str(patterns[layer.name, stage]) for stage in ("ff", "bp") if (layer.name, stage) in patterns}
    return {
        "layer": layer.name,
        "op": layer.op,
        "shape": list(layer.weight_shape),
        "kind": item.kind,
        "pattern": str(best.intended) if named else "dense" if item.kind == "dense" else item.kind,
        "axis": best.axis if named else None,
        "density": round(item.density, 6),
        "violations": best.violations if named else 0,
        "first_violations": [list(place) for place in best.first] if named else [],
        "runs": runs,
        "block": item.block,
        "zero_output_channels": item.zero_outputs,
        "zero_input_channels": item.zero_inputs,
        "axes": {
            along.axis: {
                "intended": str(along.intended),
                "legal": str(along.legal),
                "groups": along.groups,
                "short_groups": along.short_groups,
                "violations": along.violations,
            }
            for along in (item.ff, item.bp)
        },
    }


def _broken(rows: list[dict[str, Any]]) -> list[str]:
    """One line for every layer that breaks its pattern."""
    lines = []
    for row in rows:
        if row["violations"]:
            stage = "ff" if row["axis"] == "in" else "bp"
            total = row["axes"][row["axis"]]["groups"]
            text = f"{row['layer']}: {row['violations']} of {total} groups break {row['pattern']} along {row['axis']}"
            first = ", ".join(str(place) for place in row["first_violations"][:2])
            lines.append(f"{text}, first at {first}; {stage} runs {row['runs'].get(stage, 'dense')}")
    return lines
