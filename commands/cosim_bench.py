"""What ``nmsat cosim`` runs inside a simulator: programs on the top, through the driver that a card has too."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program
from ..fpga.host.driver import Driver
from ..fpga.host.simulation import SimulationBackend
from ..models.accelerator import Accelerator
from ..models.memory_timing import MemoryTiming
from ..rtl.simulators.bench import Bench
from ..rtl.testbench.memory import SlowedTiming
from ..simulator.executor.image import Memory
from ..simulator.executor.vector import run_vector

SLACK_BYTES = 1 << 16


async def run_programs(
    bench: Bench, *, accelerator: dict[str, Any], runs: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run programs one after the other on a top, with a reset before each.

    Parameters
    ----------
    accelerator : dict
        Fields of the accelerator.
    runs : list of dict
        Of every run ``program`` (hexadecimal text of ``encode``), ``image`` (hexadecimal, memory before), ``steps`` (a
        list of {tensor: hexadecimal text}, uploaded before each step), ``stall`` (probability of pauses of the memory,
        0 for the deterministic one), ``seed`` (of the pauses), ``limit_cycles`` (of a descriptor).

    Returns
    -------
    list of dict
        ``images``: memory after each step, hexadecimal. ``cycles``: of every descriptor, each step. ``totals``:
        counters of each step. ``seconds``, ``simulated``: host time and cycles of the whole run.
    """
    found = []
    described = Accelerator.model_validate(accelerator)
    for run in runs:
        program = Program.decode(bytes.fromhex(run["program"]))
        found.append(await _run(bench, described, program, run))
    return found


def settle_cycles(accelerator: Accelerator) -> int:
    """Cycles within which a machine that has stopped has its next descriptors: what the model takes a host to need."""
    size = DESCRIPTOR_BYTES * accelerator.prefetch_descriptors
    beats = size * 8 // accelerator.axi_data_bits
    return accelerator.memory_latency_cycles + accelerator.dram_cycles(size) + beats + 32


async def _run(bench: Bench, accelerator: Accelerator, program: Program, run: dict[str, Any]) -> dict[str, Any]:
    stall = run.get("stall", 0.0)
    timing = SlowedTiming(accelerator, stall, run.get("seed", 0)) if stall else MemoryTiming.of(accelerator)
    size = program.dram_bytes + 256 * (len(program.descriptors) + 1) + SLACK_BYTES
    backend = SimulationBackend(bench, size, timing, accelerator.clock_mhz, interrupt_cycles=settle_cycles(accelerator))
    driver = Driver(backend)
    begun = time.perf_counter()
    await backend.reset()
    await driver.open()
    await driver.load(program)
    image = np.frombuffer(bytes.fromhex(run["image"]), np.uint8)
    await driver.upload(_tensors(program, image))
    images, cycles, totals = [], [], []
    timeout_s = run["limit_cycles"] / (accelerator.clock_mhz * 1e6)
    for inputs in run["steps"]:
        await driver.upload({name: _array(program, name, bytes.fromhex(text)) for name, text in inputs.items()})
        counters = await driver.run(lambda item, data: _host(program, item, data), timeout_s=timeout_s)
        tensors = await driver.download()
        images.append(_image(program, tensors).tobytes().hex())
        cycles.append(counters.descriptor_cycles)
        totals.append(counters.totals)
    return {
        "images": images, "cycles": cycles, "totals": totals, "seconds": time.perf_counter() - begun,
        "simulated": backend.loop.cycle,
    }  # fmt: skip


def _host(program: Program, item: Descriptor, image: np.ndarray) -> None:
    """A HOST descriptor, in place."""
    assert item.kind is Kind.HOST
    run_vector(item, Memory(program, image))


def _array(program: Program, name: str, data: bytes) -> np.ndarray:
    item = next(tensor for tensor in program.tensors if tensor.name == name)
    return np.frombuffer(data, np.dtype(item.dtype))


def _tensors(program: Program, image: np.ndarray) -> dict[str, np.ndarray]:
    return {
        item.name: image[item.address : item.address + item.bytes].view(np.dtype(item.dtype))
        for item in program.tensors
    }


def _image(program: Program, tensors: dict[str, np.ndarray]) -> np.ndarray:
    image = np.zeros(program.dram_bytes, np.uint8)
    for item in program.tensors:
        image[item.address : item.address + item.bytes] = (
            np.ascontiguousarray(tensors[item.name]).reshape(-1).view(np.uint8)
        )
    return image
