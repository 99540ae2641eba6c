# amaranth: UnusedElaboratable=no
"""Update and vector unit behind the DMA and its memory: bytes of the executor, cycles of the models put together."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from nmsat.dataflow import compile_program
from nmsat.dataflow.program import DESCRIPTOR_BYTES, Kind, Program, Stage, Tensor, descriptor, steps_number
from nmsat.models import Accelerator, Workload
from nmsat.models.memory_timing import MemoryTiming
from nmsat.rtl.axi import Axi4
from nmsat.rtl.dma import Dma
from nmsat.rtl.emit import Emission
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators.bench import finish
from nmsat.rtl.simulators.cxxrtl import CxxrtlBench
from nmsat.rtl.testbench.memory import AxiMemory
from nmsat.rtl.testbench.unit_ports import run_descriptors
from nmsat.rtl.update_unit import DONE, UpdateUnit
from nmsat.rtl.vector_unit import VectorUnit
from nmsat.simulator.executor import execute, new_image
from nmsat.simulator.machine.memory import DmaModel
from nmsat.simulator.machine.update import UpdateModel, UpdateSizes
from nmsat.simulator.machine.vector import VectorModel, VectorSizes

CLIENTS = ("update", "vector")
ACCELERATOR = Accelerator.load("sat_4x4").replace(max_keep=2, max_group=8, sore_lanes=2)


class Pair(wiring.Component):
    """Both units on one DMA; a VECTOR descriptor goes to the vector unit, every other to the update unit."""

    def __init__(self):
        super().__init__(
            {
                "start": In(stream.Signature(8 * DESCRIPTOR_BYTES)),
                "done": Out(stream.Signature(DONE)),
                "axi": Out(Axi4(ACCELERATOR.axi_data_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.dma = dma = Dma.from_accelerator(ACCELERATOR, CLIENTS, CLIENTS)
        units = {"update": UpdateUnit.from_accelerator(ACCELERATOR), "vector": VectorUnit.from_accelerator(ACCELERATOR)}
        is_vector = self.start.payload[:8] == Kind.VECTOR
        m.d.comb += [dma.range_high.eq((1 << 64) - 1)]
        wiring.connect(m, dma.axi, wiring.flipped(self.axi))
        for name, unit in units.items():
            m.submodules[name] = unit
            wiring.connect(m, unit.read, getattr(dma, f"reader_{name}"))
            wiring.connect(m, unit.write, getattr(dma, f"writer_{name}"))
            chosen = is_vector if name == "vector" else ~is_vector
            m.d.comb += [
                unit.start.payload.eq(self.start.payload),
                unit.start.valid.eq(self.start.valid & chosen),
                unit.done.ready.eq(self.done.ready),
            ]
            with m.If(chosen):
                m.d.comb += self.start.ready.eq(unit.start.ready)
            with m.If(unit.done.valid):
                m.d.comb += [self.done.valid.eq(1), self.done.payload.eq(unit.done.payload)]
        return m


def drawn_image(program, rng):
    """Every tensor full of numbers that an update takes; index planes in order."""
    image = new_image(program)
    for tensor in program.tensors:
        count = int(np.prod(tensor.shape))
        if tensor.name == "rule":
            found = np.array([0.05, 0.9, 5e-4, 2e-4, 256], np.float32)
        elif tensor.dtype == "uint8" and tensor.name.endswith("indices"):
            found = np.full(count, 0b101_001, np.uint8)  # places 1 and 5 of 8
        elif tensor.dtype.startswith("float"):
            found = rng.normal(size=count).astype(tensor.dtype)
        else:
            continue
        image[tensor.address : tensor.address + tensor.bytes] = np.frombuffer(found.tobytes(), np.uint8)
    return image


@pytest.fixture(scope="module")
def program():
    """The updates of digits-mlp, cut to one sparse and one dense layer, SDGP's prune of dY, and two vector passes."""
    found = compile_program(Workload.load("digits-mlp"), ACCELERATOR, method="bdwp", sparsity="2:8", batch=16)
    updates = [item for item in found.descriptors if item.kind is Kind.UPDATE][:2]
    size = 2 * 16 * 64
    top = found.dram_bytes
    extra = [Tensor(f"t{k}", top + k * 4096, size, "float16", (16, 64)) for k in range(4)]
    shape = {"images": 16, "h": 1, "w": 1, "c": 64}
    passes = [
        descriptor(
            Kind.VECTOR, stage=Stage.FF, steps=steps_number(["add", "relu"]), source_address=extra[0].address,
            second_address=extra[1].address, target_address=extra[2].address, **shape,
        ),
        descriptor(
            Kind.VECTOR, stage=Stage.BP, steps=steps_number(["add", "relu"]), source_address=extra[0].address,
            second_address=extra[1].address, gradient_address=extra[2].address, gradient_1_address=extra[1].address,
            gradients=2, target_address=extra[3].address, **shape,
        ),
    ]  # fmt: skip
    return Program((updates[1], passes[0], updates[0], passes[1]), found.layers, (*found.tensors, *extra), {})


@pytest.mark.slow  # 45 s of compilation; last result in reports/verification/units_dma.txt
def test_a_program_of_updates_and_passes_through_the_dma(program):
    image = drawn_image(program, np.random.default_rng(0))
    memory_image = bytearray(image.tobytes())
    bench = CxxrtlBench(Emission().emit(Pair(), "pair"), "-O0")
    memory = AxiMemory(bench, "axi", MemoryTiming.of(ACCELERATOR), memory_image)
    encoded = program.encode()[-(len(program.descriptors) + 1) * DESCRIPTOR_BYTES :]
    words = [
        int.from_bytes(encoded[k * DESCRIPTOR_BYTES : (k + 1) * DESCRIPTOR_BYTES], "little")
        for k in range(len(program.descriptors))
    ]
    found = finish(run_descriptors(bench, words, memory))
    assert [status for status, _ in found] == [Code.OK] * len(words)
    assert (np.frombuffer(bytes(memory_image), np.uint8) == execute(program, image)).all()
    assert [cycles for _, cycles in found] == modelled(program)


def modelled(program):
    """Cycles of each descriptor: the units' models on the DMA's model, one descriptor after the other."""
    dma = DmaModel.of(ACCELERATOR, CLIENTS, CLIENTS)
    ports = {name: (dma.readers[name], dma.writers[name]) for name in CLIENTS}
    models = {
        "update": UpdateModel(UpdateSizes.of(ACCELERATOR), *ports["update"]),
        "vector": VectorModel(VectorSizes.of(ACCELERATOR), *ports["vector"]),
    }
    cycles = []
    for item in program.descriptors:
        unit = models["vector" if item.kind is Kind.VECTOR else "update"]
        assert unit.room
        unit.start(item)
        for cycle in range(20_000):
            unit.take_done = done = unit.done
            for model in models.values():
                model.step()
            dma.step()
            if done:
                cycles.append(cycle)
                break
    return cycles
