"""Cycles a second of the whole accelerator under the testbench, in this process; bar 20,000 on 8x8.

Four products of digits-mlp, 2:8, on sat_8x8 built for the pattern only. Seconds are the processor's, so that other
work on the machine counts little; building, minutes, does not count. Arguments: simulators, default verilated.
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


accelerator = Accelerator.load("sat_8x8").replace(max_keep=2, max_group=8)
task = network_task(Workload.load("digits-mlp"), accelerator, 1, method="bdwp", sparsity="2:8", batch=16)
products = tuple(item for item in task.program.descriptors if item.kind is Kind.PRODUCT)[:4]
program = replace(task.program, descriptors=products)
run = {"program": program.encode().hex(), "image": task.image.tobytes().hex(), "steps": [{}], "limit_cycles": 10**6}
missed = False
for sim in sys.argv[1:] or ["verilated"]:
    arguments = {"accelerator": accelerator.model_dump(), "runs": [run]}
    cycles, seconds = run_emitted(emitted_block("top", accelerator), timed, arguments, sim)
    rate = cycles / seconds
    missed |= rate < BAR
    verdict = "MISS" if rate < BAR else "PASS"
    print(f"cosim sat_8x8 {sim}: {rate:,.0f} cycles/s over {cycles:,} cycles, bar >= {BAR:,}: {verdict}", flush=True)
sys.exit(missed)
