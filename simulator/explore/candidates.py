"""Every mapping the scheduler would compare, as compiled loops: twin of dataflow/schedule.py and the timing forms."""

from __future__ import annotations

from numba import njit

SLOTS = 40  # room for the candidates of a product: 4 dense groups x OS (2) and WS (4), and spare
# columns of a candidate
COMPUTE, BYTES, FIRST, READ, WS_MACS, BUFFER, CANDIDATE_FIELDS = 0, 1, 2, 3, 4, 5, 6


@njit(cache=True, inline="always")
def _ceil(a: int, b: int) -> int:
    return (a + b - 1) // b


@njit(cache=True)
def _os_cycles(rows, cols, la, lm, keep, groups, interleave, tiles):  # type: ignore[no-untyped-def]
    """array_timing.os_cycles."""
    folds, step, drain = keep - 1, max(interleave * keep, la), rows * interleave
    first = max(groups * step, drain)
    later = max(max(groups, folds) * step + folds * interleave, drain)
    if folds:
        ready = first + (tiles - 1) * later + folds * step + (folds - 1) * interleave
    else:
        ready = (first + (tiles - 2) * later if tiles > 1 else 0) + (groups - 1) * step
    return ready + lm + la + rows + rows * interleave + cols - 1


@njit(cache=True)
def _window_os_cycles(rows, cols, lm, keep, groups, segment, outputs):  # type: ignore[no-untyped-def]
    """window_timing.os_cycles."""
    full, rest, first = groups // segment, groups % segment, min(groups, segment)
    least = max(rows, 3)
    spaced = full * max(segment * keep, least)
    if rest:
        spaced += max(rest * keep, least)
    last_issue = first * keep - 1 + outputs * spaced - max(first * keep, least)
    return last_issue + lm + 1 + 2 * rows + cols - 1


@njit(cache=True)
def _window_ws_cycles(rows, cols, lm, keep, tiles, m, rest_tiles, rest):  # type: ignore[no-untyped-def]
    """window_timing.ws_cycles of the runs [(tiles, m), (rest_tiles, rest)]."""
    least = max(rows * keep, keep + 2)
    last = rest if rest_tiles else m
    body = (tiles * max(m * keep, least) if tiles else 0) + (rest_tiles * max(rest * keep, least) if rest_tiles else 0)
    body += last * keep - max(last * keep, least)
    return rows * keep + body - keep + rows - 1 + cols - 1 + lm + 1 + keep + 1


@njit(cache=True)
def _ws_period(rows, la, keep, m):  # type: ignore[no-untyped-def]
    return max(m * keep, rows * keep, _ceil(la + 2, keep) * keep)


@njit(cache=True)
def _ws_cycles(rows, cols, la, lm, keep, tiles, m, rest_tiles, rest):  # type: ignore[no-untyped-def]
    """array_timing.ws_cycles of the runs [(tiles, m), (rest_tiles, rest)]."""
    body = 0
    last = m
    if tiles:
        body = tiles * _ws_period(rows, la, keep, m)
    if rest_tiles:
        body += rest_tiles * _ws_period(rows, la, keep, rest)
        last = rest
    body -= _ws_period(rows, la, keep, last) - last * keep
    lane0 = body - keep + (rows - 1) * la + cols - 1 + lm + la
    spacing = la + (1 - la) % keep
    return rows * keep + lane0 + min(1, keep - 1) + (keep - 1) * spacing + la + 1


@njit(cache=True)
def _candidates(design, work, found):  # type: ignore[no-untyped-def]
    """Every mapping of a product on a design, in the scheduler's order, into ``found`` (SLOTS, 6); their number."""
    rows, cols, la, lm, hop, max_keep, max_group = (
        design[0],
        design[1],
        design[2],
        design[3],
        design[4],
        design[5],
        design[6],
    )
    w2e, n2s, out, dataflow, interleaved, overlap = design[7], design[8], design[9], design[10], design[11], design[12]
    window, lsb, bits = design[13], design[14], design[15]
    sum_bytes, terms = 4, 1
    if window:
        la, sum_bytes = 1, (lsb + 54) // 8
        spare = bits - lsb - 17
        if spare < 0 or spare > 29 or (1 << spare) < max(rows, max_keep):
            return 0
        terms = 1 << spare
    m, n, kc, taps, count, keep0, group0, packed = (
        work[0],
        work[1],
        work[2],
        work[3],
        work[4],
        work[5],
        work[6],
        work[7],
    )
    dense, transposed, a_bytes, halo, b_total = work[8], work[9], work[10], work[11], work[12]
    c_bytes, mask_bytes, forwarded = work[13], work[14], work[15]
    if not dense and (keep0 > max_keep or group0 > max_group):
        return 0
    number = 0
    macs = m * n * count * kc * (1 if transposed else taps) * keep0 // group0
    n_fit = n2s // _ceil(b_total, n * count)
    n_chunk = n if n_fit >= n else n_fit // cols * cols
    row_bytes = _ceil(a_bytes * (taps if transposed else 1), m * count)
    room = max(w2e - halo, 0) // row_bytes
    col_tiles = _ceil(n, cols)
    for size in range(4 if dense else 1):
        keep, group = (1 << size, 1 << size) if dense else (keep0, group0)
        if dense and keep > min(max_keep, max(kc, 1)):
            break
        b_group = 2 * keep if dense else packed
        groups = (1 if transposed else taps) * _ceil(kc, group)
        segment = groups
        if window and groups * keep > 1 << 29:
            continue
        for mode in range(2):
            if dataflow and dataflow - 1 != mode:
                continue
            interleave = _ceil(la, keep) if mode == 0 and interleaved else 1
            tall = rows * interleave if mode == 0 else rows
            need_out = (tall if mode == 0 else 1) * cols * sum_bytes
            if tall * group * 2 > w2e or cols * keep * (1 if mode == 0 else rows) * 4 > n2s or need_out > out:
                continue
            first = min(a_bytes // count, tall * group * 2) + cols * b_group
            for option in range(2):
                # the chunk of activation rows, as schedule._m_chunks
                if mode == 0:
                    if option:
                        break
                    if room >= m:
                        m_chunk, a_fits = m, True
                    elif room >= tall:
                        m_chunk, a_fits = room // tall * tall, True
                    else:
                        m_chunk, a_fits = min(tall, m), False
                else:
                    limit = min(m, out // (cols * sum_bytes))
                    if option == 0:
                        m_chunk, a_fits = limit, room >= limit
                    elif 0 < room < limit:
                        m_chunk, a_fits = _ceil(m, _ceil(m, room)), True
                    else:
                        break
                chunks_m = _ceil(m, m_chunk)
                if mode == 0:
                    tiles = _ceil(m, tall) * col_tiles * count
                    segment = min(groups, terms // keep) if window else groups
                    if window:
                        if overlap:
                            compute = _window_os_cycles(rows, cols, lm, keep, groups, segment, tiles)
                        else:
                            full, rest = groups // segment, groups % segment
                            compute = full * _window_os_cycles(rows, cols, lm, keep, segment, segment, 1)
                            if rest:
                                compute += _window_os_cycles(rows, cols, lm, keep, rest, rest, 1)
                            compute *= tiles
                    elif overlap:
                        compute = _os_cycles(rows, cols, la, lm, keep, groups, interleave, tiles)
                    else:
                        compute = tiles * _os_cycles(rows, cols, la, lm, keep, groups, interleave, 1)
                else:
                    per_chunk = col_tiles * _ceil(groups, rows) * count
                    full, rest = m // m_chunk, m % m_chunk
                    rest_tiles = per_chunk if rest else 0
                    if window and overlap:
                        compute = _window_ws_cycles(rows, cols, lm, keep, full * per_chunk, m_chunk, rest_tiles, rest)
                    elif window:
                        compute = full * per_chunk * _window_ws_cycles(rows, cols, lm, keep, 1, m_chunk, 0, 0)
                        if rest_tiles:
                            compute += rest_tiles * _window_ws_cycles(rows, cols, lm, keep, 1, rest, 0, 0)
                    elif overlap:
                        compute = _ws_cycles(rows, cols, la, lm, keep, full * per_chunk, m_chunk, rest_tiles, rest)
                    else:
                        compute = full * per_chunk * _ws_cycles(rows, cols, la, lm, keep, 1, m_chunk, 0, 0)
                        if rest_tiles:
                            compute += rest_tiles * _ws_cycles(rows, cols, la, lm, keep, 1, rest, 0, 0)
                compute += hop
                if mode == 0:
                    b_passes, c_passes = _ceil(m, tall), _ceil(groups, segment)
                else:
                    b_passes, c_passes = chunks_m, _ceil(groups, rows)
                streamed = m * groups * group * 2 * col_tiles + n * groups * b_group * b_passes
                streamed += 2 * sum_bytes * m * n * c_passes
                a_pass = a_bytes * min(taps, chunks_m) if transposed else a_bytes + halo * (chunks_m - 1) * count
                for order in range(2):
                    if order == 0:  # MN
                        chunk, b_fits = min(cols, n), n_fit >= n
                    elif n_chunk:  # NM
                        chunk, b_fits = n_chunk, True
                    else:
                        break
                    a_reads = col_tiles
                    if a_fits:
                        a_reads = 1 if order == 0 or chunks_m == 1 else _ceil(n, chunk)
                    read = a_pass * a_reads
                    b_read = b_total * (1 if b_fits else chunks_m)
                    found[number, BUFFER] = streamed * count + read + b_read
                    found[number, WS_MACS] = macs if mode else 0
                    if forwarded and a_reads == 1:
                        read -= a_bytes
                    read += b_read + mask_bytes
                    found[number, COMPUTE] = compute
                    found[number, BYTES] = read + c_bytes
                    found[number, FIRST] = first
                    found[number, READ] = read
                    number += 1
    return number


@njit(cache=True)
def _undominated(found, number, kept):  # type: ignore[no-untyped-def]
    """Copy the candidates that can be the best at some bandwidth to ``kept``; their number.

    The objective grows with compute, bytes and first; ties go to fewer bytes, then to the earlier. So a candidate
    that another does not exceed in any of the three never wins, if the other has fewer bytes or comes first.
    """
    count = 0
    for i in range(number):
        beaten = False
        for j in range(number):
            if j == i or found[j, BYTES] > found[i, BYTES]:
                continue
            if found[j, COMPUTE] > found[i, COMPUTE] or found[j, FIRST] > found[i, FIRST]:
                continue
            if found[j, BYTES] < found[i, BYTES] or j < i:
                beaten = True
                break
        if not beaten:
            kept[count] = found[i]
            count += 1
    return count


@njit(cache=True)
def schedule(design, works, found, kept, packed, ends):  # type: ignore[no-untyped-def]
    """Undominated candidates of every product, one after the other in ``packed`` (fields, room), or False."""
    total = 0
    for w in range(len(works)):
        number = _candidates(design, works[w], found)
        if number == 0:
            return False
        for c in range(_undominated(found, number, kept)):
            for field in range(CANDIDATE_FIELDS):
                packed[field, total] = kept[c, field]
            total += 1
        ends[w] = total
    return True
