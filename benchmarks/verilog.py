"""Verilog of the shipped 32x32 array: bars of 10 s and 0.5 MB; minimum of 3, yosys' own compilation not counted.

The first run of the yosys wheel on a machine compiles it, which takes minutes and is kept.
"""

import hashlib
import resource
import sys
import time

from nmsat.models import Accelerator
from nmsat.rtl.blocks import component_of
from nmsat.rtl.verilog import verilog
from nmsat.rtl.yosys import yosys_version

SECONDS, BYTES = 10.0, 500_000

print(f"yosys (yowasp {yosys_version()}) is ready")
verilog(component_of("epilogue", Accelerator.load("sat_4x4")), "epilogue")
seconds, cpu, digests, design = [], [], set(), None


def cpu_seconds():
    """CPU time of this process and of the yosys that it has run: what a busy machine does not change much."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


for _ in range(3):
    start, used = time.perf_counter(), cpu_seconds()
    design = verilog(component_of("stce", Accelerator.load("sat")), "stce")
    seconds.append(time.perf_counter() - start)
    cpu.append(cpu_seconds() - used)
    digests.add(hashlib.sha256(design.text.encode()).hexdigest())
assert design is not None
size, least = len(design.text.encode()), min(seconds)
missed = least > SECONDS or size > BYTES or len(digests) != 1
print(f"verilog stce of sat, 32x32: {least:.2f} s, bar <= {SECONDS:.0f} s: {'PASS' if least <= SECONDS else 'MISS'}")
print(f"verilog stce of sat, 32x32: {min(cpu):.2f} s of CPU")
print(f"verilog stce of sat, 32x32: {size:,} bytes, bar <= {BYTES:,}: {'PASS' if size <= BYTES else 'MISS'}")
print(f"verilog stce of sat, 32x32: {len(digests)} digest in 3 runs, {len(design.emitted.instances)} modules")
sys.exit(missed)
