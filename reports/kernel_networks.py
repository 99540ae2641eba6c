"""Whole mobile networks in one wasm module beside the cycle model: milliseconds measured and predicted."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..dataflow.kernels.network import build, lower, sample_parameters
from ..models.core import Core
from ..models.workload import Workload
from ..simulator.kernels.network import simulate_core
from ..simulator.kernels.network_values import padded_input, sample_image
from ..simulator.kernels.node import NodeInstance
from ..simulator.kernels.peers import Timed, in_thread
from ..simulator.kernels.wasm import WasmInstance

NETWORKS = ("mobilenet_v1", "mobilenet_v2", "efficientnet_b0")
FITTED = "mobilenet_v1"
"""The network that ``network_factor`` of a wasm core is fitted to; the others are unseen."""
ZEROS = 0.9
_WARM, _AT_ONCE = 40, 5  # V8 compiles in the background


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """Milliseconds of one image on one core."""

    core: str
    network: str
    measured_ms: float
    model_ms: float

    @property
    def error(self) -> float:
        """Model over measurement, less 1."""
        return self.model_ms / self.measured_ms - 1


def measure(core: Core, rounds: int) -> list[NetworkTime]:
    """Least CPU time of an image in ``rounds`` rounds, the networks in turn, beside the model's.

    An image takes longer than a core stays free of its neighbours, so these timings are not gated by a quiet core:
    the least of many rounds counts.

    Raises
    ------
    MissingToolError
        If the core's engine is not installed.
    """
    workloads = [Workload.load(name) for name in NETWORKS]
    with ExitStack() as stack:
        runs = [_runner(core, workload, stack) for workload in workloads]
        best = [np.inf] * len(runs)
        for _ in range(rounds):
            for number, run in enumerate(runs):
                best[number] = min(best[number], *(run(1) for _ in range(_AT_ONCE)))
    found = []
    for workload, seconds in zip(workloads, best, strict=True):
        model = simulate_core(workload, core, sparsity=str(ZEROS)).totals["seconds"]
        found.append(NetworkTime(core.name, workload.name, 1e3 * seconds, 1e3 * model))
    return found


def _runner(core: Core, workload: Workload, stack: ExitStack) -> Timed:
    """The network, warm, on the core's engine; ``stack`` ends a process."""
    network = lower(workload, *sample_parameters(workload, ZEROS, 0))
    image, addresses = build(network)
    if core.engine == "v8":
        instance = stack.enter_context(NodeInstance(image))
        run: Timed = instance.run
    else:
        instance = WasmInstance(image)
        run = in_thread(instance.run)
    instance.put(addresses[""], padded_input(network, sample_image(network, 0)))
    run(_WARM)
    return run


def markdown(rows: list[NetworkTime]) -> str:
    """The table of reports/kernel_model/networks.md."""
    lines = [
        f"One image, {100 * ZEROS:.0f} % of the pointwise and linear weights zero, seeded; network_factor is fitted to "
        f"{FITTED}.",
        "",
        "| core | network | measured ms | model ms | error |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = f"{row.core} | {row.network} | {row.measured_ms:.1f} | {row.model_ms:.1f}"
        lines.append(f"| {cells} | {100 * row.error:+.0f} % |")
    return "\n".join(lines) + "\n"
