"""A flat DRAM image, its tensors by name, and the guard that every access stays inside one of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...dataflow.program import Program, Tensor
from ...models.errors import NmsatError

U8 = NDArray[np.uint8]
Array = NDArray[Any]


def new_image(program: Program) -> U8:
    """An image of the program's size, all zero bytes.

    Zero is what the host must leave in the gradient of pixels that a convolution's stride passes over: no product
    writes there.
    """
    return np.zeros(program.dram_bytes, np.uint8)


def load_tensors(program: Program, image: U8, tensors: Mapping[str, Array]) -> None:
    """Write arrays into the image, in place.

    Parameters
    ----------
    tensors : mapping of str to array
        Tensor name to array of the tensor's dtype and shape, or of another shape with as many elements.

    Raises
    ------
    NmsatError
        For an unknown name, another dtype, another number of elements, or an image of another size. Nothing is then
        written.
    """
    places = {item.name: item for item in program.tensors}
    checked: list[tuple[Tensor, Array]] = []
    for name, array in tensors.items():
        item = _named(places, name)
        found = np.asarray(array)
        if found.dtype != np.dtype(item.dtype):
            raise NmsatError.rule("program", f"{name}.dtype", item.dtype, found.dtype.name)
        if found.size * found.itemsize != item.bytes:
            raise NmsatError.rule("program", f"{name}.shape", f"{item.shape}", found.shape)
        checked.append((item, found))
    _check_image(program, image)
    for item, found in checked:
        little = np.ascontiguousarray(found, found.dtype.newbyteorder("<"))
        image[item.address : item.address + item.bytes] = little.reshape(-1).view(np.uint8)


def read_tensor(program: Program, image: U8, name: str) -> Array:
    """A copy of a tensor, in its dtype and shape; NmsatError for an unknown name or an image of another size."""
    item = _named({item.name: item for item in program.tensors}, name)
    _check_image(program, image)
    stored = image[item.address : item.address + item.bytes].view(np.dtype(item.dtype).newbyteorder("<"))
    return stored.astype(item.dtype).reshape(item.shape)


def _named(places: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in places:
        raise NmsatError.rule("program", "tensor", f"one of {', '.join(sorted(places)[:8])}, ...", name)
    return places[name]


def _check_image(program: Program, image: U8) -> None:
    if image.dtype != np.uint8 or image.shape != (program.dram_bytes,):
        rule = f"uint8 ({program.dram_bytes},) as new_image makes it"
        raise NmsatError.rule("program", "image", rule, (image.dtype.name, image.shape))


@dataclass(frozen=True, slots=True)
class Window:
    """A tensor's elements from an address on: offsets are in elements and must stay inside the tensor."""

    name: str
    elements: Array

    def read(self, offsets: NDArray[np.int64]) -> Array:
        """Elements at ``offsets`` (any shape)."""
        self._check(offsets)
        return self.elements[offsets]

    def write(self, offsets: NDArray[np.int64], values: Array) -> None:
        """Store ``values`` at ``offsets``."""
        self._check(offsets)
        self.elements[offsets] = values

    def first(self, count: int) -> Array:
        """The first ``count`` elements, as a view."""
        if count > len(self.elements):
            raise self._outside(count - 1)
        return self.elements[:count]

    def _check(self, offsets: NDArray[np.int64]) -> None:
        if offsets.size:
            for place in (int(offsets.min()), int(offsets.max())):
                if not 0 <= place < len(self.elements):
                    raise self._outside(place)

    def _outside(self, place: int) -> NmsatError:
        rule = f"inside tensor {self.name!r}, {len(self.elements)} elements from the address on"
        return NmsatError.rule("program", "access", rule, place)


class Memory:
    """An image with its tensor map; ``image`` is changed in place."""

    def __init__(self, program: Program, image: U8) -> None:
        _check_image(program, image)
        self.image = image
        self._tensors = sorted(program.tensors, key=lambda item: item.address)
        self._addresses = [item.address for item in self._tensors]

    def at(self, address: int, dtype: str) -> Window:
        """The window of the tensor that holds ``address``.

        Raises
        ------
        NmsatError
            If no tensor holds the address, its dtype is another, or the address cuts an element.
        """
        place = bisect_right(self._addresses, address) - 1
        item = self._tensors[place] if place >= 0 else None
        if item is None or address >= item.address + item.bytes:
            raise NmsatError.rule("program", "address", "inside a declared tensor", hex(address))
        if item.dtype != dtype:
            raise NmsatError.rule("program", f"access to {item.name!r}", f"{item.dtype}", dtype)
        kind = np.dtype(dtype)
        if (address - item.address) % kind.itemsize:
            raise NmsatError.rule("program", "address", f"a multiple of {kind.itemsize} bytes", hex(address))
        return Window(item.name, self.image[address : item.address + item.bytes].view(kind))
