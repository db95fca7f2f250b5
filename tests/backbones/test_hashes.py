"""A large file is hashed once: not again while it is as it was, and again whatever was done to it."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from backbones import hashes
from backbones.opened import OpenFile


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that counts as large and as long at rest, and the times that one was hashed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "SMALLEST", 1)
    monkeypatch.setattr(hashes, "SETTLED_NS", 0)
    hash_it, counted = OpenFile._hash, []
    monkeypatch.setattr(OpenFile, "_hash", lambda file: counted.append(file) or hash_it(file))
    path = tmp_path / "weights.pth"
    path.write_bytes(b"a" * 1000)
    return path, counted


def hashed(path: Path) -> str:
    file = OpenFile(path)
    file.start_hash()
    return file.sha256


def right(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_hashed_once(large):
    path, counted = large
    assert hashed(path) == hashed(path) == right(path) and len(counted) == 1
    (path.parent / "link.pth").symlink_to(path)
    assert hashed(path.parent / "link.pth") == right(path) and len(counted) == 1


@pytest.mark.parametrize("change", ["written", "written and its time put back", "replaced", "copied over with its time"])
def test_C18_a_file_that_was_changed_is_hashed_again(large, change):
    path, counted = large
    hashed(path)
    before = path.stat()
    if change == "replaced":
        (path.parent / "other").write_bytes(b"b" * 1000)
        (path.parent / "other").replace(path)
    else:
        path.write_bytes(b"b" * 1000)
    if "time" in change:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hashed(path) == right(path) and len(counted) == 2


def test_a_file_that_was_just_written_is_not_remembered(large, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED_NS", 60 * 10**9)
    path, counted = large
    assert hashed(path) == hashed(path)
    assert len(counted) == 2


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"state": [1, 2, 3], "sha256": "x"}', None])
def test_a_damaged_memory_is_done_without(large, content):
    path, counted = large
    hashed(path)
    (memory,) = (path.parent / "cache" / "mae-bench" / "sha256").iterdir()
    if content is None:
        memory.write_text(json.dumps({**json.loads(memory.read_text()), "sha256": "../../x"}))
    else:
        memory.write_bytes(content)
    assert hashed(path) == right(path) and len(counted) == 2


def test_a_place_that_cannot_be_written_is_done_without(large, monkeypatch):
    path, counted = large
    (path.parent / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent / "file"))
    assert hashed(path) == hashed(path) == right(path) and len(counted) == 2
