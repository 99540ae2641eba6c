"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nmsat.models.whole_file import remove_leftovers, whole_file, write_whole


@pytest.mark.parametrize("content", [b"", b"\x00\xff", "text, \u00e9\n"], ids=["empty", "bytes", "text"])
def test_a_file_is_written_and_replaced(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text("before")
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["disk full", "interrupted"]
)
def test_what_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write():
        with whole_file(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_cannot_be_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/inside").write_text("kept")
    with pytest.raises(OSError, match="directory"):
        write_whole(tmp_path / "a", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_a_killed_process(tmp_path):
    child = os.fork()
    if not child:
        with whole_file(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            os._exit(0)
    os.waitpid(child, 0)
    (tmp_path / ".mine").write_text("kept")
    (left,) = tmp_path.glob(".a.txt.*.partial")
    assert left.read_text() == "half"
    remove_leftovers(tmp_path)
    assert [Path(p).name for p in tmp_path.iterdir()] == [".mine"]
