"""A training step with everything taken out that a design could change: distinct products, distinct chains.

A network repeats itself: many of its products and most of its chains have equals. A skeleton holds each once, as rows
of integers that the numba kernels walk for every design.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...dataflow.assembler import work_of
from ...dataflow.compiler import compile_program
from ...dataflow.program import Descriptor, Kind
from ...dataflow.schedule import Options, Work, b_total_bytes
from ...models.accelerator import Accelerator
from ...models.sparsity import Sparsity
from ...models.workload import Workload
from ..energy import issued_macs
from ..timing import Demand, demand

I64 = NDArray[np.int64]
WORK_FIELDS = (
    "m", "n", "kc", "taps", "count", "keep", "group", "group_bytes", "dense", "transposed", "a_bytes", "halo_bytes",
    "b_bytes", "c_bytes", "mask_bytes", "forwarded",
)  # fmt: skip
OTHER_FIELDS = ("engine", "vector_slots", "weights", "groups", "read_bytes", "write_bytes")
ENGINES = ("vector", "wuve", "sore")


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """A workload's step, free of the design.

    Attributes
    ----------
    works : int64 (W, 16)
        Distinct products, columns WORK_FIELDS.
    others : int64 (V, 6)
        Steps beside the array, columns OTHER_FIELDS, in program order chain by chain; ``engine`` indexes ENGINES.
    others_serial_bytes : int64 (V,)
        Bytes of the same steps (read + write) when DRAM and array do not overlap; ``others_serial_read`` the reads.
    products : int64 (P,)
        Indices into ``works``, chain by chain.
    product_ends, other_ends : int64 (H,)
        Where each distinct chain's products and other steps end.
    repeats : int64 (H,)
        How often each distinct chain occurs.
    macs, useful_macs, issued_macs, selected_macs, vector_slots, updated_weights, compares : int
        Totals of the step that no design changes.
    dram_bytes : int
        Footprint.
    max_keep, max_group : int
        What an array needs to run the step's patterns.
    lowered_for : int
        The array's max_group that grouped convolutions were packed for.
    """

    works: I64
    others: I64
    others_serial_read: I64
    products: I64
    product_ends: I64
    other_ends: I64
    repeats: I64
    macs: int
    useful_macs: int
    issued_macs: int
    selected_macs: int
    vector_slots: int
    updated_weights: int
    compares: int
    dram_bytes: int
    max_keep: int
    max_group: int
    lowered_for: int


def skeleton_of(
    workload: Workload,
    *,
    method: str = "bdwp",
    sparsity: str | Sparsity = "2:8",
    batch: int = 512,
    mode: str = "train",
    max_group: int = 32,
    pregenerate: bool = True,
    forward_on_chip: bool = True,
) -> Skeleton:
    """Compile once for a design that holds everything, keep what every design shares.

    ``max_group`` is the array's: lowering packs grouped convolutions by it.

    Raises
    ------
    NmsatError
        As :func:`nmsat.dataflow.compile_program` does.
    """
    pattern = Sparsity.parse(sparsity)
    return _skeleton(workload, method, pattern, batch, mode, max_group, pregenerate, forward_on_chip)


@lru_cache(maxsize=256)
def _skeleton(
    workload: Workload,
    method: str,
    pattern: Sparsity,
    batch: int,
    mode: str,
    max_group: int,
    pregenerate: bool,
    forward_on_chip: bool,
) -> Skeleton:
    options = Options(pregenerate=pregenerate, forward_on_chip=forward_on_chip)
    wide = {"w2e_bytes": 2**32, "n2s_bytes": 2**32, "output_bytes": 2**32}
    design = Accelerator.load("sat").replace(max_keep=max_group, max_group=max_group, **wide)
    program = compile_program(
        workload, design, method=method, sparsity=pattern, batch=batch, mode=mode, options=options
    )
    works: dict[Work, int] = {}
    chains: dict[tuple[tuple[int, ...], tuple[tuple[Demand, int], ...]], int] = {}
    totals = dict.fromkeys(("macs", "useful", "issued", "selected", "slots", "weights", "compares"), 0)
    for chain in _chains(program.descriptors):
        products: list[int] = []
        others: list[tuple[Demand, int]] = []
        for item in chain:
            if item.kind is Kind.PRODUCT:
                work = work_of(item, design)
                products.append(works.setdefault(work, len(works)))
                macs = work.m * work.n * work.count * work.kc * (1 if work.transposed else work.taps) // item["block"]
                totals["macs"] += macs
                totals["issued"] += issued_macs(work)
                totals["selected"] += 0 if work.pattern.is_dense else issued_macs(work)
                totals["useful"] += macs if item["block"] > 1 else macs * work.pattern.keep // work.pattern.group
            else:
                asks = demand(item)
                others.append((asks, demand(item, dram_overlap=False).read_bytes))
                totals["slots"] += asks.vector_slots
                totals["weights"] += asks.weights
                totals["compares"] += asks.compares
        key = tuple(products), tuple(others)
        chains[key] = chains.get(key, 0) + 1
    patterns = [work.pattern for work in works if not work.pattern.is_dense]
    if method != "dense":
        patterns.append(pattern)  # asked of the array even where no layer takes it
    flat = [asks for _, others in chains for asks, _ in others]
    return Skeleton(
        works=np.array([_work_row(work) for work in works], np.int64).reshape(-1, len(WORK_FIELDS)),
        others=np.array([_other_row(asks) for asks in flat], np.int64).reshape(-1, len(OTHER_FIELDS)),
        others_serial_read=np.array([serial for _, others in chains for _, serial in others], np.int64),
        products=np.array([index for products, _ in chains for index in products], np.int64),
        product_ends=np.cumsum([len(products) for products, _ in chains], dtype=np.int64),
        other_ends=np.cumsum([len(others) for _, others in chains], dtype=np.int64),
        repeats=np.array(list(chains.values()), np.int64),
        macs=totals["macs"],
        useful_macs=totals["useful"],
        issued_macs=totals["issued"],
        selected_macs=totals["selected"],
        vector_slots=totals["slots"],
        updated_weights=totals["weights"],
        compares=totals["compares"],
        dram_bytes=program.dram_bytes,
        max_keep=max((pattern.keep for pattern in patterns), default=1),
        max_group=max((pattern.group for pattern in patterns), default=1),
        lowered_for=max_group,
    )


def _chains(descriptors: tuple[Descriptor, ...]) -> list[list[Descriptor]]:
    found: list[list[Descriptor]] = []
    for item in descriptors:
        if not found or item["chain"] != found[-1][0]["chain"]:
            found.append([])
        found[-1].append(item)
    return found


def _work_row(work: Work) -> list[int]:
    pattern = work.pattern
    return [
        work.m, work.n, work.kc, work.taps, work.count, pattern.keep, pattern.group, pattern.group_bytes,
        pattern.is_dense, work.transposed, work.a_bytes, work.halo_bytes, b_total_bytes(work), work.c_bytes,
        work.mask_bytes, work.forwarded,
    ]  # fmt: skip


def _other_row(asks: Demand) -> list[int]:
    engine = ENGINES.index(asks.engine)
    return [engine, asks.vector_slots, asks.weights, asks.groups, asks.read_bytes, asks.write_bytes]
