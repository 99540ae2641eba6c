"""Tiles chosen by the cycle model against the best fixed ones, timed here: wasmtime and, where installed, Node.

``python benchmarks/tile_choice.py [ROUNDS] [TABLE.md]``. Every pointwise shape of three mobile networks, every tile
that the model chooses among (``simulator/kernels/tile_choice.py``). Two rounds of timing: one finds the fastest tile,
the other times it again beside the model's choice, so that a lucky reading does not count as speed. The bar: the
model's tiles are at most 5 % slower, in the geometric mean, than the best tile of each shape and than the one tile
that would be best everywhere.
"""

import sys
from pathlib import Path

import numpy as np

from nmsat.dataflow.kernels import pack
from nmsat.dataflow.kernels.image import ImageBuilder
from nmsat.dataflow.kernels.samples import sample_input, sample_weights
from nmsat.dataflow.kernels.shapes import all_shapes
from nmsat.models.core import Core
from nmsat.models.errors import MissingToolError
from nmsat.simulator.kernels.bench import geomean, interleaved
from nmsat.simulator.kernels.node import NodeInstance
from nmsat.simulator.kernels.peers import in_thread
from nmsat.simulator.kernels.processor import processor_core
from nmsat.simulator.kernels.tile_choice import candidates, choose
from nmsat.simulator.kernels.wasm import WasmInstance

BAR = 1.05


def times(engine, tiles, shape, zeros, rounds):
    """Seconds of every tile, by two independent readings."""
    m, n, k = shape
    weights, x = sample_weights(tiles[0], shape, zeros, 0), sample_input(shape, 0)
    builder = ImageBuilder()
    x_at, y_at = builder.memory.take(4 * k * m), builder.memory.take(4 * n * m)
    for tile in tiles:
        builder.product(tile.name, pack(tile, weights), m, x_at, y_at)
    image = builder.build()
    if engine == "v8":
        with NodeInstance(image) as node:
            node.put(x_at, x)
            runs = {tile.name: lambda repeat, name=tile.name: node.run(repeat, name) for tile in tiles}
            return interleaved(runs, rounds), interleaved(runs, rounds)
    instance = WasmInstance(image)
    instance.put(x_at, x)
    runs = {
        tile.name: lambda repeat, name=tile.name: in_thread(lambda: instance.run(repeat, name))(1) for tile in tiles
    }
    return interleaved(runs, rounds), interleaved(runs, rounds)


def compare(core, rounds, table):
    tiles = candidates(core)  # those for every m
    chosen, best, every = [], [], []
    for zeros in (0.8, 0.9):
        for shape in all_shapes():
            first, second = times(core.engine, candidates(core, m=shape[0]), shape, zeros, rounds)
            model, winner = choose(core, shape, zeros)[0].name, min(first, key=first.__getitem__)
            chosen.append(second[model])
            best.append(second[winner])
            every.append([second[tile.name] for tile in tiles])
            size = " x ".join(map(str, shape))
            ratio = second[model] / second[winner]
            table.append(f"| {core.name} | {size} | {100 * zeros:g} % | {model} | {winner} | {ratio:.3f} |")
    against_best = np.array(chosen) / np.array(best)
    fixed = [geomean(list(np.array(chosen) / column)) for column in np.array(every).T]
    worst = int(np.argmax(fixed))  # the fixed tile that the choice gains least on
    mean, over = geomean(list(against_best)), float(np.mean(against_best > BAR))
    ok = mean <= BAR and fixed[worst] <= BAR
    print(
        f"tile_choice {core.name}: {mean:.3f} x the time of the best tile of each shape "
        f"({100 * over:.0f} % of {len(chosen)} shapes over {BAR}, worst {against_best.max():.2f}), "
        f"{fixed[worst]:.3f} x that of the best fixed tile, {tiles[worst].name}; "
        f"bar <= {BAR}: {'PASS' if ok else 'MISS'}"
    )
    return ok


rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
here, missed = processor_core(), False
table = ["| core | m x n x k | zeros | model's tile | fastest tile | time ratio |", "|---" * 6 + "|"]
if not here:
    print("tile_choice: not compared; there is no core file of this processor")
for engine in ("wasm", "v8") if here else ():
    try:
        missed |= not compare(Core.load(f"{engine}-{here}"), rounds, table)
    except MissingToolError as error:
        print(f"tile_choice {engine}-{here}: not compared; {error}")
if len(sys.argv) > 2:
    Path(sys.argv[2]).write_text("\n".join(table) + "\n")
sys.exit(missed)
