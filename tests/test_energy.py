"""The energy table, the events it is multiplied with, and calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nmsat.__main__ import main
from nmsat.dataflow import Options
from nmsat.models import Accelerator, Layer, Workload
from nmsat.models.energy_table import BOUNDS, EVENTS, EnergyTable, Events, Measurements, calibrate
from nmsat.models.errors import NmsatError
from nmsat.simulator import simulate

TABLE = EnergyTable.load("vcu1525")
SMALL = Accelerator.load("sat").replace(rows=2, cols=3, max_keep=4, max_group=8, slr_hop_cycles=0)


def test_typical_values_follow_from_their_sources():
    """The arithmetic that the sources state, again; 3 % for rounding."""
    scale, luts, dsp = 0.32, 14, 3
    lane = 3.7 * scale * dsp + 0.9 * scale * luts
    mac = 1.1 * scale * dsp + 0.9 * scale * luts
    dram = ((110 - 38) + (103 - 38)) / 2 * 1e-3 * 1.2 / 1.2e9 * 1e12 * 72 / 64
    expected = {
        "mac_os_pj": mac,
        "mac_ws_pj": 1.1 * mac,
        "sore_compare_pj": 0.05 * scale * luts,
        "wuve_weight_pj": 5 * 3.7 * scale * dsp + 4 * 0.9 * scale * luts,
        "vector_slot_pj": lane,
        "dram_pj_per_byte": dram + 1.4 + 50,
        "static_watt": 72 * 38e-3 * 1.2 + 4 + 3,
    }
    assert {name: TABLE.events[name].typical for name in expected} == pytest.approx(expected, rel=0.03)
    assert all(item.low < item.typical < item.high for item in TABLE.events.values())


def fc(m: int, k: int, n: int) -> Workload:
    return Workload(name="fc", layers=(Layer(name="fc", op="linear", ic=k, oc=n, tokens=m),))


@pytest.mark.parametrize("dataflow", ["os", "ws"])
@pytest.mark.parametrize("m, k, n", [(5, 16, 7), (4, 24, 3), (1, 8, 1), (33, 40, 10)])
def test_events_are_counted_tile_by_tile(dataflow, m, k, n):
    """Every access of a dense product with groups of one, by walking the tiles."""
    one = SMALL.replace(max_keep=1, max_group=1)
    found = simulate(
        fc(m, k, n), one, method="dense", batch=1, mode="infer", options=Options(dataflow=dataflow, interleave=False)
    )
    rows, cols = one.rows, one.cols
    counted = 0
    for left in range(0, n, cols):
        columns = min(cols, n - left)
        counted += m * k * 2  # every row of A is streamed past each column tile
        if dataflow == "os":
            for _ in range(0, m, rows):
                counted += k * columns * 2
            counted += 2 * m * columns * 4
        else:
            for top in range(0, k, rows):
                counted += min(rows, k - top) * columns * 2
                counted += 2 * m * columns * 4  # a sum out and back in
    counted += m * k * 2 + k * n * 2  # filled once: everything fits
    events = found.totals["events"]
    assert events["buffer_bytes"] == counted
    assert (events["os_macs"], events["ws_macs"])[dataflow == "ws"] == m * k * n
    assert events["os_macs"] + events["ws_macs"] == m * k * n
    assert events["selected_macs"] == 0
    joules = sum(
        TABLE.events[name].typical * count for name, count in zip(EVENTS, Events(**events).counts(), strict=True)
    )
    assert found.totals["energy_j"] == pytest.approx(joules / 1e12)
    assert found.totals["energy_j"] == pytest.approx(sum(row["energy_pj"] for row in found.layers) / 1e12)


def test_sparse_events():
    dense = simulate(Workload.load("digits-mlp"), SMALL, method="dense", batch=8).totals["events"]
    sparse = simulate(Workload.load("digits-mlp"), SMALL, method="bdwp", sparsity="2:8", batch=8).totals["events"]
    assert dense["selected_macs"] == dense["compares"] == 0
    saved = dense["os_macs"] + dense["ws_macs"] - sparse["os_macs"] - sparse["ws_macs"]
    assert saved == 3 * sparse["selected_macs"]  # 2 of 8: a quarter is issued, three quarters are not
    net = Workload.load("digits-mlp")
    pruned = [layer for layer in net.layers if layer.is_product and layer.prune and layer.ic % 8 == layer.oc % 8 == 0]
    copies = sum(layer.weight_elements * (1 + net.input_gradient(layer)) for layer in pruned)  # forward, and backward
    assert sparse["compares"] == copies // 8 * 28
    assert sparse["updated_weights"] == dense["updated_weights"] == Workload.load("digits-mlp").weights


def measured(*watts: float, idle: float = 20.0, error: float = 0.0) -> Measurements:
    runs = [{"result": f"{i}.json", "watt": watt} for i, watt in enumerate(watts)]
    facts = {"card": "card", "instrument": "meter", "idle_watt": idle, "error": error, "runs": runs}
    return Measurements.model_validate({"format": "nmsat-power/1", **facts})


RUNS = (
    Events(os_macs=10**12, dram_bytes=10**10, seconds=1.0),
    Events(ws_macs=10**11, buffer_bytes=10**12, seconds=0.5),
)


def watts(factor: float, idle: float = 20.0) -> list[float]:
    return [idle + factor * TABLE.picojoules(run, known={"static_watt": 0}) / 1e12 / run.seconds for run in RUNS]


def test_calibration_finds_the_factor():
    found = calibrate(TABLE, measured(*watts(1.7)), RUNS, "mine")
    assert found.kind == "calibrated model"
    assert found.events["static_watt"].typical == 20.0
    for name in EVENTS[:-1]:
        assert found.events[name].typical == pytest.approx(1.7 * TABLE.events[name].typical)
    for run, watt in zip(RUNS, watts(1.7), strict=True):
        for bound in BOUNDS:  # a perfect meter leaves no range
            assert found.picojoules(run, bound) / 1e12 / run.seconds == pytest.approx(watt)


def test_the_range_holds_every_run_and_the_meters_error():
    readings = [watts(1.2)[0], watts(2.0)[1]]
    found = calibrate(TABLE, measured(*readings, error=0.1), RUNS, "mine")
    for run, watt in zip(RUNS, readings, strict=True):
        low, typical, high = (found.picojoules(run, bound) / 1e12 / run.seconds for bound in BOUNDS)
        assert low <= 0.95 * watt
        assert high >= 1.05 * watt
        assert low < typical < high


def test_a_run_below_idle_is_refused():
    with pytest.raises(NmsatError, match=r"runs: 0\.json: watt: must be above idle_watt = 20, not 19\.0"):
        calibrate(TABLE, measured(19.0), RUNS[:1], "mine")


def test_calibrated_from_files_and_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = ["run", "digits-mlp", "-a", "sat_4x4", "--batch", "16", "-q"]
    assert main([*run, "--json", "a.json"]) == 0
    runs = [{"result": "a.json", "watt": 30.0}]
    facts = {"format": "nmsat-power/1", "card": "c", "instrument": "i", "idle_watt": 20.0, "runs": runs}
    Path("power.yaml").write_text(yaml.safe_dump(facts))
    assert main(["energy", "--calibrate", "power.yaml", "-o", "mine.yaml", "-q"]) == 0
    card = Accelerator.load("sat_4x4").replace(energy_table="./mine.yaml").model_dump()
    Path("card.yaml").write_text(yaml.safe_dump(card))
    assert main(["run", "digits-mlp", "-a", "card.yaml", "--batch", "16", "-q", "--json", "b.json"]) == 0
    found = json.loads(Path("b.json").read_text())
    assert found["totals"]["energy_j"] / found["totals"]["seconds"] == pytest.approx(30.0)
    assert found["meta"]["energy_table"].startswith("mine (calibrated model) ")
    assert capsys.readouterr().out == ""
    Path("a.json").write_text("[1]")
    assert main(["energy", "--calibrate", "power.yaml", "-o", "other.yaml"]) == 2
    assert "a.json: must be a result of nmsat run --json, not list" in capsys.readouterr().err
    assert not Path("other.yaml").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["events"].pop("mac_os_pj"), "events.mac_os_pj: must be given"),
        (
            lambda d: d["events"].update(joke_pj=dict(d["events"]["mac_os_pj"])),
            "events.joke_pj: must be one of mac_os_pj",
        ),
        (lambda d: d["events"]["mac_os_pj"].update(low=6.0), "typical: must lie between low = 6 and high = 10.2"),
        (lambda d: d["events"]["mac_os_pj"].update(low=float("nan")), "events.mac_os_pj.low: must be "),
        (lambda d: d["events"]["mac_os_pj"].pop("source"), "events.mac_os_pj.source: must be given"),
    ],
)
def test_bad_tables(tmp_path, change, message):
    data = TABLE.model_dump()
    change(data)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(NmsatError, match=r"t\.yaml: ") as error:
        EnergyTable.load(tmp_path / "t.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "energy table 'nowhere': must be one of vcu1525"),
        (["--calibrate", "power.yaml"], "-o: must be given with --calibrate, and only then, not None"),
        (["-o", "x.yaml"], "-o: must be given with --calibrate, and only then, not 'x.yaml'"),
        (["--calibrate", "nowhere.yaml", "-o", "x.yaml"], "nowhere.yaml: must be an existing file"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["energy", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
