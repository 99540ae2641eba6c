"""The whole accelerator in RTL: training steps of a real network against the executor (bits) and the model (cycles)."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.commands.cosim_bench import run_programs
from nmsat.commands.cosim_task import SLACK, Task, network_task, program_task
from nmsat.dataflow import Options, compile_program
from nmsat.dataflow import program as fmt
from nmsat.dataflow.program import Descriptor, Kind, Program, Stage, Tensor, descriptor, steps_number
from nmsat.fpga.host.simulation import MEMORY_BASE
from nmsat.models import Accelerator, Layer, Workload
from nmsat.models.errors import NmsatError
from nmsat.rtl.blocks import emitted_block
from nmsat.rtl.refusals import refusals
from nmsat.rtl.simulators.verilated import run_verilated
from nmsat.rtl.testbench.products import random_products
from nmsat.simulator import simulate
from nmsat.simulator.machine.machine import MachineModel, image_address

# The shipped 4x4 array with the maxima of the patterns used here, so that its simulator builds sooner, and with units
# that overlap: the slow tests run the shipped ones, whose units do not.
SMALL = Accelerator.load("sat_4x4").replace(name="sat_4x4_n2m8", max_keep=2, max_group=8, overlap_units=True)
# With the window accumulator: an element holds 16 products, then sums spill; units take turns, as in the shipped files.
WINDOW = SMALL.replace(name="window_4x4_n2m8", accumulator="window", window_bits=54, overlap_units=False)
# With column halves and the vector unit in other regions than the memory ports.
HALVES = SMALL.replace(name="halves_4x4_n2m8", slr_hop_cycles=2)
MLP = Workload.load("digits-mlp")


@pytest.fixture(scope="module")
def emitted():
    return emitted_block("top", SMALL)


@pytest.fixture(scope="module")
def window_emitted():
    return emitted_block("top", WINDOW)


def run(emitted, task: Task, stall: float = 0.0, seed: int = 0):
    images, cycles = task.wanted()
    steps = [{name: array.tobytes().hex() for name, array in step.items()} for step in task.inputs]
    arguments = {
        "program": task.program.encode().hex(), "image": task.image.tobytes().hex(), "steps": steps, "stall": stall,
        "seed": seed, "limit_cycles": SLACK * sum(cycles[0]),
    }  # fmt: skip
    found = run_verilated(emitted, run_programs, {"accelerator": task.accelerator.model_dump(), "runs": [arguments]})[0]
    return task.compare(found, images, cycles, exact=not stall)


def mlp(
    steps: int, method: str = "bdwp", sparsity: str = "2:8", dataflow: str = "auto", accelerator: Accelerator = SMALL
) -> Task:
    options = {"method": method, "sparsity": sparsity, "batch": 16, "options": Options(dataflow=dataflow)}
    return network_task(MLP, accelerator, steps, **options)


@pytest.mark.parametrize(
    ("method", "sparsity", "dataflow"),
    [
        ("bdwp", "2:4", "auto"),
        ("dense", "2:8", "auto"),
        ("bdwp", "2:8", "os"),
        ("bdwp", "2:8", "ws"),
        ("sdgp", "2:8", "auto"),
    ],
)
def test_a_training_step_equals_executor_and_model(emitted, method, sparsity, dataflow):
    cases = run(emitted, mlp(1, method, sparsity, dataflow))
    assert [case for case in cases if case["failed"]] == []
    assert len(cases) > 15
    assert cases[-1]["parameters"]["tensors"] > 30


def test_batch_normalisation_is_the_host_s_between_products(emitted):
    """A convolution and a linear layer, each with its statistics: the array's sums in any order give the same ones."""
    net = Workload(name="normalised", layers=(
        Layer(name="c", op="conv2d", ic=1, oc=8, kh=3, kw=3, h=8, w=8, stride=2, pad=1, prune=False),
        Layer(name="n", op="elementwise", function="batchnorm", oc=8, h=4, w=4),
        Layer(name="r", op="elementwise", function="relu", oc=8, h=4, w=4),
        Layer(name="f", op="linear", ic=128, oc=16),
        Layer(name="m", op="elementwise", function="batchnorm", oc=16),
        Layer(name="g", op="linear", ic=16, oc=10, prune=False),
        Layer(name="loss", op="elementwise", function="cross_entropy", oc=10),
    ))  # fmt: skip
    cases = run(emitted, network_task(net, SMALL, 2, method="bdwp", sparsity="2:8", batch=8))
    assert [case for case in cases if case["failed"]] == []
    assert [case["parameters"].get("kind") for case in cases].count("host") >= 2 * 7


def test_ten_steps_train(emitted):
    check_ten_steps(run(emitted, mlp(10)))


def check_ten_steps(cases):
    assert [case for case in cases if case["failed"]] == []
    losses = [case["parameters"]["loss"] for case in cases if case["block"] == "tensors"]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])  # 2.53 to 2.16, as the golden trainer


def test_a_step_of_a_convolutional_network(emitted):
    options = {"method": "bdwp", "sparsity": "2:8", "batch": 1}
    cases = run(emitted, network_task(Workload.load("digits-cnn"), SMALL, 1, **options))
    assert [case for case in cases if case["failed"]] == []
    assert cases[-1]["parameters"]["tensors"] == 38


def test_under_a_stalling_memory_values_agree_and_the_model_is_a_bound(emitted):
    cases = run(emitted, mlp(1), stall=0.3, seed=5)
    assert [case for case in cases if case["failed"]] == []
    assert cases[-1]["cycles_rtl"] > 1.05 * cases[-1]["cycles_simulator"]


@pytest.mark.parametrize("seed", range(2))
def test_random_products_equal_executor_and_model(emitted, seed):
    program, image = random_products(SMALL, 12, 100 + seed)
    cases = run(emitted, Task(program, SMALL, image, [{}]))
    assert [case for case in cases if case["failed"]] == []
    assert len(cases) == 14


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_a_training_step_with_the_window_equals_executor_and_model(window_emitted, dataflow):
    task = mlp(1, dataflow=dataflow, accelerator=WINDOW)
    products = [item for item in task.program.descriptors if item.kind is Kind.PRODUCT]
    assert all(item["window_lsb"] == 33 for item in products)
    assert any(item["k_tile"] for item in products)
    cases = run(window_emitted, task)
    assert [case for case in cases if case["failed"]] == []
    assert cases[-1]["parameters"]["tensors"] > 30


def test_random_products_with_the_window_equal_executor_and_model(window_emitted):
    program, image = random_products(WINDOW, 12, 1)
    cases = run(window_emitted, Task(program, WINDOW, image, [{}]))
    assert [case for case in cases if case["failed"]] == []
    assert len(cases) == 14


@pytest.mark.slow  # builds another simulator
def test_an_accelerator_in_three_regions_equals_executor_and_model():
    """Every unit: a training step, passes of the vector unit, products of every kind."""
    emitted = emitted_block("top", HALVES)
    program, image = random_products(HALVES, 12, 3)
    vectors = vector_passes()
    tasks = (
        mlp(1, accelerator=HALVES), Task(vectors.program, HALVES, vectors.image, [{}]),
        Task(program, HALVES, image, [{}]),
    )  # fmt: skip
    for task in tasks:
        assert [case for case in run(emitted, task) if case["failed"]] == []
    alone = MachineModel(SMALL), MachineModel(HALVES)
    whole, apart = (sum(model.run(program)) for model in alone)
    assert apart > whole + 12 * (5 * HALVES.slr_hop_cycles)


@pytest.mark.slow  # last result in reports/verification/cosim_window.txt
def test_ten_steps_train_with_the_window(window_emitted):
    check_ten_steps(run(window_emitted, mlp(10, accelerator=WINDOW)))


def vector_passes() -> Task:
    """An addition with ReLU and a pool, forward and backward."""
    shape, count = {"images": 2, "h": 4, "w": 4, "c": 9}, 2 * 16 * 9
    at = {name: 4096 * place for place, name in enumerate(("x", "y", "z", "p", "dp", "dx", "ds"))}
    tensors = tuple(Tensor(name, address, 2 * count, "float16", (count,)) for name, address in at.items())
    added = {"steps": steps_number(["add", "relu"]), "source_address": at["x"], "second_address": at["y"], **shape}
    pooled = {"steps": steps_number(["relu", "maxpool"]), "source_address": at["z"], **shape}
    pooled |= {"window_y": 2, "window_x": 2, "stride": 2}
    gradients = {"gradients": 2, "gradient_address": at["dx"], "gradient_1_address": at["z"]}
    items = (
        descriptor(Kind.VECTOR, stage=Stage.FF, target_address=at["z"], **added),
        descriptor(Kind.VECTOR, stage=Stage.FF, target_address=at["p"], **pooled),
        descriptor(
            Kind.VECTOR, stage=Stage.BP, target_address=at["dx"], gradients=1, gradient_address=at["dp"], **pooled
        ),
        descriptor(Kind.VECTOR, stage=Stage.BP, target_address=at["ds"], **added, **gradients),
    )
    program = Program(items, ("layer",), tensors, {})
    rng, image = np.random.default_rng(3), np.zeros(program.dram_bytes, np.uint8)
    for tensor in tensors:
        stored = rng.normal(size=count).astype(np.float16).tobytes()
        image[tensor.address : tensor.address + tensor.bytes] = np.frombuffer(stored, np.uint8)
    return Task(program, SMALL, image, [{}])


def test_vector_passes_equal_executor_and_model(emitted):
    cases = run(emitted, vector_passes())
    assert [case for case in cases if case["failed"]] == []
    assert [case["parameters"]["kind"] for case in cases[:-1]] == ["vector"] * 4 + ["end"]


def test_the_closed_form_is_a_lower_bound_of_the_machine():
    """It knows no latency, no single requests and overlaps chains; docs/accelerator.md, section 12."""
    for dataflow in ("auto", "os", "ws"):
        task = mlp(1, dataflow=dataflow)
        model = MachineModel(SMALL, MEMORY_BASE, MEMORY_BASE + image_address(task.program))
        closed = simulate(MLP, SMALL, method="bdwp", sparsity="2:8", batch=16, options=Options(dataflow=dataflow))
        machine = sum(model.run(task.program))
        assert closed.totals["cycles"] <= machine <= 2.5 * closed.totals["cycles"]


LEGAL = {"keep": 1, "group": 1, "interleave": 1, "block": 1, "c_stride_n": 1, "c_stride_m": 8, "n": 8, "m": 4, "kc": 8}
POOL = {"steps": steps_number(["maxpool"]), "h": 4, "w": 4, "window_y": 2, "window_x": 2, "stride": 2}
REFUSED = [
    (Kind.PRODUCT, {"flags": fmt.ONLINE_PRUNE}, "pruned on its way in"),
    (Kind.PRODUCT, {"window_lsb": 3}, "window sums"),
    (Kind.PRODUCT, {"flags": fmt.TRANSPOSED_A, "block": 8}, "weight gradient of a depthwise"),
    (Kind.PRODUCT, {"flags": fmt.WRITE_MASK, "n": 10}, "mask whose rows share bytes"),
    (Kind.PRODUCT, {"c_stride_n": 2}, "apart both ways"),
    (Kind.PRODUCT, {"m": 1 << 24}, "a size of 2^24"),
    (Kind.PRODUCT, {"keep": 3, "group": 32}, "pattern 3:32"),
    (Kind.PRODUCT, {}, "size 0"),
    (Kind.PRODUCT, {"mode": fmt.Mode.WS, "k_tile": 8}, "another array"),
    (Kind.UPDATE, {"bp_keep": 2, "bp_group": 32}, "pattern 2:32"),
    (Kind.VECTOR, {"steps": steps_number(["gelu"])}, "gelu on the lanes"),
    (Kind.VECTOR, {"steps": steps_number(["add", "add"])}, "the vector pass add+add"),
    (Kind.VECTOR, POOL | {"stage": Stage.BP, "stride": 1}, "windows overlap"),
    (Kind.VECTOR, POOL | {"stage": Stage.BP, "pad": 1}, "are padded"),
    (Kind.VECTOR, POOL | {"stage": Stage.BP, "w": 5}, "leave a rest"),
    (Kind.VECTOR, POOL | {"stage": Stage.BP, "steps": steps_number(["avgpool", "relu"])}, "gradient of avgpool+relu"),
]


@pytest.mark.parametrize(("kind", "fields", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_the_hardware_refuses_is_known_before(kind, fields, reason, capsys, tmp_path):
    """The codes with which the units refuse the same are in the REFUSED of test_rtl_product, _vector_unit, _update."""
    item = descriptor(kind, **((LEGAL if kind is Kind.PRODUCT else {}) | fields))
    target = tmp_path / "p.bin"
    target.write_bytes(Program((item,), ("fc7",), (Tensor("x", 0, 64, "float16", (32,)),), {}).encode())
    assert main(["cosim", str(target), "-a", "sat_4x4"]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "layer 'fc7': must be what the hardware executes, not" in text
    assert reason in text


def test_what_the_hardware_executes_is_not_refused():
    products, _ = random_products(SMALL, 200, 0)
    step = mlp(1).program
    assert [refusals(program, SMALL) for program in (products, step, vector_passes().program)] == [[], [], []]


def test_bad_input_is_one_line(capsys, tmp_path):
    broken = tmp_path / "p.bin"
    broken.write_bytes(b"NMSATPRG" + bytes(40))
    for arguments in (["resnet18"], ["digits-mlp", "--stall", "1"], [str(broken)], [str(tmp_path / "no.bin")]):
        assert main(["cosim", *arguments, "-a", "sat_4x4"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def nonsense(count: int, seed: int) -> list[Program]:
    """Programs of one descriptor of a training step with one or two fields changed to anything."""
    layers = (
        Layer(name="fc1", op="linear", ic=8, oc=16), Layer(name="relu", op="elementwise", function="relu", oc=16),
        Layer(name="fc2", op="linear", ic=16, oc=8), Layer(name="loss", op="elementwise", function="cross_entropy", oc=8),
    )  # fmt: skip
    net, rng, found = Workload(name="two", layers=layers), random.Random(seed), []
    whole = [compile_program(net, SMALL, method=method, sparsity="2:4", batch=2) for method in ("bdwp", "sdgp")]
    while len(found) < count:
        program = rng.choice(whole)
        item = rng.choice(program.descriptors)
        fields = dict(item.fields)
        for name in rng.sample([name for name in fields if name not in ("kind", "groups")], rng.choice((1, 1, 2))):
            bits = 8 * fmt.DTYPES[item.kind][name].itemsize - 1
            fields[name] = max(
                0, rng.choice((0, 1, fields[name] - 1, fields[name] + 1, (1 << bits) - 1, 1 << rng.randrange(bits)))
            )
        found.append(replace(program, descriptors=(Descriptor(item.kind, fields),)))
    return found


def test_programs_of_nonsense_are_refused_in_one_line():
    """Whatever a file's fields say: the executor and the model run it, or one line says what is wrong."""
    refused = []
    for program in nonsense(400, 2):
        try:
            program_task(Program.decode(program.encode()), SMALL, 1, 0).wanted()
        except NmsatError as error:
            refused.append(str(error))
    assert [text for text in refused if "\n" in text or ": must be " not in text] == []
    assert 100 < len(refused) < 350


TENSOR = Tensor("x", 0, 64, "float16", (32,))


@pytest.mark.parametrize(("fields", "tensor", "complaint"), [
    ({"layer": 7}, TENSOR, "descriptor 0: layer: must be below 1, not 7"),
    ({"stage": 3}, TENSOR, "descriptor 0: stage: must be below 3, not 3"),
    ({"steps": 200}, TENSOR, "descriptor 0: steps: must be below 16, not 200"),
    ({}, Tensor("x", 0, 64, "str", (16,)), "tensor 'x': dtype: must be one of float16, float32, int32, uint8, not 'str'"),
    ({}, Tensor("x", 1 << 60, 64, "float16", (32,)), "tensor 'x': address: must be a whole number from 0 to below"),
    ({}, Tensor("x", 0, 64, "float16", (33,)), "tensor 'x': shape: must be of 32 elements, 64 bytes, not [33]"),
    ({}, Tensor("x", 3, 64, "float16", (32,)), "tensor 'x': address: must be a multiple of 2, not 3"),
    ({}, Tensor("x", 1 << 47, 64, "float16", (32,)), "tensors: must be such as fit in memory, not '140737488355392 bytes'"),
    ({"source_address": 64}, TENSOR, "address: must be inside a declared tensor, not '0x40'"),
])  # fmt: skip
def test_a_file_of_nonsense_is_one_line(fields, tensor, complaint, capsys, tmp_path):
    good = {"steps": steps_number(["relu"]), "images": 1, "h": 1, "w": 1, "c": 8, "target_address": 32}
    target = tmp_path / "p.bin"
    program = Program((descriptor(Kind.VECTOR, **(good | fields)),), ("fc",), (tensor,), {})
    target.write_bytes(program.encode())
    assert main(["cosim", str(target), "-a", "sat_4x4"]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert complaint in text


def test_a_program_s_file_finds_indices_that_a_product_may_have():
    program = mlp(1).program
    sparse = [item for item in program.descriptors if item.kind is Kind.PRODUCT and item["group"] == 8]
    assert {item["stage"] for item in sparse} == {Stage.FF, Stage.BP}
    for item in sparse:
        task = program_task(replace(program, descriptors=(item,)), SMALL, 1, 0)
        assert task.wanted()[0][0].tobytes() != task.image.tobytes()


def test_the_model_s_runs_repeat_from_the_second_on():
    program, image = random_products(SMALL, 3, 7)
    task = Task(program, SMALL, image, [{}] * 5)
    model = MachineModel(SMALL, MEMORY_BASE, MEMORY_BASE + image_address(program))
    assert task.wanted()[1] == [model.run(program) for _ in range(5)]


def test_the_worked_example_is_what_the_model_says():
    page = (Path(__file__).parents[1] / "docs/program.md").read_text()
    program, in_turn = mlp(1).program, SMALL.replace(overlap_units=False)
    cycles = MachineModel(in_turn, MEMORY_BASE, MEMORY_BASE + image_address(program)).run(program)
    names = [(item.kind, item["stage"], program.layers[item["layer"]]) for item in program.descriptors]
    product = cycles[names.index((Kind.PRODUCT, Stage.FF, "fc2"))]
    closed = simulate(MLP, SMALL, method="bdwp", sparsity="2:8", batch=16).totals["cycles"]
    assert f"{product:,} cycles, where the array is busy for" in page
    assert f"{len(cycles)} descriptors with END,\ntakes {sum(cycles):,} cycles" in page
    assert f"the closed form says {closed:,}." in page


TINY = SMALL.replace(
    name="2x2_n2m4", rows=2, cols=2, max_group=4, w2e_bytes=4096, n2s_bytes=4096, output_bytes=1024, axi_data_bits=64,
    axi_outstanding=4, dram_mb_s=1600, memory_latency_cycles=8, wuve_lanes=2, sore_lanes=2, vector_lanes=2,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sim", ["icarus", "verilator"])
def test_the_whole_accelerator_under_cocotb(sim):
    """Its Verilog in the two simulators that users have; reports/verification/cosim.txt says what has been run."""
    program, image = random_products(TINY, 2, 3)
    cases = Task(program, TINY, image, [{}]).run(sim)
    assert [case for case in cases if case["failed"]] == []
    assert len(cases) == 4


@pytest.mark.slow
@pytest.mark.parametrize("network", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("accelerator", ["sat_4x4", "sat_8x8"])
def test_shipped_accelerators(network, accelerator, tmp_path):
    target = tmp_path / "cosim.json"
    batch = "16" if network == "digits-mlp" else "4"
    assert main(["cosim", network, "-a", accelerator, "--batch", batch, "-q", "--json", str(target)]) == 0
    assert json.loads(target.read_text())["failed"] == 0
