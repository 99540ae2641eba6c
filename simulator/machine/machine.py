"""The whole accelerator in cycles: controller, units and memory of the RTL's top, descriptor by descriptor."""

from __future__ import annotations

from functools import partial

from ...dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program
from ...models.accelerator import Accelerator
from ...models.errors import NmsatError
from .controller import ControllerModel, RunCycles, UnitSlot
from .memory import DmaModel
from .product import ProductModel
from .product_plan import ProductSizes
from .remote import RemoteModel
from .update import UpdateModel, UpdateSizes
from .vector import VectorModel, VectorSizes

FETCH = "fetch"
PAGE = 4096


def image_address(program: Program) -> int:
    """Bytes from the program's address to its image, as the host driver places them: pages of their own."""
    size = DESCRIPTOR_BYTES * (len(program.descriptors) + 1)
    return -(-size // PAGE) * PAGE


class MachineModel:
    """A top and the deterministic memory that the accelerator's file describes, from reset on.

    Parameters
    ----------
    accelerator : Accelerator
    program_address, image_address : int
        Where the program and its image lie: bursts end at pages, so that addresses matter modulo 4096.
    """

    def __init__(self, accelerator: Accelerator, program_address: int = 0, image_address: int = 0) -> None:
        self.accelerator, self._address = accelerator, program_address
        own = "aside_" if accelerator.overlap_units else ""
        readers = dict.fromkeys((FETCH, "r0", "r1", "r2", "r3", f"{own}r0"))
        writers = dict.fromkeys(("w0", "w1", f"{own}w0"))
        self.dma = DmaModel.of(accelerator, tuple(readers), tuple(writers), (FETCH,), image_address)
        read, write = self.dma.readers, self.dma.writers
        self.product = ProductModel(
            ProductSizes.of(accelerator), read["r0"], read["r1"], read["r2"], read["r3"], write["w0"], write["w1"]
        )
        self.update = UpdateModel(UpdateSizes.of(accelerator), read[f"{own}r0"], write[f"{own}w0"])
        vector = partial(VectorModel, VectorSizes.of(accelerator))
        ports, hop = (read[f"{own}r0"], write[f"{own}w0"]), accelerator.slr_hop_cycles
        self.vector = RemoteModel(vector, *ports, hop) if hop else vector(*ports)
        aside = int(accelerator.overlap_units)
        units = (
            UnitSlot(self.product, (Kind.PRODUCT,), 0), UnitSlot(self.update, (Kind.UPDATE, Kind.PRUNE), aside),
            UnitSlot(self.vector, (Kind.VECTOR,), aside),
        )  # fmt: skip
        self._known = {kind for unit in units for kind in unit.kinds} | {Kind.HOST}
        self._controller = ControllerModel(self.dma, units, accelerator.prefetch_descriptors)

    def run(self, program: Program) -> RunCycles:
        """Cycles of every descriptor of a run, END included.

        Raises
        ------
        NmsatError
            The program has a descriptor that the hardware has no unit for.
        """
        for index, item in enumerate(program.descriptors):
            if item.kind not in self._known:
                raise NmsatError.rule("machine", f"descriptor {index}", "of a kind that has a unit", item.kind.name)
        end = Descriptor(Kind.END, {"kind": int(Kind.END)})
        return self._controller.run((*program.descriptors, end), self._address)


__all__ = ["MachineModel", "RunCycles", "image_address"]
