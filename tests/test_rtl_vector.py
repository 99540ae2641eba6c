"""SORE, transpose buffer, WUVE and epilogue against the golden model and the closed forms of their cycles."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from nmsat.dataflow import Options, compile_program, vector_timing
from nmsat.models import Accelerator, Workload, golden
from nmsat.models.errors import NmsatError
from nmsat.models.sparsity import Sparsity
from nmsat.rtl.bulk import BulkStream, join
from nmsat.rtl.epilogue import Epilogue
from nmsat.rtl.sore import Sore, SoreLane
from nmsat.rtl.stream import PipelineControl, SkidBuffer
from nmsat.rtl.transposer import Transposer
from nmsat.rtl.wuve import RULE, Wuve, rule_fields
from nmsat.simulator.timing import time_program

LANES = 4
PATTERNS = [(1, 4), (2, 4), (1, 8), (2, 8), (4, 8), (2, 16), (4, 16), (3, 16), (1, 2), (2, 2), (4, 4), (1, 1), (3, 4)]
ALPHABET = np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0xBC00, 0x7C00, 0xFC00], np.uint16)
PAUSES = [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.5, 0.5)]


@pytest.fixture(scope="module")
def sore():
    return BulkStream(Sore(lanes=LANES, max_keep=4, max_group=16))


@pytest.fixture(scope="module")
def transposer():
    return BulkStream(Transposer(size=8))


@pytest.fixture(scope="module")
def wuve():
    return BulkStream(Wuve(lanes=2))


@pytest.fixture(scope="module")
def epilogue():
    return BulkStream(Epilogue(lanes=3))


def weights(rng, shape):
    """binary16 patterns of all classes but NaN, half of them from an alphabet of ties, zeros and infinities."""
    anything = rng.integers(0, 0x7C01, shape) | rng.integers(0, 2, shape) << 15
    return np.where(rng.random(shape) < 0.5, rng.choice(ALPHABET, shape), anything).astype(np.uint16)


def sore_words(dense, pattern, lanes=LANES):
    """Words of (groups, M) patterns, the last one perhaps not full."""
    cuts = (dense[k : k + lanes] for k in range(0, len(dense), lanes))
    return [
        {"values": join(cut.reshape(-1), 16), "groups": len(cut), "keep": pattern.keep, "group": pattern.group}
        for cut in cuts
    ]


def planes(words, pattern):
    """The bytes of the words that left, as memory holds them."""
    found = ([], [])
    for word in words:
        for plane, name, size in zip(
            found, ("values", "indices"), (2 * pattern.keep, pattern.index_bytes), strict=True
        ):
            kept = word[name] & (1 << 8 * size * word["groups"]) - 1
            plane.append(kept.to_bytes(size * word["groups"], "little"))
    return [b"".join(plane) for plane in found]


def expected_planes(dense, pattern):
    return [x.tobytes() for x in golden.pack(golden.compress(golden.from_bits(dense.reshape(-1)), pattern))]


@pytest.mark.parametrize("keep, group", PATTERNS)
@pytest.mark.parametrize("count", [1, LANES, LANES + 1, 403])
def test_sore_writes_golden_s_planes(sore, keep, group, count):
    pattern = Sparsity(keep, group)
    dense = weights(np.random.default_rng(keep * 64 + group), (count, group))
    words = sore_words(dense, pattern)
    for seed, (idle, stall) in enumerate(PAUSES):
        run = sore(words, len(words), idle=idle, stall=stall, seed=seed)
        assert planes(run.words, pattern) == expected_planes(dense, pattern)
        assert not run.broken
        assert not any(word["nan"] for word in run.words)
        assert [word["groups"] for word in run.words] == [word["groups"] for word in words]
        if not seed:
            assert run.cycles == vector_timing.sore_cycles(count, LANES)
            assert np.diff(run.left_at).tolist() == [1] * (len(words) - 1)


def test_sore_on_every_group_of_an_alphabet_of_ties_zeros_and_infinities(sore):
    pattern = Sparsity(2, 4)
    dense = np.stack([x.reshape(-1) for x in np.meshgrid(*[ALPHABET] * 4, indexing="ij")], axis=-1)
    words = sore_words(dense, pattern)
    assert planes(sore(words, len(words)).words, pattern) == expected_planes(dense, pattern)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_sore_on_every_order_of_eight_values(sore, keep):
    """All weak orders of eight values (ties included): what the comparators can say about a group."""
    ranks = np.indices((8,) * 8, np.uint8).reshape(8, -1)
    present = np.bitwise_or.reduce(np.uint16(1) << ranks.astype(np.uint16), axis=0)
    ranks = ranks[:, (present & (present + 1)) == 0].T  # the ranks that occur are 0 to some k
    assert len(ranks) == 545_835
    rng = np.random.default_rng(keep)
    levels = np.sort(rng.choice(0x7C01, 8, replace=False))
    dense = (levels[ranks] | rng.integers(0, 2, ranks.shape) << 15).astype(np.uint16)
    words = sore_words(dense, Sparsity(keep, 8))
    assert planes(sore(words, len(words)).words, Sparsity(keep, 8)) == expected_planes(dense, Sparsity(keep, 8))


def test_sore_takes_a_new_pattern_every_cycle(sore):
    rng = np.random.default_rng(5)
    words, expected = [], []
    for _ in range(200):
        pattern = Sparsity(*PATTERNS[rng.integers(len(PATTERNS))])
        dense = weights(rng, (int(rng.integers(1, LANES + 1)), pattern.group))
        words += sore_words(dense, pattern)
        expected.append((pattern, expected_planes(dense, pattern)))
    run = sore(words, len(words), idle=0.2, stall=0.2)
    for word, (pattern, found) in zip(run.words, expected, strict=True):
        assert planes([word], pattern) == found
        assert (word["keep"], word["group"]) == (pattern.keep, pattern.group)


@pytest.mark.parametrize("nan", [0x7C01, 0x7E00, 0xFFFF])
def test_sore_flags_a_nan_where_it_counts(sore, nan):
    """In a group that is present, at a place below M: not in what lies beyond."""
    pattern = Sparsity(2, 8)
    flags = []
    for place in range(8 * LANES):
        dense = np.zeros((LANES, 8), np.uint16)
        dense.reshape(-1)[place] = nan
        (word,) = sore_words(dense, pattern)
        found = sore([word, word | {"groups": 2}], 2).words
        flags.append([x["nan"] for x in found])
    assert flags == [[1, int(place < 16)] for place in range(8 * LANES)]


def tiles_of(rng, number, size=8):
    for _ in range(number):
        rows, cols = (int(x) for x in rng.integers(1, size + 1, 2))
        yield rng.integers(0, 1 << 16, (rows, size)), cols


def tile_words(tiles):
    return [
        {"values": join(row, 16), "last": int(k == len(tile) - 1), "cols": cols}
        for tile, cols in tiles
        for k, row in enumerate(tile)
    ]


def columns(tiles):
    return [(len(tile), tile[:, c].tolist(), int(c == cols - 1)) for tile, cols in tiles for c in range(cols)]


def seen(run):
    return [(w["rows"], [w["values"] >> 16 * k & 0xFFFF for k in range(w["rows"])], w["last"]) for w in run.words]


@pytest.mark.parametrize("seed", range(40))
def test_transposer_turns_tiles_in_the_closed_form_s_cycles(transposer, seed):
    tiles = list(tiles_of(np.random.default_rng(seed), 1 + seed % 9))
    words, expected = tile_words(tiles), columns(tiles)
    for idle, stall in PAUSES:
        run = transposer(words, len(expected), idle=idle, stall=stall, seed=seed)
        assert seen(run) == expected
        assert not run.broken
        if idle == stall == 0:
            assert run.cycles == vector_timing.transposer_cycles([(len(tile), cols) for tile, cols in tiles])


@pytest.mark.parametrize("rows, cols, period", [(8, 8, 8), (8, 3, 8), (3, 8, 8), (1, 1, 1), (1, 2, 2)])
def test_transposer_s_steady_state(transposer, rows, cols, period):
    def cycles(tiles):
        assert transposer(words * tiles, cols * tiles).cycles == vector_timing.transposer_cycles([(rows, cols)] * tiles)
        return vector_timing.transposer_cycles([(rows, cols)] * tiles)

    words = tile_words([(np.zeros((rows, 8), int), cols)])
    assert cycles(41) - cycles(31) == 10 * period


def test_transposer_ends_a_tile_at_its_last_row_without_the_mark(transposer):
    tile = np.arange(64).reshape(8, 8)
    words = [word | {"last": 0} for word in tile_words([(tile, 8)] * 3)]
    assert seen(transposer(words, 24)) == columns([(tile, 8)] * 3)


def test_transposer_and_sore_make_the_backward_copy(transposer, sore):
    """OHWI weights, tile by tile through the transpose buffer: SORE's planes are golden's backward copy."""
    pattern, rng = Sparsity(2, 8), np.random.default_rng(6)
    w16 = weights(rng, (16, 3, 1, 8))
    rows = [(w16[o : o + 8, tap, 0], 8) for tap in range(3) for o in (0, 8)]
    turned = seen(transposer(tile_words(rows), 48, stall=0.3))
    # (tap, o / 8, i) to the copy's (i, tap, o / 8)
    dense = np.array([values for _, values, _ in turned], np.uint16).reshape(3, 2, 8, 8).transpose(2, 0, 1, 3)
    words = sore_words(np.ascontiguousarray(dense).reshape(-1, 8), pattern)
    expected = golden.pack(golden.sore_backward(golden.from_bits(w16), pattern))
    assert planes(sore(words, len(words)).words, pattern) == [x.tobytes() for x in expected]


RULES = [
    golden.UpdateRule(0.1),
    golden.UpdateRule(0.05, 0.9, 5e-4, 2e-4, 1024.0),
    golden.UpdateRule(0.0, 0.0, 0.0, 0.0, 2.0**-3),
    golden.UpdateRule(1e-3, 1.0, 1e-40, 1e-45, 2.0**126),
    golden.UpdateRule(3e38, 1e38, 2.0, 1e-38, 2.0**-126),
]
CORNERS = np.array(
    [0, 1, 0x7FFFFF, 0x800000, 0xFFFFFF, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001], np.uint32
)


def update_operands(rng, count):
    """Half ordinary numbers, half patterns of every class."""
    ordinary = rng.normal(size=(3, count)).astype(np.float32).view(np.uint32)
    anything = rng.integers(0, 1 << 32, (3, count), np.uint32)
    corners = rng.choice(CORNERS, (3, count)) | rng.integers(0, 2, (3, count), np.uint32) << np.uint32(31)
    kind = rng.integers(0, 4, (3, count))
    return np.where(kind < 2, ordinary, np.where(kind == 2, anything, corners)), rng.random(count) < 0.5


def rule_bits(rule):
    return sum((v & (1 << RULE[k].width) - 1) << RULE[k].offset for k, v in rule_fields(rule).items())


def update_words(bits, mask, lanes=2):
    return [
        {name: join(bits[row, k : k + lanes], 32) for row, name in enumerate("gwv")}
        | {"mask": join(mask[k : k + lanes], 1)}
        for k in range(0, len(mask), lanes)
    ]


@pytest.mark.parametrize("rule", range(len(RULES)))
def test_wuve_is_golden_s_update(wuve, rule):
    bits, mask = update_operands(np.random.default_rng(rule), 4000)
    words = update_words(bits, mask)
    expected = [golden.to_bits(x) for x in golden.wuve_update(*map(golden.from_bits, bits), mask, RULES[rule])]
    for idle, stall in PAUSES:
        constants = {"rule": rule_bits(RULES[rule])}
        run = wuve(words, len(words), constants=constants, idle=idle, stall=stall, seed=rule)
        for name, reference, width in zip(("w32", "v32", "w16"), expected, (32, 32, 16), strict=True):
            assert [word[name] for word in run.words] == [join(x, width) for x in reference.reshape(-1, 2)]
        assert not run.broken
        if idle == stall == 0:
            assert run.cycles == vector_timing.wuve_cycles(4000, 2)


def test_wuve_feeds_sore(wuve, sore):
    """w16 of a word is dense groups as SORE takes them, without rearrangement."""
    bits = np.random.default_rng(8).normal(size=(3, 64)).astype(np.float32)
    w16 = golden.wuve_update(*bits, None, RULES[1])[2]
    words = update_words(bits.view(np.uint32), np.ones(64, bool))
    new = wuve(words, len(words), constants={"rule": rule_bits(RULES[1])}).words
    pruned = sore([{"values": x["w16"], "groups": 1, "keep": 1, "group": 2} for x in new], len(new))
    assert planes(pruned.words, Sparsity(1, 2)) == [
        x.tobytes() for x in golden.pack(golden.compress(w16, Sparsity(1, 2)))
    ]


@pytest.mark.parametrize("relu", [0, 1])
@pytest.mark.parametrize("apply_mask", [0, 1])
def test_epilogue(epilogue, relu, apply_mask):
    rng = np.random.default_rng(relu * 2 + apply_mask)
    bits, mask = update_operands(rng, 3000)
    x, mask = (
        np.concatenate([bits[0], np.array([0x80000000, 0x33000000, 0xB3000001], np.uint32)]),
        np.append(mask, [1, 1, 1]) > 0,
    )
    words = [
        {"x": join(x[k : k + 3], 32), "mask": join(mask[k : k + 3], 1), "relu": relu, "apply_mask": apply_mask}
        for k in range(0, len(x), 3)
    ]
    narrow = golden.narrow(golden.from_bits(x))
    expected = golden.relu(narrow) if relu else narrow
    expected = golden.to_bits(golden.apply_mask(expected, mask) if apply_mask else expected)
    plane = golden.pack_mask(golden.relu_mask(narrow)).tobytes()
    for idle, stall in PAUSES:
        run = epilogue(words, len(words), idle=idle, stall=stall)
        assert [word["x16"] for word in run.words] == [join(v, 16) for v in expected.reshape(-1, 3)]
        assert join([word["mask"] for word in run.words], 3).to_bytes(len(plane), "little") == plane
        assert not run.broken
        if idle == stall == 0:
            assert run.cycles == vector_timing.epilogue_cycles(len(x), 3)


@pytest.mark.parametrize("after", [1, 5, 9, 14, 23, 40])
def test_reset_in_mid_operation_leaves_nothing_behind(transposer, sore, epilogue, wuve, after):
    """A run is cut while words are inside, stalled or moving; the next run starts with a reset and is like the first."""
    rng = np.random.default_rng(after)
    tiles = list(tiles_of(rng, 20))
    dense = weights(rng, (240, 8))
    bits, mask = update_operands(rng, 180)
    cases = [
        (transposer, tile_words(tiles), len(columns(tiles)), None),
        (sore, sore_words(dense, Sparsity(2, 8)), 60, None),
        (
            epilogue,
            [{"x": join(bits[0, k : k + 3], 32), "mask": 0, "relu": 1, "apply_mask": 0} for k in range(0, 180, 3)],
            60,
            None,
        ),
        (wuve, update_words(bits, mask), 90, {"rule": rule_bits(RULES[1])}),
    ]
    for block, words, count, constants in cases:
        whole = block(words, count, constants=constants)
        for stall in (0.0, 0.9):
            cut = block(words[::-1], count, constants=constants, stall=stall, cycles=after)
            assert len(cut.words) < count
            again = block(words, count, constants=constants)
            read = seen if block is transposer else lambda run: run.words
            assert read(again) == read(whole)
            assert (again.accepted_at, again.left_at) == (whole.accepted_at, whole.left_at)


def test_latencies_are_those_of_the_closed_forms():
    assert Sore.latency == SoreLane.latency + 3 == vector_timing.SORE_LATENCY_CYCLES
    assert Wuve.latency == vector_timing.WUVE_LATENCY_CYCLES
    assert Epilogue.latency == vector_timing.EPILOGUE_LATENCY_CYCLES
    assert Transposer.latency == vector_timing.TRANSPOSER_LATENCY_CYCLES


@pytest.mark.parametrize("name, sparsity", [("sat_4x4", "2:4"), ("sat_8x8", "2:8"), ("sat", "2:8")])
def test_the_simulator_charges_the_words_of_the_busiest_engine(name, sparsity):
    """Busy cycles of an update are the RTL's cycles less the latency, which a chain hides (docs/rtl-vector.md)."""
    accelerator, pattern = Accelerator.load(name), Sparsity.parse(sparsity)
    program = compile_program(Workload.load("digits-mlp"), accelerator, method="bdwp", sparsity=sparsity, batch=16)
    updates = [x for x in time_program(program, accelerator, Options()) if x.engine == "wuve"]
    assert updates
    for step in updates:
        weights = step.item["out_channels"] * step.item["taps"] * step.item["in_channels"]
        groups = weights // pattern.group * sum(step.item[f"{stage}_keep"] > 0 for stage in ("ff", "bp"))
        wuve = vector_timing.wuve_cycles(weights, accelerator.wuve_lanes) - Wuve.latency
        sore = vector_timing.sore_cycles(groups, accelerator.sore_lanes) - Sore.latency * (groups > 0)
        assert step.compute_cycles == max(wuve, sore)


@pytest.mark.filterwarnings("ignore:.*created but never used")
@pytest.mark.parametrize("name", ["sat", "sat_4x4", "sat_8x8"])
def test_engines_of_the_shipped_accelerators(name):
    accelerator = Accelerator.load(name)
    sore = Sore.from_accelerator(accelerator)
    assert (sore.lanes, sore.max_keep, sore.max_group) == (
        accelerator.sore_lanes, min(accelerator.max_keep, sore.max_group), 1 << accelerator.max_group.bit_length() - 1
    )  # fmt: skip
    assert Wuve.from_accelerator(accelerator).lanes == accelerator.wuve_lanes
    assert Epilogue.from_accelerator(accelerator).lanes == accelerator.cols


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Sore(lanes=0, max_keep=2, max_group=8), "sore: lanes: must be 1 to 4096, not 0"),
        (lambda: Sore(lanes=1, max_keep=9, max_group=8), "sore: max_keep: must be 1 to 8, not 9"),
        (lambda: Sore(lanes=1, max_keep=0, max_group=8), "sore: max_keep: must be 1 to 8, not 0"),
        (lambda: Sore(lanes=1, max_keep=2, max_group=12), "sore: max_group: must be one of 2, 4, 8, 16, 32, not 12"),
        (lambda: SoreLane(max_keep=5, max_group=4), "sore lane: max_keep: must be 1 to 4, not 5"),
        (lambda: Sore.from_accelerator(Accelerator.load("sat").replace(max_keep=1, max_group=1)), "sore: max_group: must be at least 2, not 1"),
        (lambda: Wuve(lanes=True), "wuve: lanes: must be 1 to 4096, not True"),
        (lambda: Epilogue(lanes=-1), "epilogue: lanes: must be 1 to 4096, not -1"),
        (lambda: Transposer(size=1), "transposer: size: must be 2 to 256, not 1"),
        (lambda: Transposer(size=12), "transposer: size: must be a power of two, not 12"),
        (lambda: SkidBuffer(width=0), "skid buffer: width: must be 1 to 1048576, not 0"),
        (lambda: PipelineControl(latency=0), "pipeline control: latency: must be 1 to 1024, not 0"),
        (lambda: vector_timing.words(1, 0), r"vector timing: lanes and count: must be at least 1 and 0, not \(0, 1\)"),
        (lambda: vector_timing.transposer_cycles([(1, 0)]), r"vector timing: tiles: must be at least one row and one column, not \(1, 0\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*created but never used")
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(NmsatError, match=rf"^{message}$"):
        call()
    gc.collect()  # the half-made component complains here, not in a later test
