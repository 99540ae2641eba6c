"""Timings on a quiet core, and the tables of the cycle model's errors."""

from __future__ import annotations

import pytest

from nmsat.models import NmsatError, Workload
from nmsat.models.core import Core
from nmsat.reports import kernel_networks, kernel_wasm
from nmsat.reports.kernel_wasm import WasmPoint
from nmsat.simulator.kernels.network import simulate_core
from nmsat.simulator.kernels.quiet import QuietCore, Timed

pytest.importorskip("wasmtime")
TABLES = sorted(path.stem for path in kernel_wasm.FOLDER.glob("*-*.md"))


class Alternating(QuietCore):
    """A core that says in turn what a test wants it to."""

    def __init__(self, answers: list[bool]) -> None:
        super().__init__(adders=4)
        self.answers = answers

    def is_quiet(self) -> bool:
        self.answers.append(self.answers.pop(0))
        return self.answers[-1]


def test_the_clock_and_the_cost_of_a_call():
    core = QuietCore(adders=4)
    for _ in range(20):
        core.read_clock()
    assert 3e8 < core.clock_hz < 1e10
    assert abs(core.call_seconds) < 1e-3


def test_only_timings_between_two_quiet_ones_count():
    spent = iter([0.0, 5.0, 0.0, 1.0, 0.0, 3.0, 0.0, 2.0])  # a run before each timing
    point = Timed(lambda repeat: next(spent), 1)
    Alternating([True, True, True, False, False, True, True, True]).measure([point], rounds=2, most=4)
    assert point.quiet == 2
    assert point.seconds == 2.0  # of 5 and 2: the 1 and the 3 were taken on a busy core


def test_a_point_without_a_quiet_timing_is_refused():
    point = Timed(lambda repeat: 1.0, 1)
    with pytest.raises(NmsatError, match="quiet: timings: must be taken on a quiet core, not '1 points without one'"):
        Alternating([False]).measure([point], rounds=1, most=3)


def points() -> list[WasmPoint]:
    return [
        WasmPoint(group, kernel.name, shape, zeros, 1000.0 * (number + 1), 1100 * (number + 1), "issue")
        for number, (group, kernel, shape, zeros) in enumerate(kernel_wasm.products())
    ]


def test_the_products_and_how_many_of_them_are_unseen():
    groups = [group for group, *_ in kernel_wasm.products()]
    assert (groups.count("fitted"), groups.count("unseen")) == (42, 36)
    assert len({(kernel.name, shape) for _, kernel, shape, _ in kernel_wasm.products()}) == 78


def test_a_table_is_read_as_it_was_written():
    text = kernel_wasm.markdown("wasm-zen3", points(), "Clock while measuring: 3.24 GHz.")
    assert kernel_wasm.read(text) == (points(), "Clock while measuring: 3.24 GHz.")
    with pytest.raises(NmsatError, match="kernel_model: table: must be headed by"):
        kernel_wasm.read("nothing")


def test_the_bars():
    lines, met = kernel_wasm.summary("wasm-zen3", points())
    assert lines[0].endswith("median 10.0 %, bar <= 8; 90th percentile 10.0 %, bar <= 15: MISS")
    assert not met
    good = [WasmPoint(p.group, p.kernel, p.shape, p.zeros, p.measured, round(p.measured), p.bound) for p in points()]
    assert kernel_wasm.summary("wasm-zen3", good)[1]


def test_only_the_model_s_column_is_renewed():
    first = points()[24:25]
    now = kernel_wasm.renewed(Core.load("wasm-zen3"), first)
    assert (now[0].measured, now[0].shape) == (first[0].measured, first[0].shape)
    assert now[0].model != first[0].model


@pytest.mark.parametrize("name", TABLES)
def test_the_recorded_tables_sum_up_to_what_they_say_and_meet_the_bars(name):
    text = (kernel_wasm.FOLDER / f"{name}.md").read_text()
    found, note = kernel_wasm.read(text)
    assert [(p.group, p.kernel, p.shape, p.zeros) for p in found] == [
        (group, kernel.name, shape, zeros) for group, kernel, shape, zeros in kernel_wasm.products()
    ]
    assert note
    lines, met = kernel_wasm.summary(name, found)
    assert text.startswith("\n\n".join(lines))
    assert met


def test_a_whole_network_is_timed_beside_the_model(monkeypatch):
    monkeypatch.setattr(kernel_networks, "NETWORKS", ("mobilenet_v2",))
    core = Core.load("wasm-zen3")
    (row,) = kernel_networks.measure(core, rounds=1)
    seconds = simulate_core(Workload.load("mobilenet_v2"), core, sparsity="0.9").totals["seconds"]
    assert (row.core, row.network, row.model_ms) == ("wasm-zen3", "mobilenet_v2", 1e3 * seconds)
    assert row.measured_ms > 0.1
    shown = kernel_networks.NetworkTime("wasm-zen3", "mobilenet_v2", 8.0, 7.0)
    assert kernel_networks.markdown([shown]).endswith("| wasm-zen3 | mobilenet_v2 | 8.0 | 7.0 | -12 % |\n")


def test_the_recorded_networks_are_those_of_the_benchmark():
    lines = (kernel_wasm.FOLDER / "networks.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert [row[:2] for row in rows] == [
        [core, name] for core in ("wasm-zen3", "v8-zen3") for name in kernel_networks.NETWORKS
    ]
    for _, name, measured, model, error in rows:
        assert abs(100 * (float(model) / float(measured) - 1) - float(error.split()[0])) < 2, name  # of rounded figures
        assert abs(float(error.split()[0])) <= 10, name  # docs/kernel_model.md says so
