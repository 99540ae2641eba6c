"""Closed form over a program: cycles, stalls, traffic and energy of every descriptor, from the descriptor alone.

Steps of one chain overlap (docs/accelerator.md, section 6): the array's products follow each other, each taking
max(compute, its own DRAM time) + fill; the vector lanes, WUVE, SORE and DRAM run beside them, and only what they need
beyond that is exposed. Without overlap everything is a serial sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dataflow import program as fmt
from ..dataflow.assembler import work_of
from ..dataflow.program import Descriptor, Kind, Mode, Order, Program, Stage, functions_of
from ..dataflow.schedule import Cost, Mapping, Options, cost
from ..dataflow.vector_timing import words
from ..models.accelerator import Accelerator
from ..models.sparsity import Sparsity


@dataclass(slots=True)
class StepTime:
    """Timing of one descriptor.

    Attributes
    ----------
    compute_cycles : int
        Cycles its engine is busy.
    dram_cycles : int
        Cycles its bytes take at full bandwidth.
    cycles : int
        Its share of the chain's time: for products at least compute and DRAM; for vector work the exposed part.
    shown_cycles : int
        Those of its ``cycles`` in which its engine computes; the rest are stalls. A chain's vector work shows as
        computing for as long as its busiest engine outlasts the array, and as stalled while DRAM alone is late.
    """

    item: Descriptor
    engine: str  # array, vector, wuve or sore
    compute_cycles: int
    dram_cycles: int
    read_bytes: int
    write_bytes: int
    macs: int = 0
    useful_macs: int = 0
    cost: Cost | None = None
    cycles: int = 0
    shown_cycles: int = 0


def time_program(program: Program, accelerator: Accelerator, options: Options) -> list[StepTime]:
    """Time every descriptor; the result is in program order and its ``cycles`` add up to the step's time."""
    steps = [_busy(item, accelerator, options) for item in program.descriptors]
    chain: list[StepTime] = []
    for step in steps:
        if chain and step.item["chain"] != chain[0].item["chain"]:
            _share(chain, accelerator, options)
            chain = []
        chain.append(step)
    if chain:
        _share(chain, accelerator, options)
    return steps


def mapping_of(item: Descriptor) -> Mapping:
    """The mapping a product descriptor carries."""
    return Mapping(
        Mode(item["mode"]),
        Order(item["order"]),
        item["keep"],
        item["group"],
        item["interleave"],
        item["m_chunk"],
        item["n_chunk"],
        item.flag(fmt.A_RESIDENT),
        item.flag(fmt.B_RESIDENT),
    )


def _busy(item: Descriptor, accelerator: Accelerator, options: Options) -> StepTime:
    """Busy cycles and bytes of one descriptor, before overlap."""
    if item.kind is Kind.PRODUCT:
        work, mapping = work_of(item, accelerator), mapping_of(item)
        found = cost(accelerator, work, mapping, tile_overlap=options.tile_overlap)
        block = item["block"]
        k = work.kc * (1 if work.transposed else work.taps)
        macs = work.m * work.n * work.count * k // block
        useful = macs if block > 1 else macs * mapping.keep // mapping.group
        dram = accelerator.dram_cycles(found.read_bytes + found.write_bytes)
        return StepTime(
            item,
            "array",
            found.compute_cycles,
            dram,
            found.read_bytes,
            found.write_bytes,
            macs,
            useful,
            found,
        )
    asks = demand(item, dram_overlap=options.dram_overlap)
    busy = max(
        -(-asks.vector_slots // accelerator.vector_lanes),
        words(asks.weights, accelerator.wuve_lanes),
        words(asks.groups, accelerator.sore_lanes),
    )
    dram = accelerator.dram_cycles(asks.read_bytes + asks.write_bytes)
    return StepTime(item, asks.engine, busy, dram, asks.read_bytes, asks.write_bytes)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a descriptor that is no product asks of the engines beside the array, whatever their widths.

    Attributes
    ----------
    engine : str
        vector, wuve or sore: where it counts as busy.
    vector_slots, weights, groups : int
        Element slots of the vector lanes, weights WUVE updates, groups SORE prunes.
    read_bytes, write_bytes : int
    compares : int
        Comparisons in SORE: all pairs of every group.
    """

    engine: str
    vector_slots: int
    weights: int
    groups: int
    read_bytes: int
    write_bytes: int
    compares: int = 0


def demand(item: Descriptor, *, dram_overlap: bool = True) -> Demand:
    """The demand of a vector, update or prune descriptor."""
    if item.kind in (Kind.VECTOR, Kind.HOST):
        read = item["read_bytes"]
        if not dram_overlap and "statistics" in functions_of(item["functions"]):
            read += 2 * item["lane_cycles"]  # dY no longer comes from the product beside it
        return Demand("vector", item["lane_cycles"], 0, 0, read, item["write_bytes"])
    if item.kind is Kind.UPDATE:
        return _update(item)
    elements = item["out_channels"] * item["in_channels"]
    groups = item["out_channels"]
    keep = item["ff_keep"] or item["bp_keep"]
    group = item["ff_group"] or item["bp_group"]
    gradient = item.flag(fmt.SWAPPED)  # its compressed copy goes through memory; weights go straight in
    read = 2 * elements if gradient else 0
    write = groups * Sparsity(keep, group).group_bytes if gradient else 0
    return Demand("sore", 0, 0, groups, read, write, groups * _pairs(group))


def _pairs(group: int) -> int:
    return group * (group - 1) // 2


def _update(item: Descriptor) -> Demand:
    """WUVE and SORE: reads g (on chip), w32, v32 and what the decay's mask is found from; writes w32, v32, the copies.

    The mask is the index plane of this step's forward copy or, without one, SORE's selection of the dense copy.
    """
    weights = item["out_channels"] * item["taps"] * item["in_channels"]
    read = 8 * weights
    write = 8 * weights + (2 * weights if item.flag(fmt.OUT_FP32) else 0)
    groups = compares = 0
    if item["mask_keep"]:
        mask = Sparsity(item["mask_keep"], item["mask_group"])
        number = weights // mask.group
        if item["ff_keep"]:
            read += number * mask.index_bytes
        else:
            read += 2 * weights
            groups += number
            compares += number * _pairs(mask.group)
    for stage in ("ff", "bp"):
        keep, group = item[f"{stage}_keep"], item[f"{stage}_group"]
        if keep:
            number = weights // group
            groups += number
            compares += number * _pairs(group)
            write += number * Sparsity(keep, group).group_bytes
    return Demand("wuve", 0, weights, groups, read, write, compares)


def _share(chain: list[StepTime], accelerator: Accelerator, options: Options) -> None:
    """Fill in ``cycles`` of a chain's steps."""
    if not options.dram_overlap:
        for step in chain:
            step.cycles, step.shown_cycles = step.compute_cycles + step.dram_cycles, step.compute_cycles
        return
    others = [step for step in chain if step.cost is None]
    base = 0
    for step in chain:
        if step.cost is not None:
            busy = max(step.compute_cycles, step.dram_cycles) + step.cost.fill_cycles
            step.cycles, step.shown_cycles = min(busy, step.compute_cycles + step.dram_cycles), step.compute_cycles
            base += step.cycles
    busy_by_engine = [
        sum(step.compute_cycles for step in others if step.engine == engine) for engine in ("vector", "wuve", "sore")
    ]
    dram = accelerator.dram_cycles(sum(step.read_bytes + step.write_bytes for step in chain))
    exposed = max(base, dram, *busy_by_engine) - base
    computing = max(max(busy_by_engine) - base, 0)
    weights = [max(step.compute_cycles, step.dram_cycles) for step in others]
    for step, weight in zip(others, weights, strict=True):
        total = sum(weights)
        step.cycles = exposed * weight // total if total else 0
    if others:
        others[-1].cycles += exposed - sum(step.cycles for step in others)
    for step in others:
        step.shown_cycles = min(step.cycles, computing)
        computing -= step.shown_cycles


def stage_name(step: StepTime) -> str:
    """ff, bp or wu for products; vector for everything else."""
    return Stage(step.item["stage"]).name.lower() if step.engine == "array" else "vector"
