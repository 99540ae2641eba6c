"""The offline scheduler: per product, the best of dataflow x dense grouping x loop order x chunking.

Cost of a mapping = max(compute cycles, DRAM cycles) + fill, the objective of section 6. Everything is exact
integer arithmetic; the simulator recomputes it from the descriptor alone and must get the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError, UnschedulableError
from ..models.sparsity import Sparsity
from ..models.window import MAX_TERMS_LOG2
from . import array_timing as timing
from . import window_timing
from .array_timing import ArrayShape
from .program import Mode, Order

DATAFLOWS = ("auto", "os", "ws")
DENSE_GROUPS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Options:
    """Switches of the scheduler and of the overheads it charges; the defaults are the full design.

    Attributes
    ----------
    dataflow : "auto", "os" or "ws"
        ``auto`` chooses per layer and stage.
    interleave : bool
        False: I = 1, every accumulation waits for the adder.
    tile_overlap : bool
        False: every tile pays its own fill, fold and drain.
    dram_overlap : bool
        False: transfers and vector work are serial with the array.
    pregenerate : bool
        False: N:M weights are pruned when read, by the SORE lanes, from the dense copy.
    forward_on_chip : bool
        False: a vector pass hands its result to the next product through DRAM only.
    """

    dataflow: str = "auto"
    interleave: bool = True
    tile_overlap: bool = True
    dram_overlap: bool = True
    pregenerate: bool = True
    forward_on_chip: bool = True

    def __post_init__(self) -> None:
        if self.dataflow not in DATAFLOWS:
            raise NmsatError.rule("", "dataflow", f"one of {', '.join(DATAFLOWS)}", self.dataflow)


@dataclass(frozen=True, slots=True)
class Work:
    """A product as the scheduler sees it: sizes and traffic, no names; equal work is scheduled once."""

    m: int
    n: int
    kc: int
    taps: int
    count: int
    pattern: Sparsity
    transposed: bool  # A is read as X^T: its rows are (tap, channel)
    a_bytes: int  # distinct bytes of A, all repeats
    halo_bytes: int  # bytes read again at every border of an activation chunk, one repeat
    b_elements: int  # distinct elements of B before compression, all repeats
    b_dense: bool  # B is read dense from memory (dense pattern, or pruned on its way in)
    c_bytes: int  # bytes written, all repeats (0: kept on chip), a ReLU mask included
    mask_bytes: int  # bytes of the ReLU mask that the epilogue reads
    forwarded: bool  # the first read of A comes from the vector pass before it


@dataclass(frozen=True, slots=True)
class Mapping:
    """How a product runs: what a product descriptor says besides its operands."""

    mode: Mode
    order: Order
    keep: int
    group: int
    interleave: int
    m_chunk: int
    n_chunk: int
    a_resident: bool
    b_resident: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles and bytes of a mapping."""

    compute_cycles: int
    fill_cycles: int
    read_bytes: int
    write_bytes: int
    tiles: int
    groups: int  # along k
    buffer_bytes: int  # into and out of W2E, N2S and the output buffer


def array_shape(accelerator: Accelerator) -> ArrayShape:
    """The accelerator's array as its timing sees it."""
    return ArrayShape(
        accelerator.rows,
        accelerator.cols,
        accelerator.sum_latency_cycles,
        accelerator.multiplier_latency_cycles,
    )


def groups_along_k(work: Work, group: int) -> int:
    """G: whole groups of every tap; a transposed A has no taps along k."""
    return (1 if work.transposed else work.taps) * -(-work.kc // group)


def os_segment(accelerator: Accelerator, keep: int, groups: int) -> int:
    """Groups along k that an OS tile adds in its elements: all, or what a window holds whatever the signs."""
    return min(groups, accelerator.window.terms // keep) if accelerator.window else groups


def group_bytes(pattern: Sparsity, keep: int, group: int) -> int:
    """Bytes of one group of B in memory; a dense operand has no index plane."""
    return 2 * keep if keep == group else pattern.group_bytes


def b_total_bytes(work: Work) -> int:
    """Distinct bytes of B over all repeats."""
    if work.b_dense:
        return work.b_elements * 2
    return -(-work.b_elements // work.pattern.group) * work.pattern.group_bytes


def a_pass_bytes(work: Work, chunks_m: int) -> int:
    """Bytes of reading A once, chunk by chunk.

    Chunks of output rows read their halo again. Chunks of a transposed A are (tap, channel) rows: each reads the
    feature map again until there is one a tap.
    """
    if work.transposed:
        return work.a_bytes * min(work.taps, chunks_m)
    return work.a_bytes + work.halo_bytes * (chunks_m - 1) * work.count


def cost(accelerator: Accelerator, work: Work, mapping: Mapping, *, tile_overlap: bool = True) -> Cost:
    """Exact cycles and bytes of a mapping.

    OS runs ceil(m/(R*I)) * ceil(n/C) tiles over all of k. WS runs, for each activation chunk, ceil(n/C) *
    ceil(G/R) weight tiles that stream the chunk's rows. Chunks are read from DRAM once per use: an operand whose chunk
    stays in its bank under the outer loop is read once, the other once a chunk of the first; a fitting whole once.
    """
    shape = array_shape(accelerator)
    keep, group = mapping.keep, mapping.group
    groups = groups_along_k(work, group)
    col_tiles = -(-work.n // shape.cols)
    chunks_m, chunks_n = -(-work.m // mapping.m_chunk), -(-work.n // mapping.n_chunk)
    if mapping.mode is Mode.OS:
        row_tiles = -(-work.m // (shape.rows * mapping.interleave))
        tiles = row_tiles * col_tiles * work.count
        b_passes, c_passes = row_tiles, 1
        if accelerator.window:
            segment = os_segment(accelerator, keep, groups)
            window_form = window_timing.os_cycles if tile_overlap else window_timing.os_cycles_serial
            compute = window_form(shape, keep, groups, segment, tiles)
            c_passes = -(-groups // segment)
            tiles *= c_passes
        else:
            form = timing.os_cycles if tile_overlap else timing.os_cycles_serial
            compute = form(shape, keep, groups, mapping.interleave, tiles)
    else:
        per_chunk = col_tiles * -(-groups // shape.rows)
        full, rest = divmod(work.m, mapping.m_chunk)
        runs = [
            (full * per_chunk * work.count, mapping.m_chunk),
            (per_chunk * work.count if rest else 0, rest),
        ]
        tiles = sum(number for number, _ in runs)
        b_passes, c_passes = chunks_m, -(-groups // shape.rows)
        forms = window_timing if accelerator.window else timing
        ws_form = forms.ws_cycles if tile_overlap else forms.ws_cycles_serial
        compute = ws_form(shape, keep, runs)
    compute += accelerator.slr_hop_cycles
    a_reads = col_tiles
    if mapping.a_resident:
        a_reads = 1 if mapping.order is Order.MN or chunks_m == 1 else chunks_n
    b_reads = 1 if mapping.b_resident else chunks_m
    a_read = a_pass_bytes(work, chunks_m) * a_reads
    b_group = group_bytes(work.pattern, keep, group)
    streamed = work.m * groups * group * 2 * col_tiles + work.n * groups * b_group * b_passes
    # sums are written and read again, by the next k-tile or the epilogue
    streamed += 2 * accelerator.sum_bytes * work.m * work.n * c_passes
    buffer = streamed * work.count + a_read + b_total_bytes(work) * b_reads
    if work.forwarded and a_reads == 1:
        a_read -= work.a_bytes
    rows = shape.rows * mapping.interleave if mapping.mode is Mode.OS else shape.rows
    first = min(work.a_bytes // work.count, rows * group * 2) + shape.cols * b_group
    fill = accelerator.dram_cycles(first)
    read = a_read + b_total_bytes(work) * b_reads + work.mask_bytes
    return Cost(compute, fill, read, work.c_bytes, tiles, groups, buffer)


def objective(accelerator: Accelerator, found: Cost, options: Options) -> int:
    """Cycles of a product alone under the options' overlap."""
    dram = accelerator.dram_cycles(found.read_bytes + found.write_bytes)
    if not options.dram_overlap:
        return found.compute_cycles + dram
    return min(max(found.compute_cycles, dram) + found.fill_cycles, found.compute_cycles + dram)


@lru_cache(maxsize=65536)
def best_mapping(accelerator: Accelerator, work: Work, options: Options) -> tuple[Mapping, Cost]:
    """The mapping with the fewest cycles; ties go to fewer bytes, then to the first candidate.

    Raises
    ------
    UnschedulableError
        If no buffer bank holds even one tile's operands.
    """
    best: tuple[tuple[int, int], Mapping, Cost] | None = None
    for mapping in candidates(accelerator, work, options):
        found = cost(accelerator, work, mapping, tile_overlap=options.tile_overlap)
        rank = (objective(accelerator, found, options), found.read_bytes + found.write_bytes)
        if best is None or rank < best[0]:
            best = rank, mapping, found
    if best is None:
        raise _no_tile(accelerator, work)
    return best[1], best[2]


def _no_tile(accelerator: Accelerator, work: Work) -> UnschedulableError:
    k = groups_along_k(work, 1)
    if accelerator.window and k > 1 << MAX_TERMS_LOG2:
        rule = f"at most 2^{MAX_TERMS_LOG2} with accumulator: window"
        return UnschedulableError(str(NmsatError.rule(f"accelerator {accelerator.name!r}", "k", rule, k)))
    needs = _minimum_bytes(accelerator, Mode.WS, work.pattern.keep, work.pattern.group, 1)
    fields = ("w2e_bytes", "n2s_bytes", "output_bytes")
    for field, need in zip(fields, needs, strict=True):
        have = getattr(accelerator, field)
        if have < need:
            error = NmsatError.rule(
                f"accelerator {accelerator.name!r}", field, f"at least {need} bytes to hold one tile", have
            )
            return UnschedulableError(str(error))
    return UnschedulableError(f"accelerator {accelerator.name!r}: buffers hold no tile under these options")


def _minimum_bytes(
    accelerator: Accelerator, mode: Mode, keep: int, group: int, interleave: int
) -> tuple[int, int, int]:
    """Bytes of one tile step's operands in a bank: (W2E, N2S, output)."""
    rows = accelerator.rows * (interleave if mode is Mode.OS else 1)
    weights = accelerator.cols * (keep if mode is Mode.OS else keep * accelerator.rows)
    outputs = (rows if mode is Mode.OS else 1) * accelerator.cols
    return rows * group * 2, weights * 4, outputs * accelerator.sum_bytes


def candidates(accelerator: Accelerator, work: Work, options: Options) -> Iterator[Mapping]:
    """Every mapping the scheduler compares, in a fixed order."""
    shape = array_shape(accelerator)
    if work.pattern.is_dense:
        patterns = [(n, n) for n in DENSE_GROUPS if n <= min(accelerator.max_keep, max(work.kc, 1))] or [(1, 1)]
    else:
        accelerator.check_pattern(work.pattern)
        patterns = [(work.pattern.keep, work.pattern.group)]
    modes = {"auto": (Mode.OS, Mode.WS), "os": (Mode.OS,), "ws": (Mode.WS,)}[options.dataflow]
    b_column = -(-b_total_bytes(work) // (work.n * work.count))
    n_fit = accelerator.n2s_bytes // b_column
    n_chunk = work.n if n_fit >= work.n else n_fit // shape.cols * shape.cols
    for keep, group in patterns:
        if accelerator.window and groups_along_k(work, group) * keep > 1 << MAX_TERMS_LOG2:
            continue
        for mode in modes:
            interleave = timing.full_interleave(shape, keep) if mode is Mode.OS and options.interleave else 1
            need = _minimum_bytes(accelerator, mode, keep, group, interleave)
            if need[0] > accelerator.w2e_bytes or need[1] > accelerator.n2s_bytes or need[2] > accelerator.output_bytes:
                continue
            for m_chunk, a_fits in _m_chunks(accelerator, work, mode, interleave):
                cols = min(shape.cols, work.n)
                yield Mapping(mode, Order.MN, keep, group, interleave, m_chunk, cols, a_fits, n_fit >= work.n)
                if n_chunk:
                    yield Mapping(mode, Order.NM, keep, group, interleave, m_chunk, n_chunk, a_fits, True)


def _m_chunks(accelerator: Accelerator, work: Work, mode: Mode, interleave: int) -> list[tuple[int, bool]]:
    """(chunk rows, whether A's chunk over all of k stays in W2E) worth trying.

    OS: the tallest resident chunk, or else single tiles that stream k. WS: also the tallest chunk whose partial sums
    the output bank holds, even if A then passes once a column tile.
    """
    row_bytes = -(-work.a_bytes * (work.taps if work.transposed else 1) // (work.m * work.count))
    room = max(accelerator.w2e_bytes - work.halo_bytes, 0) // row_bytes
    if mode is Mode.OS:
        step = accelerator.rows * interleave
        if room >= work.m:
            return [(work.m, True)]
        return [(room // step * step, True)] if room >= step else [(min(step, work.m), False)]
    limit = min(work.m, accelerator.output_bytes // (accelerator.cols * accelerator.sum_bytes))
    chunks = [(limit, room >= limit)]
    if 0 < room < limit:
        even = -(-work.m // -(-work.m // room))  # equal chunks: no short last one
        chunks.append((even, True))
    return chunks
