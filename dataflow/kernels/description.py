"""One description of a CPU kernel, from which every target's code is generated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ...models.errors import NmsatError
from ...models.sparsity import Sparsity

LANES = 4  # binary32 values of one 128-bit vector, on wasm and on NEON
MAX_VECTORS = 16
MAX_GROUP = 64

Index = Literal["delta", "absolute", "packed", "dense", "sliced"]
Stream = Literal["separate", "interleaved"]
Broadcast = Literal["splat", "presplat"]
Arithmetic = Literal["fma", "mul_add"]
Values = Literal["f32", "int8"]
Order = Literal["natural", "by_count"]
Panels = Literal["in_place", "copied"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Y[n, m] = clamp(bias[n] + sum_k W[n, k] X[k, m]) with X and Y in CHW (m contiguous).

    Parameters
    ----------
    mr : int
        Columns of a panel, a multiple of 4: mr / 4 accumulators a row.
    nr : int
        Rows that share one column index, 1, 2 or 4.
    unroll : int
        Stored blocks (N:M: groups) an iteration, 1, 2 or 4; the loop can be left behind each of them. On wasm that exit
        is worth more than the saved branch: Cranelift sinks sums to where control flow needs them, and without an exit
        between them all loads of an iteration are alive at once and spill. An N:M group has one behind every column,
        never taken but for the last.
    index : str
        ``delta``: int32 byte steps from block to block across row ends (XNNPACK's layout);
        ``absolute``: int32 byte offsets from the panel's base; ``packed``: N:M indices, ``pattern.index_bytes``
        bytes a group; ``dense``: no index, every k is stored; ``sliced``: sliced ELLPACK (SELL-4-sigma with sigma = n,
        Kreutzer et al., "A unified sparse matrix data format for efficient general sparse matrix-vector
        multiplication on modern processors with wide SIMD units", 2014): rows sorted by count, four to a slice, one
        row a lane, int32 byte offsets, one column of X at a time. Right for every m, made for m below 4.
    stream : str
        ``separate``: counts, indices and values apart (XNNPACK's layout); ``interleaved``: one stream, a row
        header (count, output step, biases) and then index and values of each block.
    broadcast : str
        ``splat`` loads one value and copies it to the lanes; ``presplat`` stores every value four times.
    arithmetic : str
        ``fma`` rounds once (wasm: relaxed SIMD), ``mul_add`` rounds the product and the sum.
    values : str
        ``f32``, or ``int8`` weights with one binary32 scale a row: acc starts at 0, y = acc * scale + bias,
        both rounded like ``arithmetic``.
    order : str
        ``natural`` row order, or ``by_count``: rows of equal count together, so that the inner loop's exit is
        predictable (interleaved stream only).
    panels : str
        ``in_place`` reads X where it lies; ``copied`` first copies each panel of X to a contiguous buffer of k rows,
        which pays where rows a power of two apart would share a few cache sets.
    group : int
        Panels that a row meets before the next row is read, 1 to 64 (interleaved stream only). 1 reads X once and the
        weights once a panel; more write Y in stretches of ``group`` panels, which pays where Y does not fit a cache:
        rows far apart written a panel at a time are fetched twice and no prefetcher follows them.
    pattern : Sparsity or None
        The N:M pattern of ``index="packed"``.
    clamp : tuple of float or None
        Lower and upper bound of the epilogue: values below become the lower, above the upper; NaN stays.

    Raises
    ------
    NmsatError
        If a field is out of range or the combination has no generator.
    """

    mr: int = 28
    nr: int = 1
    unroll: int = 1
    index: Index = "delta"
    stream: Stream = "separate"
    broadcast: Broadcast = "splat"
    arithmetic: Arithmetic = "fma"
    values: Values = "f32"
    order: Order = "natural"
    pattern: Sparsity | None = None
    panels: Panels = "in_place"
    group: int = 1
    clamp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        choices = {"index": Index, "stream": Stream, "broadcast": Broadcast, "arithmetic": Arithmetic}
        choices |= {"values": Values, "order": Order, "panels": Panels}
        for key, literal in choices.items():
            if getattr(self, key) not in get_args(literal):
                self._refuse(key, "one of " + ", ".join(get_args(literal)))
        if self.mr not in range(LANES, LANES * MAX_VECTORS + 1, LANES):
            self._refuse("mr", f"a multiple of {LANES} from {LANES} to {LANES * MAX_VECTORS}")
        if self.nr not in (1, 2, 4):
            self._refuse("nr", "1, 2 or 4")
        if self.unroll not in (1, 2, 4):
            self._refuse("unroll", "1, 2 or 4")
        if (self.index == "packed") != (self.pattern is not None):
            self._refuse("pattern", 'given exactly when index is "packed"')
        if self.pattern is not None and (self.pattern.is_dense or self.pattern.index_bytes > 2):
            self._refuse("pattern", "sparse with at most 2 index bytes a group")
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.index == "sliced":
            self._check_slices()
        if self.index == "packed" and self.nr != 1:
            self._refuse("index", "delta, absolute or dense when nr is not 1")
        if self.stream == "interleaved" and (self.index in ("packed", "dense") or self.values == "int8"):
            self._refuse("stream", "separate for packed, dense and int8 kernels")
        if self.order == "by_count" and self.stream != "interleaved":
            self._refuse("order", "natural for a separate stream", "the output step lives in the interleaved header")
        if self.group not in range(1, MAX_GROUP + 1):
            self._refuse("group", f"1 to {MAX_GROUP}")
        if self.group > 1 and self.stream != "interleaved":
            self._refuse("group", "1 for a separate stream")
        if self.broadcast == "presplat" and (self.values == "int8" or self.index == "packed"):
            self._refuse("broadcast", "splat for int8 and packed kernels")
        if self.clamp is not None and not self.clamp[0] <= self.clamp[1]:
            self._refuse("clamp", "a lower bound and an upper bound not below it")

    def _check_slices(self) -> None:
        needed = {"mr": LANES, "nr": 1, "stream": "interleaved", "order": "by_count"}
        needed |= {"broadcast": "splat", "values": "f32", "panels": "in_place", "group": 1}
        for key, value in needed.items():
            if getattr(self, key) != value:
                self._refuse(key, f"{value} for sliced kernels")

    def _refuse(self, key: str, rule: str, hint: str = "") -> None:
        raise NmsatError.rule("kernel", key, rule, getattr(self, key), hint)

    @property
    def vectors(self) -> int:
        """Vectors of a full panel, a row."""
        return self.mr // LANES

    @property
    def height(self) -> int:
        """Rows of a block, or of a slice."""
        return LANES if self.index == "sliced" else self.nr

    def lanes(self, m: int) -> int:
        """Columns of a vector of X (k, m): 1 where single columns are taken."""
        return 1 if self.index == "sliced" or m < LANES else LANES

    def x_pitch(self, m: int) -> int:
        """Bytes from one row of X to the next as the kernel reads it, for X (k, m)."""
        return 4 * self.mr if self.panels == "copied" and m >= LANES else 4 * m

    @property
    def accumulators(self) -> int:
        """Vector registers that hold sums in a full panel."""
        return self.vectors * self.nr

    @property
    def value_bytes(self) -> int:
        """Bytes of one stored value."""
        return {"f32": 16 if self.broadcast == "presplat" else 4, "int8": 1}[self.values]

    @property
    def name(self) -> str:
        """Short text that tells kernels apart: tile, then what differs from the plain mul+add kernel."""
        tile = f"1x{self.height}" if self.index == "sliced" else f"{self.mr}x{self.nr}"
        parts = [tile, self.index if self.pattern is None else str(self.pattern)]
        parts += [f"u{self.unroll}"] if self.unroll > 1 else []
        parts += [self.stream] if self.stream != "separate" else []
        parts += [self.broadcast] if self.broadcast != "splat" else []
        parts += [self.order] if self.order != "natural" else []
        parts += [self.values] if self.values != "f32" else []
        parts += [self.panels] if self.panels != "in_place" else []
        parts += [f"g{self.group}"] if self.group > 1 else []
        parts += ["clamp"] if self.clamp else []
        return "-".join([*parts, self.arithmetic])


STANDIN = Kernel(mr=32, arithmetic="mul_add")
"""The shipped wasm kernel's tile and stream: 32x1, unroll 1, mul+add, splat, deltas."""
