"""The numerics study: its exact dot products against fractions, its counters, its page from small inputs."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nmsat.__main__ import main
from nmsat.models import Sparsity
from nmsat.models.golden import narrow, product_window, to_bits
from nmsat.models.training import WindowProducts
from nmsat.models.window import Window
from nmsat.reports.window_numerics import DOT_COLUMNS, LSBS, Watched, dot_rows, exact_products
from nmsat.reports.window_study import NAMES, RUNS, _training_table, page, write_page

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "reports/window"


@pytest.mark.parametrize("seed", range(4))
def test_exact_dot_products(seed):
    """Any finite operands: 2^-48 beside 2^31, both signs."""
    rng = np.random.default_rng(seed)
    bits = [rng.integers(0, 1 << 16, shape).astype(np.uint16) for shape in ((5, 40), (40, 3))]
    a, b = (np.where(x >> 10 & 31 == 31, x & 0x83FF, x).astype(np.uint16).view(np.float16) for x in bits)
    if seed % 2:
        a, b = (rng.normal(size=x.shape).astype(np.float16) for x in (a, b))
    value, half = exact_products(a, b)
    for at in np.ndindex(value.shape):
        total = sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a[at[0]], b[:, at[1]], strict=True))
        assert abs(Fraction(float(value[at])) - total) <= abs(total) / 2**50
        if abs(total) < 65520:
            error = abs(Fraction(float(half[at])) - total)
            for step in (-1, 1):  # no neighbour is nearer
                other = np.uint16(int(to_bits(half)[at]) + step & 0xFFFF).view(np.float16)
                assert not np.isfinite(other) or abs(Fraction(float(other)) - total) >= error


def test_the_best_window_is_exactly_rounded_where_it_holds_all_bits():
    """Integers: every product is a multiple of 2^-33, so the window's result is the exact one."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 10, shape).astype(np.float16) for shape in ((4, 300), (300, 4)))
    _, exact = exact_products(a, b)
    sums = product_window(a, b[:, None, :], np.zeros((300, 1, 4), np.uint8), 1, Window())
    assert np.array_equal(to_bits(sums.to_binary16()), to_bits(exact))


def test_watched_products_count():
    watched = Watched(WindowProducts(Window()))
    a = np.array([[[256.0, 1.0]], [[255.0, 256.0]]], np.float16)  # (m, taps, kc)
    b = np.array([[[256.0], [256.0]]], np.float16)
    found = watched.multiply("fc", "ff", 0, a, b, Sparsity(1, 1), False)
    assert np.isnan(found).tolist() == [[True], [True]]
    assert (watched.outputs, watched.flagged, watched.infinite) == (2, 2, 0)
    watched.multiply("fc", "ff", 0, np.full((1, 1, 2), 200, np.float16), b, Sparsity(1, 1), False)
    assert (watched.outputs, watched.flagged, watched.infinite, watched.largest) == (3, 2, 1, 102400.0)
    assert np.isinf(narrow(np.float32(102400)))


def test_rows_of_one_kind():
    first = next(iter(dot_rows(seed=3)))
    assert len(first) == len(DOT_COLUMNS)
    assert first[:4] == ("FF", 64, 1, "fp32")
    rows = []
    for row in dot_rows(seed=3):
        rows.append(row)
        if len(rows) == 5:
            break
    assert [row[3] for row in rows] == list(NAMES) == ["fp32", *(f"L = {lsb}" for lsb in LSBS)]
    assert all(row[6] >= 0.49 for row in rows)
    assert rows[4][4] <= rows[1][4]  # L = 36 is not worse than L = 24


def test_the_page(tmp_path):
    rows = [("FF", 64, 1, name, 0.001, 0.25, 0.51, 0.0, 0.0, 0.0) for name in NAMES]
    rows += [(data, 64, 2**16, name, 0.0, 0.25, 0.5, 0.0, 0.0, 0.0) for data in ("BP", "WU") for name in NAMES]
    records = [
        {
            "task": "digits-mlp",
            "seed": seed,
            "accumulator": "fp32",
            "accuracy": 0.9,
            "losses": [1.0, 0.5],
            "skipped_steps": 0,
        }
        for seed in range(2)
    ]
    records.append(records[0] | {"accumulator": "L = 33", "flagged": 3, "infinite": 1, "largest": 9.0, "outputs": 10})
    text = write_page(tmp_path, rows, records)
    assert "| FF | 64 | 1 | 0 % | 0.1 % (0.51) |" in text
    assert "| digits-mlp | fp32 | 2 | 90.00 ± 0.00 % | 0.5000 | 0 | - | - | - |" in text
    assert "| digits-mlp | L = 33 | 1 | 90.00 % | 0.5000 | 0 | 3 | 1 | 9 |" in text
    assert {path.name for path in tmp_path.iterdir()} >= {
        "misrounded.png",
        "losses.csv",
        "numerics.md",
        "training.json",
    }


def committed():
    with (RECORDS / "misrounded.csv").open() as file:
        rows = [
            (r[0], int(r[1]), int(r[2]), r[3], *map(float, r[4:])) for r in csv.reader(file) if r[0] != DOT_COLUMNS[0]
        ]
    return rows, json.loads((RECORDS / "training.json").read_text())


def test_the_committed_page_is_made_of_the_committed_records():
    assert page(*committed()) == (RECORDS / "numerics.md").read_text()


def test_what_the_docs_say_of_the_records():
    """docs/window.md: L = 33 misrounds at most 0.1 % where results are normal; no training run raised a flag."""
    rows, records = committed()
    normal = [row for row in rows if row[3] == "L = 33" and row[7] == 0]
    assert len(normal) >= 10
    assert max(row[4] for row in normal) <= 0.001
    assert max(row[4] for row in rows if row[3] == "fp32" and row[7] == 0) > 0.001
    assert all(record.get("flagged", 0) == 0 for record in records)
    text = (ROOT / "docs/window.md").read_text()
    runs = {task: (seeds, lsbs) for task, seeds, lsbs, _ in RUNS}
    assert len(records) == sum(len(seeds) * len(lsbs) for seeds, lsbs in runs.values())
    for line in _training_table(records)[2:]:
        assert line.split(" | ")[3] in text, line
    assert f"{max(record.get('largest', 0) for record in records):,.0f}" in text
    losses = {r["accumulator"]: np.array(r["losses"]) for r in records if r["task"] == "bytes-lm"}
    for name, most in (("L = 33", 0.002), ("L = 8", 0.005)):
        assert np.abs(losses[name] - losses["fp32"]).max() < most


def test_the_docs_table_of_arrays(tmp_path):
    """docs/window.md: what its sweep finds."""
    text = (ROOT / "docs/window.md").read_text()
    (tmp_path / "arrays.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    assert main(["sweep", str(tmp_path / "arrays.yaml"), "-o", str(tmp_path / "arrays"), "-q"]) == 0
    with (tmp_path / "arrays/results.csv").open() as file:
        found = {(row["side"], row["dram_mb_s"], row["accumulator"]): row for row in csv.DictReader(file)}
    sides = list(dict.fromkeys(side for side, _, _ in found))
    assert len(sides) == 7
    for side in sides:
        cells = [f"{side}x{side}"]
        for bandwidth in ("76800", "12800"):
            fp32, window = (found[side, bandwidth, name] for name in ("fp32", "window"))
            cycles = int(window["cycles"])
            cells += [f"{int(fp32['cycles']):,}", f"{cycles:,}", f"{100 * int(window['stall_cycles']) / cycles:.1f} %"]
        assert f"| {' | '.join(cells)} |" in text
