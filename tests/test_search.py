"""Guided sweeps and Parquet: the same rows as the grid's, near the true front, missing tools said in one line."""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.models.errors import NmsatError
from nmsat.simulator.explore import search
from nmsat.simulator.explore.spec import SweepSpec

GRID = """\
format: nmsat-sweep/1
workload: digits-cnn
set: {batch: 32, max_keep: 4}
axes:
  sparsity: ["2:4", "2:8", "1:16"]
  dataflow: [auto, os]
  rows: {from: 2, to: 24, step: 1}
  cols: {from: 2, to: 24, step: 1}
  dram_mb_s: {from: 1000, to: 32000, count: 12}
objectives: [seconds, energy_j]
constraints: [{figure: utilization, min: 0.05}]
"""
SEARCH = GRID + "search: {points: 3000, population: 100, seed: 1}\n"
SHORT = SEARCH.replace("3000", "600")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    for name, text in (("grid", GRID), ("search", SEARCH), ("short", SHORT)):
        (folder / f"{name}.yaml").write_text(text)
        assert main(["sweep", str(folder / f"{name}.yaml"), "-o", str(folder / name), "-q", "--parquet"]) == 0
    return folder


def test_a_search_finds_the_front(swept):
    """Of 38,088 designs a search of 3,000 reaches 99 % of the area that the whole grid's front dominates."""
    exact, found = (
        [(float(row["seconds"]), float(row["energy_j"])) for row in rows(swept / name / "pareto.csv")]
        for name in ("grid", "search")
    )
    corner = [max(point[axis] for point in exact) * 1.1 for axis in (0, 1)]

    def dominated(front):
        area, top = 0.0, corner[1]
        for x, y in sorted(front):
            if x < corner[0] and y < top:
                area += (corner[0] - x) * (top - y)
                top = y
        return area

    assert SweepSpec.load(swept / "grid.yaml").points() == 38_088
    assert dominated(found) >= 0.99 * dominated(exact)
    assert len(rows(swept / "search/results.csv")) <= 3000


def test_a_search_writes_the_grid_s_rows(swept):
    grid = {row["point"]: row for row in rows(swept / "grid/results.csv")}
    found = rows(swept / "search/results.csv")
    assert len(found) > 500
    assert all(row == grid[row["point"]] for row in found)
    numbers = [int(row["point"]) for row in found]
    assert numbers == sorted(set(numbers))


def test_equal_seeds_equal_bytes(swept, tmp_path):
    assert main(["sweep", str(swept / "short.yaml"), "-o", str(tmp_path / "again"), "-q"]) == 0
    assert (tmp_path / "again/results.csv").read_bytes() == (swept / "short/results.csv").read_bytes()
    other = tmp_path / "other.yaml"
    other.write_text(SHORT.replace("seed: 1", "seed: 2"))
    assert main(["sweep", str(other), "-o", str(tmp_path / "other"), "-q"]) == 0
    assert (tmp_path / "other/results.csv").read_bytes() != (swept / "short/results.csv").read_bytes()


# four batches, then nothing until it is killed
SLOW = """\
import time
from nmsat.simulator.explore import search
write = search._Log.write
def slow(log, codes, figures):
    write(log, codes, figures)
    time.sleep(60 if log.at >= 400 else 0)
search._Log.write = slow
"""


def test_a_killed_search_goes_on(swept, tmp_path, monkeypatch, capsys, killed_when):
    """What it had evaluated is not evaluated again, and it ends as the search that nobody killed."""
    out, spec = tmp_path / "out", str(swept / "short.yaml")
    log = out / "chunks/search.log"
    size = 400 * 8 * 9  # five axes, two objectives, two bounds
    killed_when(SLOW, ["sweep", spec, "-o", str(out), "-q"], lambda: log.exists() and log.stat().st_size >= size)
    with log.open("ab") as file:
        file.write(b"a row begun")
    assert main(["sweep", spec, "-o", str(out), "-q"]) == 2
    assert "say --resume to go on" in capsys.readouterr().err
    evaluated: list[int] = []
    figures_of = search.figures_of

    def counted(*arguments):
        evaluated.append(arguments[-1])
        return figures_of(*arguments)

    monkeypatch.setattr(search, "figures_of", counted)
    assert main(["sweep", spec, "-o", str(out), "-q", "--resume"]) == 0
    assert sum(evaluated) == 600 - 400
    for name in ("results.csv", "pareto.csv", "summary.json", "manifest.json"):
        assert (out / name).read_bytes() == (swept / "short" / name).read_bytes()
    assert not (out / "chunks").exists()
    assert main(["sweep", spec, "-o", str(out), "-q", "--resume"]) == 0  # finished: nothing to do


def test_another_search_s_log_is_refused(tmp_path):
    path = tmp_path / "search.log"
    codes, figures = np.array([[0, 1], [2, 3], [4, 5]]), np.array([[0.5], [np.inf], [1e300]])
    log = search._Log(path, 2, 1)
    assert log.read(codes) is None
    log.write(codes, figures)
    again = search._Log(path, 2, 1)
    assert np.array_equal(again.read(codes[:2]), figures[:2])
    assert again.read(codes[[2, 0]]) is None  # there in part: evaluated again, the rest appended
    again.write(codes[[2, 0]], figures[[2, 0]])
    whole = search._Log(path, 2, 1)
    assert np.array_equal(whole.read(codes[[0, 1, 2, 0]]), figures[[0, 1, 2, 0]])
    with pytest.raises(NmsatError, match=r"search\.log: must be what this search evaluates first, .*another pymoo\?"):
        search._Log(path, 2, 1).read(codes[::-1])


def test_disk_full_in_a_search(swept, tmp_path, monkeypatch, capsys):
    real = search._Log.write

    def full(self, codes, figures):
        if self.at > 300:
            with self.path.open("ab") as file:
                file.write(b"half a row")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, codes, figures)

    monkeypatch.setattr(search._Log, "write", full)
    out, spec = tmp_path / "out", str(swept / "short.yaml")
    assert main(["sweep", spec, "-o", str(out), "-q"]) == 2
    assert "must be writable; No space left on device; finished chunks are kept" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["sweep", spec, "-o", str(out), "-q", "--resume"]) == 0
    assert (out / "results.csv").read_bytes() == (swept / "short/results.csv").read_bytes()


def test_parquet_holds_what_the_csv_holds(swept):
    import pyarrow.parquet as pq

    table, text = pq.read_table(swept / "grid/results.parquet"), rows(swept / "grid/results.csv")
    assert table.schema.names == list(text[0])
    assert table.num_rows == len(text)
    types = {name: str(table.schema.field(name).type) for name in ("point", "sparsity", "rows", "cycles", "seconds")}
    assert types == {"point": "int64", "sparsity": "string", "rows": "int64", "cycles": "int64", "seconds": "double"}
    for name in table.schema.names:
        column = table.column(name).to_pylist()
        if isinstance(column[0], str):
            assert column == [row[name] for row in text]
        else:
            assert np.array_equal(column, [float(row[name]) for row in text])
    assert table.schema.metadata[b"nmsat_config_hash"].decode() == json.loads(
        (swept / "grid/manifest.json").read_text()
    )["config_hash"]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "arguments", "text", "message"),
    [
        ("pymoo.algorithms.moo.nsga2", [], SEARCH, 'search needs pymoo: pip install "nmsat[search]"'),
        ("pyarrow", ["--parquet"], GRID, '--parquet needs pyarrow: pip install "nmsat[parquet]"'),
    ],
)
def test_missing_extras(tmp_path, monkeypatch, capsys, module, arguments, text, message):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "s.yaml").write_text(text.replace("to: 24", "to: 3"))
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "-q", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/results.parquet").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SEARCH + "sample: {points: 10}\n", "search: must not be given together with sample"),
        (SEARCH.replace("points: 3000", "points: 1"), "search.points: must be "),
        (SEARCH.replace("population: 100", "population: 1"), "search.population: must be "),
        (GRID + "also: [beauty]\n", "also.0: must be "),
    ],
)
def test_bad_searches(tmp_path, capsys, text, message):
    (tmp_path / "s.yaml").write_text(text)
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_named_figures_become_columns(tmp_path):
    (tmp_path / "s.yaml").write_text(GRID.replace("to: 24", "to: 3") + "also: [speedup_over_dense, dsp]\n")
    assert main(["sweep", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "out"), "-q"]) == 0
    found = rows(tmp_path / "out/results.csv")
    assert all(int(row["dsp"]) >= int(row["rows"]) * int(row["cols"]) for row in found)
    assert list(found[0])[-1] == "speedup_over_dense"
    assert "lut" not in found[0]
