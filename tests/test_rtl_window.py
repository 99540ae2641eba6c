"""The window accumulator in hardware: golden's sums and the engine's cycles, plain text and the card's cells alike."""

from __future__ import annotations

import numpy as np
import pytest

from nmsat.commands.verify import verify_block
from nmsat.dataflow.array_timing import ArrayShape
from nmsat.models import Accelerator, NmsatError
from nmsat.models.golden import WindowSums, operand, window_product
from nmsat.models.window import Window
from nmsat.rtl import window_drain, window_row, window_uspe
from nmsat.rtl.arithmetic import primitives
from nmsat.rtl.arithmetic.window_operand import window_operand
from nmsat.rtl.array_bench import run_array
from nmsat.rtl.array_parameters import ArrayParameters
from nmsat.rtl.array_streams import as_json, north_width, os_streams, ws_streams
from nmsat.rtl.blocks import component_of
from nmsat.rtl.edge_ports import late
from nmsat.rtl.emit import Emission
from nmsat.rtl.simulators import run_bench, simulate
from nmsat.rtl.stce import Stce
from nmsat.rtl.verilog import verilog
from nmsat.rtl.window_uspe import WindowUspe
from nmsat.rtl.yosys import run_yosys
from nmsat.simulator.engine import run_product

SMALL = Accelerator.load("sat_4x4").replace(accumulator="window", rows=3, cols=2, max_keep=4, max_group=8)
NARROW = SMALL.replace(window_lsb=24, window_bits=44, multiplier_latency_cycles=5)  # 8 products, then sums spill


@pytest.mark.parametrize(
    ("name", "machine", "cases"),
    [("stce", SMALL, 50), ("stce", NARROW, 40), ("uspe", SMALL, 30), ("drain", SMALL, 30), ("drain", NARROW, 20)],
)
def test_random_cases(name, machine, cases):
    """170 cases, each at full speed, with pauses and with a reset on the way."""
    rows = verify_block(name, machine, "cxxrtl", cases, seed=1)
    assert [row for row in rows if not row["passed"]] == []
    assert len(rows) == cases


@pytest.mark.parametrize(("name", "cases"), [("uspe", 4), ("drain", 2)])
def test_the_card_s_cells_do_the_same(name, cases):
    """The text with DSP48E2, CARRY8, LUT6, FDRE and MUXF7, on our models of them."""
    rows = verify_block(name, SMALL, "icarus", cases, seed=3, primitives=True)
    assert all(row["passed"] for row in rows)
    assert rows == verify_block(name, SMALL, "icarus", cases, seed=3)


def extremes(rng, shape):
    """Finite operands of every size whose products mostly stay below 2^16."""
    bits = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    bits = np.where(bits >> 10 & 31 > 22, bits & 0xBFFF, bits)
    return np.where(rng.random(shape) < 0.02, np.uint16(0x7C00), bits).astype(np.uint16).view(np.float16)


async def products(bench, runs):
    return [(await run_array(bench, **run)) for run in runs]


def outcomes(latency):
    """(sums of the array, its cycles, the engine's result) of an OS product with spills and a WS product."""
    window = Window(33, 64)
    p = ArrayParameters(2, 2, 4, 8, latency, 1, latency % 3, window)
    rng, runs, wanted = np.random.default_rng(latency), [], []
    for mode in ("os", "ws"):
        a, values = extremes(rng, (5, 40)), extremes(rng, (5, 4, 3))
        places = np.sort(np.argsort(rng.random((5, 8, 3)), axis=1)[:, :4], axis=1).astype(np.uint8)
        streams = os_streams(p, a, values, places, 8, 1, 2) if mode == "os" else ws_streams(p, a, values, places, 8, 3)
        how = {"segment": 2} if mode == "os" else {"m_chunk": 3}
        shape = ArrayShape(2, 2, 1, latency)
        wanted.append((streams, run_product(shape, mode, a, values, places, group=8, window=window, **how)))
        runs.append(as_json(streams) | {"widths": {"west": 128, "north": north_width(p), "sum": p.sum_bits}})
    found = run_bench(Stce(parameters=p), "stce", products, {"runs": runs}, "amaranth")
    for result, (streams, expected) in zip(found, wanted, strict=True):
        sums, (m, n) = streams.sums(result["south"], window), expected.sums.high.shape
        yield WindowSums(*(x[:m, :n] for x in (sums.high, sums.low, sums.flagged)), window), result["cycles"], expected


@pytest.mark.parametrize("latency", [1, *(pytest.param(cycles, marks=pytest.mark.slow) for cycles in (2, 5)), 7])
def test_every_multiplier_latency(latency):
    """No register in the multiplier up to more than there are cuts; large, small and subnormal operands."""
    for sums, cycles, expected in outcomes(latency):
        assert sums.same(expected.sums)
        assert cycles == expected.cycles + latency % 3  # the registers between column halves
        assert 0 < expected.sums.flagged.sum() < expected.sums.flagged.size


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("window", [Window(33, 64), Window(24, 48)], ids=str)
def test_an_element_with_the_select_before_or_behind_the_conversion(window, raw):
    """Weight-stationary: sums of random words from the north and random products, through weight words 0 and 1."""
    latency, count, bits = 4, 200, window.bits
    element = WindowUspe(window=window, max_group=4, weight_depth=2, multiplier_latency=latency, raw=raw)
    rng = np.random.default_rng(int(raw))
    a, b = extremes(rng, (count, 4)), extremes(rng, 2).view(np.uint16)
    codes = a.view(np.uint16) if raw else operand(a.view(np.uint16))
    north = [int.from_bytes(rng.bytes(9), "little") & ((1 << bits) - 1) for _ in range(count)]
    north_flag, weight, place = rng.random(count) < 0.1, rng.integers(0, 2, count), rng.integers(0, 4, 2)
    words = [int(operand(b[i : i + 1])[0]) | int(place[i]) << 18 for i in range(2)]
    # control fields, lowest first: store, store_at, weight, add, finish, through, hold
    width, start = element.a_bits, 3
    cycles = start + count + latency + 3
    stimuli = {name: [0] * cycles for name in ("a_i", "b_i", "c_i", "control_i")}
    stimuli |= {"en": [1] * cycles, "ws": [1] * cycles}
    for i in range(2):
        stimuli["b_i"][i], stimuli["control_i"][i] = words[i], 1 | i << 1
    for t in range(count):
        stimuli["a_i"][start + t] = sum(int(codes[t, j]) << width * j for j in range(4))
        stimuli["control_i"][start + t] |= int(weight[t]) << 2
        stimuli["c_i"][start + t + latency] = north[t] | int(north_flag[t]) << bits
    for t in range(cycles):
        stimuli["control_i"][t] |= 1 << 5
    found = simulate(element, "uspe", stimuli, "amaranth")["c_o"]
    for t in range(count):
        units, flag = window_product(a[t, place[weight[t]]].view(np.uint16), b[weight[t]], window)
        word = found[start + t + latency + 1]
        assert word >> bits == (flag or north_flag[t])
        if not flag:
            assert word & ((1 << bits) - 1) == (north[t] + int(units)) & ((1 << bits) - 1)


def test_operand_conversion_of_every_binary16():
    from amaranth.hdl import Module, Signal
    from amaranth.lib import wiring
    from amaranth.lib.wiring import In, Out

    class Convert(wiring.Component):
        def __init__(self):
            super().__init__({"x": In(16), "y": Out(18)})

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.y.eq(window_operand(self.x))
            m.d.sync += Signal(name="clocked").eq(self.x[0])
            return m

    every = np.arange(1 << 16, dtype=np.uint16)
    found = simulate(Convert(), "convert", {"x": every.tolist()}, "cxxrtl")["y"]
    assert found == operand(every).tolist()


@pytest.mark.parametrize(
    ("place", "attribute", "fault"),
    [
        (window_uspe, "_coarse", lambda a, b, c, low, high, sign: (c if high else a) ^ sign),
        (window_uspe, "is_special", lambda word: word[17] & 0),
        (window_row, "window_operand", lambda half: window_operand(half ^ (half[10:15] == 0))),
        (window_row, "late", lambda m, value, cycles, name: late(m, value, cycles + (name == "add"), name)),
    ],
    ids=["no shift by 16", "Inf passes", "subnormals off by one", "sums complete a cycle late"],
)
def test_planted_faults_are_seen(place, attribute, fault, monkeypatch):
    monkeypatch.setattr(place, attribute, fault)
    assert not all(sums.same(expected.sums) for sums, _, expected in outcomes(2))


def test_a_planted_fault_in_the_drain_is_seen(monkeypatch):
    monkeypatch.setattr(window_drain, "normalise", lambda m, value, name: (value[0:4] & 0, value))
    assert any(not row["passed"] for row in verify_block("drain", SMALL, "amaranth", 2, seed=5))


def test_the_dsp_model_refuses_what_it_does_not_model(monkeypatch):
    """A wrong OPMODE ends the simulation instead of looking right."""
    from amaranth.hdl import Const

    whole = primitives.Const
    monkeypatch.setattr(primitives, "Const", lambda v, w=None: Const(0b000110101, 9) if w == 9 else whole(v, w))
    with pytest.raises(RuntimeError, match="a use that the model does not cover"):
        verify_block("uspe", SMALL, "icarus", 1, seed=3, primitives=True)


@pytest.mark.parametrize("name", ["stce", "uspe", "drain"])
def test_text_for_the_card_has_only_cells_of_the_card(name, tmp_path):
    """yosys' own library of the family: every cell is there, every port fits, nothing is undriven."""
    design = verilog(component_of(name, SMALL), name, primitives=True)
    (tmp_path / "design.v").write_text(design.text)
    library = "read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v\n"
    run_yosys(tmp_path, f"{library}read_verilog design.v\nhierarchy -check -top {name}\nproc\ncheck -assert\n")
    elements = 1 if name == "uspe" else 6
    if name != "drain":
        assert design.text.count("DSP48E2") == 1  # written once, placed in every element
        counts = design.emitted.instances
        assert counts["window_uspe" if name == "stce" else "uspe"] == elements
    broken = design.text.replace(".DI(", ".DX(").replace(".CEM(", ".CEX(")
    if broken != design.text:
        (tmp_path / "design.v").write_text(broken)
        with pytest.raises(RuntimeError, match=r"CEX|DX"):
            run_yosys(tmp_path, f"{library}read_verilog design.v\nhierarchy -check -top {name}\n")


def test_both_accumulators_have_the_same_ports():
    """Another width of sums, nothing else: what surrounds the array need not know."""
    fp32 = Stce.from_accelerator(SMALL.replace(accumulator="fp32"))
    window = Stce.from_accelerator(SMALL)
    assert list(fp32.signature.members) == list(window.signature.members)
    emitted = [Emission().emit(block, "stce") for block in (fp32, window)]
    widths = [{port.name: port.width for port in each.ports} for each in emitted]
    changed = {name for name in widths[0] if widths[0][name] != widths[1][name]}
    assert changed == {"south__payload", "partial__payload", "command__payload"}  # I is always 1


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"^adder_latency must be 1 with a window, not 8$"):
        ArrayParameters(2, 2, 2, 8, window=Window())
    with pytest.raises(ValueError, match=r"^window must hold 32 products, not 16$"):
        ArrayParameters(32, 2, 2, 8, 4, 1, window=Window(33, 54))
    with pytest.raises(
        NmsatError, match=r"^accelerator 'sat_4x4': accumulator: must be window for a drain, not 'fp32'$"
    ):
        component_of("drain", Accelerator.load("sat_4x4"))
    with pytest.raises(
        NmsatError, match=r"^sim: must be icarus, verilator or verilated for the card's cells, not 'cxxrtl'$"
    ):
        run_bench(None, "uspe", products, {}, "cxxrtl", primitives=True)
    p = ArrayParameters(2, 2, 2, 8, 4, 1, window=Window())
    a, values, places = np.zeros((1, 8), np.float16), np.zeros((1, 1, 1), np.float16), np.zeros((1, 1, 1), np.uint8)
    with pytest.raises(NmsatError, match=r"^array: segment: must be left out, or with a window what it holds, not 0$"):
        os_streams(p, a, values, places, 8, 1, 0)
