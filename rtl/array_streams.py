"""Words for the array's ports from the operands of a product, and the product from the words that leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..models.errors import NmsatError
from ..models.golden import WindowSums
from ..models.golden.floats import to_bits
from ..models.window import Window
from .array_parameters import COUNT_BITS, ArrayParameters
from .uspe import address_bits


@dataclass(frozen=True, slots=True)
class ArrayStreams:
    """One sequence of tiles at the ports of :class:`.stce.Stce`.

    Attributes
    ----------
    commands : list of int
        Packed :func:`.sequencer.command_layout`.
    west, north : list of lists of int
        Words of every row and column, in order.
    partial : list of int
        For every word a column takes at ``partial``, the number of the word it gave earlier that comes back.
    places : int array (words, 2)
        Row and column tile of C, before adding the column, of every word a column gives; later words of the same
        place replace earlier ones (k-tiles).
    rows, cols : int
        Padded shape of C.
    """

    commands: list[int]
    west: list[list[int]]
    north: list[list[int]]
    partial: list[int]
    places: np.ndarray
    rows: int
    cols: int

    def product(self, south: list[list[int]]) -> np.ndarray:
        """Float32 C, padded, from the words of every column."""
        bits = np.array(south, np.uint32)
        out = np.zeros((self.rows, self.cols), np.uint32)
        for c in range(bits.shape[0]):
            out[self.places[:, 0], self.places[:, 1] + c] = bits[c]
        return out.view(np.float32)

    def sums(self, south: list[list[int]], window: Window) -> WindowSums:
        """Sums of C, padded, from the sum words of every column."""
        out = np.zeros((self.rows, self.cols), object)
        for c, words in enumerate(south):
            out[self.places[:, 0], self.places[:, 1] + c] = np.array(words, object)
        return WindowSums.of_words(out, window)


def os_streams(
    parameters: ArrayParameters,
    a: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
    group: int,
    interleave: int,
    segment: int | None = None,
) -> ArrayStreams:
    """Output-stationary product.

    Parameters
    ----------
    a : float16 array (m, G * group)
    values, indices : float16 and uint8 arrays (G, N, n)
    interleave : int
        I, 1 to ``max_interleave``, with I * N at most ``max_sums``.
    segment : int, optional
        With a window: groups along k of a tile, whose sums then leave and come back; default all.

    Raises
    ------
    NmsatError
        The array cannot run it.
    """
    groups, keep, n = _check(parameters, values, group)
    p, step = parameters, parameters.rows * interleave
    if not 1 <= interleave <= p.max_interleave or interleave * keep > p.max_sums:
        rule = f"1 to {p.max_interleave} and at most {p.max_sums} / N"
        raise NmsatError.rule("array", "interleave", rule, interleave)
    if segment is not None and not (p.window and 1 <= segment <= p.window.terms // keep):
        raise NmsatError.rule("array", "segment", "left out, or with a window what it holds", segment)
    m_tiles, n_tiles = -(-a.shape[0] // step), -(-n // p.cols)
    rows, words = _groups(a, m_tiles * step, groups, group), _words(p, values, indices, groups, n_tiles)
    west: list[list[int]] = [[] for _ in range(p.rows)]
    north: list[list[int]] = [[] for _ in range(p.cols)]
    partial: list[int] = []
    places: list[tuple[int, int]] = []
    commands = []
    cuts = [(first, min(first + (segment or groups), groups)) for first in range(0, groups, segment or groups)]
    tiles, step_words = m_tiles * n_tiles, p.rows * interleave
    for tile in range(tiles):
        row0, col0 = tile // n_tiles * step, tile % n_tiles * p.cols
        for first, end in cuts:
            for g in range(first, end):
                for i in range(interleave):
                    for r in range(p.rows):
                        west[r].append(rows[row0 + i * p.rows + r][g])
                    for c in range(p.cols):
                        north[c] += words[g][col0 + c]
            if first:
                partial += range(len(places) - step_words, len(places))
            places += [(row0 + i * p.rows + r, col0) for i in range(interleave) for r in reversed(range(p.rows))]
            last = tile == tiles - 1 and end == groups
            commands.append(_command(p, False, last, first == 0, keep, interleave, end - first))
    return ArrayStreams(commands, west, north, partial, np.array(places), m_tiles * step, n_tiles * p.cols)


def ws_streams(
    parameters: ArrayParameters, a: np.ndarray, values: np.ndarray, indices: np.ndarray, group: int, m_chunk: int
) -> ArrayStreams:
    """Weight-stationary product; ``m_chunk`` rows are streamed through every weight tile. Operands as in OS."""
    groups, keep, n = _check(parameters, values, group)
    p, m = parameters, a.shape[0]
    k_tiles, n_tiles = -(-groups // p.rows), -(-n // p.cols)
    rows = _groups(a, m, k_tiles * p.rows, group)
    words = _words(p, values, indices, k_tiles * p.rows, n_tiles)
    west: list[list[int]] = [[] for _ in range(p.rows)]
    north: list[list[int]] = [[] for _ in range(p.cols)]
    commands: list[int] = []
    partial: list[int] = []
    places: list[tuple[int, int]] = []
    for m0 in range(0, m, m_chunk):
        count = min(m_chunk, m - m0)
        for tile in range(n_tiles):
            for kt in range(k_tiles):
                for r in range(p.rows):
                    west[r] += [rows[row][kt * p.rows + r] for row in range(m0, m0 + count)]
                for c in range(p.cols):
                    for r in reversed(range(p.rows)):
                        north[c] += words[kt * p.rows + r][tile * p.cols + c]
                if kt:
                    partial += range(len(places) - count, len(places))
                places += [(row, tile * p.cols) for row in range(m0, m0 + count)]
                last = kt == k_tiles - 1 and tile == n_tiles - 1 and m0 + count == m
                commands.append(_command(p, True, last, kt == 0, keep, 1, count))
    return ArrayStreams(commands, west, north, partial, np.array(places), m, n_tiles * p.cols)


def _check(parameters: ArrayParameters, values: np.ndarray, group: int) -> tuple[int, int, int]:
    groups, keep, n = values.shape
    if keep > parameters.max_keep:
        raise NmsatError.rule("array", "keep", f"at most {parameters.max_keep}", keep)
    if group > parameters.max_group:
        raise NmsatError.rule("array", "group", f"at most {parameters.max_group}", group)
    return groups, keep, n


def _command(p: ArrayParameters, ws: bool, last: bool, first: bool, keep: int, interleave: int, count: int) -> int:
    if count >> COUNT_BITS:
        raise NmsatError.rule("array", "count", f"below {1 << COUNT_BITS}", count)
    word, at = ws | last << 1 | first << 2, 3
    for value, width in ((keep, p.max_keep.bit_length()), (interleave, p.max_interleave.bit_length())):
        word, at = word | value << at, at + width
    return word | count << at


def _groups(a: np.ndarray, rows: int, groups: int, group: int) -> list[list[int]]:
    """Words of ``west``: (rows, groups), zero padded."""
    padded = np.zeros((rows, groups * group), np.float16)
    padded[: a.shape[0], : a.shape[1]] = a
    packed = to_bits(padded).reshape(rows, groups, group).astype("<u2")
    return [[int.from_bytes(word.tobytes(), "little") for word in row] for row in packed]


def _words(
    p: ArrayParameters, values: np.ndarray, indices: np.ndarray, groups: int, n_tiles: int
) -> list[list[list[int]]]:
    """Words of ``north``: N for every group and column, zero padded."""
    have, keep, n = values.shape
    found = np.zeros((groups, n_tiles * p.cols, keep), np.int64)
    found[:have, :n] = (to_bits(values).astype(np.int64) | indices.astype(np.int64) << 16).transpose(0, 2, 1)
    return found.tolist()


def pack(words: list[int], width: int) -> int:
    """Payload of lanes side by side, the first lowest."""
    if width % 8 == 0:
        return int.from_bytes(b"".join(word.to_bytes(width // 8, "little") for word in words), "little")
    total = 0
    for word in reversed(words):
        total = total << width | word
    return total


def north_width(parameters: ArrayParameters) -> int:
    """Bits of a word at ``north``."""
    return 16 + address_bits(parameters.max_group)


def as_json(streams: ArrayStreams) -> dict[str, Any]:
    """What :func:`.array_bench.run_array` takes, as lists of integers."""
    return {
        "commands": streams.commands,
        "west": streams.west,
        "north": streams.north,
        "partial": streams.partial,
        "outputs": len(streams.places),
    }
