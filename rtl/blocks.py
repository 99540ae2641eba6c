"""The blocks by name, as an accelerator describes them."""

from __future__ import annotations

from typing import Any

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from .array_parameters import ArrayParameters
from .epilogue import Epilogue
from .product.unit import ProductUnit
from .sore import Sore
from .stce import Stce
from .top import Top
from .transposer import Transposer
from .uspe import Uspe
from .window_drain import Drain
from .window_uspe import WindowUspe
from .wuve import Wuve


def largest_group(accelerator: Accelerator) -> int:
    """Largest M of SORE and side of its transpose buffer: the largest power of two that the array covers."""
    if accelerator.max_group < 2:
        raise NmsatError.rule("sore", "max_group", "at least 2", accelerator.max_group)
    return 1 << accelerator.max_group.bit_length() - 1


def component_of(name: str, accelerator: Accelerator) -> Any:
    """A new component by name; ``uspe`` is one element, ``product`` the product unit, ``top`` the accelerator.

    ``drain`` is there with a window only.
    """
    if name == "stce":
        return Stce.from_accelerator(accelerator)
    if name == "uspe":
        parameters = ArrayParameters.from_accelerator(accelerator)
        return (WindowUspe if parameters.window else Uspe)(**parameters.element())
    if name == "sore":
        return Sore.from_accelerator(accelerator)
    if name == "transposer":
        return Transposer(size=largest_group(accelerator))
    if name == "wuve":
        return Wuve.from_accelerator(accelerator)
    if name == "epilogue":
        return Epilogue.from_accelerator(accelerator)
    if name == "drain":
        return Drain.from_accelerator(accelerator)
    if name == "product":
        return ProductUnit.from_accelerator(accelerator)
    if name == "top":
        return Top(accelerator)
    names = "stce, uspe, sore, transposer, wuve, epilogue, drain, product, top"
    raise NmsatError.rule("", "block", f"one of {names}", name)
