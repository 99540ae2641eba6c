"""Patterns, accelerators, workloads: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from nmsat.models import Accelerator, Layer, NmsatError, Sparsity, Workload
from nmsat.models.schemas import SCHEMAS, schema_text
from nmsat.models.sparsity import GROUP_SIZES

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "keep", "group", "bits", "size"),
    [
        ("2:4", 2, 4, 2, 5),
        ("2:8", 2, 8, 3, 5),
        ("2:16", 2, 16, 4, 5),
        ("8:32", 8, 32, 5, 21),
        ("1:4", 1, 4, 2, 3),
    ],
)
def test_pattern_format(text, keep, group, bits, size):
    pattern = Sparsity.parse(text)
    assert (pattern.keep, pattern.group, pattern.index_bits, pattern.group_bytes) == (keep, group, bits, size)
    assert str(pattern) == text
    assert Sparsity.parse({"keep": keep, "group": group}) == pattern


def test_every_pattern_of_the_contract_is_legal():
    assert sum(str(Sparsity(n, m)) == f"{n}:{m}" for m in GROUP_SIZES for n in range(1, m)) == sum(GROUP_SIZES) - 5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("8:2", r"^sparsity.keep: must be 1 to 2, not 8; N:M keeps N of every M values \(in '8:2'\)$"),
        ("2:3", r"^sparsity.group: must be one of 2, 4, 8, 16, 32, not 3 \(in '2:3'\)$"),
        ("0:4", r"^sparsity.keep: must be 1 to 4, not 0; .*$"),
        (128, r'^sparsity: must be a pattern such as "2:8" or "dense", not 128; YAML reads a bare 2:8 as the base-60 number 128; write "2:8" in quotes$'),
        ("two", r'^sparsity: must be a pattern such as "2:8" or "dense", not \'two\'$'),
        (None, r'^sparsity: must be a pattern such as "2:8" or "dense", not None$'),
    ],
)  # fmt: skip
def test_bad_patterns(value, message):
    with pytest.raises(NmsatError, match=message):
        Sparsity.parse(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, r"^accelerator 'sat': rows: must be greater than or equal to 1, not 0$"),
        ({"rows": 2**40}, r"^accelerator 'sat': rows: must be less than or equal to 1024, not 1099511627776$"),
        ({"rows": "32"}, r"^accelerator 'sat': rows: must be integer, not '32'$"),
        ({"rowz": 3}, r"^accelerator 'sat': rowz: must be a known key; known: .*rows.*$"),
        ({"max_keep": 9, "max_group": 8}, r"^accelerator 'sat': max_keep: must be at most max_group \(8\), not 9$"),
        ({"dram_interleave_bytes": 3000}, r"^accelerator 'sat': dram_interleave_bytes: must be a power of two, not 3000$"),
        ({"accumulator": "fp64"}, r"^accelerator 'sat': accumulator: must be 'fp32' or 'window', not 'fp64'$"),
        (
            {"accumulator": "window", "window_bits": 54},
            r"^accelerator 'sat': window_bits: must be 55 to 79, L \+ 17 \+ log2 of the products an element adds, not 54$",
        ),
        (
            {"accumulator": "window", "window_lsb": 30, "window_bits": 77},
            r"^accelerator 'sat': window_bits: must be 52 to 76, L \+ 17 \+ log2 of the products an element adds, not 77$",
        ),
        ({"window_lsb": 41}, r"^accelerator 'sat': window_lsb: must be less than or equal to 40, not 41$"),
    ],
)  # fmt: skip
def test_bad_accelerators(changes, message):
    with pytest.raises(NmsatError, match=message):
        Accelerator.load("sat").replace(**changes)


def test_the_window_s_fields_count_only_where_it_is_used():
    sat = Accelerator.load("sat")
    assert sat.replace(window_lsb=30).config_hash() == sat.config_hash()
    assert sat.window is None
    window = sat.replace(accumulator="window")
    assert window.config_hash() not in (sat.config_hash(), window.replace(window_lsb=30).config_hash())
    assert (window.sum_latency_cycles, window.sum_bytes, window.window.terms) == (1, 10, 16384)
    assert (sat.sum_latency_cycles, sat.sum_bytes) == (8, 4)


def test_replace_and_hash():
    sat = Accelerator.load("sat")
    wide = sat.replace(rows=16, cols=64)
    assert (wide.rows, wide.cols, wide.processing_elements) == (16, 64, 1024)
    assert wide.config_hash() != sat.config_hash() == Accelerator.load("sat").config_hash()
    assert sat.dram_cycles(384) == 1
    assert sat.dram_cycles(385) == 2
    assert sat.dram_cycles(0) == 0


LAYER = "{name: a, op: linear, ic: 8, oc: 8}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must be a YAML mapping of keys to values, not None$"),
        ("[1, 2]", r"must be a YAML mapping"),
        ("a: [1", r"line 1: must be valid YAML"),
        ("name: a\nname: b\nlayers: []", r"line 2: must be valid YAML; duplicate key 'name', remove one$"),
        ("name: &x a\nlayers: *x", r"line 2: must be valid YAML; aliases are not allowed, write the value out$"),
        ("name: !!python/object:os.system a", r"must be valid YAML; could not determine a constructor"),
        (f"name: a\nlayers: [{LAYER}]\nlayerz: 1", r"layerz: must be a known key"),
        ("name: a", r"layers: must be given$"),
        ("name: a\nlayers: [{name: a, op: linear, ic: 0, oc: 8}]", r"layers.0.ic: must be greater than or equal to 1, not 0; and 1 more$"),
        ("name: a\nlayers: [{name: a, op: linear, ic: 1099511627776, oc: 8}]", r"layers.0.ic: must be less than or equal to 2147483647"),
        ("name: a\nlayers: [{name: a, op: linear, ic: 8, oc: 8, pattern: 2:8}]", r"layers.0.pattern: must be a pattern .*, not 128; YAML reads a bare 2:8"),
        ("name: a\nlayers: [{name: a, op: linear, ic: 8, oc: 8, pattern: '8:2'}]", r"keep: must be 1 to 2, not 8"),
        ("name: a\nlayers: [{name: a, op: conv, ic: 8}]", r"layers.0.op: must be 'conv2d'"),
        ("name: a\nlayers: [{name: a, op: conv2d, kh: 5, h: 3, w: 9}]", r"layers.0: kh: must be at most size \+ 2\*pad = 3, not 5$"),
        (f"name: a\nlayers: [{LAYER}, {LAYER}]", r"layers: names must be unique, not 'a' twice$"),
        ("name: a\nlayers: [{name: a, op: depthwise, ic: 8, oc: 4, groups: 8}]", r"groups: must equal ic and oc for depthwise"),
        ("name: a\nlayers: [{name: a, op: linear, ic: 4, oc: 4, inputs: [b]}]", r"layers: a.inputs: must name earlier layers, not 'b'$"),
        ("name: a\nlayers: [{name: a, op: elementwise, oc: 4}]", r"function: must be given for an elementwise layer$"),
    ],
)  # fmt: skip
def test_bad_workload_files(tmp_path, text, message):
    path = tmp_path / "net.yaml"
    path.write_text(text)
    with pytest.raises(NmsatError, match=message) as caught:
        Workload.load(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_no_files(tmp_path):
    binary = tmp_path / "x.yaml"
    binary.write_bytes(b"\xff\xfe\x00junk")
    for path, message in (
        (tmp_path / "none.yaml", "must be an existing file"),
        (binary, "must be UTF-8 text"),
        (tmp_path, "not a folder"),
    ):
        with pytest.raises(NmsatError, match=message):
            Workload.load(Path(path))


def test_a_custom_network_round_trips_through_yaml(tmp_path):
    layer = Layer(name="a", op="linear", ic=64, oc=32, tokens=3, pattern=Sparsity(1, 4))
    net = Workload(name="mine", layers=(layer,))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(json.loads(net.model_dump_json(exclude_none=True))))
    assert Workload.load(path) == net


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_current_and_accept_what_ships(name):
    text = schema_text(name)
    assert (ROOT / "docs/schemas" / name).read_text() == text
    folder = {"accelerator": "accelerators", "core": "cores", "energy": "energy", "workload": "zoo"}[
        name.partition(".")[0]
    ]
    assert list((ROOT / "models" / folder).glob("*.yaml"))
    for path in (ROOT / "models" / folder).glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(text))


def test_error_messages_are_one_line():
    error = NmsatError.rule("f.yaml", "a.b", "small", "x" * 500, "shorten it")
    assert re.fullmatch(r"f\.yaml: a\.b: must be small, not 'x+\.\.\.; shorten it", str(error))
