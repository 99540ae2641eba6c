"""The generated kernels and their peers on one product, in one run."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...dataflow.kernels import LANES, STANDIN, Kernel, pack
from ...dataflow.kernels.image import ImageBuilder
from ...dataflow.kernels.presets import GROUPED, SLICED, SPARSE
from ...dataflow.kernels.samples import sample_input, sample_weights
from ...dataflow.kernels.shapes import Shape
from ...models.errors import MissingToolError, NmsatError
from . import peers
from .node import NodeInstance, find_node
from .peers import F32, Timed, in_thread
from .wasm import WasmInstance

Key = TypeVar("Key")
_SLICE_SECONDS = 0.002  # one timing: long against the clock's step, short against a neighbour's burst


@dataclass(frozen=True, slots=True)
class Timing:
    """Best CPU time of one kernel on one product; ``gflops_effective`` counts the zeros too."""

    kernel: str
    shape: Shape
    sparsity: float
    engine: str
    seconds: float
    gflops_actual: float
    gflops_effective: float


def _tiles() -> dict[str, Kernel]:
    """Candidates: ``family:tile``; of a family the fastest counts, engine by engine."""
    found = {"32x1-standin": STANDIN, "16x1": Kernel(mr=16, arithmetic="mul_add")}
    for panels in ("in_place", "copied"):
        for mr in (16, 20, 24, 28):
            kernel = replace(SPARSE, mr=mr, panels=panels)
            found[f"sparse:{kernel.name}"] = kernel
        kernel = replace(SPARSE, panels=panels, arithmetic="mul_add")
        found[f"sparse:{kernel.name}"] = kernel
    for mr, group in ((24, 32), (28, 4), (28, 32)):
        kernel = replace(GROUPED, mr=mr, group=group)
        found[f"sparse:{kernel.name}"] = kernel
    for arithmetic in ("fma", "mul_add"):
        kernel = replace(SLICED, arithmetic=arithmetic)
        found[f"sparse:{kernel.name}"] = kernel
    for mr, nr in ((24, 1), (12, 2), (8, 4)):
        kernel = Kernel(mr=mr, nr=nr, unroll=2, index="dense", panels="copied")
        found[f"dense:{kernel.name}"] = kernel
    return found


TILES = _tiles()


def tiles(m: int) -> dict[str, Kernel]:
    """The candidates for m columns: sliced kernels, which take single columns, below 4 only."""
    return {name: kernel for name, kernel in TILES.items() if kernel.index != "sliced" or m < LANES}


def bench(
    shape: Shape,
    sparsity: float,
    rounds: int = 7,
    engines: tuple[str, ...] = ("wasmtime", "node"),
    others: bool = True,
    seed: int = 0,
) -> tuple[list[Timing], dict[str, str]]:
    """Time every candidate and peer on one product.

    Candidates run in turn, ``rounds`` times, each for about 2 ms, on CPU time; the least time a run counts. That
    chooses a tile of each family and engine; then the chosen ones and the peers run again in the same way, and only
    these times are reported, so that a lucky round of one tile among many is not taken for speed. All wasm
    candidates share one module and one X. ``engines`` names what runs wasm; with ``others`` the peers run where they
    are installed.

    Returns
    -------
    timings : list of Timing
        One a family and engine.
    missing : dict of str to str
        Peers that could not run, with the reason.
    """
    if rounds < 1:
        raise NmsatError.rule("", "rounds", "at least 1", rounds)
    m, n, k = shape
    weights, x = sample_weights(STANDIN, shape, sparsity, seed), sample_input(shape, seed)
    builder = ImageBuilder()
    x_at, y_at = builder.memory.take(4 * k * m), builder.memory.take(4 * n * m)
    found = tiles(m)
    for name, kernel in found.items():
        builder.product(name, pack(kernel, weights), m, x_at, y_at)
    image, nonzeros = builder.build(), int(np.count_nonzero(weights))
    runs: dict[tuple[str, str], Timed] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        if "wasmtime" in engines:
            instance = WasmInstance(image)
            instance.put(x_at, x)
            runs |= {(name, "wasmtime"): _wasmtime(instance, name) for name in found}
        if "node" in engines:
            try:
                find_node()
                node = stack.enter_context(NodeInstance(image))
                node.put(x_at, x)
                runs |= {(name, "node"): _node(node, name) for name in found}
            except MissingToolError as error:
                missing["node"] = str(error)
        if others:
            _add_peers(runs, missing, stack, weights, x)
        chosen = _choose(runs, interleaved(runs, rounds))
        best = interleaved(chosen, rounds)
    timings = []
    for (name, engine), seconds in best.items():
        work = 2e-9 / seconds
        timings.append(Timing(name, shape, sparsity, engine, seconds, work * nonzeros * m, work * m * n * k))
    return timings, missing


def _add_peers(
    runs: dict[tuple[str, str], Timed], missing: dict[str, str], stack: ExitStack, weights: F32, x: F32
) -> None:
    for name, (engine, make) in peers.PEERS.items():
        try:
            runs[name, engine] = make(weights, x)
        except MissingToolError as error:
            missing[name] = str(error)
    try:
        tfjs = peers.Tfjs(weights, x, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(tfjs.close)
        runs["tfjs-dense", "node"] = tfjs
    except MissingToolError as error:
        missing["tfjs-dense"] = str(error)


def _wasmtime(instance: WasmInstance, name: str) -> Timed:
    def run(repeat: int) -> float:
        return in_thread(lambda: instance.run(repeat, name))(1)

    return run


def _node(instance: NodeInstance, name: str) -> Timed:
    return lambda repeat: instance.run(repeat, name)


def interleaved(runs: dict[Key, Timed], rounds: int) -> dict[Key, float]:
    """Least CPU seconds a run of each candidate: ``rounds`` rounds, in each all of them in turn for about 2 ms."""
    repeats: dict[Key, int] = {}
    best: dict[Key, float] = {}
    for key, run in runs.items():
        run(1)
        once = max(run(1), 1e-6)
        repeats[key] = max(1, min(20000, round(_SLICE_SECONDS / once)))
        best[key] = np.inf
    for _ in range(rounds):
        for key, run in runs.items():
            best[key] = min(best[key], max(run(repeats[key]), 1e-9) / repeats[key])
    return best


def _choose(runs: dict[tuple[str, str], Timed], best: dict[tuple[str, str], float]) -> dict[tuple[str, str], Timed]:
    """The fastest of each family on each engine."""
    winners: dict[tuple[str, str], tuple[str, str]] = {}
    for key in runs:
        group = (key[0].split(":")[0], key[1])
        if group not in winners or best[key] < best[winners[group]]:
            winners[group] = key
    return {key: runs[key] for key in winners.values()}


def family(timings: list[Timing], name: str, engine: str) -> Timing | None:
    """The timing of a family (``sparse``, ``dense``, or a whole name) on an engine."""
    found = [t for t in timings if t.engine == engine and t.kernel.split(":")[0] == name]
    return min(found, key=lambda t: t.seconds, default=None)


def ratios(timings: list[Timing]) -> dict[str, float]:
    """How many times faster our best sparse tile is than each peer, on one product."""
    found: dict[str, float] = {}
    for engine in ("wasmtime", "node"):
        ours = family(timings, "sparse", engine)
        if ours is None:
            continue
        others = [("32x1-standin", engine), ("16x1", engine), ("dense", engine)]
        if engine == "wasmtime":
            others += [(name, peer_engine) for name, (peer_engine, _) in peers.PEERS.items()]
        else:
            others.append(("tfjs-dense", "node"))
        for name, other_engine in others:
            other = family(timings, name, other_engine)
            if other is not None:
                found[f"{engine} / {name}"] = other.seconds / ours.seconds
    return found


def geomean(values: list[float]) -> float:
    """Geometric mean of positive numbers."""
    return float(np.exp(np.mean(np.log(values))))
