"""Generated WebAssembly equals the exact reference bit for bit and stays inside its buffers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nmsat.dataflow.kernels import STANDIN, Kernel, pack, wat, wat_sliced
from nmsat.dataflow.kernels.image import GUARD_BYTES, Memory
from nmsat.dataflow.kernels.shapes import all_shapes
from nmsat.models import Sparsity
from nmsat.models.errors import NmsatError
from nmsat.simulator.kernels import compiled, reference
from nmsat.simulator.kernels.wasm import WasmProgram, multiply


def matrix(kernel: Kernel, n: int, k: int, zeros: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(n, k)).astype(np.float32)
    if kernel.pattern is None:
        w[rng.random((n, k)) < zeros] = 0
    else:
        order = rng.random((n, -(-k // kernel.pattern.group), kernel.pattern.group)).argsort(axis=2)
        w[(order >= kernel.pattern.keep).reshape(n, -1)[:, :k]] = 0
    return w


def check(kernel: Kernel, w: np.ndarray, m: int, golden=reference.multiply) -> None:
    rng = np.random.default_rng(m)
    packed = pack(kernel, w, rng.normal(size=len(w)).astype(np.float32))
    x = rng.normal(size=(w.shape[1], m)).astype(np.float32)
    program = WasmProgram([(packed, m)])
    program.write(0, x)
    program.run(2)
    y = program.read(0)
    assert np.count_nonzero(y.view(np.uint32) != golden(packed, x).view(np.uint32)) == 0, kernel.name
    assert program.guards_intact(), kernel.name


SLICED = [
    Kernel(4, 1, unroll, "sliced", "interleaved", arithmetic=arithmetic, order="by_count", clamp=clamp)
    for unroll in (1, 2, 4)
    for arithmetic in ("fma", "mul_add")
    for clamp in (None, (0.0, 6.0))
]
PLAIN = [
    Kernel(mr, nr, unroll, index, stream, broadcast, arithmetic, order=order)
    for mr, nr in ((28, 1), (8, 2), (4, 4))
    for unroll in (1, 2, 4)
    for index in ("delta", "absolute")
    for stream, order in (("separate", "natural"), ("interleaved", "by_count"))
    for broadcast in ("splat", "presplat")
    for arithmetic in ("fma", "mul_add")
]
OTHERS = [
    *(
        Kernel(mr=8, nr=nr, unroll=u, index=index, panels="copied")
        for nr in (1, 2)
        for u in (1, 4)
        for index in ("delta", "absolute", "dense")
    ),
    Kernel(stream="interleaved", order="by_count", unroll=4, panels="copied"),
    *(
        Kernel(mr=8, nr=nr, unroll=4, index=index, stream="interleaved", order=order, panels=panels, group=group)
        for nr, order in ((1, "by_count"), (2, "natural"), (4, "natural"))
        for index, panels in (("delta", "in_place"), ("delta", "copied"), ("absolute", "in_place"))
        for group in (2, 5, 64)
    ),
    Kernel(mr=8, stream="interleaved", group=3, broadcast="presplat", arithmetic="mul_add", clamp=(0.0, 6.0)),
    Kernel(index="packed", pattern=Sparsity(2, 8), panels="copied"),
    *(Kernel(index="packed", pattern=Sparsity(keep, 8), unroll=u) for keep in (1, 2) for u in (2, 4)),
    *(Kernel(mr=8, nr=nr, unroll=u, index="dense") for nr in (1, 2, 4) for u in (1, 2)),
    *(Kernel(mr=8, nr=nr, values="int8", clamp=(0.0, 6.0)) for nr in (1, 2, 4)),
    *(
        Kernel(index="packed", pattern=Sparsity(keep, group), values=values)
        for keep, group in ((2, 4), (2, 8), (1, 8), (4, 8), (5, 8), (1, 2), (1, 16))
        for values in ("f32", "int8")
    ),
]


@pytest.mark.parametrize("kernel", [*PLAIN, *OTHERS, *SLICED], ids=lambda k: k.name)
def test_every_kernel_on_tails_and_empty_rows(kernel: Kernel) -> None:
    w = matrix(kernel, 19, 25, 0.8, 1)
    w[[0, 7, 8, 18]] = 0
    for m in (1, 49):
        check(kernel, w, m)


EDGES = [(1, 1), (1, 9), (2, 1), (3, 4), (4, 5), (5, 16), (8, 17)]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 27, 28, 29, 49, 196])
@pytest.mark.parametrize("zeros", [0.0, 0.7, 1.0])
def test_edges(m: int, zeros: float) -> None:
    for n, k in EDGES:
        check(
            Kernel(nr=2, mr=12, unroll=2, stream="interleaved", order="by_count"),
            matrix(STANDIN, n, k, zeros, n),
            m,
        )
        check(STANDIN, matrix(STANDIN, n, k, zeros, n), m)


@pytest.mark.parametrize("kernel", SLICED, ids=lambda k: k.name)
def test_slices_of_every_height_and_column(kernel: Kernel) -> None:
    """The last slice has 0 to 3 rows; rows are empty, full, and all zero."""
    for n, k in ((1, 1), (2, 9), (3, 4), (4, 1), (4, 5), (5, 16), (6, 3), (7, 17), (8, 2), (21, 35)):
        for zeros in (0.0, 0.7, 1.0):
            w = matrix(kernel, n, k, zeros, n)
            w[:: max(2, n // 3)] = 0
            for m in (1, 2, 3, 5):
                check(kernel, w, m)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_slices_of_a_classifier(m: int) -> None:
    for kernel in SLICED[-4::2]:
        check(kernel, matrix(kernel, 1000, 1280, 0.9, 7), m, compiled.multiply)


def test_a_wrong_lane_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column gathered into another lane, and a result stored past Y."""
    packed, right = pack(SLICED[0], matrix(STANDIN, 6, 9, 0.3, 1)), wat_sliced.slice_function
    x = np.random.default_rng(0).normal(size=(9, 1)).astype(np.float32)
    for old, new, intact in (
        ("f32x4.replace_lane 1 ", "f32x4.replace_lane 2 ", True),
        ("v128.store32_lane 1 ", "v128.store32_lane offset=64 1 ", False),
    ):
        monkeypatch.setattr(wat, "slice_function", lambda *a, o=old, n=new: right(*a).replace(o, n))
        program = WasmProgram([(packed, 1)])
        program.write(0, x)
        program.run()
        assert not np.array_equal(program.read(0), reference.multiply(packed, x))
        assert program.guards_intact() is intact


@pytest.mark.parametrize("shape", all_shapes(), ids=lambda s: "x".join(map(str, s)))
def test_every_shape(shape: tuple[int, int, int]) -> None:
    """Full size; numba, itself bit-equal to the NumPy reference, is the quick twin here."""
    m, n, k = shape
    for kernel in (Kernel(stream="interleaved", order="by_count"), STANDIN, Kernel(mr=12, nr=2)):
        check(kernel, matrix(kernel, n, k, 0.9, 7), m, compiled.multiply)
    two = Kernel(index="packed", pattern=Sparsity(2, 8))
    check(two, matrix(two, n, k, 0, 7), m, compiled.multiply)


def test_several_products_share_a_module() -> None:
    kernels = [Kernel(), Kernel(clamp=(0.0, 6.0)), Kernel(clamp=(-1.0, 1.0)), Kernel(nr=4, mr=4)]
    products, inputs = [], []
    for number, kernel in enumerate(kernels):
        products.append((pack(kernel, matrix(kernel, 9, 11, 0.6, number)), 13 + number))
        inputs.append(np.random.default_rng(number).normal(size=(11, 13 + number)).astype(np.float32))
    program = WasmProgram(products)
    for number, x in enumerate(inputs):
        program.write(number, x)
    program.run()
    for number, (packed, _) in enumerate(products):
        assert np.array_equal(program.read(number), reference.multiply(packed, inputs[number]))
    assert program.guards_intact()


def test_buffers_do_not_touch() -> None:
    memory = Memory()
    spans = sorted((memory.take(size), size) for size in (0, 1, 63, 64, 65))
    for (a, size), (b, _) in itertools.pairwise(spans):
        assert a % 64 == b % 64 == 0
        assert a + size + GUARD_BYTES <= b


def test_guards_see_a_stray_write() -> None:
    program = WasmProgram([(pack(Kernel(), np.ones((2, 2), np.float32)), 5)])
    assert program.guards_intact()
    view = program._view()
    end = program.outputs[0] + 4 * 2 * 5
    view[end] ^= 1
    assert not program.guards_intact()
    view[end] ^= 1
    view[program.image.contents[0][0]] ^= 1  # a stream byte counts too
    assert not program.guards_intact()


def test_input_shape_and_repeat_are_checked() -> None:
    program = WasmProgram([(pack(Kernel(), np.ones((2, 2), np.float32)), 5)])
    with pytest.raises(NmsatError, match=r"^kernel: x: must be of 5 columns, not \(2, 4\)"):
        program.write(0, np.zeros((2, 4), np.float32))
    with pytest.raises(NmsatError, match=r"^kernel: repeat: must be at least 1, not 0"):
        program.run(0)


def test_memory_limit_says_how_much_is_needed() -> None:
    wide = pack(Kernel(), np.ones((2, 4000), np.float32))
    with pytest.raises(NmsatError, match=r"^wasm: memory: must be at most 4 GiB, not '480\d{7} bytes'"):
        WasmProgram([(wide, 10**5)] * 3)
    with pytest.raises(NmsatError, match=r"^kernel: m: must be small enough for 31-bit byte offsets, not 1000000000"):
        WasmProgram([(wide, 10**9)])


def test_infinities_follow_the_reference() -> None:
    w = np.array([[1, -1], [0, 2]], np.float32)
    x = np.array([[np.inf, 1], [np.inf, -np.inf]], np.float32)
    for kernel in (Kernel(), Kernel(clamp=(0.0, 6.0), arithmetic="mul_add"), *SLICED):
        packed = pack(kernel, w)
        assert np.array_equal(multiply(packed, x), reference.multiply(packed, x), equal_nan=True)
