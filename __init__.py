"""nmsat: simulate, schedule, generate and verify N:M sparse training accelerators.

The package keeps its import light; take what you need from the rooms:

>>> from nmsat.models import Accelerator, Sparsity, Workload
>>> from nmsat.dataflow import compile_program
>>> from nmsat.simulator import simulate
"""

__version__ = "0.1.0"
