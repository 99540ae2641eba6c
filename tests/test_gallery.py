"""The committed gallery is what the code makes today.

Data (CSV) and the page are compared exactly. Pictures are drawn again and compared pixel by pixel: a newer matplotlib or
FreeType may place glyphs differently by parts of a pixel, so both are averaged over squares of 8 pixels, and the mean
difference must stay below 1 % of the range. `test_a_changed_picture_is_seen` shows what that finds.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from nmsat.reports.gallery import Exhibit, exhibits, page
from nmsat.reports.study import Point, speedup_figure

GALLERY = Path(__file__).resolve().parents[1] / "reports/gallery"
TOLERANCE = 0.01


@pytest.fixture(scope="module")
def found() -> list[Exhibit]:
    with (GALLERY / "study.csv").open(newline="") as file:  # tests/test_study.py holds it to the code
        points = [Point(**{key: _typed(key, value) for key, value in row.items()}) for row in csv.DictReader(file)]
    return [
        Exhibit("Five networks, three patterns", "nmsat report --study DIR", (speedup_figure(points),)),
        *exhibits(),
    ]


def _typed(key: str, value: str) -> object:
    if key in ("network", "method", "sparsity", "case"):
        return value
    return int(value) if key in ("batch", "cycles", "dram_bytes") else float(value)


def difference(one: bytes, other: bytes) -> float:
    """Mean difference of two PNGs, averaged over squares of 8 pixels; 1 if they differ in size."""
    a, b = (matplotlib.image.imread(io.BytesIO(data))[..., :3] for data in (one, other))
    if any(abs(x - y) > 8 for x, y in zip(a.shape, b.shape, strict=True)):
        return 1.0
    rows, cols = (min(x, y) // 8 for x, y in zip(a.shape[:2], b.shape[:2], strict=True))
    blocks = [x[: rows * 8, : cols * 8].reshape(rows, 8, cols, 8, 3).mean(axis=(1, 3)) for x in (a, b)]
    return float(np.abs(blocks[0] - blocks[1]).mean())


def test_data_and_page_are_current(found):
    figures = [figure for exhibit in found for figure in exhibit.figures]
    for figure in figures:
        assert (GALLERY / f"{figure.name}.csv").read_text() == figure.to_csv(), figure.name
    assert (GALLERY / "README.md").read_text() == page(found)
    names = {f"{figure.name}.{suffix}" for figure in figures for suffix in ("csv", "svg", "png")}
    assert {path.name for path in GALLERY.iterdir()} == names | {"README.md", "study.csv", "study.md"}


def test_pictures_are_current(found):
    for exhibit in found:
        for figure in exhibit.figures:
            assert difference((GALLERY / f"{figure.name}.png").read_bytes(), figure.png()) < TOLERANCE, figure.name
            drawn, committed = figure.svg().decode(), (GALLERY / f"{figure.name}.svg").read_text()
            sizes = [re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text) for text in (drawn, committed)]
            assert [float(x) for x in sizes[0].groups()] == pytest.approx(
                [float(x) for x in sizes[1].groups()], rel=0.02
            )


def test_a_changed_picture_is_seen(found):
    figure = found[0].figures[0]
    rows = tuple((name, pattern, 0.5 * value) for name, pattern, value in figure.rows)

    def halved(plt):
        fig = figure.draw(plt)
        for bar in fig.axes[0].patches:
            bar.set_height(0.5 * bar.get_height())
        return fig

    changed = replace(figure, rows=rows, draw=halved)
    assert difference((GALLERY / f"{figure.name}.png").read_bytes(), changed.png()) > 2 * TOLERANCE


def test_the_commands_are_ones_that_exist(found):
    for exhibit in found:
        for command in exhibit.command.split(" && "):
            assert re.match(r"nmsat (run|report|sweep) |python -m nmsat\.reports\.allocation_study ", command)
