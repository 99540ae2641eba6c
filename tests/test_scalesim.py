"""SCALE-Sim semantics: all 63 printed cycle counts, both file forms, and bad files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nmsat.models import Accelerator, NmsatError, Workload
from nmsat.simulator.scalesim import layer_cycles, simulate_scalesim

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("form", ["conv", "gemm"])
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_printed_cycles(form, dataflow):
    workload = Workload.load(str(DATA / f"resnet18_{form}.csv"))
    result = simulate_scalesim(workload, Accelerator.load("sat"), dataflow=dataflow)
    with (DATA / "scalesim_resnet18_32x32.csv").open() as file:
        peer = [row for row in csv.DictReader(file) if row["df"] == dataflow]
    assert len(peer) == 21
    got = [(row["layer"], row["m"], row["n"], row["k"], row["cycles"]) for row in result.layers]
    assert got == [(r["layer"], *(int(r[key]) for key in ("M", "N", "K", "peer_cycles"))) for r in peer]


@pytest.mark.parametrize(("dataflow", "cycles"), [("os", 0), ("ws", 1), ("is", 1)])
def test_one_by_one(dataflow, cycles):
    assert layer_cycles(1, 1, 1, 1, 1, dataflow) == cycles
    net = Workload.load(str(DATA / "resnet18_gemm.csv"))
    result = simulate_scalesim(net, Accelerator.load("sat").replace(rows=1, cols=1), dataflow=dataflow)
    assert all(0 < row["utilization"] <= 1 for row in result.layers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a header line and layers, not nothing$"),
        ("Layer name, M, N\na,1,2", "header: must have the column 'k'; the conv form has"),
        ("Layer name, IFMAP Height, IFMAP Width\na,1,2", "header: must have the column 'filter height'"),
        ("Layer name, M, N, K\n", "must hold at least one layer below its header$"),
        ("Layer name, M, N, K\na, 1, 0, 3", "line 2: n: must be an integer from 1 to 2147483647, not '0'$"),
        ("Layer name, M, N, K\na, 1, x, 3", "line 2: n: must be an integer from 1 to 2147483647, not 'x'$"),
        ("Layer name, M, N, K\na, 1, 99999999999999999999, 3", "line 2: n: must be an integer"),
        ("Layer name, M, N, K\na, 1, 2", "line 2: k: must be an integer from 1 to 2147483647, not ''$"),
        ("Layer name, M, N, K\na, 1, 2, 3\na, 1, 2, 3", "layers: names must be unique, not 'a' twice$"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "net.csv"
    path.write_text(text)
    with pytest.raises(NmsatError, match=message):
        Workload.load(str(path))
