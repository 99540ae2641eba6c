"""The trainer's matrix products: fast ones by BLAS, or golden ones in the array's exact summation order.

Both take binary16 operands and return binary32 sums; only the order of the additions differs. A golden product needs
to know its mapping: :class:`ProductOrder`, one for each layer and stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import NmsatError
from ..golden import WindowSums, compress, dense_operand, product_os, product_window, product_ws
from ..golden.floats import F16, F32
from ..golden.nm_format import U8
from ..sparsity import Sparsity
from ..window import Window

STAGES = ("ff", "bp", "wu")


@dataclass(frozen=True, slots=True)
class ProductOrder:
    """Summation order of one product (section 5 of docs/accelerator.md).

    Attributes
    ----------
    lanes : int
        N of the dense pattern N:N; an N:M product has the N lanes of its own pattern.
    rows : int or None
        Array rows R of a weight-stationary product, whose k-tiles are R groups; None: output-stationary.
    """

    lanes: int = 1
    rows: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= 32:
            raise NmsatError.rule("training", "lanes", "1 to 32", self.lanes)
        if self.rows is not None and self.rows < 1:
            raise NmsatError.rule("training", "rows", "at least 1", self.rows)


class Products(Protocol):
    """C[m, n] = sum over taps and channels of A[m, tap, channel] B[tap, channel, n]."""

    def multiply(self, layer: str, stage: str, part: int, a: F16, b: F16, pattern: Sparsity, swapped: bool) -> F32:
        """Multiply.

        Parameters
        ----------
        layer, stage : str
            Whose product it is; stage is ff, bp or wu.
        part : int
            Which product of the stage: the phases of a strided backward product count from 0.
        a : float16 array (m, taps, kc)
        b : float16 array (taps, kc, n)
        pattern : Sparsity
            N:M that the sparse operand obeys along kc, or dense.
        swapped : bool
            The sparse operand is A (SDGP), else B.

        Returns
        -------
        float32 array (m, n)
        """
        ...


@dataclass(frozen=True, slots=True)
class BlasProducts:
    """binary32 matrix products of the widened operands: same inputs, another summation order, fast."""

    def multiply(self, layer: str, stage: str, part: int, a: F16, b: F16, pattern: Sparsity, swapped: bool) -> F32:
        from .kernels import fast_widen

        left = a.reshape(len(a), -1)
        right = b.reshape(left.shape[1], -1)
        with np.errstate(over="ignore", invalid="ignore"):
            return _widened(left, fast_widen) @ _widened(right, fast_widen)


@dataclass(frozen=True, slots=True)
class GoldenProducts:
    """Products bit for bit as the array forms them.

    Attributes
    ----------
    orders : mapping of (layer, stage) or (layer, stage, part) to ProductOrder
        The mappings; the longer key wins.
    default : ProductOrder
        Of products that ``orders`` does not name.
    """

    orders: Mapping[tuple[str, str] | tuple[str, str, int], ProductOrder] = field(default_factory=dict)
    default: ProductOrder = field(default_factory=ProductOrder)

    def order(self, layer: str, stage: str, part: int) -> ProductOrder:
        """The order of one product."""
        return self.orders.get((layer, stage, part), self.orders.get((layer, stage), self.default))

    def multiply(self, layer: str, stage: str, part: int, a: F16, b: F16, pattern: Sparsity, swapped: bool) -> F32:
        order = self.order(layer, stage, part)
        flat, values, indices, group = _operands(a, b, pattern, swapped, order.lanes)
        if order.rows is None:
            found = product_os(flat, values, indices, group)
        else:
            found = product_ws(flat, values, indices, group, order.rows)
        return np.ascontiguousarray(found.T) if swapped else found


@dataclass(frozen=True, slots=True)
class WindowProducts:
    """Products bit for bit as an array with the window accumulator forms them, whatever its mappings.

    Weight gradients are rounded to binary32; all others to odd, since binary16 follows (section 11).

    Attributes
    ----------
    window : Window
    """

    window: Window = field(default_factory=Window)

    def sums(self, a: F16, b: F16, pattern: Sparsity, swapped: bool) -> WindowSums:
        """The exact sums; transposed if ``swapped``."""
        flat, values, indices, group = _operands(a, b, pattern, swapped, 1)
        return product_window(flat, values, indices, group, self.window)

    def multiply(self, layer: str, stage: str, part: int, a: F16, b: F16, pattern: Sparsity, swapped: bool) -> F32:
        found = self.sums(a, b, pattern, swapped).to_binary32(odd=stage != "wu")
        return np.ascontiguousarray(found.T) if swapped else found


def _operands(a: F16, b: F16, pattern: Sparsity, swapped: bool, lanes: int) -> tuple[F16, F16, U8, int]:
    """A (m, k) and B as the golden products take them: (A, values, indices, M)."""
    if swapped:  # C^T = B^T A^T: the same products, added in the same order
        a, b = b.transpose(2, 0, 1), a.transpose(1, 2, 0)
    group = lanes if pattern.is_dense else pattern.group
    if tail := -b.shape[1] % group:
        a, b = np.pad(a, ((0, 0), (0, 0), (0, tail))), np.pad(b, ((0, 0), (0, tail), (0, 0)))
    flat, b = np.ascontiguousarray(a.reshape(len(a), -1)), np.ascontiguousarray(b)
    if pattern.is_dense:
        return flat, *dense_operand(b.reshape(-1, b.shape[2]), group), group
    kept = compress(b, pattern, axis=1)
    shape = (-1, pattern.keep, b.shape[2])
    return flat, kept.values.reshape(shape), kept.indices.reshape(shape), group


def _widened(matrix: F16, convert: Callable[[F16], F32]) -> F32:
    """A matrix in binary32, in the memory order it has: BLAS takes either."""
    return convert(matrix.T).T if matrix.flags.f_contiguous else convert(matrix)
