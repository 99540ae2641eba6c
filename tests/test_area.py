"""The area model: its twins of the array's depths, its fit, its errors, and whether the RTL still is what was fitted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nmsat.fpga.area_fit import columns_of, error_lines, errors, fit, predicted
from nmsat.fpga.area_samples import samples
from nmsat.fpga.estimate import estimate
from nmsat.models import Accelerator
from nmsat.models.area import FIELDS, RESOURCES, AreaModel, area, features, lane_depth, sum_depth, weight_depth
from nmsat.rtl.array_parameters import ArrayParameters
from nmsat.simulator.explore import Designs

ROOT = Path(__file__).resolve().parents[1]
DATA = json.loads((ROOT / "reports/area/samples.json").read_text())
MODEL = AreaModel.load()


def test_depths_are_the_rtls():
    """Every corner of the parameters, and odd ones between."""
    grid = [
        (r, n, la) for r in (1, 2, 3, 17, 64, 1024) for n in (1, 2, 3, 5, 8, 31, 32) for la in (1, 2, 4, 7, 8, 13, 32)
    ]
    rows, keep, la = (np.array(column) for column in zip(*grid, strict=True))
    found = np.stack([weight_depth(rows, keep, la), sum_depth(keep, la), lane_depth(keep, la)], axis=1).tolist()
    for (r, n, latency), depths in zip(grid, found, strict=True):
        real = ArrayParameters(r, 4, n, 32, 4, latency)
        assert depths == [real.weight_depth, real.sum_depth, real.lane_depth], (r, n, latency)


def test_the_samples_are_the_ones_asked_for():
    assert [(item["block"], item["held_out"], item["fields"]) for item in DATA["samples"]] == list(samples())
    for item in DATA["samples"]:
        for name in ("lut", "ff", "dsp"):
            assert item["area"][name] == sum(module["count"] * module[name] for module in item["modules"].values())


def test_the_model_is_the_fit_of_the_samples():
    again = fit(DATA, MODEL.command)
    for part, resources in again.terms.items():
        for resource, terms in resources.items():
            # least squares of another LAPACK
            assert MODEL.terms[part][resource] == pytest.approx(terms, rel=1e-3, abs=1e-3), (part, resource)
    assert (again.tool, again.revision) == (MODEL.tool, MODEL.revision)


def test_held_out_errors_are_as_stated():
    """The error bars of the docs, from samples that the fit has not seen."""
    stated = errors(DATA, MODEL)
    for block, found in stated.items():
        for resource, numbers in found.items():
            assert MODEL.held_out[block][resource] == pytest.approx(numbers, abs=1e-3)
    assert error_lines(MODEL) in (ROOT / "docs/area.md").read_text()
    assert stated["stce"]["lut"]["mean"] < 0.02
    assert stated["stce"]["ff"]["mean"] < 0.04
    assert stated["sore"]["lut"]["worst"] < 0.12


def test_held_out_samples_are_not_fitted():
    """A planted error in a held-out sample moves the stated error, not the fit."""
    planted = json.loads(json.dumps(DATA))
    victim = next(item for item in planted["samples"] if item["block"] == "stce" and item["held_out"])
    victim["area"]["lut"] *= 2
    for module in victim["modules"].values():
        module["lut"] *= 2
    assert fit(planted, "").terms == fit(DATA, "").terms
    assert errors(planted, MODEL)["stce"]["lut"]["worst"] > 0.4


def test_an_element_is_still_what_was_fitted():
    """One element of today's RTL through yosys, against the model: within 5 % (docs/area.md)."""
    small = Accelerator.load("sat_4x4")
    found = estimate("uspe", small)["area"]
    _, terms = features({name: np.array([getattr(small, name)]) for name in FIELDS})["element"]
    for resource in ("lut", "ff"):
        model = sum(c * float(terms[name][0]) for name, c in MODEL.terms["element"][resource].items())
        assert model == pytest.approx(found[resource], rel=0.05)


def test_many_designs_at_once_are_single_designs():
    base = Accelerator.load("sat")
    designs = Designs.of(base, {"rows": [4, 64, 16], "max_keep": [1, 8, 4], "max_group": 8, "sore_lanes": [1, 2, 32]})
    together = area({name: designs.column(name) for name in FIELDS})
    assert set(together) == set(RESOURCES)
    for index in range(3):
        alone = area({name: getattr(designs.accelerator(index, base), name) for name in FIELDS})
        assert {k: int(v[0]) for k, v in alone.items()} == {k: int(v[index]) for k, v in together.items()}


def test_a_block_alone_is_its_share():
    item = DATA["samples"][0]
    whole = area(columns_of(item))
    alone = sum(predicted(sample, MODEL)["lut"] for sample in [item])
    assert alone < whole["lut"][0]
    assert int(whole["dsp"][0]) == item["fields"]["rows"] * item["fields"]["cols"] + 8 * 32


def test_no_groups_no_sore():
    base = {name: getattr(Accelerator.load("sat"), name) for name in FIELDS}
    dense = area(base | {"max_keep": 1, "max_group": 1})
    pruning = area(base | {"max_keep": 1, "max_group": 2})
    assert dense["lut"][0] < pruning["lut"][0]
    more = area(base | {"rows": 64})
    assert more["lut"][0] > area(base)["lut"][0]
