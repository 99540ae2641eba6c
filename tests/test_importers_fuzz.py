"""Mutated files of every format: read or refused in one line, never a traceback, a crash, a wait or a full memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

READERS = Path(__file__).parent / "fuzz" / "readers.py"
FILES = {"onnx": 700, "pt2": 500, "safetensors": 600, "npz": 500, "workload-npz": 300, "yaml": 300}


def run(kind: str, files: int, seed: int, folder: Path) -> dict:
    command = [sys.executable, str(READERS), kind, str(files), str(seed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", FILES)
def test_mutated_files_are_read_or_refused(kind, tmp_path):
    found = run(kind, FILES[kind], 1, tmp_path)
    assert found["failures"] == []
    assert found["refused"] > found["files"] // 10  # the mutations do hurt


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_many_mutated_files(kind, tmp_path):
    assert run(kind, 20_000, 2, tmp_path)["failures"] == []


def test_two_thousand_files_are_tried():
    assert sum(FILES.values()) >= 2000
