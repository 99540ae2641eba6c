"""Errors of the cycle model: wasm timed here under wasmtime and V8, ARM loops beside llvm-mca and OSACA, phones.

The wasm part needs a core file of this machine's processor (``simulator/kernels/processor.py``) and, for V8, Node.js.
``--write`` also renews the tables in reports/kernel_model; the ARM part needs llvm-mca-19 and OSACA for that.
Bars: wasm median <= 8 %, 90th percentile <= 15 %; every ARM loop inside; phone <= 10 %, MobileNets <= 6 %.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import wasmtime

from nmsat.dataflow.kernels import STANDIN, Kernel
from nmsat.dataflow.kernels.presets import preset
from nmsat.dataflow.kernels.samples import sample_input
from nmsat.models.core import Core
from nmsat.models.errors import MissingToolError
from nmsat.reports import kernel_arm, kernel_phone
from nmsat.simulator.kernels.node import NodeInstance
from nmsat.simulator.kernels.predict import predict, sample
from nmsat.simulator.kernels.processor import processor_core
from nmsat.simulator.kernels.wasm import WasmProgram, products_image

FOLDER = Path(__file__).parents[1] / "reports/kernel_model"
SHAPES = ((3136, 24, 96), (3136, 144, 24), (784, 256, 256), (196, 512, 512), (49, 960, 160), (196, 96, 576))
FITTED = (Kernel(mr=8), Kernel(mr=16), Kernel(mr=24), Kernel(mr=28), STANDIN, Kernel(mr=16, index="dense"))
UNSEEN = tuple(preset(name) for name in ("sparse", "sparse-in-place", "sparse-simd", "block2", "2:8", "dense"))
CLOCK = """(module (func (export "f") (param $n i32) (result i32) (local $a i32) (loop $l
 (local.set $a (i32.xor (i32.add (local.get $a) (i32.mul (local.get $a) (local.get $n))) (local.get $n)))
 (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1))))) (local.get $a)))"""
CHAIN_CYCLES = 5  # multiply 3, add 1, exclusive or 1


def clock_hz(rounds=5, turns=200_000):
    """Clock by a chain of dependent instructions."""
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    function = wasmtime.Instance(store, wasmtime.Module(engine, CLOCK), []).exports(store)["f"]
    best = 1.0
    for _ in range(rounds):
        start = time.thread_time()
        function(store, turns)
        best = min(best, time.thread_time() - start)
    return CHAIN_CYCLES * turns / best


def timer(engine, packed, shape) -> Callable[[int], float]:
    """Seconds a run of the product, by CPU time, as a function of how often it runs."""
    if engine == "v8":
        image, inputs, _ = products_image([(packed, shape[0])])
        node = NodeInstance(image)
        node.put(inputs[0], sample_input(shape))
        return lambda repeat: node.run(repeat) / repeat
    program = WasmProgram([(packed, shape[0])])
    program.write(0, sample_input(shape))

    def run(repeat):
        start = time.thread_time()
        program.run(repeat)
        return (time.thread_time() - start) / repeat

    return run


def wasm_rows(core, rounds=20, sample_s=0.004):
    """(group, kernel, shape, zeros, measured cycles, predicted cycles, bound): least CPU time of the rounds."""
    points = []
    for group, kernels in (("fitted", FITTED), ("unseen", UNSEEN)):
        for number, shape in enumerate(SHAPES):
            for kernel in kernels:
                dense = kernel.index == "dense"
                zeros = 0.0 if dense else (0.8, 0.9)[number % 2]
                packed = sample(kernel, *shape[1:], zeros)
                run = timer(core.engine, packed, shape)
                for _ in range(4):  # V8 compiles in the background
                    seconds = run(30)
                repeat = max(1, int(sample_s / max(seconds, 1e-6)))
                points.append([group, kernel, shape, zeros, packed, run, repeat, 1e9])
    clock = 0.0
    for _ in range(rounds):
        for point in points:
            point[7] = min(point[7], point[5](point[6]))
        clock = max(clock, clock_hz())
    rows = []
    for group, kernel, shape, zeros, packed, _, _, seconds in points:
        found = predict(core, packed, shape[0])
        rows.append((group, kernel.name, shape, zeros, seconds * clock, found.cycles, found.bound))
    return rows, clock


def wasm_table(rows, clock):
    lines = [f"Clock while measuring: {clock / 1e9:.2f} GHz.", ""]
    lines += [
        "| set | kernel | m x n x k | zeros | measured | model | error | bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group, kernel, shape, zeros, measured, model, bound in rows:
        size, error = "x".join(map(str, shape)), 100 * (model / measured - 1)
        lines.append(
            f"| {group} | {kernel} | {size} | {zeros} | {measured:,.0f} | {model:,} | {error:+.0f} % | {bound} |"
        )
    return "\n".join([*lines, ""])


missed, write = False, "--write" in sys.argv
here = processor_core()
if not here:
    print("kernel_model wasm: not compared; there is no core file of this processor")
for core in [Core.load(f"{engine}-{here}") for engine in ("wasm", "v8") if here]:
    try:
        rows, clock = wasm_rows(core)
    except MissingToolError as error:
        print(f"kernel_model {core.name}: not compared; {error}")
        continue
    lines = []
    for group in ("fitted", "unseen"):
        errors = [abs(row[5] / row[4] - 1) for row in rows if row[0] == group]
        median, high = float(np.median(errors)), float(np.quantile(errors, 0.9))
        ok = median <= 0.08 and high <= 0.15
        missed |= not ok
        lines.append(
            f"kernel_model {core.name} {group}: {len(errors)} points, median {100 * median:.1f} %, bar <= 8; "
            f"90th percentile {100 * high:.1f} %, bar <= 15: {'PASS' if ok else 'MISS'}"
        )
    print(*lines, sep="\n")
    if write:
        (FOLDER / f"{core.name}.md").write_text("\n\n".join(lines) + "\n\n" + wasm_table(rows, clock))
try:
    loops = kernel_arm.measure()
    inside = sum(row.inside for row in loops)
    missed |= inside < len(loops)
    print(
        f"kernel_model ARM loops inside +-10 %: {inside} of {len(loops)}: {'PASS' if inside == len(loops) else 'MISS'}"
    )
    if write:
        (FOLDER / "arm_loops.json").write_text(json.dumps([asdict(row) for row in loops], indent=1) + "\n")
        (FOLDER / "arm_loops.md").write_text(kernel_arm.markdown(loops))
except MissingToolError as error:
    print(f"kernel_model ARM loops: not compared; {error}")
phone, factor, silu = kernel_phone.measure()
every, mobile = kernel_phone.mean_error(phone), kernel_phone.mean_error(phone, "mobilenet")
missed |= every > 0.10 or mobile > 0.06
print(
    f"kernel_model phone, leave-one-out: {100 * every:.1f} %, bar <= 10; MobileNets {100 * mobile:.1f} %, bar <= 6: "
    f"{'MISS' if every > 0.10 or mobile > 0.06 else 'PASS'}"
)
if write:
    (FOLDER / "phone.md").write_text(kernel_phone.markdown(phone, factor, silu))
sys.exit(missed)
