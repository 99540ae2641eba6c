"""Cycles a second of the whole accelerator under the testbench; bar 20,000 on sat_8x8.

Four products of digits-mlp, 2:8, on arrays built for the pattern only. Seconds are the processor's, so that other work
on the machine counts less; building, minutes, does not count. Arguments: sat_4x4 (the simulator of the tests) or
sat_8x8 (default), and simulators (default verilated).
"""

import sys
import time
from dataclasses import replace

from nmsat.commands.cosim_bench import run_programs
from nmsat.commands.cosim_task import network_task
from nmsat.dataflow.program import Kind
from nmsat.models import Accelerator, Workload
from nmsat.rtl.blocks import emitted_block
from nmsat.rtl.simulators import run_emitted

BAR = 20_000


async def timed(bench, **arguments):
    """The run, and the processor's seconds it took."""
    begun = time.process_time()
    found = await run_programs(bench, **arguments)
    return found[0]["simulated"], time.process_time() - begun


def main(given):
    """Whether the bar was missed."""
    names = [name for name in given if name.startswith("sat")] or ["sat_8x8"]
    simulators = [name for name in given if not name.startswith("sat")] or ["verilated"]
    missed = False
    for name in names:
        accelerator = Accelerator.load(name).replace(max_keep=2, max_group=8)
        if name == "sat_4x4":
            accelerator = accelerator.replace(name="sat_4x4_n2m8", overlap_units=True)
        task = network_task(Workload.load("digits-mlp"), accelerator, 1, method="bdwp", sparsity="2:8", batch=16)
        products = tuple(item for item in task.program.descriptors if item.kind is Kind.PRODUCT)[:4]
        program = replace(task.program, descriptors=products)
        run = {
            "program": program.encode().hex(), "image": task.image.tobytes().hex(), "steps": [{}],
            "limit_cycles": 10**6,
        }  # fmt: skip
        for sim in simulators:
            arguments = {"accelerator": accelerator.model_dump(), "runs": [run]}
            cycles, seconds = run_emitted(emitted_block("top", accelerator), timed, arguments, sim)
            rate = cycles / seconds
            slow = name == "sat_8x8" and rate < BAR
            missed |= slow
            verdict = f", bar >= {BAR:,}: {'MISS' if slow else 'PASS'}" if name == "sat_8x8" else ""
            print(f"cosim {name} {sim}: {rate:,.0f} cycles/s over {cycles:,} cycles{verdict}", flush=True)
    return missed


if __name__ == "__main__":  # the simulator's process imports this file
    sys.exit(main(sys.argv[1:]))
