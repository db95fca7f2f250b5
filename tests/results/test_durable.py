"""Records outlive kills, power cuts and a file server that is away for a moment."""

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from mae_bench.core import patience
from mae_bench.core.errors import EnvironmentFault
from results.keeping import kept, write_record
from results.record import FILE, read_record
from results.table import build_table
from tests.results.sample import make_record, place


def test_t01_no_result_is_lost_when_writers_are_killed(tmp_path):
    """Forked writers tell each result they have written; whatever kills them, what was told is there and whole."""
    told = tmp_path / "told"
    children = [_writer(tmp_path / "out", told, number) for number in range(6)]
    time.sleep(0.4)
    for child in children[:3]:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    written = [Path(line) for line in told.read_text().splitlines()]
    assert len(written) >= 3 * 30
    for folder in written:
        assert read_record(folder / FILE, pytest.fail) is not None
    assert len(build_table([tmp_path / "out"], pytest.fail).records) >= len(written)


def _writer(out, told, number):
    child = os.fork()
    if child:
        return child
    try:
        for seed in range(30):
            record = make_record(f"m{number}", seed=seed)
            folder = place(out, record)
            write_record(folder, record)
            append = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(append, f"{folder}\n".encode())
            os.close(append)
            time.sleep(0.005)
    finally:
        os._exit(0)


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the disk, in its order: a file or folder to be made safe with its size, a name to be changed."""
    told, sync, replace = [], os.fsync, Path.replace

    def note_sync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        told.append(("sync", path, path.stat().st_size))
        sync(handle)

    def note_replace(path, target):
        told.append(("replace", path, Path(target)))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    return told


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_t10_a_power_cut_at_any_moment_leaves_the_old_record_or_the_new_one(tmp_path, calls):
    """The whole content is on disk before the name is, and the name before the cell is called done; the old one is kept first."""
    write_record(tmp_path, make_record(metrics={"top1": 1.0}))
    before = make_record(metrics={"top1": 1.0})
    calls.clear()
    write_record(tmp_path, make_record(metrics={"top1": 2.0}))
    names = [kept(tmp_path, before.key), tmp_path / FILE]
    assert [words[2] for words in calls if words[0] == "replace"] == names
    assert len(calls) == 3 * len(names)
    for (first, draft, size), (second, source, target), (third, folder, _) in zip(
        calls[::3], calls[1::3], calls[2::3], strict=True
    ):
        assert (first, second, third) == ("sync", "replace", "sync")
        assert source == draft and folder == target.parent == tmp_path and size == target.stat().st_size > 100


@pytest.fixture
def failing(monkeypatch):
    """Make a call of `Path` fail some times with an error of the system."""
    monkeypatch.setattr(patience, "WAITS", (0.0, 0.0))

    def fail(name, number, times):
        whole, left = getattr(Path, name), [times]

        def call(path, *words, **more):
            left[0] -= 1
            if left[0] >= 0:
                raise OSError(number, os.strerror(number), str(path))
            return whole(path, *words, **more)

        monkeypatch.setattr(Path, name, call)

    return fail


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_t05_a_server_that_comes_back_costs_no_record(tmp_path, failing, number):
    record = make_record()
    failing("replace", number, 2)
    write_record(tmp_path, record)
    failing("read_bytes", number, 2)
    assert read_record(tmp_path / FILE, pytest.fail) == record
    assert not list(tmp_path.glob("*.tmp"))


def test_t05_a_server_that_stays_away_is_one_line(tmp_path, failing):
    failing("replace", errno.EIO, 10**9)
    with pytest.raises(EnvironmentFault, match=r"record\.json: Input/output error") as raised:
        write_record(tmp_path, make_record())
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())
    lines = []
    failing("read_bytes", errno.ESTALE, 10**9)
    assert read_record(tmp_path / FILE, lines.append) is None and len(lines) == 1


def test_t05_a_full_disk_is_not_waited_for(tmp_path, failing, monkeypatch):
    monkeypatch.setattr(patience, "WAITS", (60.0, 60.0))
    failing("replace", errno.ENOSPC, 1)
    with pytest.raises(EnvironmentFault, match="No space left"):
        write_record(tmp_path, make_record())
    write_record(tmp_path, make_record())
    assert json.loads((tmp_path / FILE).read_text())["seed"] == 0
