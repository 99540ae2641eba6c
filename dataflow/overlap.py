"""Which descriptors may be at work together: tensors read and written, and the ``beside`` field made from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import program as fmt
from .program import Descriptor, Kind, Program, Tensor, steps_of

_GRADIENTS = ("gradient_address", "gradient_1_address", "gradient_2_address")


def address_fields(item: Descriptor) -> tuple[set[str], set[str]]:
    """Names of the address fields that a descriptor reads through, and of those that it writes through."""
    if item.kind is Kind.PRODUCT:
        return _product(item)
    if item.kind is Kind.UPDATE:
        return _update(item)
    if item.kind is Kind.PRUNE:
        return ({"w16_address"}, {"bp_address", "bp_index_address"}) if item.flag(fmt.SWAPPED) else (set(), set())
    reads = {"source_address", *_GRADIENTS[: item["gradients"]]}
    if "add" in steps_of(item["steps"]):
        reads.add("second_address")
    return reads, {"target_address"} | ({"second_target_address"} if item["second_target_address"] else set())


def _product(item: Descriptor) -> tuple[set[str], set[str]]:
    reads, writes = {"a_address", "b_address"}, {"c_address"}
    if item["keep"] < item["group"] and item["block"] <= 1 and not item.flag(fmt.ONLINE_PRUNE):
        reads.add("index_address")
    if item.flag(fmt.APPLY_MASK):
        reads.add("mask_address")
    if item.flag(fmt.WRITE_MASK):
        writes.add("mask_address")
    return reads, writes


def _update(item: Descriptor) -> tuple[set[str], set[str]]:
    reads = {"w32_address", "v32_address", "gradient_address", "rule_address"}
    writes = {"w32_address", "v32_address"}
    if item.flag(fmt.OUT_FP32):
        writes.add("w16_address")
    for stage in ("ff", "bp"):
        if item[f"{stage}_keep"]:
            writes |= {f"{stage}_address", f"{stage}_index_address"}
    if item["mask_keep"]:
        reads |= {"ff_address", "ff_index_address"} if item["ff_keep"] else {"w16_address"}
    return reads, writes


@dataclass(frozen=True, slots=True)
class _Use:
    """Places in the tensor map that a descriptor reads and writes; None: it is ordered after and before all others."""

    reads: frozenset[int]
    writes: frozenset[int]

    def meets(self, other: _Use) -> bool:
        """One writes what the other reads or writes."""
        return bool(self.writes & (other.reads | other.writes) or self.reads & other.writes)


def with_overlap(program: Program) -> Program:
    """The program with ``beside`` in every descriptor: the kinds at work next to which it may start.

    Hardware starts descriptors in order and has at most one of a kind at work, so that only the last of each kind can
    still be; a kind is allowed where neither writes a tensor that the other reads or writes. Accesses stay inside the
    tensor that an address is in, which executors check. Host steps, and descriptors without values or with an
    address outside every tensor, are alone.
    """
    tensors = sorted(program.tensors, key=lambda item: item.address)
    starts = [item.address for item in tensors]
    last: dict[Kind, _Use | None] = {}
    found = []
    for item in program.descriptors:
        use = _use(item, tensors, starts)
        beside = 0
        for kind, other in last.items():
            if use is not None and other is not None and not use.meets(other):
                beside |= 1 << kind
        found.append(Descriptor(item.kind, item.fields | {"beside": beside}))
        if item.kind is Kind.HOST:
            last.clear()
        else:
            last[item.kind] = use
    return replace(program, descriptors=tuple(found))


def _use(item: Descriptor, tensors: list[Tensor], starts: list[int]) -> _Use | None:
    if item.kind is Kind.HOST or item.flag(fmt.NO_VALUES):
        return None
    sides = []
    for names in address_fields(item):
        places = set(_places((item[name] for name in names), tensors, starts))
        if None in places:
            return None
        sides.append(frozenset(place for place in places if place is not None))
    return _Use(*sides)


def _places(addresses: Iterable[int], tensors: list[Tensor], starts: list[int]) -> Iterable[int | None]:
    for address in addresses:
        place = bisect_right(starts, address) - 1
        inside = place >= 0 and address < tensors[place].address + tensors[place].bytes
        yield place if inside else None


__all__ = ["address_fields", "with_overlap"]
