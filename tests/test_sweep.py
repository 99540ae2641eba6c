"""Sweeps: the file, the folder, the front, and being killed."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmsat.__main__ import main
from nmsat.models import Accelerator, Workload
from nmsat.models.energy_table import EnergyTable, Events
from nmsat.models.errors import NmsatError
from nmsat.simulator import simulate
from nmsat.simulator.explore import chunk, sweep
from nmsat.simulator.explore.inline import InlineExecutor
from nmsat.simulator.explore.pareto import pareto_front
from nmsat.simulator.explore.rows import Texts, csv_rows
from nmsat.simulator.explore.spec import Range, SweepSpec

SMALL = """\
format: nmsat-sweep/1
workload: digits-cnn
set: {max_keep: 4, batch: 16}
axes:
  method: [dense, bdwp]
  sparsity: ["2:4", "2:8", "2:32"]
  max_group: [8, 32]
  rows: [4, 8]
  w2e_bytes: [16, 65536]
  dram_mb_s: {from: 1000, to: 64000, count: 7, scale: log}
  dram_pj_per_byte: [100, 150.5]
objectives: [cycles, energy_j, utilization]
constraints:
  - {figure: speedup_over_dense, min: 0.5}
"""
LARGE = """\
format: nmsat-sweep/1
workload: resnet9
axes:
  rows: {from: 1, to: 400, step: 1}
  cols: [8, 16, 32]
  clock_mhz: {from: 100, to: 150, count: 51}
  dram_mb_s: [1000, 2000, 4000]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_is_what_simulate_says(tmp_path):
    assert main(["sweep", str(write(tmp_path, SMALL)), "-o", str(tmp_path / "out"), "-q"]) == 0
    found = rows(tmp_path / "out/results.csv")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["points"] == 2 * 3 * 2 * 2 * 2 * 7 * 2
    assert summary["kept"] == len(found)
    # 2:32 with max_group 8 is refused as a group (bdwp), 16 bytes of activations hold no tile
    assert list(summary["refused"].values()) == [56]
    assert "sparsity.group: must be at most max_group = 8" in min(summary["refused"])
    assert 0 < summary["valid"] < summary["points"] - 56
    base = Accelerator.load("sat").replace(max_keep=4)
    for row in found[::19]:
        design = base.replace(
            max_group=int(row["max_group"]),
            rows=int(row["rows"]),
            w2e_bytes=int(row["w2e_bytes"]),
            dram_mb_s=int(row["dram_mb_s"]),
        )
        step = {"method": row["method"], "sparsity": row["sparsity"], "batch": 16}
        totals = simulate(Workload.load("digits-cnn"), design, **step).totals
        for key in ("cycles", "stall_cycles", "dram_read_bytes", "dram_write_bytes", "dram_footprint_bytes"):
            assert int(row[key]) == totals[key], (key, row)
        for key in ("seconds", "utilization", "gflops_dense_equivalent", "speedup_over_dense"):
            assert float(row[key]) == pytest.approx(totals[key], rel=1e-8), (key, row)  # nine digits are written
        known, table = {"dram_pj_per_byte": float(row["dram_pj_per_byte"])}, EnergyTable.load("vcu1525")
        for key, bound in (("energy_low_j", "low"), ("energy_j", "typical"), ("energy_high_j", "high")):
            joules = table.picojoules(Events(**totals["events"]), bound, known) / 1e12
            assert float(row[key]) == pytest.approx(joules, rel=1e-8), (key, row)


def test_the_front_is_the_front_of_all_rows(tmp_path):
    main(["sweep", str(write(tmp_path, SMALL)), "-o", str(tmp_path / "out"), "-q"])
    found, front = rows(tmp_path / "out/results.csv"), rows(tmp_path / "out/pareto.csv")
    costs = [(float(r["cycles"]), float(r["energy_j"]), -float(r["utilization"])) for r in found]

    def beaten(cost):
        return any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs)

    best = {cost for cost in costs if not beaten(cost)}
    assert {(float(r["cycles"]), float(r["energy_j"]), -float(r["utilization"])) for r in front} == best
    assert all(row in found for row in front)
    assert len(front) == len(best) > 1


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30))
def test_pareto_front_by_definition(points):
    found = pareto_front(np.array(points, np.float64).reshape(-1, 3)).tolist()
    for index, point in enumerate(points):
        better = [p for p in points if p != point and all(a <= b for a, b in zip(p, point, strict=True))]
        assert (index in found) == (not better and points.index(point) == index)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1e280, exclude_max=True), min_size=1, max_size=20), st.integers(0, 2**63 - 1))
def test_rows_are_read_back(floats, number):
    count = len(floats)
    text = csv_rows(
        [(np.arange(count) % 3, Texts.of(["plain", 'a "quoted", one', ""]))],
        [np.arange(count), np.full(count, number)],
        [np.array(floats)],
    ).decode()
    found = list(csv.reader(io.StringIO(text)))
    assert [int(row[0]) for row in found] == list(range(count))
    assert [row[1] for row in found] == [["plain", 'a "quoted", one', ""][i % 3] for i in range(count)]
    assert all(int(row[2]) == number for row in found)
    for row, value in zip(found, floats, strict=True):
        if value >= 1e-280:
            assert float(row[3]) == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("value", [0.0, 0.00012345, 0.5, 0.9999999999, 1.0, 9.9999999999, 123456789.0, 1e9, 2.5e-7])
def test_a_float_has_nine_digits(value):
    text = csv_rows([], [np.zeros(1, np.int64)], [np.array([value])]).decode().strip().split(",")[1]
    assert float(text) == float(f"{value:.8e}")


def test_random_points_are_drawn_from_the_axes(tmp_path):
    text = LARGE + "sample: {points: 500, seed: 3}\n"
    assert main(["sweep", str(write(tmp_path, text)), "-o", str(tmp_path / "a"), "-q"]) == 0
    assert main(["sweep", str(write(tmp_path, text)), "-o", str(tmp_path / "b"), "-q", "-j", "2"]) == 0
    assert (tmp_path / "a/results.csv").read_bytes() == (tmp_path / "b/results.csv").read_bytes()
    found = rows(tmp_path / "a/results.csv")
    assert len(found) == 500
    assert len({row["rows"] for row in found}) > 200


# a chunk, then nothing until it is killed
SLOW = """\
import time
from nmsat.simulator.explore import sweep
store = sweep._store
def slow(folder, result):
    store(folder, result)
    time.sleep(30)
sweep._store = slow
"""


def test_a_killed_sweep_goes_on(tmp_path, monkeypatch, capsys, killed_when):
    out, spec = tmp_path / "out", str(write(tmp_path, LARGE))
    killed_when(SLOW, ["sweep", spec, "-o", str(out), "-q"], lambda: any(out.glob("chunks/*.json")))
    assert not (out / "results.csv").exists()
    done = {path.stem for path in out.glob("chunks/*.json")}
    assert main(["sweep", spec, "-o", str(out), "-q"]) == 2
    assert "say --resume to go on" in capsys.readouterr().err
    ran: list[int] = []
    evaluate = chunk.evaluate_chunk

    def counted(data, number):
        ran.append(number)
        return evaluate(data, number)

    monkeypatch.setattr(sweep, "evaluate_chunk", counted)
    assert main(["sweep", spec, "-o", str(out), "-q", "--resume"]) == 0
    chunks = chunk.chunks_of(SweepSpec.load(spec))
    assert chunks >= 3
    assert sorted([*ran, *map(int, done)]) == list(range(chunks))  # nothing lost, nothing done twice
    assert main(["sweep", spec, "-o", str(tmp_path / "whole"), "-q"]) == 0
    for name in ("results.csv", "pareto.csv", "summary.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(out.glob("**/.*"))
    assert main(["sweep", spec, "-o", str(out), "-q", "--resume"]) == 0  # finished: nothing to do


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_killed_sweep_leaves_no_workers(tmp_path, killed_when):
    """Its processes end with it, and what they had finished stays: at most a chunk each is lost."""
    out, spec = tmp_path / "out", str(write(tmp_path, SMALL))

    def command(process: Path) -> bytes:
        try:
            return (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            return b""

    lines = SLOW + "from nmsat.simulator.explore import chunk\nsweep.CHUNK_POINTS = chunk.CHUNK_POINTS = 100\n"
    killed_when(
        lines, ["sweep", spec, "-o", str(out), "-q", "-j", "2"], lambda: len(list(out.glob("chunks/*.json"))) == 2
    )
    deadline = time.monotonic() + 20
    while any(spec.encode() in command(process) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {path.name for path in out.glob("chunks/*.json")} == {"000000.json", "000001.json"}


def test_killed_at_every_file_it_writes(tmp_path, monkeypatch):
    """Before, and after, each file takes its name: what is there goes on, and the end is the same."""

    class Killed(BaseException):
        pass

    for module in (chunk, sweep):
        monkeypatch.setattr(module, "CHUNK_POINTS", 300)
    spec = SweepSpec.load(write(tmp_path, SMALL))
    executor, replace = InlineExecutor(), os.replace
    sweep.run_sweep(spec, tmp_path / "whole", executor=executor)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    files = 1 + 2 * chunk.chunks_of(spec) + 3
    for moment in range(2 * files + 1):
        count, folder = 0, tmp_path / f"killed{moment}"

        def counted(source, target, moment=moment):
            nonlocal count
            if count == moment:
                raise Killed
            replace(source, target)
            count += 2
            if count == moment + 1:
                Path(source).write_text("half")  # what a dead process leaves
                raise Killed

        monkeypatch.setattr(os, "replace", counted)
        with pytest.raises(Killed) if moment < 2 * files else nullcontext():
            sweep.run_sweep(spec, folder, executor=executor)
        monkeypatch.setattr(os, "replace", replace)
        sweep.run_sweep(spec, folder, executor=executor, resume=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole, moment


def test_another_sweeps_folder_is_refused(tmp_path, capsys):
    small = write(tmp_path, SMALL)
    assert main(["sweep", str(small), "-o", str(tmp_path / "out"), "-q"]) == 0
    before = (tmp_path / "out/results.csv").read_bytes()
    small.write_text(SMALL.replace("[4, 8]", "[4, 16]"))
    assert main(["sweep", str(small), "-o", str(tmp_path / "out"), "-q", "--resume"]) == 2
    assert "must be a folder of this sweep" in capsys.readouterr().err
    assert (tmp_path / "out/results.csv").read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    assert main(["sweep", str(small), "-o", str(tmp_path / "full"), "-q"]) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err


def test_disk_full_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    spec, out = str(write(tmp_path, LARGE)), tmp_path / "out"
    real, written = Path.write_bytes, []

    def full(self, data):
        if self.name.startswith(".000001.csv"):
            real(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(self.name)
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["sweep", spec, "-o", str(out), "-q"]) == 2
    assert "must be writable; No space left on device; finished chunks are kept" in capsys.readouterr().err
    left = {p.name for p in out.glob("chunks/*")}  # chunks in flight arrive in any order
    assert left in (set(), {"000000.csv", "000000.json"})
    monkeypatch.undo()
    assert main(["sweep", spec, "-o", str(out), "-q", "--resume"]) == 0
    assert (out / "results.csv").read_bytes().count(b"\n") == 1 + SweepSpec.load(spec).points()


def test_a_dead_worker_is_one_line(tmp_path):
    class Broken(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            from concurrent.futures.process import BrokenProcessPool

            raise BrokenProcessPool("gone")

    spec = SweepSpec.load(write(tmp_path, SMALL))
    with Broken(1) as executor, pytest.raises(NmsatError, match=r"a worker process died; .* --resume"):
        sweep.run_sweep(spec, tmp_path / "out", executor=executor)


@pytest.mark.filterwarnings("ignore")  # a worker killed on purpose makes distributed warn
def test_a_cluster_loses_and_doubles_nothing(tmp_path):
    """A local cluster of two processes; one is killed while the sweep runs."""
    from distributed import Client, LocalCluster

    spec = SweepSpec.load(write(tmp_path, LARGE))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))
        killed: list[int] = []

        def kill(done):
            if done and not killed:
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)

        executor = client.get_executor(pure=False)
        summary = sweep.run_sweep(spec, tmp_path / "out", executor=executor, shared_folder=False, report=kill)
    assert killed
    assert summary.kept == spec.points()
    assert main(["sweep", str(tmp_path / "sweep.yaml"), "-o", str(tmp_path / "here"), "-q"]) == 0
    assert (tmp_path / "out/results.csv").read_bytes() == (tmp_path / "here/results.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows: [4, 8]", "rows: []", "axes.rows: must have at least one value"),
        ("rows: [4, 8]", "rows: [4, 4]", "axes.rows: must not repeat a value"),
        ("rows: [4, 8]", "rows: [0, 4]", "axes.rows: must be greater than or equal to 1, not 0"),
        ("rows: [4, 8]", "rows: [4.5]", "axes.rows: must be integer, not 4.5"),
        ("rows: [4, 8]", "rows:", "axes.rows: must be a list of values or a range {from: ..., to: .*, not None"),
        ("rows: [4, 8]", "rows: 5", "axes.rows: must be a list of values or a range .*, not 5"),
        ("batch: 16", "batch: 0", "set.batch: must be an integer from 1 to 1048576, not 0"),
        ("rows: [4, 8]", "rowz: [4, 8]", "axes.rowz: must be one of workload, method.*; did you mean rows[?]"),
        ("rows: [4, 8]", "batch: [4, 8]", "set.batch: must not be an axis too"),
        ("rows: [4, 8]", "workload: [vit]", "workload: must be given once"),
        ("rows: [4, 8]", "rows: {from: 8, to: 4, count: 2}", "to: must be at least from = 8, not 4"),
        ("rows: [4, 8]", "rows: {from: 1, to: 4}", "must have either count or step"),
        ("rows: [4, 8]", "rows: {from: 1, to: 900, step: 0.000001}", "step: must be at most 1,000,000 values"),
        ("max_group: [8, 32]", "max_group: [2]", "axes.max_group: must be at least max_keep = 4, not 2"),
        ("min: 0.5", "min: 2, max: 1", "speedup_over_dense: must have min <= max, not 2 > 1"),
        ("min: 0.5}", "min: 2}\n  - {figure: speedup_over_dense, max: 1}", "must not have to be both >= 2 and <= 1"),
        ("energy_j, util", "joules, util", "objectives.1: "),
        ("objectives: [cycles, energy_j, utilization]", "objectives: []", "objectives: must be 1 to 6 figures, .*none"),
        ("energy_j, util", "cycles, util", "objectives: must be 1 to 6 figures, each once, not cycles, cycles, "),
        ("count: 7, scale: log", "count: 99999999", "axes.dram_mb_s.*1000000"),
    ],
)
def test_bad_files(tmp_path, capsys, old, new, message):
    assert old in SMALL
    path = write(tmp_path, SMALL.replace(old, new))
    assert main(["sweep", str(path), "-o", str(tmp_path / "out"), "-q"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_huge_grid_offers_sampling(tmp_path, capsys):
    text = LARGE.replace("[8, 16, 32]", "{from: 1, to: 1000, step: 1}").replace(
        "[1000, 2000, 4000]", "{from: 1, to: 100000, step: 1}"
    )
    assert main(["sweep", str(write(tmp_path, text)), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "at most 100,000,000 points, not 2,040,000,000,000; draw some" in error
    assert "sample: {points: 1000000, seed: 1}" in error


def test_no_point_meets_the_constraints(tmp_path, capsys):
    text = SMALL.replace("min: 0.5", "min: 1000")
    assert main(["sweep", str(write(tmp_path, text)), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert " 0 meet the constraints" in said
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["broken"] == {"speedup_over_dense >= 1000": summary["valid"]}
    assert f"{summary['valid']:,} break the constraint speedup_over_dense >= 1000\n" in said


def test_no_axes(tmp_path, capsys):
    path = write(tmp_path, "format: nmsat-sweep/1\nworkload: vit\naxes: {}\n")
    assert main(["sweep", str(path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.endswith("axes: must have at least one field with its values\n")


def test_json_summary_alone_on_stdout(tmp_path, capsys):
    assert main(["sweep", str(write(tmp_path, SMALL)), "-o", str(tmp_path / "out"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] == 672


def test_the_bar_says_rate_and_remaining_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(chunk, "CHUNK_POINTS", 100)
    monkeypatch.setattr(sweep, "CHUNK_POINTS", 100)
    store = sweep._store

    def slow(folder, result):
        time.sleep(0.15)  # the bar is drawn ten times a second
        store(folder, result)

    monkeypatch.setattr(sweep, "_store", slow)
    assert main(["sweep", str(write(tmp_path, SMALL)), "-o", str(tmp_path / "out")]) == 0
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"sweep .*[1-6]00/672 [1-9][0-9,]* points/s 0:00:0", drawn), drawn


def test_the_example_is_what_the_readme_says(tmp_path, capsys):
    spec = Path(__file__).resolve().parents[1] / "examples/pareto.yaml"
    assert main(["sweep", str(spec), "-o", str(tmp_path / "out")]) == 0
    assert "648 points, 648 can run" in capsys.readouterr().out
    assert len(rows(tmp_path / "out/pareto.csv")) > 1


def test_ranges():
    assert Range.model_validate({"from": 1.0, "to": 2.0, "step": 0.25}).values(whole=False) == [1, 1.25, 1.5, 1.75, 2]
    assert Range.model_validate({"from": 1.0, "to": 4.0, "count": 7}).values(whole=True) == [1, 2, 3, 4]
    assert Range.model_validate({"from": 1.0, "to": 1000.0, "count": 4, "scale": "log"}).values(whole=True) == [
        1,
        10,
        100,
        1000,
    ]
