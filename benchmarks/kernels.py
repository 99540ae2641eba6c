"""Sparse CPU kernels against their peers, one run, every pointwise shape of three networks; the bars are ratios.

``python benchmarks/kernels.py [ROUNDS] [TABLE.md]``; about 15 minutes.
Peers that are not installed are named.
"""

import sys
from pathlib import Path

from nmsat.dataflow.kernels.shapes import all_shapes
from nmsat.simulator.kernels.bench import bench, family, geomean, ratios

BARS = {  # (share of zeros, what our fastest tile is compared with): least geometric mean
    (0.8, "wasmtime / 32x1-standin"): 1.35,
    (0.9, "wasmtime / 32x1-standin"): 1.35,
    (0.8, "node / 32x1-standin"): 1.35,
    (0.9, "node / 32x1-standin"): 1.35,
    (0.8, "wasmtime / 16x1"): 1.0,
    (0.9, "wasmtime / 16x1"): 1.0,
    (0.7, "wasmtime / dense"): 2.0,
    (0.8, "wasmtime / dense"): 3.0,
    (0.9, "wasmtime / dense"): 6.0,
    (0.95, "wasmtime / dense"): 11.0,
    (0.9, "wasmtime / scipy-csr"): 2.0,
    (0.9, "wasmtime / xnnpack"): 1.2,
}
RATE = 26.0  # GFLOP/s actual at 90 % on these shapes, where the stand-in gives 18
RATE_SHAPES = ((768, 256, 256), (192, 512, 512))
rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
found: dict[tuple[float, str], list[float]] = {}
missing: dict[str, str] = {}
rates: list[tuple[tuple[int, int, int], float, float]] = []
table = [
    "| m x n x k | zeros | ours wasmtime | 32x1-standin | 16x1 | ours node | 32x1-standin | tile (wasmtime) |",
    "|---" * 8 + "|",
]


def rate(timings, name, engine):
    best = family(timings, name, engine)
    return 0.0 if best is None else best.gflops_actual


for zeros in (0.7, 0.8, 0.9, 0.95):
    for shape in [*all_shapes(), *(RATE_SHAPES if zeros == 0.9 else ())]:
        timings, absent = bench(shape, zeros, rounds, others=zeros == 0.9)
        missing |= absent
        if shape in RATE_SHAPES:
            rates.append((shape, rate(timings, "sparse", "wasmtime"), rate(timings, "32x1-standin", "wasmtime")))
            continue
        for name, ratio in ratios(timings).items():
            found.setdefault((zeros, name), []).append(ratio)
        best = family(timings, "sparse", "wasmtime")
        cells = [
            rate(timings, name, engine)
            for engine in ("wasmtime", "node")
            for name in ("sparse", "32x1-standin", "16x1")
        ]
        figures = " | ".join(f"{cell:.1f}" for cell in cells[:5])
        table.append(f"| {' x '.join(map(str, shape))} | {100 * zeros:g} % | {figures} | {best.kernel.split(':')[1]} |")
missed = False
lines = []
for key, values in found.items():
    bar, mean = BARS.get(key), geomean(values)
    verdict = "no bar" if bar is None else f"bar >= {bar:g}: {'PASS' if mean >= bar else 'MISS'}"
    missed |= bar is not None and mean < bar
    lines.append(
        f"kernels {100 * key[0]:g} % zeros, {key[1]}: {mean:.2f} x ({min(values):.2f} .. {max(values):.2f}), {verdict}"
    )
for shape, ours, standin in rates:  # a slower processor's bar is as much lower as its stand-in
    bar = RATE * min(1.0, standin / 18)
    missed |= ours < bar
    lines.append(
        f"kernels {'x'.join(map(str, shape))} 90 %: {ours:.1f} GFLOP/s actual, the stand-in {standin:.1f}, "
        f"bar >= {RATE:g} where the stand-in gives 18, so {bar:.1f} here: {'PASS' if ours >= bar else 'MISS'}"
    )
lines += [f"kernels left out: {name}: {reason}" for name, reason in missing.items()]
print("\n".join(lines))
if len(sys.argv) > 2:
    Path(sys.argv[2]).write_text("\n".join([*table, "", *lines]) + "\n")
sys.exit(missed)
