"""What ``nmsat cosim`` compares: a program, memory before, inputs of every step, and what must come out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..dataflow import compile_program
from ..dataflow.program import Descriptor, Kind, Program, Stage
from ..dataflow.program_rules import check_program
from ..fpga.host.simulation import MEMORY_BASE
from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from ..models.golden import UpdateRule, compress, pack
from ..models.sparsity import Sparsity
from ..models.training import Stack
from ..models.workload import Workload
from ..rtl.blocks import component_of, emitted_block
from ..rtl.refusals import refusals as hardware_refusals
from ..rtl.simulators import run_bench, run_emitted
from ..simulator import execute, load_tensors, load_weights, new_image, read_tensor
from ..simulator.executor import refusals
from ..simulator.machine.machine import MachineModel, RunCycles, image_address
from .cosim_bench import run_programs
from .execute import TASKS, _digits

SLACK = 20
"""A descriptor may take this many times the cycles of the whole model before the run counts as hung."""


@dataclass(frozen=True, slots=True)
class Task:
    """A program with its data.

    Attributes
    ----------
    program : Program
    accelerator : Accelerator
    image : uint8 array
        Memory before the first step.
    inputs : list of dict
        Tensors to be written before each step.
    """

    program: Program
    accelerator: Accelerator
    image: np.ndarray
    inputs: list[dict[str, np.ndarray]]

    def run(self, sim: str = "verilated", stall: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
        """Run it on the RTL; a case a descriptor and step (cycles), and one a step (all tensors).

        Bits are compared after every step, cycles of every descriptor with the deterministic memory. With pauses the
        model is a lower bound.
        """
        images, cycles = self.wanted()
        limit = SLACK * sum(cycles[0]) + 100_000
        steps = [{name: array.tobytes().hex() for name, array in step.items()} for step in self.inputs]
        arguments = {
            "accelerator": self.accelerator.model_dump(),
            "runs": [{
                "program": self.program.encode().hex(), "image": self.image.tobytes().hex(), "steps": steps,
                "stall": stall, "seed": seed, "limit_cycles": limit,
            }],
        }  # fmt: skip
        if sim == "amaranth":
            found = run_bench(component_of("top", self.accelerator), "top", run_programs, arguments, sim)[0]
        else:
            found = run_emitted(emitted_block("top", self.accelerator), run_programs, arguments, sim)[0]
        return self.compare(found, images, cycles, exact=not stall)

    def wanted(self) -> tuple[list[np.ndarray], list[RunCycles]]:
        """Memory after every step by the executor, which holds every access to a tensor; then cycles by the model.

        Raises
        ------
        NmsatError
            The program means nothing: a size, a stride or an address that no executor can follow.
        """
        try:
            images, image = [], self.image
            for inputs in self.inputs:
                before = image.copy()
                load_tensors(self.program, before, inputs)
                image = execute(self.program, before)
                images.append(image)
            model = MachineModel(self.accelerator, MEMORY_BASE, MEMORY_BASE + image_address(self.program))
            cycles = [model.run(self.program) for _ in self.inputs[:2]]
            return images, cycles + cycles[1:] * (len(images) - 2)  # each begins as the second did: all is idle
        except (ArithmeticError, LookupError, MemoryError, RuntimeError, StopIteration, ValueError) as error:
            if isinstance(error, NmsatError):
                raise
            text = f"{type(error).__name__} {error}".replace("\n", " ").strip()
            raise NmsatError.rule("program", "descriptors", "ones that can be executed", text) from error

    def compare(
        self, found: dict[str, Any], images: Sequence[np.ndarray], cycles: Sequence[RunCycles], *, exact: bool
    ) -> list[dict[str, Any]]:
        """Cases from what the RTL gave and what :meth:`wanted` says."""
        cases = []
        for number, image in enumerate(images):
            after = np.frombuffer(bytes.fromhex(found["images"][number]), np.uint8)
            cases += self._cycles(number, found["cycles"][number], cycles[number], exact)
            bits = self._bits(image, after)
            names = {item.name for item in self.program.tensors}
            loss = None
            if "losses" in names:
                loss = float(read_tensor(self.program, image, "losses").mean(dtype=np.float64))
            total, model = found["totals"][number]["cycles"], cycles[number].total
            cases.append({
                "block": "tensors", "parameters": {"step": number, "tensors": len(names), "loss": loss},
                "bits_differing": bits, "cycles_rtl": total, "cycles_simulator": model,
                "failed": bits > 0 or not _agree(total, model, exact),
            })  # fmt: skip
        return cases

    def _bits(self, wanted: np.ndarray, found: np.ndarray) -> int:
        return sum(
            int(np.unpackbits(np.bitwise_xor(wanted[part], found[part]).view(np.uint8)).sum())
            for part in (slice(item.address, item.address + item.bytes) for item in self.program.tensors)
        )

    def _cycles(self, step: int, found: list[int], wanted: list[int], exact: bool) -> list[dict[str, Any]]:
        cases = []
        for index, (rtl, model) in enumerate(zip(found, wanted, strict=True)):
            names: dict[str, Any] = {"step": step, "index": index, "kind": "end", "layer": "", "stage": ""}
            if index < len(self.program.descriptors):
                item = self.program.descriptors[index]
                names |= {
                    "kind": item.kind.name.lower(), "layer": self.program.layers[item["layer"]],
                    "stage": Stage(item["stage"]).name.lower(),
                }  # fmt: skip
            cases.append({
                "block": "descriptor", "parameters": names, "bits_differing": 0, "cycles_rtl": rtl,
                "cycles_simulator": model, "failed": not _agree(rtl, model, exact),
            })  # fmt: skip
        return cases


def _agree(rtl: int, model: int, exact: bool) -> bool:
    return rtl == model if exact else rtl >= model


def network_task(
    workload: Workload, accelerator: Accelerator, steps: int, *, seed: int = 0, lr: float = 0.05, **options: Any
) -> Task:
    """Training steps of a digits network from seeded weights.

    Parameters
    ----------
    options
        Of ``compile_program``.
    """
    batch = options["batch"]
    program = compile_program(workload, accelerator, **options)
    _check(program, accelerator)
    rule = UpdateRule(lr=lr, loss_scale=1024.0)
    image = new_image(program)
    load_weights(program, image, Stack.of(workload).initial_weights(seed))
    words = np.array([rule.lr, rule.momentum, rule.weight_decay, rule.lam, rule.loss_scale], np.float32)
    load_tensors(program, image, {"rule": words})
    x, y = _digits()
    if batch > len(x):
        raise NmsatError.rule("", "--batch", f"at most {len(x)}, the number of images", batch)
    inputs = []
    for number in range(steps):
        rows = np.arange(number * batch, (number + 1) * batch) % len(x)
        inputs.append({"input": x[rows].reshape(-1), "labels": y[rows]})
    return Task(program, accelerator, image, inputs)


def program_task(program: Program, accelerator: Accelerator, steps: int, seed: int) -> Task:
    """A program's file on random memory: binary16 and binary32 numbers, the first of every group kept, labels 0."""
    check_program(program)
    _check(program, accelerator)
    numbers = np.random.default_rng(seed)
    try:
        image = new_image(program)
    except MemoryError:
        raise NmsatError.rule("program", "tensors", "such as fit in memory", f"{program.dram_bytes} bytes") from None
    for item in program.tensors:
        if item.dtype in ("float16", "float32"):
            count = item.bytes // np.dtype(item.dtype).itemsize
            load_tensors(program, image, {item.name: numbers.normal(size=count).astype(item.dtype)})
    for item in program.descriptors:
        if item.kind is Kind.PRODUCT and item["group"] > 1:
            _ascending(program, image, item)
    names = {item.name for item in program.tensors}
    if "rule" in names:
        load_tensors(program, image, {"rule": np.array([0.05, 0.9, 0.0, 0.0, 1024.0], np.float32)})
    return Task(program, accelerator, image, [{} for _ in range(steps)])


def _ascending(program: Program, image: np.ndarray, item: Descriptor) -> None:
    """Indices that a product may find: every group keeps its first values."""
    pattern, address = Sparsity(item["keep"], item["group"]), item["index_address"]
    kept = np.arange(pattern.group) < pattern.keep
    _, group = pack(compress(kept.astype(np.float16), pattern))
    for tensor in program.tensors:
        if tensor.address <= address < tensor.address + tensor.bytes and tensor.dtype == "uint8":
            plane = np.resize(group, tensor.bytes)
            image[tensor.address : tensor.address + tensor.bytes] = plane


def _check(program: Program, accelerator: Accelerator) -> None:
    for place, name in refusals(program):
        raise NmsatError.rule("program", place, "made of operations with defined values", name, "it is timed only")
    for place, reason in hardware_refusals(program, accelerator):
        hint = "nmsat execute runs it in values"
        raise NmsatError.rule("program", place, "what the hardware executes", reason, hint)


def task_of(
    args: argparse.Namespace, accelerator: Accelerator, step: Callable[[argparse.Namespace, Any], dict[str, Any]]
) -> Task:
    """The task that a command line asks for."""
    path = Path(args.workload)
    if path.suffix == ".bin":
        try:
            program = Program.decode(path.read_bytes(), path.name)
        except OSError as error:
            raise NmsatError.rule("", "WORKLOAD", "a readable file", args.workload, str(error.strerror)) from None
        return program_task(program, accelerator, args.steps, args.seed)
    if args.workload not in TASKS:
        rule = f"one of {', '.join(TASKS)}, or a program's .bin file"
        raise NmsatError.rule("", "WORKLOAD", rule, args.workload, "the data are the digits")
    net = Workload.load(args.workload)
    options = step(args, net) | {"batch": args.batch or 16}
    return network_task(net, accelerator, args.steps, seed=args.seed, lr=args.lr, **options)
