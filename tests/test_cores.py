"""Core files: what ships, that every number names its source, and what is refused."""

from __future__ import annotations

import json

import pytest

from nmsat.__main__ import main
from nmsat.models.core import Core
from nmsat.models.errors import NmsatError
from nmsat.models.yaml_io import read_yaml

ARM = [
    "cortex-a53",
    "cortex-a55",
    "cortex-a72",
    "cortex-a73",
    "cortex-a76",
    "cortex-x1",
    "neoverse-n1",
    "neoverse-n2",
    "neoverse-v1",
    "neoverse-v2",
]
ARM_OPERATIONS = """scalar_load scalar_load_pair vector_load vector_load_pair broadcast_load vector_store
vector_store_pair fma multiply add minmax broadcast move alu alu_extended branch prefetch writeback""".split()


@pytest.mark.parametrize("name", Core.names())
def test_every_shipped_core_loads_and_every_source_is_used(name):
    core = Core.load(name)
    assert core.name == name
    assert {source for _, source in core.cited()} <= set(core.sources)
    assert all(len(text) > 20 for text in core.sources.values())


def test_the_arm_cores_know_every_operation_of_the_loops():
    assert set(ARM) <= set(Core.names())
    for name in ARM:
        assert sorted(Core.load(name).operations) == sorted(ARM_OPERATIONS), name


def changed(tmp_path, **changes):
    path = tmp_path / "core.yaml"
    data = read_yaml(__import__("pathlib").Path(__file__).parents[1] / "models/cores/cortex-a72.yaml")
    path.write_text(json.dumps(data | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issue_width": {"value": 0, "source": "llvm"}}, r"issue_width\.value: must be greater than or equal to 1"),
        ({"issue_width": {"value": 3}}, r"issue_width\.source: must be given"),
        (
            {"issue_width": {"value": 3, "source": "rumour"}},
            r"issue_width: must name one of sources \(llvm, .*\), not 'rumour'",
        ),
        ({"caches": []}, r"caches: must .*"),
        ({"isa": "x86-64"}, r"engine: must be none for aarch64, wasmtime or v8 for x86-64, not 'none'"),
        ({"colour": 1}, r"colour: must be a known key"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, changes, message):
    with pytest.raises(NmsatError, match=message) as caught:
        Core.load(changed(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_caches_must_grow(tmp_path):
    level = {"size_bytes": 32768, "source": "trm", "miss_cycles": 1.0, "stream_cycles": 1.0, "miss_source": "trm"}
    with pytest.raises(NmsatError, match=r"caches: must grow from level to level, not \[32768, 32768\]"):
        Core.load(changed(tmp_path, caches=[level, level]))


def test_equal_files_have_equal_hashes(tmp_path):
    core = Core.load("cortex-a72")
    assert core.config_hash() == Core.load(changed(tmp_path)).config_hash()
    assert hash(core) == hash(Core.load("cortex-a72"))
    assert core.config_hash() != Core.load("cortex-a73").config_hash()


def test_list_cores(capsys):
    assert main(["list", "cores", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)["cores"]
    assert [item["name"] for item in listed] == Core.names()
    assert main(["list", "cores"]) == 0
    assert "cortex-a73" in capsys.readouterr().out
