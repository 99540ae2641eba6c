"""Errors of the cycle model: wasm timed here under wasmtime and V8, ARM loops beside llvm-mca and OSACA, phones.

Whole networks are timed too; ``network_factor`` of a wasm core is fitted to one of them.

The wasm part needs a core file of this machine's processor (``simulator/kernels/processor.py``) and, for V8, Node.js.
``--write`` also renews the tables in reports/kernel_model; the ARM part needs llvm-mca-19 and OSACA for that.
``wasm`` or ``v8`` times that engine alone.
``--renew CORE ...`` computes only the model's column of wasm tables anew, beside what was measured where they ran.
Bars: wasm median <= 8 %, 90th percentile <= 15 %; every ARM loop inside; phone <= 10 %, MobileNets <= 6 %.
"""

import json
import sys
import time
from dataclasses import asdict

from nmsat.dataflow.kernels.samples import sample_input
from nmsat.models.core import Core
from nmsat.models.errors import MissingToolError
from nmsat.reports import kernel_arm, kernel_networks, kernel_phone, kernel_wasm
from nmsat.reports.kernel_wasm import WasmPoint
from nmsat.simulator.kernels.node import NodeInstance
from nmsat.simulator.kernels.predict import predict, sample
from nmsat.simulator.kernels.processor import processor_core
from nmsat.simulator.kernels.quiet import QuietCore, Timed
from nmsat.simulator.kernels.wasm import WasmProgram, products_image


def timed(engine, packed, shape, sample_s=0.0007) -> Timed:
    """The product, warm, and how often it runs in about ``sample_s``; it is timed by CPU time."""
    if engine == "v8":
        image, inputs, _ = products_image([(packed, shape[0])])
        node = NodeInstance(image)
        node.put(inputs[0], sample_input(shape))
        run, process = node.run, node.process
    else:
        program = WasmProgram([(packed, shape[0])])
        program.write(0, sample_input(shape))
        process = 0

        def run(repeat):
            start = time.thread_time()
            program.run(repeat)
            return time.thread_time() - start

    for _ in range(3):  # V8 compiles in the background
        run(30)
    seconds = run(30) / 30
    return Timed(run, max(1, int(sample_s / max(seconds, 1e-6))), process)


def wasm_points(core, rounds=20, most=800) -> tuple[list[WasmPoint], float]:
    """Every point by the least CPU time of its quiet timings, and the clock in Hz."""
    quiet = QuietCore(adders=len(core.operations["alu"].groups[0]))
    todo = []
    for group, kernel, shape, zeros in kernel_wasm.products():
        packed = sample(kernel, *shape[1:], zeros)
        todo.append((group, kernel, shape, zeros, packed, timed(core.engine, packed, shape)))
    quiet.measure([each[-1] for each in todo], rounds, most)
    call = quiet.call_seconds if core.engine == "wasmtime" else 0.0  # Node times inside its own process
    points = []
    for group, kernel, shape, zeros, packed, point in todo:
        found = predict(core, packed, shape[0])
        cycles = (point.seconds - call / point.repeat) * quiet.clock_hz
        points.append(WasmPoint(group, kernel.name, shape, zeros, cycles, found.cycles, found.bound))
    return points, quiet.clock_hz


missed, write = False, "--write" in sys.argv
if "--renew" in sys.argv:  # a machine that is not at hand: the model's column alone
    for name in sys.argv[sys.argv.index("--renew") + 1 :]:
        table = kernel_wasm.FOLDER / f"{name}.md"
        points, note = kernel_wasm.read(table.read_text())
        points = kernel_wasm.renewed(Core.load(name), points)
        lines, met = kernel_wasm.summary(name, points)
        print(*lines, sep="\n")
        missed |= not met
        table.write_text(kernel_wasm.markdown(name, points, note))
    sys.exit(missed)
here = processor_core()
if not here:
    print("kernel_model wasm: not compared; there is no core file of this processor")
engines = [engine for engine in ("wasm", "v8") if engine in sys.argv] or ["wasm", "v8"]
cores = [Core.load(f"{engine}-{here}") for engine in engines if here]
for core in cores:
    try:
        points, clock = wasm_points(core)
    except MissingToolError as error:
        print(f"kernel_model {core.name}: not compared; {error}")
        continue
    lines, met = kernel_wasm.summary(core.name, points)
    missed |= not met
    print(*lines, sep="\n")
    if write:
        note = f"Clock while measuring: {clock / 1e9:.2f} GHz."
        (kernel_wasm.FOLDER / f"{core.name}.md").write_text(kernel_wasm.markdown(core.name, points, note))
networks: list[kernel_networks.NetworkTime] = []
for core in cores:
    try:
        networks += kernel_networks.measure(core, rounds=60)
    except MissingToolError as error:
        print(f"kernel_model {core.name} networks: not compared; {error}")
for row in networks:
    figures = f"{row.measured_ms:.1f} ms measured, {row.model_ms:.1f} ms by the model"
    print(f"kernel_model {row.core} {row.network}: {figures}: {100 * row.error:+.0f} %, no bar")
if write and {row.core for row in networks} == {f"{engine}-{here}" for engine in ("wasm", "v8")}:  # the whole table
    (kernel_wasm.FOLDER / "networks.md").write_text(kernel_networks.markdown(networks))
try:
    loops = kernel_arm.measure()
    inside = sum(row.inside for row in loops)
    missed |= inside < len(loops)
    print(
        f"kernel_model ARM loops inside +-10 %: {inside} of {len(loops)}: {'PASS' if inside == len(loops) else 'MISS'}"
    )
    if write:
        (kernel_wasm.FOLDER / "arm_loops.json").write_text(json.dumps([asdict(row) for row in loops], indent=1) + "\n")
        (kernel_wasm.FOLDER / "arm_loops.md").write_text(kernel_arm.markdown(loops))
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
    (kernel_wasm.FOLDER / "phone.md").write_text(kernel_phone.markdown(phone, factor, silu))
sys.exit(missed)
