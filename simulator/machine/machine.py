"""The whole accelerator in cycles: controller, units and memory of the RTL's top, descriptor by descriptor."""

from __future__ import annotations

from collections.abc import Iterator

from ...dataflow.program import DESCRIPTOR_BYTES, Descriptor, Kind, Program
from ...models.accelerator import Accelerator
from ...models.errors import NmsatError
from .fetch import FetchModel
from .memory import DmaModel
from .product import ProductModel
from .product_plan import ProductSizes
from .update import UpdateModel, UpdateSizes
from .vector import VectorModel, VectorSizes

FETCH = "fetch"
READERS = (FETCH, "r0", "r1", "r2", "r3")
WRITERS = ("w0", "w1")
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
        self.dma = DmaModel.of(accelerator, READERS, WRITERS, (FETCH,), image_address)
        read, write = self.dma.readers, self.dma.writers
        self.product = ProductModel(
            ProductSizes.of(accelerator), read["r0"], read["r1"], read["r2"], read["r3"], write["w0"], write["w1"]
        )
        self.update = UpdateModel(UpdateSizes.of(accelerator), read["r0"], write["w0"])
        self.vector = VectorModel(VectorSizes.of(accelerator), read["r0"], write["w0"])
        self._units = {
            Kind.PRODUCT: self.product, Kind.UPDATE: self.update, Kind.PRUNE: self.update, Kind.VECTOR: self.vector
        }  # fmt: skip
        self._fetch: FetchModel | None = None
        self.cycle = 0

    def run(self, program: Program) -> list[int]:
        """Cycles of every descriptor of a run, END included.

        While the machine is stopped at a HOST descriptor it goes on fetching; the host is taken to need longer.

        Raises
        ------
        NmsatError
            The program has a descriptor that the hardware has no unit for.
        """
        end = Descriptor(Kind.END, {"kind": int(Kind.END)})
        return list(self._run((*program.descriptors, end)))

    def _run(self, items: tuple[Descriptor, ...]) -> Iterator[int]:
        port = self.dma.readers[FETCH]
        self._fetch = fetch = FetchModel(port, self._address, len(items), self.accelerator.prefetch_descriptors)
        for index, item in enumerate(items):
            if item.kind not in (*self._units, Kind.HOST, Kind.END):
                raise NmsatError.rule("machine", f"descriptor {index}", "of a kind that has a unit", item.kind.name)
            begun, stopped = self.cycle, 0
            while not fetch.full:
                self._step()
            if item.kind is Kind.END:
                self._step()  # dispatch
                while not self.dma.idle:
                    self._step()
                self._step()
            elif item.kind is Kind.HOST:
                fetch.take = True
                self._step()
                stopped = self._stop()
            else:
                unit = self._units[item.kind]
                while not unit.room:
                    self._step()
                unit.start(item)
                fetch.take = True
                self._step()
                while not unit.done:
                    self._step()
                unit.take_done = True
                self._step()
            yield self.cycle - begun - stopped
        self._fetch = None

    def _stop(self) -> int:
        """Cycles until nothing moves any more: a host takes longer. They do not count."""
        begun = self.cycle
        assert self._fetch is not None
        while not self._fetch.settled or not self.dma.silent:
            self._step()
        return self.cycle - begun

    def _step(self) -> None:
        if self._fetch is not None:
            self._fetch.step()
        self.product.step()
        self.update.step()
        self.vector.step()
        self.dma.step()
        self.cycle += 1


__all__ = ["MachineModel", "image_address"]
