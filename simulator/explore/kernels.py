"""Figures of sorted designs as compiled loops: twin of simulator/timing.py.

Every figure equals the scalar code's (tests/test_explore.py holds them together). Designs that share all a schedule
depends on are evaluated side by side, in vector registers; what the previous block already paid for is kept.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from .candidates import BUFFER, BYTES, CANDIDATE_FIELDS, COMPUTE, FIRST, READ, SLOTS, WS_MACS, schedule
from .designs import FIELDS, MEMORY_FIELDS

# columns of a design: what a schedule depends on, then the lanes' widths, the clock, memory
LANES, CLOCK, BANDWIDTH, OVERLAP = (FIELDS.index(name) for name in ("vector_lanes", *MEMORY_FIELDS))
# columns of the result
CYCLES, COMPUTE_CYCLES, READ_BYTES, WRITE_BYTES, EXPOSED, VALID, WEIGHT_STATIONARY, BUFFERED, RESULT_FIELDS = range(9)
TOO_LARGE = 2
BLOCK = 64  # designs side by side
TWO_52 = 2.0**52  # integers below are exact in binary64, their products with a reciprocal right to one


def _cycles_at(scaled, bandwidth, inverse):  # type: ignore[no-untyped-def]
    """ceil(scaled / bandwidth), exact in either arithmetic: integers, or binary64 below 2^52 (much faster)."""
    return -(-scaled // bandwidth)


@overload(_cycles_at)
def _cycles_at_typed(scaled, bandwidth, inverse):  # type: ignore[no-untyped-def]
    if isinstance(scaled, types.Float):

        def binary64(scaled, bandwidth, inverse):  # type: ignore[no-untyped-def]
            quotient = np.ceil(scaled * inverse)  # off by one at most: put right by the exact remainder
            over = quotient * bandwidth - scaled
            return quotient - (1.0 if over >= bandwidth else 0.0) + (1.0 if over < 0.0 else 0.0)

        return binary64

    def integer(scaled, bandwidth, inverse):  # type: ignore[no-untyped-def]
        return -(-scaled // bandwidth)

    return integer


@njit(cache=True)
def _cost(packed, c, overlap, clock, bandwidth, inverse):  # type: ignore[no-untyped-def]
    """The scheduler's objective of one candidate on one design."""
    busy = packed[COMPUTE, c]
    dram = _cycles_at(packed[BYTES, c] * clock, bandwidth, inverse)
    serial = busy + dram
    if overlap:
        hidden = (busy if busy > dram else dram) + _cycles_at(packed[FIRST, c] * clock, bandwidth, inverse)
        serial = hidden if hidden < serial else serial
    return serial


@njit(cache=True)
def _contenders(packed, begin, end, overlap, clock, bandwidth, inverse, fast, slow, contenders):  # type: ignore[no-untyped-def]
    """Candidates that may win on some design of a block, in order; their number.

    The objective never falls when memory slows down, so one that costs more on the block's fastest memory (design
    ``fast``) than another on its slowest loses on all of them.
    """
    ceiling = _cost(packed, begin, overlap, clock[slow], bandwidth[slow], inverse[slow])
    for c in range(begin + 1, end):
        ceiling = min(ceiling, _cost(packed, c, overlap, clock[slow], bandwidth[slow], inverse[slow]))
    count = 0
    for c in range(begin, end):
        if _cost(packed, c, overlap, clock[fast], bandwidth[fast], inverse[fast]) <= ceiling:
            contenders[count] = c
            count += 1
    return count


@njit(cache=True)
def _add_product(  # type: ignore[no-untyped-def]
    packed, contenders, count, overlap, lanes, clock, bandwidth, inverse, cost, compute, read, moved, chosen
):
    """The best of a product's contenders for every design of a block: least cost, then fewest bytes, then the first.

    ``chosen`` is its index. The inner loops have selects for branches, so that they run in vector registers.
    """
    for index in range(count):
        c = contenders[index]
        busy, size, head, fetched = packed[COMPUTE, c], packed[BYTES, c], packed[FIRST, c], packed[READ, c]
        for b in range(lanes):
            dram = _cycles_at(size * clock[b], bandwidth[b], inverse[b])
            serial = busy + dram
            if overlap:
                fill = _cycles_at(head * clock[b], bandwidth[b], inverse[b])
                hidden = (busy if busy > dram else dram) + fill
                serial = hidden if hidden < serial else serial
            better = index == 0 or serial < cost[b] or (serial == cost[b] and size < moved[b])
            cost[b] = serial if better else cost[b]
            compute[b] = busy if better else compute[b]
            read[b] = fetched if better else read[b]
            moved[b] = size if better else moved[b]
            chosen[b] = c if better else chosen[b]


@njit(cache=True)
def _add_only(packed, c, overlap, lanes, clock, bandwidth, inverse, base):  # type: ignore[no-untyped-def]
    """Add the cost of a product's only contender for every design of a block."""
    busy, size, head = packed[COMPUTE, c], packed[BYTES, c], packed[FIRST, c]
    for b in range(lanes):
        dram = _cycles_at(size * clock[b], bandwidth[b], inverse[b])
        serial = busy + dram
        if overlap:
            fill = _cycles_at(head * clock[b], bandwidth[b], inverse[b])
            hidden = (busy if busy > dram else dram) + fill
            serial = hidden if hidden < serial else serial
        base[b] += serial


@njit(cache=True)
def _engines(others, begin, end, lanes, widths, inverses, by_engine, busiest, serial):  # type: ignore[no-untyped-def]
    """Busy cycles of a chain's busiest engine, and of its steps one after the other, for every design of a block."""
    by_engine[:] = 0
    serial[:] = 0
    for position in range(begin, end):
        slots, weights, groups = others[1, position], others[2, position], others[3, position]
        row = by_engine[int(others[0, position])]
        for b in range(lanes):
            cycles = _cycles_at(slots, widths[0, b], inverses[0, b])
            update = _cycles_at(weights, widths[1, b], inverses[1, b])
            prune = _cycles_at(groups, widths[2, b], inverses[2, b])
            cycles = cycles if cycles > update else update
            cycles = cycles if cycles > prune else prune
            row[b] += cycles
            serial[b] += cycles
    for b in range(lanes):
        most = by_engine[0, b] if by_engine[0, b] > by_engine[1, b] else by_engine[1, b]
        busiest[b] = most if most > by_engine[2, b] else by_engine[2, b]


@njit(cache=True)
def _exposed(overlap, lanes, base, size, same_size, busiest, serial, idle, clock, bandwidth, inverse, exposed, shown):  # type: ignore[no-untyped-def]
    """Cycles of a chain beyond its products', and those of them in which an engine computes; simulator.timing._share.

    The chain moves ``size`` + ``same_size`` bytes; ``idle`` (no step beside the array) exposes nothing. Without overlap
    ``exposed`` holds the other steps' DRAM cycles already.
    """
    for b in range(lanes):
        if overlap:
            dram = _cycles_at((size[b] + same_size) * clock[b], bandwidth[b], inverse[b])
            longest = busiest[b] if busiest[b] > dram else dram
            over, computing = longest - base[b], busiest[b] - base[b]
            exposed[b] = over if over > 0 and not idle else 0
            shown[b] = computing if computing > 0 else 0
        else:
            exposed[b] += serial[b]
            shown[b] = serial[b]


@njit(cache=True)
def evaluate_designs(  # type: ignore[no-untyped-def]
    table, works, others, serial_read, products, product_ends, other_ends, repeats, arithmetic, result
):
    """One row of ``result`` (designs, 8) for each row of ``table`` (designs, 22); both int64.

    ``arithmetic`` is an array whose dtype is calculated in: binary64, and a design whose figures may reach 2^52 gets
    VALID = TOO_LARGE; or int64, which always holds them.
    """
    kind = arithmetic.dtype
    zero = arithmetic[0] * 0
    chains = len(repeats)
    found, kept = np.empty((SLOTS, CANDIDATE_FIELDS), np.int64), np.empty((SLOTS, CANDIDATE_FIELDS), np.int64)
    packed = np.empty((CANDIDATE_FIELDS, SLOTS * max(len(works), 1)), kind)
    ends = np.zeros(len(works), np.int64)
    steps = others.T.astype(kind)
    clock, bandwidth, inverse = np.empty(BLOCK, kind), np.empty(BLOCK, kind), np.empty(BLOCK, np.float64)
    widths, inverses = np.empty((3, BLOCK), kind), np.empty((3, BLOCK), np.float64)
    cost, compute, read, moved = (
        np.empty(BLOCK, kind),
        np.empty(BLOCK, kind),
        np.empty(BLOCK, kind),
        np.empty(BLOCK, kind),
    )
    base, size, exposed, shown = (
        np.empty(BLOCK, kind),
        np.empty(BLOCK, kind),
        np.empty(BLOCK, kind),
        np.empty(BLOCK, kind),
    )
    by_engine = np.empty((3, BLOCK), kind)
    busiest, serial = np.empty((chains, BLOCK), kind), np.empty((chains, BLOCK), kind)
    totals = np.empty((6, BLOCK), kind)
    chosen = np.empty(BLOCK, np.int64)
    contenders = np.empty(SLOTS, np.int64)
    written = products_written = 0
    fetched = np.zeros(2, np.int64)  # by the steps beside the array: without and with overlap
    begin = start = 0
    for chain in range(chains):
        for position in range(begin, product_ends[chain]):
            products_written += works[products[position], 13] * repeats[chain]
        for position in range(start, other_ends[chain]):
            written += others[position, 5] * repeats[chain]
            fetched[0] += serial_read[position] * repeats[chain]
            fetched[1] += others[position, 4] * repeats[chain]
        begin, start = product_ends[chain], other_ends[chain]
    written += products_written
    valid, largest, most_events = False, 0.0, 0.0
    low = 0
    while low < len(table):
        # a block: designs that share everything a schedule depends on
        lanes, same_widths = 1, True
        while lanes < BLOCK and low + lanes < len(table) and _same(table, low, low + lanes, 0, LANES):
            if table[low + lanes, OVERLAP] != table[low, OVERLAP]:
                break
            same_widths &= _same(table, low, low + lanes, LANES, CLOCK)
            lanes += 1
        if low == 0 or not _same(table, low, low - 1, 0, LANES):
            valid = schedule(table[low], works, found, kept, packed, ends)
            if valid:
                largest, most_events = _largest(packed, ends, products, product_ends, repeats)
        result[low : low + lanes] = 0
        if not valid:
            low += lanes
            continue
        overlap = table[low, OVERLAP]
        for b in range(lanes):
            clock[b], bandwidth[b] = table[low + b, CLOCK], table[low + b, BANDWIDTH]
            inverse[b] = 1.0 / table[low + b, BANDWIDTH]
            for engine in range(3):
                widths[engine, b] = table[low + b, LANES + engine]
                inverses[engine, b] = 1.0 / table[low + b, LANES + engine]
        start = 0
        for chain in range(chains):
            _engines(
                steps, start, other_ends[chain], 1 if same_widths else lanes, widths, inverses, by_engine,
                busiest[chain], serial[chain],
            )  # fmt: skip
            if same_widths:
                busiest[chain, 1:lanes] = busiest[chain, 0]
                serial[chain, 1:lanes] = serial[chain, 0]
            start = other_ends[chain]
        fast = slow = 0
        for b in range(1, lanes):
            if (
                table[low + b, CLOCK] * table[low + fast, BANDWIDTH]
                < table[low + fast, CLOCK] * table[low + b, BANDWIDTH]
            ):
                fast = b
            if (
                table[low + b, CLOCK] * table[low + slow, BANDWIDTH]
                > table[low + slow, CLOCK] * table[low + b, BANDWIDTH]
            ):
                slow = b
        totals[:] = 0
        same_compute, same_read, same_ws, same_buffer = zero, zero, zero, zero
        begin = start = 0
        for chain in range(chains):
            base[:] = 0
            size[:] = 0
            same_size = zero
            for position in range(begin, product_ends[chain]):
                w = products[position]
                count = _contenders(
                    packed, ends[w - 1] if w else 0, ends[w], overlap, clock, bandwidth, inverse, fast, slow, contenders
                )
                if count == 1:
                    c = contenders[0]
                    _add_only(packed, c, overlap, lanes, clock, bandwidth, inverse, base)
                    same_size += packed[BYTES, c]
                    same_compute += repeats[chain] * packed[COMPUTE, c]
                    same_read += repeats[chain] * packed[READ, c]
                    same_ws += repeats[chain] * packed[WS_MACS, c]
                    same_buffer += repeats[chain] * packed[BUFFER, c]
                    continue
                _add_product(
                    packed, contenders, count, overlap, lanes, clock, bandwidth, inverse, cost, compute, read, moved,
                    chosen,
                )  # fmt: skip
                for b in range(lanes):
                    base[b] += cost[b]
                    size[b] += moved[b]
                    totals[1, b] += repeats[chain] * compute[b]
                    totals[2, b] += repeats[chain] * read[b]
                    totals[4, b] += repeats[chain] * packed[WS_MACS, chosen[b]]
                    totals[5, b] += repeats[chain] * packed[BUFFER, chosen[b]]
            begin, end = product_ends[chain], other_ends[chain]
            exposed[:] = 0
            for position in range(start, end):
                if overlap:
                    same_size += steps[4, position] + steps[5, position]
                else:
                    moved_there = serial_read[position] + steps[5, position]
                    for b in range(lanes):
                        exposed[b] += _cycles_at(moved_there * clock[b], bandwidth[b], inverse[b])
            idle = end == start
            _exposed(
                overlap, lanes, base, size, same_size, busiest[chain], serial[chain], idle, clock, bandwidth, inverse,
                exposed, shown,
            )  # fmt: skip
            start = end
            for b in range(lanes):
                totals[0, b] += repeats[chain] * (base[b] + exposed[b])
                totals[1, b] += repeats[chain] * shown[b]
                totals[3, b] += repeats[chain] * exposed[b]
        for b in range(lanes):
            row = result[low + b]
            bound = max((largest + 4.0 * (fetched[0] + written)) * table[low + b, CLOCK], most_events)
            if _in_binary64(zero) and bound >= TWO_52:
                row[VALID] = TOO_LARGE
                continue
            row[CYCLES], row[COMPUTE_CYCLES] = np.int64(totals[0, b]), np.int64(totals[1, b] + same_compute)
            row[READ_BYTES] = np.int64(totals[2, b] + same_read) + fetched[overlap]
            row[EXPOSED], row[WRITE_BYTES], row[VALID] = np.int64(totals[3, b]), written, 1
            row[WEIGHT_STATIONARY] = np.int64(totals[4, b] + same_ws)
            row[BUFFERED] = np.int64(totals[5, b] + same_buffer) + fetched[overlap] + written - products_written
        low += lanes


@njit(cache=True)
def _same(table, one, other, begin, end):  # type: ignore[no-untyped-def]
    """Whether two designs agree in columns [begin, end)."""
    for field in range(begin, end):  # noqa: SIM110 (compiled)
        if table[one, field] != table[other, field]:
            return False
    return True


def _in_binary64(number):  # type: ignore[no-untyped-def]
    """Whether compiled code calculates in binary64."""
    return isinstance(number, float)


@overload(_in_binary64)
def _in_binary64_typed(number):  # type: ignore[no-untyped-def]
    if isinstance(number, types.Float):
        return lambda number: True
    return lambda number: False


@njit(cache=True)
def _largest(packed, ends, products, product_ends, repeats):  # type: ignore[no-untyped-def]
    """Bounds, in binary64, on sums over the chains' products: of bytes or cycles alike, and of events."""
    bound, events, begin = 0.0, 0.0, 0
    for chain in range(len(repeats)):
        for position in range(begin, product_ends[chain]):
            w = products[position]
            worst = most = 0.0
            for c in range(ends[w - 1] if w else 0, ends[w]):
                worst = max(worst, float(packed[COMPUTE, c]) + float(packed[BYTES, c]) + float(packed[FIRST, c]))
                most = max(most, float(packed[WS_MACS, c]), float(packed[BUFFER, c]))
            bound += repeats[chain] * worst
            events += repeats[chain] * most
        begin = product_ends[chain]
    return bound, events
