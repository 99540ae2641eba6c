"""Results of a simulation: rows a layer, stage and product, totals, provenance."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any

COLUMNS = (
    "layer",
    "stage",
    "op",
    "m",
    "n",
    "k",
    "groups",
    "sparsity",
    "dataflow",
    "interleave",
    "tiles",
    "cycles",
    "compute_cycles",
    "stall_cycles",
    "macs",
    "useful_macs",
    "utilization",
    "dram_read_bytes",
    "dram_write_bytes",
    "energy_pj",
    "order",
    "chain",
    "busy_cycles",
    "fill_cycles",
)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What ``simulate`` returns.

    Attributes
    ----------
    meta : dict
        Provenance: version, hashes, workload, accelerator, method, sparsity, batch, mode, options, seed.
    totals : dict
        Sums and ratios; ``cycles`` is an integer, ``energy_j`` a model.
    layers : tuple of dict
        Rows in program order with the keys of ``COLUMNS``; of a row's stalls ``fill_cycles`` wait for its first tile.
    """

    meta: dict[str, Any]
    totals: dict[str, Any]
    layers: tuple[dict[str, Any], ...]

    def to_rows(self) -> list[dict[str, Any]]:
        """The rows as a list of plain dictionaries."""
        return [dict(row) for row in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """meta, totals and layers as plain JSON values."""
        return {"meta": self.meta, "totals": self.totals, "layers": self.to_rows()}

    def to_json(self) -> str:
        """The result as JSON text; equal inputs give equal bytes."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def to_csv(self) -> str:
        """The rows as CSV text with a header line."""
        import csv
        import io

        names = list(self.layers[0]) if self.layers else list(COLUMNS)
        out = io.StringIO()
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.layers)
        return out.getvalue()

    def _repr_html_(self) -> str:
        """Rich display in a notebook: totals, then the rows."""
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
            for key, value in self.totals.items()
        )
        names = list(self.layers[0]) if self.layers else []
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in names) + "</tr>"
            for row in self.layers
        )
        title = html.escape(f"{self.meta.get('workload')} on {self.meta.get('accelerator')}")
        return f"<h4>{title}</h4><table>{cells}</table><table><tr>{head}</tr>{body}</table>"
