"""The blocks by name, as an accelerator describes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..models.accelerator import Accelerator
from ..models.errors import NmsatError
from .array_parameters import ArrayParameters
from .cache import built
from .emit import Emission, Emitted, Port
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


def emitted_block(
    name: str, accelerator: Accelerator, label: str | None = None, *, primitives: bool = False
) -> Emitted:
    """A block as RTLIL, from the cache (:mod:`.cache`) if this source and this Amaranth have written it before.

    A top takes Amaranth many seconds. What a caller has changed in memory, as a planted fault, is not seen: convert a
    component by :class:`.emit.Emission` then.

    Parameters
    ----------
    name, accelerator
        As of :func:`component_of`.
    label : str, optional
        Name of the outermost module, default ``name``.
    primitives : bool
        See :class:`.emit.Emission`.
    """
    label = label or name

    def build(folder: Path) -> None:
        emitted = Emission(primitives=primitives).emit(component_of(name, accelerator), label)
        described = asdict(emitted)
        (folder / "design.il").write_text(described.pop("rtlil"))
        (folder / "design.json").write_text(json.dumps(described))

    inputs = [name, label, str(primitives), accelerator.model_dump_json(), _source_digest(), version("amaranth")]
    folder = built("rtlil", inputs, build)
    described = json.loads((folder / "design.json").read_text())
    described["ports"] = tuple(Port(**port) for port in described["ports"])
    return Emitted(rtlil=(folder / "design.il").read_text(), **described)


@cache
def _source_digest() -> str:
    """Of everything in this package that hardware is written from."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in ("rtl", "models", "dataflow"):
        for path in sorted(path for pattern in ("*.py", "*.yaml") for path in (package / folder).rglob(pattern)):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
