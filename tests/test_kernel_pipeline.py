"""The pipeline model against figures by hand, and against llvm-mca and OSACA on ARM loops."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from nmsat.dataflow.kernels import Kernel
from nmsat.models import NmsatError, Sparsity
from nmsat.models.core import Core
from nmsat.reports import kernel_arm
from nmsat.simulator.kernels.arm_loops import decode, loop_text, row_text
from nmsat.simulator.kernels.pipeline import Instruction, bound, issue_cycles, port_cycles, steady_cycles

A72 = Core.load("cortex-a72")
RECORD = Path(__file__).parents[1] / "reports/kernel_model/arm_loops.json"
FMA = Instruction("fma", ("v8",), ("v8", "v0", "v1"), addend="v8")


def core(**changes) -> Core:
    return A72.model_copy(update=changes)


def fmas(count: int) -> list[Instruction]:
    return [Instruction("fma", (f"v{i}",), (f"v{i}", "v30", "v31"), addend=f"v{i}") for i in range(8, 8 + count)]


@pytest.mark.parametrize(
    ("stream", "cycles", "held"),
    [
        ([FMA], 5.0, "latency"),  # through the accumulator
        (fmas(4), 5.0, "latency"),
        (fmas(8), 8.0, "ports F0/F1"),  # a quad-word multiply-add takes both pipes
        ([Instruction("alu", (f"x{i}",)) for i in range(6)], 3.0, "ports I0/I1"),
        ([Instruction("alu", ("x1",), ("x1",))] * 4, 4.0, "latency"),
        ([Instruction("vector_load", ("v0",), ("x1",), writeback="x1")] * 2, 2.0, "ports L"),
        ([Instruction("alu", ("x1",)), Instruction("branch"), Instruction("move", ("v1",))] * 2, 2.0, "issue"),
    ],
)
def test_loops_by_hand(stream, cycles, held):
    assert steady_cycles(A72, stream) == pytest.approx(cycles, abs=0.05)
    assert bound(A72, stream, steady_cycles(A72, stream)) == held


def test_the_multiplied_operand_waits_for_the_whole_latency():
    chain = Instruction("fma", ("v8",), ("v9", "v8", "v1"), addend="v9")
    assert steady_cycles(A72, [chain]) == A72.operations["fma"].latency


def test_a_store_forwards_to_the_load_behind_it():
    spill = [FMA, Instruction("vector_store", ("[sp]",), ("v8",)), Instruction("vector_load", ("v8",), ("[sp]",))]
    store, forward = A72.operations["vector_store"].latency, A72.store_forward_cycles.value
    second = 1  # the store's two micro-ops share a port
    assert steady_cycles(A72, spill) == A72.operations["fma"].latency + store + second + forward


def test_a_mispredicted_exit_costs_its_penalty():
    hit = steady_cycles(A72, [Instruction("alu", ("x1",)), Instruction("branch")])
    miss = steady_cycles(A72, [Instruction("alu", ("x1",)), Instruction("branch", exits=True)])
    assert A72.mispredict_cycles.value <= miss - hit <= A72.mispredict_cycles.value + 2


def test_a_small_window_exposes_latency():
    load_chain = [Instruction("vector_load", ("v0",), ("x1",)), Instruction("fma", ("v8",), ("v9", "v0", "v1"))]
    wide = steady_cycles(A72, load_chain)
    narrow = steady_cycles(core(window=A72.window.model_copy(update={"value": 2})), load_chain)
    assert narrow > 3 * wide


def test_a_group_with_too_many_loads_takes_a_second_cycle():
    """Zen 3 takes 6 loads and 12 no-operations in 3 cycles when they alternate, in 3.5 to 4 when the loads lead."""
    zen = Core.load("wasm-zen3")
    assert zen.group_loads is not None
    assert zen.group_loads.value == 4
    load, nothing = Instruction("vector_load", ("xmm8",), ("rdi",)), Instruction("move")
    assert steady_cycles(zen, [load, nothing, nothing] * 6) == pytest.approx(3, abs=0.05)
    assert steady_cycles(zen, [load] * 6 + [nothing] * 12) == pytest.approx(4, abs=0.05)
    assert steady_cycles(zen, [load] * 6 + [nothing] * 13) == pytest.approx(19 / 6 + 0.5, abs=0.2)  # groups shift
    free = zen.model_copy(update={"group_loads": None})
    assert steady_cycles(free, [load] * 6 + [nothing] * 12) == pytest.approx(3, abs=0.05)


def test_in_order_cores_are_never_faster():
    for kernel in kernel_arm.LOOPS:
        stream = decode(kernel_arm.text(kernel))
        assert steady_cycles(core(in_order=True), stream) >= steady_cycles(A72, stream) - 1e-9


def test_cycles_are_at_least_what_width_and_ports_allow():
    for name in kernel_arm.CORES:
        machine = Core.load(name)
        for kernel in kernel_arm.LOOPS:
            stream = decode(kernel_arm.text(kernel))
            lower = max(issue_cycles(machine, stream), port_cycles(machine, stream)[0])
            assert steady_cycles(machine, stream) >= lower - 0.05, (name, kernel.name)


def test_an_unknown_operation_is_named():
    with pytest.raises(NmsatError, match=r"core cortex-a72: operations\.teleport: must be given for this stream"):
        steady_cycles(A72, [Instruction("teleport")])


@pytest.mark.parametrize(
    ("kernel", "height", "vectors"),
    [(Kernel(mr=64), 1, 21), (Kernel(values="int8"), 1, 7), (Kernel(index="packed", pattern=Sparsity(2, 4)), 1, 7)],
)
def test_loops_that_have_no_text_are_refused(kernel, height, vectors):
    with pytest.raises(NmsatError, match="kernel: "):
        loop_text(kernel, height, vectors)


def test_loop_text_counts():
    """A loop loads its inputs once a block, multiplies once a sum, and reads one step a block."""
    for kernel in kernel_arm.LOOPS:
        ops = [x.op for x in decode(kernel_arm.text(kernel))]
        assert ops.count("fma") == kernel.accumulators * kernel.unroll
        pairs, odd = divmod(kernel.vectors, 2)
        assert ops.count("vector_load_pair") == pairs * kernel.unroll
        head, tail = (decode(part) for part in row_text(kernel, kernel.nr, kernel.vectors))
        stored = sum({"vector_store": 1, "vector_store_pair": 2}.get(x.op, 0) for x in tail)
        assert stored == kernel.accumulators
        assert sum(x.op == "broadcast_load" for x in head) == kernel.nr
        assert odd in (0, 1)


def test_unknown_mnemonics_are_refused():
    with pytest.raises(NmsatError, match="mnemonic: must be one the cycle model knows, not 'sqdmulh'"):
        decode(["sqdmulh v0.4s, v1.4s, v2.4s"])


def recorded() -> list[kernel_arm.LoopRow]:
    return [kernel_arm.LoopRow(**row) for row in json.loads(RECORD.read_text())]


def test_arm_loops_lie_inside_the_references_interval():
    """llvm-mca's and OSACA's recorded cycles; the model's own are computed now."""
    rows = recorded()
    assert len(rows) == len(kernel_arm.CORES) * len(kernel_arm.LOOPS)
    kernels = {kernel.name: kernel for kernel in kernel_arm.LOOPS}
    for row in rows:
        model, held = kernel_arm.model_cycles(Core.load(row.core), kernels[row.kernel])
        now = kernel_arm.LoopRow(**(asdict(row) | {"model": model, "bound": held}))
        assert now == row, "run benchmarks/kernel_model.py --write"
        assert now.inside, now


@pytest.mark.slow  # another tool's answer to a recorded question; last result in reports/verification/kernel_references.txt
@pytest.mark.skipif(shutil.which("llvm-mca-19") is None, reason="apt install llvm-19")
def test_recorded_cycles_are_what_llvm_mca_says():
    loops = {kernel.name: kernel_arm.text(kernel) for kernel in kernel_arm.LOOPS}
    for row in recorded():
        assert kernel_arm.mca_cycles(row.core, loops[row.kernel]) == pytest.approx(row.mca, abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("osaca") is None, reason="pip install osaca")
def test_recorded_cycles_are_what_osaca_says():
    row = next(row for row in recorded() if row.osaca is not None)
    loops = {kernel.name: kernel_arm.text(kernel) for kernel in kernel_arm.LOOPS}
    assert kernel_arm.osaca_cycles(row.core, loops[row.kernel]) == pytest.approx(row.osaca, abs=0.02)
