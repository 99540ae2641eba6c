"""Modules mapped one by one and kept by their text; rows of the whole top; nets that change the region."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from nmsat.fpga import mapping
from nmsat.fpga.board import Board
from nmsat.fpga.buffers import for_card
from nmsat.fpga.crossings import Crossing, crossings, crossings_text
from nmsat.fpga.design_area import _Design
from nmsat.fpga.estimate import Area, area_of_cells, logic_cells
from nmsat.fpga.floorplan import Floorplan, Placement, apply
from nmsat.fpga.hierarchy import Hierarchy, hierarchy_of
from nmsat.fpga.mapping import map_modules
from nmsat.models.accelerator import Accelerator
from nmsat.rtl.emit import Emission, Emitted
from nmsat.rtl.epilogue import Epilogue
from nmsat.rtl.product.unit import ProductUnit
from nmsat.rtl.remote import RemoteEngine, RemoteUnit, engine_wires, wires
from nmsat.rtl.testbench.small_top import small_top
from nmsat.rtl.top import Top
from nmsat.rtl.vector_unit import VectorUnit
from nmsat.rtl.verilog import verilog_of
from nmsat.rtl.wuve import Wuve
from nmsat.rtl.yosys import run_yosys

SMALL = Accelerator.load("sat_4x4").replace(rows=2, max_keep=1, max_group=2)
CUT = SMALL.replace(name="cut", slr_hop_cycles=2)
BOARD = Board.load("vcu1525")


def memory_bank(depth):
    """A component with one memory of 64 bits a word."""

    class Bank(wiring.Component):
        at: Signal
        new: Signal
        old: Signal

        def __init__(self):
            super().__init__({"at": In(range(depth)), "new": In(64), "old": Out(64)})

        def elaborate(self, platform):
            m = Module()
            m.submodules.memory = memory = Memory(shape=64, depth=depth, init=[])
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [read.addr.eq(self.at), write.addr.eq(self.at), write.data.eq(self.new), write.en.eq(1)]
            m.d.comb += self.old.eq(read.data)
            return m

    return Emission().emit(Bank(), "bank")


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Every run of yosys, with an empty cache; a stand-in answers instead."""
    seen: list[list[mapping._Alone]] = []

    def answer(modules):
        seen.append(modules)
        return {module: mapping.Mapped({"LUT1": len(module.text)}, 1) for module in modules}

    monkeypatch.setattr(mapping, "_map", answer)
    monkeypatch.setattr(mapping, "compile_yosys", lambda: None)
    monkeypatch.setenv("NMSAT_CACHE", str(tmp_path / "cache"))
    return seen


def epilogue(lanes):
    return Emission().emit(Epilogue(lanes=lanes), "epilogue")


def test_a_module_is_mapped_once_for_all_designs_that_place_it(runs):
    two = set(mapping._apart(epilogue(2)).values())
    found = map_modules(epilogue(2))
    assert {module for run in runs for module in run} == two
    assert sum(map(len, runs)) == len(two)
    runs.clear()
    assert map_modules(epilogue(2)) == found
    assert runs == []
    grown = map_modules(epilogue(3))
    new = {module for run in runs for module in run}
    assert new
    assert not new & two
    assert grown["narrow"] == found["narrow"]


def test_what_a_stopped_estimate_has_mapped_is_kept(runs, monkeypatch):
    answer = mapping._map

    def stops(modules):
        if runs:
            raise RuntimeError("stopped")
        return answer(modules)

    monkeypatch.setattr(mapping, "_map", stops)
    monkeypatch.setattr(mapping, "_RUN_SIZE", 1)  # a run a module
    with pytest.raises(RuntimeError, match="stopped"):
        map_modules(epilogue(2))
    (first,) = runs
    monkeypatch.setattr(mapping, "_map", answer)
    map_modules(epilogue(2))
    assert not set(first) & {module for run in runs[1:] for module in run}


# Rows and width of memories, and the block that each becomes.
MEMORIES = [(16, 24, "RAM32M"), (512, 18, "RAMB18E2"), (512, 72, "RAMB36E2"), (2048, 72, "URAM288")]


class Mixed(wiring.Component):
    """What a module can come to: carries, a product, shift registers, a memory of every kind."""

    def __init__(self):
        olds = {f"old{number}": Out(width) for number, (_, width, _) in enumerate(MEMORIES)}
        super().__init__({"a": In(16), "at": In(12), "b": In(72), "far": Out(16), "sum": Out(33)} | olds)

    def elaborate(self, platform):
        m = Module()
        for number, (rows, width, _) in enumerate(MEMORIES):
            m.submodules[f"memory{number}"] = memory = Memory(shape=width, depth=rows, init=[])
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [read.addr.eq(self.at), write.addr.eq(self.at ^ 1), write.en.eq(self.a[0])]
            m.d.comb += [write.data.eq(self.b), getattr(self, f"old{number}").eq(read.data)]
        line = self.a
        for _ in range(8):
            late = Signal(16, reset_less=True)
            m.d.sync += late.eq(line)
            line = late
        product = Signal(32)
        m.d.sync += [product.eq(self.a * line), self.sum.eq(product + self.b[:8]), self.far.eq(line)]
        return m


@pytest.fixture(scope="module")
def alone():
    """Two modules, one with memories."""
    mixed = for_card(Emission().emit(Mixed(), "mixed"))
    return [mapping._apart(mixed)["mixed"], mapping._apart(epilogue(1))["narrow"]]


@pytest.fixture(scope="module")
def together(alone):
    return mapping._map(alone)


def test_yosys_maps_a_module_the_same_beside_any_others(alone, together):
    for module in alone:
        assert mapping._map([module])[module] == together[module]
    mixed, narrow = (together[module] for module in alone)
    assert mixed.cells["URAM288"] == 1
    assert mixed.depth > 0
    assert narrow.cells["LUT6"] > 0 < narrow.depth
    kinds = set[str]().union(*(mapped.cells for mapped in together.values()))
    for kind in [kind for *_, kind in MEMORIES] + ["CARRY", "DSP48E2", "SRL", "LUT6", "FDRE"]:
        assert any(name.startswith(kind) for name in kinds), kind


def test_a_design_is_mapped_by_yosys_into_the_cache(alone, together, monkeypatch, tmp_path):
    monkeypatch.setenv("NMSAT_CACHE", str(tmp_path))
    design = epilogue(1)
    found = map_modules(design)
    assert found["narrow"] == together[alone[1]]
    monkeypatch.setattr(mapping, "_map", None)  # nothing is mapped again
    assert map_modules(design) == found


def test_the_steps_are_those_of_synth_xilinx(alone, together, tmp_path):
    """Its own script, with the cells of all families and its own map of block memories, finds the same cells."""
    script = "".join(
        f"design -reset\nread_rtlil {number}.il\n{mapping._MAP}\ntee -q -o {number}.json stat -json -tech xilinx\n"
        for number in range(len(alone))
    )
    for number, module in enumerate(alone):
        (tmp_path / f"{number}.il").write_text(module.rtlil)
    run_yosys(tmp_path, script)
    for number, module in enumerate(alone):
        assert mapping._own_cells(tmp_path / f"{number}.json") == together[module].cells


def test_a_cell_that_was_not_read_is_an_error(alone, monkeypatch):
    monkeypatch.setattr(mapping, "_cells_elsewhere", lambda: "")
    with pytest.raises(RuntimeError, match=r"RAMB18E2|RAMB36E2|DSP48E2|URAM288"):
        mapping._map(alone[:1])


def test_large_memories_are_marked_as_ultraram_without_contents():
    small, large = memory_bank(1024), memory_bank(2048)  # 65,536 and 131,072 bits; an UltraRAM's data are 262,144
    assert for_card(small) == small
    marked = for_card(large)
    assert "meminit" in large.rtlil
    assert "meminit" not in marked.rtlil
    text = verilog_of(marked).text
    assert '(* ram_style = "ultra" *)' in text
    assert "initial" not in text.partition("ram_style")[2].partition("always")[0]


NAMED = """\
module \\queue{0}
  wire width 2 input 0  \\a
end
module \\uses{0}
  wire width 1 input 0  \\b
  cell \\queue{0} \\inside
  end
  cell $not \\queue{0}
  end
end
"""


def test_modules_that_differ_in_names_alone_are_one():
    text = NAMED.format("_x") + NAMED.format("_long") + NAMED.format("_wide").replace("width 2", "width 3")
    names = [kind + name for kind in ("queue", "uses") for name in ("_x", "_long", "_wide")]
    found = mapping._apart(Emitted("uses_x", text, (), dict.fromkeys(names, 1)))
    assert found["queue_x"] == found["queue_long"] != found["queue_wide"]
    assert not found["queue_x"].boxes
    assert "uses_x" not in found["uses_x"].text
    # The instance's own name stays: it is no name of a module.
    assert found["uses_x"].text.replace("queue_x", "queue_long") == found["uses_long"].text
    assert found["uses_x"].boxes == found["uses_long"].boxes != found["uses_wide"].boxes


def test_groups_are_of_similar_size_and_lose_nothing():
    modules = [mapping._Alone(f"{n} {'x' * n**5}", frozenset()) for n in range(12)]
    groups = mapping._groups(modules, 3)
    assert {module for group in groups for module in group} == set(modules)
    assert sum(map(len, groups)) == len(modules)
    loads = [sum(len(module.text) for module in group) for group in groups]
    assert max(loads) < 1.2 * len(modules[-1].text)
    assert mapping._groups(modules[:1], 4) == [modules[:1]]


def test_runs_are_short():
    small = [mapping._Alone(f"{n} {'x' * 30_000}", frozenset()) for n in range(6)]
    large = mapping._Alone("x" * 300_000, frozenset())
    assert [len(run) for run in mapping._runs([*small, large])] == [1, 3, 3]


def test_modules_of_wires_alone_are_not_mapped(runs):
    class Wires(wiring.Component):
        def __init__(self):
            super().__init__({"a": In(8), "b": Out(8)})

        def elaborate(self, platform):
            m = Module()
            m.submodules.inside = inside = Inside()
            m.d.comb += [inside.a.eq(self.a), self.b.eq(inside.b)]
            return m

    class Inside(Wires):
        def elaborate(self, platform):
            m = Module()
            m.d.sync += self.b.eq(self.a + 1)
            return m

    found = map_modules(Emission().emit(Wires(), "wires"))
    assert [len(run) for run in runs] == [1]
    assert found["wires"] == mapping.Mapped({}, 0) != found["wires_inside"]


@pytest.mark.parametrize(
    ("cells", "count"),
    [
        ({"LUT6": 3, "FDRE": 9}, 3),
        ({"LUT2": 5}, 3),
        ({"LUT5": 4, "LUT2": 4}, 6),  # no LUT5 has room for two inputs more
        ({"LUT4": 4, "LUT2": 3, "LUT1": 2}, 5),
        ({"LUT2": 164, "LUT3": 260, "LUT4": 56, "LUT5": 229, "LUT6": 137}, 682),  # yosys' own figures from here on
        ({"LUT2": 95, "LUT3": 91, "LUT4": 60, "LUT5": 59, "LUT6": 212}, 422),
    ],
)
def test_logic_cells(cells, count):
    assert logic_cells(cells) == count


def test_every_small_memory_is_counted():
    assert area_of_cells({"RAM512X1S": 2, "SRL16E": 1, "RAMB18E2": 3, "URAM288": 4}) == Area(17, 17, 0, 0, 0, 0, 3, 4)
    with pytest.raises(KeyError):
        area_of_cells({"RAM1024X1S": 1})


def test_rows_of_the_whole_top():
    """The units' parts that have a row of their own leave the unit's row; depth is the deepest module's."""
    places = {
        "top": (("control", "c"), ("product", "p"), ("update", "u")),
        "p": (("array", "a"), ("lane_a0", "l"), ("lane_b0", "l"), ("column10", "l"), ("lane_c0", "l")),
        "a": (("row0", "r"),), "u": (("planes", "q"), ("wuve", "w")), "q": (("sore", "s"), ("tags", "t")),
    }  # fmt: skip
    luts = {"top": 1, "c": 2, "p": 3, "a": 4, "l": 5, "r": 6, "u": 7, "q": 8, "w": 9, "s": 10, "t": 11}
    depths = dict.fromkeys(luts, 1) | {"r": 4, "t": 3}
    design = _Design(Hierarchy("top", places), {name: Area(lut=n) for name, n in luts.items()}, depths)
    assert {row["block"]: (row["lut"], row["depth"]) for row in design.blocks()} == {
        "control": (2, 1), "product": (8, 1), "array": (10, 4), "w2e_buffer": (5, 1), "n2s_buffer": (5, 1),
        "output_buffer": (5, 1), "update": (26, 3), "sore": (10, 1), "wuve": (9, 1), "top": (1, 1),
    }  # fmt: skip


# Crossings.
@pytest.fixture(scope="module")
def plain():
    return small_top(SMALL)


@pytest.fixture(scope="module")
def cut():
    return small_top(CUT)


def crossing_nets(design, accelerator, plan="halves"):
    placement = apply(Floorplan.load(plan), hierarchy_of(design), accelerator, BOARD)
    return crossings(design, placement)


def test_nothing_crosses_in_one_region(plain):
    assert crossing_nets(plain, SMALL, "single") == []


def test_every_way_between_regions_has_registers():
    """Operands, addresses, clock enables, results: nothing reaches a cell in the cycle in which it leaves another region."""
    machine = CUT.replace(sore_lanes=1, accumulator="window", window_bits=52, overlap_units=True)
    design = Emission().emit(Top(machine), "nmsat_top")
    cells = apply(Floorplan.load("halves"), hierarchy_of(design), machine, BOARD).cells
    product = {
        "array/sequencer": 1, "array/times": 1, "array/feet": 0, "array/row1/edge": 0, "array/row1/uspe2": 2,
        "lane_a1": 0, "first_a": 1, "lane_b1": 1, "lane_b2": 2, "last_b": 1, "column1": 0, "column2": 2, "writer": 1,
    }  # fmt: skip
    placed = {f"product/{cell}": region for cell, region in product.items()}
    placed |= {
        "vector/far": 2, "vector/near": 1, "update/wuve/far": 0, "update/wuve/near": 1, "update/planes/sore/far": 0,
        "dma": 1, "controller": 1,
    }  # fmt: skip
    assert {cell: cells[cell] for cell in placed} == placed
    assert crossing_nets(design, machine) == []


def test_the_product_unit_has_registers_on_every_way_between_regions():
    assert crossing_nets(Emission().emit(ProductUnit.from_accelerator(CUT), "product"), CUT) == []


@pytest.mark.parametrize(
    ("module", "name", "regions"),
    [
        ("product.unit", "across", {(0, 1), (1, 2)}), ("product.apart", "across", {(0, 1), (1, 2), (0, 1, 2)}),
        ("split_array", "across", {(0, 1), (1, 2), (0, 1, 2)}), ("stce", "crossing", {(0, 2)}),
    ],
)  # fmt: skip
def test_a_way_without_registers_is_seen(monkeypatch, module, name, regions):
    """Results; addresses and weights; clock enable, operands and what has left; from one half to the other."""

    def direct(m, *arguments, **options):
        return Value.cast(arguments[-3])

    monkeypatch.setattr(f"nmsat.rtl.{module}.{name}", direct)
    found = crossing_nets(Emission().emit(ProductUnit.from_accelerator(CUT), "product"), CUT)
    assert {item.regions for item in found} == regions


def remote_parts(hop):
    unit = RemoteUnit(unit=VectorUnit.from_accelerator(CUT), data_bits=CUT.axi_data_bits, hop=hop)
    yield unit, wires(CUT.axi_data_bits, far=True)
    engine = Wuve(lanes=2)
    yield RemoteEngine(engine=engine, hop=hop), engine_wires(engine, far=True)


@pytest.mark.parametrize("hop", [0, 2])
def test_streams_of_a_remote_part_pass_as_many_registers_as_it_is_told(hop):
    for part, ports in remote_parts(hop):
        found = crossings(Emission().emit(part, "part"), Placement(Floorplan.load("halves"), {"near": 1, "far": 2}))
        between = sum(Shape.cast(port.shape).width for port in ports.values())
        assert sum(item.bits for item in found) == (0 if hop else between)


def test_the_array_alone_registers_what_passes_from_half_to_half(cut):
    """Its sequencer and enable are formed where its streams are: it is the product unit that keeps them apart."""
    found = crossing_nets(cut, CUT)
    assert {(item.module, item.net, item.bits) for item in found if {0, 2} <= set(item.regions)} == {
        ("stce", "sequencer__en", 1), ("stce", "row0__ws", 1),
    }  # fmt: skip


def test_a_cut_without_registers_is_seen(plain):
    found = crossing_nets(plain, CUT)  # the design has none, whatever its file says
    assert any(item.bits > 1 for item in found if {0, 2} <= set(item.regions))


def test_the_list_of_a_folder():
    text = crossings_text([Crossing("stce/row0", "en", 1, 0, (0, 1, 2)), Crossing("", "a", 12, 5, (0, 1))], "made")
    assert text.splitlines()[0] == "# made"
    assert "2 nets, 13 bits" in text
    assert "# regions 0,1: 1 nets, 12 bits, 5 launched\n# regions 0,1,2: 1 nets, 1 bits, 0 launched\n" in text
    assert text.endswith("     1         0  0,1,2    stce/row0/en\n    12         5  0,1      a\n")


LAUNCHED = """\
module \\source
  wire width 2 output 0 \\held
  wire width 2 output 1 \\chosen
  wire width 1 output 2 \\read
  wire width 1 output 3 \\now
  wire width 2 $1
  cell $dff $2
    connect \\D \\chosen
    connect \\Q $1
  end
  cell $memrd_v2 $3
    parameter \\CLK_ENABLE 1
    connect \\DATA \\read
  end
  cell $memrd_v2 $4
    parameter \\CLK_ENABLE 0
    connect \\DATA \\now
  end
  process $5
    assign \\chosen [1:0] $1 [1:0]
    switch \\held [0]
      case 1'1
        assign \\chosen [0] 1'1
    end
  end
  process $6
    assign \\held [0] $1 [1]
    assign \\held [1] 1'0
  end
end
module \\sink
  wire width 6 input 0 \\a
end
module \\pair
  wire width 6 input 0 \\both
  cell \\sink \\left
    connect \\a \\both
  end
  cell \\sink \\right
    connect \\a \\both [5:0]
  end
end
module \\top
  wire width 6 \\net
  cell \\source \\from
    connect \\held \\net [1:0]
    connect \\chosen \\net [3:2]
    connect \\read \\net [4]
    connect \\now \\net [5]
  end
  cell \\pair \\to
    connect \\both \\net
  end
end
"""


def test_what_starts_at_a_register_is_counted_down_the_hierarchy():
    """Two bits of a register or constant, two behind logic, one of a registered memory, one of a memory without."""
    placement = Placement(Floorplan.load("halves"), {"from": 0, "to/left": 0, "to/right": 1})
    design = Emitted("top", LAUNCHED, (), {})
    assert crossings(design, placement) == [Crossing("to", "both", 6, 3, (0, 1)), Crossing("", "net", 6, 3, (0, 1))]


BEHIND = """\
module \\cell
  wire width 2 output 0 \\gives
  wire width 2 input 1 \\takes
end
module \\top
  wire width 2 \\a
  wire width 2 \\b
  wire width 2 \\held
  wire width 2 \\both
  wire width 2 \\chosen
  cell \\cell \\from
    connect \\gives \\a
    connect \\takes \\b
  end
  cell \\cell \\to
    connect \\gives \\b
    connect \\takes \\INTO
  end
  cell $dff $1
    connect \\D \\a
    connect \\Q \\held
  end
  cell $and $2
    connect \\A { \\b [1] \\a [0] }
    connect \\B \\held
    connect \\Y \\both
  end
  process $3
    assign \\chosen \\b
    switch \\held [0]
      case 1'1
        assign \\chosen [1] \\a [1]
    end
  end
end
"""


@pytest.mark.parametrize(("into", "bits"), [("held", 0), ("both", 1), ("chosen", 1), ("b", 0), ("a", 2)])
def test_logic_around_the_cells_is_no_register(into, bits):
    """Bit 0 of the AND and bit 1 of the choice come from a cell elsewhere at once; a register ends a way."""
    design = Emitted("top", BEHIND.replace("INTO", into), (), {})
    found = crossings(design, Placement(Floorplan.load("halves"), {"from": 1, "to": 0}))
    back = Crossing("", "b", 2, 0, (0, 1))  # what the other cell gives
    assert set(found) == {back} | ({Crossing("", into, bits, 0, (0, 1))} if bits else set())
    assert len(found) == len(set(found))


def test_the_west_edge_of_a_row_lies_beside_its_first_element(cut):
    found = crossing_nets(cut, CUT)
    assert not any(item.net.startswith("uspe0__") for item in found)
