"""Faults planted in the blocks, one at a time: `nmsat verify`'s own cases must see every one of them.

A fault is a piece of a module's text replaced by another. Whatever else uses the module's classes and functions is
pointed at the faulty ones for the time of the test.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from nmsat.commands.verify import verify_block
from nmsat.dataflow import program as fmt
from nmsat.models import Accelerator
from nmsat.rtl.product import unit  # a module, as planting replaces what it holds
from nmsat.rtl.registers import Code
from nmsat.rtl.simulators import run_bench
from nmsat.rtl.testbench import BLOCKS  # loads every block: one loaded later would keep a fault
from nmsat.rtl.testbench.ports import run_unit

TINY = Accelerator.load("sat_4x4").replace(
    rows=1, cols=1, max_keep=4, max_group=8, sore_lanes=2, wuve_lanes=1, adder_latency_cycles=4
)
ARRAY = TINY.replace(rows=2, cols=2, max_keep=2, max_group=4)

FAULTS = {
    # name: block, its accelerator, module, text, fault
    "ties round away": ("uspe", TINY, "arithmetic.fp32_adder", "sticky | ones | last)) |", "sticky | ones | 1)) |"),
    "sticky bits lost": ("uspe", TINY, "arithmetic.fp32_adder", "lost | (low_any & (shift16 | far)) |", ""),
    "cancellation keeps a sign": ("uspe", TINY, "arithmetic.fp32_adder", "sign = Mux(nan | zero, 0, sign)", "sign = Mux(nan, 0, sign)"),
    "infinity times zero": ("uspe", TINY, "arithmetic.fp16_multiplier", "(top_a & zero_b) | (zero_a & top_b)", "(top_a & zero_b)"),
    "subnormals one place off": ("uspe", TINY, "arithmetic.fp16_multiplier", "Const(top + 1, 6)", "Const(top, 6)"),
    "index a bit short": ("uspe", TINY, "uspe", "a.word_select(word.index, OPERAND_BITS)", "a.word_select(word.index[:-1], OPERAND_BITS)"),
    "sums never start at zero": ("uspe", TINY, "sequencer", "Mux(number == 0, p.zero_sum, here)", "here"),
    "folds from the wrong lane": ("uspe", TINY, "sequencer", "other + number + 1,", "other + number,"),
    "product not cleared in a fold": ("uspe", TINY, "uspe", "clear=(control.fold, self.control_i.fold)", "clear=None"),
    "skew of WS a cycle short": ("stce", ARRAY, "row", "hops[La], hops[1]", "hops[La - 1], hops[1]"),
    "drain a cycle late": ("stce", ARRAY, "sequencer", "p.adder_latency + p.rows - 2", "p.adder_latency + p.rows - 1"),
    "a row of weights skipped": ("stce", ARRAY, "sequencer", "row.eq(p.rows - 1)", "row.eq(p.rows - 2)"),
    "k-tiles forgotten": ("stce", ARRAY, "column_foot", "(now.step == keep) & ~now.first)", "(now.step == keep) & 0)"),
    "an output word offered twice": ("stce", ARRAY, "stce", "Mux(en, 0, sent | (self.south.valid & self.south.ready))", "0"),
    "sore ties to the higher index": ("sore", TINY, "sore", "words[i][:15] >= words[j][:15]", "words[i][:15] > words[j][:15]"),
    "sore keeps one too many": ("sore", TINY, "sore", "_count(before) < s1.keep", "_count(before) <= s1.keep"),
    "sore indices a bit too wide": ("sore", TINY, "sore", "width * n : width * n + bits]", "width * n : width * n + bits + 1]"),
    "transposer rotates once": ("transposer", TINY, "transposer", "_rotate(found, -s1.column, self.size)", "found"),
    "transposer frees the other bank": ("transposer", TINY, "transposer", "full.bit_select(self.read_bank, 1).eq(0)", "full.bit_select(self.fill_bank, 1).eq(0)"),
    "decay of the kept weights": ("wuve", TINY, "wuve", "Mux(self.mask, 0, rule.lam)", "Mux(self.mask, rule.lam, 0)"),
    "momentum after the step": ("wuve", TINY, "wuve", "a=rule.lr, b=v32", "a=rule.lr, b=gradient"),
    "overflow of binary16 an exponent late": ("epilogue", TINY, "arithmetic.converters", "exponent >= 143", "exponent >= 144"),
    "mask of negative numbers": ("epilogue", TINY, "epilogue", "~x16[15] & x16[:15].any()", "x16[:15].any()"),
    "a stalled word overwritten": ("epilogue", TINY, "stream", "with m.Elif(self.i.valid & ~full):", "with m.Elif(self.i.valid):"),
}  # fmt: skip


def plant(monkeypatch, name: str, old: str, new: str) -> None:
    """Replace what ``nmsat.rtl.<name>`` defines by what its text with the fault defines, everywhere in the package."""
    module = importlib.import_module(f"nmsat.rtl.{name}")
    text = Path(str(module.__file__)).read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
    made = types.ModuleType(module.__name__)
    made.__package__ = module.__package__
    monkeypatch.setitem(sys.modules, module.__name__, made)  # dataclasses look their module up
    exec(compile(text.replace(old, new), str(module.__file__), "exec"), made.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    own = {
        id(value): getattr(made, key)
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    }
    for other in [m for n, m in sys.modules.items() if n.startswith("nmsat.rtl")]:
        for key, value in list(vars(other).items()):
            if id(value) in own:
                monkeypatch.setattr(other, key, own[id(value)])
    for key, block in BLOCKS.items():
        maker = block.make
        if id(getattr(maker, "__self__", None)) in own:
            faulty = getattr(own[id(maker.__self__)], maker.__name__)
            monkeypatch.setitem(BLOCKS, key, dataclasses.replace(block, make=faulty))


def seen(block: str, accelerator: Accelerator) -> bool:
    """Whether some of the first 32 cases fails; they are run a few at a time, since most faults show at once."""
    return any(
        not row["passed"]
        for first in range(0, 32, 4)
        for row in verify_block(block, accelerator, "amaranth", 4, seed=4, first=first)
    )


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_seen(monkeypatch, name):
    block, accelerator, module, old, new = FAULTS[name]
    plant(monkeypatch, module, old, new)
    assert seen(block, accelerator)


@pytest.mark.parametrize("block", ["uspe", "stce", "sore", "transposer", "wuve", "epilogue"])
def test_nothing_is_seen_without_one(block):
    """The same cases pass on the blocks as they are, so that what is seen above is the fault."""
    accelerator = next(accelerator for name, accelerator, *_ in FAULTS.values() if name == block)
    assert [row for row in verify_block(block, accelerator, "amaranth", 12, seed=4) if not row["passed"]] == []


PRODUCT_FAULTS = {
    # name: module, text, fault
    "spilled sums return top row first": ("product.results", "after = Mux(ws, after, column.array_rows - 1 - after)", "after = after"),
    "the drain never rounds to odd": ("product.writer", "payload.odd.eq(~wide)", "payload.odd.eq(0)"),
    "the last k-tile as long as the others": ("product.plan", "Mux(last, plan.k_groups_last, plan.k_groups)", "plan.k_groups"),
}  # fmt: skip


def spilled_product() -> tuple[list[Code], list[float]]:
    """Status and results of the product unit's 2 x 3 by 3 x 1, OS, its sums spilled after two products.

    The first row's sum is just above the middle of two binary16 numbers, which is what binary32 would make of it.
    """
    machine = Accelerator.load("sat_4x4").replace(
        accumulator="window", window_bits=54, rows=2, cols=1, max_keep=1, max_group=2, axi_data_bits=64
    )
    item = fmt.descriptor(
        fmt.Kind.PRODUCT, m=2, n=1, kc=3, k_tile=2, m_chunk=2, n_chunk=1, in_c=3, a_pixel=4, c_stride_m=1, window_lsb=33,
        b_stride_tap=4, b_stride_n=4, b_address=64, c_address=128, in_h=2, out_h=2, c_h=2,
        **dict.fromkeys(
            ("taps_y", "taps_x", "count", "keep", "group", "interleave", "block", "images", "in_w", "out_w", "step_y",
             "step_x", "tap_step_y", "tap_step_x", "b_step_y", "b_step_x", "b_taps_x", "b_stride_k", "c_step_y",
             "c_step_x", "c_w", "c_stride_n", "inner"), 1,
        ),
    )  # fmt: skip
    word = fmt.Program((item,), ("layer",), (), {}).encode()[-512:-256]
    image = np.zeros(128, np.float16)
    image[:8] = [1, 2.0**-11, 2.0**-15, 9, 3, 4, 5, 9]
    image[32:36] = [1, 1, 2.0**-15, 9]
    clients = {"reads": ["a", "b", "indices", "masks"], "writes": ["c", "bits"], "limit": 300}
    given = {"descriptors": [word.hex()], "image": image.tobytes().hex(), **clients}
    made = unit.ProductUnit.from_accelerator(machine)
    found = run_bench(made, "product", run_unit, given, "amaranth")
    after = np.frombuffer(bytes.fromhex(found["image"]), np.float16)
    return found["status"], after[64:66].tolist()


RIGHT = [Code.OK], [1 + 2.0**-10, 7.0]


@pytest.mark.parametrize("name", PRODUCT_FAULTS)
def test_every_fault_of_spilled_sums_is_seen(monkeypatch, name):
    plant(monkeypatch, *PRODUCT_FAULTS[name])
    assert spilled_product() != RIGHT


def test_spilled_sums_are_right_without_one():
    assert spilled_product() == RIGHT
