"""One test body, five simulators, the same answers."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from nmsat.models import Accelerator
from nmsat.models.errors import NmsatError
from nmsat.rtl.blocks import component_of, emitted_block
from nmsat.rtl.cache import built
from nmsat.rtl.emit import Emission, place
from nmsat.rtl.simulators import SIMULATORS, run_bench, run_emitted, simulate


class Stage(wiring.Component):
    """y is a, a cycle later."""

    def __init__(self, *, width: int) -> None:
        super().__init__({"a": In(width), "y": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.y.eq(self.a)
        return m


class Mixer(wiring.Component):
    """total accumulates a (75 bits) where add is high; now is combinational; late is a, three cycles later."""

    def __init__(self) -> None:
        super().__init__({"a": In(75), "add": In(1), "now": Out(76), "total": Out(75), "late": Out(75)})

    def elaborate(self, platform):
        m = Module()
        value = self.a
        for i in range(3):
            stage = place(m, platform, f"stage_{i}", Stage, width=75)
            m.d.comb += stage.a.eq(value)
            value = stage.y
        m.d.comb += [self.late.eq(value), self.now.eq(self.a + self.total)]
        with m.If(self.add):
            m.d.sync += self.total.eq(self.total + self.a)
        return m


class Wires(wiring.Component):
    """No clock at all."""

    def __init__(self) -> None:
        super().__init__({"a": In(5), "y": Out(5)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y.eq(~self.a)
        return m


def expected(a: list[int], add: list[int]) -> dict[str, list[int]]:
    total, out = 0, {"now": [], "total": [], "late": []}
    for cycle, (value, on) in enumerate(zip(a, add, strict=True)):
        out["now"].append(value + total)
        out["total"].append(total)
        out["late"].append(a[cycle - 3] if cycle >= 3 else 0)
        total = (total + value * on) % 2**75
    return out


@pytest.mark.parametrize("sim", SIMULATORS)
def test_open_loop(sim, tmp_path):
    """The build of the Verilator takes most of a minute here, so its one run has waves, too."""
    rng = random.Random(1)
    a, add = [rng.getrandbits(75) for _ in range(40)], [rng.getrandbits(1) for _ in range(40)]
    waves = None if sim in ("cxxrtl", "verilated") else str(tmp_path / "waves")
    assert simulate(Mixer(), "mixer", {"a": a, "add": add}, sim, waves) == expected(a, add)
    assert waves is None or (tmp_path / "waves").stat().st_size > 1000


@pytest.mark.parametrize("sim", ["amaranth", "cxxrtl", "verilated"])
def test_without_a_clock(sim):
    assert simulate(Wires(), "wires", {"a": [0, 1, 31]}, sim) == {"y": [31, 30, 0]}


async def resets_in_mid_operation(bench, start: int):
    bench.set("a", start)
    bench.set("add", 1)
    seen = []
    for cycle in range(8):
        bench.set("rst", int(cycle == 4))
        await bench.settle()
        seen.append(bench.get("total"))
        await bench.tick()
    return seen


@pytest.mark.parametrize("sim", ["amaranth", "icarus", "cxxrtl", "verilated"])
def test_reset_in_mid_operation(sim):
    assert run_bench(Mixer(), "mixer", resets_in_mid_operation, {"start": 3}, sim) == [0, 3, 6, 9, 12, 0, 3, 6]


async def fails(bench):
    await bench.tick()
    raise AssertionError("on purpose")


@pytest.mark.parametrize("sim", ["amaranth", "icarus", "cxxrtl", "verilated"])
def test_a_failing_body_fails_the_run(sim):
    with pytest.raises((AssertionError, RuntimeError), match="on purpose"):
        run_bench(Mixer(), "mixer", fails, {}, sim)


def test_unknown_simulator_and_waves_of_cxxrtl():
    with pytest.raises(
        NmsatError, match=r"^sim: must be one of amaranth, icarus, verilator, cxxrtl, verilated, not 'x'$"
    ):
        run_bench(None, "mixer", fails, {}, "x")
    emitted = Emission().emit(Mixer(), "mixer")
    for sim in ("amaranth", "x"):
        with pytest.raises(NmsatError, match=f"^sim: must be one of icarus, .* for emitted text, not '{sim}'$"):
            run_emitted(emitted, fails, {}, sim)
    mixer = Mixer()
    with pytest.raises(
        NmsatError, match=r"^waves: must be left out with cxxrtl, not 'w'; use amaranth, icarus or verilator$"
    ):
        run_bench(mixer, "mixer", fails, {}, "cxxrtl", "w")
    with pytest.raises(NmsatError, match=r"^stimuli: must be equally many values for every port, not \[1, 2\]$"):
        simulate(mixer, "mixer", {"a": [1, 2], "add": [1]})


def test_builds_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NMSAT_CACHE", str(tmp_path))
    simulate(Wires(), "wires", {"a": [0]})
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    before = (folder / "design.so").stat().st_mtime_ns
    simulate(Wires(), "wires", {"a": [0]})
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]
    assert (folder / "design.so").stat().st_mtime_ns == before
    assert folder.name.startswith("cxxrtl-")


def test_who_wants_the_same_build_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NMSAT_CACHE", str(tmp_path))
    builds, barrier = [], threading.Barrier(2)

    def build(folder):
        builds.append(folder)
        time.sleep(0.2)
        (folder / "made").write_text("once")

    def ask():
        barrier.wait()
        return (built("thing", ["input"], build) / "made").read_text()

    with ThreadPoolExecutor(2) as pool:
        found = [job.result() for job in [pool.submit(ask), pool.submit(ask)]]
    assert found == ["once", "once"]
    assert len(builds) == 1


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NMSAT_CACHE", str(tmp_path))

    def fails(folder):
        (folder / "half").write_text("")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        built("thing", [], fails)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert built("thing", [], lambda folder: None).is_dir()


def test_a_block_from_the_cache_is_the_block(tmp_path, monkeypatch):
    monkeypatch.setenv("NMSAT_CACHE", str(tmp_path))
    machine = Accelerator.load("sat_4x4")
    written = emitted_block("epilogue", machine, "named")
    kept = emitted_block("epilogue", machine, "named")
    assert written == kept == Emission().emit(component_of("epilogue", machine), "named")
    assert emitted_block("epilogue", machine, "named", primitives=True).primitives
    assert emitted_block("epilogue", machine.replace(cols=8)).rtlil != emitted_block("epilogue", machine).rtlil
