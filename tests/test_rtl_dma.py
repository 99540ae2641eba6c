# amaranth: UnusedElaboratable=no
"""DMA: every byte to its place, every error to its run, nothing outside the range, whatever the memory does."""

from __future__ import annotations

import hashlib
import random

import pytest

from nmsat.models import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.rtl.dma import Arbiter, Dma, burst_beats_of
from nmsat.rtl.memory_port import MemoryFault
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench.dma import contents, data_of, dma_cases, dma_runs

SIZE = 1 << 15
FAST = {"beat_bytes": 8, "latency_cycles": 10, "dram_mb_s": 3200, "clock_mhz": 200}
SHAPES = {  # name: data_bits, outstanding, burst_beats, readers, writers
    "32 bits": (32, 2, 4, ("a",), ("w",)),
    "64 bits": (64, 4, 8, ("a", "b", "c"), ("v", "w")),
    "512 bits": (512, 16, 16, ("a", "b"), ("w",)),
}


def dma(shape):
    bits, outstanding, beats, readers, writers = SHAPES[shape]
    return Dma(readers=readers, writers=writers, data_bits=bits, outstanding=outstanding, burst_beats=beats)


def drawn_runs(rng, low, high, count, beat):
    """Runs of every kind: inside a beat, over its border, over a 4 KB boundary, long, aligned or not."""
    runs = []
    for _ in range(count):
        longest = high - low
        size = rng.choice(
            (1, rng.randint(1, beat), beat, rng.randint(1, 4 * beat), rng.randint(1, 40 * beat), rng.randint(1, 3000))
        )
        size = min(size, longest)
        at = rng.randint(low, high - size)
        if rng.random() < 0.3:
            at -= at % beat
        elif rng.random() < 0.3:
            at = max(low, min(high - size, at // 4096 * 4096 + 4096 - rng.randint(0, size)))
        runs.append([max(at, low), size])
    return runs


def case(shape, seed, **more):
    """Random runs of all clients: readers in the lower half of memory, each writer in a part of its own."""
    bits, _, _, readers, writers = SHAPES[shape]
    rng, half = random.Random(f"{shape} {seed}"), SIZE // 2
    beat, part = bits // 8, half // len(writers)
    found = {
        "readers": {name: drawn_runs(rng, 0, half, rng.randint(0, 12), beat) for name in readers},
        "writers": {
            name: drawn_runs(rng, half + k * part, half + (k + 1) * part, rng.randint(1, 12), beat)
            for k, name in enumerate(writers)
        },
        "size": SIZE, "seed": seed, "timing": FAST | {"beat_bytes": beat, "dram_mb_s": beat * rng.choice((150, 200, 400, 1000))},
    }  # fmt: skip
    return found | more


def fails(kind, run, faults, beat):
    """Worst response a run meets: beats of its own first to last beat."""
    at, size = run
    first, end = at // beat * beat, -(-(at + size) // beat) * beat
    return max((code for k, low, high, code in faults if k == kind and low < end and first < high), default=0)


def expected(arguments, beat):
    """Errors of every run, and memory's digest (None where a failing write leaves it open)."""
    image, faults = contents(arguments["size"], arguments["seed"]), arguments.get("faults", ())
    low, high = arguments.get("allowed") or (0, arguments["size"])
    errors, certain = {}, True
    for kind in ("readers", "writers"):
        for name, runs in arguments[kind].items():
            errors[name] = []
            for k, (at, size) in enumerate(runs):
                outside = not size or at < low or at + size > high
                error = (
                    int(MemoryFault.RANGE)
                    if outside
                    else fails(kind[:-3] if kind == "readers" else "write", (at, size), faults, beat)
                )
                errors[name].append(error)
                if kind == "writers" and not error:
                    image[at : at + size] = data_of(at, size, k)
                certain &= kind == "readers" or error in (MemoryFault.NONE, MemoryFault.RANGE)
    return errors, hashlib.sha256(image).hexdigest() if certain else None


def check(arguments, found, bits):
    errors, digest = expected(arguments, bits // 8)
    assert found["finished"], found
    assert found["idle"]
    assert found["differing"] == 0
    assert {name: client["errors"] for name, client in found["clients"].items()} == errors
    assert digest in (None, found["digest"])


def run(shape, cases, sim="cxxrtl"):
    return run_bench(dma(shape), "dma", dma_cases, {"cases": cases}, sim)


@pytest.mark.parametrize("shape, count", [("32 bits", 25), ("64 bits", 25), ("512 bits", 12)])
def test_every_byte_arrives(shape, count):
    """Deterministic memory at several bandwidths, then memories and clients that pause, early and late."""
    cases = [case(shape, seed) for seed in range(count)]
    for seed in range(count, 2 * count):
        rng = random.Random(seed)
        timing = {"stall": rng.choice((0.1, 0.5, 0.8)), "latency_cycles": rng.choice((1, 5, 60)), "seed": seed}
        cases.append(case(shape, seed, timing=timing, pause=rng.choice((0, 0.2, 0.7)), late=bool(seed & 1)))
    bits = SHAPES[shape][0]
    for arguments, found in zip(cases, run(shape, cases), strict=True):
        check(arguments, found, bits)


@pytest.mark.parametrize("sim", ["amaranth", "icarus"])
def test_other_simulators_agree(sim):
    cases = [case("32 bits", 1), case("32 bits", 2, timing={"stall": 0.4, "latency_cycles": 9, "seed": 3}, pause=0.2)]
    for arguments in cases:
        arguments["readers"]["a"], arguments["writers"]["w"] = (
            arguments["readers"]["a"][:3],
            arguments["writers"]["w"][:3],
        )
    assert run("32 bits", cases, sim) == run("32 bits", cases)


def edge_runs(beat):
    """(address, bytes) at every edge: of a beat, of a burst, of 4 KB, of the address space."""
    return [
        [0, 1], [beat - 1, 1], [beat - 1, 2], [0, beat], [1, beat], [beat - 1, beat], [1, beat - 1], [beat, 2 * beat],
        [beat + 1, 2 * beat - 1], [1, 2 * beat - 1], [1, 3 * beat], [4095, 2], [4096 - beat, 2 * beat], [4095, 4098],
        [0, 8192], [3, 8192], [8 * beat - 1, 8 * beat + 2],
    ]  # fmt: skip


@pytest.mark.parametrize("shape", ["32 bits", "64 bits"])
def test_edges(shape):
    bits, _, _, readers, writers = SHAPES[shape]
    runs = edge_runs(bits // 8)
    cases = [
        {"readers": {readers[0]: runs}, "writers": {writers[0]: [[SIZE // 2 + at, size] for at, size in runs]},
         "size": SIZE, "seed": 7, "timing": FAST | {"beat_bytes": bits // 8}}
    ]  # fmt: skip
    for arguments, found in zip(cases, run(shape, cases), strict=True):
        check(arguments, found, bits)
        assert max(beats for *_, beats in found["log"]) <= SHAPES[shape][2]


def test_runs_outside_the_range_are_refused_and_issue_nothing():
    outside = [
        [0, 64],
        [0x0FFF, 2],
        [0x2FFF, 2],
        [0x3000, 1],
        [0x1800, 0x1801],
        [0x1000, 0],
        [2**64 - 8, 8],
        [2**64 - 8, 9],
        [0x1000, 2**32 - 1],
        [2**63, 4],
    ]
    inside = [[0x1000, 1], [0x2FFF, 1], [0x1000, 0x2000 - 8]]
    arguments = {
        "readers": {"a": [outside[0], inside[0], *outside[1:], inside[1]], "b": outside},
        "writers": {"w": [[at, size] for at, size in outside if size < 100] + inside + [[0x0FFF, 3], inside[0]], "v": [[0x3000, 40], [0, 5], [0x3000, 40]]},
        "size": SIZE, "seed": 5, "timing": FAST, "allowed": [0x1000, 0x3000],
    }  # fmt: skip
    quiet = arguments | {"readers": {"b": outside}, "writers": {"v": arguments["writers"]["v"]}}
    found, silent = run("64 bits", [arguments, quiet])
    check(arguments, found, 64)
    check(quiet, silent, 64)
    assert silent["log"] == []
    assert all(0x1000 <= at < 0x3000 for _, _, at, _ in found["log"])


def test_refuse_ends_what_is_new_and_lets_what_is_under_way_finish():
    arguments = case("64 bits", 3, refuse_after=60, timing=FAST | {"dram_mb_s": 400})
    (found,) = run("64 bits", [arguments])
    assert found["finished"]
    assert found["idle"]
    assert found["differing"] == 0
    errors = [client["errors"] for client in found["clients"].values()]
    assert all(set(x) <= {0, int(MemoryFault.RANGE)} and x == sorted(x) for x in errors)  # first good, then refused
    assert {error for x in errors for error in x} == {0, int(MemoryFault.RANGE)}


@pytest.mark.parametrize("stalls", [False, True])
def test_error_responses_reach_their_run(stalls):
    """60 cases of SLVERR and DECERR on reads and writes, first, middle and last beats, with neighbours that are well."""
    cases, rng = [], random.Random(11)
    for seed in range(30):
        faults = []
        for _ in range(rng.randint(1, 6)):
            kind, at = rng.choice(("read", "write")), rng.randrange(SIZE)
            faults.append([kind, at, at + rng.choice((1, 8, 400)), rng.choice((2, 3))])
        timing = {"stall": 0.3, "latency_cycles": 20, "seed": seed} if stalls else FAST
        cases.append(case("64 bits", seed, faults=faults, timing=timing, pause=0.2 * stalls))
    met = set()
    for arguments, found in zip(cases, run("64 bits", cases), strict=True):
        check(arguments, found, 64)
        met |= {
            (kind, error)
            for kind, names in (("read", "abc"), ("write", "vw"))
            for name in names
            for error in found["clients"][name]["errors"]
        }
    assert met == {(kind, code) for kind in ("read", "write") for code in (0, 2, 3)}


def test_reset_in_the_middle_recovers():
    cases = [case("64 bits", seed, reset_after=5 + 13 * seed) for seed in range(12)]
    cases += [
        case("64 bits", seed, reset_after=7 * seed, timing={"stall": 0.5, "latency_cycles": 30, "seed": seed})
        for seed in range(12)
    ]
    for arguments, found in zip(cases, run("64 bits", cases), strict=True):
        errors, _ = expected(arguments, 8)
        assert found["finished"]
        assert found["idle"]
        assert found["differing"] == 0
        assert {name: client["errors"] for name, client in found["clients"].items()} == errors


def test_bandwidth():
    """One reader or writer of long runs moves a beat a cycle once it has begun; short runs one a cycle."""
    timing = FAST | {"dram_mb_s": 3200}
    long = {"readers": {"a": [[0, 8192]]}, "writers": {}, "size": SIZE, "timing": timing | {"latency_cycles": 8}}
    short = long | {"readers": {"a": [[16 * k, 8] for k in range(100)]}}
    written = long | {"readers": {}, "writers": {"w": [[8192, 8192]]}}
    both = [
        run(
            "512 bits",
            [
                long
                | {
                    "readers": {"a": [[0, 16384]]},
                    "timing": timing | {"beat_bytes": 64, "latency_cycles": 40, "dram_mb_s": 12800},
                }
            ],
        )[0]
    ]
    found = run("64 bits", [long, written, short])
    assert found[0]["cycles"] == 1024 + 8 + 7
    assert found[1]["cycles"] <= 1024 + 8 + 20
    read = both[0]
    assert read["cycles"] == 256 + 40 + 7
    gaps = [
        b - a
        for a, b in zip(found[2]["clients"]["a"]["word_at"], found[2]["clients"]["a"]["word_at"][1:], strict=False)
    ]
    assert len(gaps) == 99
    assert (
        sum(gaps) <= 99 * (8 + 6) / 4 + 8
    )  # four bursts in flight for latency and six cycles of the way there and back


@pytest.mark.parametrize("arguments, complaint", [
    ({"data_bits": 48}, "data_bits: must be a power of two"),
    ({"outstanding": 0}, "outstanding: must be 1 to 64"),
    ({"burst_beats": 3}, "burst_beats: must be a power of two"),
    ({"burst_beats": 1024}, "burst_beats: must be 1 to 256"),
    ({"data_bits": 512, "burst_beats": 128}, "burst_beats: must be 1 to 64"),
    ({"absolute": ["x"]}, "absolute: must be names of clients"),
])  # fmt: skip
def test_bad_parameters_are_refused(arguments, complaint):
    with pytest.raises(NmsatError, match=complaint):
        Dma(**({"readers": ["a"], "writers": [], "data_bits": 64, "outstanding": 4} | arguments))


@pytest.mark.parametrize("bits, beats", [(32, 16), (256, 16), (512, 16)])
def test_default_bursts_stay_within_a_kilobyte(bits, beats):
    assert burst_beats_of(bits) == beats
    assert beats * bits // 8 <= 1024


def test_absolute_clients_get_no_image_base():
    found = run_bench(
        Dma(readers=["a"], writers=["w"], data_bits=32, outstanding=2, burst_beats=4, absolute=["a"]), "dma", dma_runs,
        {"readers": {"a": [[0x1_2345_6000, 40], [0x100, 4]]}, "writers": {"w": [[0x1000, 3]]}, "size": SIZE, "timing": FAST | {"beat_bytes": 4}, "absolute": ["a"]},
        "cxxrtl",
    )  # fmt: skip
    assert found["finished"]
    assert found["clients"]["a"]["errors"] == [0, 1]
    assert sorted(entry[1:] for entry in found["log"]) == [
        ["ar", 0, 4],
        ["ar", 16, 4],
        ["ar", 32, 2],
        ["aw", 0x1000, 1],
    ]


async def served(bench, valid):
    await bench.reset()
    found = []
    for word in valid:
        bench.set("valid", word)
        bench.set("taken", int(word != 0))
        await bench.settle()
        found.append(bench.get("grant") if word else None)
        await bench.tick()
    return found


def test_arbiter_serves_in_turn():
    valid = [0b111] * 4 + [0b101, 0b101, 0, 0b010, 0b111, 0b001, 0b111]
    assert run_bench(Arbiter(ports=3), "arbiter", served, {"valid": valid}, "amaranth") == [
        0,
        1,
        2,
        0,
        2,
        0,
        None,
        1,
        2,
        0,
        1,
    ]


def test_shipped_accelerators_get_a_dma():
    for name in Accelerator.names():
        made = Dma.from_accelerator(Accelerator.load(name), ["fetch", "a"], ["c"], ["fetch"])
        made._MustUse__used = True  # or Amaranth would warn that it never is
        assert made.read_parameters["buffer_beats"] == 256
