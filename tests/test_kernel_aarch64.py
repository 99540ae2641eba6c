"""Generated AArch64 assembly and numba text equal the exact reference bit for bit; assembly stays inside its buffers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.dataflow.kernels import Kernel, aarch64, numba_text, pack
from nmsat.dataflow.kernels.presets import PRESETS
from nmsat.dataflow.kernels.samples import sample_input, sample_weights
from nmsat.models import Sparsity
from nmsat.models.errors import MissingToolError, NmsatError
from nmsat.simulator.kernels import qemu, reference
from nmsat.simulator.kernels.engines import execute

CLAMP = (0.0, 6.0)
KERNELS = [
    *(kernel for kernel, _ in PRESETS.values()),
    *(Kernel(mr=16, unroll=u, index=i) for u in (1, 2, 4) for i in ("delta", "absolute")),
    Kernel(mr=16, unroll=4, panels="copied"),
    *(
        Kernel(mr=8, nr=nr, index=i, stream="interleaved", group=3, panels=p, clamp=CLAMP)
        for nr, i, p in ((1, "delta", "in_place"), (2, "absolute", "copied"), (4, "delta", "copied"))
    ),
    *(Kernel(mr=8, nr=nr, unroll=4, clamp=CLAMP, stream="interleaved", order="by_count") for nr in (1, 2, 4)),
    Kernel(mr=8, clamp=(-1.0, 1.0), arithmetic="mul_add", broadcast="presplat"),
    *(Kernel(mr=8, nr=nr, values="int8", arithmetic="mul_add", clamp=CLAMP) for nr in (1, 2, 4)),
    Kernel(mr=64, broadcast="presplat", stream="interleaved"),
    Kernel(mr=8, index="packed", pattern=Sparsity(1, 16), values="int8"),
    Kernel(mr=8, nr=2, index="dense", unroll=4),
    *(
        Kernel(4, 1, u, "sliced", "interleaved", arithmetic="mul_add", order="by_count", clamp=clamp)
        for u, clamp in ((1, None), (2, CLAMP))
    ),
]
NEEDS_QEMU = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in qemu._TOOLS),
    reason="not installed; install with: apt-get install binutils-aarch64-linux-gnu qemu-user",
)


def packed_with_empty_rows(kernel: Kernel, shape: tuple[int, int, int]):
    weights = sample_weights(kernel, shape, 0.7)
    if kernel.pattern is None:
        weights[[0, shape[1] // 2, -1]] = 0
    return pack(kernel, weights, np.random.default_rng(1).normal(size=shape[1]).astype(np.float32))


@NEEDS_QEMU
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_assembly_equals_the_reference(kernel):
    for shape in ((1, 19, 25), (49, 19, 25), (70, 7, 33)):
        outcome = execute("qemu", packed_with_empty_rows(kernel, shape), sample_input(shape))
        assert outcome.bits_differing == 0, shape
        assert outcome.guards_intact is True


@NEEDS_QEMU
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 15, 16, 17, 49, 196])
def test_tails_and_degenerate_matrices(m):
    kernel = Kernel(mr=16, unroll=4)
    for n, k, zeros in ((1, 1, 0.0), (3, 1, 0.5), (2, 9, 1.0), (5, 8, 0.0)):
        packed = pack(kernel, sample_weights(kernel, (m, n, k), zeros))
        assert execute("qemu", packed, sample_input((m, n, k))).ok


@NEEDS_QEMU
def test_a_planted_fault_in_the_assembly_is_seen(monkeypatch):
    """A last store one vector too far, and a wrong bias, are caught."""
    packed, x = packed_with_empty_rows(Kernel(mr=16), (16, 3, 9)), sample_input((16, 3, 9))
    right = aarch64.layer(packed, 16)
    for old, new, guards in (
        ("str q3, [x12, #48]", "str q3, [x12, #64]", False),
        ("ldr s28, [x1, #0]", "ldr s28, [x1, #4]", True),
    ):
        assert old in right
        wrong = right.replace(old, new, 1)
        monkeypatch.setattr(qemu.aarch64, "layer", lambda *_, text=wrong: text)
        y, intact = qemu.multiply(packed, x)
        assert intact is guards
        assert (y.view(np.uint32) != reference.multiply(packed, x).view(np.uint32)).any()


@NEEDS_QEMU
def test_assembly_that_does_not_assemble_is_one_line(monkeypatch):
    monkeypatch.setattr(qemu.aarch64, "layer", lambda *_: "nmsat_layer: nonsense\n")
    with pytest.raises(NmsatError, match=r"^aarch64: aarch64-linux-gnu-as: must be successful, not 1; ") as caught:
        qemu.multiply(pack(Kernel(), np.ones((1, 1), np.float32)), np.ones((1, 1), np.float32))
    assert "\n" not in str(caught.value)


def test_missing_tools_say_how_to_install(monkeypatch):
    monkeypatch.setattr(qemu.shutil, "which", lambda name: None)
    message = r"^aarch64-linux-gnu-as, .* not installed; install with: apt-get install binutils-aarch64-linux-gnu"
    with pytest.raises(MissingToolError, match=message):
        qemu.find_tools()


def test_too_many_sums_are_refused():
    with pytest.raises(NmsatError, match=r"^aarch64: mr: must be at most 16 for nr = 4, not 20"):
        aarch64.layer(pack(Kernel(mr=20, nr=4), np.ones((4, 4), np.float32)), 40)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_numba_text_equals_the_reference(kernel):
    packed, x = packed_with_empty_rows(kernel, (13, 9, 17)), sample_input((13, 9, 17))
    space: dict = {}
    exec(numba_text.module(kernel, tuple(s.height for s in packed.sections)), space)
    y, scale = np.empty((9, 13), np.float32), packed.bias if packed.scale is None else packed.scale
    for s in packed.sections:
        space[f"section_{s.height}"](s.rows, s.counts, s.channels, s.values, packed.bias, scale, x, y)
    assert np.array_equal(y.view(np.uint32), reference.multiply(packed, x).view(np.uint32))


@pytest.mark.parametrize(
    ("target", "holds"), [("aarch64", "fmla v0.4s"), ("numba", "def section_1"), ("wasm", "relaxed_madd")]
)
def test_emit_every_target(target, holds, capsys):
    assert main(["kernel", "emit", "sparse", "--target", target, "--shape", "49x8x16"]) == 0
    assert holds in capsys.readouterr().out
