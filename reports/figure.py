"""A figure: its data first, drawn in the one style of all reports, written as SVG, PNG and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..models.whole_file import write_whole

# Okabe and Ito's colours, told apart with any colour vision; every figure says the same by shape or position too.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#9A9A9A",
)  # fmt: skip
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STAGES = {"ff": "FF forward", "bp": "BP input gradient", "wu": "WU weight gradient", "vector": "vector work"}
STAGE_COLOURS = {"ff": BLUE, "bp": ORANGE, "wu": GREEN, "vector": PURPLE}
STAGE_MARKERS = {"ff": "o", "bp": "s", "wu": "^", "vector": "D"}
WIDTH = 8.0  # inches
PNG_DPI = 130
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # names are the user's: a $ is a $
    "svg.hashsalt": "nmsat",
    "svg.fonttype": "path",
}


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure that has not been drawn yet.

    Attributes
    ----------
    name : str
        File stem.
    title, caption : str
        Heading; what it shows and how it was obtained, in words (also what a screen reader reads).
    columns : tuple of str
        Of ``rows``, units as suffixes.
    rows : tuple of tuples
        Everything that is drawn: texts, integers, floats.
    draw : callable
        Takes matplotlib's pyplot and returns its Figure.
    """

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    draw: Callable[[Any], Any]

    def to_csv(self) -> str:
        """The data as CSV text; floats with nine significant digits."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([f"{v:.9g}" if isinstance(v, float) else v for v in row] for row in self.rows)
        return out.getvalue()

    def svg(self) -> bytes:
        """Drawn as SVG; equal data give equal bytes with the same matplotlib."""
        return self._drawn[0]

    def png(self) -> bytes:
        """Drawn as PNG."""
        return self._drawn[1]

    def write(self, folder: Path) -> None:
        """Write NAME.csv, NAME.svg and NAME.png."""
        for suffix, content in (("csv", self.to_csv()), ("svg", self.svg()), ("png", self.png())):
            write_whole(folder / f"{self.name}.{suffix}", content)

    @cached_property
    def _drawn(self) -> tuple[bytes, bytes]:
        svg, png = io.BytesIO(), io.BytesIO()
        with style() as plt:
            fig = self.draw(plt)
            try:
                fig.savefig(svg, format="svg", metadata={"Date": None})
                fig.set_layout_engine("none")  # it is laid out
                fig.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
            finally:
                plt.close(fig)
        return svg.getvalue(), png.getvalue()


@contextmanager
def style() -> Iterator[Any]:
    """matplotlib's pyplot without a display, in the house's style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    settings: Any = {**matplotlib.rcParamsDefault, **_STYLE, "backend": "Agg"}
    with plt.rc_context(settings):
        yield plt


def layer_axis(axes: Any, names: Sequence[str]) -> None:
    """Label a horizontal axis with layers: all of them, or as many as can be read."""
    step = -(-len(names) // 60)
    places = range(0, len(names), step)
    axes.set_xticks(places, [names[place] for place in places], rotation=90, fontsize=7)
    axes.set_xlim(-0.6, len(names) - 0.4)


def plain_log(axis: Any, subs: Sequence[int] = (1, 2, 5)) -> None:
    """Numbers instead of powers of ten at 1, 2 and 5 of every decade on a logarithmic axis, or at ``subs``."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(NullFormatter())
