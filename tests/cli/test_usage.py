"""Words that cannot be parsed: the nearest one there is, and where to read on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_cli import ROOT, call
from tests.cli.test_status_pretraining import write

__all__ = ["call"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("runn", "No such command 'runn'; did you mean run?; see mae-bench --help"),
        ("run --sedes 1", "No such option: --sedes; did you mean --seeds?; see mae-bench run --help"),
        ("show recip", "No such command 'recip'; did you mean recipe?; see mae-bench show --help"),
        ("show recipe knn paper", "see mae-bench show recipe --help"),
        ("--versoin", "did you mean --version?; see mae-bench --help"),
        ("run --jobs x -o y", "Invalid value for '--jobs': give a whole number; see mae-bench run --help"),
        ("pretrain mae -d folder=x -o y --arch a --throughput z", "'--throughput': give a number; see mae-bench pretrain --help"),
        ("run -o", "Option '-o' requires an argument; see mae-bench run --help"),
        ("pretrain mae -o x", "Missing option '--arch'"),
        ("compare x -m a", "1 model given; write -m A -m B"),
    ],
)
def test_the_nearest_word_and_where_to_read_on(call, words, line):
    code, _, error = call(*words.split())
    assert code == 2 and line in error and len(error.splitlines()) == 1


def test_retry_writes_nothing_where_there_are_no_cells(call, tmp_path):
    code, _, error = call("retry", tmp_path)
    assert code == 3 and "holds no cells of a run; give the folder" in error and not list(tmp_path.iterdir())
    write(tmp_path / "mae", losses=3, status="stopped")
    code, _, error = call("retry", tmp_path)
    assert code == 3 and "a pretraining there goes on by: mae-bench pretrain mae --arch vit_demo_patch8" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_output_is_one_line():
    words = [sys.executable, "-m", "mae_bench.cli", "ls", "recipes"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 4 and "no space is left" in done.stderr and len(done.stderr.splitlines()) == 1
