"""The committed study is what the code prints today."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmsat.reports.study import placement, run_study, speedup_figure, to_csv, to_markdown

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def points():
    return run_study()


def test_committed_tables_are_current(points):
    assert (ROOT / "reports/gallery/study.csv").read_text() == to_csv(points)
    assert (ROOT / "reports/gallery/study.md").read_text().startswith(to_markdown(points))


def test_readme_extract_is_current(points):
    table = to_markdown(points).split("\n\n")[-1].strip()
    assert table in (ROOT / "README.md").read_text()


def test_the_published_average_is_framed(points):
    order = [case for case, _ in placement(points)]
    assert order[0] == "all optimisations"
    assert order.index("published (arXiv 2309.13015, abstract)") > order.index("all optimisations, 19.2 GB/s")
    assert order[-1] == "none of the overlaps, 19.2 GB/s"
    assert placement(points)[0][1] >= 1.90


def test_the_figure_s_data_are_current(points):
    assert (ROOT / "reports/gallery/speedup.csv").read_text() == speedup_figure(points).to_csv()
